"""What a file of each architecture holds: metadata keys and tensors, as tables without code.

A new architecture is a new `Architecture` entry; `random_model` writes whatever stands here.
Sources: the loaders of llama.cpp (src/models/*.cpp), real files for the order of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal

from gguf import GGUFValueType

if TYPE_CHECKING:
    from collections.abc import Sequence

U32, F32, STRING = GGUFValueType.UINT32, GGUFValueType.FLOAT32, GGUFValueType.STRING

Dimension = Literal[
    "layers",
    "embedding",
    "heads",
    "kv_heads",
    "head_dim",
    "feed_forward",
    "vocabulary",
    "context",
    "q_width",
    "kv_width",
    "gate_and_up",
]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a model; rows must be multiples of a quantization block (32)."""

    layers: int
    embedding: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int = 512
    context: int = 2048

    @property
    def q_width(self) -> int:
        """Values of all query heads of a token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Values of all key (or value) heads of a token."""
        return self.kv_heads * self.head_dim

    @property
    def gate_and_up(self) -> int:
        """Values of the two halves of a gated feed-forward layer in one matrix."""
        return 2 * self.feed_forward

    def size(self, dimension: Dimension | int) -> int:
        """Look a dimension up by its name; a number stands for itself."""
        value = dimension if isinstance(dimension, int) else getattr(self, dimension)
        assert isinstance(value, int)
        return value


class Role(Enum):
    """What a tensor's random values must look like for logits that depend on the context."""

    EMBEDDING = "embedding"
    MATRIX = "matrix"
    ATTENTION_MATRIX = "attention matrix"
    NORM = "norm"
    ATTENTION_NORM = "attention norm"
    BIAS = "bias"
    DECAY = "decay"
    FREQUENCY_FACTORS = "frequency factors"


@dataclass(frozen=True, slots=True)
class Key:
    """One metadata key: a constant or a dimension.

    Attributes
    ----------
    name : str
        Without the architecture's prefix; a leading dot marks a name that takes none.
    type : GGUFValueType or None
        None: the usual type of such a value.
    value : scalar, sequence or Dimension
    """

    name: str
    type: GGUFValueType | None
    value: float | str | Dimension | Sequence[bool] | Sequence[int]

    def full_name(self, architecture: str) -> str:
        """The key as it stands in a file."""
        return self.name[1:] if self.name.startswith(".") else f"{architecture}.{self.name}"


#: Parts of the names of matrices that stay F32 in quantized files.
NEVER_QUANTIZED = (
    "_norm.weight",
    ".bias",
    "ffn_gate_inp",
    "conv",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_a",
    "ssm_d",
)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor, or one per layer where the name contains ``{layer}``; ggml order of the shape."""

    name: str
    shape: tuple[Dimension | int, ...]
    role: Role

    @property
    def per_layer(self) -> bool:
        """Whether every layer has one."""
        return "{layer}" in self.name

    @property
    def always_f32(self) -> bool:
        """Whether no quantization touches it: vectors, and what llama-quantize leaves out."""
        return len(self.shape) == 1 or any(part in self.name for part in NEVER_QUANTIZED)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture: defaults, keys and tensors in file order, name of its pre-tokenizer."""

    name: str
    geometry: Geometry
    keys: tuple[Key, ...]
    tensors: tuple[Tensor, ...]
    pre_tokenizer: str


SMALL = Geometry(layers=2, embedding=128, heads=4, kv_heads=2, head_dim=32, feed_forward=256)

GEOMETRY_KEYS = (
    Key("block_count", U32, "layers"),
    Key("context_length", U32, "context"),
    Key("embedding_length", U32, "embedding"),
    Key("feed_forward_length", U32, "feed_forward"),
    Key("attention.head_count", U32, "heads"),
    Key("attention.head_count_kv", U32, "kv_heads"),
)
HEAD_DIM_KEYS = (
    Key("attention.key_length", U32, "head_dim"),
    Key("attention.value_length", U32, "head_dim"),
)

EMBEDDING = Tensor("token_embd.weight", ("embedding", "vocabulary"), Role.EMBEDDING)
# gemma3 multiplies the embedding by √width and uses it as the output matrix too.
TIED_EMBEDDING = replace(EMBEDDING, role=Role.MATRIX)
OUTPUT_NORM = Tensor("output_norm.weight", ("embedding",), Role.NORM)
OUTPUT = Tensor("output.weight", ("embedding", "vocabulary"), Role.MATRIX)

