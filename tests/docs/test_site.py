"""The documentation builds as a site, with every page in the menu and no broken link."""

import re
from pathlib import Path

import ggufext

ROOT = Path(__file__).parents[2]
#: What results hold that the reference need not describe.
NOT_OURS = {"Any", "Mapping", "None", "Path"}


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    built = {page.parent.name for page in site.glob("*/index.html")} | {"index"}
    assert pages <= built


def test_every_page_is_in_the_menu(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {page for page in pages if f'href="{page}/"' not in start} == set()


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text
        assert 'rel="stylesheet" href="http' not in text


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "index.html").read_text(encoding="utf-8")
    described = set(re.findall(r'id="ggufext\.api\.\w+\.(\w+)"', page))
    assert described >= set(dir(ggufext)) - {"__version__"}
    assert 'id="ggufext.rope.rotate"' in page
    for result in (ggufext.Plan, ggufext.Inspection, ggufext.CheckResult):
        for part in re.findall(r"[A-Z]\w+", " ".join(result.__annotations__.values())):
            assert re.search(rf'id="ggufext\.[\w.]+\.{part}"', page) or part in NOT_OURS, part
    # With the signature and the docstring of where it is defined.
    assert "Context length in tokens." in page
    assert "public(" not in page
