"""An overwrite where the header has no room: values that act, and nothing that only tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from editing.test_promises import write_model
from gguf_bytes import F32, U32
from ggufext.editing.rewrite import rewrite, undo
from ggufext.errors import EditError
from ggufext.header.header import read_header
from ggufext.opened import strategies
from ggufext.opened.strategies import Blocks, Strategy
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from pathlib import Path

BASE: dict[str, object] = {"llama.rope.freq_base": F32(10000.0)}
ORIGINAL_LENGTH = "llama.rope.scaling.original_context_length"


def test_it_leaves_out_what_only_tells_and_again_has_nothing_to_do(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", BASE)
    original = path.read_bytes()
    for target in (4096, 16384):
        done = rewrite(path, PlanRequest(target_length=target), strategy=Strategy.OVERWRITE)
        assert {edit.key for edit in done.plan.edits} == {
            "llama.context_length",
            "llama.rope.freq_base",
        }
        assert path.stat().st_size == len(original)
    again = rewrite(path, PlanRequest(target_length=16384), strategy=Strategy.OVERWRITE)
    assert again.receipt.strategy is None
    undo(path)
    assert path.read_bytes() == original


def test_where_an_earlier_edit_left_room_the_whole_plan_is_written(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", BASE)
    original = path.read_bytes()
    rewrite(path, PlanRequest(target_length=4096), strategy=Strategy.COPY)
    rewrite(path, PlanRequest(target_length=8192), strategy=Strategy.OVERWRITE)
    assert read_header(path).value(ORIGINAL_LENGTH) == 2048
    undo(path)
    assert path.read_bytes() == original


@pytest.mark.parametrize(
    ("keys", "method"),
    [
        (BASE, Method.YARN),
        (BASE, Method.LINEAR),
        ({}, Method.GAMMA),
        (BASE | {"llama.rope.scaling.factor": F32(1.0)}, Method.GAMMA),
        ({"llama.rope.scaling.factor": F32(1.0), ORIGINAL_LENGTH: U32(2048)} | BASE, Method.NTK),
    ],
)
def test_it_is_refused_where_more_than_values_would_act(
    tmp_path: Path, keys: dict[str, object], method: Method
) -> None:
    path = write_model(tmp_path / "m.gguf", keys)
    original = path.read_bytes()
    with pytest.raises(EditError) as caught:
        rewrite(path, PlanRequest(target_length=4096, method=method), strategy=Strategy.OVERWRITE)
    assert caught.value.code == "strategy_unusable"
    assert path.read_bytes() == original
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("keys", "method", "offered"),
    [
        (BASE, Method.GAMMA, True),
        (BASE, Method.NTK, True),
        (BASE, Method.YARN, False),
        ({}, Method.GAMMA, False),
    ],
)
def test_a_copy_that_it_would_save_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, object],
    method: Method,
    offered: bool,
) -> None:
    monkeypatch.setattr(strategies, "insert_block", lambda _files, _folder: None)
    monkeypatch.setattr(strategies, "sharing", lambda *_: Blocks())
    path = write_model(tmp_path / "m.gguf", keys)
    request = PlanRequest(target_length=4096, method=method)

    def said(**options: Any) -> bool:
        done = rewrite(path, request, **options)
        return "needless_copy" in {warning.code for warning in done.plan.warnings}

    assert said(dry_run=True) is offered
    # Who asks for a copy, or for another file, needs no other way.
    assert not said(strategy=Strategy.COPY, dry_run=True)
    assert not said(output=tmp_path / "other.gguf")
    assert said() is offered
    assert not said()
