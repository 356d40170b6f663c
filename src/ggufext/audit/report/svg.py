"""The pictures of the page: heatmap of a condition, accuracy by length of all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ggufext.audit.report.colours import accuracy_colour, hexadecimal, text_colour
from ggufext.audit.report.elements import element
from ggufext.audit.report.sentences import accuracy_text, cell_text, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from xml.etree.ElementTree import Element

    from ggufext.audit.findings.results import CheckResult, Condition, LengthAccuracy

# Sizes in CSS pixels.
_CELL_WIDTH, _CELL_HEIGHT = 74, 34
_LEFT, _TOP, _BOTTOM = 84, 10, 46
_CHART_WIDTH, _CHART_HEIGHT = 620, 260

#: A condition is told by colour, marker and dashes, so that none of them is needed.
_DASHES = ("none", "7 4", "2 3", "10 3 2 3", "1 4", "12 6")
SERIES = len(_DASHES)


def heatmap(condition: Condition, *, number: int, train_length: int | None) -> Element:
    """Keys found by length (across) and depth (down) of one condition.

    Parameters
    ----------
    condition : Condition
    number : int
        Of the picture on its page: names inside it must be unique there.
    train_length : int or None
        A line stands between the lengths within training and those beyond.
    """
    lengths = sorted({cell.length for cell in condition.cells})
    depths = sorted({cell.depth for cell in condition.cells})
    columns = {length: _LEFT + i * _CELL_WIDTH for i, length in enumerate(lengths)}
    rows = {depth: _TOP + i * _CELL_HEIGHT for i, depth in enumerate(depths)}
    bottom = _TOP + len(depths) * _CELL_HEIGHT
    width = _LEFT + len(lengths) * _CELL_WIDTH + 10
    parts = [_hatching(number)]
    for cell in condition.cells:
        share = None if cell.hits is None else cell.hits / cell.trials
        where = f"{cell.length:,} tokens, depth {percent(cell.depth)}: {cell_text(cell)}"
        parts.append(_square(columns[cell.length], rows[cell.depth], share, where, number))
    for depth, y in rows.items():
        parts.append(_label(_LEFT - 8, y + _CELL_HEIGHT / 2 + 5, percent(depth), "end"))
    for length, x in columns.items():
        parts.append(_label(x + _CELL_WIDTH / 2, bottom + 18, f"{length:,}", "middle"))
    middle = _LEFT + len(lengths) * _CELL_WIDTH / 2
    parts.append(_label(middle, bottom + 38, "length in tokens", "middle"))
    parts.append(_turned(14, (_TOP + bottom) / 2, "depth of the key"))
    beyond = [x for length, x in columns.items() if train_length and length > train_length]
    if beyond and len(beyond) < len(columns):
        parts.append(_line(min(beyond), _TOP - 8, min(beyond), bottom + 4, "limit"))
    return _picture(
        f"heatmap{number}",
        f"Keys found by {condition.name}, by length and depth",
        "The table beside the picture holds the same numbers.",
        (width, bottom + _BOTTOM),
        parts,
    )


def length_chart(result: CheckResult) -> Element:
    """Accuracy by length of every condition with its intervals."""
    lengths = sorted({x.length for c in result.conditions for x in c.lengths})
    chart = _Chart(lengths)
    parts: list[Element] = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = chart.y(share)
        parts.append(_line(_LEFT, y, chart.right, y, "grid"))
        parts.append(_label(_LEFT - 8, y + 5, percent(share), "end"))
    parts.extend(
        _label(chart.x(length), chart.bottom + 20, f"{length:,}", "middle") for length in lengths
    )
    parts.append(_label((_LEFT + chart.right) / 2, chart.bottom + 40, "length in tokens", "middle"))
    y = chart.y(result.request.threshold)
    parts.append(_line(_LEFT, y, chart.right, y, "limit"))
    for number, condition in enumerate(result.conditions):
        offset = 7 * (number - (len(result.conditions) - 1) / 2)
        parts.extend(_series(chart, condition, number, offset))
    return _picture(
        "lengths",
        "Accuracy by length of every condition",
        "With 95 % intervals; the dashed line is the bound of "
        f"{percent(result.request.threshold)}. The table below the picture holds the same numbers.",
        (_CHART_WIDTH, chart.bottom + _BOTTOM),
        parts,
    )


def key(number: int) -> Element:
    """The line and marker of a condition, for a legend."""
    line = _line(0, 8, 34, 8, f"series s{number % SERIES}")
    line.set("stroke-dasharray", _DASHES[number % SERIES])
    return element(
        "svg",
        line,
        _marker(17, 8, number),
        attributes={"width": 34, "height": 16, "aria-hidden": "true", "class": "key"},
    )


class _Chart:
    """Scales of the chart: lengths by octave across, accuracy up."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.right = _CHART_WIDTH - 20
        self.bottom = _TOP + _CHART_HEIGHT
        self._first = math.log2(lengths[0])
        self._octaves = max(math.log2(lengths[-1]) - self._first, 1)

    def x(self, length: int) -> float:
        inner = self.right - _LEFT - 80
        return _LEFT + 40 + inner * (math.log2(length) - self._first) / self._octaves

    def y(self, share: float) -> float:
        return self.bottom - share * _CHART_HEIGHT


