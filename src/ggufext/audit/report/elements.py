"""HTML as elements: text and attributes are escaped by the writer, never by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, tostring

from ggufext.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Longest text of one element; JSON below "Everything as JSON" is the longest.
_LONGEST = 10_000_000


def element(
    tag: str, *children: Element | str, attributes: Mapping[str, str | float] | None = None
) -> Element:
    """An element with children in order; text loses its control characters.

    Parameters
    ----------
    tag : str
    *children : Element or str
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


def document(html: Element) -> str:
    """A whole HTML document."""
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _visible(text: str) -> str:
    return "\n".join(printable(line, _LONGEST) for line in text.split("\n"))


def _value(value: str | float) -> str:
    return _visible(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
