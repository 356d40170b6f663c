"""The real program, killed for real while it edits: `recover` gives the old or the new file.

A small number of kills in every run of the tests, 200 for each way of editing by `make torture`.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from editing.images import Image, mounted_image
from ggufext.editing.rewrite import recover
from ggufext.header.header import POISONED_MAGIC
from ggufext.opened import journal as journals
from ggufext.opened.files import FileSystem
from program import result
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ggufext.opened.patch import Patch

REWRITE = ("rewrite", "--target", "8k")

#: Every key that method gamma sets, so that an edit changes values only.
ALL_KEYS: dict[str, str | float | int] = {
    "llama.rope.freq_base": 10_000.0,
    "llama.rope.scaling.type": "none",
    "llama.rope.scaling.original_context_length": 2048,
}

#: How to edit in each way, and the keys that the model has before.
WAYS: dict[str, tuple[tuple[str, ...], dict[str, str | float | int]]] = {
    "insert": ((*REWRITE, "--strategy", "insert"), {}),
    "insert and append a tensor": ((*REWRITE, "--strategy", "insert", "--method", "llama3"), {}),
    "insert keys that are set": (("set", "general.name=" + 9000 * "x", "a.b:u8=1"), {}),
    "overwrite": ((*REWRITE, "--strategy", "overwrite"), ALL_KEYS),
    "copy": ((*REWRITE, "--strategy", "copy"), {}),
    "reflink on xfs": ((*REWRITE, "--strategy", "reflink"), {}),
    "reflink on btrfs": ((*REWRITE, "--strategy", "reflink"), {}),
}
IN_PLACE = ("insert", "insert and append a tensor", "insert keys that are set", "overwrite")

#: Runs for every kill that has to hit; the aim is bad where the machine is busy.
RUNS_A_KILL = 40

HALF_DONE = {POISONED_MAGIC, bytes(4)}


class Target:
    """A model that is rewritten or undone by the real program again and again."""

    def __init__(self, folder: Path, way: str, *, undoing: bool) -> None:
        (verb, *options), keys = WAYS[way]
        self.in_place = way in IN_PLACE
        self.path = write_random_model(folder / "model.gguf", "llama", metadata=keys)
        self.arguments: tuple[object, ...] = (verb, self.path, *options)
        if undoing:
            assert result(*self.arguments)["strategy"] == way.split(maxsplit=1)[0]
            self.arguments = ("undo", self.path)
            if way == "copy":
                # A file that is open elsewhere is replaced by a new one.
                self.arguments = ("undo", "--force", self.path)
        self.held = way == "copy" and undoing
        self.before = {file.name: file.read_bytes() for file in folder.iterdir()}
        self.written = 0

    def reset(self) -> None:
        for left in self.path.parent.iterdir():
            left.unlink()
        for name, content in self.before.items():
            self.path.with_name(name).write_bytes(content)
        self.written = self.path.stat().st_mtime_ns

    def at_work(self) -> bool:
        """Whether an edit is half-done; the model is not opened, which would be use of it."""
        if self.in_place:
            begun = self.path.stat().st_mtime_ns != self.written
            return begun and journals.path_for(self.path).exists()
        return len(os.listdir(self.path.parent)) > len(self.before)  # noqa: PTH208

    def run(self, killed_after: Callable[[float], bool]) -> float:
        """Run the program and kill it; seconds from the first sign of the edit to its end."""
        holder = self.path.open("rb") if self.held else None
        command = [sys.executable, "-m", "ggufext", *map(str, self.arguments)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while not self.at_work() and process.poll() is None:
                os.sched_yield()
            started = time.perf_counter()
            while self.at_work() and process.poll() is None:
                if killed_after(time.perf_counter() - started):
                    process.kill()
                    break
                os.sched_yield()
            seconds = time.perf_counter() - started
        if holder is not None:
            holder.close()
        return seconds


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def patched(content: bytes, patch: Patch) -> bytes:
    """A whole file after a patch, put together without the code under test."""
    front = len(patch.old_front)
    body = bytearray(content[front : patch.tail_start])
    for span in patch.spans:
        body[span.offset - front : span.offset - front + len(span.new)] = span.new
    return patch.new_front + bytes(body) + patch.new_tail


@pytest.fixture
def folder(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    if way in IN_PLACE:
        request.getfixturevalue("inserting")
    if not way.startswith("reflink"):
        made = tmp_path / "models"
        made.mkdir()
        yield made
        return
    image = mounted_image(tmp_path, way.rpartition(" ")[2], Image)
    made = image.mount_point / "models"
    made.mkdir()
    yield made
    image.unmount()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kills", [1, pytest.param(200, marks=pytest.mark.torture)])
@pytest.mark.parametrize("direction", ["rewrite", "undo"])
@pytest.mark.parametrize("way", list(WAYS))
def test_a_killed_program_leaves_the_old_or_the_new_file(
    folder: Path, way: str, direction: str, kills: int
) -> None:
    target = Target(folder, way, undoing=direction == "undo")
    path, chance = target.path, random.Random(0)
    old = digest(target.before[path.name])
    target.reset()
    window = target.run(lambda _: False)
    ended = {"old": 0, "new": 0}
    runs = 0
    while sum(ended.values()) < kills:
        assert runs < RUNS_A_KILL * kills, "the edit is over before the signal comes"
        runs += 1
        target.reset()
        when = chance.uniform(0, window)
        target.run(lambda seconds, when=when: seconds >= when)  # type: ignore[misc]
        new = None
        half_done = target.at_work()
        if target.in_place:
            half_done = path.read_bytes()[:4] in HALF_DONE
            journal = journals.read(FileSystem(), path)
            if journal is not None:
                new = digest(patched(target.before[path.name], journal.patch))
        recover(path)
        found = digest(path.read_bytes())
        # How long an edit takes changes with what else the machine does.
        window *= 1.1 if half_done else 0.8
        if half_done:
            assert found in {old, new}
            ended["old" if found == old else "new"] += 1
        elif found != old:
            # It was over; the file's record tells the time, so that no two are alike.
            assert new in {None, found}
            assert path.read_bytes()[:4] == b"GGUF"
        left = {file.name for file in folder.iterdir()}
        assert path.name in left
        assert not left - set(target.before) - {f"{path.name}.ggufext-undo"}
    print(f"{way}, {direction}: {kills} kills half-way in {runs} runs: {ended}")
