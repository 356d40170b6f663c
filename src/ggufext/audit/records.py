"""Finished trials on disk: one JSON line each, so that a run can go on where it was cut off."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO

from ggufext.audit.results import Trial
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FORMAT = "ggufext check 1"

#: Bytes of the line that says which run a file belongs to.
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """A trial with its answer and its cost in tokens."""

    trial: Trial
    answer: str
    evaluated: int
    naive: int


class Records:
    """Appends records to a file, flushed one by one; without a path it only keeps them.

    Parameters
    ----------
    path : Path or None
    identity : mapping
        What a run must share with the one that it continues.
    resume : bool
        Go on with the file's records; without it the file must not exist.

    Raises
    ------
    EngineError
        ``records_exist``, ``resume_mismatch``.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], *, resume: bool) -> None:
        self.finished: list[Record] = []
        self._file: TextIO | None = None
        if path is None:
            return
        # Compared as JSON gives it back: tuples are lists there.
        wanted = json.loads(json.dumps({"format": _FORMAT, **identity}))
        exists = path.exists() and path.stat().st_size > 0
        if exists and not resume:
            raise EngineError(
                code="records_exist",
                path=path,
                message="holds the trials of another run; --resume goes on with it, or remove it",
            )
        if exists:
            self._read(path, wanted)
        self._file = path.open("a", encoding="utf-8")
        if not exists:
            self._write(wanted)

    def _read(self, path: Path, wanted: dict[str, Any]) -> None:
        with path.open("rb") as file:
            # Of something else, perhaps a model, no more than a line is read.
            found = _parsed(file.readline(_LONGEST_LINE).decode(errors="replace"))
        if found.get("format") != _FORMAT:
            raise EngineError(
                code="resume_mismatch",
                path=path,
                message="is no record of a run of this version; name another file",
            )
        first, *lines = path.read_text(encoding="utf-8", errors="replace").splitlines(True)
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
        whole = [first]
        for line in lines:
            fields = _parsed(line)
            if not fields:
                continue  # the last line of a run that was cut off while writing
            whole.append(line)
            record = _record(fields, path)
            # What was not measured is tried again.
            if record.trial.hit is not None:
                self.finished.append(record)
        if len(whole) <= len(lines):
            path.write_text("".join(whole), encoding="utf-8")

    def append(self, record: Record) -> None:
        """Keep a record, and put it on disk before going on."""
        self.finished.append(record)
        self._write(asdict(record))

    def _write(self, fields: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(fields) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _record(fields: dict[str, Any], path: Path) -> Record:
    try:
        return Record(**{**fields, "trial": Trial(**fields["trial"])})
    except (KeyError, TypeError) as error:
        raise EngineError(
            code="resume_mismatch",
            path=path,
            message=f"holds a line that is no answer ({error}); it was changed by something else: "
            "start a new file",
        ) from error


def _parsed(line: str) -> dict[str, Any]:
    """Fields of a whole line; nothing for a torn one."""
    try:
        fields = json.loads(line) if line.endswith("\n") else {}
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
