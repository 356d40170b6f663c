"""The HTML page: complete, harmless, readable without the picture."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ggufext.audit.report import write_report
from ggufext.audit.report.page import page
from ggufext.audit.report.picture import accuracy_colour
from made_up_audits import HOSTILE, NAMED, SHARES, audit, named, with_run

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from ggufext.audit.findings.results import CheckResult


class Elements(HTMLParser):
    """Tags with their attributes, and the text of each table cell."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in {"td", "th"}:
            self.cells.append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def parsed(result: CheckResult) -> Elements:
    elements = Elements()
    elements.feed(page(result))
    return elements


def test_the_page_loads_and_runs_nothing() -> None:
    found = parsed(audit())
    loading = {"script", "link", "img", "iframe", "object", "embed", "image", "use", "base", "form"}
    assert not loading & {tag for tag, _ in found.tags}
    assert "url(http" not in page(audit())
    assert all(
        value is None or value.startswith(("#", "url(#"))
        for _, attributes in found.tags
        for name, value in attributes.items()
        if name in {"src", "href"} or "url(" in (value or "")
    )


def test_the_page_forbids_scripts_and_the_network_itself() -> None:
    policies = [
        attributes["content"]
        for tag, attributes in parsed(audit()).tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert "default-src 'none'" in (policies[0] or "")


def test_every_cell_of_the_heatmap_is_also_in_a_table() -> None:
    result = audit()
    cells = parsed(result).cells
    for condition in result.conditions:
        for cell in condition.cells:
            assert any(text.startswith(f"{cell.hits} of {cell.trials} (") for text in cells)


def test_a_cell_that_was_not_measured_says_so_in_table_and_picture() -> None:
    result = audit({"file": (1.0, 0.0, 1.0)}, missing=((512, 0.1), (1024, 0.1)))
    html = page(result)
    assert parsed(result).cells.count("not measured") == 2
    assert html.count('fill="url(#hatch0)"') == 2
    assert html.count(">n/m<") == 2


def test_what_was_not_measured_at_all_has_no_table_and_is_named() -> None:
    shares = {"file": (1.0, 0.5, None), "native": (1.0, 1.0, 1.0), "planned:yarn": (None,) * 3}
    result = audit(shares, complete=False)
    html = page(result)
    assert "not measured: file at 1,024 tokens; planned:yarn<" in html
    assert "Condition planned:yarn" not in html
    assert html.count(">n/m<") == 0
    # of the table of all conditions
    assert parsed(result).cells.count("not measured") == 1


def test_pictures_have_names_for_screen_readers() -> None:
    tags = parsed(audit()).tags
    ids = {attributes.get("id") for _, attributes in tags}
    pictures = [attributes for tag, attributes in tags if tag == "svg" and "role" in attributes]
    assert len(pictures) == len(SHARES) + 1
    assert all(picture["role"] == "img" for picture in pictures)
    assert {picture["aria-labelledby"] for picture in pictures} <= ids


def test_tables_have_captions_and_scoped_heads() -> None:
    tags = parsed(audit()).tags
    tables = [tag for tag, _ in tags if tag in {"table", "caption"}]
    assert tables == ["table", "caption"] * (len(tables) // 2)
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in tags if tag == "th")


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name() -> None:
    regions = [a for _, a in parsed(audit()).tags if a.get("role") == "region"]
    assert regions
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in regions)


def test_identifiers_are_unique() -> None:
    ids = [a["id"] for _, a in parsed(audit()).tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_page_says_what_a_pass_does_not_prove() -> None:
    assert "does not show that it can reason" in page(audit())


@pytest.mark.parametrize("place", NAMED)
def test_hostile_names_become_text(place: str) -> None:
    hostile = named(place, HOSTILE)
    html = page(hostile)
    harmless = [tag for tag, _ in parsed(named(place, "name")).tags]
    assert [tag for tag, _ in parsed(hostile).tags] == harmless
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", html)
    assert "&lt;script&gt;" in html


def test_an_audit_without_any_answer_has_a_page() -> None:
    assert "not measured: file<" in page(audit({"file": (None, None, None)}))


class Browser:
    """A headless Chromium with a new profile for every page."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder

    def run(self, html: Path, *options: str) -> str:
        done = subprocess.run(
            [
                self._program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                f"--user-data-dir={self._folder / 'profile'}",
                *options,
                html.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    def pixels(self, html: Path, *options: str) -> npt.NDArray[np.int64]:
        """Screenshot as whole numbers 0 to 255, shape (height, width, 3)."""
        shot = self._folder / "shot.png"
        self.run(html, f"--screenshot={shot}", "--window-size=1200,2200", *options)
        return np.asarray(Image.open(shot).convert("RGB")).astype(np.int64)


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    return Browser(program, tmp_path)


def _has(pixels: npt.NDArray[np.int64], accuracy: float) -> int:
    return int((pixels == accuracy_colour(accuracy)).all(axis=2).sum())


def test_a_browser_paints_the_colours_of_the_cells(browser: Browser, tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    write_report(audit({"file": (1.0, 1.0, 0.0)}), html)
    pixels = browser.pixels(html)
    # a cell is 72 × 32 pixels, less its text and rounded corners; five depths a length
    assert _has(pixels, 1.0) > 10 * 72 * 32 * 0.6
    assert _has(pixels, 0.0) > 5 * 72 * 32 * 0.6


def test_a_browser_paints_no_accuracy_where_nothing_was_measured(
    browser: Browser, tmp_path: Path
) -> None:
    html = tmp_path / "report.html"
    write_report(audit({"file": (1.0, None, None)}), html)
    assert _has(browser.pixels(html), 0.0) < 72 * 32  # the narrow legend bar may hold some


@pytest.mark.parametrize(("scheme", "light"), [("0", False), ("1", True)])
def test_the_page_follows_the_colour_scheme_of_the_reader(
    browser: Browser, tmp_path: Path, scheme: str, light: bool
) -> None:
    html = tmp_path / "report.html"
    write_report(audit(), html)
    pixels = browser.pixels(html, f"--blink-settings=preferredColorScheme={scheme}")
    assert bool(pixels[5, 5].mean() > 128) is light


def test_a_browser_runs_nothing_that_a_name_brought(browser: Browser, tmp_path: Path) -> None:
    html = tmp_path / "report.html"
    hostile = (
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    )
    write_report(with_run(audit({hostile: SHARES["file"]}), engine=hostile), html)
    dom = browser.run(html, "--dump-dom")
    assert "<title>Passkey audit of passkey-Q8_0.gguf</title>" in dom
    assert "&lt;img src=x" in dom
    assert "<img" not in dom
