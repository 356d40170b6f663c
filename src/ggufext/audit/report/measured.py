"""What a report shows of an audit: only what was measured; the JSON holds every cell."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ggufext.errors import printable

if TYPE_CHECKING:
    from ggufext.audit.findings.results import CheckResult, Condition


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
        name = printable(condition.name, 60)
        if condition.name not in shown:
            missing.append(name)
            continue
        rest = shown[condition.name]
        lengths = _not_in(
            [x.length for x in condition.lengths], {x.length for x in rest.lengths}, "{:,}"
        )
        depths = _not_in(
            [c.depth for c in condition.cells], {c.depth for c in rest.cells}, "{:.0%}"
        )
        if lengths:
            missing.append(f"{name} at {lengths} tokens")
        if depths:
            missing.append(f"{name} at depths of {depths.replace('%', ' %')}")
    return f"not measured: {'; '.join(missing)}" if missing else None


def _not_in(asked: list[int] | list[float], known: set[int] | set[float], form: str) -> str:
    return ", ".join(form.format(each) for each in sorted(set(asked) - known))
