"""γ by the Padé formula, the γ rule and the verdict, with tafagent's numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.planning.gamma import Verdict, d_horizon, freq_base_for_gamma, gamma_pade
from ggufext.planning.gamma import verdict as judged
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest
from planning.facts import facts

BASES = st.floats(min_value=2.0, max_value=1e12)
LENGTHS = st.integers(min_value=1, max_value=2**31 - 1)

# T, θ, L, method, γ unscaled at L, γ effective, θ for γ = 0.5 at L, verdict: answers of
# tafagent's planner (js/yarn_planner.js) to these inputs.
TAFAGENT = [
    (4096, 1e4, 32768, "yarn", -0.3970541574568925, 0.5508312818257147, 69511.42501776238,
     "NEEDS-FINETUNE"),
    (4096, 1e4, 6000, "linear", 0.40423397875139383, 0.5508312818257147, 12727.922061357858,
     "USABLE-WITH-CARE"),
    (4096, 1e4, 8192, "yarn", 0.26641441262713045, 0.5508312818257147, 17377.856254440594,
     "USABLE-WITH-CARE"),
    (8192, 5e5, 32768, "yarn", 0.9114228492895797, 0.9770948861777424, 69511.42501776238,
     "HEALTHY"),
    (32768, 1e6, 131072, "yarn", 0.8303588628645275, 0.954708476110422, 278045.7000710495,
     "HEALTHY"),
    (2048, 1e4, 16384, "linear", -0.07344081818617845, 0.7470064429851828, 34755.71250888119,
     "NEEDS-FINETUNE"),
    (4096, 500.0, 8192, "yarn", -0.8410836506240311, -0.7055627478630131, 17377.856254440594,
     "DEGRADES"),
]  # fmt: skip


@pytest.mark.parametrize(("train", "base", "target", "method", "unscaled", "effective", "half",
                          "verdict"), TAFAGENT)  # fmt: skip
def test_plans_agree_with_tafagent(
    train: int, base: float, target: int, method: str, unscaled: float, effective: float,
    half: float, verdict: str,
) -> None:  # fmt: skip
    made = plan(
        facts(train_length=train, freq_base=base),
        PlanRequest(target_length=target, method=Method(method)),
    )
    assert made.gamma.unscaled == pytest.approx(unscaled, rel=1e-12)
    assert made.gamma.effective == pytest.approx(effective, rel=1e-12)
    assert judged(made.gamma.effective, made.factor) is Verdict(verdict)
    if method != "linear":  # which tafagent calls healthy without the fine-tuning that it needs
        assert made.verdict is Verdict(verdict)
    assert freq_base_for_gamma(0.5, target) == pytest.approx(half, rel=1e-12)


@given(base=BASES, length=LENGTHS)
def test_the_rule_inverts_the_formula(base: float, length: int) -> None:
    gamma = gamma_pade(base, length)
    # γ is a difference of nearly equal numbers where one side dwarfs the other.
    if abs(gamma) < 1 - 1e-9:
        assert freq_base_for_gamma(gamma, length) == pytest.approx(base, rel=1e-5)


@given(base=BASES, length=LENGTHS)
def test_gamma_is_one_at_length_zero_and_falls(base: float, length: int) -> None:
    assert gamma_pade(base, 0) == 1.0
    assert -1.0 <= gamma_pade(base, length) < 1.0 or length * math.sqrt(2) < base * 1e-15


@given(base=BASES, train=LENGTHS)
def test_d_horizon_of_the_native_gamma_is_the_training_length(base: float, train: int) -> None:
    gamma = gamma_pade(base, train)
    horizon = d_horizon(base, gamma)
    if horizon is None:
        assert not 0 < gamma < 1
    elif gamma < 1 - 1e-9:
        assert horizon == pytest.approx(train, rel=1e-5)


@pytest.mark.parametrize("gamma", [-1.0, 1.0, 1.5, math.nan])
def test_the_rule_refuses_a_gamma_outside_its_range(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma"):
        freq_base_for_gamma(gamma, 4096)


@pytest.mark.parametrize("gamma", [0.0, -0.3, 1.0, 1.7])
def test_d_horizon_has_no_value_outside_its_domain(gamma: float) -> None:
    assert d_horizon(1e4, gamma) is None
