"""What an edit changes in a file, of a plan or of keys that are set, and the patches of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ggufext.errors import EditError
from ggufext.header.frequencies import encode_factors
from ggufext.header.shards import TENSOR_COUNT_KEY
from ggufext.opened import restoration
from ggufext.opened.model import extension_keys
from ggufext.opened.patch import (
    HISTORY_KEY,
    OWN_KEYS,
    changed_entries,
    encode_entry,
    front_patch,
    value_patch,
    whole_patch,
)
from ggufext.opened.restoration import Made
from ggufext.opened.tensors import TensorChange, tensor_change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ggufext.opened.history import History
    from ggufext.opened.model import OpenFile
    from ggufext.opened.patch import EntryChanges, Patch
    from ggufext.planning.evidence import Evidence
    from ggufext.planning.result import Plan


@dataclass(frozen=True, slots=True)
class Changes:
    """Entries and tensors to change in a file.

    Attributes
    ----------
    model : OpenFile
    entries : EntryChanges
    tensors : TensorChange
    made : Made
        What the file holds of ours afterwards, for the record.
    """

    model: OpenFile
    entries: EntryChanges
    tensors: TensorChange
    made: Made

    @property
    def are_in_the_file(self) -> bool:
        """Whether the file already holds everything."""
        same = (self.model.entry(key) == entry for key, entry in self.entries.items())
        return self.tensors.is_empty and all(same)

    def record(self) -> History:
        """The undo record, always back to the original file."""
        model = self.model
        entries = changed_entries(model.header, model.header_bytes, self._with(None))
        return restoration.record_of(
            model.original,
            entries.front | entries.behind,
            self.tensors.infos.encoded,
            made=self.made,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            tensors=self.tensors.originals,
            # Offsets count from the start of the data, which an edit moves as a whole.
            data=lambda t: model.read(model.header.data_offset + t.offset, t.size),
        )

    def _with(self, record: History | None) -> EntryChanges:
        return {**self.entries, HISTORY_KEY: record.entry() if record else None}

    def growing(self, record: History | None, block: int) -> Patch:
        """Patch with a filler and, where kept, the undo record; grows in blocks if it must."""
        header, content = self.model.header, self.model.header_bytes
        changes, step = self._with(record), max(block, header.alignment)
        if self.tensors.infos_change:
            infos = self.tensors.infos
            patch = whole_patch(header, content, changes=changes, infos=infos, step=step)
        else:
            patch = front_patch(header, content, changes=changes, step=step)
        return self.tensors.with_data(patch)

    def compact(self) -> Patch:
        """Patch that leaves no trace of this program in the file."""
        patch = whole_patch(
            self.model.header,
            self.model.header_bytes,
            changes=self._with(None),
            infos=self.tensors.infos,
            step=None,
        )
        return self.tensors.with_data(patch)

    def without_record(self) -> Patch | None:
        """Patch that moves nothing and leaves no record in the file; None where that is not enough.

        With a filler or a record there is room to take; else values change where they stand.
        """
        header = self.model.header
        if any(key in header.keys for key in OWN_KEYS):
            patch = self.growing(None, header.alignment)
            return None if patch.growth else patch
        if self.tensors.infos_change:
            return None
        of_values = value_patch(header, self.model.header_bytes, self.entries)
        return None if of_values is None else self.tensors.with_data(of_values)


def changes_of_keys(model: OpenFile, entries: EntryChanges) -> Changes:
    """What changes these entries and nothing else; an extension stays as it is."""
    record = model.history
    touched = {name for name, _ in record.tensors} if record else set()
    kept = {
        tensor.name: model.read(model.header.data_offset + tensor.offset, tensor.size)
        for tensor in (model.header.tensors if touched else ())
        if tensor.name in touched
    }
    made = Made()
    if record is not None:
        made = Made(record.method, record.target_length, record.evidence, record.set_before)
    return Changes(model, entries, _tensors(model, kept), made)


def changes_of_plan(model: OpenFile, plan: Plan, evidence: Evidence | None) -> Changes:
    """What turns the file as it is into the original, with the keys that were set, with a plan.

    Parameters
    ----------
    evidence : Evidence or None
        What was measured of the plan, for the record.

    Raises
    ------
    EditError
        ``tensors_not_supported``, ``not_first_shard``.
    """
    if plan.tensor_edits:
        _check_parts(model, plan)
    tensors = _tensors(
        model,
        dict(model.copied.tensors if model.copied else ())
        | {edit.name: encode_factors(edit.after) for edit in plan.tensor_edits},
    )
    planned = {e.key: encode_entry(e.key, e.type, e.after) for e in plan.edits}
    planned |= _counted(model, tensors)
    # Keys of an earlier extension that this plan does not touch go back to what was before it.
    changes = {**dict(model.earlier_keys), **planned}
    entries = {key: entry for key, entry in changes.items() if key not in OWN_KEYS}
    written = extension_keys(model.header)
    by_hand = tuple((key, raw) for key, raw in model.set_entries.items() if key in written)
    made = Made(plan.method.value, plan.target_length, evidence, by_hand)
    return Changes(model, entries, tensors, made)


def changes_without_extension(model: OpenFile) -> Changes:
    """What takes an extension back and leaves the keys that were set."""
    entries = {key: entry for key, entry in model.earlier_keys if key not in OWN_KEYS}
    return Changes(model, entries, _tensors(model, {}), Made(None))


def _tensors(model: OpenFile, wanted: Mapping[str, bytes]) -> TensorChange:
    original = model.original_header
    return tensor_change(
        model.header,
        model.header_bytes,
        model.read,
        wanted=wanted,
        originals=model.history.tensors if model.history else (),
        original_size=original.file_size - original.data_offset,
    )


def _check_parts(model: OpenFile, plan: Plan) -> None:
    """Refuse tensors that the first part of a split model, the only one edited, cannot get."""
    later = model.later_shards
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
    if later and not model.original_header.tensor_count:
        raise EditError(
            code="tensors_not_supported",
            path=model.path,
            message=f"is the first part of a split model and holds no tensors, so none can be "
            f"appended; {merge}",
        )


def _counted(model: OpenFile, tensors: TensorChange) -> dict[str, bytes]:
    """The number of tensors that a split model declares in its first part."""
    original = model.original_header
    entry = original.keys.get(TENSOR_COUNT_KEY)
    more = tensors.infos.count - original.tensor_count
    if entry is None or not more:
        return {}
    total = original.value(TENSOR_COUNT_KEY)
    assert isinstance(total, int)
    return {TENSOR_COUNT_KEY: encode_entry(TENSOR_COUNT_KEY, entry.type, total + more)}
