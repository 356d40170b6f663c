"""Setting and deleting keys of a model file, by the editor that extends models."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.editing.changes import changes_of_keys
from ggufext.editing.fixed_keys import check_change, check_name
from ggufext.editing.values import KeyType, checked_value, named_type, type_of
from ggufext.editing.writing import Receipt, opened, write
from ggufext.errors import EditError, GgufextError, HeaderError, PlanError, of_system, printable
from ggufext.header import rope_keys
from ggufext.header.architectures import Support, table
from ggufext.header.difference import KeyDifference, key_difference
from ggufext.header.facts import model_facts
from ggufext.header.header import ValueType
from ggufext.header.loading import refuse_unloadable
from ggufext.opened.files import FileSystem
from ggufext.opened.patch import encode_entry
from ggufext.opened.restoration import with_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ggufext.header.header import Header
    from ggufext.opened.model import OpenFile
    from ggufext.opened.patch import EntryChanges
    from ggufext.opened.strategies import Strategy

#: Bytes of the largest text taken from a file: no header is larger.
_LARGEST_TEXT = 256 * 1024 * 1024

#: Texts that every model may have.
_TEXTS = frozenset(
    {"general.name", "general.description", "tokenizer.chat_template", "general.license"}
)


@dataclass(frozen=True, slots=True)
class KeysSet:
    """What changed in a file, key by key, and how it was written.

    Attributes
    ----------
    changes : tuple of KeyDifference
        Keys that hold something else than before; empty where they all held it already.
    receipt : Receipt
    """

    changes: tuple[KeyDifference, ...]
    receipt: Receipt


def set_keys(
    path: Path | str,
    values: Mapping[str, object],
    *,
    delete: tuple[str, ...] = (),
    output: Path | str | None = None,
    keep_history: bool = True,
    strategy: Strategy | None = None,
    follow: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    files: FileSystem | None = None,
) -> KeysSet:
    """Set and delete keys of one GGUF file, in place unless `output` names a new one.

    Parameters
    ----------
    path : Path or str
        The file, or ``ollama:NAME`` with an `output`.
    values : mapping of str to int, float, bool, str, list, tuple or Path
        By key. A key keeps the type that it has in the file; behind a colon it gets another one,
        and a new key its own: ``"my.key:u32"``, ``"my.list:str[]"`` (u8 to u64, i8 to i64, f32,
        f64, bool, str). A text is read as the type asks, JSON for arrays; a Path is a file of such
        a text.
    delete : tuple of str
        Keys to delete.
    force : bool
        Accept keys of an architecture that was not verified, a pre-tokenizer that this version does
        not know, a file in use (a new one takes its place), and an existing output.
    output, keep_history, strategy, follow, dry_run, progress, files
        See `rewrite`.

    Returns
    -------
    KeysSet

    Raises
    ------
    EditError
        ``fixed_key``, ``would_not_load``, what is wrong with a key, a type or a value, and the
        refusals of `rewrite`; nothing was changed, or the message says how to recover.
    """
    started = time.perf_counter()
    target = None if output is None else Path(output)
    with opened(
        path,
        target,
        follow=follow,
        force=force,
        writing=target is None,
        files=files or FileSystem(),
    ) as model:
        try:
            entries = _entries(model, values, delete, force=force)
            after = with_entries(model.header, model.header_bytes, entries)
            _check_loads(model, after, entries, force=force)
        except GgufextError as error:
            error.path = error.path or model.path
            raise
        differences = (key_difference(model.header, after, key) for key in entries)
        receipt = write(
            changes_of_keys(model, entries),
            output=target,
            keep_history=keep_history,
            strategy=strategy,
            force=force,
            dry_run=dry_run,
            progress=progress,
            started=started,
        )
    return KeysSet(tuple(each for each in differences if each is not None), receipt)


def _entries(
    model: OpenFile, values: Mapping[str, object], delete: tuple[str, ...], *, force: bool
) -> dict[str, bytes | None]:
    """The new entries of the keys."""
    entries: dict[str, bytes | None] = {}
    for name, given in values.items():
        key, kind = _key_and_type(model, name)
        _check_new(entries, key)
        value = checked_value(key, kind, _text_of(given) if isinstance(given, Path) else given)
        entries[key] = encode_entry(key, kind.type, value, kind.element_type)
        if entries[key] != model.entry(key):
            check_change(model, key, kind, value, force=force)
    for key in delete:
        _check_new(entries, key)
        entry = model.header.keys.get(key)
        if entry is None:
            raise EditError(
                code="missing_key", field=key, message="is not in the file: nothing to delete"
            )
        check_name(model, key)
        check_change(model, key, type_of(entry), None, force=force)
        entries[key] = None
    return entries


def _check_new(entries: EntryChanges, key: str) -> None:
    if not key:
        raise EditError(code="empty_key", message="a key without a name: expected KEY=VALUE")
    if key in entries:
        raise EditError(
            code="duplicate_key", field=key, message="is named twice: say once what it becomes"
        )


def _key_and_type(model: OpenFile, name: str) -> tuple[str, KeyType]:
    """The two parts of a name; a key that does not change is refused whatever its type."""
    key, colon, said = name.rpartition(":")
    check_name(model, key if colon else name)
    if colon:
        return key, named_type(said, key)
    header = model.header
    entry = header.keys.get(name)
    if entry is not None:
        return name, type_of(entry)
    kind = _known_type(header, name)
    if kind is None and name:
        raise EditError(
            code="missing_key",
            field=name,
            message=f"is not in the file, so its type must be said, such as "
            f"{printable(name, 120)}:u32=…, or the name is wrong",
        )
    return name, kind or KeyType(ValueType.STRING)


def _known_type(header: Header, key: str) -> KeyType | None:
    """Type that llama.cpp asks of a key, where that is known."""
    demanded = table()["loading"]
    vocabulary, name = demanded["vocabulary"], header.string("general.architecture")
    if key in _TEXTS:
        return KeyType(ValueType.STRING)
    if f".{key}" in vocabulary["types"]:
        return KeyType(ValueType[vocabulary["types"][f".{key}"]])
    if f".{key}" in vocabulary["lists"]:
        return KeyType(ValueType.ARRAY, ValueType[vocabulary["lists"][f".{key}"][0]])
    if not key.startswith(f"{name}."):
        return None
    suffix = key.removeprefix(f"{name}.")
    entry = demanded["types"] | table()["architectures"].get(name, {}).get("loading", {}).get(
        "types", {}
    )
    if suffix in rope_keys.EDITED:
        return KeyType(rope_keys.EDITED[suffix])
    return KeyType(ValueType[entry[suffix]]) if suffix in entry else None


def _text_of(path: Path) -> str:
    """The text of a file, to the last byte."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_TEXT + 1)
        if len(data) > _LARGEST_TEXT:
            raise EditError(
                code="bad_text", path=path, message="is larger than any header; name a text file"
            )
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EditError(
            code="bad_text",
            path=path,
            offset=error.start,
            message="is not UTF-8, as all texts of GGUF are; name a text file, or convert it",
        ) from error
    except OSError as error:
        raise of_system(error, path, kind=EditError) from error


def _check_loads(model: OpenFile, after: Header, entries: EntryChanges, *, force: bool) -> None:
    """Refuse keys with which llama.cpp would not load the file any more."""
    prefix = f"{after.string('general.architecture')}."
    judged = False
    try:
        facts = model_facts(after, later_shards=model.later_shards)
        refuse_unloadable(after, facts, later_shards=model.later_shards)
        judged = facts.support is Support.VERIFIED
    except PlanError:
        pass  # no language model that rotates
    except HeaderError as error:
        what = error.message.partition("; convert the model")[0]
        raise EditError(
            code=error.code,
            field=error.field,
            message=f"after this edit: {what}; nothing was written",
        ) from error
    unjudged = next((key for key in entries if key.startswith(prefix)), None)
    if unjudged is not None and not judged and not force:
        raise EditError(
            code="unverified_architecture",
            field=unjudged,
            message=f"belongs to {printable(prefix[:-1], 64)}; what llama.cpp demands of its keys "
            "was not verified; --force writes it",
        )
