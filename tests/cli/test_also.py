"""`ggufext rewrite --also`: a draft model beside its target, as a user meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from gguf_bytes import SMALLEST_LLAMA, SMALLEST_TENSORS, U32, gguf_bytes
from ggufext.api import edits
from ggufext.cli.edits import rewrite
from ggufext.errors import EditError
from program import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VOCABULARY: dict[str, object] = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"word{i}" for i in range(397))],
    "tokenizer.ggml.scores": [0.5] * 400,
}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A target trained on 4,096 tokens and its draft on 2,048."""
    paths = tmp_path / "target.gguf", tmp_path / "draft.gguf"
    for path, length in zip(paths, (4096, 2048), strict=True):
        keys = {**SMALLEST_LLAMA, **VOCABULARY, "llama.context_length": U32(length)}
        path.write_bytes(gguf_bytes(keys, SMALLEST_TENSORS))
    return paths


@pytest.fixture
def read_only(pair: tuple[Path, Path]) -> Iterator[Path]:
    """The draft, which takes no change."""
    _, draft = pair
    link = draft.with_name("link.gguf")
    link.hardlink_to(draft)
    yield draft
    link.unlink()


def test_both_are_extended_and_undone(pair: tuple[Path, Path]) -> None:
    target, draft = pair
    before = [path.read_bytes() for path in pair]
    told = run("rewrite", target, "--also", draft, "--target", "16k", "--method", "yarn")
    assert told.returncode == 0
    assert told.stdout.splitlines()[-1] == (
        f"{target} and {draft} agree: 400 tokens alike, and both reach 16,384"
    )
    assert "rope.scaling.factor: absent → 8.0" in told.stdout
    assert "rope.scaling.factor: absent → 4.0" in told.stdout
    assert run("undo", target, draft).returncode == 0
    assert [path.read_bytes() for path in pair] == before


def test_one_that_reaches_the_target_is_left_and_the_json_is_a_list(
    pair: tuple[Path, Path],
) -> None:
    target, draft = pair
    before = target.read_bytes()
    asked = ("rewrite", target, "--also", draft, "--target", "4k")
    assert run(*asked, "--dry-run").stdout.endswith(
        f"agree: 400 tokens alike, and both reach 4,096, {target} as it was trained\n"
    )
    assert f'"path": "{draft}"' in run(*asked, "--json").stdout
    assert target.read_bytes() == before


def test_nothing_is_written_where_one_is_refused(pair: tuple[Path, Path], read_only: Path) -> None:
    target, draft = pair
    before = target.read_bytes()
    told = run("rewrite", target, "--also", read_only, "--target", "16k")
    assert (told.returncode, target.read_bytes()) == (1, before)
    assert "hard links" in told.stderr
    told = run("rewrite", target, "--also", target, "--target", "16k")
    assert (told.returncode, target.read_bytes()) == (1, before)
    assert "is the target itself" in told.stderr
    assert run("rewrite", target, draft, "--also", draft, "--target", "16k").returncode == 2
    assert (
        run("rewrite", target, "--also", draft, "--target", "16k", "--output", "new").returncode
        == 2
    )


def test_a_target_whose_draft_could_not_be_written_is_left_as_it_is(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, draft = pair
    before = target.read_bytes()

    def fail(path: Path, *_: object, **__: object) -> None:
        raise EditError(code="no_space", path=path, message="the disk is full")

    monkeypatch.setattr(edits, "rewrite", fail)
    done = CliRunner().invoke(rewrite, [str(target), "--also", str(draft), "--target", "16k"])
    assert (done.exit_code, target.read_bytes()) == (1, before)
    assert "failed: no_space" in done.output
    assert "failed: draft_unusable" in done.output
    assert "agree" not in done.stdout.splitlines()[-1]
