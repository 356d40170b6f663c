"""The report as one HTML page that loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.attention.report.picture import (
    HEADS_TITLE,
    LAYERS_TITLE,
    by_kind,
    curves_chart,
    curves_title,
    heads_chart,
    layers_chart,
    named_groups,
)
from ggufext.attention.report.sentences import (
    DESCRIPTION,
    NOT_FITTED,
    distances_text,
    gamma_text,
    group_lines,
    group_text,
    notes,
    number,
    r_squared_text,
    range_text,
    run_line,
    title,
    unseen_text,
)
from ggufext.audit.report.document import definitions, document, everything, legend, table
from ggufext.audit.report.drawing import element
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

    from ggufext.attention.results import LayerGroup, MeasureResult


def page(result: MeasureResult) -> str:
    """The whole HTML document, UTF-8."""
    caution = [element("li", element("strong", "Note"), " ", note) for note in notes(result)]
    return document(
        title(result),
        [
            element("p", run_line(result), attributes={"class": "soft"}),
            element("p", DESCRIPTION),
            *([element("ul", *caution, attributes={"class": "caution"})] if caution else []),
            *(part for i, each in enumerate(by_kind(result)) for part in _curves(each, i)),
            *(
                part
                for index, (name, group) in enumerate(named_groups(result))
                for part in _group(result, name, group, index)
            ),
            *(
                element("p", f"{condition.name}, {text}")
                for condition in result.conditions
                if (text := unseen_text(condition))
            ),
            *_reproduction(result),
        ],
    )


def _curves(groups: Mapping[str, LayerGroup], index: int) -> list[Element]:
    edges = next(iter(groups.values())).edges
    rows = [
        (
            range_text(edges, i),
            [f"{group.curve.attention[i]:.3g}" for group in groups.values()],
        )
        for i in range(len(edges) - 1)
    ]
    words = curves_title(groups)
    return [
        element("h2", words),
        legend(groups),
        curves_chart(groups, index),
        element(
            "details",
            element("summary", "The numbers of this picture"),
            table(words, ["distance", *groups], rows),
        ),
    ]


def _group(result: MeasureResult, name: str, group: LayerGroup, index: int) -> list[Element]:
    rows = []
    for layer in group.layers:
        decay = layer.curve.decay
        gammas = [head.decay.gamma for head in layer.heads if head.decay]
        rows.append(
            (
                f"{layer.layer}",
                [
                    gamma_text(decay),
                    distances_text(decay) if decay else NOT_FITTED,
                    r_squared_text(decay),
                    " ".join(number(gamma) for gamma in gammas) or NOT_FITTED,
                    percent(layer.curve.sink),
                    percent(layer.curve.itself),
                    percent(layer.curve.beyond),
                ],
            )
        )
    heads = ["layer", "γ observed", "over", "R²", "single heads", "first tokens", "itself"]
    return [
        element("h2", f"Condition {name}, {group_text(group)}"),
        element("ul", *(element("li", each) for each in group_lines(group))),
        element(
            "div",
            _named(LAYERS_TITLE, layers_chart(result, group, index)),
            _named(HEADS_TITLE, heads_chart(result, group, index)),
            attributes={"class": "beside"},
        ),
        table(
            f"Decay of attention in {name} by layer, with 95 % intervals over query rows",
            [*heads, "beyond"],
            rows,
        ),
    ]


def _named(words: str, made: Element) -> Element:
    return element("div", element("p", words, attributes={"class": "soft"}), made)


def _reproduction(result: MeasureResult) -> list[Element]:
    request, run = result.request, result.run
    facts = {
        "file": run.path,
        "length": f"{request.length:,} tokens",
        "distances": f"1 to {request.distance:,} tokens",
        "queries": f"{len(run.rows)}, from position {run.rows[0]:,} to {run.rows[-1]:,}",
        "text": "filler sentences" if request.text is None else str(request.text),
        "seed": f"{request.seed}",
        "target of planned conditions": f"{request.target_length or request.length:,} tokens",
        "seconds": f"{run.seconds:,.1f}",
        "complete": "yes" if run.complete else "no",
        **run.versions,
    }
    return [element("h2", "To repeat it"), definitions(facts), everything(result)]
