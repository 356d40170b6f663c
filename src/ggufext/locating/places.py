"""Where programs keep the models that people have: Ollama, Hugging Face, LM Studio, llama.cpp."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.locating import ollama
from ggufext.locating.folder import ModelFiles, grouped, models_in
from ggufext.locating.names import OLLAMA_PREFIX
from ggufext.locating.survey import SurveyedModel, survey

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """A place and the models found there.

    Attributes
    ----------
    where : str
        ``"folder"``, ``"ollama"``, ``"huggingface_cache"``, ``"lm_studio"`` or
        ``"llama_cpp_cache"``.
    path : Path
    models : tuple of SurveyedModel
    """

    where: str
    path: Path
    models: tuple[SurveyedModel, ...]


def known_places() -> tuple[ModelPlace, ...]:
    """The places of this user and this machine that hold models, with their models."""
    return tuple(
        ModelPlace(where, path, survey(models)) for where, path, models in _candidates() if models
    )


def place_of(folder: Path) -> ModelPlace:
    """The models of a folder; of Ollama's own folder by the names that Ollama gives them.

    Raises
    ------
    LocationError
        ``folder_unreadable``.
    """
    if ollama.is_folder(folder):
        return ModelPlace("ollama", folder, survey(_of_ollama(folder)))
    return ModelPlace("folder", folder, survey(models_in(folder)))


def _candidates() -> Iterator[tuple[str, Path, tuple[ModelFiles, ...]]]:
    for folder in ollama.folders():
        yield "ollama", folder, _of_ollama(folder)
    cache = huggingface_cache()
    if cache.is_dir():
        yield "huggingface_cache", cache, _of_huggingface(cache)
    home = Path(_expanded("~"))
    for folder in (home / ".lmstudio/models", home / ".cache/lm-studio/models"):
        if folder.is_dir():
            yield "lm_studio", folder, models_in(folder)
    folder = Path(os.environ.get("LLAMA_CACHE") or _cache_home() / "llama.cpp")
    if folder.is_dir():
        yield "llama_cpp_cache", folder, models_in(folder)


def huggingface_cache() -> Path:
    """The folder of the Hugging Face cache, as huggingface_hub takes it from the environment."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        chosen = os.environ.get(variable)
        if chosen:
            return Path(_expanded(chosen))
    home = os.environ.get("HF_HOME")
    return (Path(_expanded(home)) if home else _cache_home() / "huggingface") / "hub"


def _of_ollama(folder: Path) -> tuple[ModelFiles, ...]:
    # Two names may share a blob: each is a model that people run.
    return tuple(
        ModelFiles(f"{OLLAMA_PREFIX}{model.name}", (model.blob,)) for model in ollama.models(folder)
    )


def _of_huggingface(cache: Path) -> tuple[ModelFiles, ...]:
    """Models by owner/repository/file; of several revisions with the same file, one."""
    from importlib.util import find_spec

    listed = _scanned(cache) if find_spec("huggingface_hub") is not None else _walked(cache)
    return grouped((name, path) for name, path in listed if name.lower().endswith(".gguf"))


def _scanned(cache: Path) -> Iterator[tuple[str, Path]]:
    from huggingface_hub import scan_cache_dir

    models = (found for found in scan_cache_dir(cache).repos if found.repo_type == "model")
    for repository in models:
        for revision in repository.revisions:
            for file in revision.files:
                inner = file.file_path.relative_to(revision.snapshot_path)
                yield f"{repository.repo_id}/{inner}", file.file_path


def _walked(cache: Path) -> Iterator[tuple[str, Path]]:
    for repository in cache.glob("models--*--*"):
        name = repository.name.removeprefix("models--").replace("--", "/", 1)
        for file in repository.glob("snapshots/*/**/*"):
            inner = Path(*file.relative_to(repository).parts[2:])
            yield f"{name}/{inner}", file


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or _expanded("~/.cache"))


def _expanded(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises without a home
