"""What llama.cpp really does with a file: the ROPE node of every layer, KV cache and logits."""

from __future__ import annotations

from array import array
from contextlib import nullcontext
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal

from ggufext.llama.settings import ContextSettings, LoadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ggufext.llama.process import LlamaProcess
    from ggufext.llama.settings import Override


class RopeMode(IntEnum):
    """How ggml pairs the rotated values (GGML_ROPE_TYPE_* of ggml.h)."""

    INTERLEAVED = 0
    HALF = 2
    SECTIONS = 8
    VISION = 24
    INTERLEAVED_SECTIONS = 40


@dataclass(frozen=True, slots=True)
class RopeNode:
    """One rotation as llama.cpp computes it; reals are float32.

    Attributes
    ----------
    layer : int
    tensor : "q" or "k"
    n_dims : int
        Rotated values of a head.
    mode : RopeMode
    n_ctx_orig : int
        Training length that YaRN's correction range is computed from, tokens.
    freq_base, freq_scale : float
        Base θ, and what every angle is multiplied by (1/factor).
    ext_factor : float
        1 where YaRN mixes, 0 elsewhere.
    attn_factor : float
        What the rotated values are multiplied by, beside YaRN's own 1 + 0.1 ln(1/freq_scale).
    beta_fast, beta_slow : float
    factors : tuple of float or None
        What each pair's angle is divided by, when the file brings such a tensor.
    """

    layer: int
    tensor: Literal["q", "k"]
    n_dims: int
    mode: RopeMode
    n_ctx_orig: int
    freq_base: float
    freq_scale: float
    ext_factor: float
    attn_factor: float
    beta_fast: float
    beta_slow: float
    factors: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class CacheTensor:
    """K or V of one layer's cache as allocated; exact where the log rounds to 0.01 MiB.

    Attributes
    ----------
    layer : int
    tensor : "k" or "v"
    type : str
        ggml's name: ``"f16"``, ``"q8_0"`` …
    cells : int
        Tokens it holds, over all streams.
    size : int
        Bytes.
    """

    layer: int
    tensor: Literal["k", "v"]
    type: str
    cells: int
    size: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What one run of a model showed.

    Attributes
    ----------
    n_ctx_train : int
        Training length as llama.cpp understands the file, tokens.
    n_ctx : int
        Context really created (rounded up to 256), tokens.
    n_vocab : int
    rope_nodes : tuple of RopeNode
        By layer, q before k; empty for a model that does not rotate.
    attention_scales : tuple of float
        What the products of queries and keys are multiplied by, layer after layer.
    cache_tensors : tuple of CacheTensor
    log : tuple of str
        Lines of llama.cpp.
    logits : tuple of bytes
        One entry a start position: little-endian float32, tokens × n_vocab.
    """

    n_ctx_train: int
    n_ctx: int
    n_vocab: int
    rope_nodes: tuple[RopeNode, ...]
    attention_scales: tuple[float, ...]
    cache_tensors: tuple[CacheTensor, ...]
    log: tuple[str, ...]
    logits: tuple[bytes, ...]


def observe(
    path: Path,
    *,
    tokens: Sequence[int],
    starts: Sequence[int] = (0,),
    settings: ContextSettings | None = None,
    kv_overrides: Mapping[str, Override] | None = None,
    process: LlamaProcess | None = None,
) -> Observation:
    """Run a model on fixed tokens and tell everything it did.

    Parameters
    ----------
    path : Path
        A GGUF file.
    tokens : sequence of int
        At least one token; logits are returned for each.
    starts : sequence of int
        Positions of the first token, ≥ 0; every start is a run of its own in an empty memory.
    settings : ContextSettings, optional
        Context parameters; llama.cpp's defaults when absent (a context of 512 tokens; local
        layers with caches as long as the global ones, unlike llama.cpp's own programs).
    kv_overrides : mapping, optional
        Metadata values that stand in for the file's, by key.
    process : LlamaProcess, optional
        The child to ask, where there are many questions; one of its own when absent.

    Raises
    ------
    EngineError
        ``extra_missing`` without llama-cpp-python, ``model_not_loaded`` and
        ``context_not_created`` with llama.cpp's own words, ``decode_failed``, ``engine_died`` or
        ``out_of_memory`` with the last lines of the log when llama.cpp ends its process,
        ``unknown_setting``, and ``engine_unknown`` when this llama.cpp's graph is not one that
        this program can read.
    """
    # The child imports this module too, and needs none of that.
    from ggufext.llama.process import LlamaProcess

    load = LoadRequest(
        path=path, context=settings or ContextSettings(), kv_overrides=kv_overrides or {}
    )
    payload = array("i", tokens).tobytes()
    with nullcontext(process) if process else LlamaProcess() as child:
        reply, logits = child.request(path, "observe", payload, load=load, starts=list(starts))
        log = child.log()
    size = len(logits) // max(1, len(starts))
    return Observation(
        n_ctx_train=reply["n_ctx_train"],
        n_ctx=reply["n_ctx"],
        n_vocab=reply["n_vocab"],
        rope_nodes=tuple(_rope_node(fields) for fields in reply["rope_nodes"]),
        attention_scales=tuple(reply["attention_scales"]),
        cache_tensors=tuple(CacheTensor(**fields) for fields in reply["cache_tensors"]),
        log=log,
        logits=tuple(logits[i * size : (i + 1) * size] for i in range(len(starts))),
    )


def _rope_node(fields: dict[str, Any]) -> RopeNode:
    factors = fields["factors"]
    return RopeNode(
        **{
            **fields,
            "mode": RopeMode(fields["mode"]),
            "factors": None if factors is None else tuple(factors),
        }
    )
