"""Questions spread over the workers of a dask cluster, each with an engine of its own.

A task is one text of one session: its questions share what the engine reuses. Workers have
the same ggufext, llama.cpp and, at the same path, model file.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ggufext.audit.engines import worker
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.task.templates import Frame
from ggufext.errors import EngineError, GgufextError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from ggufext.audit.engines import Answer
    from ggufext.audit.task import Question
    from ggufext.errors import ModelWarning
    from ggufext.llama.process import Hello
    from ggufext.llama.settings import LoadRequest

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")

#: Seconds to wait for the scheduler.
_CONNECT_SECONDS = 10


class Cluster:
    """The workers of a dask scheduler, and an engine here that counts their tokens.

    Parameters
    ----------
    path : Path
        The model file.
    address : str
        ``tcp://host:port``.

    Attributes
    ----------
    hello : Hello
        Memory and devices are what the least of the workers has for one engine; those of a machine
        share it.
    n_vocab, bos, eos
        See `LlamaCpp`.

    Raises
    ------
    EngineError
        ``extra_missing``, ``engine_unreachable``; of every method also ``worker_lost`` and
        ``worker_differs``.
    """

    def __init__(self, path: Path, address: str) -> None:
        try:
            import distributed
        except ImportError as error:
            raise EngineError(
                code="extra_missing",
                message=f"dask.distributed cannot be imported ({error}): pip install "
                "'ggufext[cluster]', here and on the workers",
            ) from error
        self._path = path.absolute()
        self._frame = Frame()
        self._local = LlamaCpp(path)
        self.n_vocab, self.bos, self.eos = self._local.n_vocab, self._local.bos, self._local.eos
        self._wanted = worker.installation(self._path) | worker.release_of(self._local.hello)
        self._client: Any = None
        try:
            _refuse_unreachable(address)
            self._client = distributed.Client(
                address, timeout=_CONNECT_SECONDS, set_as_default=False
            )
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
            if not workers:
                raise EngineError(
                    code="engine_unreachable",
                    message=f"the dask scheduler at {address} has no workers; `dask worker "
                    f"{address} --nthreads 1` starts one",
                )
            self.hello = self._smallest()
        except BaseException:
            self.close()
            raise

    def _smallest(self) -> Hello:
        """What this machine says of llama.cpp, with the least of the workers' room."""
        found: dict[str, Hello] = self._or_lost(
            lambda: self._client.run(worker.hello, self._path, self._wanted)
        )
        beside = Counter(map(_host, found))
        return replace(
            self._local.hello,
            available=min(x.available // beside[_host(a)] for a, x in found.items()),
            device_memory=min(x.device_memory // beside[_host(a)] for a, x in found.items()),
            gpu=all(x.gpu for x in found.values()),
        )

    def frame(self, frame: Frame) -> tuple[int, int]:
        """Put every prompt into a chat template; see `LlamaCpp.frame`."""
        self._frame = frame
        return self._local.frame(frame)

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Tokens of texts, each as it stands behind a full stop."""
        return self._local.counts(parts)

    def pieces(self, texts: Sequence[str]) -> list[list[bytes]]:
        """Bytes of every token of texts that each follow a full stop."""
        return self._local.pieces(texts)

    def answers(
        self, load: LoadRequest | None, questions: Sequence[Question], *, tokens: int
    ) -> Iterator[tuple[Question, Answer]]:
        """Ask text by text wherever there is room; answers as the texts are done."""
        by_text: dict[int, list[Question]] = defaultdict(list)
        for question in questions:
            by_text[question.text].append(question)
        for _, answered in self.each(partial(_answers, load, tokens), by_text.values()):
            yield answered

    def each(
        self, work: Callable[[LlamaCpp, _Item], Iterator[_Done]], items: Iterable[_Item]
    ) -> Iterator[tuple[_Item, _Done]]:
        """Do something for every item wherever there is room; what comes of it, as each is done.

        The workers import `work`. An item whose worker is lost is done again on another.
        """
        from distributed import as_completed

        do = partial(worker.on_worker, self._path, self._wanted, self._frame, work)
        futures = {self._client.submit(do, item, pure=False): item for item in items}
        with self._client.as_current():
            done = as_completed(futures)
        try:
            for future in done:
                for each in self._or_lost(future.result):
                    yield futures[future], each
        finally:
            self._client.cancel(list(futures))

    def warnings(self) -> tuple[ModelWarning, ...]:
        """Nothing: the workers keep what they notice."""
        return ()

    def close(self) -> None:
        """Give back what the workers hold."""
        self._local.close()
        if self._client is None:
            return
        with suppress(Exception):  # a cluster that is gone holds nothing
            self._client.run(worker.release)
        self._client.close()

    def _or_lost(self, call: Callable[[], Any]) -> Any:
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


def _refuse_unreachable(address: str) -> None:
    """Refuse an address where no part of dask shakes hands, for which dask itself waits forever.

    Raises
    ------
    EngineError
        ``engine_unreachable``.
    """
    from distributed.comm import connect

    async def shake_hands() -> None:
        connected = connect(address, timeout=_CONNECT_SECONDS)
        comm = await asyncio.wait_for(connected, _CONNECT_SECONDS + 1)
        comm.abort()

    try:
        # In a thread of its own: that of a notebook has a loop that runs.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, shake_hands()).result()
    except Exception as error:  # what another program answers fails in any way
        why = str(error) or "what listens there says nothing"
        raise EngineError(
            code="engine_unreachable",
            message=f"no dask scheduler answers at {address} ({why}); `dask scheduler` starts one "
            "and prints its address, which looks like tcp://192.168.1.7:8786",
        ) from error


def _host(address: str) -> str:
    return address.rpartition("://")[2].rpartition(":")[0]


def _answers(
    load: LoadRequest | None, tokens: int, engine: LlamaCpp, questions: Sequence[Question]
) -> Iterator[tuple[Question, Answer]]:
    return engine.answers(load, questions, tokens=tokens)
