"""Runs go on where a piece ended, and wait for what is not there; on the shipped model."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

import passkey_task
import run as study
import schedule
from llama_here import needs_llama_cpp
from schedule import Measure, Run

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
