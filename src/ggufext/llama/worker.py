"""The child process of the llama.cpp engine: one model, one context, many prompts.

Messages in both directions: one line of JSON, which may announce `payload` bytes that follow.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from ggufext.audit.task.answers import is_decided
from ggufext.llama.library import Llama, RefusalError, forbid_core_dump, private_output
from ggufext.llama.memory import available_memory
from ggufext.llama.settings import SelfExtend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    Tokens = npt.NDArray[np.int32]

#: What prompts are tokenized behind: every part of a prompt follows a full stop.
_BEFORE = b"."

_LONGEST_PIECE = 256


class _Vocabulary:
    """Text to tokens and back."""

    def __init__(self, llama: Llama, model: Any) -> None:
        self._api = llama.api
        self.pointer = self._api.llama_model_get_vocab(model)
        if self._api.llama_vocab_type(self.pointer) == self._api.LLAMA_VOCAB_TYPE_NONE:
            raise RefusalError(
                "cannot_be_audited",
                "the file has no text vocabulary, so nothing can be asked in words",
            )
        self.size = self._api.llama_vocab_n_tokens(self.pointer)
        self._buffer = (self._api.llama_token * 1024)()
        self._before = self.tokenize(_BEFORE)

    def tokenize(self, text: bytes, *, special: bool = False) -> list[int]:
        room = len(text) + 2
        if room > len(self._buffer):
            self._buffer = (self._api.llama_token * room)()
        buffer = self._buffer
        count = self._api.llama_tokenize(
            self.pointer, text, len(text), buffer, room, False, special
        )
        if count < 0:
            raise RefusalError("cannot_be_audited", f"llama_tokenize returned {count}")
        return list(buffer[:count])

    def behind_a_stop(self, text: str) -> list[int]:
        """Tokens of a text that follows a full stop."""
        tokens = self.tokenize(_BEFORE + text.encode())
        if tokens[: len(self._before)] != self._before:
            raise RefusalError(
                "cannot_be_audited",
                "the tokenizer merges the end of a sentence with the next one, so keys and "
                "lengths have no exact place in tokens; this model cannot be audited that way",
            )
        return tokens[len(self._before) :]

    def framed(self, before: str, behind: str) -> tuple[list[int], list[int]]:
        """BOS and template, before and behind the prompt."""
        lead = self.tokenize(before.encode(), special=True) if before else []
        begin = self._api.llama_vocab_bos(self.pointer)
        if self._api.llama_vocab_get_add_bos(self.pointer) and lead[:1] != [begin]:
            lead.insert(0, begin)
        return lead, self.tokenize(behind.encode(), special=True) if behind else []

    def piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(_LONGEST_PIECE)
        size = self._api.llama_token_to_piece(self.pointer, token, buffer, _LONGEST_PIECE, 0, True)
        return buffer.raw[: max(size, 0)]

    def ends(self, token: int) -> bool:
        """Whether a token ends a generation."""
        return bool(self._api.llama_vocab_is_eog(self.pointer, token))


class _Session:
    """A model with a context whose cells are reused where that is exact."""

    def __init__(self, llama: Llama, request: dict[str, Any]) -> None:
        import numpy as np

        self._np = np
        self._api = api = llama.api
        self._model = llama.load(
            request["path"], request["kv_overrides"], gpu_layers=request["gpu_layers"]
        )
        try:
            self._vocabulary = _Vocabulary(llama, self._model)
            self._context = llama.context(self._model, request["settings"])
        except RefusalError:
            api.llama_model_free(self._model)
            raise
        self._memory = api.llama_get_memory(self._context)
        self.n_ubatch = api.llama_n_ubatch(self._context)
        n_batch = api.llama_n_batch(self._context)
        self._n_batch = max(n_batch // self.n_ubatch, 1) * self.n_ubatch
        self._batch = api.llama_batch_init(self._n_batch, 0, 1)
        for index in range(self._n_batch):
            self._batch.n_seq_id[index] = 1
            self._batch.seq_id[index][0] = 0
        self.can_reuse = not (
            api.llama_model_is_recurrent(self._model) or api.llama_model_is_hybrid(self._model)
        )
        self._grouping: SelfExtend | None = None
        if group := request.get("self_extend"):
            self._grouping = SelfExtend(**group)
            if not self.can_reuse or not api.llama_memory_can_shift(self._memory):
                self.close()
                raise RefusalError(
                    "bad_condition", "Self-Extend moves positions, which this model's memory cannot"
                )
        self._known: Tokens = np.empty(0, np.int32)

    def close(self) -> None:
        """Give the memory back."""
        self._api.llama_batch_free(self._batch)
        self._api.llama_free(self._context)
        self._api.llama_model_free(self._model)

    def ask(self, prompt: Tokens, request: dict[str, Any]) -> dict[str, Any]:
        """Continue a prompt greedily."""
        if self._grouping:
            position = self._prefill_grouped(prompt, self._grouping)
            first = 0
        else:
            first = self._keep(prompt) if request["reuse"] and self.can_reuse else self._clear()
            self._decode(prompt[first:], first)
            position = len(prompt)
        logits = self._logits()
        first_logits = logits.tobytes() if request.get("logits") else b""
        text = b""
        said: list[int] = []
        while len(said) < request["tokens"]:
            token = int(self._np.argmax(logits))
            if self._vocabulary.ends(token):
                break
            said.append(token)
            text += self._vocabulary.piece(token)
            if len(said) == request["tokens"] or is_decided(
                text.decode(errors="replace"), request["key"]
            ):
                break
            self._decode(self._np.array([token], self._np.int32), position)
            position += 1
            logits = self._logits()
        computed = len(said) - 1 if said else 0
        self._known = prompt
        reply = {
            "text": text.decode(errors="replace"),
            "evaluated": len(prompt) - first + computed,
            "naive": len(prompt) + computed,
        }
        if first_logits:
            reply["logits"] = base64.b64encode(first_logits).decode()
        return reply

    def _clear(self) -> int:
        self._known = self._known[:0]
        self._api.llama_memory_clear(self._memory, False)
        return 0

    def _keep(self, prompt: Tokens) -> int:
        """Keep the cells of the common start up to a micro-batch; their number.

        At another place the rest would be cut into other micro-batches than a prompt computed at
        once, and the last bits of the logits would differ.
        """
        overlap = min(len(self._known), len(prompt) - 1)
        same = self._known[:overlap] == prompt[:overlap]
        common = overlap if same.all() else int(self._np.argmin(same))
        keep = common // self.n_ubatch * self.n_ubatch
        if keep == 0 or not self._api.llama_memory_seq_rm(self._memory, 0, keep, -1):
            return self._clear()
        return int(keep)

    def _decode(self, tokens: Tokens, position: int) -> None:
        """Compute tokens at consecutive positions; logits of the last one."""
        np, batch = self._np, self._batch
        for first in range(0, len(tokens), self._n_batch):
            piece = tokens[first : first + self._n_batch]
            count = len(piece)
            np.ctypeslib.as_array(batch.token, (count,))[:] = piece
            np.ctypeslib.as_array(batch.pos, (count,))[:] = np.arange(
                position + first, position + first + count
            )
            wanted = np.ctypeslib.as_array(batch.logits, (count,))
            wanted[:] = 0
            wanted[-1] = first + count == len(tokens)
            batch.n_tokens = count
            if status := self._api.llama_decode(self._context, batch):
                self._clear()
                raise RefusalError("decode_failed", f"llama_decode returned {status}")

    def _prefill_grouped(self, prompt: Tokens, extend: SelfExtend) -> int:
        """Compute a prompt, grouping the positions of what falls out of the window.

        At least `window` tokens before the last keep their own positions.

        Returns
        -------
        int
            Position of the token that follows.
        """
        api, memory = self._api, self._memory
        group, window = extend.group, extend.window
        self._clear()
        start = position = 0  # where ungrouped positions start, and where the next token goes
        for first in range(0, len(prompt), window):
            piece = prompt[first : first + window]
            self._decode(piece, position)
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
        return position

    def _logits(self) -> npt.NDArray[np.float32]:
        pointer = self._api.llama_get_logits_ith(self._context, -1)
        return self._np.ctypeslib.as_array(pointer, (self._vocabulary.size,))


class Worker:
    """Answers the parent's messages."""

    def __init__(self) -> None:
        self._llama = Llama()
        self._vocabulary: _Vocabulary | None = None
        self._session: _Session | None = None

    def answer(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        """Do what a message asks for, the operation named like the method."""
        operations: dict[str, Callable[[dict[str, Any], bytes], dict[str, Any]]] = {
            "hello": self._hello,
            "vocabulary": self._read_vocabulary,
            "tokenize": self._tokenize,
            "open": self._open,
            "ask": self._ask,
        }
        return operations[request["op"]](request, payload)

    def _hello(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        api = self._llama.api
        for address in request["rpc"]:
            self._add_rpc(address)
        return {
            "version": api.__version__,
            "system": api.llama_print_system_info().decode(),
            "gpu": bool(api.llama_supports_gpu_offload()),
            "device_memory": self._llama.ggml.device_memory(),
            "available": available_memory(),
        }

    def _add_rpc(self, address: str) -> None:
        if not self._llama.api.llama_supports_rpc():
            raise RefusalError(
                "no_rpc",
                "this llama.cpp was built without RPC; install it again with "
                'CMAKE_ARGS="-DGGML_RPC=ON" pip install --force-reinstall --no-cache-dir '
                "llama-cpp-python",
            )
        try:
            self._llama.ggml.add_rpc_server(address)
        except ValueError as error:
            raise RefusalError("engine_unreachable", str(error)) from error

    def _read_vocabulary(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        model = self._llama.load(request["path"], {}, vocabulary_only=True)
        self._vocabulary = _Vocabulary(self._llama, model)
        api, pointer = self._llama.api, self._vocabulary.pointer

        def text(token: int) -> str:
            return self._words.piece(token).decode(errors="replace") if token >= 0 else ""

        return {
            "n_vocab": self._vocabulary.size,
            "bos": text(api.llama_vocab_bos(pointer)),
            "eos": text(api.llama_vocab_eos(pointer)),
        }

    @property
    def _words(self) -> _Vocabulary:
        assert self._vocabulary is not None
        return self._vocabulary

    def _tokenize(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        if (frame := request.get("frame")) is not None:
            lead, trail = self._words.framed(*frame)
            return {"lead": lead, "trail": trail}
        tokens = [self._words.behind_a_stop(text) for text in request["texts"]]
        if not request.get("pieces"):
            return {"tokens": tokens}
        return {"tokens": tokens, "pieces": [self._pieces(each) for each in tokens]}

    def _pieces(self, tokens: Sequence[int]) -> list[str]:
        return [self._words.piece(token).decode("latin-1") for token in tokens]

    def _open(self, request: dict[str, Any], _: bytes) -> dict[str, Any]:
        if self._session is not None:
            # Before the next one takes its memory, not when Python finds time.
            self._session.close()
            self._session = None
        self._session = _Session(self._llama, request)
        return {"n_ubatch": self._session.n_ubatch, "can_reuse": self._session.can_reuse}

    def _ask(self, request: dict[str, Any], payload: bytes) -> dict[str, Any]:
        import numpy as np

        assert self._session is not None
        return self._session.ask(np.frombuffer(payload, np.int32), request)


def main() -> None:
    """Answer messages until standard input ends."""
    forbid_core_dump()
    replies = private_output()
    worker: Worker | None = None
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        payload = sys.stdin.buffer.read(request.get("payload", 0))
        try:
            worker = worker or Worker()
            reply = worker.answer(request, payload)
        except RefusalError as error:
            reply = {"error": {"code": error.code, "message": error.message}}
        except MemoryError:
            reply = {"error": {"code": "out_of_memory", "message": "Python ran out of memory"}}
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()
    # The interpreter's end would run llama.cpp's destructors; nothing is left to tidy up.
    os._exit(0)
