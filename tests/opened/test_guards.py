"""Files that must not be changed in place: refused by name, with the way out."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import U16, U32, gguf_bytes
from ggufext.editing.rewrite import rewrite
from ggufext.errors import EditError, GgufextError
from ggufext.opened import guards
from ggufext.opened.files import FileSystem
from ggufext.opened.strategies import Strategy
from ggufext.planning.request import PlanRequest
from rewriting import rewrite_with

if TYPE_CHECKING:
    from pathlib import Path


def refusal(path: Path, **options: object) -> GgufextError:
    """The error of a rewrite, after checking that nothing changed."""
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(GgufextError) as caught:
        rewrite_with(path, options, target_length=8192)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    return caught.value


def test_a_symbolic_link_is_refused_and_followed_on_request(llama: Path) -> None:
    link = llama.with_name("link.gguf")
    link.symlink_to(llama)
    error = refusal(link)
    assert error.code == "symlink"
    assert "--follow" in error.message
    rewrite(link, PlanRequest(target_length=8192), follow=True)
    assert link.is_symlink()


def test_hard_links_are_refused(llama: Path) -> None:
    os.link(llama, llama.with_name("twin.gguf"))
    error = refusal(llama)
    assert error.code == "shared_file"
    assert "--output" in error.message


def test_the_hugging_face_cache_is_refused(llama: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--someone--model"
    blob = repository / "blobs" / "0a1b"
    blob.parent.mkdir(parents=True)
    llama.rename(blob)
    snapshot = repository / "snapshots" / "main" / "model.gguf"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(blob)
    for place in (snapshot, blob):
        assert refusal(place).code == "shared_file"
        assert refusal(place, follow=True).code == "shared_file"


def test_an_ollama_blob_is_refused(llama: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / ("sha256-" + "0" * 64)
    blob.parent.mkdir()
    llama.rename(blob)
    error = refusal(blob)
    assert error.code == "ollama_blob"
    assert "Modelfile" in error.message


def test_a_read_only_file_is_refused(llama: Path) -> None:
    llama.chmod(0o444)
    assert refusal(llama).code == "read_only"


class ReplacedWhileLocking(FileSystem):
    """Something else puts a new file in the place of the one that was just opened."""

    def __init__(self, path: Path, twin: Path) -> None:
        self.path = path
        self.twin = twin

    def lock(self, descriptor: int) -> bool:
        self.twin.replace(self.path)
        return super().lock(descriptor)


@pytest.fixture
def twin(llama: Path) -> Path:
    path = llama.with_name("twin")
    path.write_bytes(llama.read_bytes())
    return path


def test_a_file_that_was_replaced_while_it_was_opened_is_left_alone(
    llama: Path, twin: Path
) -> None:
    error = refusal(llama, files=ReplacedWhileLocking(llama, twin))
    assert error.code == "changed_meanwhile"


def test_a_file_that_is_replaced_during_a_copy_is_left_alone(llama: Path, twin: Path) -> None:
    error = refusal(
        llama,
        strategy=Strategy.COPY,
        progress=lambda done, total: twin.replace(llama) if done == total else None,
    )
    assert error.code == "changed_meanwhile"
    assert list(llama.parent.iterdir()) == [llama]


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.gguf"):
        rewrite(tmp_path / "absent.gguf", PlanRequest(target_length=8192))


def test_a_later_part_whose_name_does_not_lead_to_the_first_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    keys = {"general.architecture": "llama", "split.no": U16(1), "split.count": U16(3)}
    path.write_bytes(gguf_bytes(keys=keys))
    error = refusal(path)
    assert error.code == "not_first_shard"
    assert "NAME-00001-of-0000N.gguf" in error.message


def test_a_full_disk_is_refused_in_bytes(llama: Path) -> None:
    with pytest.raises(EditError, match=r"needs [\d,]+ bytes") as caught:
        guards.check_space(llama.parent, 2**62, llama)
    assert caught.value.code == "no_space"


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"general.type": "adapter"}, "not_a_language_model"),
        ({"general.type": "mmproj", "general.architecture": "clip"}, "not_a_language_model"),
        ({"general.type": "imatrix"}, "not_a_language_model"),
        ({"general.architecture": "bert"}, "not_a_language_model"),
        ({"general.architecture": "eagle3"}, "not_a_language_model"),
        ({"general.architecture": "gpt2"}, "learned_positions"),
        ({"general.architecture": "mamba"}, "no_rope"),
        ({"llama.context_length": "2048"}, "wrong_type"),
        ({"llama.rope.freq_base": U32(10000)}, "wrong_type"),
        ({"llama.context_length": U32(0)}, "nonsense_value"),
        ({"llama.rope.freq_base": 1.0}, "nonsense_value"),
        ({"llama.rope.freq_base": float("nan")}, "nonsense_value"),
        ({"llama.rope.freq_base": float("inf")}, "nonsense_value"),
        ({"llama.rope.scaling.factor": -1.0}, "nonsense_value"),
        ({"llama.rope.dimension_count": U32(31)}, "nonsense_value"),
        ({"llama.rope.dimension_count": U32(4096)}, "nonsense_value"),
        ({"llama.rope.scaling.type": "magic"}, "nonsense_value"),
        (
            {"llama.rope.scaling.factor": 4.0, "llama.rope.scaling.type": "yarn"},
            "cannot_combine",
        ),
    ],
)
def test_models_that_cannot_be_extended_are_refused_by_name(
    tmp_path: Path, keys: dict[str, object], code: str
) -> None:
    path = tmp_path / "model.gguf"
    sound = {
        "general.architecture": "llama",
        "llama.context_length": U32(2048),
        "llama.block_count": U32(1),
        "llama.embedding_length": U32(64),
        "llama.attention.head_count": U32(2),
    }
    path.write_bytes(gguf_bytes(keys={**sound, **keys}))
    assert refusal(path).code == code
