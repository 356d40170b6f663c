"""The page says what is there, what is not, and nothing of what it does not know."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from inference import Verdict
from made_up_study import made_up_cells, made_up_registry
from page import page
from pictures import PICTURES, digest, write_pictures
from report import PAGE
from schedule import SMOLLM2, Measure, Run
from study import Study, read_study

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FAILED = "passkey-base500-head32-seed1"


def made_up(*, fails: Callable[[Run], bool] = lambda _: False, failed: str = "") -> Study:
    return Study(tuple(made_up_cells(fails=fails)), made_up_registry(failed=failed))


@pytest.fixture(scope="module")
def complete() -> Study:
    return made_up()


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}")[2].partition("\n## ")[0]


def row(text: str, start: str) -> list[str]:
    (found,) = (line for line in text.splitlines() if line.startswith(start))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_committed_page_is_what_the_committed_results_say() -> None:
    study = read_study()
    assert PAGE.read_text(encoding="utf-8") == page(study), (
        "run: python studies/gamma_rule/report.py"
    )
    for name in PICTURES:
        with Image.open(PAGE.parent / "images" / name) as picture:
            assert picture.info["Description"] == digest(study), name


def test_the_newcomers_paragraph_has_the_words_of_the_primary_comparisons_alone(
    complete: Study,
) -> None:
    paragraph = section(page(complete), "In short").strip().splitlines()[0]
    assert re.findall(r"\*\*(.*?)\*\*", paragraph) == [
        *("better", "worse") * 3,
        *("better", "the same"),
    ]
    assert not re.search(r"\d", paragraph.replace(f"{SMOLLM2}-135M", ""))


def test_a_page_of_everything_says_so(complete: Study) -> None:
    text = page(complete)
    assert "All 156 runs of the study are finished." in text
    assert "Not complete" not in text
    assert "All are finished." in section(text, "Runs")
    assert "None died." in section(text, "Runs")


def test_whether_attention_falls_as_the_formula_says_needs_both_slopes(complete: Study) -> None:
    assert "have to say so: they do not." in section(page(complete), "H1")
    as_claimed = tuple(
        replace(cell, fields={**cell.fields, "gamma": 2 * (cell.fields["gamma"] - 0.2)})
        if cell.run.measure is Measure.DECAY
        else cell
        for cell in complete.cells
    )
    assert "have to say so: they do." in section(page(replace(complete, cells=as_claimed)), "H1")
    assert "have to say so: so far, that is open." in page(replace(complete, cells=()))


def test_what_is_missing_failed_or_died_is_named() -> None:
    some = made_up(fails=lambda run: run.name == "loss-SmolLM2-x4-celery", failed=FAILED)
    some = replace(some, failures=[{"run": "loss-SmolLM2-x4-celery", "error": "engine_died"}])
    text = page(some)
    assert "**Not complete: 155 of 156 runs are finished.**" in text
    assert row(section(text, "Runs"), "| loss |")[2:] == ["4", "celery", "1", "0 of 4"]
    assert row(section(text, "Runs"), "| loss-SmolLM2")[1] == "engine_died"
    assert row(section(text, "Models"), f"| {FAILED}")[4].startswith("no")
    # Its keys count nowhere.
    assert row(text, "| P1 | ntk")[2] == "26 of 27"
    assert FAILED not in section(text, "Every passkey model")


def test_of_one_text_there_is_a_value_and_no_interval() -> None:
    one = made_up(fails=lambda run: run.model == SMOLLM2 and run.text != "Django")
    cells = row(page(one), "| P3 | yarn")
    assert cells[2] == "1 of 4"
    assert re.fullmatch(r"\+0\.0\d\d", cells[3])
    assert cells[4:] == ["–", Verdict.UNDECIDED.value]


def test_runs_of_a_search_that_kept_nothing_fall_away(complete: Study) -> None:
    cells = tuple(
        replace(cell, fields={**cell.fields, "kept": False})
        if cell.run.measure is Measure.TUNING and cell.run.model == SMOLLM2
        else cell
        for cell in complete.cells
        if not (
            cell.run.model == SMOLLM2
            and "tuned" in cell.run.conditions
            and cell.run.measure is Measure.LOSS
        )
    )
    text = page(replace(complete, cells=cells))
    assert "All 152 runs of the study are finished." in text
    assert row(section(text, "H5"), "| SmolLM2")[-1] == "kept nothing of its own"


def test_a_page_of_nothing_says_so(tmp_path: Path) -> None:
    nothing = Study((), {"finished": [], "open": [FAILED]})
    text = page(nothing)
    assert "**Not complete: 0 of 156 runs are finished.**" in text
    assert set(re.findall(r"\*\*(.*?)\*\*", section(text, "In short"))) == {"undecided"}
    assert text.count("Not measured") >= 3
    write_pictures(nothing, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(PICTURES)


def test_pictures_are_drawn_of_everything(complete: Study, tmp_path: Path) -> None:
    write_pictures(complete, tmp_path)
    assert all(f"images/{path.name}" in page(complete) for path in tmp_path.iterdir())
