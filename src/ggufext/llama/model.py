"""A model with its context: text to tokens, tokens to logits. Runs in the child process."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ggufext.llama.library import Llama
    from ggufext.llama.settings import ContextSettings, LoadRequest

Tokens = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]

#: What prompts are tokenized behind: every part of a prompt follows a full stop.
_BEFORE = b"."

_LONGEST_PIECE = 256


class Model:
    """A loaded model; after `open` with a context of empty memory.

    Attributes
    ----------
    pointer, context, memory
        For llama.h.
    n_vocab, n_ctx_train : int
    n_ctx, n_ubatch : int
        Of the context.
    can_reuse : bool
        Whether the memory can drop the end of a text and keep its start; a recurrent one cannot.

    Raises
    ------
    EngineError
        ``model_not_loaded``.
    """

    def __init__(self, llama: Llama, request: LoadRequest) -> None:
        self._llama = llama
        self._api = api = llama.api
        self.pointer = llama.load(request)
        self.n_vocab: int = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.pointer))
        self.n_ctx_train: int = api.llama_model_n_ctx_train(self.pointer)
        self.can_reuse = not (
            api.llama_model_is_recurrent(self.pointer) or api.llama_model_is_hybrid(self.pointer)
        )
        self.context: Any = None

    def open(self, settings: ContextSettings, *, on_node: Any = None) -> None:
        """Create a context; the one before is given back first.

        Parameters
        ----------
        on_node : optional
            See `Llama.node_callback`.

        Raises
        ------
        EngineError
            ``context_not_created``, ``unknown_setting``.
        """
        self._close_context()
        api = self._api
        self._on_node = on_node  # alive as long as the context
        self.context = self._llama.context(self.pointer, settings, on_node)
        self.memory = api.llama_get_memory(self.context)
        self.n_ctx: int = api.llama_n_ctx(self.context)
        self.n_ubatch: int = api.llama_n_ubatch(self.context)
        n_batch = api.llama_n_batch(self.context)
        self._n_batch = max(n_batch // self.n_ubatch, 1) * self.n_ubatch
        self._batch = api.llama_batch_init(self._n_batch, 0, 1)
        for index in range(self._n_batch):
            self._batch.n_seq_id[index] = 1
            self._batch.seq_id[index][0] = 0

    def close(self) -> None:
        """Give the memory back."""
        self._close_context()
        self._api.llama_model_free(self.pointer)

    def _close_context(self) -> None:
        if self.context is not None:
            self._api.llama_batch_free(self._batch)
            self._api.llama_free(self.context)
            self.context = None

    def clear(self, *, data: bool = False) -> None:
        """Empty the memory; with `data` its cells are zeroed too."""
        self._api.llama_memory_clear(self.memory, data)

    def decode(self, tokens: Tokens, position: int) -> Logits:
        """Compute tokens at consecutive positions; the logits of the last one.

        They are llama.cpp's own memory, which the next call writes over.

        Raises
        ------
        EngineError
            ``decode_failed``.
        """
        for _ in self._batches(tokens, position, all_logits=False):
            pass
        last = self._api.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(last, (self.n_vocab,))

    def logits(self, tokens: Tokens, position: int) -> bytes:
        """Float32 logits of every token at consecutive positions; errors as in `decode`."""
        found = b""
        for count in self._batches(tokens, position, all_logits=True):
            values = self._api.llama_get_logits(self.context)
            found += ctypes.string_at(values, count * self.n_vocab * np.float32().nbytes)
        return found

    def _batches(self, tokens: Tokens, position: int, *, all_logits: bool) -> Iterator[int]:
        """Compute tokens batch by batch; their number after each."""
        batch = self._batch
        for first in range(0, len(tokens), self._n_batch):
            piece = tokens[first : first + self._n_batch]
            count = len(piece)
            start = position + first
            np.ctypeslib.as_array(batch.token, (count,))[:] = piece
            np.ctypeslib.as_array(batch.pos, (count,))[:] = np.arange(start, start + count)
            wanted = np.ctypeslib.as_array(batch.logits, (count,))
            wanted[:] = all_logits
            wanted[-1] = all_logits or first + count == len(tokens)
            batch.n_tokens = count
            if status := self._api.llama_decode(self.context, batch):
                raise EngineError(
                    code="decode_failed",
                    message=f"llama_decode returned {status} for {len(tokens)} tokens in a "
                    f"context of {self.n_ctx}",
                )
            yield count


class Vocabulary:
    """Text to tokens and back.

    Parameters
    ----------
    llama : Llama
    model
        As `Llama.load` gives it; to be kept by the caller.

    Raises
    ------
    EngineError
        ``cannot_be_audited``.
    """

    def __init__(self, llama: Llama, model: Any) -> None:
        self._api = llama.api
        self._pointer = self._api.llama_model_get_vocab(model)
        if self._api.llama_vocab_type(self._pointer) == self._api.LLAMA_VOCAB_TYPE_NONE:
            raise EngineError(
                code="cannot_be_audited",
                message="the file has no text vocabulary, so nothing can be asked in words",
            )
        self.size: int = self._api.llama_vocab_n_tokens(self._pointer)
        self.bos: int = self._api.llama_vocab_bos(self._pointer)
        self.eos: int = self._api.llama_vocab_eos(self._pointer)
        self._buffer = (self._api.llama_token * 1024)()
        self._before = self._tokenize(_BEFORE)

    def _tokenize(self, text: bytes, *, special: bool = False) -> list[int]:
        room = len(text) + 2
        if room > len(self._buffer):
            self._buffer = (self._api.llama_token * room)()
        buffer = self._buffer
        count = self._api.llama_tokenize(
            self._pointer, text, len(text), buffer, room, False, special
        )
        if count < 0:
            raise EngineError(code="cannot_be_audited", message=f"llama_tokenize returned {count}")
        return list(buffer[:count])

    def behind_a_stop(self, text: str) -> list[int]:
        """Tokens of a text that follows a full stop.

        Raises
        ------
        EngineError
            ``cannot_be_audited``.
        """
        tokens = self._tokenize(_BEFORE + text.encode())
        if tokens[: len(self._before)] != self._before:
            raise EngineError(
                code="cannot_be_audited",
                message="the tokenizer merges the end of a sentence with the next one, so keys and "
                "lengths have no exact place in tokens; this model cannot be audited that way",
            )
        return tokens[len(self._before) :]

    def framed(self, before: str, behind: str) -> tuple[list[int], list[int]]:
        """BOS and template, before and behind the prompt."""
        lead = self._tokenize(before.encode(), special=True) if before else []
        if self._api.llama_vocab_get_add_bos(self._pointer) and lead[:1] != [self.bos]:
            lead.insert(0, self.bos)
        return lead, self._tokenize(behind.encode(), special=True) if behind else []

    def piece(self, token: int) -> bytes:
        """Bytes of a token."""
        buffer = ctypes.create_string_buffer(_LONGEST_PIECE)
        size = self._api.llama_token_to_piece(self._pointer, token, buffer, _LONGEST_PIECE, 0, True)
        return buffer.raw[: max(size, 0)]

    def ends(self, token: int) -> bool:
        """Whether a token ends a generation."""
        return bool(self._api.llama_vocab_is_eog(self._pointer, token))
