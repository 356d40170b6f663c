"""An extension of ours in a file that another tool copied: its record tells what was before.

Tools that write a model anew (gguf-new-metadata, llama-quantize, editors) copy unknown keys, so
the record comes along and fits no more: undo is refused, but what the record replaced is still
known. Of that only the keys that plans write are believed, and factor tensors that are in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.editing.patch import PADDING_KEY, tensor_infos, whole_patch
from ggufext.errors import GgufextError
from ggufext.header.factors import MOST_PAIRS, factor_tensors
from ggufext.header.model import model_facts
from ggufext.header.reading import parse_header

if TYPE_CHECKING:
    from ggufext.editing.history import History
    from ggufext.header.header import Header

#: Longest factor tensor taken for real, bytes: 32-bit numbers.
_LONGEST_TENSOR = 4 * MOST_PAIRS


@dataclass(frozen=True, slots=True)
class Copied:
    """What an extension replaced in the file that this one was copied from.

    Attributes
    ----------
    original : Header
        The header with the replaced keys put back, and every tensor of the file.
    keys : tuple of (str, bytes or None)
        Those keys, as entries; None for a key that the extension added.
    tensors : tuple of (str, bytes)
        Factor tensors that it overwrote, as they were before.
    added : tuple of str
        Factor tensors that it added, which stay in the file.
    method, target_length
        As the record says.
    """

    original: Header
    keys: tuple[tuple[str, bytes | None], ...]
    tensors: tuple[tuple[str, bytes], ...]
    added: tuple[str, ...]
    method: str
    target_length: int


def copied_extension(header: Header, header_bytes: bytes, record: History) -> Copied | None:
    """The extension that a record of another file tells of.

    Parameters
    ----------
    header, header_bytes : Header, bytes
        Of the file as it is, and its first data_offset bytes.
    record : History
        One that does not fit the file.

    Returns
    -------
    Copied or None
        None where the file holds nothing of it any more, or the record makes no sense.
    """
    try:
        now = model_facts(header)
        written = {key for key, _ in now.metadata}
        keys = tuple((key, raw) for key, raw in record.original if key in written)
        original = _with_keys(header, header_bytes, dict(keys))
        before = model_facts(original)
    except (GgufextError, ValueError):
        return None
    sizes = {tensor.name: tensor.size for tensor in factor_tensors(header)}
    tensors = tuple(
        (name, raw)
        for name, raw in record.tensors
        if raw is not None and sizes.get(name) == len(raw) <= _LONGEST_TENSOR
    )
    added = tuple(name for name, raw in record.tensors if raw is None and name in sizes)
    if before.metadata == now.metadata and not tensors and not added:
        return None
    return Copied(original, keys, tensors, added, record.method, record.target_length)


def _with_keys(header: Header, header_bytes: bytes, keys: dict[str, bytes | None]) -> Header:
    """The header with other entries of some keys.

    Raises
    ------
    HeaderError, ValueError
        An entry is none, or that of another key.
    """
    patch = whole_patch(
        header,
        header_bytes,
        replaced={key: raw for key, raw in keys.items() if key in header.keys},
        added=tuple(raw for key, raw in keys.items() if raw is not None and key not in header.keys),
        infos=tensor_infos(header, header_bytes),
        step=None,
    )
    made = parse_header(patch.applied(header_bytes), file_size=patch.size_after, path=header.path)
    gone = {PADDING_KEY, *(key for key, raw in keys.items() if raw is None)}
    if set(made.keys) != (set(header.keys) | set(keys)) - gone:
        raise ValueError("another key")
    return made
