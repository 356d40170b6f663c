"""Curves of attention and exponents of heads as SVG: parts for the page, and all as one PNG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ggufext.attention.fit import mean_log
from ggufext.attention.report.sentences import (
    CURVES_TITLE,
    DESCRIPTION,
    gamma_text,
    group_lines,
    group_text,
    number,
    range_text,
    run_line,
    title,
)
from ggufext.audit.report.drawing import (
    BOTTOM,
    CHART_HEIGHT,
    CHART_WIDTH,
    GAP,
    LEFT,
    TOP,
    Scale,
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
    ticks,
    turned,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from xml.etree.ElementTree import Element

    from ggufext.attention.results import (
        AttentionCurve,
        LayerAttention,
        LayerGroup,
        MeasureResult,
    )

#: Two charts beside each other.
_WIDTH = 2 * CHART_WIDTH + GAP

_RIGHT, _LOW = CHART_WIDTH - 20, TOP + CHART_HEIGHT

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

#: Series of the single layers and of the mean.
_SINGLE, _MEAN = 5, 0


def png(result: MeasureResult) -> bytes:
    """All pictures and sentences as one PNG; needs the extra ``[report]``."""
    blocks = [
        below(
            [
                paragraph(title(result), _WIDTH, "title"),
                paragraph(run_line(result), _WIDTH, "soft"),
            ],
            2,
        )
    ]
    for index, groups in enumerate(by_kind(result)):
        chart = [paragraph(curves_title(groups), CHART_WIDTH, "name"), curves_chart(groups, index)]
        blocks.append(beside([below(chart, 4), legend(list(groups), CHART_WIDTH)]))
    for index, (name, group) in enumerate(named_groups(result)):
        charts = [
            below([paragraph(words, CHART_WIDTH, "name"), made], 4)
            for words, made in (
                (f"{name}: {LAYERS_TITLE}", layers_chart(result, group, index)),
                (f"{name}: {HEADS_TITLE}", heads_chart(result, group, index)),
            )
        ]
        blocks.append(beside(charts))
        said = [paragraph(f"{name}, {group_text(group)}", _WIDTH, "name")]
        said += [paragraph(each, _WIDTH) for each in group_lines(group)]
        blocks.append(below(said, 4))
    blocks.append(paragraph(DESCRIPTION, _WIDTH))
    return png_of(blocks)


LAYERS_TITLE = "attention by distance, every layer (thin) and their mean"
HEADS_TITLE = "γ observed of every head (small) and layer"


def by_kind(result: MeasureResult) -> list[dict[str, LayerGroup]]:
    """The same layers by condition, one kind of layers after another."""
    found: dict[tuple[int | None, bool], dict[str, LayerGroup]] = {}
    for name, group in named_groups(result):
        found.setdefault((group.window, group.rotates), {})[name] = group
    return list(found.values())


def named_groups(result: MeasureResult) -> Iterator[tuple[str, LayerGroup]]:
    """Every group with the name of its condition."""
    for condition in result.conditions:
        yield from ((condition.name, group) for group in condition.groups)


def curves_title(groups: Mapping[str, LayerGroup]) -> str:
    """What a chart of conditions shows."""
    return f"{CURVES_TITLE}: {group_text(next(iter(groups.values())))}"


def curves_chart(groups: Mapping[str, LayerGroup], index: int) -> Element:
    """Mean attention by distance of every condition; `index` names it on its page."""
    edges = next(iter(groups.values())).edges
    curves = [group.curve for group in groups.values()]
    x, y, parts = _axes(edges, curves)
    for i, (name, group) in enumerate(groups.items()):
        points = _points(group.curve, edges, x, y)
        parts.append(path([(px, py) for px, py, _ in points], i))
        for px, py, where in points:
            mark = marker(px, py, i)
            mark.append(element("title", f"{name}, {where}"))
            parts.append(mark)
    return picture(
        f"curves{index}",
        curves_title(groups),
        "Both axes are logarithmic. The table below the picture holds the same numbers.",
        (CHART_WIDTH, _LOW + BOTTOM),
        parts,
    )


def layers_chart(result: MeasureResult, group: LayerGroup, index: int) -> Element:
    """Mean attention by distance of every layer, and their mean.

    Parameters
    ----------
    result : MeasureResult
        All of it has one scale.
    group : LayerGroup
    index : int
        Names the picture on its page.
    """
    x, y, parts = _axes(group.edges, [layer.curve for layer in _all_layers(result)])
    for layer in group.layers:
        made = path([(px, py) for px, py, _ in _points(layer.curve, group.edges, x, y)], _SINGLE)
        made.set("stroke-dasharray", "none")
        made.set("class", f"{made.get('class')} thin")
        made.append(element("title", f"layer {layer.layer}: γ {gamma_text(layer.curve.decay)}"))
        parts.append(made)
    points = _points(group.curve, group.edges, x, y)
    parts.append(path([(px, py) for px, py, _ in points], _MEAN))
    return picture(
        f"layers{index}",
        LAYERS_TITLE,
        "Both axes are logarithmic. Everything as JSON, below, holds the numbers.",
        (CHART_WIDTH, _LOW + BOTTOM),
        parts,
    )


def heads_chart(result: MeasureResult, group: LayerGroup, index: int) -> Element:
    """γ of every head and of every layer's mean, by layer; parameters as of `layers_chart`."""
    predicted = [] if group.gamma_pade is None else [group.gamma_pade]
    across = ticks([0.0, *predicted, *(gamma for _, gamma, _ in _fitted(_all_layers(result)))])
    numbers = [layer.layer for layer in group.layers]
    x = Scale(min(numbers), max(numbers), LEFT + 20, _RIGHT - 20)
    y = Scale(across[0], across[-1], _LOW, TOP)
    parts = []
    for tick in across:
        parts += [
            line(LEFT, y(tick), _RIGHT, y(tick), "grid"),
            label(LEFT - 8, y(tick) + 5, number(tick), "end"),
        ]
    for layer in numbers[:: math.ceil(len(numbers) / 16)]:
        parts.append(label(x(layer), _LOW + 20, f"{layer}", "middle"))
    parts.append(label((LEFT + _RIGHT) / 2, _LOW + 40, "layer", "middle"))
    parts.append(turned(14, (TOP + _LOW) / 2, "γ observed"))
    parts += [line(LEFT, y(each), _RIGHT, y(each), "limit") for each in predicted]
    for layer, gamma, is_mean in _fitted(group.layers):
        mark = marker(x(layer), y(gamma), _MEAN if is_mean else _SINGLE)
        if not is_mean:
            size: dict[str, str | float] = {"cx": x(layer), "cy": y(gamma), "r": 2}
            mark = element("circle", attributes={**size, "class": f"marker thin s{_SINGLE}"})
        mark.append(element("title", f"layer {layer}: {number(gamma)}"))
        parts.append(mark)
    return picture(
        f"heads{index}",
        HEADS_TITLE,
        "The dashed line is γ by formula. The table below the picture holds the means; everything "
        "as JSON, below, the single heads.",
        (CHART_WIDTH, _LOW + BOTTOM),
        parts,
    )


