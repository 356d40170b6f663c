"""Parts of pictures as SVG, put beside and below each other, and a PNG of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, tostring

from rich.console import Console
from rich.text import Text

from ggufext.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_FONT, _FONT_FILES = "Source Sans Pro", ("SourceSansPro-Regular.ttf", "SourceSansPro-Semibold.ttf")

#: Pixels of a PNG for each of CSS, and its longest side, which browsers and viewers still show.
_ZOOM, _LONGEST_SIDE = 2.0, 16_000

# Sizes in CSS pixels: around what a chart shows, of that, between parts, of all.
LEFT, TOP, BOTTOM = 84, 10, 46
CHART_WIDTH, CHART_HEIGHT = 620, 260
GAP = 24
NARROWEST, _WIDEST = 960, 1200

#: Width of a digit in a picture.
DIGIT_WIDTH = 9

#: Size of letters by the class of a text.
_LETTER_SIZES = {"title": 22, "name": 15, "text": 14, "soft": 14}

#: Width of a letter in sizes of letters: the mean one takes 0.45, a Chinese one (two cells) 1.
_LETTER_SHARE = 0.57

#: Most lines across a chart.
_MOST_TICKS = 8

#: Longest text of one element; JSON below "Everything as JSON" is the longest.
_LONGEST_TEXT = 10_000_000

#: A condition is told by colour, marker and dashes, so that none of them is needed.
_DASHES = ("none", "7 4", "2 3", "10 3 2 3", "1 4", "12 6")


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `low` to `high` on the pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        share = (value - self.low) / (self.high - self.low or 1)
        return self.start + share * (self.end - self.start)


def ticks(values: Sequence[float]) -> list[float]:
    """Round values around all others, at most `_MOST_TICKS` steps apart."""
    low, high = min(values), max(values)
    step = next(
        step
        for power in range(-2, 9)
        for step in (10.0**power, 2 * 10.0**power, 5 * 10.0**power)
        if (high - low) / step <= _MOST_TICKS - 2
    )
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def png_of(blocks: Sequence[Element]) -> bytes:
    """Blocks one below the other as a PNG; needs the extra ``[report]``."""
    from resvg_py import svg_to_bytes

    inner = below(blocks)
    inner.set("x", f"{GAP}")
    inner.set("y", f"{GAP}")
    wide, high = size_of(inner)
    drawing = box(wide + 2 * GAP, high + 2 * GAP, [inner])
    drawing.set("xmlns", "http://www.w3.org/2000/svg")
    css = style()
    light = dict(re.findall(r"(--\w+): (#\w+)", css.partition("@media")[0]))
    fonts = files("font_source_sans_pro") / "files"
    return svg_to_bytes(
        tostring(drawing, encoding="unicode"),
        style_sheet=re.sub(r"var\((--\w+)\)", lambda found: light[found[1]], css),
        background=light["--paper"],
        zoom=min(_ZOOM, _LONGEST_SIDE / max(size_of(drawing))),
        font_family=_FONT,
        font_files=[str(fonts / name) for name in _FONT_FILES],
    )


def style() -> str:
    """Style sheet of the pictures; it names the colours, those of the page too."""
    return (files("ggufext.audit.report") / "picture.css").read_text(encoding="utf-8")


def in_rows(blocks: Sequence[Element]) -> Iterator[list[Element]]:
    """As many blocks beside each other as fit; at least one."""
    row: list[Element] = []
    for block in blocks:
        if row and sum(size_of(each)[0] + GAP for each in [*row, block]) - GAP > _WIDEST:
            yield row
            row = []
        row.append(block)
    if row:
        yield row


def series(number: int) -> str:
    """Classes of the lines of a condition by its number."""
    return f"series s{number % len(_DASHES)}"


def path(points: Sequence[tuple[float, float]], number: int) -> Element:
    """Points joined by the line of a condition."""
    return element(
        "polyline",
        attributes={
            "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points),
            "class": series(number),
            "stroke-dasharray": _DASHES[number % len(_DASHES)],
        },
    )


def key(number: int) -> Element:
    """The line and marker of a condition, for a legend."""
    made = box(34, 16, [path([(0, 8), (34, 8)], number), marker(17, 8, number)])
    made.set("aria-hidden", "true")
    return made


def legend(names: Sequence[str], width: float) -> Element:
    """Names of conditions beside their lines, one below the other."""
    rows = [beside([key(i), paragraph(name, width - 44)], 10) for i, name in enumerate(names)]
    return below(rows, 10)


def abreast(number: int, count: int) -> float:
    """How far beside its place a point of one of so many conditions lies, so that all are seen."""
    return 7 * (number - (count - 1) / 2)


def marker(x: float, y: float, number: int) -> Element:
    """The mark of a condition, for a point."""
    corners = (
        ((-5, -5), (5, -5), (5, 5), (-5, 5)),
        ((0, -6.5), (6.5, 5), (-6.5, 5)),
        ((0, -7), (7, 0), (0, 7), (-7, 0)),
        ((0, 6.5), (6.5, -5), (-6.5, -5)),
        ((-7, -3), (7, -3), (7, 3), (-7, 3)),
    )
    number %= len(_DASHES)
    style = f"marker s{number}"
    if number == 0:
        return element("circle", attributes={"cx": x, "cy": y, "r": 5.5, "class": style})
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[number - 1])
    return element("polygon", attributes={"points": points, "class": style})


def label(x: float, y: float, text: str, anchor: str) -> Element:
    """A text at a place."""
    return element("text", text, attributes={"x": x, "y": y, "text-anchor": anchor})


def turned(x: float, y: float, text: str) -> Element:
    """A text that is read from below, at its middle."""
    made = label(x, y, text, "middle")
    made.set("transform", f"rotate(-90 {x} {y})")
    return made


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Element:
    """A straight line."""
    return element("line", attributes={"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": style})


def picture(
    name: str, title: str, description: str, size: tuple[float, float], parts: Sequence[Element]
) -> Element:
    """A picture that a screen reader can name; `name` is unique on its page."""
    words = [
        element("title", title, attributes={"id": f"{name}-title"}),
        element("desc", description, attributes={"id": f"{name}-desc"}),
    ]
    made = box(*size, [*words, *parts])
    made.set("role", "img")
    made.set("aria-labelledby", f"{name}-title")
    made.set("aria-describedby", f"{name}-desc")
    return made


def box(width: float, height: float, parts: Sequence[Element]) -> Element:
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


def size_of(made: Element) -> tuple[float, float]:
    """Width and height of a box."""
    return float(made.get("width", 0)), float(made.get("height", 0))


def below(boxes: Sequence[Element], gap: float = GAP) -> Element:
    """Boxes one below the other."""
    y = 0.0
    for each in boxes:
        each.set("y", _value(y))
        y += size_of(each)[1] + gap
    return box(max((size_of(each)[0] for each in boxes), default=0), max(y - gap, 0), boxes)


def beside(boxes: Sequence[Element], gap: float = GAP) -> Element:
    """Boxes beside each other, at one height."""
    x = 0.0
    for each in boxes:
        each.set("x", _value(x))
        x += size_of(each)[0] + gap
    return box(x - gap, max(size_of(each)[1] for each in boxes), boxes)


def paragraph(text: str, width: float, kind: str = "text") -> Element:
    """A text in lines that fit into a width."""
    size = _LETTER_SIZES[kind]
    cells = int(width / (size * _LETTER_SHARE))
    lines = [each.plain.rstrip() for each in Text(_visible(text)).wrap(Console(), cells)]
    rows = [
        element(
            "text",
            each,
            attributes={"y": size * (1 + 1.4 * i), "class": kind, "style": f"font-size: {size}px"},
        )
        for i, each in enumerate(lines)
    ]
    made = box(width, size * 1.4 * len(rows), rows)
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
    return "\n".join(printable(each, _LONGEST_TEXT) for each in text.split("\n"))


def _value(value: str | float) -> str:
    return _visible(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
