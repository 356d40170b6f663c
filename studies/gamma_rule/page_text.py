"""Parts of a page: tables, and how differences and conditions are written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import findings
from inference import paired
from schedule import SMOLLM2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from findings import Table
    from inference import Paired

#: What kinds of models are called.
MODELS = {SMOLLM2: "SmolLM2-135M", "language": "language model", "passkey": "passkey models"}


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table, or that there is nothing in it."""
    if not rows:
        return "Not measured."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def mean_text(found: Paired | None) -> str:
    """A mean with its interval."""
    if found is None:
        return "–"
    return f"{found.mean:+.3f} ({found.low:+.3f} … {found.high:+.3f})"


def difference_text(table: Table, a: str, b: str) -> str:
    """One condition less another; of one unit the value alone, which says nothing of others."""
    return "–" if a == b else values_text(findings.differences(table, a, b))


def values_text(values: Sequence[float]) -> str:
    """Mean of differences with its interval; of one the value alone."""
    return f"{values[0]:+.3f}" if len(values) == 1 else mean_text(paired(values))


def condition_text(condition: str) -> str:
    """A condition where an asterisk would be markup."""
    return condition.replace("*", " × ")


def p_text(value: float) -> str:
    """Three digits of it."""
    return f"{value:.3f}" if value >= 0.001 else "< .001"