ATTENTION = (
    Tensor("blk.{layer}.attn_norm.weight", ("embedding",), Role.NORM),
    Tensor("blk.{layer}.attn_q.weight", ("embedding", "q_width"), Role.ATTENTION_MATRIX),
    Tensor("blk.{layer}.attn_k.weight", ("embedding", "kv_width"), Role.ATTENTION_MATRIX),
    Tensor("blk.{layer}.attn_v.weight", ("embedding", "kv_width"), Role.MATRIX),
    Tensor("blk.{layer}.attn_output.weight", ("q_width", "embedding"), Role.MATRIX),
)
ATTENTION_BIASES = (
    Tensor("blk.{layer}.attn_q.bias", ("q_width",), Role.BIAS),
    Tensor("blk.{layer}.attn_k.bias", ("kv_width",), Role.BIAS),
    Tensor("blk.{layer}.attn_v.bias", ("kv_width",), Role.BIAS),
)
HEAD_NORMS = (
    Tensor("blk.{layer}.attn_q_norm.weight", ("head_dim",), Role.ATTENTION_NORM),
    Tensor("blk.{layer}.attn_k_norm.weight", ("head_dim",), Role.ATTENTION_NORM),
)
FEED_FORWARD = (
    Tensor("blk.{layer}.ffn_norm.weight", ("embedding",), Role.NORM),
    Tensor("blk.{layer}.ffn_gate.weight", ("embedding", "feed_forward"), Role.MATRIX),
    Tensor("blk.{layer}.ffn_up.weight", ("embedding", "feed_forward"), Role.MATRIX),
    Tensor("blk.{layer}.ffn_down.weight", ("feed_forward", "embedding"), Role.MATRIX),
)
POST_NORMS = (
    Tensor("blk.{layer}.post_attention_norm.weight", ("embedding",), Role.NORM),
    Tensor("blk.{layer}.post_ffw_norm.weight", ("embedding",), Role.NORM),
)

LLAMA = Architecture(
    name="llama",
    geometry=SMALL,
    keys=(
        *GEOMETRY_KEYS,
        Key("rope.freq_base", F32, 10_000.0),
        Key("attention.layer_norm_rms_epsilon", F32, 1e-5),
        Key("rope.dimension_count", U32, "head_dim"),
    ),
    tensors=(EMBEDDING, *ATTENTION, *FEED_FORWARD, OUTPUT_NORM, OUTPUT),
    pre_tokenizer="llama-bpe",
)

QWEN2 = Architecture(
    name="qwen2",
    geometry=SMALL,
    keys=(
        *GEOMETRY_KEYS,
        Key("rope.freq_base", F32, 1_000_000.0),
        Key("attention.layer_norm_rms_epsilon", F32, 1e-6),
    ),
    tensors=(EMBEDDING, *ATTENTION, *ATTENTION_BIASES, *FEED_FORWARD, OUTPUT_NORM, OUTPUT),
    pre_tokenizer="qwen2",
)

QWEN3 = Architecture(
    name="qwen3",
    # Heads wider than embedding / heads, as in the small models of the family.
    geometry=replace(SMALL, head_dim=64),
    keys=(
        *GEOMETRY_KEYS,
        Key("rope.freq_base", F32, 1_000_000.0),
        Key("attention.layer_norm_rms_epsilon", F32, 1e-6),
        *HEAD_DIM_KEYS,
    ),
    tensors=(EMBEDDING, *ATTENTION, *HEAD_NORMS, *FEED_FORWARD, OUTPUT_NORM, OUTPUT),
    pre_tokenizer="qwen2",
)

GEMMA3 = Architecture(
    name="gemma3",
    # llama.cpp's built-in pattern makes every sixth layer global: layer 5 of six.
    geometry=replace(SMALL, layers=6, head_dim=64),
    keys=(
        *GEOMETRY_KEYS,
        Key("attention.layer_norm_rms_epsilon", F32, 1e-6),
        *HEAD_DIM_KEYS,
        Key("rope.freq_base", F32, 1_000_000.0),
        Key("attention.sliding_window", U32, 16),
    ),
    tensors=(
        TIED_EMBEDDING,
        *ATTENTION,
        *HEAD_NORMS,
        *FEED_FORWARD,
        *POST_NORMS,
        OUTPUT_NORM,
    ),
    pre_tokenizer="gpt-2",
)

PHI3 = Architecture(
    name="phi3",
    # Its loader knows heads of embedding / heads only.
    geometry=SMALL,
    keys=(
        *GEOMETRY_KEYS,
        Key("rope.freq_base", F32, 10_000.0),
        Key("attention.layer_norm_rms_epsilon", F32, 1e-5),
        Key("rope.dimension_count", U32, "head_dim"),
    ),
    tensors=(
        EMBEDDING,
        *ATTENTION,
        Tensor("blk.{layer}.ffn_norm.weight", ("embedding",), Role.NORM),
        Tensor("blk.{layer}.ffn_up.weight", ("embedding", "gate_and_up"), Role.MATRIX),
        Tensor("blk.{layer}.ffn_down.weight", ("feed_forward", "embedding"), Role.MATRIX),
        OUTPUT_NORM,
        OUTPUT,
    ),
    pre_tokenizer="gpt-2",
)

ARCHITECTURES = {entry.name: entry for entry in (LLAMA, QWEN2, QWEN3, GEMMA3, PHI3)}
