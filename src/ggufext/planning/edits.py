"""What a combination changes in a file: metadata keys and factor tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ggufext.errors import ModelWarning, PlanError
from ggufext.header import rope_keys
from ggufext.header.architectures import FactorSupport, Layout
from ggufext.header.facts import DEFAULT_FREQ_BASE
from ggufext.header.frequencies import ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, ROPE_FREQS
from ggufext.planning.combining import Form, factor_key
from ggufext.planning.methods import as_float32
from ggufext.planning.result import MetadataEdit, TensorEdit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.header.facts import ModelFacts
    from ggufext.header.header import Value
    from ggufext.header.layers import LayerFacts
    from ggufext.planning.combining import Combination


def metadata_edits(
    facts: ModelFacts,
    made: Combination,
    target_length: int,
    *,
    freq_base_swa: float | None,
) -> tuple[MetadataEdit, ...]:
    """Keys to write; those that hold the value already are left out.

    Facts without keys do not come from a GGUF file, which leaves nothing to edit.

    Parameters
    ----------
    freq_base_swa : float or None
        Base that local layers have to keep.
    """
    if not facts.metadata:
        return ()
    today = dict(facts.metadata)
    prefix = f"{facts.architecture}."
    edits: list[MetadataEdit] = []

    def write(suffix: str, after: Value) -> None:
        before = today.get(prefix + suffix)
        if before != after:
            edits.append(MetadataEdit(prefix + suffix, rope_keys.EDITED[suffix], before, after))

    if made.form is Form.UNCHANGED and target_length <= facts.context_length:
        return ()
    write(rope_keys.CONTEXT_LENGTH, target_length)
    if made.form is not Form.UNCHANGED:
        _write_rotation(facts, made, write, freq_base_swa)
    if made.form is not Form.UNCHANGED or _original_length_acts(facts):
        # Without this key llama.cpp takes context_length for it, which is raised.
        write(rope_keys.ORIGINAL_LENGTH, made.original_length)
    if made.attention_factor_written != facts.scaling.attention_factor:
        write(rope_keys.ATTN_FACTOR, made.attention_factor_written)
    return tuple(edits)


def _original_length_acts(facts: ModelFacts) -> bool:
    """Whether the file as it is rotates or attends by its original length."""
    scaling = facts.scaling
    mixes = scaling.mix != 0.0 and scaling.factor_in_effect != 1.0
    long_or_short = {ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT} & set(scaling.factor_tensors)
    return mixes or facts.original_length_acts or bool(long_or_short)


def _write_rotation(
    facts: ModelFacts,
    made: Combination,
    write: Callable[[str, Value], None],
    freq_base_swa: float | None,
) -> None:
    rotation = made.rotation
    # The file may hold another base than that of the training.
    today = dict(facts.metadata)[f"{facts.architecture}.{rope_keys.FREQ_BASE}"]
    after = as_float32(rotation.freq_base / facts.freq_base_multiplier)
    if after != (DEFAULT_FREQ_BASE if today is None else today):
        write(rope_keys.FREQ_BASE, after)
    if freq_base_swa is not None:
        write(rope_keys.FREQ_BASE_SWA, freq_base_swa)
    assert made.form.value is not None
    write(rope_keys.SCALING_TYPE, made.form.value)
    if made.form in {Form.LINEAR, Form.YARN} or facts.has_scaling_factor:
        after = factor_key(facts, made)
        if made.form is not Form.BASE or after != facts.scaling.factor:
            write(rope_keys.SCALING_FACTOR, after)
    usual = facts.scaling.yarn
    keys = made.yarn or usual
    if keys.ext_factor != usual.ext_factor:
        assert keys.ext_factor is not None
        write(rope_keys.YARN_EXT_FACTOR, keys.ext_factor)
    if keys.beta_fast != usual.beta_fast:
        write(rope_keys.YARN_BETA_FAST, keys.beta_fast)
    if keys.beta_slow != usual.beta_slow:
        write(rope_keys.YARN_BETA_SLOW, keys.beta_slow)


def tensor_edits(
    facts: ModelFacts, made: tuple[tuple[str, tuple[float, ...]], ...]
) -> tuple[TensorEdit, ...]:
    """Tensors to write, by name; those that hold the values already are left out."""
    today = dict(facts.factors) | dict(facts.left_over)
    return tuple(
        TensorEdit(name, today.get(name), after) for name, after in made if today.get(name) != after
    )


def neutral_factors(
    facts: ModelFacts, form: Form, written: tuple[tuple[str, tuple[float, ...]], ...]
) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Tensors of an earlier extension that a plan does not write, made to divide by 1.

    They stay in the file: taking a tensor out of the middle would move all weights behind it.

    Parameters
    ----------
    form : Form
        Of the plan.
    written : tuple of (str, tuple of float)
        What the plan writes by itself.

    Raises
    ------
    PlanError
        ``cannot_combine``: llama.cpp would not load the file with such a tensor.
    """
    names = {name for name, _ in written}
    found = [(name, values) for name, values in facts.left_over if name not in names]
    for name, _ in found:
        if facts.factor_support is FactorSupport.BY_TYPE and (
            (name == ROPE_FREQS) == (form is Form.LONG)
        ):
            other = "without" if form is Form.LONG else "with"
            raise PlanError(
                code="cannot_combine",
                field=name,
                message="was added by an earlier extension and stays in the file; with it "
                f"llama.cpp loads {facts.architecture} only where the method is written {other} "
                "--keep-short; choose that, or extend the original file",
            )
    return tuple((name, (1.0,) * len(values)) for name, values in found)


