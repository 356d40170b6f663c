"""Every command that the program prints can be pasted into a shell, whatever the file's name is."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from editing.disk import FailingDisk, RecordingDisk
from editing.test_half_moved import before_insert
from gguf_bytes import U32, gguf_bytes
from ggufext.cli import main
from ggufext.editing.rewrite import rewrite
from ggufext.errors import EditError, command
from ggufext.header.header import JOURNAL_SUFFIX
from ggufext.planning.request import PlanRequest
from ollama_folder import add_model
from program import run
from split_model import split_model

if TYPE_CHECKING:
    from collections.abc import Callable

#: Between backquotes, at the end of a line, or behind "undo with:".
_PRINTED = re.compile(r"`((?:ggufext|chmod|chattr|rm) .+)`|(?:undo with: |measure it with )(.+)")

NAMES = [
    "two  blanks; echo $HOME 'quoted' \"twice\" & (1)*?.gguf",
    "-begins with a dash.gguf",
    "ollama:colon.gguf",
    "line\nbreak\x1b[31m.gguf",
    "\udcff\udcfe is no UTF-8.gguf",
    "x" * 180 + ".gguf",
]


@pytest.fixture(params=NAMES, ids=ascii)
def path(request: pytest.FixtureRequest, llama: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of an awkward name, in the folder where the program runs."""
    folder = llama.with_name("a folder; of models" + "y" * 200)
    folder.mkdir()
    llama.rename(folder / request.param)
    monkeypatch.chdir(folder)
    # Where the name is long, the path is too long for a line that is cut somewhere.
    return folder / request.param if len(request.param) > 100 else Path(request.param)


one_name = pytest.mark.parametrize("path", NAMES[:1], indirect=True, ids=ascii)


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a line as a POSIX shell does, with the program on its path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "ggufext"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ggufext "$@"\n')
    program.chmod(0o755)

    def call(line: str) -> subprocess.CompletedProcess[str]:
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-c", line],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            env=os.environ | {"PATH": path},
        )

    return call


def printed(*arguments: object) -> str:
    """The one command that the program prints."""
    done = run(*arguments)
    return in_text(done.stdout + done.stderr)


def in_text(text: str) -> str:
    found: list[str] = [first or second for first, second in _PRINTED.findall(text)]
    assert len(found) == 1, text
    return found[0]


def argument(path: Path) -> str:
    """A path as a user writes it where it would be an option or a name else."""
    return str(path) if path.is_absolute() else f"./{path}"


