"""Conditions that run on a temporary copy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ggufext.audit import conditions
from ggufext.audit.conditions import (
    CopyNeeded,
    OriginalCopy,
    ResolvedCondition,
    refuse_copies,
    with_copies,
)
from ggufext.editing.rewrite import Rewritten, rewrite
from ggufext.editing.setting import set_keys
from ggufext.errors import EngineError
from ggufext.header.header import read_header
from ggufext.opened.model import open_model
from ggufext.opened.patch import OWN_KEYS
from ggufext.opened.strategies import Strategy
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from split_model import split_model

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = ResolvedCondition("file", (), None, (), None, None)
COPIED = replace(
    PLAIN,
    name="planned:yarn",
    copy=PlanRequest(target_length=8192, method=Method.YARN),
)


def test_a_copy_is_rewritten_and_gone_afterwards(llama: Path) -> None:
    before = llama.read_bytes()
    with with_copies(llama, (PLAIN, COPIED), lambda _: True) as (plain, copied):
        assert plain.path is None
        assert copied.path is not None
        assert read_header(copied.path).value("llama.context_length") == 8192
    assert list(llama.parent.iterdir()) == [llama]
    assert llama.read_bytes() == before


@pytest.mark.parametrize("method", [Method.LLAMA3, Method.NTK])
def test_the_native_copy_holds_what_was_set_and_nothing_of_the_extension(
    llama: Path, method: Method
) -> None:
    set_keys(llama, {"llama.attention.scale:f32": 0.25, "llama.rope.freq_base": 900.0}, delete=())
    rewrite(llama, PlanRequest(target_length=4096, method=method, keep_short=True))
    native = replace(PLAIN, name="native", copy=OriginalCopy())
    with with_copies(llama, (native,), lambda _: True) as (copied,):
        assert copied.path is not None
        with open_model(llama) as extended, open_model(copied.path) as found:
            wanted = extended.unextended
            assert found.header.value("llama.attention.scale") == 0.25
            held = {key: found.header.value(key) for key in found.header.keys if key in OWN_KEYS}
            assert {key: found.header.value(key) for key in found.header.keys} == held | {
                key: wanted.value(key) for key in wanted.keys
            }
            facts = replace(extended.original_facts(), earlier_extension=None)
            assert found.facts == facts
            assert found.header.tensor_count == wanted.tensor_count


def test_a_copy_is_asked_for_with_its_bytes_and_the_free_space(llama: Path) -> None:
    heard: list[CopyNeeded] = []

    def note(needed: CopyNeeded) -> bool:
        heard.append(needed)
        return True

    with with_copies(llama, (COPIED,), note):
        pass
    (asked,) = heard
    assert (asked.condition, asked.folder) == ("planned:yarn", llama.parent)
    assert asked.size == llama.stat().st_size
    assert asked.free == pytest.approx(shutil.disk_usage(llama.parent).free, rel=0.1)


def test_a_copy_that_nobody_allows_is_refused_with_the_way_out(llama: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"bytes in .* free; --yes") as refused,
        with_copies(llama, (COPIED,), refuse_copies),
    ):
        pass
    assert refused.value.code == "copy_not_allowed"
    assert list(llama.parent.iterdir()) == [llama]


def test_a_copy_that_does_not_fit_is_refused_before_asking(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(llama)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with (
        pytest.raises(EngineError, match="1,000 free") as refused,
        with_copies(llama, (COPIED,), lambda _: True),
    ):
        pass
    assert refused.value.code == "no_space"


def test_blocks_that_are_shared_need_no_leave(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sharing(*arguments: Any, dry_run: bool = False, **options: Any) -> Rewritten:
        done = rewrite(*arguments, dry_run=dry_run, **options)
        return replace(done, receipt=replace(done.receipt, strategy=Strategy.REFLINK))

    monkeypatch.setattr(conditions, "rewrite", sharing)
    with with_copies(llama, (COPIED,), refuse_copies) as (copied,):
        assert copied.path is not None
        assert read_header(copied.path).value("llama.context_length") == 8192


def test_a_split_model_is_copied_with_all_its_parts(llama: Path) -> None:
    first, *others = split_model(llama, llama.with_name("split"), parts=3)
    heard: list[CopyNeeded] = []

    def note(needed: CopyNeeded) -> bool:
        heard.append(needed)
        return True

    with with_copies(first, (COPIED,), note) as (copied,):
        assert copied.path is not None
        beside = {part.name for part in copied.path.parent.iterdir()}
    assert beside == {part.name for part in (first, *others)}
    assert heard[0].size == sum(part.stat().st_size for part in (first, *others))


def test_conditions_without_a_copy_touch_nothing(llama: Path) -> None:
    with with_copies(llama, (PLAIN,), refuse_copies) as (plain,):
        assert plain is PLAIN
        assert list(llama.parent.iterdir()) == [llama]


def test_a_copy_tells_its_condition_and_bytes(llama: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    with with_copies(
        llama,
        (PLAIN, COPIED),
        lambda _: True,
        progress=lambda *told: heard.append(told),
    ) as (_, copied):
        assert copied.path is not None
        size = copied.path.stat().st_size
    assert {(name, total) for name, _, total in heard} == {(COPIED.name, size)}
    assert heard[-1][1] <= size
