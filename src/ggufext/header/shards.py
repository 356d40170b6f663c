"""Models in several files: NAME-00001-of-0000N.gguf, as llama.cpp's gguf-split writes them.

The first file holds the metadata, and tensors lie in all of them. llama.cpp finds the others by
the name of the first (llama_split_path) and refuses a set that does not fit together
(llama-model-loader.cpp).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ggufext.errors import HeaderError
from ggufext.header.header import ValueType, read_header

if TYPE_CHECKING:
    from ggufext.header.header import Header

NUMBER_KEY = "split.no"
COUNT_KEY = "split.count"
TENSOR_COUNT_KEY = "split.tensors.count"


class ShardName(NamedTuple):
    """The parts of a shard's file name.

    Attributes
    ----------
    prefix : str
    number : int
        From 1 on; the key in the file counts from 0 on.
    total : int
        Of parts.
    """

    prefix: str
    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.prefix}-{self.number:05d}-of-{self.total:05d}.gguf"

    def numbered(self, number: int) -> ShardName:
        """The name of another part of the same set."""
        return ShardName(self.prefix, number, self.total)


def shard_name(name: str) -> ShardName | None:
    """The parts of a file name of the form that llama.cpp asks of shards, else None."""
    found = re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.gguf", name)
    return ShardName(found[1], int(found[2]), int(found[3])) if found else None


def first_shard(path: Path | str) -> Path:
    """The file that holds a model's metadata: `path`, or the first part where it is a later one.

    Raises
    ------
    HeaderError
        A file whose name says that it is a later part cannot be read.
    """
    path = Path(path)
    name = shard_name(path.name)
    if name is None or name.number <= 1 or not path.is_file():
        return path
    number = read_header(path).integer(NUMBER_KEY, value_type=ValueType.UINT16)
    return path.with_name(str(name.numbered(1))) if number else path


def later_shards(header: Header) -> tuple[Header, ...]:
    """Headers of the other parts of a split model; none for a model in one file.

    The parts are checked as llama.cpp does and beyond: every one is there and complete, is the
    part that its name says, and together they hold the tensors that the first part counts.

    Parameters
    ----------
    header : Header
        Of the first part, read from a path.

    Raises
    ------
    HeaderError
        ``shard_missing``, ``shard_mismatch``, ``duplicate_tensor``, ``wrong_type``,
        ``missing_key``, and every fault of another part's header.
    """
    count = header.integer(COUNT_KEY, value_type=ValueType.UINT16) or 0
    # A merged model keeps the key with 0 parts.
    if count < 2 or header.path is None:
        return ()
    name = shard_name(header.path.name)
    if name is None or (name.number, name.total) != (1, count):
        prefix = name.prefix if name else header.path.stem
        raise _mismatch(
            header,
            COUNT_KEY,
            f"says {count} parts, and llama.cpp finds them by the name of the first: expected "
            f"{ShardName(prefix, 1, count)}; give all parts the names that they had",
        )
    paths = [header.path.with_name(str(name.numbered(i))) for i in range(2, count + 1)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        raise HeaderError(
            code="shard_missing",
            field=COUNT_KEY,
            path=header.path,
            message=f"the model has {count} parts; {len(missing)} of them not found beside this "
            f"one: {shown}; get them, and put all parts into one folder",
        )
    parts = tuple(read_header(path) for path in paths)
    for number, part in enumerate((header, *parts)):
        _check_part(part, number, count)
    _check_tensors(header, parts)
    return parts


def _check_part(part: Header, number: int, count: int) -> None:
    """Whether a file says of itself what its name says."""
    for key, expected in ((NUMBER_KEY, number), (COUNT_KEY, count)):
        found = _required(part, key, ValueType.UINT16)
        if found != expected:
            raise _mismatch(
                part,
                key,
                f"is {found}, expected {expected} by the file's name: the file belongs to another "
                "set or was renamed; get the set again",
            )


def _check_tensors(first: Header, parts: tuple[Header, ...]) -> None:
    expected = _required(first, TENSOR_COUNT_KEY, ValueType.INT32)
    found = first.tensor_count + sum(part.tensor_count for part in parts)
    if found != expected:
        raise _mismatch(
            first,
            TENSOR_COUNT_KEY,
            f"is {expected:,}, but the {len(parts) + 1} parts hold {found:,} tensors: a part is "
            "of another model or another version; get the set again",
        )
    seen: dict[str, Header] = {}
    for part in (first, *parts):
        for tensor in part.tensors:
            if tensor.name in seen:
                raise HeaderError(
                    code="duplicate_tensor",
                    field=tensor.name,
                    path=part.path,
                    message=f"is in {seen[tensor.name].path} too; get the set again",
                )
            seen[tensor.name] = part


def _required(part: Header, key: str, value_type: ValueType) -> int:
    value = part.integer(key, value_type=value_type)
    if value is None:
        raise HeaderError(
            code="missing_key",
            field=key,
            path=part.path,
            message="is not in the file; llama.cpp needs it in every part of a split model; get "
            "the set again, or split the model with llama.cpp's gguf-split",
        )
    return value


def _mismatch(part: Header, key: str, message: str) -> HeaderError:
    return HeaderError(
        code="shard_mismatch",
        field=key,
        offset=part.keys[key].start,
        path=part.path,
        message=message,
    )
