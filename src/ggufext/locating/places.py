"""Where the models are that people have: Ollama, Hugging Face, LM Studio, llama.cpp, any folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ggufext.errors import GgufextError, LocationError, ModelWarning
from ggufext.header.architectures import architecture
from ggufext.header.facts import TrainLength, architecture_name, model_facts
from ggufext.header.header import read_header
from ggufext.header.lint import lint
from ggufext.header.shards import later_shards, shard_name
from ggufext.header.weights import quantization
from ggufext.locating import ollama
from ggufext.locating.names import OLLAMA_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ggufext.header.architectures import Support
    from ggufext.header.facts import Scaling
    from ggufext.header.header import Header

#: Findings that the table says in a column of their own.
_SAID_ELSEWHERE = frozenset({"unverified_architecture", "unknown_architecture"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyedModel:
    """What a table of models says of one; what could not be read is None.

    Attributes
    ----------
    name : str
        As its place calls it.
    path : Path
        The file, or the first part of a split set.
    parts : int
        How many files the model should have.
    architecture : str or None
        What general.architecture says.
    quantization : str or None
        What general.file_type names, else the type of most bytes.
    size : int
        Bytes of all parts that are here.
    train_length : TrainLength or None
        Context length that the file declares.
    scaling : Scaling or None
    support : Support or None
    problems : tuple of ModelWarning
        Why it cannot be read or extended, and what looks wrong.
    """

    name: str
    path: Path
    parts: int
    architecture: str | None = None
    quantization: str | None = None
    size: int
    train_length: TrainLength | None = None
    scaling: Scaling | None = None
    support: Support | None = None
    problems: tuple[ModelWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """A place and the models found there.

    Attributes
    ----------
    where : str
        ``"folder"``, ``"ollama"``, ``"huggingface_cache"``, ``"lm_studio"`` or
        ``"llama_cpp_cache"``.
    path : Path
        Its folder.
    models : tuple of SurveyedModel
        Sorted by name.
    problem : ModelWarning or None
        Why the place could not be read.
    """

    where: str
    path: Path
    models: tuple[SurveyedModel, ...]
    problem: ModelWarning | None = None


def known_places(
    *, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> tuple[ModelPlace, ...]:
    """The places of this user and this machine that hold models, with their models.

    Parameters
    ----------
    progress : callable
        See `place_of`; for one place after the other.
    """
    places = (_looked_into(*candidate, progress) for candidate in _candidates())
    return tuple(place for place in places if place.models or place.problem)


def place_of(
    folder: Path | str, *, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> ModelPlace:
    """The models of a folder, sorted by name; of Ollama's own by the names that Ollama gives them.

    Links to folders are followed once; a file that several names lead to is one model.

    Parameters
    ----------
    folder : Path or str
    progress : callable
        Called with models read and models in all.

    Raises
    ------
    LocationError
        ``unreadable`` for the folder itself; unreadable folders in it are left out.
    """
    folder = Path(folder)
    if ollama.is_folder(folder):
        return ModelPlace("ollama", folder, _survey(_of_ollama(folder), progress))
    return ModelPlace("folder", folder, _survey(_of_folder(folder), progress))


def _looked_into(
    where: str,
    path: Path,
    models: Callable[[Path], tuple[_ModelFiles, ...]],
    progress: Callable[[int, int], None],
) -> ModelPlace:
    """A place; one that cannot be read says so and keeps nobody from the others."""
    try:
        found = _survey(models(path), progress) if path.is_dir() else ()
        return ModelPlace(where, path, found)
    except LocationError as error:
        return ModelPlace(where, path, (), ModelWarning(error.code, error.message))
    except OSError as error:
        problem = ModelWarning("unreadable", error.strerror or str(error))
        return ModelPlace(where, path, (), problem)


def _candidates() -> Iterator[tuple[str, Path, Callable[[Path], tuple[_ModelFiles, ...]]]]:
    for folder in ollama.folders():
        yield "ollama", folder, _of_ollama
    yield "huggingface_cache", _huggingface_cache(), _of_huggingface
    home = Path(_expanded("~"))
    for folder in (home / ".lmstudio/models", home / ".cache/lm-studio/models"):
        yield "lm_studio", folder, _of_folder
    chosen = os.environ.get("LLAMA_CACHE")
    yield "llama_cpp_cache", Path(chosen) if chosen else _cache_home() / "llama.cpp", _of_folder


def _huggingface_cache() -> Path:
    """The folder of the Hugging Face cache, as huggingface_hub takes it from the environment."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        chosen = os.environ.get(variable)
        if chosen:
            return Path(_expanded(chosen))
    home = os.environ.get("HF_HOME")
    return (Path(_expanded(home)) if home else _cache_home() / "huggingface") / "hub"


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or _expanded("~/.cache"))


