"""What to know before writing a plan, as warnings of the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.errors import ModelWarning, printable
from ggufext.header.architectures import Support
from ggufext.header.frequencies import ROPE_FACTORS_SHORT
from ggufext.planning.combining import Form
from ggufext.planning.edits import peculiarities
from ggufext.planning.footprint import CELL_PADDING
from ggufext.planning.gamma import FACTOR_NEEDS_FINETUNE, GAMMA_DEGRADED
from ggufext.planning.methods import Method
from ggufext.planning.native import NativeKind, can_keep_short, starts_at_training, turns
from ggufext.planning.study_record import STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ggufext.header.facts import ModelFacts
    from ggufext.planning.combining import Combination, Extension
    from ggufext.planning.native import NativeScaling
    from ggufext.planning.request import PlanRequest
    from ggufext.planning.result import Gamma

_GAMMA_RULE_STATUS = f"{STATUS}: measure this model"


def support_warnings(facts: ModelFacts) -> tuple[ModelWarning, ...]:
    """What holds for a file, whatever is planned."""
    found: list[ModelWarning] = []
    if facts.scaling.spreads_positions:
        found.append(ModelWarning("factor_below_one", facts.scaling.spread))
    if not facts.has_tensors:
        found.append(
            ModelWarning(
                "no_tensors",
                "the file holds no tensors, so whether llama.cpp loads a model with these keys was "
                "not judged",
            )
        )
    if facts.support is not Support.VERIFIED:
        found.append(
            ModelWarning(
                "unverified_architecture",
                "what llama.cpp does with the RoPE keys of "
                f"{printable(facts.architecture, 64)} was not verified by experiment; rewrite "
                "needs --force",
            )
        )
    return tuple(found)


def needs_finetuning(request: PlanRequest, made: Combination) -> bool:
    """Whether a plan is expected to find nothing before the model was trained with it."""
    return request.method is Method.LINEAR and made.form is not Form.UNCHANGED


def keeps_short(wanted: Extension, made: Combination) -> bool:
    """Whether contexts up to the plan's original length rotate as before."""
    is_long = made.form is Form.LONG and made.original_length > 0
    return is_long and (wanted.request.keep_short or wanted.native.kind is NativeKind.LONGROPE)


def earlier_extension_warnings(facts: ModelFacts) -> tuple[ModelWarning, ...]:
    """That a file was extended before, and what is planned from; or that it may have been."""
    earlier = facts.earlier_extension
    if earlier is None:
        return unusual_base(facts)
    if earlier.method is not None:
        tells = f"by {printable(earlier.method, 20)}, as its record says"
    else:
        tells = "as rope.scaling.original_context_length says"
    base = f"base {facts.freq_base:,.10g}" if earlier.freq_base_known else "a base that is unknown"
    return (
        ModelWarning(
            "extended_before",
            f"the file was extended before, to {earlier.target_length:,} tokens {tells}: planned "
            f"from the model before it, {facts.train_length:,} tokens and {base}",
        ),
    )


def unusual_base(facts: ModelFacts) -> tuple[ModelWarning, ...]:
    """That the base is not the one of the family's files: a hint, since base alone tells little."""
    said = facts.published
    if said is None or said.freq_base is None or facts.freq_base == said.freq_base:
        return ()
    return (
        ModelWarning(
            "base_unusual",
            f"the base is {facts.freq_base:,.10g}, files of {said.family} say "
            f"{said.freq_base:,.10g}: the file may have been extended before; --train-length and "
            "--train-freq-base say what the model was trained with",
        ),
    )


def context_length_warnings(facts: ModelFacts, factor: float) -> tuple[ModelWarning, ...]:
    """What holds where only context_length is raised."""
    if factor <= 1.0:
        return ()
    return (
        ModelWarning(
            "rotation_not_extended",
            f"only context_length is raised: that helps a model trained on the target; this one "
            f"was trained on {facts.train_length:,} tokens "
            f"({printable(facts.train_length_source, 160)}), unless --train-length says otherwise",
        ),
    )


def extension_warnings(
    wanted: Extension, made: Combination, gammas: Gamma, *, changes: bool
) -> tuple[ModelWarning, ...]:
    """What holds for an extension.

    Parameters
    ----------
    changes : bool
        Whether the plan writes anything.
    """
    facts = wanted.facts
    found = [ModelWarning("gamma_rule_not_validated", _GAMMA_RULE_STATUS)]
    if not changes:
        found.insert(
            0,
            ModelWarning(
                "changes_nothing", "the file already holds these values: nothing would be written"
            ),
        )
    found += peculiarities(facts, made)
    if made.form is Form.UNCHANGED:
        return tuple(found)
    found += _native(facts, wanted.native)
    found += _domain_of_gamma(facts, gammas)
    if wanted.factor > FACTOR_NEEDS_FINETUNE:
        found.append(
            ModelWarning(
                "factor_above_4",
                f"factor {wanted.factor:g} is above 4: without fine-tuning expect losses; choose "
                "the smallest target that serves",
            )
        )
    found += _method(wanted, made)
    found += _short_contexts(wanted, made)
    return tuple(found)


