"""What the reports of a comparison say: the same in the terminal, on the page and in the PNG."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from ggufext.audit.report.sentences import (
    NOT_MEASURED,
    accuracy_text,
    model_name,
    short_name,
)
from ggufext.comparison.recommendation import turned
from ggufext.comparison.request import NATIVE
from ggufext.errors import printable, printable_message

if TYPE_CHECKING:
    from ggufext.comparison.results import CompareResult, Estimate

LOSSES_TITLE = "Loss by position, of all conditions"
NEAR_TITLE = "Loss by position, of those near the best"
KEYS_TITLE = "Keys found by length, of several in a text"
COST_TITLE = "Against native: loss beyond the training length, and the cost within it"

#: What is worth knowing to read the pictures.
READING = (
    "Loss is how surprised the model is by what the text really says next, in nats a token: less "
    "is better. The dashed upright line is the training length; upright bars are 95 % intervals. "
    "Intervals of two conditions may overlap and the difference between them be measured all the "
    "same, since both read the same tokens."
)


class Rows(NamedTuple):
    """What the columns of a table are, and its rows by their names."""

    columns: list[str]
    rows: dict[str, list[str]]


def title(result: CompareResult) -> str:
    """What was compared."""
    return f"Comparison of scalings of {model_name(result.run)}"


def run_line(result: CompareResult) -> str:
    """Engine, target, texts and seed."""
    texts = ", ".join(dict.fromkeys(printable(each, 60) for each in result.texts))
    count = f"{len(result.texts)} text{'s' if len(result.texts) > 1 else ''}"
    trained = f", trained on {result.run.train_length:,}" if result.run.train_length else ""
    return (
        f"{printable(result.run.engine, 80)}, to {result.request.target_length:,} tokens{trained}, "
        f"{count} ({texts}), seed {result.request.seed}"
    )


def recommendation_text(result: CompareResult) -> str:
    """The recommended condition and its reason."""
    found = result.recommendation
    return f"{short_name(found.condition or 'nothing to write')}: {printable_message(found.reason)}"


def measured(result: CompareResult) -> CompareResult:
    """The result without conditions that were measured on no text."""
    return replace(result, conditions=tuple(each for each in result.conditions if each.texts))


def bins(result: CompareResult) -> list[tuple[int, int]]:
    """Positions of which a loss is told, [start, end), in order."""
    return list(dict.fromkeys((x.start, x.end) for c in result.conditions for x in c.losses))


def positions_text(span: tuple[int, int]) -> str:
    """[0, 1024) as ``0–1,023``."""
    return f"{span[0]:,}–{span[1] - 1:,}"


def estimate_text(found: Estimate | None) -> str:
    """A mean with its interval: ``2.277 (2.201 to 2.352)``."""
    return _with_interval(found, "{:.3f}")


def difference_text(found: Estimate | None) -> str:
    """A difference with its interval: ``+0.055 (+0.032 to +0.078)``."""
    return _with_interval(found, "{:+.3f}")


def _with_interval(found: Estimate | None, form: str) -> str:
    if found is None:
        return NOT_MEASURED
    ends = "" if found.interval is None else f" ({form} to {form})".format(*found.interval)
    return form.format(found.mean) + ends


def keys_found(result: CompareResult) -> Rows:
    """Share of the keys found at every length, by condition."""
    lengths = list(dict.fromkeys(x.length for c in result.conditions for x in c.keys))
    rows = {}
    for condition in result.conditions:
        keys = {each.length: accuracy_text(each.accuracy, each.interval) for each in condition.keys}
        rows[condition.name] = [keys.get(length, NOT_MEASURED) for length in lengths]
    return Rows([f"{length:,}" for length in lengths], rows)


def loss_beyond(result: CompareResult) -> dict[str, Estimate]:
    """Loss of each condition beyond the training length less that of native."""
    return {each.b: turned(each.difference) for each in result.losses if each.a == NATIVE}


def cost(result: CompareResult) -> Rows:
    """What each extension brings beyond the training length and costs within it, with intervals."""
    beyond = loss_beyond(result)
    rows = {}
    for condition in result.conditions:
        found = condition.short_cost
        if found is not None:
            rows[condition.name] = [
                difference_text(beyond.get(condition.name)),
                difference_text(found.loss),
                estimate_text(found.divergence),
                accuracy_text(found.same_top.mean, found.same_top.interval),
            ]
    return Rows(["loss beyond", "loss within", "divergence", "same top token"], rows)
