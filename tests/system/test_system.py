"""One room holds what differs between systems."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ggufext
from ggufext.system import system
from ggufext.system.base import System

SOURCES = Path(ggufext.__file__).parent

#: What only some systems have, or answer in their own way.
OF_ONE_SYSTEM = re.compile(
    r"sys\.platform|os\.name\b|\b(fcntl|msvcrt|resource|winreg)\b|ctypes\.(windll|WinDLL)"
    r"|\bO_[A-Z]{4,}|os\.(pread|pwrite|statvfs|geteuid|getuid|chown|killpg|sched_\w+|sysconf|fork)\b"
    r"|SIG(KILL|IO)\b|start_new_session|creationflags|preexec_fn|/proc/|/sys/|SEEK_(HOLE|DATA)"
)


def test_no_other_module_asks_which_system_runs() -> None:
    asking = {
        f"{path.relative_to(SOURCES)}:{number}"
        for path in SOURCES.rglob("*.py")
        if path.parent.name != "system"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if OF_ONE_SYSTEM.search(line)
    }
    # The name of the null device is the same everywhere.
    assert {place.partition(":")[0] for place in asking} <= {"cli/__init__.py"}


def test_a_system_that_can_do_nothing_more_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    with path.open("r+b") as file:
        number = file.fileno()
        for call in (
            lambda: System.insert_range(system, number, 0, 4096),
            lambda: System.collapse_range(system, number, 0, 4096),
            lambda: System.share_range(system, number, 0, number, 4096, 4096),
            lambda: System.create_nameless(system, tmp_path),
        ):
            with pytest.raises(OSError, match=r".") as caught:
                call()
            assert caught.value.errno == errno.EOPNOTSUPP
        with System.sole_use(system, number) as refusal:
            assert refusal == errno.EINVAL
    assert System.file_system_type(system, path) == ""
    assert System.machine_memory(system) is None


def test_reads_and_writes_at_a_place_leave_the_position(tmp_path: Path) -> None:
    descriptor = system.create(tmp_path / "new", 0o600)
    try:
        os.write(descriptor, b"abcdef")
        assert system.write_at(descriptor, b"XY", 2) == 2
        assert system.read_at(descriptor, 3, 1) == b"bXY"
        os.write(descriptor, b"g")
        assert system.read_at(descriptor, 100, 0) == b"abXYefg"
    finally:
        os.close(descriptor)
    with pytest.raises(FileExistsError):
        system.create(tmp_path / "new", 0o600)


@pytest.mark.skipif(sys.platform == "win32", reason="signals end processes")
def test_a_program_apart_ends_with_what_it_started(tmp_path: Path) -> None:
    child = "import time; print('up', flush=True); time.sleep(600)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    started = system.start_apart(
        [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert started.stdout is not None
    with started.stdout as output:
        assert output.readline() == b"up\n"
        system.end_with_children(started.pid)
        status = started.wait()
        # The grandchild held the pipe: its end shows that it is gone.
        assert output.read() == b""
    assert system.killed_by(status) == signal.Signals(9).name
    assert system.killed_for_memory(status)
    assert system.killed_by(0) is None
    assert system.killed_by(-64 - 1) == "signal 65"
    system.end_with_children(started.pid)  # which is gone
