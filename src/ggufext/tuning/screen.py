"""What other frequencies would make of attention, without running the model again.

Queries, keys and values are captured once, under one rotation. A candidate turns them to its own
frequencies and attends; what comes out is compared with what the model would have read with its
native rotation from its last T tokens, which training showed it. A coarse filter: it tells good
from bad, hardly good from best, and finds no fault in ignoring what is far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ggufext.errors import NativeError
from ggufext.rope import reference, rotation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.rope.rotation import Frequencies

Values = npt.NDArray[np.float32]

#: Rows that attend at once: their scores take this times heads times tokens times four bytes.
_ROWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class CapturedLayer:
    """What attention of a layer read.

    Attributes
    ----------
    queries : ndarray of float32, shape (rows, heads, elements)
        Rotated, as `keys`.
    keys, values : ndarray of float32, shape (tokens, KV heads, elements)
        Head h uses KV head h // (heads / KV heads).
    scale : float
        Of the scores.
    """

    queries: Values
    keys: Values
    values: Values
    scale: float


@dataclass(frozen=True, slots=True)
class Capture:
    """What attention of some layers read of one text.

    Attributes
    ----------
    layers : tuple of CapturedLayer
    rows : tuple of int
        Positions of the queries, rising, tokens.
    rotated : Frequencies
        That queries and keys were rotated with.
    layout : {"interleaved", "half"}
        See `ggufext.rope.rotate`.
    """

    layers: tuple[CapturedLayer, ...]
    rows: tuple[int, ...]
    rotated: Frequencies
    layout: str


class Screen:
    """Ranks candidates by how far the output of their attention is from a teacher's.

    Parameters
    ----------
    capture : Capture
    native : Frequencies
        Of the model as it was trained.
    train_length : int
        T: the teacher attends to so many tokens, the query itself included.
    """

    def __init__(self, capture: Capture, native: Frequencies, train_length: int) -> None:
        self._capture = capture
        self._teacher = [
            attend(self._turned(layer, native), capture.rows, window=train_length)
            for layer in capture.layers
        ]

    def error(self, candidate: Frequencies) -> float:
        """Mean over layers of ‖P V − P' V‖² / ‖P' V‖²: P of the candidate, P' of the teacher."""
        errors = [
            relative_error(
                attend(self._turned(layer, candidate), self._capture.rows, window=None), teacher
            )
            for layer, teacher in zip(self._capture.layers, self._teacher, strict=True)
        ]
        return float(np.mean(errors))

    def _turned(self, layer: CapturedLayer, frequencies: Frequencies) -> CapturedLayer:
        capture = self._capture
        rows = np.array(capture.rows)
        return CapturedLayer(
            queries=turned(layer.queries, rows, capture.rotated, frequencies, capture.layout),
            keys=turned(
                layer.keys,
                np.arange(len(layer.keys)),
                capture.rotated,
                frequencies,
                capture.layout,
            ),
            values=layer.values,
            scale=layer.scale,
        )


def turned(
    x: Values,
    positions: npt.NDArray[np.int64],
    old: Frequencies,
    new: Frequencies,
    layout: str,
) -> Values:
    """Turn what was rotated by old frequencies to new ones; parameters as of `ggufext.rope.rebase`.

    Without the native module the reference does it, slowly.
    """
    try:
        found: Values = rotation.rebase(x, positions, old, new, layout=layout)  # type: ignore[arg-type]
    except NativeError:
        back = reference.rotate(
            x,
            positions,
            inv_freq=old.inv_freq,
            attention_factor=old.attention_factor,
            layout=layout,
            inverse=True,
        )
        found = reference.rotate(
            back,
            positions,
            inv_freq=new.inv_freq,
            attention_factor=new.attention_factor,
            layout=layout,
        ).astype(np.float32)
    return found


def attend(layer: CapturedLayer, rows: Sequence[int], *, window: int | None) -> Values:
    """Output of causal attention, before the heads are mixed.

    Parameters
    ----------
    layer : CapturedLayer
    rows : sequence of int
        Positions of the queries.
    window : int or None
        Tokens that a query sees, itself the last; None: all before it.

    Returns
    -------
    ndarray of float32, shape (rows, heads, elements of a value)
    """
    heads, heads_kv = layer.queries.shape[1], layer.keys.shape[1]
    keys = np.ascontiguousarray(layer.keys.transpose(1, 2, 0))  # KV heads × elements × tokens
    values = np.ascontiguousarray(layer.values.transpose(1, 0, 2))
    out = np.empty((len(rows), heads, values.shape[2]), np.float32)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        chosen = np.array(rows[first : first + _ROWS_AT_ONCE])
        start = 0 if window is None else max(0, int(chosen[0]) + 1 - window)
        end = int(chosen[-1]) + 1
        position = np.arange(start, end)
        hidden = position > chosen[:, None]
        if window is not None:
            hidden |= position <= chosen[:, None] - window
        # The heads that share keys side by side: one product a KV head.
        queries = layer.queries[first : first + len(chosen)]
        shared = heads // heads_kv
        for head in range(heads_kv):
            mine = slice(head * shared, (head + 1) * shared)
            asked = queries[:, mine].reshape(len(chosen) * shared, -1)
            scores = (asked @ keys[head, :, start:end]) * np.float32(layer.scale)
            scores = scores.reshape(len(chosen), shared, -1)
            scores[np.broadcast_to(hidden[:, None, :], scores.shape)] = -np.inf
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            found = scores.reshape(len(chosen) * shared, -1) @ values[head, start:end]
            found = found.reshape(len(chosen), shared, -1) / scores.sum(axis=-1)[..., None]
            out[first : first + len(chosen), mine] = found
    return out


def relative_error(found: Values, wanted: Values) -> float:
    """‖found − wanted‖² / ‖wanted‖², in float64."""
    difference = found.astype(np.float64) - wanted
    return float((difference**2).sum() / (wanted.astype(np.float64) ** 2).sum())
