"""The child process that runs a model once and tells what llama.cpp did.

A failed assertion of llama.cpp ends the process it happens in, so it happens here: one JSON
request on standard input, one JSON reply on standard output, llama.cpp's log on standard error.
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

from ggufext.audit.ggml import Ggml, LayoutError, Tensor
from ggufext.audit.rope_nodes import CacheTensor, RopeMode, RopeNode

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOG_DEBUG, _LOG_ERROR, _LOG_CONTINUED = 1, 4, 5
_FLOAT_BYTES = 4

#: Settings that go by name here and by number in C: how llama-cpp-python names the numbers.
_ENUMERATORS = {
    "type_k": "GGML_TYPE_",
    "type_v": "GGML_TYPE_",
    "rope_scaling_type": "LLAMA_ROPE_SCALING_TYPE_",
}

_ROPE_NODE = re.compile(r"(?P<tensor>[qk])(?:cur|_pe|_rope)?\w*-(?P<layer>\d+)", re.IGNORECASE)
_CACHE_TENSOR = re.compile(r"cache_(?P<tensor>[kv])_l(?P<layer>\d+)")


class ProbeError(Exception):
    """A refusal with a code, to be raised as EngineError by the parent."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Log:
    """llama.cpp's log, passed on to standard error line by line so that it survives a crash."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._level = _LOG_DEBUG

    def __call__(self, level: int, text: bytes, _: Any) -> None:
        self._level = self._level if level == _LOG_CONTINUED else level
        if self._level == _LOG_DEBUG:
            return
        line = text.decode(errors="replace")
        if self._level == _LOG_ERROR:
            self.errors.append(line.strip())
        sys.stderr.write(line)
        sys.stderr.flush()


class _GraphReader:
    """Reads nodes as llama.cpp asks about them; it wants none, so the graph runs undisturbed."""

    def __init__(self, ggml: Ggml) -> None:
        self.nodes: dict[tuple[int, str], RopeNode] = {}
        self.caches: dict[tuple[int, str], CacheTensor] = {}
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
        if self._ggml.op_name(tensor) == "ROPE":
            self._read_rope(tensor)
        if tensor.view_src:
            self._read_cache(tensor.view_src.contents)

    def _read_rope(self, tensor: Tensor) -> None:
        name = tensor.name.decode()
        match = _ROPE_NODE.fullmatch(name)
        _, n_dims, mode, _, n_ctx_orig = tensor.op_params[:5]
        if match is None or mode not in set(RopeMode):
            raise ProbeError(
                "unknown_rope_node",
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
            raise ProbeError("rope_node_changed", f"ROPE node {name!r} changes between batches")

    def _factors(self, tensor: Tensor) -> tuple[float, ...] | None:
        if not tensor.src[2]:
            return None
        factors = tensor.src[2].contents
        if self._ggml.type_name(factors.type) != "f32":
            raise ProbeError("factors_not_f32", f"{factors.name.decode()!r} is not f32")
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


class _Engine:
    """llama.cpp with one model and one context."""

    def __init__(self, llama_cpp: Any, request: dict[str, Any]) -> None:
        self._llama = llama_cpp
        self._log = _Log()
        # ctypes does not keep the callbacks alive; this object does.
        self._log_callback = llama_cpp.llama_log_callback(self._log)
        llama_cpp.llama_log_set(self._log_callback, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._ggml = Ggml(llama_cpp.llama_cpp._lib)
        self.graph = _GraphReader(self._ggml)
        self._eval_callback = llama_cpp.ggml_backend_sched_eval_callback(self.graph)
        self._model = self._load(request["path"], request["kv_overrides"])
        self.n_ctx_train = llama_cpp.llama_model_n_ctx_train(self._model)
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._context = self._create(request["settings"])
        self.n_ctx = llama_cpp.llama_n_ctx(self._context)

    def _load(self, path: str, overrides: dict[str, bool | int | float | str]) -> Any:
        parameters = self._llama.llama_model_default_params()
        parameters.n_gpu_layers = 0
        # Repacked weights crash on processors with AMX when GCC 12 built llama.cpp for them.
        parameters.use_extra_bufts = False
        parameters.kv_overrides = self._overrides(overrides)
        model = self._llama.llama_model_load_from_file(os.fsencode(path), parameters)
        if not model:
            raise ProbeError("model_not_loaded", self._errors())
        return model

    def _overrides(self, overrides: dict[str, bool | int | float | str]) -> Any:
        """llama.cpp's array of overrides, ended by an empty key."""
        llama = self._llama
        array = (llama.llama_model_kv_override * (len(overrides) + 1))()
        for entry, (key, value) in zip(array, overrides.items(), strict=False):
            entry.key = key.encode()
            if isinstance(value, bool):
                entry.tag, entry.value.val_bool = llama.LLAMA_KV_OVERRIDE_TYPE_BOOL, value
            elif isinstance(value, int):
                entry.tag, entry.value.val_i64 = llama.LLAMA_KV_OVERRIDE_TYPE_INT, value
            elif isinstance(value, float):
                entry.tag, entry.value.val_f64 = llama.LLAMA_KV_OVERRIDE_TYPE_FLOAT, value
            else:
                entry.tag, entry.value.val_str = llama.LLAMA_KV_OVERRIDE_TYPE_STR, value.encode()
        return array

    def _create(self, settings: dict[str, Any]) -> Any:
        parameters = self._llama.llama_context_default_params()
        parameters.n_threads = parameters.n_threads_batch = 1
        parameters.cb_eval = self._eval_callback
        for name, value in settings.items():
            setattr(parameters, name, self._number(name, value))
        context = self._llama.llama_init_from_model(self._model, parameters)
        if not context:
            raise ProbeError("context_not_created", self._errors())
        return context

    def _number(self, setting: str, value: Any) -> Any:
        """Translate a setting to what the C structure holds."""
        prefix = _ENUMERATORS.get(setting)
        if prefix is None:
            return value
        number = getattr(self._llama, prefix + value.upper(), None)
        if number is None:
            raise ProbeError("unknown_setting", f"llama.cpp knows no {setting} {value!r}")
        return number

    def _errors(self) -> str:
        return "; ".join(self._log.errors) or "llama.cpp gives no reason"

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
                raise ProbeError(
                    "decode_failed",
                    f"llama_decode returned {status} for {len(tokens)} tokens in a context of "
                    f"{self.n_ctx}",
                )
            values = llama.llama_get_logits(self._context)
            logits += ctypes.string_at(values, len(piece) * self.n_vocab * _FLOAT_BYTES)
        llama.llama_batch_free(batch)
        return logits


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Load the model, decode the tokens from every start, and describe what happened."""
    try:
        import llama_cpp
    except ImportError as error:
        raise ProbeError(
            "engine_missing",
            f"llama-cpp-python cannot be imported ({error}): pip install ggufext[check]",
        ) from error
    engine = _Engine(llama_cpp, request)
    logits = [engine.decode(request["tokens"], start) for start in request["starts"]]
    graph = engine.graph
    if graph.failure is not None:
        raise graph.failure
    return {
        "n_ctx_train": engine.n_ctx_train,
        "n_ctx": engine.n_ctx,
        "n_vocab": engine.n_vocab,
        "nodes": [asdict(graph.nodes[key]) for key in sorted(graph.nodes, key=_layer_and_q_first)],
        "cache_tensors": [asdict(graph.caches[key]) for key in sorted(graph.caches)],
        "logits": [base64.b64encode(each).decode() for each in logits],
    }


def _layer_and_q_first(key: tuple[int, str]) -> tuple[int, int]:
    layer, tensor = key
    return layer, "qk".index(tensor)


def main() -> NoReturn:
    """Answer the request on standard input."""
    _forbid_core_dump()
    # Whatever a library prints on standard output must not get between the parent and its reply.
    reply_stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        reply = run(json.load(sys.stdin))
    except ProbeError as error:
        reply = {"error": {"code": error.code, "message": error.message}}
    except LayoutError as error:
        reply = {"error": {"code": "engine_unknown", "message": str(error)}}
    json.dump(reply, reply_stream)
    reply_stream.flush()
    # The interpreter's end would run llama.cpp's destructors; nothing is left to tidy up.
    os._exit(0)


def _forbid_core_dump() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
