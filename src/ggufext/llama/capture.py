"""Queries, keys and values as attention reads them, copied from the graph; in the child process."""

from __future__ import annotations

import ctypes
import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ggufext.errors import EngineError
from ggufext.llama.nodes import NodeReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ggufext.llama.library import Llama, Tensor
    from ggufext.llama.loaded import Model, Tokens
    from ggufext.llama.settings import ContextSettings

    _Values = npt.NDArray[np.float32]

#: Flash attention reads what was rotated and scaled, whatever the graph names it before.
_ATTENTION = "FLASH_ATTN_EXT"

#: The node of attention has no name, but the cache that it reads.
_KEYS = re.compile(rb"cache_k_l(\d+)")


class AttentionCapture(NodeReader):
    """Queries of some tokens, and keys and values of all, of some layers.

    Parameters
    ----------
    llama : Llama
    model : Model
        Opened with `settings`: flash attention, a cache of F32, and whole caches in local layers.
    settings : ContextSettings
    layers : sequence of int
        Numbers of the wanted layers, rising.

    Raises
    ------
    EngineError
        ``context_not_created``.
    """

    def __init__(
        self, llama: Llama, model: Model, settings: ContextSettings, layers: Sequence[int]
    ) -> None:
        self._layers = layers
        self._rows: list[int] = []  # wanted tokens of the micro-batch that is computed
        self._cells = 0  # that are wanted behind it
        self._queries: dict[int, list[_Values]] = {layer: [] for layer in layers}
        self._cached: dict[int, tuple[_Values, _Values]] = {}
        self._scales: dict[int, float] = {}
        super().__init__(llama, model, settings)

    def read(
        self, tokens: Tokens, rows: Sequence[int], computed: Callable[[int], None]
    ) -> tuple[list[dict[str, Any]], bytes]:
        """Compute a text from its beginning, and copy what attention reads.

        Parameters
        ----------
        tokens : array of int32
        rows : sequence of int
            Positions whose queries are wanted, rising.
        computed : callable
            Hears how many tokens are computed.

        Returns
        -------
        list of dict
            Every wanted layer by its number `layer`, with the factor `scale` of its scores and the
            shapes `queries` (rows, heads, elements), `keys` and `values` (tokens, KV heads,
            elements).
        bytes
            Of each layer these, float32, rotated as the context rotates.

        Raises
        ------
        EngineError
            ``decode_failed``; ``engine_unknown`` where attention is not laid out as this class
            knows it.
        """
        size = self._model.n_ubatch
        for first in range(0, len(tokens), size):
            piece = tokens[first : first + size]
            self._rows = [row - first for row in rows if first <= row < first + len(piece)]
            self._cells = len(tokens) if first + len(piece) == len(tokens) else 0
            self.decode(piece, first)
            computed(first + len(piece))
        layers, parts = [], []
        for layer in self._layers:
            if layer not in self._cached:
                raise EngineError(
                    code="engine_unknown",
                    message=f"the graph has no {_ATTENTION} of layer {layer}",
                )
            found = (np.concatenate(self._queries[layer]), *self._cached[layer])
            shapes = dict(zip(("queries", "keys", "values"), (x.shape for x in found), strict=True))
            layers.append({"layer": layer, "scale": self._scales[layer], **shapes})
            parts += [each.tobytes() for each in found]
        return layers, b"".join(parts)

    def layer_of(self, tensor: Tensor) -> int | None:
        """The layer of an attention, where something of its micro-batch is wanted."""
        if not (self._rows or self._cells) or self._ggml.op_name(tensor) != _ATTENTION:
            return None
        keys = _cached(tensor.src[1].contents)
        match = _KEYS.fullmatch(keys.view_src.contents.name) if keys.view_src else None
        layer = int(match[1]) if match else None
        return layer if layer in self._queries else None

    def read_node(self, layer: int, tensor: Tensor) -> None:
        """Copy what an attention reads.

        Raises
        ------
        EngineError
            ``engine_unknown``.
        """
        if self._rows:
            self._queries[layer].append(self._view(tensor.src[0].contents)[self._rows])
        if self._cells:
            self._cached[layer] = (self._cells_of(tensor.src[1]), self._cells_of(tensor.src[2]))
        (self._scales[layer],) = struct.unpack("f", struct.pack("i", tensor.op_params[0]))

    def _cells_of(self, source: Any) -> _Values:
        return self._view(_cached(source.contents))[: self._cells].copy()

    def _view(self, tensor: Tensor) -> _Values:
        """A source of attention in its memory, tokens × heads × elements."""
        elements, tokens, heads, streams = tensor.ne
        if (
            self._ggml.type_name(tensor.type) != "f32"
            or streams != 1
            or not self._is_host(_buffer(tensor))
        ):
            raise EngineError(
                code="engine_unknown",
                message=f"attention reads {tensor.name.decode()!r} of type "
                f"{self._ggml.type_name(tensor.type)}, which is not laid out in a known way",
            )
        strides = (tensor.nb[1], tensor.nb[2], tensor.nb[0])
        size = sum((n - 1) * s for n, s in zip((tokens, heads, elements), strides, strict=True)) + 4
        memory = (ctypes.c_char * size).from_address(tensor.data)
        return np.ndarray((tokens, heads, elements), np.float32, memory, 0, strides)


def _cached(source: Tensor) -> Tensor:
    """The cache that attention reads; flash attention reads a cache of F32 as F16."""
    while not source.view_src and source.src[0]:
        source = source.src[0].contents
    return source


def _buffer(tensor: Tensor) -> Any:
    """Where the data of a tensor lies; views may leave that to what they show."""
    return tensor.buffer or tensor.view_src.contents.buffer
