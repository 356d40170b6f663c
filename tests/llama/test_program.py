"""A program of the user's, which runs no longer than the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from ggufext.llama.program import Program
from made_up_programs import ends

if TYPE_CHECKING:
    from collections.abc import Callable

needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="waits for a process as Linux can"
)


@pytest.mark.parametrize(("body", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15)])
def test_its_status_is_the_programs(body: str, status: int) -> None:
    with closing(Program(["/bin/sh", "-c", f"echo said; echo more >&2; {body}"], os.environ)) as it:
        assert it.status(60) == status
        assert it.log.lines() == ("said", "more")


def test_it_reads_nothing() -> None:
    with closing(Program(["/bin/cat"], os.environ)) as it:
        assert it.status(60) == 0


def test_it_writes_no_core_dump() -> None:
    with closing(Program(["/bin/sh", "-c", "ulimit -c"], os.environ)) as it:
        it.status(60)
        assert it.log.lines() == ("0",)


@needs_pidfd
def test_what_it_leaves_running_ends_with_it() -> None:
    with closing(Program(["/bin/sh", "-c", "tail -f /dev/null & echo $!"], os.environ)) as it:
        assert it.status(60) == 0
        assert ends(int(it.log.lines()[0]))


#: Starts a program, and says who it is once it runs.
STARTING = """
import os, sys
from ggufext.llama.program import Program

running = Program(["/bin/sh", "-c", "echo $$; exec tail -f /dev/null"], os.environ)
while not (lines := running.log.lines()):
    os.sched_yield()
print(lines[0], flush=True)
running.status(60)
"""


@needs_pidfd
@pytest.mark.parametrize("how", [subprocess.Popen.terminate, subprocess.Popen.kill])
def test_a_program_ends_with_the_process_that_started_it(
    how: Callable[[subprocess.Popen[bytes]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with subprocess.Popen([sys.executable, "-c", STARTING], stdout=subprocess.PIPE) as starting:
        assert starting.stdout is not None
        started = int(starting.stdout.readline())
        how(starting)
    assert ends(started)
