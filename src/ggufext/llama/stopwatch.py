"""What the tokens of a model take on this machine; runs in the child process."""

from __future__ import annotations

import ctypes
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.llama.library import Llama
    from ggufext.llama.loaded import Model
    from ggufext.llama.settings import ContextSettings

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
