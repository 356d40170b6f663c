"""What the reports show and say: the same sentences in the terminal, on the page and in the PNG."""

from __future__ import annotations

from dataclasses import fields, replace
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING

from ggufext.audit.findings.results import ComparisonTest
from ggufext.audit.findings.statistics import SIGNIFICANT
from ggufext.audit.request import Mode
from ggufext.errors import printable, printable_message
from ggufext.text import binary_size, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ggufext.audit.findings.results import (
        Cell,
        CheckResult,
        Comparison,
        Condition,
        Interval,
        LostInTheMiddle,
        Profile,
    )
    from ggufext.audit.request import LocalSettings
    from ggufext.audit.run.measure import Run

NOT_MEASURED = "not measured"

LENGTHS_TITLE = "Keys found by length"

#: What stands before, behind and below the scale of colours.
SCALE_TEXT = (
    "0 %",
    "100 % of the keys",
    "hatched, n/m: not measured; upright dashed line: training length",
)

_MODES = {
    Mode.STANDARD: "standard mode: one key in a text of its own",
    Mode.SWEEP: "sweep mode: many labelled keys in one text, which is harder",
}


def measured(result: CheckResult) -> CheckResult:
    """The result without conditions, lengths and depths of which nothing was measured."""
    conditions = (_measured(condition) for condition in result.conditions)
    return replace(result, conditions=tuple(c for c in conditions if c.cells))


def _measured(condition: Condition) -> Condition:
    known = [cell for cell in condition.cells if cell.hits is not None]
    lengths, depths = {cell.length for cell in known}, {cell.depth for cell in known}
    return replace(
        condition,
        cells=tuple(c for c in condition.cells if c.length in lengths and c.depth in depths),
        lengths=tuple(x for x in condition.lengths if x.length in lengths),
    )


def left_out(result: CheckResult) -> str | None:
    """A sentence that names what `measured` leaves out; None where that is nothing."""
    shown = {condition.name: condition for condition in measured(result).conditions}
    missing = []
    for condition in result.conditions:
        name = short_name(condition.name)
        if condition.name not in shown:
            missing.append(name)
            continue
        rest = shown[condition.name]
        lengths = {x.length for x in condition.lengths} - {x.length for x in rest.lengths}
        depths = {c.depth for c in condition.cells} - {c.depth for c in rest.cells}
        if lengths:
            found = ", ".join(f"{length:,}" for length in sorted(lengths))
            missing.append(f"{name} at {found} tokens")
        if depths:
            found = ", ".join(percent(depth) for depth in sorted(depths))
            missing.append(f"{name} at depths of {found}")
    return f"not measured: {'; '.join(missing)}" if missing else None


def title(result: CheckResult) -> str:
    """What was audited."""
    return f"Passkey audit of {model_name(result.run)}"


def model_name(run: Run) -> str:
    """The last part of the file's path, or the server's address; safe to print."""
    path = run.path
    return printable(path if "://" in path else PurePath(path).name, 120)


def short_name(condition: str) -> str:
    """Name of a condition, safe to print and short enough for a heading."""
    return printable(condition, 60)


def run_line(result: CheckResult) -> str:
    """Engine, mode and seed."""
    request, run = result.request, result.run
    return f"{printable(run.engine, 80)}, {_MODES[request.mode]}, seed {request.seed}" + (
        f", trained on {run.train_length:,} tokens" if run.train_length else ""
    )


def interval_text(interval: tuple[float, float] | None) -> str:
    """(0.76, 0.99) as ``76–99 %``."""
    if interval is None:
        return NOT_MEASURED
    return f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f} %"


def accuracy_text(accuracy: float | None, interval: Interval | None) -> str:
    """``95 % (76–99 %)``."""
    if accuracy is None:
        return NOT_MEASURED
    return f"{percent(accuracy)} ({interval_text(interval)})"


def cell_text(cell: Cell) -> str:
    """Hits of trials with the interval."""
    if cell.hits is None:
        return NOT_MEASURED
    return f"{cell.hits} of {cell.trials} ({interval_text(cell.interval)})"


def distances_text(bin_: Profile) -> str:
    """Bin of distances in tokens, both ends in it."""
    return (
        f"{bin_.start:,.0f}–{bin_.end - 1:,.0f}"
        if bin_.end - bin_.start > 1
        else f"{bin_.start:,.0f}"
    )


