"""Plans in words: the same on a terminal and on the page that plans."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from ggufext.errors import printable
from ggufext.planning.gamma import Verdict
from ggufext.planning.methods import Method
from ggufext.text import binary_size, counted, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ggufext.header.layers import LayerInFile
    from ggufext.planning.evidence import Measurement
    from ggufext.planning.footprint import CacheFit
    from ggufext.planning.measured import Measured, Recommended
    from ggufext.planning.result import Plan


def plan_lines(made: Plan) -> Iterator[str]:
    """A plan in a few lines of text, those of an entry below it."""
    gamma, target = made.gamma, f"{made.target_length:,}"
    if made.verdict is Verdict.NO_EXTENSION_NEEDED:
        what = ": the rotation stays, context_length is raised" if made.edits else ""
        yield f"  {target} tokens need no extension ({made.verdict.value}){what}"
        if made.long_factors != made.short_factors and made.edits:
            above = f"{made.original_length:,}"
            yield f"  the factors for long contexts act above {above} tokens only"
        yield from _edits(made)
        return
    if made.method is Method.CONTEXT_LENGTH:
        how = "the rotation stays as it is"
    elif made.freq_base.before != made.freq_base.after:
        how = f"base {made.freq_base.before:,.10g} → {made.freq_base.after:,.10g}"
    else:
        by = "factor tensors" if made.tensor_edits else f"factor {made.freq_scale_factor:g}"
        how = f"base stays {made.freq_base.before:,.10g}, frequencies by {by}"
    yield f"  {made.method.value} to {target} tokens (factor {made.factor:g}), {how}"
    if made.keep_short:
        yield f"  contexts up to {made.original_length:,} tokens stay as they are"
    yield (
        f"  γ {gamma.native:.3f} at training length; at {target} {gamma.unscaled:.3f} without "
        f"extension, {gamma.effective:.3f} with this plan"
    )
    if made.d_horizon is not None:
        yield (
            f"  d_horizon {made.d_horizon:,.0f} tokens (base {made.freq_base.before:,.10g}, "
            f"γ {gamma.effective:.3f})"
        )
    angles = made.out_of_distribution
    yield (
        f"  angles beyond training: {angles.pairs} of {made.turning_pairs} pairs, at most "
        f"{angles.max_excess:.3g} times"
    )
    yield f"  KV cache at {target}: {cache_sizes(made)}"
    if (known := made.measured) is not None:
        yield (
            f"  measured on {known.model} at factor {known.factor:g}: "
            f"{measurement_text(known.measurement)}; {known.source}"
        )
    if made.recommended is not None:
        yield from (f"  {line}" for line in recommendation_lines(made.recommended))
    yield f"  expectation: {made.verdict.value} (derived, not measured)"
    yield from _edits(made)


def _edits(made: Plan) -> Iterator[str]:
    for edit in made.edits:
        before = "absent" if edit.before is None else edit.before
        after = printable(str(edit.after), 80)
        yield f"    {printable(edit.key, 100)}: {printable(str(before), 80)} → {after}"
    for tensor in made.tensor_edits:
        after = f"{len(tensor.after)} factors, {tensor.after[0]:.4g} … {tensor.after[-1]:.4g}"
        yield f"    {tensor.name}: {'new' if tensor.before is None else 'replaced'}, {after}"


def recommendation_lines(found: Recommended) -> Iterator[str]:
    """Which method the record recommends, and the evidence, a line each."""
    methods = " or ".join(method.value for method in found.methods)
    yield (
        f"recommended by what was measured on {found.model} at factor {found.factor:g}: {methods} "
        f"({found.source})"
    )
    for each in found.comparisons:
        yield f"  gamma is {_VERDICTS[each.verdict]} {measurement_text(each.measurement)}"


#: Of comparisons, in front of what was measured.
_VERDICTS = {
    "better": "better by",
    "worse": "worse by",
    "the same": "the same in",
    "undecided": "undecided in",
}


def _factors_of_pairs(made: Plan) -> str | None:
    """What a plan's tensor divides the fastest to the slowest pair by, five of them."""
    if not made.tensor_edits:
        return None
    factors = made.tensor_edits[0].after
    last = len(factors) - 1
    return " ".join(f"{factors[last * step // 4]:.3g}" for step in range(5))


def head_line(made: Plan) -> str:
    """What is planned for, to stand behind the name of the file."""
    length, source = f"{made.train_length.value:,}", printable(made.train_length.source, 160)
    base = made.freq_base
    default = ""
    if base.is_default:
        default = f", base {base.before:,.10g} ({base.source})"
    architecture = printable(made.architecture, 64)
    return f"{architecture}, trained on {length} tokens ({source}){default}"


def cache_sizes(made: Plan) -> str:
    """KV cache at the target length, by the type of its elements."""
    cache = made.kv_cache_bytes
    sizes = {"f16": cache.f16, "q8_0": cache.q8_0, "q4_0": cache.q4_0}
    return ", ".join(f"{name} {binary_size(n)}" for name, n in sizes.items() if n is not None)


#: Columns of the table of methods; one more where something was measured.
TABLE = ("method", "base", "factor", "attention", "γ", "angles beyond training", "expectation")


