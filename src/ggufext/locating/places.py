"""Where programs keep the models that people have: Ollama, Hugging Face, LM Studio, llama.cpp."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.errors import LocationError, ModelWarning
from ggufext.locating import ollama
from ggufext.locating.folder import ModelFiles, grouped, models_in
from ggufext.locating.names import OLLAMA_PREFIX
from ggufext.locating.survey import SurveyedModel, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    problem : ModelWarning or None
        Why the place could not be read.
    """

    where: str
    path: Path
    models: tuple[SurveyedModel, ...]
    problem: ModelWarning | None = None


def known_places() -> tuple[ModelPlace, ...]:
    """The places of this user and this machine that hold models, with their models."""
    places = (_looked_into(*candidate) for candidate in _candidates())
    return tuple(place for place in places if place.models or place.problem)


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


def _looked_into(
    where: str, path: Path, models: Callable[[Path], tuple[ModelFiles, ...]]
) -> ModelPlace:
    """A place; one that cannot be read says so and keeps nobody from the others."""
    try:
        return ModelPlace(where, path, survey(models(path)))
    except LocationError as error:
        return ModelPlace(where, path, (), ModelWarning(error.code, error.message))
    except OSError as error:
        problem = ModelWarning("folder_unreadable", error.strerror or str(error))
        return ModelPlace(where, path, (), problem)


def _candidates() -> Iterator[tuple[str, Path, Callable[[Path], tuple[ModelFiles, ...]]]]:
    for folder in ollama.folders():
        yield "ollama", folder, _of_ollama
    yield "huggingface_cache", huggingface_cache(), _of_huggingface
    home = Path(_expanded("~"))
    for folder in (home / ".lmstudio/models", home / ".cache/lm-studio/models"):
        yield "lm_studio", folder, _of_folder
    chosen = os.environ.get("LLAMA_CACHE")
    yield "llama_cpp_cache", Path(chosen) if chosen else _cache_home() / "llama.cpp", _of_folder


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


def _of_folder(folder: Path) -> tuple[ModelFiles, ...]:
    return models_in(folder) if folder.is_dir() else ()


def _of_huggingface(cache: Path) -> tuple[ModelFiles, ...]:
    """Models by owner/repository/file; of several revisions with the same file, one."""
    if not cache.is_dir():
        return ()
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
