"""Passkey retrieval of the shipped model through llama.cpp.

Only for models of this folder, whose tokens are those of `passkey_task`.
"""

from __future__ import annotations

import math
import re
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

import passkey_task as task
from ggufext.errors import EngineError
from ggufext.llama.process import LlamaProcess
from ggufext.llama.settings import ContextSettings, LoadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from ggufext.llama.settings import Override

# Normal quantile of a two-sided 95 % interval.
Z95 = 1.959963984540054

# A regular expression that matches no answer: all tokens of it are wanted.
_NEVER = r"(?!)"


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
        If llama.cpp is not installed, or cannot load the model or make the context.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int,
        overrides: Mapping[str, Override] | None = None,
        threads: int = 2,
    ) -> None:
        context = ContextSettings(
            n_ctx=n_ctx, n_batch=n_ctx, n_threads=threads, n_threads_batch=threads
        )
        load = LoadRequest(path=path, context=context, kv_overrides=overrides or {})
        self._path = path
        self._process = LlamaProcess()
        try:
            self._process.request(path, "vocabulary", load=LoadRequest(path=path))
            self._process.request(path, "open", load=load)
        except EngineError:
            self.close()
            raise

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
        self._process.close()

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text as llama.cpp sees them, with the BOS that the file asks for."""
        start, _ = self._process.request(self._path, "frame", before="", behind="")
        reply, _ = self._process.request(self._path, "tokenize", texts=[text], pieces=False)
        tokens: list[int] = start["lead"] + reply["tokens"][0]
        return tokens

    def answer(self, prompt: task.Prompt) -> str:
        """Greedy continuation of a prompt, up to `passkey_task.ANSWER_TOKENS` tokens as text."""
        ids = array("i", prompt.ids).tobytes()
        reply, _ = self._process.request(
            self._path, "ask", ids, tokens=task.ANSWER_TOKENS, hidden="", stop=_NEVER
        )
        text: str = reply["text"]
        return text


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
