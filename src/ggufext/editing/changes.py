"""From a plan to the entries and tensors that change in a file, and to the patch of each form."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ggufext.errors import EditError
from ggufext.header.factors import encode_factors
from ggufext.header.header import parse_header
from ggufext.header.shards import TENSOR_COUNT_KEY
from ggufext.opened import restoration
from ggufext.opened.patch import (
    HISTORY_KEY,
    OWN_KEYS,
    encode_entry,
    front_patch,
    value_patch,
    whole_patch,
)
from ggufext.opened.tensors import TensorChange, tensor_change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ggufext.opened.history import History
    from ggufext.opened.model import OpenModel
    from ggufext.opened.patch import Patch
    from ggufext.planning.result import Plan


@dataclass(frozen=True, slots=True)
class Changes:
    """Entries to replace, remove and add, and tensors, so that a file holds a plan.

    Attributes
    ----------
    model : OpenModel
    replaced : mapping of str to (bytes or None)
        New entries of existing keys; None for a key that goes.
    added : tuple of bytes
        New entries.
    tensors : TensorChange
    """

    model: OpenModel
    replaced: Mapping[str, bytes | None]
    added: tuple[bytes, ...]
    tensors: TensorChange

    @property
    def are_in_the_file(self) -> bool:
        """Whether the file already holds everything."""
        keys, content = self.model.header.keys, self.model.header_bytes
        return (
            not self.added
            and self.tensors.is_empty
            and all(
                entry == content[keys[key].start : keys[key].end]
                for key, entry in self.replaced.items()
            )
        )

    def record(self, plan: Plan) -> History:
        """The undo record, always back to the original file."""
        model = self.model
        patch = self.growing(None, model.header.alignment)
        edited = patch.applied(model.header_bytes)
        return restoration.record_of(
            model.original,
            model.original_bytes,
            parse_header(edited, file_size=patch.size_after, path=model.path),
            edited,
            method=plan.method.value,
            target_length=plan.target_length,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            tensors=self.tensors.originals,
            # Offsets count from the start of the data, which an edit moves as a whole.
            data=lambda t: model.read(model.header.data_offset + t.offset, t.size),
        )

    def growing(self, record: History | None, block: int) -> Patch:
        """Patch with a filler and, where kept, the undo record; grows in blocks if it must."""
        replaced, added = dict(self.replaced), self.added
        has_record = HISTORY_KEY in self.model.header.keys
        if has_record:
            replaced[HISTORY_KEY] = record.entry() if record else None
        elif record:
            added = (*added, record.entry())
        step = max(block, self.model.header.alignment)
        header, content = self.model.header, self.model.header_bytes
        if self.tensors.infos_change:
            patch = whole_patch(
                header,
                content,
                replaced=replaced,
                added=added,
                infos=self.tensors.infos,
                step=step,
            )
        else:
            patch = front_patch(header, content, replaced=replaced, added=added, step=step)
        return self.tensors.with_data(patch)

    def compact(self) -> Patch:
        """Patch that leaves no trace of this program in the file."""
        replaced = dict(self.replaced)
        if HISTORY_KEY in self.model.header.keys:
            replaced[HISTORY_KEY] = None
        patch = whole_patch(
            self.model.header,
            self.model.header_bytes,
            replaced=replaced,
            added=self.added,
            infos=self.tensors.infos,
            step=None,
        )
        return self.tensors.with_data(patch)

    def without_record(self) -> Patch | None:
        """Patch that moves nothing and leaves no record in the file; None where that is not enough.

        With a filler or a record there is room to take; else values change where they stand.
        """
        if any(key in self.model.header.keys for key in OWN_KEYS):
            patch = self.growing(None, self.model.header.alignment)
            return None if patch.growth else patch
        same = {key: entry for key, entry in self.replaced.items() if entry is not None}
        if self.added or len(same) < len(self.replaced) or self.tensors.infos_change:
            return None
        patch_of_values = value_patch(self.model.header, self.model.header_bytes, same)
        return None if patch_of_values is None else self.tensors.with_data(patch_of_values)


def changes_for(model: OpenModel, plan: Plan) -> Changes:
    """What turns the file as it is into the original with this plan."""
    tensors = _tensors(model, plan)
    planned = {e.key: encode_entry(e.key, e.type, e.after) for e in plan.edits}
    planned |= _counted(model, tensors)
    # Keys of an earlier edit that this plan does not touch go back to the original.
    earlier = dict(model.earlier_keys)
    replaced: dict[str, bytes | None] = {}
    added: list[bytes] = []
    for key, entry in {**earlier, **planned}.items():
        if key in OWN_KEYS:
            continue
        if key in model.header.keys:
            replaced[key] = entry
        elif entry is not None:
            added.append(entry)
    return Changes(model, replaced, tuple(added), tensors)


def _tensors(model: OpenModel, plan: Plan) -> TensorChange:
    original = model.original
    if plan.tensor_edits:
        _check_parts(model, plan)
    return tensor_change(
        model.header,
        model.header_bytes,
        model.read,
        wanted=dict(model.copied.tensors if model.copied else ())
        | {edit.name: encode_factors(edit.after) for edit in plan.tensor_edits},
        originals=model.history.tensors if model.history else (),
        original_size=original.file_size - original.data_offset,
    )


def _check_parts(model: OpenModel, plan: Plan) -> None:
    """Refuse tensors that the first part of a split model, the only one edited, cannot get."""
    later = model.later_shards()
    holders = {tensor.name: part for part in later for tensor in part.tensors}
    merge = "merge the parts (llama.cpp's gguf-split --merge), or choose a method without tensors"
    for edit in plan.tensor_edits:
        if edit.name in holders:
            raise EditError(
                code="not_first_shard",
                path=holders[edit.name].path,
                field=edit.name,
                message=f"lies in a later part of a split model, of which only the first is "
                f"edited; {merge}",
            )
    if later and not model.original.tensor_count:
        raise EditError(
            code="no_tensors",
            path=model.path,
            message=f"is the first part of a split model and holds no tensors, so none can be "
            f"appended; {merge}",
        )


def _counted(model: OpenModel, tensors: TensorChange) -> dict[str, bytes]:
    """The number of tensors that a split model declares in its first part."""
    entry = model.original.keys.get(TENSOR_COUNT_KEY)
    more = tensors.infos.count - model.original.tensor_count
    if entry is None or not more:
        return {}
    total = model.original.value(TENSOR_COUNT_KEY)
    assert isinstance(total, int)
    return {TENSOR_COUNT_KEY: encode_entry(TENSOR_COUNT_KEY, entry.type, total + more)}
