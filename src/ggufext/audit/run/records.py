"""Finished work on disk: one JSON line each, so that a run can go on where it was cut off."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ggufext.errors import EngineError
from ggufext.opened.files import FileSystem, why_not_writable
from ggufext.system import system
from ggufext.text import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Trial:
    """One question that was answered: what every figure is counted from.

    Attributes
    ----------
    condition : str
    text : int
        Number of the text (prompts of one text share its filler and are not independent).
    length, depth, distance : int, float, int
        Cell: nominal length in tokens, depth bin in [0, 1], tokens between key and question.
    hit : bool or None
        Whether the first integer of the answer is the key; None where it was not measured.
    substring : bool or None
        Whether the key stands anywhere in the answer.
    """

    condition: str
    text: int
    length: int
    depth: float
    distance: int
    hit: bool | None
    substring: bool | None


#: What the name of every format of ours begins with.
_OURS = "ggufext "

#: Bytes of the line that says which run a file belongs to.
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """A trial with its answer and its cost in tokens."""

    trial: Trial
    answer: str
    evaluated: int
    naive: int


_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class RecordKind(Generic[_Record]):
    """What the lines of a file are.

    Attributes
    ----------
    format : str
        Name and version, which the first line holds.
    read : callable
        Makes a record of a line's fields; KeyError and TypeError for what is none.
    cell : callable
        What a record says, of which the last line counts; None where it was not measured and is
        tried again.
    """

    format: str
    read: Callable[[dict[str, Any]], _Record]
    cell: Callable[[_Record], Hashable | None]


class Records(Generic[_Record]):
    """Appends records to a file, each on disk before the next; without a path it only keeps them.

    Nothing that is in the file is ever written again: a torn line at its end is cut off.

    Parameters
    ----------
    path : Path or None
        Where it exists, its records count as finished.
    identity : mapping
        What a run must share with the one that it continues.
    kind : RecordKind

    Raises
    ------
    EngineError
        ``resume_mismatch``, ``records_in_use``; of `append` too: ``records_not_written``.
    """

    def __init__(
        self, path: Path | None, identity: Mapping[str, Any], kind: RecordKind[_Record]
    ) -> None:
        self.finished: list[_Record] = []
        self._path = path
        self._kind = kind
        self._descriptor: int | None = None
        if path is None:
            return
        # Compared as JSON gives it back: tuples are lists there.
        wanted = json.loads(json_text({"format": kind.format, **identity}))
        self._descriptor = system.open_for_appending(path)
        try:
            if not FileSystem().lock(self._descriptor):
                raise EngineError(
                    code="records_in_use",
                    path=path,
                    message="another run writes there; wait for it, or name another file",
                )
            self._size = self._read(path, wanted)
            if self._size == 0:
                self._write(wanted)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Records[_Record]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, path: Path, wanted: dict[str, Any]) -> int:
        """Take over what the file holds; the bytes of its whole lines."""
        with path.open("rb") as file:
            # Of something else, perhaps a model, no more than a line is read.
            head = file.readline(_LONGEST_LINE)
            if _line(wanted).startswith(head):
                if len(head) < len(_line(wanted)):
                    if head:  # not even the first line got there
                        self._cut(0)
                    return 0
            else:
                _refuse_other(path, _parsed(head), wanted)
            size = len(head)
            known: dict[Hashable, _Record] = {}
            for line in file:
                if not line.endswith(b"\n"):
                    self._cut(size)  # the last line of a run that was cut off while writing
                    break
                size += len(line)
                if fields := _parsed(line):
                    record = self._record(fields, path)
                    if (cell := self._kind.cell(record)) is not None:
                        known[cell] = record
        self.finished = list(known.values())
        return size

    def _record(self, fields: dict[str, Any], path: Path) -> _Record:
        try:
            return self._kind.read(fields)
        except (KeyError, TypeError) as error:
            raise EngineError(
                code="resume_mismatch",
                path=path,
                message=f"holds a line that is no answer ({error}); it was changed by something "
                "else: start a new file",
            ) from error

    def append(self, record: _Record) -> None:
        """Keep a record, a dataclass, and put it on disk before going on."""
        self.finished.append(record)
        if self._descriptor is not None:
            self._write(asdict(record))  # type: ignore[call-overload]

    def _write(self, fields: dict[str, Any]) -> None:
        assert self._descriptor is not None
        line = _line(fields)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):
                self._cut(self._size)
            raise EngineError(
                code="records_not_written",
                path=self._path,
                message=f"an answer cannot be written ({error.strerror}); those before it are in "
                "the file: make room, and go on with --resume",
            ) from error
        self._size += len(line)

    def _cut(self, size: int) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def check_records_path(path: Path | None) -> None:
    """Refuse a file of records that could not be written, before anything is computed.

    Raises
    ------
    EngineError
        ``records_not_written``.
    """
    if path is None:
        return
    if path.exists():
        why = None if os.access(path, os.R_OK | os.W_OK) else "cannot be written; name another file"
    else:
        why = why_not_writable(path)
    if why:
        raise EngineError(code="records_not_written", path=path, message=why)


def kept_setting(path: Path | None, name: str) -> object:
    """What the run of a file of records was started with; None where it does not say."""
    if path is None or not path.is_file():
        return None
    with path.open("rb") as file:
        fields = _parsed(file.readline(_LONGEST_LINE))
    return fields.get(name) if str(fields.get("format")).startswith(_OURS) else None


def _refuse_other(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse the records of another run, and what are no records at all."""
    if found.get("format") != wanted["format"]:
        raise EngineError(
            code="resume_mismatch",
            path=path,
            message="is no record of a run of this version; name another file",
        )
    different = sorted(
        key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)
    )
    if different:
        raise EngineError(
            code="resume_mismatch",
            path=path,
            message=f"belongs to another run (other {', '.join(different)}); ask for the same, "
            "or start a new file",
        )


def _trial_record(fields: dict[str, Any]) -> Record:
    return Record(**{**fields, "trial": Trial(**fields["trial"])})


def _trial_cell(record: Record) -> Hashable | None:
    trial = record.trial
    return None if trial.hit is None else (trial.condition, trial.text, trial.length, trial.depth)


#: Answers of an audit.
ANSWERS = RecordKind("ggufext check 1", _trial_record, _trial_cell)


def _line(fields: dict[str, Any]) -> bytes:
    return json_text(fields, indent=None).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any]:
    """Fields of a whole line; nothing for what is none."""
    try:
        fields = json.loads(line) if line.endswith(b"\n") else {}
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
