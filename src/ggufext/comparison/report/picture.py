"""Losses by position as SVG: parts for the page, and all pictures as one PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.report.drawing import (
    BOTTOM,
    CHART_HEIGHT,
    CHART_WIDTH,
    GAP,
    LEFT,
    TOP,
    Scale,
    abreast,
    below,
    beside,
    element,
    label,
    legend,
    line,
    marker,
    paragraph,
    path,
    picture,
    png_of,
    series,
    ticks,
    turned,
)
from ggufext.audit.report.picture import length_chart
from ggufext.audit.report.sentences import short_name
from ggufext.comparison.report.sentences import (
    COST_TITLE,
    KEYS_TITLE,
    LOSSES_TITLE,
    NEAR_TITLE,
    READING,
    bins,
    cost,
    estimate_text,
    measured,
    positions_text,
    recommendation_text,
    run_line,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree.ElementTree import Element

    from ggufext.comparison.report.sentences import Rows
    from ggufext.comparison.results import ComparedCondition, CompareResult

#: Two charts beside each other.
WIDTH = 2 * CHART_WIDTH + GAP

_RIGHT, _LOW = CHART_WIDTH - 20, TOP + CHART_HEIGHT

#: Conditions whose loss beyond the training length is above the lowest by less than this, nats a
#: token, have a picture of their own: in one with a model that broke, they are all the same.
_NEAR = 0.5


def png(result: CompareResult) -> bytes:
    """All pictures and sentences as one PNG; needs the extra ``[report]``."""
    said = [paragraph(title(result), WIDTH, "title"), paragraph(run_line(result), WIDTH, "soft")]
    shown = measured(result)
    return png_of(
        [
            below(said, 2),
            paragraph(f"recommended: {recommendation_text(result)}", WIDTH, "name"),
            *(blocks(shown) if shown.conditions else []),
            below([paragraph(f"note: {x.message}", WIDTH) for x in result.warnings], 4),
        ]
    )


def blocks(result: CompareResult) -> list[Element]:
    """Pictures and sentences of a result that has conditions."""
    charts = [
        below([paragraph(words, CHART_WIDTH, "name"), made], 4)
        for words, made in loss_charts(result).items()
    ]
    keys = [paragraph(KEYS_TITLE, CHART_WIDTH, "name"), keys_chart(result)]
    names = [short_name(each.name) for each in result.conditions]
    return [
        beside(charts),
        beside([below(keys, 4), legend(names, CHART_WIDTH)]),
        listed(COST_TITLE, cost(result)),
        paragraph(READING, WIDTH, "soft"),
    ]


def listed(title: str, found: Rows) -> Element:
    """A table as lines."""
    lines = [paragraph(title, WIDTH, "name")]
    for name, cells in found.rows.items():
        told = zip(found.columns, cells, strict=True)
        words = ", ".join(f"{what} {cell}" for what, cell in told)
        lines.append(paragraph(f"{short_name(name)}: {words}", WIDTH))
    return below(lines, 4)


def keys_chart(result: CompareResult) -> Element:
    """Keys found by length of every condition, with intervals."""
    curves = {each.name: each.keys for each in result.conditions}
    return length_chart(curves, result.request.threshold)


def loss_charts(result: CompareResult) -> dict[str, Element]:
    """Losses by position, by title: of all conditions, and of those near the best alone."""
    made = {LOSSES_TITLE: _loss_chart(result, "losses", LOSSES_TITLE, result.conditions)}
    beyond = {each.name: each.beyond.mean for each in result.conditions if each.beyond is not None}
    near = [
        each
        for each in result.conditions
        if each.name in beyond and beyond[each.name] < min(beyond.values()) + _NEAR
    ]
    if 1 < len(near) < len(result.conditions):
        made[NEAR_TITLE] = _loss_chart(result, "near", NEAR_TITLE, near)
    return made


def _loss_chart(
    result: CompareResult, name: str, words: str, shown: Sequence[ComparedCondition]
) -> Element:
    found = [each for condition in shown for each in condition.losses]
    ends = [end for each in found for end in each.loss.interval or (each.loss.mean,)]
    across = ticks(ends)
    spans = bins(result)
    x = Scale(0, spans[-1][1], LEFT + 10, _RIGHT - 10)
    y = Scale(across[0], across[-1], _LOW, TOP)
    parts: list[Element] = []
    for tick in across:
        parts.append(line(LEFT, y(tick), _RIGHT, y(tick), "grid"))
        parts.append(label(LEFT - 8, y(tick) + 5, f"{tick:.3g}", "end"))
    for start, end in spans:
        # The first is an eighth of the training length: its end would touch that of the next.
        if start:
            parts.append(label(x(end), _LOW + 20, f"{end:,}", "middle"))
    parts.append(label((LEFT + _RIGHT) / 2, _LOW + 40, "position in tokens", "middle"))
    parts.append(turned(14, (TOP + _LOW) / 2, "nats a token"))
    if trained := result.run.train_length:
        parts.append(line(x(trained), TOP, x(trained), _LOW, "limit"))
    for number, condition in enumerate(result.conditions):
        if condition in shown:
            parts += _series(condition, number, abreast(number, len(result.conditions)), x, y)
    return picture(
        name,
        words,
        "With 95 % intervals; the dashed line is the training length. The table below the picture "
        "holds the same numbers.",
        (CHART_WIDTH, _LOW + BOTTOM),
        parts,
    )


def _series(
    condition: ComparedCondition, number: int, offset: float, x: Scale, y: Scale
) -> list[Element]:
    points = [
        (x((each.start + each.end) / 2) + offset, y(each.loss.mean)) for each in condition.losses
    ]
    parts = [path(points, number)]
    for (px, py), each in zip(points, condition.losses, strict=True):
        if each.loss.interval is not None:
            low, high = each.loss.interval
            parts.append(line(px, y(low), px, y(high), series(number)))
        mark = marker(px, py, number)
        where = positions_text((each.start, each.end))
        mark.append(element("title", f"{condition.name}, {where}: {estimate_text(each.loss)}"))
        parts.append(mark)
    return parts
