"""The child process that measures how fast a model runs, at the start of a context and at its end.

Nobody wants to wait for a whole long context to be computed: its cells are filled with copies of
the first ones, each moved to its position, and only a few tokens behind them are computed.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from ggufext.llama.library import Llama, RefusalError, forbid_core_dump, private_output

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Tokens of an answer that are timed one by one.
_ANSWER = 3

#: Cells that are copied at once: every micro-batch and every window is as large.
_COPIED = 64

#: Sequence of the tokens, the one that copies pass through, and one that holds all cells: a
#: sliding-window cache uses cells behind the window again, but only those of a single sequence.
_MAIN, _COPY, _HOLDS = range(3)


class Stopwatch:
    """A context of a model, and what its tokens take.

    Attributes
    ----------
    cells : int
        Cells in use.
    tokens : int
        Tokens that were computed.
    """

    def __init__(self, llama: Llama, model: Any, settings: Mapping[str, Any]) -> None:
        self._api = api = llama.api
        sequences = {"n_seq_max": _HOLDS + 1, "kv_unified": True}
        self._context = llama.context(model, {**settings, **sequences})
        self._memory = api.llama_get_memory(self._context)
        self._vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        self._size = api.llama_n_ubatch(self._context)
        self._batch = api.llama_batch_init(self._size, 0, 1)
        self.cells = 0
        self.tokens = 0

    def close(self) -> None:
        """Give the memory back; the model stays."""
        self._api.llama_batch_free(self._batch)
        self._api.llama_free(self._context)

    def measure(self) -> dict[str, float | int]:
        """Seconds a token; the fields of `ggufext.audit.run.duration.Speed`."""
        self._prompt()  # weights come from the disk
        prompt_start, answer_start = self._prompt(), self._answer()
        room = self._api.llama_n_ctx(self._context) - 2 * self._size - 2 * _ANSWER
        if self.cells < room:
            self._fill(room)
        else:  # a context of a few micro-batches
            self._api.llama_memory_clear(self._memory, True)
            self.cells = 0
        self._decode(1)  # moves the copies
        return {
            "prompt_start": prompt_start,
            "prompt_end": min(self._prompt(), self._prompt()),
            "answer_start": answer_start,
            "answer_end": self._answer(),
            "context": self.cells,
            "tokens": self.tokens,
        }

    def _prompt(self) -> float:
        size: int = self._size
        return self._decode(size) / size

    def _answer(self) -> float:
        return min(self._decode(1) for _ in range(_ANSWER))

    def _decode(self, count: int) -> float:
        """Compute tokens behind those that are there; seconds."""
        api, batch = self._api, self._batch
        position = api.llama_memory_seq_pos_max(self._memory, _MAIN) + 1
        for index in range(count):
            batch.token[index] = 7 * (self.tokens + index) % self._vocabulary
            batch.pos[index] = position + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = _MAIN
            batch.logits[index] = index == count - 1
        batch.n_tokens = count
        started = time.perf_counter()
        status = api.llama_decode(self._context, batch)
        seconds = time.perf_counter() - started
        if status:
            raise RefusalError("decode_failed", f"llama_decode returned {status}")
        self.cells += count
        self.tokens += count
        return seconds

    def _fill(self, until: int) -> None:
        """Copy the cells that are there until so many are in use."""
        api, context, memory = self._api, self._context, self._memory
        api.llama_memory_seq_cp(memory, _MAIN, _HOLDS, -1, -1)
        api.llama_memory_seq_cp(memory, _MAIN, _COPY, 0, _COPIED)
        size = api.llama_state_seq_get_size(context, _COPY)
        state = (ctypes.c_uint8 * size)()
        size = api.llama_state_seq_get_data(context, state, size, _COPY)
        can_move = api.llama_memory_can_shift(memory)
        while self.cells + _COPIED <= until:
            if not api.llama_state_seq_set_data(context, state, size, _COPY):
                raise RefusalError("decode_failed", "llama_state_seq_set_data failed")
            if can_move:
                api.llama_memory_seq_add(memory, _COPY, -1, -1, self.cells)
            for sequence in (_MAIN, _HOLDS):
                api.llama_memory_seq_cp(memory, _COPY, sequence, -1, -1)
            api.llama_memory_seq_rm(memory, _COPY, -1, -1)
            self.cells += _COPIED


def main() -> None:
    """Answer one request: a line of JSON for each setting of flash attention."""
    forbid_core_dump()
    replies = private_output()
    request = json.loads(sys.stdin.buffer.readline())
    try:
        llama = Llama()
        model = llama.load(
            request["path"], request["kv_overrides"], gpu_layers=request["gpu_layers"]
        )
        api = llama.api
        can_reuse = not (api.llama_model_is_recurrent(model) or api.llama_model_is_hybrid(model))
        for flash_attention in request["flash_attention"]:
            settings = {**request["settings"], "flash_attn_type": int(flash_attention)}
            stopwatch = Stopwatch(llama, model, settings)
            reply = {"flash_attention": flash_attention, "can_reuse": can_reuse}
            replies.write(json.dumps(reply | stopwatch.measure()).encode() + b"\n")
            replies.flush()
            stopwatch.close()
    except RefusalError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
    # The interpreter's end would run llama.cpp's destructors; nothing is left to tidy up.
    os._exit(0)
