"""Small llama models in PyTorch, and the GGUF files that llama.cpp reads them from.

Needs PyTorch 2.13.0, gguf and numpy. Interleaved rotary pairs, SwiGLU, RMSNorm, no biases; the
parameters carry the names of GGUF tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gguf
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size of a model, and what it is trained with.

    Attributes
    ----------
    vocabulary : int
        Tokens.
    width : int
        Of the residual stream; a multiple of `heads`.
    layers, heads, feed_forward : int
        Blocks; attention heads of a block; width of SwiGLU.
    freq_base : float
        RoPE base θ, > 1.
    context_length : int
        Training length, tokens.
    tied : bool
        The output is the embedding's matrix.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    freq_base: float
    context_length: int
    tied: bool = False

    @property
    def head_dim(self) -> int:
        """Width of a head; all of it rotates."""
        return self.width // self.heads


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Tokens of a byte-level BPE, as GGUF names them.

    Attributes
    ----------
    tokens : sequence of str
        By id, in GPT-2's printable names of bytes.
    controls : frozenset of int
        Ids of tokens that no text holds.
    merges : sequence of str
        ``left right``, the first applies first; llama.cpp wants at least one.
    pre : str
        llama.cpp's name of how text is split before merges apply.
    bos, eos, unknown, pad : int or None
        Special tokens; the beginning of a text has `bos`.
    """

    tokens: Sequence[str]
    controls: frozenset[int]
    merges: Sequence[str]
    pre: str
    bos: int
    eos: int
    unknown: int | None = None
    pad: int | None = None


class Layer(nn.Module):  # type: ignore[misc]
    """One llama block: attention with interleaved rotary pairs, then SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self._shape = shape
        self.attn_norm = nn.RMSNorm(width, eps=EPSILON)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, width, bias=False)
        self.attn_v = nn.Linear(width, width, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps=EPSILON)
        self.ffn_gate = nn.Linear(width, shape.feed_forward, bias=False)
        self.ffn_up = nn.Linear(width, shape.feed_forward, bias=False)
        self.ffn_down = nn.Linear(shape.feed_forward, width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Residual stream [batch, length, width] after this block."""
        batch, length, width = x.shape
        h = self.attn_norm(x)

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, self._shape.heads, self._shape.head_dim).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            rotate(heads(self.attn_q(h)), cos, sin),
            rotate(heads(self.attn_k(h)), cos, sin),
            heads(self.attn_v(h)),
            is_causal=True,
        )
        x = x + self.attn_output(attended.transpose(1, 2).reshape(batch, length, width))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Model(nn.Module):  # type: ignore[misc]
    """The whole model, with random weights from PyTorch's generator."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, eps=EPSILON)
        if not shape.tied:
            self.output = nn.Linear(shape.width, shape.vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                # Smaller where the result is added to the residual stream, as in GPT-2.
                residual = name.endswith(("attn_output.weight", "ffn_down.weight"))
                deviation = 0.02 / math.sqrt(2 * shape.layers) if residual else 0.02
                nn.init.normal_(parameter, std=deviation)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits [batch, length, vocabulary] of token ids [batch, length]."""
        shape = self.shape
        pairs = torch.arange(0, shape.head_dim, 2) / shape.head_dim
        angles = torch.outer(torch.arange(ids.shape[1]).float(), shape.freq_base**-pairs)
        cos, sin = angles.cos(), angles.sin()
        x = self.token_embd(ids)
        for layer in self.blk:
            x = layer(x, cos, sin)
        last = self.token_embd if shape.tied else self.output
        logits: torch.Tensor = F.linear(self.output_norm(x), last.weight)
        return logits


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate interleaved pairs of [batch, heads, length, head_dim] (llama.cpp's NORM layout)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


def byte_names() -> list[str]:
    """GPT-2's printable names of the 256 bytes, in the order of the bytes."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def write_gguf(
    model: Model,
    path: Path,
    *,
    name: str,
    description: str,
    vocabulary: Vocabulary,
    kind: str = "F32",
) -> None:
    """Write a model as GGUF, in the order of keys of real converters.

    Parameters
    ----------
    model : Model
    path : Path
    name, description : str
        For the metadata; the licence is this project's.
    vocabulary : Vocabulary
    kind : str
        Type of the matrices: ``"F32"``, or ``"Q8_0"`` or ``"Q4_0"`` with embedding and output Q8_0.
    """
    shape = model.shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_description(description)
    writer.add_size_label(f"{sum(p.numel() for p in model.parameters()) / 1000:.0f}K")
    writer.add_license("MIT")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context_length)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_freq_base(shape.freq_base)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if kind == 'F32' else 'MOSTLY'}_{kind}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_vocabulary(writer, vocabulary)
    for tensor, parameter in model.named_parameters():
        values = parameter.detach().numpy().astype(np.float32)
        if values.ndim == 1 or kind == "F32":
            writer.add_tensor(tensor, values)
            continue
        alone = tensor in {"token_embd.weight", "output.weight"}
        type_ = gguf.GGMLQuantizationType["Q8_0" if alone else kind]
        rounded = values.astype(np.float16).astype(np.float32)
        writer.add_tensor(tensor, gguf.quants.quantize(rounded, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    types = [gguf.TokenType.NORMAL] * len(vocabulary.tokens)
    for token in vocabulary.controls:
        unknown = token == vocabulary.unknown
        types[token] = gguf.TokenType.UNKNOWN if unknown else gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    if vocabulary.unknown is not None:
        writer.add_unk_token_id(vocabulary.unknown)
    if vocabulary.pad is not None:
        writer.add_pad_token_id(vocabulary.pad)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
