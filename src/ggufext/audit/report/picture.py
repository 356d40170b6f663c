"""The pictures of an audit as SVG: parts for the page, and all of it as one PNG."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from ggufext.audit.report.drawing import (
    BOTTOM,
    CHART_HEIGHT,
    CHART_WIDTH,
    DIGIT_WIDTH,
    GAP,
    LEFT,
    NARROWEST,
    TOP,
    abreast,
    below,
    beside,
    box,
    element,
    in_rows,
    label,
    legend,
    line,
    marker,
    paragraph,
    path,
    picture,
    png_of,
    series,
    size_of,
    turned,
)
from ggufext.audit.report.sentences import (
    LENGTHS_TITLE,
    SCALE_TEXT,
    accuracy_text,
    cell_text,
    effective_text,
    left_out,
    measured,
    notes,
    run_line,
    short_name,
    threshold_text,
    title,
)
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from xml.etree.ElementTree import Element

    from ggufext.audit.findings.results import CheckResult, Condition, LengthAccuracy


_CELL_WIDTH, _CELL_HEIGHT = 74, 34


def png(result: CheckResult) -> bytes:
    """All pictures and sentences as one PNG; needs the extra ``[report]``."""
    return png_of(_blocks(result))


def _blocks(result: CheckResult) -> list[Element]:
    """Title, heatmaps, accuracy by length and sentences."""
    shown = measured(result)
    maps = [_named_heatmap(c, i, shown.run.train_length) for i, c in enumerate(shown.conditions)]
    rows = [beside(row) for row in in_rows(maps)]
    width = max([NARROWEST, *(size_of(row)[0] for row in rows)])
    if maps:
        chart = [paragraph(LENGTHS_TITLE, CHART_WIDTH, "name"), _length_chart(shown)]
        rows.append(beside([below(chart, 4), _legend(shown, width - CHART_WIDTH - GAP)]))
    said = [paragraph(title(result), width, "title"), paragraph(run_line(result), width, "soft")]
    return [below(said, 2), *rows, below([paragraph(each, width) for each in _said(result)], 4)]


def _said(result: CheckResult) -> Iterator[str]:
    for condition in measured(result).conditions:
        yield f"{short_name(condition.name)}: {effective_text(condition, result.request.threshold)}"
    if missing := left_out(result):
        yield missing
    yield from (f"note: {note}" for note in notes(result))


def _length_chart(result: CheckResult) -> Element:
    curves = {each.name: each.lengths for each in result.conditions}
    return length_chart(curves, result.request.threshold)


def _named_heatmap(condition: Condition, number: int, train_length: int | None) -> Element:
    made = heatmap(condition, number=number, train_length=train_length)
    return below([paragraph(short_name(condition.name), size_of(made)[0], "name"), made], 4)


def _legend(result: CheckResult, width: float) -> Element:
    names = legend([short_name(condition.name) for condition in result.conditions], width)
    low, high, marks = SCALE_TEXT
    bar = beside([paragraph(low, 24, "soft"), scale(0), paragraph(high, width - 178, "soft")], 10)
    said = [paragraph(threshold_text(result), width, "soft"), paragraph(marks, width, "soft")]
    return below([names, said[0], bar, said[1]], 10)


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
    columns = {length: LEFT + i * _CELL_WIDTH for i, length in enumerate(lengths)}
    rows = {depth: TOP + i * _CELL_HEIGHT for i, depth in enumerate(depths)}
    bottom = TOP + len(depths) * _CELL_HEIGHT
    width = LEFT + len(lengths) * _CELL_WIDTH + 10
    parts = [_hatching(number)]
    for cell in condition.cells:
        share = None if cell.hits is None else cell.hits / cell.trials
        where = f"{cell.length:,} tokens, depth {percent(cell.depth)}: {cell_text(cell)}"
        parts.append(_square(columns[cell.length], rows[cell.depth], share, where, number))
    for depth, y in rows.items():
        parts.append(label(LEFT - 8, y + _CELL_HEIGHT / 2 + 5, percent(depth), "end"))
    for length, x in columns.items():
        parts.append(label(x + _CELL_WIDTH / 2, bottom + 18, f"{length:,}", "middle"))
    middle = LEFT + len(lengths) * _CELL_WIDTH / 2
    parts.append(label(middle, bottom + 38, "length in tokens", "middle"))
    down = "depth of the key" if len(depths) > 3 else "depth"
    parts.append(turned(14, (TOP + bottom) / 2, down))
    beyond = [x for length, x in columns.items() if train_length and length > train_length]
    if beyond and len(beyond) < len(columns):
        parts.append(line(min(beyond), TOP - 8, min(beyond), bottom + 4, "limit"))
    return picture(
        f"heatmap{number}",
        f"Keys found by {condition.name}, by length and depth",
        "The table beside the picture holds the same numbers.",
        (width, bottom + BOTTOM),
        parts,
    )


def length_chart(curves: Mapping[str, Sequence[LengthAccuracy]], threshold: float) -> Element:
    """Accuracy by length of every condition with its intervals.

    Parameters
    ----------
    curves : mapping of str to sequence of LengthAccuracy
        By the names of conditions.
    threshold : float
        Where the dashed line lies, in (0, 1].
    """
    lengths = sorted({each.length for curve in curves.values() for each in curve})
    chart = _Chart(lengths)
    parts: list[Element] = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = chart.y(share)
        parts.append(line(LEFT, y, chart.right, y, "grid"))
        parts.append(label(LEFT - 8, y + 5, percent(share), "end"))
    parts.extend(_lengths(chart, lengths))
    parts.append(label((LEFT + chart.right) / 2, chart.bottom + 40, "length in tokens", "middle"))
    y = chart.y(threshold)
    parts.append(line(LEFT, y, chart.right, y, "limit"))
    for number, (name, curve) in enumerate(curves.items()):
        parts.extend(_series(chart, name, curve, number, abreast(number, len(curves))))
    return picture(
        "lengths",
        "Accuracy by length of every condition",
        f"With 95 % intervals; the dashed line is the bound of {percent(threshold)}. The table "
        "below the picture holds the same numbers.",
        (CHART_WIDTH, chart.bottom + BOTTOM),
        parts,
    )


def scale(number: int) -> Element:
    """The colours from 0 to 100 %; `number` as in `heatmap`."""
    name = f"scale{number}"
    stops = [
        element("stop", attributes={"offset": at, "stop-color": hexadecimal(colour)})
        for at, colour in STOPS
    ]
    bar = element(
        "rect",
        attributes={"y": 3, "width": 128, "height": 14, "rx": 3, "fill": f"url(#{name})"},
    )
    gradient = element("linearGradient", *stops, attributes={"id": name})
    made = box(128, 20, [gradient, bar])
    made.set("aria-hidden", "true")
    return made


class _Chart:
    """Scales of the chart: lengths by octave across, accuracy up."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.right = CHART_WIDTH - 20
        self.bottom = TOP + CHART_HEIGHT
        self._first = math.log2(lengths[0])
        self._octaves = max(math.log2(lengths[-1]) - self._first, 1)

    def x(self, length: int) -> float:
        inner = self.right - LEFT - 80
        return LEFT + 40 + inner * (math.log2(length) - self._first) / self._octaves

    def y(self, share: float) -> float:
        return self.bottom - share * CHART_HEIGHT