def _expanded(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises without a home


class _ModelFiles(NamedTuple):
    """One model and its files.

    Attributes
    ----------
    name : str
        As its place calls it.
    paths : tuple of Path
        The file, or the parts of a split set that are here, in order.
    parts : int
        Parts that the set should have, 1 for a single file.
    """

    name: str
    paths: tuple[Path, ...]
    parts: int = 1

    @property
    def has_first(self) -> bool:
        """Whether the file that holds the metadata is here."""
        name = shard_name(self.paths[0].name)
        return name is None or name.number == 1


def _of_ollama(folder: Path) -> tuple[_ModelFiles, ...]:
    # Two names may share a blob: each is a model that people run.
    return tuple(
        _ModelFiles(f"{OLLAMA_PREFIX}{model.name}", (model.blob,))
        for model in ollama.models(folder)
    )


def _of_folder(folder: Path) -> tuple[_ModelFiles, ...]:
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise LocationError(
            code="unreadable", path=folder, message=error.strerror or str(error)
        ) from error
    return _grouped((str(path.relative_to(folder)), path) for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    entered: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(place)  # noqa: PTH116 - thousands of folders
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        for name in files:
            if name.lower().endswith(".gguf"):
                yield Path(place, name)


def _of_huggingface(cache: Path) -> tuple[_ModelFiles, ...]:
    """Models by owner/repository/file; of several revisions with the same file, one."""
    from importlib.util import find_spec

    listed = _scanned(cache) if find_spec("huggingface_hub") is not None else _walked(cache)
    return _grouped((name, path) for name, path in listed if name.lower().endswith(".gguf"))


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


def _grouped(named: Iterable[tuple[str, Path]]) -> tuple[_ModelFiles, ...]:
    """Files as models: parts of a split set together, the same file under two names once."""
    models: dict[tuple[Path, int], list[tuple[str, Path]]] = {}
    seen: set[tuple[int, int]] = set()
    for name, path in sorted(named):
        try:
            status = path.stat()
        except OSError:
            identity = None  # a broken link: worth a row that says so
        else:
            identity = (status.st_dev, status.st_ino)
        if identity in seen:
            continue
        if identity is not None:
            seen.add(identity)
        shard = shard_name(path.name)
        whole = path if shard is None else path.with_name(shard.prefix)
        parts = 1 if shard is None else shard.total
        models.setdefault((whole, parts), []).append((name, path))
    return tuple(
        _ModelFiles(files[0][0], tuple(path for _, path in files), parts)
        for (_, parts), files in models.items()
    )


def _survey(
    models: tuple[_ModelFiles, ...], progress: Callable[[int, int], None]
) -> tuple[SurveyedModel, ...]:
    """A line about each model, in the same order; nothing is raised for a broken one."""
    from concurrent.futures import ThreadPoolExecutor

    # The header is read without the interpreter's lock, so threads read side by side.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        found = []
        for each in pool.map(_surveyed, models):
            found.append(each)
            progress(len(found), len(models))
        return tuple(found)


def _surveyed(model: _ModelFiles) -> SurveyedModel:
    found = SurveyedModel(
        name=model.name,
        path=model.paths[0],
        parts=model.parts,
        size=sum(map(_size, model.paths)),
    )
    if not model.has_first:
        missing = ModelWarning("shard_missing", "the first part is not in the folder")
        return replace(found, problems=(missing,))
    try:
        header = read_header(model.paths[0])
        name = architecture_name(header)
    except GgufextError as error:
        return replace(found, problems=(_problem(error),))
    problems: list[ModelWarning] = []
    later: tuple[Header, ...] = ()
    try:
        later = later_shards(header)
    except GgufextError as error:
        problems.append(_problem(error))
    try:
        facts = model_facts(header, later_shards=later)
    except GgufextError as error:
        problems.append(_problem(error))
    else:
        hints = lint(header, facts, later_shards=later)
        problems += [hint for hint in hints if hint.code not in _SAID_ELSEWHERE]
        length = TrainLength(facts.train_length, facts.train_length_source)
        found = replace(found, train_length=length, scaling=facts.scaling)
    return replace(
        found,
        architecture=name,
        quantization=quantization(header, *later),
        support=architecture(name).support,
        problems=tuple(problems),
    )


def _problem(error: GgufextError) -> ModelWarning:
    place = f"{error.field}: " if error.field else ""
    return ModelWarning(error.code, f"{place}{error.message}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
