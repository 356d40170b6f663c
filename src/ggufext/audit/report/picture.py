"""The pictures of an audit as SVG: parts for the page, and all of it as one PNG."""

from __future__ import annotations

import math
import re
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, tostring

from rich.console import Console
from rich.text import Text

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
from ggufext.errors import printable
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ggufext.audit.findings.results import CheckResult, Condition, LengthAccuracy


_FONT, _FONT_FILES = "Source Sans Pro", ("SourceSansPro-Regular.ttf", "SourceSansPro-Semibold.ttf")

#: Pixels of a PNG for each of CSS, and its longest side, which browsers and viewers still show.
_ZOOM, _LONGEST_SIDE = 2.0, 16_000

# Sizes in CSS pixels.
_CELL_WIDTH, _CELL_HEIGHT = 74, 34
_LEFT, _TOP, _BOTTOM = 84, 10, 46
_CHART_WIDTH, _CHART_HEIGHT = 620, 260
_DIGIT_WIDTH = 9
_GAP = 24
_NARROWEST, _WIDEST = 960, 1200

#: Size of letters by the class of a text.
_LETTER_SIZES = {"title": 22, "name": 15, "text": 14, "soft": 14}

#: Width of a letter in sizes of letters: the mean one takes 0.45, a Chinese one (two cells) 1.
_LETTER_SHARE = 0.57

#: Longest text of one element; JSON below "Everything as JSON" is the longest.
_LONGEST_TEXT = 10_000_000

#: A condition is told by colour, marker and dashes, so that none of them is needed.
_DASHES = ("none", "7 4", "2 3", "10 3 2 3", "1 4", "12 6")
_SERIES = len(_DASHES)


def png(result: CheckResult) -> bytes:
    """All pictures and sentences as one PNG; needs the extra ``[report]``."""
    from resvg_py import svg_to_bytes

    drawing = _whole(result)
    css = style()
    light = dict(re.findall(r"(--\w+): (#\w+)", css.partition("@media")[0]))
    fonts = files("font_source_sans_pro") / "files"
    return svg_to_bytes(
        tostring(drawing, encoding="unicode"),
        style_sheet=re.sub(r"var\((--\w+)\)", lambda found: light[found[1]], css),
        background=light["--paper"],
        zoom=min(_ZOOM, _LONGEST_SIDE / max(_size(drawing))),
        font_family=_FONT,
        font_files=[str(fonts / name) for name in _FONT_FILES],
    )


def style() -> str:
    """Style sheet of the pictures; it names the colours, those of the page too."""
    return (files("ggufext.audit.report") / "picture.css").read_text(encoding="utf-8")


def _whole(result: CheckResult) -> Element:
    """Title, heatmaps, accuracy by length and sentences in one SVG."""
    shown = measured(result)
    maps = [_named_heatmap(c, i, shown.run.train_length) for i, c in enumerate(shown.conditions)]
    rows = [_beside(row) for row in _rows(maps)]
    width = max([_NARROWEST, *(_size(row)[0] for row in rows)])
    if maps:
        chart = [_text(LENGTHS_TITLE, _CHART_WIDTH, "name"), length_chart(shown)]
        rows.append(_beside([_below(chart, 4), _legend(shown, width - _CHART_WIDTH - _GAP)]))
    blocks = [
        _below([_text(title(result), width, "title"), _text(run_line(result), width, "soft")], 2),
        *rows,
        _below([_text(line, width) for line in _said(result)], 4),
    ]
    inner = _below(blocks)
    inner.set("x", f"{_GAP}")
    inner.set("y", f"{_GAP}")
    wide, high = _size(inner)
    made = _box(wide + 2 * _GAP, high + 2 * _GAP, [inner])
    made.set("xmlns", "http://www.w3.org/2000/svg")
    return made


def _said(result: CheckResult) -> Iterator[str]:
    for condition in measured(result).conditions:
        yield f"{short_name(condition.name)}: {effective_text(condition, result.request.threshold)}"
    if missing := left_out(result):
        yield missing
    yield from (f"note: {note}" for note in notes(result))


def _named_heatmap(condition: Condition, number: int, train_length: int | None) -> Element:
    picture = heatmap(condition, number=number, train_length=train_length)
    return _below([_text(short_name(condition.name), _size(picture)[0], "name"), picture], 4)


def _rows(blocks: Sequence[Element]) -> Iterator[list[Element]]:
    """As many blocks beside each other as fit; at least one."""
    row: list[Element] = []
    for block in blocks:
        if row and sum(_size(each)[0] + _GAP for each in [*row, block]) - _GAP > _WIDEST:
            yield row
            row = []
        row.append(block)
    if row:
        yield row


