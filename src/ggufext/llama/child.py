"""The child process: llama.cpp with one model, asked by `ggufext.llama.process`.

A failed assertion of llama.cpp ends the process it happens in, so it happens here. Requests come
on standard input and replies go to standard output, as `ggufext.llama.settings` writes them;
standard error is llama.cpp's log.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
import time
from dataclasses import replace
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
from ggufext.llama.log import forbid_core_dump
from ggufext.llama.memory import available_memory
from ggufext.llama.protocol import load_request, receive, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from ggufext.llama.loaded import Logits, Tokens
    from ggufext.llama.settings import ContextSettings, LoadRequest, SelfExtend

    Reply = tuple[dict[str, Any], bytes]


_NOTHING = np.empty(0, np.int32)


class _Session:
    """Prompts asked of a model one after another; cells are reused where that is exact."""

    def __init__(
        self,
        llama: Llama,
        model: Model,
        extend: SelfExtend | None,
        computed: Callable[[int], None],
    ) -> None:
        self._api = llama.api
        self._model = model
        self._vocabulary = Vocabulary(llama, model.pointer)
        self._extend = extend
        self._computed = computed
        self._known = _NOTHING
        if extend and not (model.can_reuse and self._api.llama_memory_can_shift(model.memory)):
            raise EngineError(
                code="bad_condition",
                message="Self-Extend moves positions, which this model's memory cannot",
            )

    def ask(self, prompt: Tokens, *, tokens: int, hidden: str, stop: str) -> Reply:
        """Continue a prompt greedily; the payload of the reply is the float32 logits behind it.

        Parameters
        ----------
        tokens : int
            At most so many.
        hidden, stop : str
            Regular expressions: the text is done when `stop` matches all that is left of it
            without what `hidden` matches.
        """
        known, self._known = self._known, _NOTHING  # should a decode fail
        first = 0
        if self._extend:
            position, found = self._prefill_grouped(prompt, self._extend)
        else:
            if self._model.can_reuse:
                first = self._keep(known, prompt)
            else:
                self._model.clear()
            found = self._model.decode(prompt[first:], first, self._computed)
            position = len(prompt)
        behind_prompt = found.tobytes()
        said = 0
        text = b""
        while said < tokens:
            token = int(np.argmax(found))
            if self._vocabulary.ends(token):
                break
            said += 1
            text += self._vocabulary.piece(token)
            if said == tokens:
                break
            if re.fullmatch(stop, re.sub(hidden, "", text.decode(errors="replace"))):
                break
            found = self._model.decode(np.array([token], np.int32), position)
            position += 1
        computed = max(said - 1, 0)
        self._known = prompt
        reply = {
            "text": text.decode(errors="replace"),
            "evaluated": len(prompt) - first + computed,
            "naive": len(prompt) + computed,
        }
        return reply, behind_prompt

    def score(self, text: Tokens, *, rows: list[int], distributions: list[int]) -> Reply:
        """What a model expected at places of a text; its cells are kept for what follows.

        Parameters
        ----------
        rows : list of int
            Indices of tokens, rising, each below the last; the payload of the reply begins with
            the natural logarithm of the probability of what follows each, float32.
        distributions : list of int
            Indices, rising; behind it come the logarithms for the whole vocabulary, float32.
        """
        if self._extend:
            raise EngineError(
                code="bad_condition", message="Self-Extend moves positions, so no text is scored"
            )
        known, self._known = self._known, _NOTHING  # should a decode fail
        chosen = sorted({*rows, *distributions})
        first = 0
        if self._model.can_reuse:
            first = self._keep(known, text, upto=chosen[0] if chosen else len(text) - 1)
        else:
            self._model.clear()
        wanted = np.zeros(len(text), np.bool_)
        wanted[chosen] = True
        in_rows, whole = set(rows), set(distributions)
        follows, expected = [], []
        behind = self._model.wanted(text[first:], first, wanted[first:], self._computed)
        for indices, logits in behind:
            for index, row in zip(indices + first, logits, strict=True):
                found = log_softmax(row)
                if index in in_rows:
                    follows.append(found[text[index + 1]])
                if index in whole:
                    expected.append(found)
        self._known = text
        reply = {"evaluated": len(text) - first, "naive": len(text)}
        return reply, np.array(follows, np.float32).tobytes() + b"".join(
            each.tobytes() for each in expected
        )

    def _keep(self, known: Tokens, prompt: Tokens, *, upto: int | None = None) -> int:
        """Keep the cells of the start that two prompts share up to a micro-batch; their number.

        At another place the rest would be cut into other micro-batches than a prompt computed at
        once, and the last bits of the logits would differ. At most `upto` are kept.
        """
        overlap = min(len(known), len(prompt) - 1 if upto is None else upto)
        same = known[:overlap] == prompt[:overlap]
        common = overlap if same.all() else int(np.argmin(same))
        keep = common // self._model.n_ubatch * self._model.n_ubatch
        if keep == 0 or not self._api.llama_memory_seq_rm(self._model.memory, 0, keep, -1):
            self._model.clear()
            return 0
        return int(keep)

    def _prefill_grouped(self, prompt: Tokens, extend: SelfExtend) -> tuple[int, Logits]:
        """Compute a prompt, grouping the positions of what falls out of the window.

        At least `window` tokens before the last keep their own positions.

        Returns
        -------
        int
            Position of the token that follows.
        array
            Logits of the last token.
        """
        api, memory = self._api, self._model.memory
        group, window = extend.group, extend.window
        self._model.clear()
        start = position = 0  # where ungrouped positions start, and where the next token goes
        for first in range(0, len(prompt), window):
            piece = prompt[first : first + window]
            logits = self._model.decode(piece, position)
            self._computed(first + len(piece))
            position += len(piece)
            while position - start >= 2 * window:
                # Everything ungrouped moves to where a division maps the span onto `start`.
                shift = start * (group - 1)
                api.llama_memory_seq_add(memory, 0, start, position, shift)
                api.llama_memory_seq_div(memory, 0, start * group, start * group + window, group)
                saved = window - window // group
                rest = start * group + window
                api.llama_memory_seq_add(memory, 0, rest, position + shift, -shift - saved)
                start += window // group
                position -= saved
        return position, logits


def log_softmax(logits: Logits) -> Logits:
    """Natural logarithms of the probabilities that logits of one token stand for, float32."""
    shifted = logits - logits.max()
    # Summed in float64: a vocabulary has more entries than float32 has units of 1.
    total = np.exp(shifted).sum(dtype=np.float64)
    found: Logits = shifted - np.float32(math.log(total))
    return found


class _Child:
    """Does what requests ask for: an operation with its payload and its fields by name."""

    def __init__(self, llama_cpp: Path | None, computed: Callable[[int], None]) -> None:
        self._computed = computed
        self._llama = Llama(llama_cpp)
        check_known_answer(self._llama)
        self._words: Vocabulary | None = None
        self._model: Model | None = None
        self._weights: object = None
        self._session: _Session | None = None
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
            "available": available_memory(),
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
            self._session = _Session(self._llama, model, load.self_extend, self._computed)
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
    forbid_core_dump()
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


#: Tokens of an answer that are timed one by one.
_ANSWER = 3

#: Cells that are copied at once: every micro-batch and every window is as large.
_COPIED = 64

#: Sequence of the tokens, the one that copies pass through, and one that holds all cells: a
#: sliding-window cache uses cells behind the window again, but only those of a single sequence.
_MAIN, _COPY, _HOLDS = range(3)


class Stopwatch:
    """What the tokens of a model take in a context that is opened for it.

    Attributes
    ----------
    cells : int
        Cells in use.
    tokens : int
        Tokens that were computed.
    """

    def __init__(self, llama: Llama, model: Model, settings: ContextSettings) -> None:
        self._api = llama.api
        self._model = model
        model.open(replace(settings, n_seq_max=_HOLDS + 1, kv_unified=True))
        self._threads = settings.n_threads or 1
        self._wall = self._busy = 0.0
        self.cells = 0
        self.tokens = 0

    def measure(self) -> dict[str, float | int]:
        """Seconds a token, with what else `ggufext.audit.run.duration.Speed` holds.

        Raises
        ------
        EngineError
            ``decode_failed``.
        """
        self._prompt()  # weights come from the disk
        self._wall = self._busy = 0.0
        prompt_start, answer_start = self._prompt(), self._answer()
        room = self._model.n_ctx - 2 * self._model.n_ubatch - 2 * _ANSWER
        if self.cells < room:
            self._fill(room)
        else:  # a context of a few micro-batches
            self._model.clear(data=True)
            self.cells = 0
        self._decode(1)  # moves the copies
        return {
            "prompt_start": prompt_start,
            "prompt_end": min(self._prompt(), self._prompt()),
            "answer_start": answer_start,
            "answer_end": self._answer(),
            "context": self.cells,
            "tokens": self.tokens,
            "can_reuse": self._model.can_reuse,
            "stretch": self._wall / self._busy,
        }

    def with_threads(self, numbers: Sequence[int]) -> list[float]:
        """Seconds a token of a prompt with each number of threads.

        Each is tried in turn, twice, so that what else runs meanwhile meets all; one that took
        twice as long as another is not tried again.

        Raises
        ------
        EngineError
            ``decode_failed``.
        """
        self._prompt()  # weights come from the disk
        found = [math.inf] * len(numbers)
        for _ in range(2):
            for index, number in enumerate(numbers):
                if math.inf > found[index] > 2 * min(found):
                    continue
                self._api.llama_set_n_threads(self._model.context, number, number)
                self._model.clear()
                self._wall = 0.0
                self._prompt()
                found[index] = min(found[index], self._wall / self._model.n_ubatch)
        return found

    def _prompt(self) -> float:
        size = self._model.n_ubatch
        return self._decode(size) / size

    def _answer(self) -> float:
        return min(self._decode(1) for _ in range(_ANSWER))

    def _decode(self, count: int) -> float:
        """Compute tokens behind those that are there; processor seconds of each thread.

        They do not grow with what else the machine does, so that settings can be compared.
        """
        position = self._api.llama_memory_seq_pos_max(self._model.memory, _MAIN) + 1
        numbers = np.arange(self.tokens, self.tokens + count)
        tokens = (7 * numbers % self._model.n_vocab).astype(np.int32)
        started, before = time.perf_counter(), time.process_time()
        self._model.decode(tokens, position)
        wall, busy = time.perf_counter() - started, time.process_time() - before
        seconds = busy / self._threads or wall  # coarse clocks see no time pass
        self._wall += wall
        self._busy += seconds
        self.cells += count
        self.tokens += count
        return seconds

    def _fill(self, until: int) -> None:
        """Copy the cells that are there until so many are in use."""
        api, context, memory = self._api, self._model.context, self._model.memory
        api.llama_memory_seq_cp(memory, _MAIN, _HOLDS, -1, -1)
        api.llama_memory_seq_cp(memory, _MAIN, _COPY, 0, _COPIED)
        size = api.llama_state_seq_get_size(context, _COPY)
        state = (ctypes.c_uint8 * size)()
        size = api.llama_state_seq_get_data(context, state, size, _COPY)
        can_move = api.llama_memory_can_shift(memory)
        while self.cells + _COPIED <= until:
            if not api.llama_state_seq_set_data(context, state, size, _COPY):
                raise EngineError(code="decode_failed", message="llama_state_seq_set_data failed")
            if can_move:
                api.llama_memory_seq_add(memory, _COPY, -1, -1, self.cells)
            for sequence in (_MAIN, _HOLDS):
                api.llama_memory_seq_cp(memory, _COPY, sequence, -1, -1)
            api.llama_memory_seq_rm(memory, _COPY, -1, -1)
            self.cells += _COPIED
