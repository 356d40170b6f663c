"""Completion, tried in a real shell behind a terminal."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from ggufext.cli.doctor import completion

if TYPE_CHECKING:
    from collections.abc import Iterator


class Terminal:
    """A bash behind a terminal: text typed, and what is shown until something expected."""

    def __init__(self, folder: Path) -> None:
        self.terminal, inner = pty.openpty()
        programs = Path(sys.executable).parent
        self.shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            cwd=folder,
            start_new_session=True,
            env={
                "PATH": f"{programs}:{os.environ['PATH']}",
                "TERM": "dumb",
                "PS1": "$ ",
                "HOME": str(folder),
            },
        )
        os.close(inner)

    def type(self, text: str, *, until: str) -> str:
        os.write(self.terminal, text.encode())
        shown = ""
        while until not in shown:
            ready, _, _ = select.select([self.terminal], [], [], 60)
            assert ready, f"expected {until!r}, shown was {shown!r}"
            shown += os.read(self.terminal, 4096).decode(errors="replace")
        return shown

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        os.close(self.terminal)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("bash") is None or not Path(sys.executable).with_name("ggufext").exists():
        pytest.skip("needs bash, and ggufext beside this Python")
    opened = Terminal(tmp_path)
    opened.type('eval "$(ggufext completion bash)"; echo read""y\n', until="ready\r\n")
    yield opened
    opened.close()


def test_bash_completes_commands_options_choices_and_files(
    terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "broken model.gguf").write_bytes(b"")
    terminal.type("ggufext rew\t", until="ggufext rewrite ")
    terminal.type("brok\t", until="broken\\ model.gguf ")
    terminal.type("--meth\t", until="--method ")
    terminal.type("yar\t", until="yarn ")


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete"), ("zsh", "compdef"), ("fish", "complete")]
)
def test_every_shell_has_its_script(shell: str, word: str) -> None:
    done = CliRunner().invoke(completion, [shell])
    assert done.exit_code == 0
    assert word in done.output
    assert "_GGUFEXT_COMPLETE" in done.output