def effective_text(condition: Condition, threshold: float) -> str:
    """Effective length in a sentence."""
    bound = f"at least {percent(threshold)} of the keys"
    if condition.effective_length is None:
        return f"effective length {NOT_MEASURED}"
    found = (
        f"finds {bound} up to {condition.effective_length:,} tokens"
        if condition.effective_length
        else f"finds {bound} at no tested length from the shortest on"
    )
    if condition.effective_length_interval is None:
        return found
    low, high = condition.effective_length_interval
    ends = [f"{end:,}" if end else "none" for end in dict.fromkeys((low, high))]
    return f"{found} (95 % interval {' to '.join(ends)})"


def threshold_text(result: CheckResult) -> str:
    """What the dashed line of accuracy by length is."""
    bound = percent(result.request.threshold)
    return f"Dashed line: {bound} of the keys, which the effective length asks for."


def lost_text(lost: LostInTheMiddle) -> str:
    """Lost-in-the-middle index in a sentence, in percentage points."""
    low, high = lost.interval
    if high < 0:
        verdict = "keys in the middle are lost more often"
    elif low > 0:
        verdict = "keys in the middle are found more often"
    else:
        verdict = "no difference shown"
    return (
        f"middle third against outer thirds {_points(lost.difference)} points "
        f"({_points(low)} to {_points(high)}): {verdict}"
    )


def _points(difference: float) -> str:
    """−0.07 as ``−7``, in percentage points."""
    rounded = round(100 * difference)
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"


def comparison_text(found: Comparison) -> str:
    """A comparison in a sentence."""
    a, b = short_name(found.a), short_name(found.b)
    counts = f"found by {a} only {found.only_a}, by {b} only {found.only_b}"
    over = ", over texts" if found.test is ComparisonTest.PERMUTATION_OVER_TEXTS else ""
    return f"{a} against {b}: {verdict_text(found)} ({counts}, {p_text(found.p)}{over})"


def verdict_text(found: Comparison) -> str:
    """What a comparison allows to say."""
    if found.p >= SIGNIFICANT:
        return "no difference shown"
    return f"{short_name(found.a if found.only_a > found.only_b else found.b)} finds more"


_TESTS = {
    ComparisonTest.MCNEMAR: "McNemar's exact test of the prompts that both answered",
    ComparisonTest.PERMUTATION_OVER_TEXTS: "Exact permutation test over the texts of the prompts "
    "that both answered",
}


def tests_text(comparisons: Sequence[Comparison]) -> str:
    """How conditions were compared."""
    return "; ".join(_TESTS[test] for test in dict.fromkeys(found.test for found in comparisons))


def p_text(p: float) -> str:
    """A p value; tiny ones as a bound."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def tokens_text(run: Run) -> str:
    """What the run cost, against one prompt a trial."""
    evaluated, naive = run.tokens_evaluated, run.tokens_naive
    cost = f"{evaluated:,} tokens evaluated in {run.seconds:,.1f} s"
    if not 0 < evaluated < naive:
        return cost
    times = naive / evaluated
    return f"{cost}, {times:.1f} times fewer than the {naive:,} of one prompt a trial"


def settings_text(
    asked: Mapping[str, object], engine: LocalSettings | None, run: Run
) -> dict[str, str]:
    """What was asked for, by the names of the request and of the engine's settings."""
    how = {} if engine is None else {x.name: getattr(engine, x.name) for x in fields(engine)}
    if run.flash_attention is not None:
        how["flash_attention"] = "on" if run.flash_attention else "off"
    return {name: _setting(value) for name, value in {**asked, **how}.items()}


def _setting(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ",".join(map(_setting, value))
    return "auto" if value is None else str(value)


def notes(result: CheckResult) -> Iterator[str]:
    """What keeps this result from being a claim, and what the run had to say."""
    return (printable_message(warning.message) for warning in result.warnings)


def memory_lines(run: Run) -> Iterator[str]:
    """The memory plan: its sum, then what was reduced."""
    plan = run.memory_plan
    if plan is None:
        return
    sizes = {
        "model": plan.model,
        "KV cache": plan.kv_cache,
        "compute": plan.compute,
        "process": plan.process,
    }
    parts = ", ".join(f"{name} {binary_size(size)}" for name, size in sizes.items())
    yield f"memory {binary_size(plan.needed)} of {binary_size(plan.available)} free: {parts}"
    yield from (printable(step) for step in plan.steps)