def test_undo_as_rewrite_inspect_and_a_lower_target_print_it(
    path: Path, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    original = path.read_bytes()
    lines = {
        printed("rewrite", argument(path), "--target", "8k"),
        printed("inspect", argument(path)),
        printed("rewrite", argument(path), "--target", "1k"),
    }
    assert len(lines) == 1
    done = shell(lines.pop())
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == original


@one_name
def test_undo_as_set_prints_it(
    path: Path, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    original = path.read_bytes()
    assert shell(printed("set", argument(path), "general.name=new")).returncode == 0
    assert path.read_bytes() == original


def test_undo_of_a_followed_link_names_the_link(
    path: Path, tmp_path: Path, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    original = path.read_bytes()
    target = path.rename(tmp_path / "target.gguf")
    path.symlink_to(target)
    line = printed("rewrite", argument(path), "--target", "8k", "--follow")
    assert str(target) not in line
    assert line == printed("inspect", argument(path))
    assert shell(line).returncode == 0
    assert target.read_bytes() == original
    assert path.is_symlink()


@pytest.mark.parametrize("through_a_link", [False, True])
def test_recover_as_every_command_prints_it(
    path: Path,
    tmp_path: Path,
    inserting: int,
    shell: Callable[[str], subprocess.CompletedProcess[str]],
    through_a_link: bool,
) -> None:
    target = path.rename(tmp_path / "target.gguf") if through_a_link else path
    original = before_insert(target)
    follow: tuple[str, ...] = ()
    if through_a_link:
        path.symlink_to(target)
        follow = ("--follow",)
    lines = {
        printed("rewrite", argument(path), "--target", "8k", *follow),
        printed("undo", argument(path), *follow),
        printed("inspect", argument(path)),
    }
    assert len(lines) == 1
    done = shell(lines.pop())
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == original


@one_name
def test_recover_as_a_failing_disk_has_it_printed(
    path: Path,
    inserting: int,
    monkeypatch: pytest.MonkeyPatch,
    shell: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    original, refused = path.read_bytes(), set()
    disk = RecordingDisk()
    rewrite(path, PlanRequest(target_length=8192), files=disk)
    for at, operation in enumerate(disk.done):
        if operation not in {"sync", "insert_range"}:
            continue
        path.unlink()
        path.write_bytes(original)
        with monkeypatch.context() as failing:
            if operation == "insert_range":
                # Taking the edit back fails too.
                failing.setattr("ggufext.editing.recovery.recover_open_file", _fail)
            try:
                rewrite(path, PlanRequest(target_length=8192), files=FailingDisk(at))
            except EditError as error:
                refused.add((operation, error.code))
                refusal = str(error)
            else:
                continue  # the probe of the folder failed, and another way was found
        done = shell(in_text(refusal))
        assert done.returncode == 0, done.stderr
        assert not Path(f"{path}{JOURNAL_SUFFIX}").exists()
    assert refused == {(at, "interrupted_edit") for at in ("sync", "insert_range")}


def _fail(*_arguments: object) -> None:
    raise OSError("still failing")


@one_name
@pytest.mark.parametrize("method", ["dynamic", "self-extend"])
def test_planning_of_a_method_that_no_file_can_hold(
    path: Path, method: str, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    line = printed("rewrite", argument(path), "--target", "4k", "--method", method)
    done = shell(line)
    assert done.returncode == 0, done.stderr
    assert "nothing to write" in done.stdout
    if method == "self-extend":
        measuring = in_text(done.stdout)
        # Measuring itself takes long: what the shell makes of it is compared.
        split = shell(measuring.replace("ggufext check", "printf '%s\\0'"))
        *options, name = split.stdout.split("\0")[:-1]
        assert options[:3] == ["--lengths", "4096", "--condition"]
        assert path.samefile(name)


@one_name
def test_planning_of_an_architecture_that_was_never_tried(
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shell: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    keys = {
        "general.architecture": "chameleon",
        "chameleon.context_length": U32(2048),
        "chameleon.block_count": U32(1),
        "chameleon.embedding_length": U32(64),
        "chameleon.attention.head_count": U32(2),
    }
    path.write_bytes(gguf_bytes(keys=keys))
    done = shell(printed("rewrite", argument(path), "--target", "4k"))
    assert done.returncode == 0, done.stderr
    assert "chameleon" in done.stdout
    blob = add_model(tmp_path / "ollama", path.read_bytes())
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    line = printed("rewrite", "ollama:tiny", "--target", "4k", "--output", "new.gguf")
    assert str(blob) not in line
    assert shell(line).returncode == 0


@one_name
def test_making_a_file_writable(
    path: Path, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    path.chmod(0o444)
    assert shell(printed("rewrite", argument(path), "--target", "4k")).returncode == 0
    assert run("rewrite", argument(path), "--target", "4k").returncode == 0


def test_undo_of_a_model_of_ollama_goes_into_a_new_file(
    llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shell: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    original = llama.read_bytes()
    rewrite(llama, PlanRequest(target_length=8192))
    blob = add_model(tmp_path / "ollama", llama.read_bytes())
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.chdir(tmp_path)
    before = hashlib.sha256(blob.read_bytes()).hexdigest()
    line = printed("inspect", "ollama:tiny")
    assert line == "ggufext undo --output original.gguf ollama:tiny"
    assert shell(line).returncode == 0
    assert (tmp_path / "original.gguf").read_bytes() == original
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == before
    written = printed("rewrite", "ollama:tiny", "--target", "4k", "--output", "a b.gguf")
    assert written == "ggufext undo 'a b.gguf'"


def test_undo_of_a_split_model_names_its_first_part(
    llama: Path, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    first, later, _ = split_model(llama, llama.with_name("a split; model"), parts=3)
    original = first.read_bytes()
    line = printed("rewrite", later, "--target", "8k")
    assert line == f"ggufext undo '{first}'"
    assert shell(line).returncode == 0
    assert first.read_bytes() == original


@one_name
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "the edit stands; `ggufext undo "),
        (("--no-history",), "the edit stands, and --no-history kept nothing"),
        (("--output", "new file.gguf"), "the edit stands; `ggufext undo 'new file.gguf'`"),
        (
            ("--output", "new file.gguf", "--no-history"),
            "the new file stands; `rm 'new file.gguf'`",
        ),
    ],
    ids=" ".join,
)
def test_a_failing_verification_says_what_stands_and_how_to_be_rid_of_it(
    path: Path,
    options: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shell: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    original = path.read_bytes()

    def differs(file: Path, _plan: object, **_options: object) -> None:
        raise EditError(code="not_verified", path=file, message="gguf-py reads something else")

    monkeypatch.setattr("ggufext.llama.expectation.verify_file", differs)
    arguments = ["rewrite", argument(path), "--target", "8k", "--verify", *options]
    monkeypatch.setattr(sys, "argv", ["ggufext", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "gguf-py reads something else" in said
    assert says in said
    if "`" in says:
        assert shell(in_text(said)).returncode == 0
        new = Path("new file.gguf")
        assert not new.exists() or new.read_bytes() == original
        assert path.read_bytes() == original


@pytest.mark.usefixtures("without_llama_cpp")
def test_a_file_that_gguf_py_cannot_read_is_no_traceback(
    llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(_path: Path) -> None:
        raise KeyError("magic")

    monkeypatch.setattr("gguf.GGUFReader", refuses)
    monkeypatch.setattr(
        sys, "argv", ["ggufext", "rewrite", str(llama), "--target", "8k", "--verify"]
    )
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert "gguf-py does not read the file (KeyError: 'magic'); the edit stands; " in said


def test_a_command_is_one_word_a_name(tmp_path: Path) -> None:
    assert command("undo", "ollama:tiny") == "ggufext undo ollama:tiny"
    assert command("undo", Path("ollama:tiny")) == "ggufext undo ./ollama:tiny"
    assert command("undo", tmp_path / "a b") == f"ggufext undo '{tmp_path}/a b'"
