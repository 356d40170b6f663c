"""What was measured before an edit, as `rewrite --recipe` keeps and `inspect` tells it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ggufext.errors import JournalError
from ggufext.header.facts import facts_hash
from ggufext.opened import history
from ggufext.opened.model import open_model
from program import result, run

if TYPE_CHECKING:
    from pathlib import Path

EVIDENCE = {
    "tool": "ggufext compare 0.1.0",
    "llama_cpp": "0.5.0",
    "condition": "planned:ntk",
    "reason": "planned:ntk has the lowest loss beyond 4,096 tokens",
    "texts": 2,
    "measurements": [
        {
            "measure": "loss_beyond",
            "against": "native",
            "value": -3.81234,
            "interval": [-4.0, -3.5],
            "n": 4000,
        },
        {
            "measure": "keys_at_target",
            "against": None,
            "value": 0.75,
            "interval": None,
            "n": 8,
        },
    ],
}


@pytest.fixture
def compared(llama: Path, tmp_path: Path) -> Path:
    """The JSON of a comparison that recommends ntk for a model."""
    with open_model(llama) as model:
        known = facts_hash(model.unextended, model.original_facts())
    return written(tmp_path, {"method": "ntk", "target_length": 8192}, known)


def written(folder: Path, plan: dict[str, Any], known: str) -> Path:
    path = folder / "compare.json"
    document = {"plan": plan, "model": {"facts_hash": known}, "evidence": EVIDENCE}
    path.write_text(json.dumps(document))
    return path


def kept(path: Path) -> object:
    return result("inspect", path)["history"]["evidence"]


def test_what_was_measured_is_told_until_the_edit_is_taken_back(
    llama: Path, compared: Path
) -> None:
    before = llama.read_bytes()
    result("rewrite", llama, "--recipe", compared)
    assert kept(llama) == EVIDENCE
    shown = run("inspect", llama).stdout
    assert (
        "  measured before    by ggufext compare 0.1.0 on 2 texts, llama.cpp 0.5.0: "
        "planned:ntk has the lowest loss beyond 4,096 tokens\n"
    ) in shown
    assert (
        " loss beyond the training length against native -3.812 of 4,000 tokens "
        "(95 %: -4.000 to -3.500)\n"
    ) in shown
    assert " keys found at the target 75 % of 8 keys\n" in shown
    result("undo", llama)
    assert llama.read_bytes() == before
    assert result("inspect", llama)["history"] is None


@pytest.mark.parametrize(
    "options", [("--target", "16k"), ("--keep-short",), ("--train-length", "2k")]
)
def test_another_edit_than_was_measured_has_no_evidence(
    llama: Path, compared: Path, options: tuple[str, ...]
) -> None:
    result("rewrite", llama, "--recipe", compared, *options)
    assert kept(llama) is None
    assert "measured before" not in run("inspect", llama).stdout


def test_evidence_of_another_model_is_not_kept_where_its_plan_is_forced(
    llama: Path, tmp_path: Path
) -> None:
    other = written(tmp_path, {"method": "ntk", "target_length": 8192}, "sha256:0")
    assert run("rewrite", llama, "--recipe", other).returncode == 1
    result("rewrite", llama, "--recipe", other, "--force")
    assert kept(llama) is None


def test_a_later_edit_without_evidence_replaces_it(llama: Path, compared: Path) -> None:
    before = llama.read_bytes()
    result("rewrite", llama, "--recipe", compared)
    result("rewrite", llama, "--target", "16k")
    assert kept(llama) is None
    result("undo", llama)
    assert llama.read_bytes() == before


def test_a_plan_that_keeps_short_contexts_and_a_training_length_is_written_as_measured(
    llama: Path, compared: Path, tmp_path: Path
) -> None:
    known = json.loads(compared.read_text())["model"]["facts_hash"]
    plan = {"method": "ntk", "target_length": 8192, "keep_short": True, "train_length": 2048}
    done = result("rewrite", llama, "--recipe", written(tmp_path, plan, known))
    assert done["keep_short"]
    assert done["train_length"]["value"] == 2048
    assert kept(llama) == EVIDENCE


def test_a_record_with_spoilt_evidence_still_leads_back(llama: Path, compared: Path) -> None:
    result("rewrite", llama, "--recipe", compared)
    with open_model(llama) as model:
        record = model.history
    assert record is not None
    assert history.decode(record.encode()) == record
    fields = json.loads(record.encode())
    spoilt = history.decode(json.dumps(fields | {"evidence": {"reason": 3}}))
    assert spoilt.evidence is None
    assert spoilt.original == record.original
    without = {name: value for name, value in fields.items() if name != "evidence"}
    assert history.decode(json.dumps(without)) == spoilt
    with pytest.raises(JournalError):
        history.decode(json.dumps({**fields, "layout": 3}))


def test_a_comparison_that_recommends_nothing_writes_nothing(llama: Path, tmp_path: Path) -> None:
    before = llama.read_bytes()
    path = tmp_path / "compare.json"
    path.write_text(
        json.dumps({"plan": None, "recommendation": {"condition": None, "reason": "not needed"}})
    )
    for command in ("plan", "rewrite"):
        done = run(command, llama, "--recipe", path, "--json")
        assert done.returncode == 1
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "nothing_recommended"
        assert "recommends nothing to write: not needed" in error["message"]
    assert llama.read_bytes() == before