def _all_layers(result: MeasureResult) -> list[LayerAttention]:
    return [layer for _, group in named_groups(result) for layer in group.layers]


def _fitted(layers: Iterable[LayerAttention]) -> list[tuple[int, float, bool]]:
    """Layer and γ of every head and of every mean over heads, and whether it is such a mean."""
    return [
        (layer.layer, curve.decay.gamma, curve is layer.curve)
        for layer in layers
        for curve in (*layer.heads, layer.curve)
        if curve.decay is not None
    ]


def _axes(
    edges: Sequence[int], curves: Iterable[AttentionCurve]
) -> tuple[Scale, Scale, list[Element]]:
    """Scales for distances and weights, and what the axes look like."""
    logs = [math.log10(value) for each in curves for value in each.attention if value > 0]
    low, high = math.floor(min(logs, default=-1)), math.ceil(max(logs, default=0))
    x = Scale(0, math.log(edges[-1]), LEFT + 10, _RIGHT - 10)
    y = Scale(low, max(high, low + 1), _LOW, TOP)
    parts: list[Element] = []
    for power in range(low, max(high, low + 1) + 1):
        name = "10" + str(power).translate(_SUPERSCRIPTS)
        parts += [
            line(LEFT, y(power), _RIGHT, y(power), "grid"),
            label(LEFT - 8, y(power) + 5, name, "end"),
        ]
    # Every fourth power of two: those between would touch in a long chart.
    for exponent in range(0, edges[-1].bit_length(), 2):
        distance = 2**exponent
        if distance < edges[-1]:
            parts.append(label(x(math.log(distance)), _LOW + 20, f"{distance:,}", "middle"))
    parts.append(label((LEFT + _RIGHT) / 2, _LOW + 40, "distance in tokens", "middle"))
    parts.append(turned(14, (TOP + _LOW) / 2, "attention to one token"))
    return x, y, parts


def _points(
    curve: AttentionCurve, edges: tuple[int, ...], x: Scale, y: Scale
) -> list[tuple[float, float, str]]:
    return [
        (
            x(mean_log(edges[i], edges[i + 1])),
            y(math.log10(value)),
            f"{range_text(edges, i)} tokens: {value:.3g}",
        )
        for i, value in enumerate(curve.attention)
        if value > 0
    ]
