"""An HTML page that loads nothing: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING
from xml.etree.ElementTree import tostring

from ggufext.audit.report.drawing import element, key, style
from ggufext.audit.report.sentences import NOT_MEASURED
from ggufext.text import json_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from xml.etree.ElementTree import Element

#: Nothing may be loaded or run, whatever a model file managed to write into this page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: str, parts: Sequence[Element]) -> str:
    """The whole HTML document, UTF-8."""
    css = (files("ggufext.audit.report") / "page.css").read_text("utf-8")
    head = element(
        "head",
        element("meta", attributes={"charset": "utf-8"}),
        _meta("http-equiv", "Content-Security-Policy", _POLICY),
        _meta("name", "viewport", "width=device-width, initial-scale=1"),
        _meta("name", "color-scheme", "light dark"),
        element("title", title),
        element("style", style() + css),
    )
    main = element("main", element("h1", title), *parts, attributes={"id": "report"})
    skip = element("a", "Skip to the report", attributes={"href": "#report", "class": "skip"})
    html = element("html", head, element("body", skip, main), attributes={"lang": "en"})
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _meta(kind: str, name: str, content: str) -> Element:
    return element("meta", attributes={kind: name, "content": content})


def definitions(facts: Mapping[str, str]) -> Element:
    """Names with what they stand for."""
    pairs = [
        part
        for name, value in facts.items()
        for part in (element("dt", name), element("dd", value))
    ]
    return element("dl", *pairs)


def legend(names: Iterable[str]) -> Element:
    """Names of conditions with their lines."""
    rows = (element("li", key(i), name) for i, name in enumerate(names))
    return element("ul", *rows, attributes={"class": "legend"})


def everything(result: object) -> Element:
    """A result as JSON, folded."""
    return element(
        "details",
        element("summary", "Everything as JSON"),
        element(
            "pre",
            json_text(result),
            attributes={"tabindex": "0", "role": "region", "aria-label": "Result as JSON"},
        ),
    )


def table(caption: str, heads: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> Element:
    """A table whose rows begin with a name."""
    head = element("tr", *(element("th", text, attributes={"scope": "col"}) for text in heads))
    body = [
        element(
            "tr",
            element("th", name, attributes={"scope": "row"}),
            *(element("td", text, attributes=_look(text)) for text in values),
        )
        for name, values in rows
    ]
    made = element(
        "table", element("caption", caption), element("thead", head), element("tbody", *body)
    )
    # A wide table scrolls in a region of its own, which the keyboard must reach.
    return element(
        "div",
        made,
        attributes={"class": "scroll", "tabindex": "0", "role": "region", "aria-label": caption},
    )


def _look(text: str) -> dict[str, str]:
    if text == NOT_MEASURED:
        return {"class": "missing"}
    return {}
