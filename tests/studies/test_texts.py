"""A text is the files that are named, from the archive that is meant."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from texts import TEST, TUNING, Text, fetch, joined
from trained import cache_folder

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"p-1/b.txt": "second\n", "p-1/a.txt": "\nfirst\n", "p-1/c.txt": "left out"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "p-1.tar.gz"
    with tarfile.open(path, "w:gz") as files:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            files.addfile(info, io.BytesIO(content.encode()))
    return path


def text(archive: Path) -> Text:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Text("p", "1", archive.name, sha256, ("a.txt", "b.txt"), "MIT", 2)


def test_the_files_stand_in_the_order_named(archive: Path) -> None:
    assert joined(text(archive), archive) == "first\n\nsecond\n"


def test_another_archive_is_refused(archive: Path) -> None:
    other = replace(text(archive), sha256="0" * 64)
    with pytest.raises(ValueError, match="SHA-256"):
        joined(other, archive)


def test_no_text_is_used_for_tuning_and_for_the_test() -> None:
    assert not {each.project for each in TEST} & {each.project for each in TUNING}


def test_every_test_text_is_long_enough_for_four_times_smollm2() -> None:
    assert min(each.tokens for each in TEST) > 4 * 8192


def test_a_text_that_is_there_is_not_fetched_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GGUFEXT_STUDY_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    assert cache_folder() == tmp_path
    path = TEST[0].path
    path.parent.mkdir()
    path.write_text("kept")
    fetch(TEST[0])
    assert path.read_text() == "kept"
