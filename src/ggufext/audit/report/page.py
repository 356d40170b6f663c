"""The report as one HTML page that loads nothing: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.report.document import definitions, document, everything, legend, table
from ggufext.audit.report.drawing import element
from ggufext.audit.report.picture import heatmap, length_chart, scale
from ggufext.audit.report.sentences import (
    LENGTHS_TITLE,
    NOT_MEASURED,
    SCALE_TEXT,
    accuracy_text,
    cell_text,
    distances_text,
    effective_text,
    interval_text,
    left_out,
    lost_text,
    measured,
    memory_lines,
    notes,
    p_text,
    run_line,
    settings_text,
    tests_text,
    threshold_text,
    title,
    tokens_text,
    verdict_text,
)
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree.ElementTree import Element

    from ggufext.audit.findings.results import CheckResult, Condition, Profile

#: Of a request, what the page has nowhere else.
_ASKED = (
    *("lengths", "depths", "trials", "conditions", "target_length", "train_length"),
    *("train_freq_base", "template", "answer_tokens", "threshold"),
)

_LIMITS = (
    "A key that is found shows that this model can copy a number out of filler text from that "
    "distance. It does not show that it can reason over, summarize or combine what stands there, "
    "nor that quality at short lengths is unchanged. Intervals are at 95 %; a cell of few answers "
    "has a wide one."
)


def page(result: CheckResult) -> str:
    """The whole HTML document, UTF-8, with the numbers of every picture in a table."""
    shown = measured(result)
    return document(
        title(result),
        [
            element("p", run_line(result), attributes={"class": "soft"}),
            *_summary(shown, left_out(result)),
            *_lengths(shown),
            *(part for i, c in enumerate(shown.conditions) for part in _condition(shown, c, i)),
            *_comparisons(shown),
            element("h2", "What this does not prove"),
            element("p", _LIMITS),
            *_reproduction(result),
        ],
    )


def _summary(result: CheckResult, missing: str | None) -> list[Element]:
    sentences = [
        element(
            "li",
            element("strong", condition.name),
            " ",
            effective_text(condition, result.request.threshold),
        )
        for condition in result.conditions
    ]
    caution = [element("li", element("strong", "Note"), " ", note) for note in notes(result)]
    if missing:
        sentences.append(element("li", missing))
    return [
        element("ul", *sentences),
        *([element("ul", *caution, attributes={"class": "caution"})] if caution else []),
    ]


def _lengths(result: CheckResult) -> list[Element]:
    curves = {condition.name: condition.lengths for condition in result.conditions}
    lengths = sorted({each.length for curve in curves.values() for each in curve})
    if not lengths:
        return []
    rows: list[tuple[str, list[str]]] = []
    for name, curve in curves.items():
        by_length = {x.length: accuracy_text(x.accuracy, x.interval) for x in curve}
        rows.append((name, [by_length.get(length, NOT_MEASURED) for length in lengths]))
    return [
        element("h2", LENGTHS_TITLE),
        legend(curves),
        length_chart(curves, result.request.threshold),
        element(
            "p",
            threshold_text(result),
            attributes={"class": "soft"},
        ),
        table(
            "Share of keys found at each length, all depths together, with 95 % intervals",
            ["condition", *(f"{length:,} tokens" for length in lengths)],
            rows,
        ),
    ]


def _condition(result: CheckResult, condition: Condition, number: int) -> list[Element]:
    lengths = sorted({cell.length for cell in condition.cells})
    depths = sorted({cell.depth for cell in condition.cells})
    cells = {(cell.length, cell.depth): cell_text(cell) for cell in condition.cells}
    numbers = table(
        f"Keys found by {condition.name}, of the answers of each cell, with 95 % intervals",
        ["depth", *(f"{length:,} tokens" for length in lengths)],
        [(percent(depth), [cells[length, depth] for length in lengths]) for depth in depths],
    )
    picture = heatmap(condition, number=number, train_length=result.run.train_length)
    lost = condition.lost_in_the_middle
    profiles = element(
        "details",
        element("summary", f"Profiles of {condition.name} by depth and by distance"),
        element(
            "div",
            _profile_table("By depth of the key in the text", condition.depths, depths=True),
            _profile_table(
                "By distance between key and question, in tokens", condition.distances, depths=False
            ),
            attributes={"class": "beside"},
        ),
    )
    return [
        element("h2", f"Condition {condition.name}"),
        element("div", picture, numbers, attributes={"class": "beside"}),
        _scale(number),
        *([element("p", "Lost in the middle: " + lost_text(lost))] if lost else []),
        profiles,
    ]


def _scale(number: int) -> Element:
    low, high, marks = SCALE_TEXT
    return element(
        "div", low, scale(number), f"{high}; {marks}", attributes={"class": "scale soft"}
    )


def _profile_table(caption: str, bins: Sequence[Profile], *, depths: bool) -> Element:
    rows = [
        (
            interval_text((bin_.start, bin_.end)) if depths else distances_text(bin_),
            [accuracy_text(bin_.accuracy, bin_.interval), f"{bin_.trials:,}"],
        )
        for bin_ in bins
    ]
    return table(caption, ["depth" if depths else "tokens", "keys found", "answers"], rows)


def _comparisons(result: CheckResult) -> list[Element]:
    if not result.comparisons:
        return []
    rows = [
        (f"{c.a} against {c.b}", [f"{c.only_a}", f"{c.only_b}", p_text(c.p), verdict_text(c)])
        for c in result.comparisons
    ]
    return [
        element("h2", "Conditions compared on the same prompts"),
        table(
            tests_text(result.comparisons),
            ["pair", "found by the first only", "by the second only", "p", "reading"],
            rows,
        ),
    ]


def _reproduction(result: CheckResult) -> list[Element]:
    asked = {name: getattr(result.request, name) for name in _ASKED}
    facts = {
        "file or server": result.run.path,
        "engine": result.run.engine,
        "mode": result.request.mode.value,
        "seed": f"{result.request.seed}",
        "SHA-256 of the prompts": result.run.prompts_hash,
        "cost": tokens_text(result.run),
        "complete": "yes" if result.run.complete else "no",
        **settings_text(asked, result.request.engine, result.run),
        **result.run.versions,
    }
    return [
        element("h2", "To repeat it"),
        definitions(facts),
        *(element("p", line) for line in memory_lines(result.run)),
        everything(result),
    ]
