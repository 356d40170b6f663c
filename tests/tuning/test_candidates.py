"""Candidates are what their names say, as far as files of an architecture can say it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ggufext.errors import PlanError
from ggufext.header.published import Published
from ggufext.opened.model import open_model
from ggufext.planning.request import PlanRequest
from ggufext.tuning.candidates import (
    Candidate,
    Kind,
    Space,
    integer_wavelengths,
    rounded,
    soft_clip,
    unturned,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Wavelengths of 6.28 to 628 tokens.
OMEGA = tuple(10.0 ** (-i / 2) for i in range(5))


def space(path: Path, *, metadata_only: bool = False, target: int = 8192) -> Space:
    request = PlanRequest(target_length=target)
    with open_model(path) as model:
        return Space(model.original_facts(request), request, metadata_only=metadata_only)


def by_name(space: Space) -> dict[str, Candidate]:
    return {each.name: each for each in (*space.closed_forms(), *space.starts())}


def test_integer_wavelengths_are_whole_and_nearest() -> None:
    lengths = [2 * math.pi / w for w in integer_wavelengths(OMEGA)]
    assert lengths == pytest.approx([6, 20, 63, 199, 628])
    assert integer_wavelengths([100.0]) == pytest.approx([2 * math.pi])


def test_only_pairs_that_did_not_turn_once_are_stretched() -> None:
    assert unturned(OMEGA, 200, 4.0) == pytest.approx([*OMEGA[:4], OMEGA[4] / 4])


def test_a_soft_clip_fades_what_did_not_turn_once_from_all_to_nothing() -> None:
    clipped = soft_clip(OMEGA, 60)
    assert [new / old for new, old in zip(clipped, OMEGA, strict=True)] == pytest.approx(
        [1, 1, 1, 0.5, 0], abs=1e-12
    )
    assert soft_clip(OMEGA, 10_000) == OMEGA
    assert soft_clip(OMEGA, 200) == OMEGA  # the first of the clipped pairs is left whole


def test_llama_takes_bases_and_factors(random_models: Callable[[str], Path]) -> None:
    found = by_name(space(random_models("llama")))
    closed = [name for name, x in found.items() if x.kind is Kind.CLOSED_FORM]
    assert closed == [f"planned:{name}" for name in ("linear", "ntk", "gamma", "yarn")]
    kinds = {each.kind for each in found.values()}
    assert kinds == set(Kind)
    for name in ("unturned", "cope", "yarn-integer", "yarn:32,1,1"):
        assert f"planned:{name}" in found


def test_what_needs_a_tensor_is_left_out_where_it_is_not_wanted_or_not_taken(
    random_models: Callable[[str], Path],
) -> None:
    for found in (
        by_name(space(random_models("llama"), metadata_only=True)),
        by_name(space(random_models("qwen2"))),
    ):
        kinds = {name: each.kind for name, each in found.items() if each.recipe}
        assert set(kinds.values()) == {Kind.BASE, Kind.PAIRS}
        # YaRN without its attention factor is keys that every architecture reads.
        assert [name for name in kinds if "base" not in name] == ["planned:yarn:32,1,1"]
        assert not any(each.plan.tensor_edits for each in found.values())


def test_yarn_is_keys_where_they_are_read_and_factors_where_not(
    random_models: Callable[[str], Path],
) -> None:
    keys, factors = (by_name(space(random_models(name))) for name in ("mistral3", "llama"))
    names = [name for name in keys if name.startswith("planned:yarn:")]
    assert len(names) == 9
    assert names == [name for name in factors if name.startswith("planned:yarn:")]
    assert not any(keys[name].plan.tensor_edits for name in names)
    plain = [name for name in names if not factors[name].plan.tensor_edits]
    assert plain == ["planned:yarn:32,1,1"]
    assert {keys[name].kind for name in names} == {Kind.PAIRS, Kind.SHARPENED_PAIRS}


def test_betas_beside_those_of_the_model_are_tried(random_models: Callable[[str], Path]) -> None:
    found = by_name(space(random_models("grok")))
    yarn = [name for name in found if name.startswith("planned:yarn:32,1,")]
    assert len(yarn) == 2  # its own beta_fast is 8


def test_the_publishers_scaling_is_a_closed_form_where_it_reaches_the_target(
    random_models: Callable[[str], Path],
) -> None:
    request = PlanRequest(target_length=8192)
    with open_model(random_models("qwen2")) as model:
        facts = model.original_facts(request)
    for factor, reaches in ((8.0, True), (2.0, False)):
        said = Published("A family", facts.train_length, None, factor, "https://example.org")
        known = Space(replace(facts, published=said), request, metadata_only=True)
        found = {each.name: each.plan for each in known.closed_forms()}
        assert ("planned:documented" in found) is reaches
    assert found["planned:yarn"].freq_scale_factor == 4.0


def test_a_model_that_takes_no_closed_form_says_why(
    random_models: Callable[[str], Path],
) -> None:
    with pytest.raises(PlanError) as refused:
        space(random_models("granite_swa")).closed_forms()
    assert refused.value.code == "local_layers_would_change"


def test_a_base_is_the_power_of_the_factor(random_models: Callable[[str], Path]) -> None:
    there = space(random_models("llama"))
    (made,) = there.base(0.63)
    assert made.plan.freq_base.after == pytest.approx(
        made.plan.freq_base.before * 4**0.63, rel=1e-3
    )
    assert there.exponent(made) == pytest.approx(0.63, abs=1e-3)
    gamma = by_name(there)["planned:gamma"]
    assert there.exponent(gamma) == pytest.approx(1.0)


def test_factors_give_the_frequencies_that_they_were_made_of(
    random_models: Callable[[str], Path],
) -> None:
    there = space(random_models("llama"))
    found = by_name(there)
    yarn = found["planned:yarn"].plan
    (same,) = there.rotation("same", yarn.inv_freq)
    assert same.plan.inv_freq == pytest.approx(yarn.inv_freq, rel=1e-3)
    assert (same.plan.attention_factor, same.plan.scaling_type) == (1.0, "longrope")
    assert there.factors_of(found["planned:unturned"]) == pytest.approx(
        found["planned:unturned"].plan.long_factors, rel=1e-3
    )
    assert found["planned:yarn-integer"].plan.attention_factor == pytest.approx(
        yarn.attention_factor, rel=1e-3
    )


def test_values_are_rounded_to_what_could_be_measured() -> None:
    assert (rounded(123456.0), rounded(0.0123456)) == (123500.0, 0.01235)
