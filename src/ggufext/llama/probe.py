"""The child process that runs models, or reads their values, and tells what llama.cpp did.

A failed assertion of llama.cpp ends the process it happens in, so it happens here: a JSON request
a line on standard input, a JSON reply a line on standard output, llama.cpp's log on standard
error.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import re
import struct
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from ggufext.llama.gguf_values import read_values
from ggufext.llama.library import (
    LayoutError,
    Llama,
    RefusalError,
    Tensor,
    forbid_core_dump,
    private_output,
)
from ggufext.llama.rope_nodes import CacheTensor, RopeMode, RopeNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.llama.library import Ggml

_FLOAT_BYTES = 4

_ROPE_NODE = re.compile(r"(?!qkv)(?P<tensor>[qk])\w*-(?P<layer>\d+)", re.IGNORECASE)
_WEIGHT = re.compile(r"blk\.(?P<layer>\d+)\.attn_(?P<tensor>[qk])(?:_a|_b|_a_mqa)?\.weight")
_CACHE_TENSOR = re.compile(r"cache_(?P<tensor>[kv])_l(?P<layer>\d+)")


class _GraphReader:
    """Reads nodes as llama.cpp asks about them; it wants none, so the graph runs undisturbed."""

    def __init__(self, ggml: Ggml) -> None:
        self.nodes: dict[tuple[int, str], RopeNode] = {}
        self.caches: dict[tuple[int, str], CacheTensor] = {}
        self.attention_scales: dict[bytes, float] = {}
        self.failure: Exception | None = None
        self._ggml = ggml
        self._verified = False

    def __call__(self, address: int, ask: bool, _: Any) -> bool:
        # An exception that left this function would end the graph while llama_decode says 0.
        try:
            if ask:
                self._read(Tensor.from_address(address))
        except Exception as error:
            self.failure = self.failure or error
        return False

    def _read(self, tensor: Tensor) -> None:
        if not self._verified:
            self._ggml.verify(tensor)
            self._verified = True
        operation = self._ggml.op_name(tensor)
        if operation == "ROPE":
            self._read_rope(tensor)
        if operation == "FLASH_ATTN_EXT" or tensor.name.startswith(b"kq_soft_max"):
            (scale,) = struct.unpack("f", struct.pack("i", tensor.op_params[0]))
            self.attention_scales[tensor.name] = scale
        if tensor.view_src:
            self._read_cache(tensor.view_src.contents)

    def _read_rope(self, tensor: Tensor) -> None:
        name = tensor.name.decode()
        match = _rotated(tensor)
        _, n_dims, mode, _, n_ctx_orig = tensor.op_params[:5]
        if match is None or mode not in set(RopeMode):
            raise RefusalError(
                "engine_unknown",
                f"ROPE node {name!r} of mode {mode} is not a query or key in a known layout",
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
        if self.nodes.setdefault((node.layer, node.tensor), node) != node:
            raise RefusalError("engine_unknown", f"ROPE node {name!r} changes between batches")

    def _factors(self, tensor: Tensor) -> tuple[float, ...] | None:
        if not tensor.src[2]:
            return None
        factors = tensor.src[2].contents
        if self._ggml.type_name(factors.type) != "f32":
            raise RefusalError("engine_unknown", f"{factors.name.decode()!r} is not f32")
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
            self.caches[cache.layer, cache.tensor] = cache


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


class _Engine:
    """llama.cpp with one model and one context."""

    def __init__(self, llama: Llama, request: dict[str, Any]) -> None:
        self._library = llama  # keeps the log's callback alive
        self._llama = llama.api
        self.graph = _GraphReader(llama.ggml)
        # ctypes does not keep the callback alive; this object does.
        self._eval_callback = self._llama.ggml_backend_sched_eval_callback(self.graph)
        self._model = llama.load(request["path"], request["kv_overrides"])
        self.n_ctx_train = self._llama.llama_model_n_ctx_train(self._model)
        vocabulary = self._llama.llama_model_get_vocab(self._model)
        self.n_vocab = self._llama.llama_vocab_n_tokens(vocabulary)
        self._context = llama.context(
            self._model, {"cb_eval": self._eval_callback, **request["settings"]}
        )
        self.n_ctx = self._llama.llama_n_ctx(self._context)

    def decode(self, tokens: Sequence[int], start: int) -> bytes:
        """Float32 logits of every token, the first at position `start`, in an empty memory."""
        llama = self._llama
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        n_batch = llama.llama_n_batch(self._context)
        batch = llama.llama_batch_init(n_batch, 0, 1)
        logits = b""
        for first in range(0, len(tokens), n_batch):
            piece = tokens[first : first + n_batch]
            batch.n_tokens = len(piece)
            for index, token in enumerate(piece):
                batch.token[index] = token
                batch.pos[index] = start + first + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = True
            if status := llama.llama_decode(self._context, batch):
                raise RefusalError(
                    "decode_failed",
                    f"llama_decode returned {status} for {len(tokens)} tokens in a context of "
                    f"{self.n_ctx}",
                )
            values = llama.llama_get_logits(self._context)
            logits += ctypes.string_at(values, len(piece) * self.n_vocab * _FLOAT_BYTES)
        llama.llama_batch_free(batch)
        return logits

    def close(self) -> None:
        """Give the memory back."""
        self._llama.llama_free(self._context)
        self._llama.llama_model_free(self._model)


def run(llama: Llama, request: dict[str, Any]) -> dict[str, Any]:
    """Load the model, decode the tokens from every start, and describe what happened."""
    engine = _Engine(llama, request)
    try:
        logits = [engine.decode(request["tokens"], start) for start in request["starts"]]
    finally:
        engine.close()
    graph = engine.graph
    if graph.failure is not None:
        raise graph.failure
    return {
        "n_ctx_train": engine.n_ctx_train,
        "n_ctx": engine.n_ctx,
        "n_vocab": engine.n_vocab,
        "nodes": [asdict(graph.nodes[key]) for key in sorted(graph.nodes, key=_layer_and_q_first)],
        "attention_scales": list(graph.attention_scales.values()),
        "cache_tensors": [asdict(graph.caches[key]) for key in sorted(graph.caches)],
        "logits": [base64.b64encode(each).decode() for each in logits],
    }


def _layer_and_q_first(key: tuple[int, str]) -> tuple[int, int]:
    layer, tensor = key
    return layer, "qk".index(tensor)


def main() -> NoReturn:
    """Answer the requests on standard input until it ends."""
    forbid_core_dump()
    reply_stream = private_output()
    llama: Llama | None = None
    for line in sys.stdin:
        try:
            llama = llama or Llama()
            request = json.loads(line)
            wanted = request.get("values")
            reply = read_values(llama, **wanted) if wanted else run(llama, request)
        except RefusalError as error:
            reply = {"error": {"code": error.code, "message": error.message}}
        except LayoutError as error:
            reply = {"error": {"code": "engine_unknown", "message": str(error)}}
        reply_stream.write(json.dumps(reply).encode() + b"\n")
        reply_stream.flush()
    # The interpreter's end would run llama.cpp's destructors; nothing is left to tidy up.
    os._exit(0)
