"""The file of finished answers: only ever appended to, whatever cuts a run off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ggufext.audit.run.records import (
    ANSWERS,
    Record,
    Records,
    Trial,
    check_records_path,
    kept_setting,
)
from ggufext.errors import EngineError

IDENTITY = {"prompts_hash": "ab", "conditions": [("file", ())], "flash_attention": True}


def record(text: int, *, hit: bool | None = True) -> Record:
    return Record(Trial("file", text, 256, 0.5, 100, hit, hit), " 12345.", 10, 20)


def begun(path: Path, answers: int) -> bytes:
    """A file of so many answers; its bytes."""
    records = Records(path, IDENTITY, ANSWERS)
    for text in range(answers):
        records.append(record(text))
    records.close()
    return path.read_bytes()


def resumed(path: Path) -> list[Record]:
    records = Records(path, IDENTITY, ANSWERS)
    records.close()
    return records.finished


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


def test_a_file_cut_off_at_any_byte_keeps_every_whole_line(path: Path) -> None:
    whole = begun(path, 3)
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        known = max(sum(end <= size for end in ends) - 1, 0)
        assert resumed(path) == [record(text) for text in range(known)]
        assert path.read_bytes() == whole[: ends[known]]


def test_nothing_before_the_end_is_written_again(path: Path) -> None:
    before = begun(path, 2)
    inode = path.stat().st_ino
    path.write_bytes(before + b'{"torn')
    records = Records(path, IDENTITY, ANSWERS)
    records.append(record(2))
    records.close()
    assert path.read_bytes().startswith(before)
    assert (path.stat().st_ino, len(resumed(path))) == (inode, 3)


def test_a_line_of_something_else_is_left_alone_and_its_answers_count_once(path: Path) -> None:
    whole = begun(path, 2)
    *_, last = whole.splitlines(keepends=True)
    changed = whole + b"\xff\xfe no answer\n" + last
    path.write_bytes(changed)
    assert resumed(path) == [record(0), record(1)]
    assert path.read_bytes() == changed


def test_what_was_not_measured_is_asked_again(path: Path) -> None:
    begun(path, 1)
    records = Records(path, IDENTITY, ANSWERS)
    records.append(record(1, hit=None))
    records.close()
    assert resumed(path) == [record(0)]


def test_two_runs_do_not_write_into_one_file(path: Path) -> None:
    records = Records(path, IDENTITY, ANSWERS)
    with pytest.raises(EngineError) as refused:
        Records(path, IDENTITY, ANSWERS)
    assert refused.value.code == "records_in_use"
    records.close()
    assert resumed(path) == []


def test_the_setting_of_a_run_is_known_to_the_one_that_goes_on(path: Path, tmp_path: Path) -> None:
    assert kept_setting(path, "flash_attention") is None
    begun(path, 0)
    assert kept_setting(path, "flash_attention") is True
    other = tmp_path / "other"
    other.write_bytes(b'{"flash_attention": false}\n')
    assert kept_setting(other, "flash_attention") is None
    assert kept_setting(None, "flash_attention") is None


WRITER = f"""
import resource, signal, sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from audit.run.test_records import IDENTITY, record
from ggufext.audit.run.records import ANSWERS, Records
from ggufext.errors import EngineError
limit = int(sys.argv[2])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
records = Records(Path(sys.argv[1]), IDENTITY, ANSWERS)
try:
    for text in range(len(records.finished), 1000000):
        records.append(record(text))
except EngineError as error:
    print(error.code, len(records.finished))
"""


def test_a_disk_that_fills_up_loses_no_answer(path: Path) -> None:
    begun(path, 20)
    full = path.stat().st_size + 1000
    for size in range(full, full + 200, 37):
        child = subprocess.run(
            [sys.executable, "-c", WRITER, str(path), str(size)],
            capture_output=True,
            text=True,
            check=True,
        )
        code, finished = child.stdout.split()
        assert code == "records_not_written"
        # The one that did not get there is in the report of that run only.
        assert resumed(path) == [record(text) for text in range(int(finished) - 1)]
        assert path.read_bytes().endswith(b"\n")


def test_a_killed_run_loses_at_most_the_answer_that_it_was_writing(path: Path) -> None:
    begun(path, 1)
    known = 1
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "0"])
        begins = path.stat().st_size
        while path.stat().st_size < begins + 2000:
            os.sched_yield()
        child.send_signal(signal.SIGKILL)
        child.wait()
        found = resumed(path)
        assert found == [record(text) for text in range(len(found))]
        assert len(found) > known
        known = len(found)
    for line in path.read_bytes().splitlines():
        json.loads(line)


def test_records_without_a_file_are_only_kept() -> None:
    records = Records(None, IDENTITY, ANSWERS)
    records.append(record(0))
    records.close()
    assert records.finished == [record(0)]


def test_another_run_is_named_by_what_differs(path: Path) -> None:
    begun(path, 1)
    with pytest.raises(EngineError, match="prompts_hash") as refused:
        Records(path, {**IDENTITY, "prompts_hash": "cd"}, ANSWERS)
    assert refused.value.code == "resume_mismatch"
    assert resumed(path) == [record(0)]


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_computed(
    tmp_path: Path,
) -> None:
    for place in (tmp_path / "missing" / "run.jsonl", Path("/proc/run.jsonl")):
        with pytest.raises(EngineError) as refused:
            check_records_path(place)
        assert refused.value.code == "records_not_written"
    check_records_path(None)
    check_records_path(tmp_path / "run.jsonl")
    assert not list(tmp_path.iterdir())
