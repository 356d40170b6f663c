"""What tests read in an observation of llama.cpp: KV caches in its log, logits as arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from ggufext.llama.rope_nodes import Observation

_CACHE_LINE = re.compile(
    r"size = +[\d.]+ MiB \( *(?P<cells>\d+) cells, +(?P<layers>\d+) layers, +\d+/(?P<streams>\d+)"
    r" seqs\), K \((?P<type_k>\w+)\): +(?P<mib_k>[\d.]+) MiB,"
    r" V \((?P<type_v>\w+)\): +(?P<mib_v>[\d.]+) MiB"
)


@dataclass(frozen=True, slots=True)
class CacheLine:
    """One KV cache in llama.cpp's log: cells of a stream, layers, and MiB to two decimals."""

    cells: int
    layers: int
    streams: int
    type_k: str
    mib_k: float
    type_v: str
    mib_v: float


def cache_lines(seen: Observation) -> tuple[CacheLine, ...]:
    """KV caches as the log reports them, the global layers' before the local layers'."""
    return tuple(
        CacheLine(
            cells=int(match["cells"]),
            layers=int(match["layers"]),
            streams=int(match["streams"]),
            type_k=match["type_k"],
            mib_k=float(match["mib_k"]),
            type_v=match["type_v"],
            mib_v=float(match["mib_v"]),
        )
        for match in map(_CACHE_LINE.search, seen.log)
        if match
    )


def logits_array(seen: Observation, run: int = 0) -> npt.NDArray[np.float32]:
    """Logits of one start position as an array of shape (tokens, n_vocab)."""
    return np.frombuffer(seen.logits[run], dtype="<f4").reshape(-1, seen.n_vocab)
