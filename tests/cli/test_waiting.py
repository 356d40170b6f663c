"""What a command says while it works: nothing for two seconds, then a bar or lines."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest

from ggufext.cli import waiting
from ggufext.cli.edits import rewrite, undo
from ggufext.cli.options import found_model
from ggufext.cli.output import FileCommand, handle_files
from ggufext.cli.waiting import Told
from range_server import ranged, serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (Told("m.gguf"), "m.gguf: 20 s so far"),
        (Told("reading", 3 << 20, unit="bytes"), "reading: 3.00 MiB, 20 s so far"),
        (
            Told("copying", 1 << 30, 4 << 30, "bytes"),
            "copying: 1.00 GiB of 4.00 GiB, about 60 s left",
        ),
        (
            Told("copying", 4096, 4096, "bytes"),
            "copying: 4.00 KiB of 4.00 KiB, finishing, 20 s so far",
        ),
        (Told("files", 0, 200, detail="a.gguf"), "files (a.gguf): 0 of 200, 20 s so far"),
        (
            Told("asking", 0, 50, "tokens", expected=620),
            "asking: 0 of 50 tokens, about 10 min left",
        ),
        (Told("asking", 0, 5000, "tokens", expected=5), "asking: 0 of 5,000 tokens, 20 s so far"),
        (
            Told("asking", 500, 5000, "tokens", expected=9),
            "asking: 500 of 5,000 tokens, about 3 min left",
        ),
        (Told("a\x1b[2Jb"), r"a\x1b[2Jb: 20 s so far"),
    ],
)
def test_a_line_says_how_much_is_done_and_the_time_left_where_it_is_known(
    told: Told, line: str
) -> None:
    assert told.line(20, 0) == line


def test_time_left_falls_until_the_next_word_and_is_not_said_when_it_is_used_up() -> None:
    told = Told("asking", 5, 50, "tokens")
    assert told.line(20, 0).endswith("about 3 min left")
    assert told.line(120, 100).endswith("about 80 s left")
    assert told.line(220, 200).endswith("4 min so far")


class Lines:
    """The lines that are made, one after the other."""

    def __init__(self) -> None:
        self._made: list[str] = []
        self._more = threading.Semaphore(0)

    def made(self, line: str) -> str:
        """Keep one."""
        self._made.append(line)
        self._more.release()
        return line

    def starting(self, start: str) -> str:
        """The next one that starts so."""
        for _ in range(10_000):
            assert self._more.acquire(timeout=20)
            line = self._made.pop(0)
            if line.startswith(start):
                return line
        raise AssertionError(start)


_LINE = Told.line


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Let no time pass before the first line, and hardly any before the next."""
    lines = Lines()

    def line(told: Told, seconds: float, since: float) -> str:
        return lines.made(_LINE(told, seconds, since))

    monkeypatch.setattr(Told, "line", line)
    monkeypatch.setattr(waiting, "_PATIENCE", 0)
    monkeypatch.setattr(waiting, "_BETWEEN_LINES", 0.001)
    monkeypatch.setattr(waiting, "_BETWEEN_PICTURES", 0.001)
    return lines


def test_what_is_quick_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with waiting.waiting("a.gguf") as wait:
        wait.tell(Told("copying", 1, 2))
    assert capfd.readouterr() == ("", "")


def test_what_takes_longer_is_said_in_lines_without_a_terminal(
    lines: Lines, capfd: pytest.CaptureFixture[str]
) -> None:
    with waiting.waiting("a.gguf") as wait:
        first = lines.starting("a.gguf: ")
        wait.tell(Told("copying", 1, 2, "bytes"))
        second = lines.starting("copying: 1 bytes of 2 bytes, ")
        lines.starting("copying")
    said = capfd.readouterr()
    assert said.out == ""
    assert {first, second} <= set(said.err.splitlines())


def test_nothing_is_said_while_somebody_else_has_the_terminal(
    lines: Lines, capfd: pytest.CaptureFixture[str]
) -> None:
    with waiting.waiting("a.gguf") as wait:
        with wait.silent():
            capfd.readouterr()
            wait.tell(Told("in silence"))
            assert capfd.readouterr().err == ""
        lines.starting("in silence")


def test_time_of_what_is_interrupted_by_something_else_goes_on() -> None:
    wait = waiting.Wait("files")
    begun = wait._began["files"]
    wait.tell(Told("copying", 1, 2))
    wait.tell(Told("files", 1, 2))
    assert wait._began["files"] == begun


def test_no_thread_is_left_behind(lines: Lines) -> None:
    def interrupted() -> None:
        with waiting.waiting("a.gguf"):
            lines.starting("a.gguf")
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert threading.active_count() == before


def test_a_bar_on_a_terminal_gives_way_to_results_and_is_gone_at_the_end(
    lines: Lines, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with waiting.waiting("copying") as wait:
        wait.tell(Told("copying", 1, 2, "bytes"))
        lines.starting("copying: 1 bytes of 2 bytes")
        lines.starting("copying: 1 bytes of 2 bytes")
        with wait.silent():
            print("a result")
    seen = capfd.readouterr()
    assert seen.out == "a result\n"
    assert "copying: 1 bytes of 2 bytes, " in seen.err
    drawn = seen.err.rindex("\x1b[2K")  # the line is erased
    assert "copying" not in seen.err[drawn:]


def test_several_files_are_counted(lines: Lines) -> None:
    work = FileCommand(
        do=lambda path, _wait: lines.starting(f"files ({path})"),
        as_json=lambda path, _done: path,
        show=lambda _path, _done: None,
        columns=("result",),
        cells=lambda done: (done,),
    )
    handle_files(("one.gguf", "two.gguf"), work, as_json=False)


def test_a_remote_header_tells_the_bytes_read(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp", reason="needs ggufext[remote]")
    heard: list[Told] = []
    wait = waiting.Wait("")
    monkeypatch.setattr(wait, "tell", heard.append)
    with serving() as server:
        server.answers["/m.gguf"] = ranged(llama.read_bytes())
        found_model(f"{server.address.replace('://', '://me:secret@')}/m.gguf", wait)
    assert {told.unit for told in heard} == {"bytes"}
    assert heard[-1].done > 1000
    assert heard[-1].what.endswith("/m.gguf")
    assert "secret" not in heard[-1].what


def test_copies_and_readers_are_told(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Told] = []
    monkeypatch.setattr(waiting.Wait, "tell", lambda _wait, told: heard.append(told))
    monkeypatch.setattr(
        "ggufext.cli.edits.edits.verify", lambda _done, notify, **_: (notify("reads"),)
    )
    copy, original = llama.with_name("copy.gguf"), llama.with_name("original.gguf")
    rewriting = [str(llama), "--target", "4k", "--output", str(copy), "--verify"]
    rewrite.main(rewriting, standalone_mode=False)
    done = heard[-2]
    assert (done.what, done.total, done.unit) == (
        f"copying {llama}",
        copy.stat().st_size,
        "bytes",
    )
    assert heard[-1] == Told(f"{llama}: reads")
    undo.main([str(copy), "--output", str(original)], standalone_mode=False)
    done = heard[-1]
    assert (done.what, done.total) == (f"copying {copy}", original.stat().st_size)
