"""Without a name, the models that programs keep here are found where these programs put them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import gguf_bytes
from ggufext.locating import ollama, places
from ollama_folder import add_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODEL = gguf_bytes({"general.architecture": "llama"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without models."""
    for variable in (
        "OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "LLAMA_CACHE",
        "XDG_CACHE_HOME",
    ):  # fmt: skip
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(ollama, "_SERVICE_FOLDER", tmp_path / "none")
    return tmp_path


def put(path: Path, content: bytes = MODEL) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def in_hub_cache(cache: Path, *, revision: str = "1" * 40, content: bytes = MODEL) -> None:
    """One file of a repository, as huggingface_hub keeps it."""
    repository = cache / "models--owner--tiny-GGUF"
    blob = put(repository / "blobs" / f"{hash(content) & 0xFFFF:064x}", content)
    put(repository / "refs/main", revision.encode())
    link = repository / "snapshots" / revision / "q4/tiny.gguf"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(blob)


def found() -> dict[str, list[str]]:
    return {place.where: [m.name for m in place.models] for place in places.known_places()}


def test_a_home_without_models_has_no_places(home: Path) -> None:
    assert places.known_places() == ()


def test_every_program_is_a_place_of_its_own(home: Path) -> None:
    add_model(home / ".ollama/models", MODEL)
    in_hub_cache(home / ".cache/huggingface/hub")
    put(home / ".lmstudio/models/owner/repo/a.gguf")
    put(home / ".cache/llama.cpp/b.gguf")
    assert found() == {
        "ollama": ["ollama:tiny:latest"],
        "huggingface_cache": ["owner/tiny-GGUF/q4/tiny.gguf"],
        "lm_studio": ["owner/repo/a.gguf"],
        "llama_cpp_cache": ["b.gguf"],
    }


def test_both_folders_of_lm_studio_are_looked_into(home: Path) -> None:
    put(home / ".lmstudio/models/a.gguf")
    put(home / ".cache/lm-studio/models/b.gguf", MODEL + b" ")
    assert [place.path for place in places.known_places()] == [
        home / ".lmstudio/models",
        home / ".cache/lm-studio/models",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "cache"),
    [
        ("HF_HOME", "hf", "hf/hub"),
        ("HF_HUB_CACHE", "hub", "hub"),
        ("XDG_CACHE_HOME", "cache", "cache/huggingface/hub"),
    ],
)
def test_the_hub_cache_is_where_the_environment_says(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, cache: str
) -> None:
    monkeypatch.setenv(variable, str(home / value))
    in_hub_cache(home / cache)
    assert found() == {"huggingface_cache": ["owner/tiny-GGUF/q4/tiny.gguf"]}


def without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)


@pytest.mark.parametrize("prepare", [lambda _patch: None, without_huggingface_hub])
def test_the_hub_cache_reads_the_same_with_and_without_its_library(
    home: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[pytest.MonkeyPatch], None]
) -> None:
    prepare(monkeypatch)
    in_hub_cache(home / ".cache/huggingface/hub")
    (place,) = places.known_places()
    assert [(m.name, m.architecture, m.size) for m in place.models] == [
        ("owner/tiny-GGUF/q4/tiny.gguf", "llama", len(MODEL))
    ]


def test_revisions_with_the_same_file_are_one_model_and_with_another_two(home: Path) -> None:
    cache = home / ".cache/huggingface/hub"
    in_hub_cache(cache, revision="1" * 40)
    in_hub_cache(cache, revision="2" * 40)
    assert len(found()["huggingface_cache"]) == 1
    in_hub_cache(cache, revision="3" * 40, content=MODEL + b" ")
    assert len(found()["huggingface_cache"]) == 2


def test_a_place_that_cannot_be_read_says_so_and_hides_no_other(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(home / ".cache/llama.cpp/b.gguf")
    put(home / ".lmstudio/models/a.gguf")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if path == home / ".lmstudio/models":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    studio, llama_cpp = places.known_places()
    assert (studio.where, studio.models) == ("lm_studio", ())
    assert studio.problem is not None
    assert studio.problem.code == "unreadable"
    assert [model.name for model in llama_cpp.models] == ["b.gguf"]


def test_a_folder_of_ollama_is_listed_by_its_names(tmp_path: Path) -> None:
    add_model(tmp_path, MODEL, manifest="registry.ollama.ai/library/tiny/1b")
    place = places.place_of(tmp_path)
    assert (place.where, [m.name for m in place.models]) == ("ollama", ["ollama:tiny:1b"])
