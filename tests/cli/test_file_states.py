"""Files and disks that refuse: each state has a message of its own, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from editing.images import Image, mounted_image
from editing.test_half_moved import before_insert
from program import result, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EDITS = (("rewrite", "--target", "8k"), ("rewrite", "--target", "8k", "--strategy", "copy"))
EVERY_COMMAND = (*EDITS, ("undo",), ("recover",), ("inspect",), ("plan", "--target", "8k"))


class Refusal(NamedTuple):
    """The one line in which the program refuses, and its code for programs."""

    said: str
    code: str


def refusal(*arguments: object) -> Refusal:
    done = run(*arguments, "--json")
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return Refusal(lines[0], json.loads(done.stdout)["error"]["code"])


@contextmanager
def attribute(path: Path, letter: str) -> Iterator[None]:
    """An attribute of chattr(1), where the user and the file system allow it."""
    if os.geteuid() != 0 or shutil.which("chattr") is None:
        pytest.skip("needs root and chattr")
    done = subprocess.run(["chattr", f"+{letter}", path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no such attribute here: {done.stderr!r}")
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{letter}", path], check=True)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system of its own in memory."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr!r}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def extended(path: Path) -> bytes:
    """A file to undo; its bytes."""
    assert run("rewrite", path, "--target", "8k").returncode == 0
    return path.read_bytes()


@pytest.mark.parametrize(
    ("letter", "name"), [("i", "immutable"), ("a", "append-only")], ids=["immutable", "append-only"]
)
def test_a_file_with_an_attribute_is_named_with_what_ends_it(
    llama: Path, letter: str, name: str
) -> None:
    before = extended(llama)
    with attribute(llama, letter):
        for command in (*EDITS, ("undo",)):
            said, code = refusal(*command, llama)
            assert f"is {name}; `chattr -{letter} {llama}` as root" in said
            assert code == "read_only"
        assert llama.read_bytes() == before
        assert list(llama.parent.iterdir()) == [llama]
        # The way out that the message names.
        output = llama.with_name("new.gguf")
        assert run("rewrite", llama, "--target", "8k", "--output", output).returncode == 0


@pytest.mark.parametrize(("letter", "name"), [("i", "immutable"), ("a", "append-only")])
def test_a_folder_with_an_attribute_is_named(llama: Path, letter: str, name: str) -> None:
    before = extended(llama)
    with attribute(llama.parent, letter):
        for command in (*EDITS, ("undo",)):
            said, code = refusal(*command, llama)
            assert f"folder {llama.parent} is {name}; `chattr -{letter} {llama.parent}`" in said
            assert code == "read_only"
        output = llama.with_name("new.gguf")
        assert name in refusal("rewrite", llama, "--target", "8k", "--output", output).said
        assert list(llama.parent.iterdir()) == [llama]
    assert llama.read_bytes() == before


def test_a_read_only_mount_is_named(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    with mounted(folder):
        model = shutil.copyfile(llama, folder / "model.gguf")
        before = extended(model)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        for command in (*EDITS, ("undo",)):
            said, code = refusal(*command, model)
            assert "mounted read-only" in said
            assert "chmod" not in said
            assert code == "read_only"
        said, _ = refusal("rewrite", llama, "--target", "8k", "--output", folder / "new.gguf")
        assert "mounted read-only" in said
        assert model.read_bytes() == before
        assert list(folder.iterdir()) == [model]
        output = tmp_path / "new.gguf"
        assert run("undo", model, "--output", output).returncode == 0
        assert output.read_bytes() == llama.read_bytes()


def test_a_file_that_only_its_mode_protects_is_named(llama: Path) -> None:
    llama.chmod(0o444)
    assert f"`chmod u+w {llama}` makes it so" in refusal(*EDITS[0], llama).said


def fill(folder: Path) -> None:
    """Take all the room there is."""
    with (folder / "rest").open("wb", buffering=0) as rest:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    rest.write(b"x" * size)
            except OSError:
                continue


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_full_disk_is_named_and_nothing_is_lost(llama: Path, tmp_path: Path, kind: str) -> None:
    if kind == "tmpfs":
        folder = tmp_path / "mounted"
        folder.mkdir()
        with mounted(folder, "-o", "size=3m"):
            on_a_full_disk(llama, folder)
        return
    image = mounted_image(tmp_path, kind, Image)
    try:
        on_a_full_disk(llama, image.mount_point)
    finally:
        image.unmount()


def on_a_full_disk(llama: Path, folder: Path) -> None:
    model = shutil.copyfile(llama, folder / "model.gguf")
    os.sync()
    fill(folder)
    original = model.read_bytes()
    names = {file.name for file in folder.iterdir()}
    for command in EDITS:
        said, code = refusal(*command, model)
        assert "room" in said
        assert "No space left" in said or "free" in said
        assert code == "no_space"
        assert model.read_bytes() == original
        assert {file.name for file in folder.iterdir()} == names
    (folder / "rest").unlink()
    before = extended(model)
    fill(folder)
    assert refusal("undo", model).code == "no_space"
    assert model.read_bytes() == before
    (folder / "rest").unlink()
    assert run("undo", model).returncode == 0
    assert model.read_bytes() == original


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_a_link_that_leads_to_itself_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "model.gguf"
    path.symlink_to(path)
    follow = ("--follow",) if command[0] in {"rewrite", "undo", "recover"} else ()
    for options in {(), follow}:
        said, _ = refusal(*command, *options, path)
        assert "leads back to itself" in said
        assert path.is_symlink()


@pytest.mark.parametrize("length", [235, 236, 245, 255])
def test_a_long_name_is_edited_and_undone_as_a_short_one(
    llama: Path, length: int, inserting: int
) -> None:
    original = llama.read_bytes()
    name = "é" * ((length - 5) // 2) + "x" * ((length - 5) % 2) + ".gguf"
    path = llama.rename(llama.with_name(name))
    assert len(os.fsencode(path.name)) == length
    for strategy in ("insert", "copy"):
        made = result("rewrite", path, "--target", "8k", "--strategy", strategy)
        assert made["strategy"] == strategy
        assert result("inspect", path)["history"]["target_length"] == 8192
        assert result("undo", path)["state"] == "restored"
        assert path.read_bytes() == original
    before_insert(path)
    assert "`ggufext recover " in refusal("rewrite", path, "--target", "8k").said
    assert result("recover", path)["state"] == "restored"
    assert path.read_bytes() == original
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_a_name_that_no_file_can_have_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    said, _ = refusal(*command, tmp_path / ("x" * 300 + ".gguf"))
    assert "give the file or its folder a shorter name" in said


def test_a_target_below_an_extension_names_undo(llama: Path) -> None:
    extended(llama)
    for target in ("1k", "2k"):
        said, code = refusal("rewrite", llama, "--target", target)
        assert code == "target_not_longer"
        assert f"was extended to 8,192 tokens, and `ggufext undo {llama}` gives" in said
        assert "--train-length" not in said
    assert result("rewrite", llama, "--target", "4k")["target_length"] == 4096
    assert run("undo", llama).returncode == 0
    assert "--train-length" in refusal("rewrite", llama, "--target", "2k").said


@pytest.mark.parametrize("method", ["YaRN", "GAMMA", "Linear", "NTK", "yarn"])
def test_names_of_methods_are_taken_in_any_case(llama: Path, method: str) -> None:
    made = result("rewrite", llama, "--target", "8k", "--method", method, "--dry-run")
    assert made["method"] == method.lower()
    assert result("plan", llama, "--target", "8k", "--method", method)["method"] == method.lower()


def test_every_choice_is_taken_in_any_case(llama: Path) -> None:
    made = result("rewrite", llama, "--target", "8k", "--strategy", "Copy", "--dry-run")
    assert made["strategy"] == "copy"
    emitted = result("plan", llama, "--target", "8k", "--method", "ntk", "--emit", "HF, llama.CPP")
    assert [block["engine"] for block in emitted["emit"]] == ["hf", "llama.cpp"]
    assert run("completion", "BASH").returncode == 0
