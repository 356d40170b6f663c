"""The child process: llama.cpp with one model, asked by `ggufext.llama.process`.

A failed assertion of llama.cpp ends the process it happens in, so it happens here. Requests come
on standard input and replies go to standard output, as `ggufext.llama.settings` writes them;
standard error is llama.cpp's log.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from ggufext.errors import EngineError
from ggufext.llama.attention import AttentionReader
from ggufext.llama.capture import AttentionCapture
from ggufext.llama.known_answer import check_known_answer
from ggufext.llama.library import GgufReader, Llama
from ggufext.llama.loaded import GraphReader, Model, Vocabulary
from ggufext.llama.protocol import load_request, receive, send
from ggufext.llama.session import Session
from ggufext.llama.stopwatch import Stopwatch
from ggufext.system import system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from ggufext.llama.session import Reply
    from ggufext.llama.settings import LoadRequest


class _Child:
    """Does what requests ask for: an operation with its payload and its fields by name."""

    def __init__(self, llama_cpp: Path | None, computed: Callable[[int], None]) -> None:
        self._computed = computed
        self._llama = Llama(llama_cpp)
        check_known_answer(self._llama)
        self._words: Vocabulary | None = None
        self._model: Model | None = None
        self._weights: object = None
        self._session: Session | None = None
        self._attention: AttentionReader | None = None
        self._operations: dict[str, Callable[..., Reply]] = {
            "hello": self._hello,
            "vocabulary": self._vocabulary,
            "frame": self._frame,
            "tokenize": self._tokenize,
            "open": self._open,
            "ask": self._ask,
            "score": self._score,
            "open_attention": self._open_attention,
            "attention": self._read_attention,
            "capture": self._capture,
            "observe": self._observe,
            "values": self._values,
            "threads": self._threads,
            "time": self._time,
        }

    def answer(self, request: dict[str, Any], payload: bytes) -> Reply:
        operation = self._operations[request.pop("operation")]
        if "load" in request:
            request["load"] = load_request(request["load"])
        return operation(payload, **request)

    def _hello(self, _: bytes, *, rpc: list[str]) -> Reply:
        api, ggml = self._llama.api, self._llama.ggml
        supports_rpc = bool(api.llama_supports_rpc())  # loads the backends
        for address in rpc:
            ggml.add_rpc_server(address)
        devices, device_memory = ggml.devices()
        hello = {
            "path": str(self._llama.place.path),
            "package": self._llama.place.package,
            "version": self._llama.place.version,
            "release": self._llama.release,
            "system": self._llama.system,
            "gpu": bool(api.llama_supports_gpu_offload()),
            "rpc": supports_rpc,
            "devices": devices,
            "device_memory": device_memory,
            "available": system.available_memory(),
        }
        return hello, b""

    def _vocabulary(self, _: bytes, *, load: LoadRequest) -> Reply:
        words = Vocabulary(self._llama, self._llama.load(load, vocabulary_only=True))
        self._words = words

        def text(token: int) -> str:
            return words.piece(token).decode(errors="replace") if token >= 0 else ""

        return {"n_vocab": words.size, "bos": text(words.bos), "eos": text(words.eos)}, b""

    def _frame(self, _: bytes, *, before: str, behind: str) -> Reply:
        assert self._words is not None
        lead, trail = self._words.framed(before, behind)
        return {"lead": lead, "trail": trail}, b""

    def _tokenize(self, _: bytes, *, texts: list[str], pieces: bool) -> Reply:
        assert self._words is not None
        tokens = [self._words.behind_a_stop(text) for text in texts]
        if not pieces:
            return {"tokens": tokens}, b""
        words = self._words
        return {
            "pieces": [[words.piece(x).decode("latin-1") for x in each] for each in tokens]
        }, b""

    def _open(self, _: bytes, *, load: LoadRequest) -> Reply:
        model = self._loaded(load)
        try:
            model.open(load.context)
            self._session = Session(self._llama, model, load.self_extend, self._computed)
        except EngineError:
            self._close()
            raise
        return {"can_reuse": model.can_reuse}, b""

    def _ask(self, payload: bytes, **how: Any) -> Reply:
        assert self._session is not None
        return self._session.ask(np.frombuffer(payload, np.int32), **how)

    def _score(self, payload: bytes, **where: Any) -> Reply:
        assert self._session is not None
        return self._session.score(np.frombuffer(payload, np.int32), **where)

    def _open_attention(self, _: bytes, *, load: LoadRequest, **how: Any) -> Reply:
        self._session = None
        model = self._loaded(load)
        self._attention = AttentionReader(self._llama, model, load.context, **how)
        return {}, b""

    def _read_attention(self, payload: bytes, *, position: int, rows: list[int]) -> Reply:
        assert self._attention is not None
        layers, sums = self._attention.read(np.frombuffer(payload, np.int32), position, rows)
        return {"layers": layers}, sums

    def _capture(
        self, payload: bytes, *, load: LoadRequest, rows: list[int], layers: list[int]
    ) -> Reply:
        self._session = None
        model = self._loaded(load)
        capture = AttentionCapture(self._llama, model, load.context, layers)
        found, values = capture.read(np.frombuffer(payload, np.int32), rows, self._computed)
        return {"layers": found}, values

    def _observe(self, payload: bytes, *, load: LoadRequest, starts: list[int]) -> Reply:
        tokens = np.frombuffer(payload, np.int32)
        graph = GraphReader(self._llama.ggml)
        model = Model(self._llama, load)
        try:
            model.open(load.context, on_node=self._llama.node_callback(graph.node))
            logits = []
            for start in starts:
                model.clear(data=True)
                logits.append(model.logits(tokens, start))
        finally:
            model.close()
        seen = {"n_ctx_train": model.n_ctx_train, "n_ctx": model.n_ctx, "n_vocab": model.n_vocab}
        return seen | graph.found(), b"".join(logits)

    def _values(self, _: bytes, *, load: LoadRequest, keys: list[str], tensors: list[str]) -> Reply:
        self._llama.forget_errors()
        try:
            reader = GgufReader(self._llama.ggml, load.path)
        except ValueError as error:
            raise EngineError(code="model_not_loaded", message=self._llama.errors()) from error
        found = {
            "keys": {key: reader.value(key) for key in keys},
            "tensors": {name: reader.floats(name) for name in tensors},
        }
        reader.close()
        return found, b""

    def _time(self, _: bytes, *, load: LoadRequest) -> Reply:
        self._session = None
        return Stopwatch(self._llama, self._loaded(load), load.context).measure(), b""

    def _threads(self, _: bytes, *, load: LoadRequest, numbers: list[int]) -> Reply:
        self._session = None
        watch = Stopwatch(self._llama, self._loaded(load), load.context)
        return {"seconds": watch.with_threads(numbers)}, b""

    def _loaded(self, load: LoadRequest) -> Model:
        """The model of a request: the one that is loaded if that is the same."""
        weights = (load.path, load.kv_overrides, load.gpu_layers)
        if self._model is None or self._weights != weights:
            self._close()  # before the next one takes its memory
            self._model = Model(self._llama, load)
            self._weights = weights
        return self._model

    def _close(self) -> None:
        if self._model is not None:
            self._model.close()
        self._model = self._session = self._attention = None


def main() -> None:
    """Answer requests until standard input ends; with the library of the command line, if any."""
    system.forbid_core_dump()
    llama_cpp = Path(sys.argv[1]) if sys.argv[1:] else None
    replies = _private_output()
    child: _Child | None = None
    for message in _requests():
        try:
            child = child or _Child(llama_cpp, partial(_tell, replies))
            reply, payload = child.answer(*message)
        except EngineError as error:
            reply, payload = {"error": {"code": error.code, "message": error.message}}, b""
        except MemoryError:
            refusal = {"code": "out_of_memory", "message": "Python ran out of memory"}
            reply, payload = {"error": refusal}, b""
        send(replies, reply, payload)


def _tell(replies: BinaryIO, computed: int) -> None:
    """Send how many tokens of a prompt are computed, in front of the reply."""
    send(replies, {"computed": computed}, b"")


def _requests() -> Iterator[tuple[dict[str, Any], bytes]]:
    """Requests as they come; the process ends with the one that asks, whatever it computes."""
    waiting: SimpleQueue[tuple[dict[str, Any], bytes]] = SimpleQueue()
    # Not sys.stdin, which the interpreter closes at its end: another thread must not be reading it.
    stream = os.fdopen(os.dup(0), "rb")

    def read() -> None:
        while message := receive(stream):
            waiting.put(message)
        # The interpreter's end would run llama.cpp's destructors; nothing is left to tidy up.
        os._exit(0)

    Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


def _private_output() -> BinaryIO:
    """Standard output for replies only: what libraries print goes to standard error."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream
