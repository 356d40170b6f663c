"""Prompts and texts given to a model one after another; cells are reused where that is exact.

Runs in the child process.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ggufext.errors import EngineError
from ggufext.llama.loaded import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.llama.library import Llama
    from ggufext.llama.loaded import Logits, Model, Tokens
    from ggufext.llama.settings import SelfExtend

    Reply = tuple[dict[str, Any], bytes]

_NOTHING = np.empty(0, np.int32)


class Session:
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