def _native(facts: ModelFacts, native: NativeScaling) -> Iterator[ModelWarning]:
    if starts_at_training(facts):
        yield ModelWarning(
            "scaling_replaced",
            f"the file's {facts.scaling.type} scaling by {facts.scaling.factor:g} starts from the "
            f"{facts.train_length:,} tokens of the training "
            f"({printable(facts.train_length_source, 160)}): it counts as an extension, and the "
            "plan takes its place",
        )
    if native.kind is NativeKind.NONE:
        return
    if not facts.scaling.spreads_positions:
        yield ModelWarning(
            "native_scaling",
            f"the model was trained with {native.kind.value} scaling: the extension starts from "
            f"its frequencies at {facts.train_length:,} tokens",
        )
    if native.kind not in {NativeKind.ROPE_FREQS, NativeKind.LONGROPE}:
        return
    longest, pairs = native.stretch(facts), len(native.inv_freq)
    yield ModelWarning(
        "gamma_not_defined",
        "the γ rule is not defined for frequencies with factors: its figures here "
        + (
            f"take the base for {longest:.4g} times as large, by the most stretched pair"
            if longest > 1.0
            else "take the base alone"
        ),
    )
    turning = sum(map(turns, native.inv_freq))
    if turning < pairs:
        yield ModelWarning(
            "slow_pairs_off",
            f"{turning} of {pairs} pairs turn in this model, the slow ones do not: γ and verdict "
            "count on those and say little here; the angles count what turns",
        )


def _domain_of_gamma(facts: ModelFacts, gammas: Gamma) -> Iterator[ModelWarning]:
    if gammas.native <= GAMMA_DEGRADED:
        yield ModelWarning(
            "gamma_not_defined",
            f"γ is {gammas.native:.3f} at {facts.train_length:,} tokens already, where the model "
            f"was trained: the γ rule, which calls {GAMMA_DEGRADED:g} and less degraded, does not "
            "describe this model, and its verdict says nothing about an extension",
        )


def _method(wanted: Extension, made: Combination) -> Iterator[ModelWarning]:
    is_static = wanted.request.method in {Method.LINEAR, Method.YARN}
    if is_static and not keeps_short(wanted, made):
        yield ModelWarning(
            "short_texts",
            "static scaling (yarn, linear) acts on short texts too and costs them quality; choose "
            "the smallest target that serves",
        )
    if needs_finetuning(wanted.request, made):
        yield ModelWarning(
            "linear_needs_finetuning",
            "linear interpolation usually needs fine-tuning at the new length, which its verdict "
            "counts on; without it retrieval tends to fail at every length",
        )


def _short_contexts(wanted: Extension, made: Combination) -> Iterator[ModelWarning]:
    facts, native, request = wanted.facts, wanted.native, wanted.request
    original = made.original_length
    # Of factors from a recipe, where there are none for short contexts and nothing else acts there.
    scales_attention = made.attention_factor_written != 1.0
    has_short = ROPE_FACTORS_SHORT in dict(made.tensors)
    stays = made.form is Form.LONG and not (scales_attention or has_short)
    if made.attention_dropped:
        yield ModelWarning(
            "attention_factor_dropped",
            f"the attention factor of {request.method.value} is left out: it would act on contexts "
            f"up to {original:,} tokens too, which --keep-short leaves as they are",
        )
    if request.keep_short and original % CELL_PADDING:
        yield ModelWarning(
            "context_rounded",
            f"llama.cpp rounds contexts up to {CELL_PADDING} tokens, so those above "
            f"{original // CELL_PADDING * CELL_PADDING:,} use the long factors already",
        )
    if native.kind is NativeKind.LONGROPE:
        yield ModelWarning(
            "new_long_factors",
            f"the plan writes new long factors: contexts up to {original:,} tokens stay as they are"
            if original
            else "rope.scaling.original_context_length is 0, so that llama.cpp rotates with the "
            "long factors in every context: the plan writes new ones, which act on short texts "
            "too; --keep-short leaves the old ones to contexts up to "
            f"{facts.train_length:,} tokens",
        )
    elif not (request.keep_short or stays) and can_keep_short(facts, native):
        yield ModelWarning(
            "keep_short_possible",
            f"--keep-short would rotate contexts up to {facts.train_length:,} tokens exactly as "
            "trained: the size of the context decides, not that of the text, so it helps where "
            "short texts are run with a short --ctx-size",
        )