def _series(chart: _Chart, condition: Condition, number: int, offset: float) -> Iterator[Element]:
    style = f"series s{number % SERIES}"
    stretches: list[list[LengthAccuracy]] = [[]]
    for point in condition.lengths:
        if point.accuracy is None:
            stretches.append([])
        else:
            stretches[-1].append(point)
    for stretch in stretches:
        path = " ".join(
            f"{chart.x(p.length) + offset:.1f},{chart.y(p.accuracy or 0.0):.1f}" for p in stretch
        )
        if len(stretch) > 1:
            dashes = _DASHES[number % SERIES]
            yield element(
                "polyline",
                attributes={"points": path, "class": style, "stroke-dasharray": dashes},
            )
    for point in (p for stretch in stretches for p in stretch):
        x = chart.x(point.length) + offset
        low, high = point.interval or (0.0, 1.0)
        text = f"{condition.name}, {point.length:,} tokens: "
        yield _line(x, chart.y(low), x, chart.y(high), style)
        marker = _marker(x, chart.y(point.accuracy or 0.0), number)
        marker.append(element("title", text + accuracy_text(point.accuracy, point.interval)))
        yield marker


def _marker(x: float, y: float, number: int) -> Element:
    corners = (
        ((-5, -5), (5, -5), (5, 5), (-5, 5)),
        ((0, -6.5), (6.5, 5), (-6.5, 5)),
        ((0, -7), (7, 0), (0, 7), (-7, 0)),
        ((0, 6.5), (6.5, -5), (-6.5, -5)),
        ((-7, -3), (7, -3), (7, 3), (-7, 3)),
    )
    style = f"marker s{number % SERIES}"
    if number % SERIES == 0:
        return element("circle", attributes={"cx": x, "cy": y, "r": 5.5, "class": style})
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[number % SERIES - 1])
    return element("polygon", attributes={"points": points, "class": style})


def _square(x: float, y: float, share: float | None, where: str, number: int) -> Element:
    colour = None if share is None else accuracy_colour(share)
    fill = f"url(#hatch{number})" if colour is None else hexadecimal(colour)
    box: dict[str, str | float] = {
        "x": x + 1,
        "y": y + 1,
        "width": _CELL_WIDTH - 2,
        "height": _CELL_HEIGHT - 2,
    }
    text = _label(
        x + _CELL_WIDTH / 2,
        y + _CELL_HEIGHT / 2 + 5,
        "n/m" if share is None else percent(share),
        "middle",
    )
    if colour is not None:
        text.set("style", f"fill: {hexadecimal(text_colour(colour))}")
    return element(
        "g",
        element("title", where),
        element("rect", attributes=box | {"rx": 3, "fill": fill, "class": "cell"}),
        text,
    )


def _hatching(number: int) -> Element:
    line = element("path", attributes={"d": "M-2,2 l4,-4 M0,8 l8,-8 M6,10 l4,-4", "class": "hatch"})
    size: dict[str, str | float] = {"width": 8, "height": 8, "patternUnits": "userSpaceOnUse"}
    return element("defs", element("pattern", line, attributes=size | {"id": f"hatch{number}"}))


def _label(x: float, y: float, text: str, anchor: str) -> Element:
    return element("text", text, attributes={"x": x, "y": y, "text-anchor": anchor})


def _turned(x: float, y: float, text: str) -> Element:
    made = _label(x, y, text, "middle")
    made.set("transform", f"rotate(-90 {x} {y})")
    return made


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Element:
    return element("line", attributes={"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})


def _picture(
    name: str, title: str, description: str, size: tuple[float, float], parts: Sequence[Element]
) -> Element:
    width, height = size
    return element(
        "svg",
        element("title", title, attributes={"id": f"{name}-title"}),
        element("desc", description, attributes={"id": f"{name}-desc"}),
        *parts,
        attributes={
            "viewBox": f"0 0 {width:.0f} {height:.0f}",
            "width": width,
            "role": "img",
            "aria-labelledby": f"{name}-title",
            "aria-describedby": f"{name}-desc",
        },
    )
