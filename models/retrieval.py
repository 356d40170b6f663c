"""Passkey retrieval of the shipped model through llama.cpp.

The model runs in the calling process, so an assertion of llama.cpp ends that process; only for
models of this folder, whose tokens are those of `passkey_task`.
"""

from __future__ import annotations

import ctypes
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import llama_cpp

import passkey_task as task
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    Override = int | float | str

# Normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Cell:
    """Hits of one length and depth.

    Attributes
    ----------
    length : int
        Tokens of prompt and answer.
    depth : float
        Centre of the depth bin, 0 … 1.
    hits, trials : int
        Right answers, and prompts asked.
    """

    length: int
    depth: float
    hits: int
    trials: int


@dataclass(frozen=True)
class Score:
    """Hits of one length, pooled over its depths."""

    length: int
    hits: int
    trials: int

    @property
    def accuracy(self) -> float:
        """Share of hits, 0 … 1."""
        return self.hits / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the accuracy."""
        return wilson_interval(self.hits, self.trials)


class Reader:
    """A GGUF model of this folder, open in llama.cpp; close it or use it in a `with` statement.

    Parameters
    ----------
    path : Path
        The model file.
    n_ctx : int
        Context size in tokens; llama.cpp rounds it up to 256.
    overrides : mapping, optional
        Metadata keys to replace while loading, by their whole name; the type of a value (int,
        float, str) must be the one that llama.cpp expects for the key.
    threads : int
        CPU threads, at least 1.

    Raises
    ------
    EngineError
        If llama.cpp cannot load the model or make the context.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int,
        overrides: Mapping[str, Override] | None = None,
        threads: int = 2,
    ) -> None:
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
        model_params = llama_cpp.llama_model_default_params()
        # AMX buffers crash when GCC 12 built llama.cpp for the machine it runs on.
        model_params.use_extra_bufts = False
        model_params.n_gpu_layers = 0
        model_params.kv_overrides = _override_array(overrides or {})
        self._context = None
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise EngineError(
                code="model_not_loaded",
                message="llama.cpp cannot load this file; llama-cli names the reason",
                path=path,
            )
        context_params = llama_cpp.llama_context_default_params()
        context_params.n_ctx = n_ctx
        context_params.n_batch = n_ctx
        context_params.n_threads = threads
        context_params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, context_params)
        if not self._context:
            self.close()
            raise EngineError(
                code="context_not_created",
                message=f"llama.cpp cannot make a context of {n_ctx} tokens; ask for a shorter one",
                path=path,
            )
        self._path = path
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model; the reader cannot be used afterwards."""
        if self._context:
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)
        self._context = self._model = None

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text as llama.cpp sees them, with the BOS that the file asks for."""
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 2))()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), ids, len(ids), True, False)
        return list(ids[:count])

    def answer(self, prompt: task.Prompt) -> str:
        """Greedy continuation of a prompt, `passkey_task.ANSWER_TOKENS` tokens as text."""
        memory = llama_cpp.llama_get_memory(self._context)
        llama_cpp.llama_memory_clear(memory, True)
        answer = [self._next(prompt.ids)]
        while len(answer) < task.ANSWER_TOKENS:
            answer.append(self._next(answer[-1:]))
        return task.decode(answer)

    def _next(self, ids: Sequence[int]) -> int:
        tokens = (llama_cpp.llama_token * len(ids))(*ids)  # the batch borrows it
        status = llama_cpp.llama_decode(
            self._context, llama_cpp.llama_batch_get_one(tokens, len(ids))
        )
        if status != 0:
            raise EngineError(
                code="decode_failed",
                message=f"llama_decode returned {status}; the context may be too short",
                path=self._path,
            )
        row = llama_cpp.llama_get_logits_ith(self._context, -1)
        logits: list[float] = row[: task.VOCABULARY_SIZE]
        return logits.index(max(logits))


def is_hit(prompt: task.Prompt, answer: str) -> bool:
    """Whether the first integer of an answer is the prompt's pass key."""
    number = re.search(r"\d+", answer)
    return number is not None and number.group() == prompt.key


def measure(
    path: Path,
    *,
    lengths: Sequence[int],
    depths: int = 6,
    trials: int = 10,
    keys: int | None = None,
    seed: int = 0,
    overrides: Mapping[str, Override] | None = None,
    threads: int = 2,
) -> list[Cell]:
    """Ask a model for the pass keys of `passkey_task.prompt_set`, greedily.

    Parameters
    ----------
    path : Path
        A GGUF model of this folder, or an edited copy of one.
    lengths : sequence of int
        Tokens of prompt and answer.
    depths : int
        Equal depth bins of a length.
    trials : int
        Prompts a cell, that is a length and a depth bin.
    keys : int, optional
        Labelled keys of a prompt (sweep mode); None for standard mode.
    seed : int
        Seed of the prompts; the same seed asks every model and setting the same questions.
    overrides, threads
        As in `Reader`.

    Returns
    -------
    list of Cell
        One for each length and depth bin, in that order.
    """
    cells = []
    with Reader(path, n_ctx=max(lengths), overrides=overrides, threads=threads) as reader:
        for length in lengths:
            prompts = task.prompt_set(
                seed=seed, length=length, depths=depths, trials=trials, keys=keys
            )
            for depth_bin in range(depths):
                asked = prompts[depth_bin * trials : (depth_bin + 1) * trials]
                hits = sum(is_hit(prompt, reader.answer(prompt)) for prompt in asked)
                cells.append(Cell(length, (depth_bin + 0.5) / depths, hits, trials))
    return cells


def pooled(cells: Sequence[Cell]) -> list[Score]:
    """Scores by length, over all depths, in the order in which the lengths first appear."""
    scores = []
    for length in dict.fromkeys(cell.length for cell in cells):
        same = [cell for cell in cells if cell.length == length]
        scores.append(Score(length, sum(c.hits for c in same), sum(c.trials for c in same)))
    return scores


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Wilson score interval at 95 % (Wilson 1927) for `hits` of `trials`, `trials` at least 1."""
    share = hits / trials
    spread = Z95**2 / trials
    centre = share + spread / 2
    margin = Z95 * math.sqrt((share * (1 - share) + spread / 4) / trials)
    low, high = (centre - margin) / (1 + spread), (centre + margin) / (1 + spread)
    return max(0.0, low), min(1.0, high)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _SILENT(_level: int, _text: bytes, _data: Any) -> None:  # noqa: N802 - a constant to C
    pass


def _override_array(overrides: Mapping[str, Override]) -> Any:
    # One more, all zero: an empty key ends the list.
    array = (llama_cpp.llama_model_kv_override * (len(overrides) + 1))()
    for item, (key, value) in zip(array, overrides.items(), strict=False):
        item.key = key.encode()
        if isinstance(value, str):
            item.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
            item.value.val_str = value.encode()
        elif isinstance(value, float):
            item.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_FLOAT
            item.value.val_f64 = value
        else:
            item.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT
            item.value.val_i64 = value
    return array
