"""Write GGUF files with random, really quantized weights that llama.cpp loads and runs.

Usage: ``python tests/builders/random_model.py OUT.gguf --architecture llama --type Q4_0``
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, GGUFWriter
from gguf.quants import quantize

from random_architectures import ARCHITECTURES, Architecture, Geometry, Role, Tensor
from tiny_architectures import TINY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Typed:
    """A metadata value with a GGUF type other than the usual one."""

    value: Scalar | Sequence[Scalar]
    type: GGUFValueType
    element_type: GGUFValueType | None = None


#: A value of metadata: u32, f32, bool, string or array of them by its Python type; None leaves
#: the key out.
MetadataValue = Scalar | Sequence[Scalar] | Typed | None

#: Number in `general.file_type` of files whose matrices have one type.
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32}

#: Widths for large files: from this many bytes on.
WIDTHS = (
    (0, Geometry(1, embedding=512, heads=8, kv_heads=4, head_dim=64, feed_forward=1536)),
    (512 << 20, Geometry(1, embedding=2048, heads=16, kv_heads=4, head_dim=128, feed_forward=8192)),
    (2 << 30, Geometry(1, embedding=4096, heads=32, kv_heads=8, head_dim=128, feed_forward=14336)),
    (8 << 30, Geometry(1, embedding=5120, heads=40, kv_heads=8, head_dim=128, feed_forward=17408)),
)

#: Random values quantized once and used again at random places.
SMALLEST_POOL, LARGEST_POOL = 1 << 16, 1 << 22

#: Scores of attention get a standard deviation of 2: peaked enough to depend on positions.
ATTENTION_GAIN = 2**0.5

#: Merges per token in the vocabularies of the 128k-token models: 280,147 for 128,256.
MERGES_PER_TOKEN = 2.19

#: Longest token in characters; gives the 7.8 MB of a real header with 128k tokens.
LONGEST_TOKEN = 10

CONTROL_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>")


def write_random_model(
    path: Path,
    architecture: str | Architecture = "llama",
    *,
    layers: int | None = None,
    type: str = "Q8_0",  # noqa: A002 (the name of the option and of the field in GGUF)
    size: int | None = None,
    vocabulary: int | None = None,
    context: int = 2048,
    seed: int = 0,
    metadata: Mapping[str, MetadataValue] | None = None,
    trailing_metadata: Mapping[str, MetadataValue] | None = None,
    tensors: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> Path:
    """Write a model with random weights.

    Parameters
    ----------
    path : Path
        File to write; replaced when it exists.
    architecture : str or Architecture
        A name of `random_architectures.ARCHITECTURES` or `tiny_architectures.TINY`.
    layers : int, optional
        Blocks; by default the smallest number that shows every kind of layer.
    type : str
        Type of the matrices, a key of `FILE_TYPES`; vectors are F32.
    size : int, optional
        Wanted size of the tensors in bytes; chooses width and layers, met within half a layer.
    vocabulary : int, optional
        Tokens, ≥ 259; as the architecture's table says by default.
    context : int
        Training length, tokens.
    seed : int
        The same arguments give the same bytes; weights depend on seed, sizes and type only.
    metadata : mapping, optional
        Keys to replace in place, to add behind the model's own, or (None) to leave out.
    trailing_metadata : mapping, optional
        Keys to write behind the tokenizer.
    tensors : mapping, optional
        Further F32 tensors, last in the file (``rope_freqs.weight`` …).

    Returns
    -------
    Path
        `path`.
    """
    entry = _entry(architecture)
    vocabulary = vocabulary or entry.geometry.vocabulary
    geometry = geometry_for(entry, type=type, size=size, layers=layers, vocabulary=vocabulary)
    geometry = replace(geometry, context=context)
    keys = _metadata(entry, geometry, type, seed, metadata or {})
    plan = [
        (name, tensor, _type_of(tensor, type)) for name, tensor in _expand(entry.tensors, geometry)
    ]
    extra = {name: np.ascontiguousarray(t, dtype=np.float32) for name, t in (tensors or {}).items()}
    writer = GGUFWriter(path, entry.name)
    # The writer has put the architecture in by itself; `metadata` may change it or leave it out.
    writer.kv_data[0].clear()
    for key, value in (*keys.items(), *(trailing_metadata or {}).items()):
        _add(writer, key, value)
    for name, tensor, raw in plan:
        shape = _shape(tensor, geometry)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), _bytes(shape, raw), raw)
    for name, values in extra.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    weights = _Weights(seed=seed, geometry=geometry)
    with path.open("ab") as file:
        for name, tensor, raw in plan:
            _pad(file, writer.data_alignment)
            for chunk in weights.chunks(name, tensor, raw):
                file.write(chunk)
        for values in extra.values():
            _pad(file, writer.data_alignment)
            file.write(values.data)
        _pad(file, writer.data_alignment)
    return path


def _entry(architecture: str | Architecture) -> Architecture:
    if isinstance(architecture, Architecture):
        return architecture
    if architecture in ARCHITECTURES:
        return ARCHITECTURES[architecture]
    return TINY[architecture]


def geometry_for(
    architecture: Architecture,
    *,
    type: str,  # noqa: A002
    size: int | None,
    layers: int | None,
    vocabulary: int,
) -> Geometry:
    """Sizes of the model: small by default, or wide and deep enough for `size` bytes of tensors."""
    if size is None:
        geometry = replace(architecture.geometry, vocabulary=vocabulary)
        return replace(geometry, layers=layers) if layers else geometry
    widths = next(widths for limit, widths in reversed(WIDTHS) if size >= limit)
    one = replace(widths, layers=1, vocabulary=vocabulary)
    per_layer, fixed = _tensor_bytes(architecture, one, type)
    return replace(one, layers=layers or max(1, round((size - fixed) / per_layer)))


def _tensor_bytes(architecture: Architecture, geometry: Geometry, type_: str) -> tuple[int, int]:
    """Bytes of one layer, and of what stands outside the layers."""
    totals = {True: 0, False: 0}
    for tensor in architecture.tensors:
        raw = _type_of(tensor, type_)
        totals[tensor.per_layer] += _bytes(_shape(tensor, geometry), raw)
    return totals[True], totals[False]


def _type_of(tensor: Tensor, type_: str) -> GGMLQuantizationType:
    return GGMLQuantizationType["F32" if tensor.always_f32 else type_]


def _shape(tensor: Tensor, geometry: Geometry) -> tuple[int, ...]:
    """Extents in NumPy's order: the row length last."""
    return tuple(geometry.size(dimension) for dimension in reversed(tensor.shape))


