"""Models are trained in pieces, and the registry tells what became of each."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="needs PyTorch 2.13.0")
pytest.importorskip("tokenizers", reason="needs tokenizers 0.23.3")

import ggufext
import language_model
import passkey_models
import train
from standard_library import Part, Source, sources
from trained import TrainedModel, trained_models

if TYPE_CHECKING:
    from pathlib import Path

PASSKEY = TrainedModel("passkey", 10_000, 64, 1)
LANGUAGE = TrainedModel("language", 500, 64, 0)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (passkey_models, language_model):
        monkeypatch.setattr(module, "STEPS", 4)
        monkeypatch.setattr(module, "CHECKPOINT_STEPS", 2)
    monkeypatch.setattr(language_model, "ROWS", 1)
    monkeypatch.setattr(language_model, "WINDOWS", 2)
    library = [source for source in sources() if source.part is Part.TUNING][:4]
    renamed = [Source(f"argparse/{source.name}", source.text) for source in library[:2]]
    corpus = language_model.corpus([*library, *renamed])
    monkeypatch.setattr(language_model, "corpus", lambda: corpus)


@pytest.mark.parametrize("model", [PASSKEY, LANGUAGE], ids=lambda model: model.kind)
def test_a_model_trained_in_two_pieces_is_the_one_trained_in_one(
    model: TrainedModel, tmp_path: Path
) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    whole.mkdir()
    pieces.mkdir()
    assert train.train(model, whole, stop=lambda: False)
    assert not train.train(model, pieces, stop=lambda: True)
    assert not list(pieces.glob("*.gguf"))
    assert train.train(model, pieces, stop=lambda: False)
    assert [path.suffix for path in sorted(pieces.iterdir())] == [".gguf", ".json"]
    name = f"{model.name}.gguf"
    assert (pieces / name).read_bytes() == (whole / name).read_bytes()
    facts = ggufext.facts_of(pieces / name)
    assert (facts.freq_base, len(facts.inv_freq)) == (model.freq_base, model.head_dim // 2)


def test_the_registry_holds_failures_and_what_is_open(tmp_path: Path) -> None:
    assert train.train(PASSKEY, tmp_path, stop=lambda: False)
    known = json.loads(json.dumps(train.register(tmp_path)))
    (entry,) = known["finished"]
    digest = hashlib.sha256((tmp_path / f"{PASSKEY.name}.gguf").read_bytes()).hexdigest()
    assert entry["sha256"] == digest
    assert entry["mastered"] is False
    assert entry["control_accuracy"] < 0.9
    assert (entry["seed"], entry["steps"], entry["shape"]["heads"]) == (1, 4, 2)
    assert len(known["open"]) == len(trained_models()) - 1


def test_every_beginning_of_the_list_has_all_bases_and_head_sizes_of_a_seed() -> None:
    passkey = [model for model in trained_models() if model.kind == "passkey"]
    assert len(set(passkey)) == 27
    for seed in range(3):
        piece = passkey[9 * seed : 9 * seed + 9]
        assert {model.seed for model in piece} == {seed}
        assert len({(model.freq_base, model.head_dim) for model in piece}) == 9