def _legend(result: CheckResult, width: float) -> Element:
    names = [
        _beside([key(number), _text(short_name(condition.name), width - 44)], 10)
        for number, condition in enumerate(result.conditions)
    ]
    low, high, marks = SCALE_TEXT
    bar = _beside([_text(low, 24, "soft"), scale(0), _text(high, width - 178, "soft")], 10)
    said = [_text(threshold_text(result), width, "soft"), _text(marks, width, "soft")]
    return _below([*names, said[0], bar, said[1]], 10)


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
    down = "depth of the key" if len(depths) > 3 else "depth"
    parts.append(_turned(14, (_TOP + bottom) / 2, down))
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
    parts.extend(_lengths(chart, lengths))
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
    line = _line(0, 8, 34, 8, f"series s{number % _SERIES}")
    line.set("stroke-dasharray", _DASHES[number % _SERIES])
    made = _box(34, 16, [line, _marker(17, 8, number)])
    made.set("aria-hidden", "true")
    return made


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
    made = _box(128, 20, [gradient, bar])
    made.set("aria-hidden", "true")
    return made


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


def _lengths(chart: _Chart, lengths: Sequence[int]) -> Iterator[Element]:
    """Lengths below the chart, from the longest down: one that would touch the last is left out."""
    free = math.inf
    for length in reversed(lengths):
        text = f"{length:,}"
        x, half = chart.x(length), len(text) * _DIGIT_WIDTH / 2
        if x + half <= free:
            yield _label(x, chart.bottom + 20, text, "middle")
            free = x - half


def _series(chart: _Chart, condition: Condition, number: int, offset: float) -> Iterator[Element]:
    style = f"series s{number % _SERIES}"
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
            dashes = _DASHES[number % _SERIES]
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
    style = f"marker s{number % _SERIES}"
    if number % _SERIES == 0:
        return element("circle", attributes={"cx": x, "cy": y, "r": 5.5, "class": style})
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[number % _SERIES - 1])
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
    words = [
        element("title", title, attributes={"id": f"{name}-title"}),
        element("desc", description, attributes={"id": f"{name}-desc"}),
    ]
    made = _box(*size, [*words, *parts])
    made.set("role", "img")
    made.set("aria-labelledby", f"{name}-title")
    made.set("aria-describedby", f"{name}-desc")
    return made


def _box(width: float, height: float, parts: Sequence[Element]) -> Element:
    """Parts in a picture of their own."""
    return element(
        "svg",
        *parts,
        attributes={
            "width": width,
            "height": height,
            "viewBox": f"0 0 {width:g} {height:g}",
            # Cutting costs resvg a layer for each box, a second for all of a large picture.
            "overflow": "visible",
        },
    )


def _size(box: Element) -> tuple[float, float]:
    return float(box.get("width", 0)), float(box.get("height", 0))


def _below(boxes: Sequence[Element], gap: float = _GAP) -> Element:
    """Boxes one below the other."""
    y = 0.0
    for box in boxes:
        box.set("y", _value(y))
        y += _size(box)[1] + gap
    return _box(max((_size(box)[0] for box in boxes), default=0), max(y - gap, 0), boxes)


def _beside(boxes: Sequence[Element], gap: float = _GAP) -> Element:
    """Boxes beside each other, at one height."""
    x = 0.0
    for box in boxes:
        box.set("x", _value(x))
        x += _size(box)[0] + gap
    return _box(x - gap, max(_size(box)[1] for box in boxes), boxes)


def _text(text: str, width: float, kind: str = "text") -> Element:
    """A text in lines that fit into a width."""
    size = _LETTER_SIZES[kind]
    cells = int(width / (size * _LETTER_SHARE))
    lines = [line.plain.rstrip() for line in Text(_visible(text)).wrap(Console(), cells)]
    rows = [
        element(
            "text",
            line,
            attributes={"y": size * (1 + 1.4 * i), "class": kind, "style": f"font-size: {size}px"},
        )
        for i, line in enumerate(lines)
    ]
    made = _box(width, size * 1.4 * len(rows), rows)
    made.set("overflow", "hidden")
    return made


def element(
    tag: str, *children: Element | str, attributes: Mapping[str, str | float] | None = None
) -> Element:
    """An element of SVG or HTML; the writer escapes text, which loses its control characters.

    Parameters
    ----------
    tag : str
    *children : Element or str
        In order.
    attributes : mapping, optional
        Numbers are written with at most two decimals.
    """
    made = Element(tag, {name: _value(value) for name, value in (attributes or {}).items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif last is None:
            made.text = (made.text or "") + _visible(child)
        else:
            last.tail = (last.tail or "") + _visible(child)
    return made


def _visible(text: str) -> str:
    return "\n".join(printable(line, _LONGEST_TEXT) for line in text.split("\n"))


def _value(value: str | float) -> str:
    return _visible(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


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