def _bytes(shape: tuple[int, ...], raw: GGMLQuantizationType) -> int:
    block, block_bytes = GGML_QUANT_SIZES[raw]
    if shape[-1] % block:
        raise ValueError(
            f"rows of {shape[-1]} values do not fit the blocks of {block} of {raw.name}"
        )
    return math.prod(shape) // int(block) * int(block_bytes)


def _expand(tensors: Sequence[Tensor], geometry: Geometry) -> Iterator[tuple[str, Tensor]]:
    """Names in file order: the table's order, with all blocks where the first block's tensor is."""
    per_layer = [tensor for tensor in tensors if tensor.per_layer]
    for tensor in tensors:
        if not tensor.per_layer:
            yield tensor.name, tensor
        elif tensor is per_layer[0]:
            for layer in range(geometry.layers):
                yield from ((each.name.format(layer=layer), each) for each in per_layer)


def _metadata(
    entry: Architecture,
    geometry: Geometry,
    type_: str,
    seed: int,
    changes: Mapping[str, MetadataValue],
) -> dict[str, MetadataValue]:
    """Keys in the order of real files: general, model, (changes), tokenizer, quantization."""
    keys: dict[str, MetadataValue] = {
        "general.architecture": entry.name,
        "general.type": "model",
        "general.name": "random weights",  # llama.cpp looks for some names (phi3, jina)
    }
    for key in entry.keys:
        value = key.value
        if isinstance(value, str) and hasattr(geometry, value):
            value = geometry.size(value)  # type: ignore[arg-type]  # hasattr says it is a Dimension
        name = key.full_name(entry.name)
        keys[name] = value if key.type is None else Typed(value, key.type)
    tokenizer = _tokenizer(entry, geometry, seed)
    keys |= {key: value for key, value in changes.items() if key not in tokenizer}
    keys |= tokenizer | {key: value for key, value in changes.items() if key in tokenizer}
    keys.setdefault("general.quantization_version", 2)
    keys.setdefault("general.file_type", FILE_TYPES[type_])
    return keys