def table(
    plans: Sequence[Plan], documented: Plan | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Methods side by side.

    Parameters
    ----------
    plans : sequence of Plan
        Of one model and one target, > 0 of them.
    documented : Plan, optional
        The extension that the model's publisher documents, another row.

    Returns
    -------
    heads : tuple of str
        `TABLE`, the factor's named for what it holds, and ``"measured"`` where a plan has that.
    rows : list of tuple of str
    """
    measured = any(made.measured is not None for made in plans)
    heads = list(TABLE) + ["measured"] * measured
    if any(made.tensor_edits for made in plans):
        heads[TABLE.index("factor")] += ", or of pairs"
    named = [(made.method.value, made) for made in plans]
    if documented is not None:
        name, length = documented.method.value, documented.target_length
        reach = f" to {length:,}" if length != plans[0].target_length else ""
        named.append((f"{name}{reach}, documented", documented))
    rows = []
    for name, made in named:
        angles, known = made.out_of_distribution, made.measured
        row: tuple[str, ...] = (
            name,
            f"{made.freq_base.after:,.8g}",
            _factors_of_pairs(made) or f"{made.freq_scale_factor:g}",
            f"{made.attention_factor:.4f}",
            f"{made.gamma.effective:.3f}",
            f"{angles.pairs} pairs, ×{angles.max_excess:.3g}",
            made.verdict.value,
        )
        value = measured_value(known.measurement) if known else ""
        rows.append((*row, value) if measured else row)
    return tuple(heads), rows


def target_line(made: Plan) -> str:
    """What every method is planned for, and what happens without any."""
    return (
        f"target {made.target_length:,} tokens (factor {made.factor:g}), "
        f"γ {made.gamma.native:.3f} at training length, {made.gamma.unscaled:.3f} at the target "
        "without extension"
    )


def table_lines(plans: Sequence[Plan]) -> Iterator[str]:
    """What stands below the table: what was measured, what that recommends, and memory."""
    known = (made.measured for made in plans if made.measured is not None)
    yield from dict.fromkeys(map(_measured_line, known))
    first = plans[0]
    if first.recommended is not None:
        yield from recommendation_lines(first.recommended)
    yield f"KV cache at {first.target_length:,} tokens: {cache_sizes(first)}"


def _measured_line(found: Measured) -> str:
    """What the column of measured values is of."""
    return (
        f"measured: {measure_name(found.measurement)}, on {found.model} at factor "
        f"{found.factor:g} ({found.source})"
    )


def fit_line(fit: CacheFit, target_length: int) -> str:
    """Whether a context fits into a memory."""
    state = "fits" if fit.fits else "does not fit"
    return (
        f"{fit.cache_type} KV cache {binary_size(fit.bytes)} at {target_length:,} tokens: "
        f"{state} with the weights and {binary_size(fit.compute_bytes)} to compute; longest "
        f"context {fit.largest_context:,} tokens"
    )


def layer_rows(layers: Sequence[LayerInFile]) -> Iterator[tuple[str, str]]:
    """Which layers, and what they do; neighbours that are alike in one row."""
    for what, group in groupby(layers, key=_layer):
        numbers = [layer.layer for layer in group]
        name = f"layer {numbers[0]}"
        if len(numbers) > 1:
            name = f"layers {numbers[0]} to {numbers[-1]}"
        yield name, what


def _layer(layer: LayerInFile) -> str:
    sees = "sees everything" if layer.window is None else f"sees {layer.window:,} tokens"
    if layer.rotates:
        rotation = f"base {layer.freq_base:,.10g} in {layer.rotary_dim} dimensions"
    else:
        rotation = "no rotation"
    held = "no KV cache of its own"
    if layer.head_count_kv:
        heads = counted(layer.head_count_kv, "KV head")
        held = f"{heads} of {layer.key_length} + {layer.value_length}"
    moves = "moved by an extension" if layer.moves else "kept as trained"
    return f"{sees}, {rotation}, {moves}; {held}"


#: Of measures: their name, what was counted, and how their values are written.
_MEASURES: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "loss_beyond": ("loss beyond the training length", "tokens", "{:+.3f}".format),
    "loss_within": ("loss within the training length", "tokens", "{:+.3f}".format),
    "mean_loss_beyond": ("mean loss beyond the training length", "texts", "{:+.3f}".format),
    "mean_loss_within": ("mean loss within the training length", "texts", "{:+.3f}".format),
    "divergence": ("divergence", "positions", "{:.3f}".format),
    "same_top": ("same token expected most", "positions", percent),
    "keys_at_target": ("keys found at the target", "keys", percent),
}


def _of_measure(found: Measurement) -> tuple[str, str, Callable[[float], str]]:
    """As `_MEASURES` has it; a record of another version may hold one that this one does not."""
    return _MEASURES.get(found.measure, (printable(found.measure, 40), "", "{:.3f}".format))


def measure_name(found: Measurement) -> str:
    """What was measured, and against what."""
    against = "" if found.against is None else f" against {printable(found.against, 60)}"
    return _of_measure(found)[0] + against


def measured_value(found: Measurement) -> str:
    """A value and what it was counted on: ``80 % of 54 keys``."""
    _, units, written = _of_measure(found)
    return f"{written(found.value)} of {found.n:,} {units}".rstrip()


def measurement_text(found: Measurement) -> str:
    """What was measured, with its interval."""
    ends = ""
    if found.interval is not None:
        low, high = map(_of_measure(found)[2], found.interval)
        ends = f" (95 %: {low} to {high})"
    return f"{measure_name(found)} {measured_value(found)}{ends}"
