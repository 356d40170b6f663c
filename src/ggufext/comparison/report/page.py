"""The report as one HTML page that loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ggufext.audit.report.document import definitions, document, everything, legend, table
from ggufext.audit.report.drawing import element
from ggufext.audit.report.sentences import (
    NOT_MEASURED,
    memory_lines,
    p_text,
    settings_text,
    tests_text,
    tokens_text,
    verdict_text,
)
from ggufext.comparison.report.picture import keys_chart, loss_charts
from ggufext.comparison.report.sentences import (
    COST_TITLE,
    KEYS_TITLE,
    READING,
    bins,
    cost,
    difference_text,
    estimate_text,
    keys_found,
    measured,
    positions_text,
    recommendation_text,
    run_line,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from xml.etree.ElementTree import Element

    from ggufext.audit.request import LocalSettings
    from ggufext.audit.run.measure import Run
    from ggufext.comparison.results import ComparedModel, CompareResult, LossBin

    class _Request(Protocol):
        @property
        def engine(self) -> LocalSettings | None: ...


#: Of a request, what the page has nowhere else.
_ASKED = ("target_length", "conditions", "texts", "trials", "depths", "seed", "threshold")


def page(result: CompareResult) -> str:
    """The whole HTML document, UTF-8, with the numbers of every picture in a table."""
    shown = measured(result)
    caution = [element("li", element("strong", "Note"), " ", x.message) for x in result.warnings]
    return document(
        title(result),
        [
            element("p", run_line(result), attributes={"class": "soft"}),
            element("p", element("strong", "Recommended"), " ", recommendation_text(result)),
            *([element("ul", *caution, attributes={"class": "caution"})] if caution else []),
            *(sections(shown) if shown.conditions else []),
            *reproduction(result, result.run, result.model, result.request, _ASKED),
        ],
    )


def sections(result: CompareResult) -> list[Element]:
    """Pictures and tables of a result that has conditions."""
    names = legend(each.name for each in result.conditions)
    charts = [
        element("div", element("p", words, attributes={"class": "soft"}), made)
        for words, made in loss_charts(result).items()
    ]
    keys, costs = keys_found(result), cost(result)
    return [
        element("h2", "Loss by position"),
        names,
        element("div", *charts, attributes={"class": "beside"}),
        element("p", READING, attributes={"class": "soft"}),
        _losses(result, "Loss, nats a token", lambda each: estimate_text(each.loss)),
        _losses(
            result,
            "Difference from native on the same tokens, above 0 where native is better",
            lambda each: difference_text(each.against_native),
            native=False,
        ),
        element("h2", KEYS_TITLE),
        keys_chart(result),
        table(KEYS_TITLE, ["condition", *keys.columns], list(keys.rows.items())),
        element("h2", "What it costs within the training length, and what it brings beyond"),
        table(COST_TITLE, ["condition", *costs.columns], list(costs.rows.items())),
        *_pairs(result),
    ]


def _losses(
    result: CompareResult, caption: str, cell: Callable[[LossBin], str], *, native: bool = True
) -> Element:
    spans = bins(result)
    rows = []
    for condition in result.conditions[0 if native else 1 :]:
        known = {(each.start, each.end): cell(each) for each in condition.losses}
        rows.append((condition.name, [known.get(span, NOT_MEASURED) for span in spans]))
    return table(caption, ["condition", *map(positions_text, spans)], rows)


def _pairs(result: CompareResult) -> list[Element]:
    losses = {(each.a, each.b): difference_text(each.difference) for each in result.losses}
    rows = [
        (
            f"{c.a} against {c.b}",
            [
                losses.get((c.a, c.b), NOT_MEASURED),
                f"{c.only_a}",
                f"{c.only_b}",
                p_text(c.p),
                verdict_text(c),
            ],
        )
        for c in result.keys
    ]
    if not rows:
        return []
    heads = ["loss", "keys found by the first only", "by the second only", "p", "reading of keys"]
    return [
        element("h2", "Every two conditions beyond the training length"),
        table(
            f"Loss of the first less that of the second; keys: {tests_text(result.keys)}",
            ["pair", *heads],
            rows,
        ),
    ]


def reproduction(
    result: object, run: Run, model: ComparedModel, request: _Request, fields: Sequence[str]
) -> list[Element]:
    """What it takes to repeat a run, with these fields of its request."""
    asked = {name: getattr(request, name) for name in fields}
    facts = {
        "file": run.path,
        "facts of the model": model.facts_hash,
        "engine": run.engine,
        "SHA-256 of the prompts": run.prompts_hash,
        "cost": tokens_text(run),
        "complete": "yes" if run.complete else "no",
        **settings_text(asked, request.engine, run),
        **run.versions,
    }
    return [
        element("h2", "To repeat it"),
        definitions(facts),
        *(element("p", each) for each in memory_lines(run)),
        everything(result),
    ]