def _tokenizer(entry: Architecture, geometry: Geometry, seed: int) -> dict[str, MetadataValue]:
    vocabulary = random_vocabulary(geometry.vocabulary, seed=seed)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": entry.pre_tokenizer,
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.token_type": Typed(
            vocabulary.types, GGUFValueType.ARRAY, GGUFValueType.INT32
        ),
        "tokenizer.ggml.merges": vocabulary.merges,
        "tokenizer.ggml.bos_token_id": vocabulary.begin,
        "tokenizer.ggml.eos_token_id": vocabulary.end,
        "tokenizer.ggml.add_bos_token": False,
    }


def _add(writer: GGUFWriter, key: str, value: MetadataValue) -> None:
    if value is None:
        return
    typed = value if isinstance(value, Typed) else _typed(value)
    if key == "general.alignment":
        writer.data_alignment = typed.value
    writer.add_key_value(key, typed.value, typed.type, typed.element_type)


def _typed(value: Scalar | Sequence[Scalar]) -> Typed:
    if isinstance(value, str):
        return Typed(value, GGUFValueType.STRING)
    if isinstance(value, Sequence):
        return Typed(value, GGUFValueType.ARRAY, _typed(value[0]).type)
    if isinstance(value, bool):
        return Typed(value, GGUFValueType.BOOL)
    if isinstance(value, int):
        return Typed(value, GGUFValueType.UINT32 if value >= 0 else GGUFValueType.INT32)
    return Typed(value, GGUFValueType.FLOAT32)


def _pad(file: BinaryIO, alignment: int) -> None:
    file.write(b"\0" * (-file.tell() % alignment))


