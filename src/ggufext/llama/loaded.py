"""A model with its context: text to tokens, tokens to logits, and the graph between them.

Runs in the child process.
"""

from __future__ import annotations

import ctypes
import re
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ggufext.errors import EngineError
from ggufext.llama.binding import VOCABULARY_NONE
from ggufext.llama.library import Tensor
from ggufext.llama.rope_nodes import CacheTensor, RopeMode, RopeNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ggufext.llama.library import Ggml, Llama
    from ggufext.llama.settings import ContextSettings, LoadRequest


Tokens = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]

#: What prompts are tokenized behind: every part of a prompt follows a full stop. A piece of a text
#: that begins within a word may merge with that; it stands behind the first it does not merge with.
_BEFORE, _BEFORE_WITHIN_A_WORD = b".", (b".", b"0", b"a")

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

    def decode(
        self, tokens: Tokens, position: int, computed: Callable[[int], None] = lambda _: None
    ) -> Logits:
        """Compute tokens at consecutive positions; the logits of the last one.

        They are llama.cpp's own memory, which the next call writes over.

        Parameters
        ----------
        computed : callable
            Called after each batch with the tokens that are computed.

        Raises
        ------
        EngineError
            ``decode_failed``.
        """
        wanted = np.zeros(len(tokens), np.bool_)
        wanted[-1] = True
        for first, count in self._batches(tokens, position, wanted, self._n_batch):
            computed(first + count)
        last = self._api.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(last, (self.n_vocab,))

    def logits(self, tokens: Tokens, position: int) -> bytes:
        """Float32 logits of every token at consecutive positions; errors as in `decode`."""
        wanted = np.ones(len(tokens), np.bool_)
        return b"".join(found.tobytes() for _, found in self.wanted(tokens, position, wanted))

    def wanted(
        self,
        tokens: Tokens,
        position: int,
        wanted: npt.NDArray[np.bool_],
        computed: Callable[[int], None] = lambda _: None,
    ) -> Iterator[tuple[npt.NDArray[np.intp], Logits]]:
        """Compute tokens at consecutive positions, for the logits of some; errors as in `decode`.

        Parameters
        ----------
        wanted : ndarray of bool, shape (tokens,)
        computed : callable
            As in `decode`.

        Yields
        ------
        ndarray of int, shape (n,)
            Of each micro-batch the indices of the wanted tokens, rising.
        ndarray of float32, shape (n, n_vocab)
            Their logits: llama.cpp's own memory, which the next step writes over.
        """
        # In micro-batches, or the logits of a whole batch would be kept at once.
        for first, count in self._batches(tokens, position, wanted, self.n_ubatch):
            computed(first + count)
            (chosen,) = np.nonzero(wanted[first : first + count])
            if chosen.size:
                values = self._api.llama_get_logits(self.context)
                yield (
                    first + chosen,
                    np.ctypeslib.as_array(values, (chosen.size, self.n_vocab)),
                )

    def _batches(
        self, tokens: Tokens, position: int, wanted: npt.NDArray[np.bool_], size: int
    ) -> Iterator[tuple[int, int]]:
        """Compute tokens, so many at once; after each batch its first index and its tokens."""
        batch = self._batch
        for first in range(0, len(tokens), size):
            piece = tokens[first : first + size]
            count = len(piece)
            start = position + first
            np.ctypeslib.as_array(batch.token, (count,))[:] = piece
            np.ctypeslib.as_array(batch.pos, (count,))[:] = np.arange(start, start + count)
            np.ctypeslib.as_array(batch.logits, (count,))[:] = wanted[first : first + count]
            batch.n_tokens = count
            if status := self._api.llama_decode(self.context, batch):
                raise EngineError(
                    code="decode_failed",
                    message=f"llama_decode returned {status} for {len(tokens)} tokens in a "
                    f"context of {self.n_ctx}",
                )
            yield first, count


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
        if self._api.llama_vocab_type(self._pointer) == VOCABULARY_NONE:
            raise EngineError(
                code="cannot_be_audited",
                message="the file has no text vocabulary, so nothing can be asked in words",
            )
        self.size: int = self._api.llama_vocab_n_tokens(self._pointer)
        self.bos: int = self._api.llama_vocab_bos(self._pointer)
        self.eos: int = self._api.llama_vocab_eos(self._pointer)
        self._buffer = (ctypes.c_int32 * 1024)()
        self._known = {before: self._tokenize(before) for before in _BEFORE_WITHIN_A_WORD}

    def _tokenize(self, text: bytes, *, special: bool = False) -> list[int]:
        room = len(text) + 2
        if room > len(self._buffer):
            self._buffer = (ctypes.c_int32 * room)()
        buffer = self._buffer
        count = self._api.llama_tokenize(
            self._pointer, text, len(text), buffer, room, False, special
        )
        if count < 0:
            raise EngineError(code="cannot_be_audited", message=f"llama_tokenize returned {count}")
        return list(buffer[:count])

    def behind_a_stop(self, text: str) -> list[int]:
        """Tokens of a text that follows a full stop, or of one that begins within a word.

        Raises
        ------
        EngineError
            ``cannot_be_audited``.
        """
        for before in (_BEFORE,) if text.startswith(" ") else _BEFORE_WITHIN_A_WORD:
            tokens, known = self._tokenize(before + text.encode()), self._known[before]
            if tokens[: len(known)] == known:
                return tokens[len(known) :]
        raise EngineError(
            code="cannot_be_audited",
            message="the tokenizer merges the end of a sentence with the next one, so keys and "
            "lengths have no exact place in tokens; this model cannot be audited that way",
        )

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


