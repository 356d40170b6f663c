"""Attention by distance, read from the graph while llama.cpp computes it.

Runs in the child process. A softmax of a long context takes gigabytes: of every wanted row only
sums over ranges of distances leave the node.
"""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ggufext.errors import EngineError
from ggufext.llama.nodes import NodeReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.llama.library import Llama, Tensor
    from ggufext.llama.loaded import Model, Tokens
    from ggufext.llama.settings import ContextSettings

_Sums = npt.NDArray[np.float32]

#: The only name of a softmax whose columns are the cells of the cache, in their order.
_SOFTMAX = re.compile(rb"kq_soft_max-(\d+)")

#: What a row of float32 may sum to.
_ROUNDED_ONE = 1.001


class AttentionReader(NodeReader):
    """Attention of selected query rows, summed by distance; a text is read piece by piece.

    Parameters
    ----------
    llama : Llama
    model : Model
        Opened with `settings`: without flash attention, which writes no softmax out, and with
        whole caches in local layers, so that a cell's number is its position.
    settings : ContextSettings
    sink : int
        Tokens at the beginning, ≥ 1, that are summed apart.
    edges : sequence of sequence of int
        Of each layer, the distances at which its ranges begin, rising from 1, and where the last
        one ends.

    Raises
    ------
    EngineError
        ``context_not_created``.
    """

    def __init__(
        self,
        llama: Llama,
        model: Model,
        settings: ContextSettings,
        *,
        sink: int,
        edges: Sequence[Sequence[int]],
    ) -> None:
        self._sink = sink
        self._edges = [np.array(each, np.int64) for each in edges]
        self._start = 0  # position of the micro-batch that is computed
        self._rows: list[int] = []  # wanted positions in it
        self._found: dict[int, _Sums] = {}
        super().__init__(llama, model, settings)

    def read(
        self, tokens: Tokens, position: int, rows: Sequence[int]
    ) -> tuple[list[dict[str, int]], bytes]:
        """Compute tokens behind those that were read, and sum the attention of some of them.

        Parameters
        ----------
        tokens : array of int32
        position : int
            Of the first of them.
        rows : sequence of int
            Positions of tokens among them whose attention is wanted, rising; each with more
            positions between the sink and itself than the ranges reach.

        Returns
        -------
        list of dict
            Every layer that showed its softmax, by its number `layer`, with `heads` and `columns`.
        bytes
            For each of them float32, rows × heads × columns. A column is a sum of attention: to
            the token itself, to each range of distances from near to far, to what lies between the
            farthest and the sink, and to the sink. Head h uses KV head h // (heads / KV heads).

        Raises
        ------
        EngineError
            ``decode_failed``; ``engine_unknown`` where a softmax is not laid out as this class
            knows it.
        """
        parts: list[dict[int, _Sums]] = []
        for first in range(0, len(tokens), self._model.n_ubatch):
            piece = tokens[first : first + self._model.n_ubatch]
            self._start = position + first
            self._rows = [row for row in rows if 0 <= row - self._start < len(piece)]
            self._found = {}
            self.decode(piece, self._start)
            if self._rows:
                parts.append(self._found)
        layers = sorted(parts[0]) if parts else []
        sums = [np.concatenate([part[layer] for part in parts]) for layer in layers]
        shapes = [
            {"layer": layer, "heads": each.shape[1], "columns": each.shape[2]}
            for layer, each in zip(layers, sums, strict=True)
        ]
        return shapes, b"".join(each.tobytes() for each in sums)

    def layer_of(self, tensor: Tensor) -> int | None:
        """The layer of a softmax, where rows of its micro-batch are wanted."""
        match = _SOFTMAX.fullmatch(tensor.name) if self._rows else None
        return int(match[1]) if match else None

    def read_node(self, layer: int, tensor: Tensor) -> None:
        """Sum the wanted rows of a softmax.

        Raises
        ------
        EngineError
            ``engine_unknown``.
        """
        cells, tokens, heads, streams = tensor.ne
        readable = (
            self._ggml.type_name(tensor.type) == "f32"
            and self._is_host(tensor.buffer)
            and streams == 1
            and tokens > self._rows[-1] - self._start
            and cells > self._rows[-1]
            and layer < len(self._edges)
            and layer not in self._found
        )
        if not readable:
            raise EngineError(
                code="engine_unknown",
                message=f"softmax {tensor.name.decode()!r} of {heads} heads, {tokens} tokens and "
                f"{cells} cells is not laid out in a known way",
            )
        size = self._ggml.nbytes(tensor)
        memory = memoryview((ctypes.c_char * size).from_address(tensor.data)).cast("B")
        attention: npt.NDArray[np.float32] = np.ndarray(
            (heads, tokens, cells), np.float32, memory, 0, tuple(reversed(tensor.nb[:3]))
        )
        self._found[layer] = np.stack([self._summed(layer, attention, row) for row in self._rows])

    def _summed(self, layer: int, attention: npt.NDArray[np.float32], row: int) -> _Sums:
        seen = attention[:, row - self._start, :]
        sums = sums_by_distance(seen[:, : row + 1], self._edges[layer], self._sink)
        total = sums.sum(axis=1)
        # A not-a-number fails every comparison.
        if seen[:, row + 1 :].any() or not ((total > 0) & (total < _ROUNDED_ONE)).all():
            raise EngineError(
                code="engine_unknown",
                message=f"attention of token {row} in layer {layer} sums to {total.max():g}, or "
                "reaches tokens behind it; this program cannot read it",
            )
        return sums


def sums_by_distance(
    attention: npt.NDArray[np.float32], edges: npt.NDArray[np.int64], sink: int
) -> _Sums:
    """Sum the attention of one query over ranges of distances.

    Parameters
    ----------
    attention : array of shape (heads, n)
        To the n tokens up to the query itself, which is the last.
    edges, sink
        See `AttentionReader`; n > last edge + sink.

    Returns
    -------
    array of shape (heads, ranges + 3)
        Columns as in `AttentionReader.read`.
    """
    starts = np.concatenate([[0, sink], attention.shape[1] - edges[::-1]])
    sums = np.add.reduceat(attention, starts, axis=1, dtype=np.float64)
    return sums[:, ::-1].astype(np.float32)