class _Weights:
    """Values of tensors: one pool of random blocks per scale and type, cut at random places."""

    def __init__(self, *, seed: int, geometry: Geometry) -> None:
        self._seed = seed
        self._geometry = geometry
        self._pools: dict[tuple[float, GGMLQuantizationType], npt.NDArray[np.uint8]] = {}

    def chunks(self, name: str, tensor: Tensor, raw: GGMLQuantizationType) -> Iterator[memoryview]:
        """Bytes of the tensor `name`, in pieces."""
        shape = _shape(tensor, self._geometry)
        choice = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        if len(shape) == 1 or tensor.role is Role.DECAY:
            yield _vector(tensor.role, math.prod(shape), choice).data
            return
        pool = self._pool(_deviation(tensor.role, shape[-1]), raw)
        _, block_bytes = GGML_QUANT_SIZES[raw]
        remaining = _bytes(shape, raw)
        while remaining:
            start = int(choice.integers(len(pool) // block_bytes)) * block_bytes
            chunk = pool[start : start + remaining]
            yield chunk.data
            remaining -= len(chunk)

    def _pool(self, deviation: float, raw: GGMLQuantizationType) -> npt.NDArray[np.uint8]:
        key = (deviation, raw)
        if key not in self._pools:
            geometry = self._geometry
            largest = geometry.embedding * max(geometry.vocabulary, geometry.feed_forward)
            elements = min(max(2 * largest, SMALLEST_POOL), LARGEST_POOL) // 256 * 256
            values = np.random.default_rng(self._seed).standard_normal(elements, dtype=np.float32)
            rows = (values * np.float32(deviation)).reshape(-1, 256)
            self._pools[key] = quantize(rows, raw).reshape(-1).view(np.uint8)
        return self._pools[key]


def _deviation(role: Role, row_length: int) -> float:
    """Return the standard deviation that keeps unit values at unit size through the layers."""
    if role is Role.EMBEDDING:
        return 1.0
    gain = ATTENTION_GAIN if role is Role.ATTENTION_MATRIX else 1.0
    return float(gain / row_length**0.5)


def _vector(role: Role, length: int, choice: np.random.Generator) -> npt.NDArray[np.float32]:
    noise = choice.standard_normal(length, dtype=np.float32) * np.float32(0.1)
    if role is Role.BIAS:
        return noise
    if role is Role.DECAY:
        return -1 - noise
    if role is Role.FREQUENCY_FACTORS:
        # As gemma4 has them, which alone must: the slow three quarters of the pairs switched off.
        return np.where(np.arange(length) < length // 4, 1.0, 1e30).astype(np.float32)
    return noise + np.float32(ATTENTION_GAIN if role is Role.ATTENTION_NORM else 1.0)


class TokenType(IntEnum):
    """Types of tokens, as numbered by llama.cpp."""

    NORMAL = 1
    CONTROL = 3


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens, their types and the merges that build them; the last two are begin and end."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    begin: int
    end: int


def byte_tokens() -> tuple[str, ...]:
    """Printable characters that stand for the 256 bytes, in the order of GPT-2's vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return tuple(chr(code) for code in (*printable, *range(0x100, 0x100 + 256 - len(printable))))


def random_vocabulary(size: int, *, seed: int = 0) -> Vocabulary:
    """Build a vocabulary of `size` tokens, each longer token the merge of two earlier ones.

    Parameters
    ----------
    size : int
        Tokens, ≥ 259: the bytes, one merged token and two control tokens.
    seed : int
        The same seed gives the same vocabulary.
    """
    if size < 256 + 1 + len(CONTROL_TOKENS):
        raise ValueError(f"vocabulary of {size} tokens; at least 259 are needed")
    choice = random.Random(seed)
    tokens = list(byte_tokens())
    known = set(tokens)
    merges: dict[str, None] = {}
    while len(tokens) < size - len(CONTROL_TOKENS):
        # The cube favours early, short tokens, as training does.
        left, right = (tokens[int(len(tokens) * choice.random() ** 3)] for _ in range(2))
        if len(left) + len(right) <= LONGEST_TOKEN and left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
            merges[f"{left} {right}"] = None
    # Other splits of the same tokens: real lists hold several ways to build one token.
    wanted = int(MERGES_PER_TOKEN * len(merges))
    splits = (
        f"{token[:cut]} {token[cut:]}"
        for cut in range(1, LONGEST_TOKEN)
        for token in tokens[256:]
        if cut < len(token)
    )
    while len(merges) < wanted and (split := next(splits, None)) is not None:
        merges[split] = None
    return Vocabulary(
        tokens=(*tokens, *CONTROL_TOKENS),
        types=(TokenType.NORMAL,) * len(tokens) + (TokenType.CONTROL,) * len(CONTROL_TOKENS),
        merges=tuple(merges),
        begin=len(tokens),
        end=len(tokens) + 1,
    )


def parse_size(text: str) -> int:
    """Bytes from ``4G``, ``512M`` or plain digits; the units are powers of 1024."""
    units = {"K": 10, "M": 20, "G": 30}
    shift = units.get(text[-1:].upper())
    return int(text) if shift is None else int(float(text[:-1]) * (1 << shift))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a GGUF file with random weights.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--architecture", choices=sorted({*ARCHITECTURES, *TINY}), default="llama")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--type", choices=sorted(FILE_TYPES), default="Q8_0")
    parser.add_argument("--size", type=parse_size, help="bytes of tensors: 512M, 4G …")
    parser.add_argument("--vocabulary", type=int, help="tokens, by default 512 or fewer")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args(arguments))
    path = write_random_model(options.pop("path"), options.pop("architecture"), **options)
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