def moves_nothing(facts: ModelFacts) -> bool:
    """Whether no layer rotates that sees the whole context: then an extension rotates none."""
    return not any(layer.moves for layer in facts.layers)


def local_freq_base(facts: ModelFacts, made: Combination, *, force: bool) -> float | None:
    """Value of rope.freq_base_swa that keeps the local layers as they were trained.

    Parameters
    ----------
    facts : ModelFacts
    made : Combination
        For the layers that the extension is meant for.
    force : bool
        Accept that local layers change.

    Returns
    -------
    float or None
        None: nothing has to be written.

    Raises
    ------
    PlanError
        ``local_layers_would_change``.
    """
    local = tuple(layer for layer in facts.layers if layer.rotates and not layer.moves)
    scaled = tuple(layer for layer in local if layer.follows_scaling)
    based = tuple(layer for layer in local if layer.follows_freq_base)
    base_can_be_kept = all(layer.freq_base_can_be_kept for layer in based)
    rotation = made.rotation
    # gamma does not go on top of a model's own scaling.
    way_out = "gamma" if base_can_be_kept and not facts.scaling.in_effect else None
    if made.tensors and scaled and not force:
        raise _refusal(facts, scaled, "rope.scaling.type", way_out)
    if any(_rescaled(facts, made, layer) for layer in scaled) and not force:
        raise _refusal(facts, scaled, "rope.scaling.factor", way_out)
    reached = tuple(layer for layer in local if layer.follows_attention)
    if made.attention_factor_written != facts.scaling.attention_factor and reached and not force:
        raise _refusal(facts, reached, "rope.scaling.attn_factor", "yarn")
    if rotation.freq_base == facts.freq_base or not based:
        return None
    if base_can_be_kept:
        return based[0].freq_base
    if force:
        return None
    raise _refusal(facts, based, "rope.freq_base", None if scaled else "yarn")


def _rescaled(facts: ModelFacts, made: Combination, layer: LayerFacts) -> bool:
    """Whether positions of a local layer that scaling reaches are divided by another number."""
    if layer.scaled_under_none:
        return factor_key(facts, made) != facts.scaling.factor
    return made.rotation.freq_scale_factor != facts.scaling.factor_in_effect


def _refusal(
    facts: ModelFacts, layers: tuple[LayerFacts, ...], key: str, way_out: str | None
) -> PlanError:
    instead = f"; method {way_out} leaves them alone" if way_out else ""
    return PlanError(
        code="local_layers_would_change",
        field=f"{facts.architecture}.{key}",
        message=f"would change the rotation of {len(layers)} of {len(facts.layers)} layers too, "
        f"which see {layers[0].window:,} tokens and need no extension; llama.cpp cannot keep "
        f"them apart for {facts.architecture}{instead}; `plan` and `rewrite` accept it with "
        "--force",
    )


def peculiarities(facts: ModelFacts, made: Combination) -> list[ModelWarning]:
    """What is special about the layers of a model that is extended."""
    found: list[ModelWarning] = []
    if moves_nothing(facts):
        found.append(
            ModelWarning(
                "only_context_length",
                "no layer that sees the whole context rotates: every method only raises "
                "context_length, and γ says nothing about this model",
            )
        )
    elif facts.scales_attention:
        scaling, keys = facts.scaling, made.yarn or facts.scaling.yarn
        factor = made.rotation.freq_scale_factor
        before = scaling.yarn.score_factor(scaling.factor_in_effect, scaling.mix)
        after = keys.score_factor(factor, keys.mix(made.form.value or scaling.type))
        if not math.isclose(before, after):
            found.append(
                ModelWarning(
                    "attention_scaled",
                    f"llama.cpp multiplies every score of attention of {facts.architecture} by "
                    f"{after:.4g} under this plan ({before:.4g} today), the parts that are not "
                    "rotated too; "
                    + (
                        f"yarn_log_multiplier counts as mscale_all_dim {keys.mscale_all_dim:.4g}"
                        if keys.mscale_all_dim
                        else "the file has no yarn_log_multiplier"
                    ),
                )
            )
    if facts.layout is Layout.SECTIONS:
        found.append(
            ModelWarning(
                "vision_positions",
                "positions of images are rotated by the same frequencies; what an extension does "
                "to them is not measured here",
            )
        )
    return found


def acting_edits(facts: ModelFacts, edits: tuple[MetadataEdit, ...]) -> tuple[MetadataEdit, ...]:
    """A plan that moves the base, without keys that would only tell what the file was.

    A type ``none`` where nothing is scaled, and the length before the extension where nothing
    rotates or attends by it: llama.cpp computes the same with and without them.
    """
    after = {edit.key.removeprefix(f"{facts.architecture}."): edit.after for edit in edits}
    told = {rope_keys.SCALING_TYPE, rope_keys.ORIGINAL_LENGTH}
    moving = {rope_keys.CONTEXT_LENGTH, rope_keys.FREQ_BASE, rope_keys.FREQ_BASE_SWA}
    scales = facts.scaling.in_effect or facts.has_scaling_factor or _original_length_acts(facts)
    if (
        scales
        or after.get(rope_keys.SCALING_TYPE, "none") != "none"
        or after.keys() - told - moving
    ):
        return edits
    return tuple(
        edit
        for edit in edits
        if edit.before is not None or edit.key.removeprefix(f"{facts.architecture}.") not in told
    )
