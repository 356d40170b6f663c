"""What runs on a worker of a dask cluster: an engine that is kept from task to task."""

from __future__ import annotations

import platform
import threading
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from ggufext import __version__
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.errors import EngineError, HeaderError
from ggufext.header.header import read_header
from ggufext.header.shards import later_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ggufext.audit.task.templates import Frame
    from ggufext.llama.process import Hello

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")

#: Of the tensors of a file so many pieces are compared, of so many bytes each.
_PIECES, _PIECE = 64, 4096


def installation(path: Path) -> dict[str, str]:
    """What answers depend on before llama.cpp is started: program and model file, by name.

    Raises
    ------
    HeaderError, OSError
        The file cannot be read.
    """
    return {"ggufext": __version__, "model file": _fingerprint(path)}


def release_of(hello: Hello) -> dict[str, str]:
    """The llama.cpp that answers, by name."""
    return {"llama.cpp": hello.release}


def _fingerprint(path: Path) -> str:
    """SHA-256 of a model's headers and sizes, and of pieces of its tensors: no disk reads all."""
    header = read_header(path)
    digest = sha256()
    for part in (header, *later_shards(header)):
        assert part.path is not None
        digest.update(f"{part.file_size} ".encode())
        with part.path.open("rb") as file:
            digest.update(file.read(part.data_offset))
            for index in range(_PIECES):
                file.seek(part.data_offset + (part.file_size - part.data_offset) * index // _PIECES)
                digest.update(file.read(_PIECE))
    return digest.hexdigest()[:16]


class _Held:
    """The engine of a worker process, kept from task to task."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engine: LlamaCpp | None = None
        self.asks: object = None

    def release(self) -> None:
        if self.engine is not None:
            self.engine.close()
        self.engine = self.asks = None


_held = _Held()


def release() -> None:
    """Give back what this worker holds."""
    with _held.lock:
        _held.release()


def _opened(path: Path, wanted: Mapping[str, str]) -> LlamaCpp:
    """An engine on the file of this worker, if all that answers depend on is as it should be.

    Raises
    ------
    EngineError
        ``worker_differs``, and as of `LlamaCpp`.
    """
    try:
        found = installation(path)
    except (HeaderError, OSError) as error:
        raise EngineError(
            code="worker_differs",
            message=f"{_name()} cannot read the model: {error}; it needs the file at the same path",
        ) from error
    _refuse_others(found, wanted)
    engine = LlamaCpp(path)
    try:
        _refuse_others(release_of(engine.hello), wanted)
    except EngineError:
        engine.close()
        raise
    return engine


def _refuse_others(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    for name, value in found.items():
        if wanted[name] != value:
            raise EngineError(
                code="worker_differs",
                message=f"{_name()} has another {name} ({value}) than this machine "
                f"({wanted[name]}), so its answers would be others; give it the same, or end it",
            )


def _name() -> str:
    return f"the dask worker on {platform.node()}"


def hello(path: Path, wanted: Mapping[str, str]) -> Hello:
    """What this worker's llama.cpp says of itself; errors as of `_opened`."""
    engine = _opened(path, wanted)
    engine.close()
    return engine.hello


def on_worker(
    path: Path,
    wanted: Mapping[str, str],
    frame: Frame,
    work: Callable[[LlamaCpp, _Item], Iterator[_Done]],
    item: _Item,
) -> list[_Done]:
    """Do something for an item on this worker; its threads take turns."""
    with _held.lock:
        try:
            if _held.engine is None or _held.asks != (path, wanted, frame):
                _held.release()
                _held.engine = _opened(path, wanted)
                _held.engine.frame(frame)
                _held.asks = (path, wanted, frame)
            return list(work(_held.engine, item))
        except EngineError:
            _held.release()
            raise
