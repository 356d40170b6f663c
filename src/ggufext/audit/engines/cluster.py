"""Questions spread over the workers of a dask cluster, each with an engine of its own.

A task is one text of one session: its questions share what the engine reuses. Workers import
ggufext and llama-cpp-python, and see the model file at the same path.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.errors import EngineError, GgufextError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ggufext.audit.engines import Answer
    from ggufext.audit.task.prompts import Question
    from ggufext.audit.task.templates import Frame
    from ggufext.llama.process import Hello
    from ggufext.llama.settings import LoadRequest

#: Seconds to wait for the scheduler.
_CONNECT_SECONDS = 10


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

    def smallest(self, path: Path) -> Hello:
        """What the least of the workers has for one engine; those of a machine share it."""
        found: dict[str, Hello] = self._run(_hello, path)
        beside = Counter(map(_host, found))
        return replace(
            next(iter(found.values())),
            available=min(x.available // beside[_host(a)] for a, x in found.items()),
            device_memory=min(x.device_memory // beside[_host(a)] for a, x in found.items()),
            gpu=all(hello.gpu for hello in found.values()),
        )

    def ask(
        self,
        path: Path,
        frame: Frame,
        load: LoadRequest,
        tokens: int,
        questions: Sequence[Question],
    ) -> Iterator[tuple[Question, Answer]]:
        """Ask questions text by text wherever there is room; answers as the texts are done."""
        from distributed import as_completed

        by_text: dict[int, list[Question]] = defaultdict(list)
        for question in questions:
            by_text[question.text].append(question)
        futures = {
            self._client.submit(_ask, path, frame, load, tokens, asked, pure=False): asked
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


def _hello(path: Path) -> Hello:
    engine = LlamaCpp(path)
    engine.close()
    return engine.hello


def _ask(
    path: Path, frame: Frame, load: LoadRequest, tokens: int, questions: Sequence[Question]
) -> list[Answer]:
    """Answer the questions of a text on a worker; its threads take turns."""
    with _held.lock:
        wanted = (path, frame, load)
        try:
            if _held.opened != wanted:
                _held.release()
                _held.engine = LlamaCpp(path)
                _held.engine.frame(frame)
                _held.engine.open(load)
                _held.opened = wanted
            assert _held.engine is not None
            engine = _held.engine
            return [engine.ask(q.parts, key=q.key, tokens=tokens) for q in questions]
        except EngineError:
            _held.release()
            raise
