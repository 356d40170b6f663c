"""Split a GGUF file into several, as llama.cpp's gguf-split does.

Usage: ``python tests/builders/split_model.py MODEL.gguf PREFIX --parts 3``
"""

from __future__ import annotations

import argparse
import struct
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from gguf import GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType

from ggufext.header.header import read_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.header.header import Header, TensorInfo

#: Bytes of magic, version and the two counts.
_FIXED_SIZE = 24


def split_model(
    path: Path, prefix: Path, *, parts: int, metadata_first: bool = False
) -> tuple[Path, ...]:
    """Write a model as ``PREFIX-00001-of-0000N.gguf`` and so on.

    All metadata goes into the first part, followed by the keys of the split; tensors are shared
    out in their order, the same number to each part.

    Parameters
    ----------
    path : Path
    prefix : Path
    parts : int
        At least 2, at most the number of tensors.
    metadata_first : bool
        Put no tensor into the first part (gguf-split's --no-tensor-first-split).

    Returns
    -------
    tuple of Path
        The files, in order.
    """
    header = read_header(path)
    with_tensors = parts - metadata_first
    if parts < 2 or not 1 <= with_tensors <= header.tensor_count:
        raise ValueError(f"{header.tensor_count} tensors do not make {parts} parts")
    bounds = [header.tensor_count * i // with_tensors for i in range(with_tensors + 1)]
    shares = [header.tensors[a:b] for a, b in pairwise(bounds)]
    if metadata_first:
        shares.insert(0, ())
    written = []
    for number, tensors in enumerate(shares):
        target = prefix.with_name(f"{prefix.name}-{number + 1:05d}-of-{parts:05d}.gguf")
        _write_part(path, header, target, tensors, number=number, count=parts)
        written.append(target)
    return tuple(written)


def _write_part(
    path: Path,
    header: Header,
    target: Path,
    tensors: Sequence[TensorInfo],
    *,
    number: int,
    count: int,
) -> None:
    split_keys = (
        _entry("split.no", GGUFValueType.UINT16, "<H", number),
        _entry("split.count", GGUFValueType.UINT16, "<H", count),
        _entry("split.tensors.count", GGUFValueType.INT32, "<i", header.tensor_count),
    )
    # Later parts do not carry general.alignment.
    alignment = header.alignment if number == 0 else GGUF_DEFAULT_ALIGNMENT
    with path.open("rb") as source, target.open("wb") as file:
        metadata, key_count = b"", len(split_keys)
        if number == 0:
            source.seek(_FIXED_SIZE)
            metadata = source.read(header.keys_end - _FIXED_SIZE)
            key_count += header.key_count
        file.write(struct.pack("<4sIQQ", b"GGUF", header.version, len(tensors), key_count))
        file.write(metadata + b"".join(split_keys))
        offset = 0
        for tensor in tensors:
            file.write(_info(tensor, offset))
            offset += _padded(tensor.size, alignment)
        file.write(bytes(-file.tell() % alignment))
        for tensor in tensors:
            source.seek(header.data_offset + tensor.offset)
            file.write(source.read(tensor.size))
            file.write(bytes(-tensor.size % alignment))


def _entry(key: str, kind: GGUFValueType, form: str, value: int) -> bytes:
    return _string(key) + struct.pack("<I", kind) + struct.pack(form, value)


def _info(tensor: TensorInfo, offset: int) -> bytes:
    dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    number = GGMLQuantizationType[tensor.type.upper()]
    return _string(tensor.name) + dimensions + struct.pack("<IQ", number, offset)


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Split a GGUF file as gguf-split does.")
    parser.add_argument("path", type=Path)
    parser.add_argument("prefix", type=Path, help="the parts are PREFIX-00001-of-0000N.gguf …")
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument(
        "--metadata-first", action="store_true", help="put no tensor into the first part"
    )
    options = vars(parser.parse_args(arguments))
    for target in split_model(options.pop("path"), options.pop("prefix"), **options):
        print(f"{target}: {target.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
