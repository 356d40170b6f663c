"""Planned conditions that need factor tensors: the same as the rewritten file, on a copy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ggufext import rewrite
from ggufext.audit.check import measure_model
from ggufext.audit.request import CheckRequest, LocalSettings
from ggufext.errors import EngineError
from ggufext.opened.model import facts_of
from ggufext.planning.methods import Method
from ggufext.planning.request import Factors, PlanRequest, Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.audit.run.measure import Measured

REQUEST = CheckRequest(lengths=(128, 512), depths=2, trials=1)


def check(path: Path, request: CheckRequest, *, allowed: bool = True) -> Measured:
    settings = LocalSettings(threads=1, audit=True)
    return measure_model(path, replace(request, engine=settings), allow_copy=lambda _: allowed)


@pytest.mark.parametrize("keep_short", [False, True])
@pytest.mark.parametrize("method", [Method.LLAMA3, Method.NTK, Method.LONGROPE])
def test_planned_tensors_give_the_trials_of_the_rewritten_file(
    method: Method, keep_short: bool, passkey_copy: Path, tmp_path: Path
) -> None:
    recipe = None
    name = method.value
    if method is Method.LONGROPE:
        pairs = len(facts_of(passkey_copy).inv_freq)
        long = tuple(4.0 ** (index / (pairs - 1)) for index in range(pairs))
        recipe = Recipe(method, factors=Factors(long, None, None))
        (tmp_path / "factors.json").write_text(recipe.encode())
        name = str(tmp_path / "factors.json")
    name = f"planned:{name}" + ("+keep-short" if keep_short else "")
    before = passkey_copy.read_bytes()
    planned = check(passkey_copy, replace(REQUEST, conditions=("file", name)))
    assert passkey_copy.read_bytes() == before
    rewrite(
        passkey_copy,
        PlanRequest(target_length=512, method=method, recipe=recipe, keep_short=keep_short),
    )
    written = check(passkey_copy, REQUEST)
    there = [replace(t, condition="file") for t in planned.trials if t.condition == name]
    assert there == list(written.trials)
    assert len(planned.run.audited) == 2


@pytest.mark.parametrize("method", [Method.LLAMA3, Method.YARN])
def test_a_file_that_was_extended_by_tensors_is_planned_from_its_original(
    method: Method, passkey_model: Path, passkey_copy: Path
) -> None:
    request = replace(REQUEST, conditions=(f"planned:{method.value}",))
    rewrite(passkey_copy, PlanRequest(target_length=1024, method=Method.LLAMA3))
    assert check(passkey_copy, request).trials == check(passkey_model, request).trials


@pytest.mark.parametrize("keep_short", [False, True])
def test_native_of_a_file_that_was_extended_by_tensors_is_the_original(
    keep_short: bool, passkey_model: Path, passkey_copy: Path
) -> None:
    rewrite(
        passkey_copy, PlanRequest(target_length=1024, method=Method.LLAMA3, keep_short=keep_short)
    )
    extended = passkey_copy.read_bytes()
    native = check(passkey_copy, replace(REQUEST, conditions=("native",)))
    original = check(passkey_model, REQUEST)
    assert [replace(t, condition="file") for t in native.trials] == list(original.trials)
    assert passkey_copy.read_bytes() == extended


def test_planned_tensors_are_refused_where_no_copy_is_allowed(passkey_copy: Path) -> None:
    with pytest.raises(EngineError, match="--yes") as refused:
        check(passkey_copy, replace(REQUEST, conditions=("planned:llama3",)), allowed=False)
    assert refused.value.code == "copy_not_allowed"
