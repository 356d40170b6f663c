"""ROPE nodes, scales of attention and KV cache, read from the graph that llama.cpp computes.

Runs in the child process.
"""

from __future__ import annotations

import ctypes
import re
import struct
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ggufext.errors import EngineError
from ggufext.llama.library import Tensor
from ggufext.llama.rope_nodes import CacheTensor, RopeMode, RopeNode

if TYPE_CHECKING:
    from ggufext.llama.library import Ggml

_ROPE_NODE = re.compile(r"(?!qkv)(?P<tensor>[qk])\w*-(?P<layer>\d+)", re.IGNORECASE)
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
