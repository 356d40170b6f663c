"""Factor tensors of an edit: overwritten where they exist, else appended behind the data.

The last tensor of a real file may be unpadded, so what an edit appends, the tail, starts with the
padding that is missing there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ggufext.errors import EditError
from ggufext.header.frequencies import FACTOR_TENSORS
from ggufext.opened.patch import Span, TensorInfos, tensor_infos

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ggufext.header.header import Header, TensorInfo
    from ggufext.opened.history import Originals
    from ggufext.opened.patch import Patch

#: ggml's number of the type F32.
_F32 = 0

#: Largest factor tensor, and longest tail, taken for real, bytes.
LARGEST_TENSOR = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TensorChange:
    """What happens to the tensors of a file.

    Attributes
    ----------
    infos : TensorInfos
        After the change.
    infos_change : bool
    spans : tuple of Span
        Tensors overwritten where they stand.
    old_tail, new_tail : bytes
    originals : Originals
        What an undo puts back, back to the original file.
    """

    infos: TensorInfos
    infos_change: bool
    spans: tuple[Span, ...]
    old_tail: bytes
    new_tail: bytes
    originals: Originals

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.infos_change or self.spans or self.old_tail != self.new_tail)

    def with_data(self, patch: Patch) -> Patch:
        """A patch of the header that changes the tensors' data as well."""
        return replace(
            patch,
            spans=(*patch.spans, *self.spans),
            old_tail=self.old_tail,
            new_tail=self.new_tail,
        )


def tensor_change(
    header: Header,
    header_bytes: bytes,
    read: Callable[[int, int], bytes],
    *,
    wanted: Mapping[str, bytes],
    originals: Originals,
    original_size: int,
) -> TensorChange:
    """From the file as it is to the original file with other content of some tensors.

    Parameters
    ----------
    header, header_bytes : Header, bytes
        Of the file as it is, and its first data_offset bytes.
    read : callable
        Reads (offset, size) of the file.
    wanted : mapping of str to bytes
        Content of factor tensors, by name.
    originals : Originals
        Of the edit that the file carries.
    original_size : int
        Bytes of the original file's data and what follows it: its size less its data_offset.

    Raises
    ------
    EditError
        ``tensors_not_supported``: nothing can be appended.
    ValueError
        The originals do not fit the file.
    """
    appended_before = [name for name, content in originals if content is None]
    own = header.tensor_count - len(appended_before)
    tensors = header.tensors
    _check_originals(originals, tensors[:own], tensors[own:])
    start = header.data_offset + original_size
    length = header.file_size - start
    if not 0 <= length <= LARGEST_TENSOR:
        raise ValueError("size")
    data_end = max((t.offset + t.size for t in tensors[:own]), default=0)
    padding = -(header.data_offset + data_end) % header.alignment
    old_tail = read(start, length) if length else b""

    before = dict(originals)
    spans, by_name = [], {tensor.name: tensor for tensor in tensors[:own]}
    for name, tensor in by_name.items():
        original = before.get(name)
        if name not in wanted and original is None:
            continue
        place = header.data_offset + tensor.offset
        new = wanted.get(name, original)
        assert new is not None
        if len(new) != tensor.size:
            raise ValueError("tensor size")
        current = read(place, tensor.size)
        before.setdefault(name, current)
        if new != current:
            spans.append(Span(place, current, new))
    new_names = [name for name in wanted if name not in by_name]
    kept = {name: content for name, content in before.items() if content is not None}
    infos, new_tail = _kept_infos(header, header_bytes, own), b""
    if new_names:
        if not own:
            raise EditError(
                code="tensors_not_supported",
                path=header.path,
                message="holds no tensors, so none can be appended (a vocabulary only, or the "
                "first part of a split model without tensors); choose a method that needs none",
            )
        if not 0 <= data_end + padding - original_size < header.alignment:
            raise EditError(
                code="tensors_not_supported",
                path=header.path,
                message=f"{original_size - data_end - padding:,} bytes follow the last tensor, so "
                "no tensor can be appended; choose a method that needs none",
            )
        infos, new_tail = _appended(
            infos,
            {name: wanted[name] for name in new_names},
            missing=data_end + padding - original_size,
            offset=data_end + padding,
            alignment=header.alignment,
        )
    return TensorChange(
        infos=infos,
        infos_change=infos != tensor_infos(header, header_bytes),
        spans=tuple(sorted(spans, key=lambda span: span.offset)),
        old_tail=old_tail,
        new_tail=new_tail,
        originals=(*kept.items(), *((name, None) for name in new_names)),
    )


def _check_originals(
    originals: Originals, own: tuple[TensorInfo, ...], appended: tuple[TensorInfo, ...]
) -> None:
    """A record of what was touched is untrusted: it may name these tensors only."""
    expected = [name for name, content in originals if content is None]
    sizes = {tensor.name: tensor.size for tensor in own}
    if [tensor.name for tensor in appended] != expected:
        raise ValueError("appended tensors")
    for name, content in originals:
        if name not in FACTOR_TENSORS:
            raise ValueError("tensor name")
        if content is not None and sizes.get(name) != len(content):
            raise ValueError("tensor size")


def _kept_infos(header: Header, header_bytes: bytes, own: int) -> TensorInfos:
    """Descriptions of the file's own tensors: those of ours stand behind them."""
    infos = tensor_infos(header, header_bytes).encoded
    gone = sum(len(_info(t.name.encode("utf-8"), t.shape, t.offset)) for t in header.tensors[own:])
    return TensorInfos(own, infos[: len(infos) - gone])


def _appended(
    infos: TensorInfos,
    contents: Mapping[str, bytes],
    *,
    missing: int,
    offset: int,
    alignment: int,
) -> tuple[TensorInfos, bytes]:
    encoded, tail = infos.encoded, bytes(missing)
    for name, content in contents.items():
        encoded += _info(name.encode("utf-8"), (len(content) // 4,), offset)
        padded = content + bytes(-len(content) % alignment)
        tail += padded
        offset += len(padded)
    return TensorInfos(infos.count + len(contents), encoded), tail


def _info(name: bytes, shape: tuple[int, ...], offset: int) -> bytes:
    """One tensor's description: name, dimensions, type F32, offset."""
    head = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape))
    return head + struct.pack(f"<{len(shape)}QIQ", *shape, _F32, offset)