_ROPE_NODE = re.compile(r"(?:mtp_)?(?!qkv)(?P<tensor>[qk])\w*-(?P<layer>\d+)", re.IGNORECASE)
_WEIGHT = re.compile(r"blk\.(?P<layer>\d+)\.attn_(?P<tensor>[qk])(?:_a|_b|_a_mqa)?\.weight")
_CACHE_TENSOR = re.compile(r"cache_(?P<tensor>[kv])_l(?P<layer>\d+)")


class GraphReader:
    """Reads nodes as llama.cpp asks about them; it wants none, so the graph runs undisturbed."""

    def __init__(self, ggml: Ggml) -> None:
        self._nodes: dict[tuple[int, str], RopeNode] = {}
        self._caches: dict[tuple[int, str], CacheTensor] = {}
        self._attention_scales: dict[bytes, float] = {}
        self._failure: Exception | None = None
        self._ggml = ggml
        self._verified = False

    def node(self, address: int, ask: bool, _: Any) -> bool:
        """Read a node before it is computed; to be llama.cpp's ``cb_eval``."""
        # An exception that left this function would end the graph while llama_decode says 0.
        try:
            if ask:
                self._read(Tensor.from_address(address))
        except Exception as error:
            self._failure = self._failure or error
        return False

    def found(self) -> dict[str, Any]:
        """The fields of `ggufext.llama.rope_nodes.Observation` that a graph shows.

        Raises
        ------
        EngineError
            ``engine_unknown`` when the graph is not one that this class can read.
        """
        if self._failure is not None:
            raise self._failure
        nodes = [self._nodes[key] for key in sorted(self._nodes, key=_layer_and_q_first)]
        return {
            "rope_nodes": [asdict(node) for node in nodes],
            "attention_scales": list(self._attention_scales.values()),
            "cache_tensors": [asdict(self._caches[key]) for key in sorted(self._caches)],
        }

    def _read(self, tensor: Tensor) -> None:
        if not self._verified:
            self._ggml.verify(tensor)
            self._verified = True
        operation = self._ggml.op_name(tensor)
        if operation == "ROPE":
            self._read_rope(tensor)
        if operation == "FLASH_ATTN_EXT" or tensor.name.startswith(b"kq_soft_max"):
            (scale,) = struct.unpack("f", struct.pack("i", tensor.op_params[0]))
            self._attention_scales[tensor.name] = scale
        if tensor.view_src:
            self._read_cache(tensor.view_src.contents)

    def _read_rope(self, tensor: Tensor) -> None:
        name = tensor.name.decode()
        match = _rotated(tensor)
        _, n_dims, mode, _, n_ctx_orig = tensor.op_params[:5]
        if match is None or mode not in set(RopeMode):
            raise EngineError(
                code="engine_unknown",
                message=f"ROPE node {name!r} of mode {mode} is not a query or key in a known "
                "layout",
            )
        reals = struct.unpack("6f", struct.pack("6i", *tensor.op_params[5:11]))
        freq_base, freq_scale, ext_factor, attn_factor, beta_fast, beta_slow = reals
        node = RopeNode(
            layer=int(match["layer"]),
            tensor="q" if match["tensor"].lower() == "q" else "k",
            n_dims=n_dims,
            mode=RopeMode(mode),
            n_ctx_orig=n_ctx_orig,
            freq_base=freq_base,
            freq_scale=freq_scale,
            ext_factor=ext_factor,
            attn_factor=attn_factor,
            beta_fast=beta_fast,
            beta_slow=beta_slow,
            factors=self._factors(tensor),
        )
        if self._nodes.setdefault((node.layer, node.tensor), node) != node:
            raise EngineError(
                code="engine_unknown", message=f"ROPE node {name!r} changes between batches"
            )

    def _factors(self, tensor: Tensor) -> tuple[float, ...] | None:
        if not tensor.src[2]:
            return None
        factors = tensor.src[2].contents
        if self._ggml.type_name(factors.type) != "f32":
            raise EngineError(
                code="engine_unknown", message=f"{factors.name.decode()!r} is not f32"
            )
        return tuple((ctypes.c_float * factors.ne[0]).from_address(factors.data))

    def _read_cache(self, tensor: Tensor) -> None:
        if match := _CACHE_TENSOR.fullmatch(tensor.name.decode()):
            cache = CacheTensor(
                layer=int(match["layer"]),
                tensor="k" if match["tensor"] == "k" else "v",
                type=self._ggml.type_name(tensor.type),
                cells=tensor.ne[1] * tensor.ne[2],
                size=self._ggml.nbytes(tensor),
            )
            self._caches[cache.layer, cache.tensor] = cache


def _rotated(tensor: Tensor) -> re.Match[str] | None:
    """Layer and q or k by the node's name, or by what was computed before it.

    Some graphs name the values before or after the rotation only; at the far end stands the
    weight.
    """
    while True:
        name = tensor.name.decode()
        match = _ROPE_NODE.match(name) or _WEIGHT.fullmatch(name)
        if match or not tensor.src[0]:
            return match
        tensor = tensor.src[0].contents


def _layer_and_q_first(key: tuple[int, str]) -> tuple[int, int]:
    layer, tensor = key
    return layer, "qk".index(tensor)