def _lengths(chart: _Chart, lengths: Sequence[int]) -> Iterator[Element]:
    """Lengths below the chart, from the longest down: one that would touch the last is left out."""
    free = math.inf
    for length in reversed(lengths):
        text = f"{length:,}"
        x, half = chart.x(length), len(text) * DIGIT_WIDTH / 2
        if x + half <= free:
            yield label(x, chart.bottom + 20, text, "middle")
            free = x - half


def _series(
    chart: _Chart, name: str, curve: Sequence[LengthAccuracy], number: int, offset: float
) -> Iterator[Element]:
    stretches: list[list[LengthAccuracy]] = [[]]
    for point in curve:
        if point.accuracy is None:
            stretches.append([])
        else:
            stretches[-1].append(point)
    for stretch in stretches:
        if len(stretch) > 1:
            points = [(chart.x(p.length) + offset, chart.y(p.accuracy or 0.0)) for p in stretch]
            yield path(points, number)
    for point in (p for stretch in stretches for p in stretch):
        x = chart.x(point.length) + offset
        low, high = point.interval or (0.0, 1.0)
        text = f"{name}, {point.length:,} tokens: "
        yield line(x, chart.y(low), x, chart.y(high), series(number))
        mark = marker(x, chart.y(point.accuracy or 0.0), number)
        mark.append(element("title", text + accuracy_text(point.accuracy, point.interval)))
        yield mark


def _square(x: float, y: float, share: float | None, where: str, number: int) -> Element:
    colour = None if share is None else accuracy_colour(share)
    fill = f"url(#hatch{number})" if colour is None else hexadecimal(colour)
    box: dict[str, str | float] = {
        "x": x + 1,
        "y": y + 1,
        "width": _CELL_WIDTH - 2,
        "height": _CELL_HEIGHT - 2,
    }
    text = label(
        x + _CELL_WIDTH / 2,
        y + _CELL_HEIGHT / 2 + 5,
        "n/m" if share is None else percent(share),
        "middle",
    )
    if colour is None:
        text.set("class", "unmeasured")
    else:
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


#: sRGB, 0 to 255.
_Colour = tuple[int, int, int]

#: Accuracy and its colour; between two stops channels are mixed linearly.
STOPS: tuple[tuple[float, _Colour], ...] = (
    (0.0, (36, 16, 74)),
    (0.25, (48, 62, 138)),
    (0.5, (38, 120, 152)),
    (0.75, (98, 184, 148)),
    (1.0, (250, 242, 164)),
)

_BLACK: _Colour = (0, 0, 0)
_WHITE: _Colour = (255, 255, 255)


def accuracy_colour(accuracy: float) -> _Colour:
    """Colour of an accuracy in [0, 1]: dark blue for 0, pale yellow for 1."""
    for (low, dark), (high, light) in pairwise(STOPS):
        if accuracy <= high:
            share = (accuracy - low) / (high - low)
            red, green, blue = (
                round(a + share * (b - a)) for a, b in zip(dark, light, strict=True)
            )
            return red, green, blue
    raise ValueError(f"accuracy {accuracy} is above 1")


def luminance(colour: _Colour) -> float:
    """Relative luminance in [0, 1] (WCAG 2.2)."""
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in (channel / 255 for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: _Colour, b: _Colour) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def text_colour(background: _Colour) -> _Colour:
    """Black or white, whichever is easier to read on a background."""
    return max((_BLACK, _WHITE), key=lambda colour: contrast(colour, background))


def hexadecimal(colour: _Colour) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
