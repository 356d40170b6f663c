"""Runs go on where a piece ended, and wait for what is not there; on the shipped model."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import ggufext
import passkey_task
import run as study
import schedule
from ggufext.errors import EngineError
from llama_here import needs_llama_cpp
from schedule import Measure, Run
from study import read_study

needs_llama_cpp()

SHIPPED = Path(passkey_task.__file__).with_name("passkey-Q8_0.gguf")
CONDITIONS = ("native", "gamma", "base*0.25")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("GGUFEXT_STUDY_CACHE", str(folder))
    monkeypatch.setattr(study, "DEPTHS", 1)
    monkeypatch.setattr(study, "TRIALS", 1)
    return folder


@dataclass
class Made:
    """A run of ggufext that nothing stopped."""

    stop: None = None


@dataclass
class Kept:
    """What is looked at of a search that kept a scaling of its own."""

    plan: dict[str, object] = field(
        default_factory=lambda: {"method": "yarn", "target_length": 2048}
    )
    run: Made = field(default_factory=Made)
    kept: bool = True
    tuned: str = "planned:yarn:8,1,1"
    reason: str = "made up"
    searched: tuple[object, ...] = ()
    warnings: tuple[object, ...] = ()


def a_run(measure: Measure, kind: str) -> Run:
    """The first run of a kind of model, with fewer conditions and the shipped model for it."""
    found = next(
        each
        for each in schedule.runs()
        if each.measure is measure and each.factor == 2 and each.model.startswith(kind)
    )
    return replace(found, conditions=CONDITIONS)


def trained(run: Run, cache: Path) -> None:
    path = cache / f"{run.model}.gguf"
    shutil.copy(SHIPPED, path)
    path.with_suffix(".json").write_text("{}")


def minutes(count: float) -> study.Clock:
    return study.Clock(time.monotonic() + 60 * count)


def made(run: Run, folder: Path, *, left: float = 60) -> list[tuple[str, str | None]]:
    study.make(run, smollm2=None, clock=minutes(left), folder=folder)
    return [(cell["condition"], cell["text"]) for cell in study.finished(run, folder)]


@pytest.mark.parametrize(
    ("measure", "kind"), [(Measure.RETRIEVAL, "passkey"), (Measure.DECAY, "passkey")]
)
def test_every_condition_is_a_line_and_made_once(
    measure: Measure, kind: str, cache: Path, tmp_path: Path
) -> None:
    run = a_run(measure, kind)
    trained(run, cache)
    once = made(run, tmp_path)
    assert once == [(condition, None) for condition in CONDITIONS]
    assert made(run, tmp_path) == once


def test_the_loss_of_every_module_is_kept_in_blocks(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(Measure.LOSS, "language")
    trained(run, cache)
    texts = study._texts
    monkeypatch.setattr(study, "_texts", lambda of: texts(of)[:2])
    with pytest.raises(KeyboardInterrupt):
        # Less than a cell is left when the first one is done.
        study.make(run, smollm2=None, clock=minutes(0), folder=tmp_path)
    assert study.finished(run, tmp_path) == []
    cells = made(run, tmp_path)
    assert len(set(cells)) == len(cells) == 2 * len(CONDITIONS)
    for cell in study.finished(run, tmp_path):
        assert len(cell["bins"]) == len(cell["losses"])
        assert cell["bins"][-1][1] == 512
        assert (cell["divergence"] == 0) == (cell["condition"] == "native")


def test_a_search_is_one_line_and_has_the_minutes_that_earlier_pieces_left(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(each for each in schedule.runs() if each.measure is Measure.TUNING)
    monkeypatch.setattr(study, "_LANGUAGE_TUNING", (1, 1))
    trained(run, cache)
    with pytest.raises(KeyboardInterrupt):
        made(run, tmp_path, left=-1)
    assert study.finished(run, tmp_path) == []
    spent = cache / "kept" / f"{run.name}.minutes"
    assert not spent.exists()
    spent.write_text("9.75")
    asked: list[float] = []
    search = ggufext.tune

    def tune(path: Path, request: ggufext.TuneRequest, **how: Any) -> ggufext.TuneResult:
        asked.append(request.minutes)
        return search(path, request, **how)

    monkeypatch.setattr(ggufext, "tune", tune)
    assert made(run, tmp_path) == made(run, tmp_path) == [("tuned", None)]
    (cell,) = study.finished(run, tmp_path)
    assert asked[0] == 0.25  # of ten
    assert cell["minutes"] >= 9.75
    assert {each["closed_form"] for each in cell["searched"] if each["texts"]} >= {True}
    assert cell["kept"] == (cache / "tuned").exists()


def test_what_a_search_kept_is_the_recipe_of_the_runs_behind_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = next(each for each in schedule.runs() if each.measure is Measure.TUNING)
    trained(run, cache)
    asked: list[ggufext.TuneRequest] = []

    def tune(_path: Path, request: ggufext.TuneRequest, **_rest: object) -> Kept:
        asked.append(request)
        return Kept()

    monkeypatch.setattr(ggufext, "tune", tune)
    assert made(run, tmp_path) == [("tuned", None)]
    (request,) = asked
    modules = {path.name for path in request.texts}
    assert len(modules) == 7
    assert not modules & {f"{name}.py.txt" for name in ("json", "logging", "tkinter")}
    behind = next(
        each
        for each in schedule.runs()
        if each.measure is Measure.LOSS and "tuned" in each.conditions
    )
    (name,) = (
        name
        for name, condition in study._names(
            behind, ggufext.facts_of(cache / f"{run.model}.gguf"), 2048
        ).items()
        if condition == "tuned"
    )
    recipe = json.loads(Path(name.removeprefix("planned:")).read_text())
    assert recipe["plan"]["method"] == "yarn"


def test_a_run_that_died_twice_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(Measure.RETRIEVAL, "passkey")
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    error = EngineError(code="engine_died", message="killed")
    study._note_failure(run, error)
    for _ in range(2):
        study._note_failure(run, EngineError(code="engine_unknown", message="no llama.cpp"))
    assert not study._is_given_up(run)
    study._note_failure(run, error)
    assert study._is_given_up(run)
    assert read_study(tmp_path / "results").failures[1]["error"] == "engine_died"


def test_a_piece_that_is_over_begins_nothing(cache: Path, tmp_path: Path) -> None:
    run = a_run(Measure.RETRIEVAL, "passkey")
    trained(run, cache)
    with pytest.raises(KeyboardInterrupt):
        study.make(run, smollm2=None, clock=minutes(-1), folder=tmp_path)
    assert study.finished(run, tmp_path) == []


def test_what_is_not_trained_fetched_or_tuned_is_named(cache: Path, tmp_path: Path) -> None:
    run = a_run(Measure.RETRIEVAL, "passkey")
    with pytest.raises(study.NotReady, match="not trained yet"):
        made(run, tmp_path)
    trained(run, cache)
    with pytest.raises(study.NotReady, match=r"tuned/passkey-.*-x2\.json"):
        made(replace(run, conditions=("native", "tuned")), tmp_path)
    smollm2 = next(each for each in schedule.runs() if each.text)
    with pytest.raises(study.NotReady, match="--smollm2"):
        made(smollm2, tmp_path)
    with pytest.raises(study.NotReady, match=r"texts\.py"):
        study.make(smollm2, smollm2=SHIPPED, clock=minutes(60), folder=tmp_path)


def test_a_file_of_another_format_is_no_comparison(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    path.write_text(json.dumps({"format": "something else"}) + "\n")
    with pytest.raises(ValueError, match="expected 'ggufext compare 1'"):
        study._compared(path)
