"""Several files in one command: each is handled, and the outcome of all is shown."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from ggufext.cli.output import FileCommand, handle_files
from ggufext.errors import GgufextError
from program import run
from split_model import split_model

if TYPE_CHECKING:
    from collections.abc import Callable

PATHS = tuple(Path(name) for name in ("one.gguf", "two.gguf", "three.gguf"))


def work(do: Callable[[Path | str], str]) -> FileCommand[str]:
    return FileCommand(
        do=lambda path, _wait: do(path),
        as_json=lambda path, done: {"path": path, "result": done},
        show=lambda path, done: click.echo(f"{path} {done}"),
        columns=("result", "note"),
        cells=lambda done: (done, "fine"),
    )


def failing(name: str, error: BaseException) -> Callable[[Path | str], str]:
    def do(path: Path | str) -> str:
        if Path(path).name == name:
            raise error
        return "done"

    return do


def test_a_single_file_is_shown_without_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    handle_files(PATHS[:1], work(lambda _path: "done"), as_json=False)
    assert capsys.readouterr().out == "one.gguf done\n"


def test_a_file_that_is_named_twice_is_handled_once(capsys: pytest.CaptureFixture[str]) -> None:
    handle_files((PATHS[0], PATHS[0]), work(lambda _path: "done"), as_json=False)
    assert capsys.readouterr().out == "one.gguf done\n"


def test_a_table_says_how_each_file_ended(capsys: pytest.CaptureFixture[str]) -> None:
    error = GgufextError(code="in_use", message="is open")
    with pytest.raises(SystemExit) as caught:
        handle_files(PATHS, work(failing("two.gguf", error)), as_json=False)
    assert caught.value.code == 1
    seen = capsys.readouterr()
    assert seen.out.splitlines()[-4:] == [
        "file        result          note",
        "one.gguf    done            fine",
        "two.gguf    failed: in_use",
        "three.gguf  done            fine",
    ]
    assert seen.err == "error: two.gguf: is open\n"


def test_on_a_terminal_the_table_is_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    handle_files(PATHS, work(lambda _path: "done"), as_json=False)
    assert "┃" in capsys.readouterr().out


def test_an_error_of_the_system_is_named_with_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    error = FileNotFoundError(2, "No such file or directory")
    with pytest.raises(SystemExit):
        handle_files(PATHS, work(failing("three.gguf", error)), as_json=True)
    files = json.loads(capsys.readouterr().out)["files"]
    assert [entry.get("result") for entry in files] == ["done", "done", None]
    assert files[2]["path"] == "three.gguf"
    assert files[2]["error"]["code"] == "unreadable"


def test_control_c_ends_the_work_but_not_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.Abort):
        handle_files(PATHS, work(failing("two.gguf", KeyboardInterrupt())), as_json=True)
    files = json.loads(capsys.readouterr().out)["files"]
    assert [entry.get("error", {}).get("code") for entry in files] == [None, "not_done", "not_done"]


@pytest.fixture
def models(llama: Path) -> list[Path]:
    twin = Path(shutil.copyfile(llama, llama.with_name("twin.gguf")))
    broken = llama.with_name("broken.gguf")
    broken.write_bytes(b"GGUF")
    return [llama, twin, broken]


def files_of(*arguments: object) -> list[Any]:
    done = run(*arguments, "--json")
    assert done.returncode == 1
    found: list[Any] = json.loads(done.stdout)["files"]
    return found


def test_rewrite_and_undo_of_several_files(models: list[Path]) -> None:
    original = [path.read_bytes() for path in models]
    tried = files_of("rewrite", *models, "--target", "8k", "--dry-run")
    assert [len(entry.get("ranges", ())) > 0 for entry in tried] == [True, True, False]
    assert [path.read_bytes() for path in models] == original

    done = files_of("rewrite", *models, "--target", "8k")
    assert [entry["path"] for entry in done] == [str(path) for path in models]
    assert done[0]["target_length"] == done[1]["target_length"] == 8192
    assert done[2]["error"]["code"] == "truncated"

    possible = files_of("undo", "--check", *models)
    assert [entry.get("state") for entry in possible] == ["possible", "possible", None]
    undone = files_of("undo", *models)
    assert [entry.get("state") for entry in undone] == ["restored", "restored", None]
    assert [path.read_bytes() for path in models] == original


def test_undo_check_writes_nothing_and_tells_by_its_status(llama: Path) -> None:
    before = run("undo", "--check", llama)
    assert before.returncode == 1
    assert "carries no undo record" in before.stderr
    run("rewrite", llama, "--target", "8k")
    edited = llama.read_bytes()
    after = run("undo", "--check", llama)
    assert after.returncode == 0
    assert "an exact undo is possible" in after.stdout
    assert llama.read_bytes() == edited


def test_undo_writes_the_original_of_one_file_to_an_output(llama: Path, tmp_path: Path) -> None:
    original, output = llama.read_bytes(), tmp_path / "original.gguf"
    run("rewrite", llama, "--target", "8k")
    done = run("undo", llama, "--output", output)
    assert done.returncode == 0
    assert f"{output}: original restored by copy" in done.stdout
    assert output.read_bytes() == original
    assert run("undo", llama, llama.with_name("other.gguf"), "--output", output).returncode == 2


def test_undo_check_sees_that_the_header_was_changed_since(llama: Path) -> None:
    run("rewrite", llama, "--target", "8k")
    content = llama.read_bytes()
    llama.write_bytes(content.replace(b"random weights", b"Random weights", 1))
    done = run("undo", "--check", llama, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "history_mismatch"


def test_the_parts_of_a_split_model_are_one_file(llama: Path) -> None:
    parts = split_model(llama, llama.with_name("split"), parts=3)
    done = run("rewrite", *parts, "--target", "8k", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["path"] == str(parts[0])
    assert "later part" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("inspect",), ("plan", "--target", "8k"), ("recover",), ("undo", "--check")]
)
def test_a_later_part_is_said_to_stand_for_the_first(
    llama: Path, arguments: tuple[str, ...]
) -> None:
    parts = split_model(llama, llama.with_name("split"), parts=3)
    done = run(*arguments, parts[1])
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert parts[0].name in notes[0]


def test_a_set_without_its_first_part_named_is_spoken_of_once(llama: Path) -> None:
    parts = split_model(llama, llama.with_name("split"), parts=3)
    assert run("inspect", *parts[1:]).stderr.count("note: ") == 1
