"""Questions spread over the workers of a dask cluster, each with an engine of its own.

A task is one text of one session: its questions share what the engine reuses. Workers import
ggufext and llama-cpp-python, and see the model file at the same path.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.errors import EngineError, GgufextError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ggufext.audit.engines import Answer
    from ggufext.audit.task.prompts import Question
    from ggufext.audit.task.templates import Frame

#: Seconds to wait for the scheduler.
_CONNECT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Place:
    """Free memory where engines run, bytes, and whether there is a device."""

    available: int
    device_memory: int
    gpu: bool


class Cluster:
    """A dask scheduler and its workers; leaving the context gives back what they hold.

    Parameters
    ----------
    address : str
        ``tcp://host:port``.

    Raises
    ------
    EngineError
        ``extra_missing``, ``engine_unreachable``; of every method also ``worker_lost``.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError as error:
            raise EngineError(
                code="extra_missing",
                message=f"dask.distributed cannot be imported ({error}): pip install "
                "'ggufext[cluster]', here and on the workers",
            ) from error
        try:
            self._client = distributed.Client(
                address, timeout=_CONNECT_SECONDS, set_as_default=False
            )
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, ValueError) as error:
            raise EngineError(
                code="engine_unreachable",
                message=f"no dask scheduler answers at {address} ({error}); `dask scheduler` "
                "starts one and prints its address, which looks like tcp://192.168.1.7:8786",
            ) from error
        if not workers:
            self._client.close()
            raise EngineError(
                code="engine_unreachable",
                message=f"the dask scheduler at {address} has no workers; `dask worker {address} "
                "--nthreads 1` starts one",
            )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):  # a cluster that is gone holds nothing
            self._client.run(_release)
        self._client.close()

    def smallest(self, path: Path) -> Place:
        """What the least of the workers has for one engine; those of a machine share it."""
        places = self._run(_place, str(path))
        beside = Counter(_host(address) for address in places)
        return Place(
            available=min(x.available // beside[_host(a)] for a, x in places.items()),
            device_memory=min(x.device_memory // beside[_host(a)] for a, x in places.items()),
            gpu=all(place.gpu for place in places.values()),
        )

    def ask(
        self,
        path: Path,
        frame: Frame,
        how: Mapping[str, Any],
        tokens: int,
        questions: Sequence[Question],
    ) -> Iterator[tuple[Question, Answer]]:
        """Ask questions text by text wherever there is room; answers as the texts are done."""
        from distributed import as_completed

        by_text: dict[int, list[Question]] = defaultdict(list)
        for question in questions:
            by_text[question.text].append(question)
        futures = {
            self._client.submit(_ask, str(path), frame, dict(how), tokens, asked, pure=False): asked
            for asked in by_text.values()
        }
        with self._client.as_current():
            done = as_completed(futures)
        try:
            for future in done:
                yield from zip(futures[future], self._result(future), strict=True)
        finally:
            self._client.cancel(list(futures))

    def _result(self, future: Any) -> Any:
        return self._or_lost(future.result)

    def _run(self, function: Any, *arguments: Any) -> Any:
        return self._or_lost(lambda: self._client.run(function, *arguments))

    def _or_lost(self, call: Any) -> Any:
        try:
            return call()
        except GgufextError:
            raise
        except Exception as error:  # dask raises what the worker raised, and its own
            raise EngineError(
                code="worker_lost",
                message=f"a dask worker failed ({type(error).__name__}: {error}); each needs "
                "ggufext[check,cluster] in the same version and the file at the same path",
            ) from error


def _host(address: str) -> str:
    return address.rpartition("://")[2].rpartition(":")[0]


class _Held:
    """The engine of a worker process, kept from task to task."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engine: LlamaCpp | None = None
        self.opened: object = None

    def release(self) -> None:
        if self.engine is not None:
            self.engine.close()
        self.engine = self.opened = None


_held = _Held()


def _release() -> None:
    with _held.lock:
        _held.release()


def _place(path: str) -> Place:
    engine = LlamaCpp(Path(path))
    engine.close()
    hello = engine.hello
    return Place(hello.available, hello.device_memory, hello.gpu)


def _ask(
    path: str, frame: Frame, how: dict[str, Any], tokens: int, questions: Sequence[Question]
) -> list[Answer]:
    """Answer the questions of a text on a worker; its threads take turns."""
    with _held.lock:
        wanted = (path, frame, how)
        try:
            if _held.opened != wanted:
                _held.release()
                _held.engine = LlamaCpp(Path(path))
                _held.engine.frame(frame)
                _held.engine.open(**how)
                _held.opened = wanted
            assert _held.engine is not None
            engine = _held.engine
            return [engine.ask(q.parts, key=q.key, tokens=tokens) for q in questions]
        except EngineError:
            _held.release()
            raise
