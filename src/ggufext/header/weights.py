"""How wide a model's graph is: what its compute buffers grow with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.header import rope_keys
from ggufext.header.header import ValueType

if TYPE_CHECKING:
    from ggufext.header.header import Header


#: The matrix whose rows are the tokens' embeddings.
_EMBEDDINGS = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class Widths:
    """Values of a token in the widest places of the graph.

    Attributes
    ----------
    vocabulary : int
        Tokens; 0 where the file does not say.
    embedding, feed_forward : int
        Of mixtures of experts: all experts of a token together.
    heads : int
        Query heads.
    """

    vocabulary: int
    embedding: int
    feed_forward: int
    heads: int


def model_widths(header: Header) -> Widths:
    """Widths that a header tells, each the largest of all layers."""

    def largest(suffix: str) -> int:
        key = f"{header.value('general.architecture')}.{suffix}"
        value = header.value(key) if key in header.keys else 0
        values = value if isinstance(value, tuple) else (value,)
        return max((each for each in values if isinstance(each, int)), default=0)

    embeddings = next((t for t in header.tensors if t.name == _EMBEDDINGS), None)
    tokens = header.keys.get("tokenizer.ggml.tokens")
    return Widths(
        vocabulary=embeddings.shape[-1] if embeddings else tokens.count if tokens else 0,
        embedding=largest("embedding_length"),
        feed_forward=max(
            largest("feed_forward_length"),
            largest("expert_feed_forward_length") * largest("expert_used_count"),
        ),
        heads=largest(rope_keys.HEAD_COUNT),
    )


#: Names of general.file_type (enum llama_ftype in llama.h).
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorType:
    """The tensors of one type.

    Attributes
    ----------
    type : str
        ggml's name: ``"Q4_K"``.
    tensors : int
        How many there are.
    size : int
        Bytes of them all.
    """

    type: str
    tensors: int
    size: int


def tensor_types(*shards: Header) -> tuple[TensorType, ...]:
    """Types of the tensors in every file of a model, that of most bytes first."""
    sizes: dict[str, list[int]] = {}
    for tensor in (tensor for shard in shards for tensor in shard.tensors):
        sizes.setdefault(tensor.type, []).append(tensor.size)
    found = (TensorType(name, len(each), sum(each)) for name, each in sizes.items())
    return tuple(sorted(found, key=lambda each: -each.size))


def quantization(*shards: Header) -> str | None:
    """Name of the mix of types that a model was quantized to, ``"Q4_K_M"`` for example.

    That of general.file_type; where the file does not say, or no version of llama.cpp known here
    has such a number, the type of most bytes. None without tensors.

    Parameters
    ----------
    *shards : Header
        Of every file of the model.
    """
    types = tensor_types(*shards)
    if not types:
        return None
    entry = shards[0].keys.get("general.file_type")
    number = None
    if entry is not None and entry.type is ValueType.UINT32:
        number = shards[0].integer(entry.key)
    return _FILE_TYPES.get(-1 if number is None else number, types[0].type)
