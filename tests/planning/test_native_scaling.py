"""Models that come scaled: what extends them, from which frequencies, and what is refused.

The references are plain float64 versions of transformers' modeling_rope_utils.py.
"""

from __future__ import annotations

import math

import pytest

from ggufext.errors import PlanError
from ggufext.header.architectures import FactorSupport
from ggufext.header.facts import ModelFacts, Scaling
from ggufext.header.frequencies import ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, ROPE_FREQS
from ggufext.planning.gamma import gamma_pade
from ggufext.planning.methods import Method, as_float32
from ggufext.planning.native import native_scaling
from ggufext.planning.plan import plan
from ggufext.planning.request import Factors, PlanRequest, Recipe
from planning.facts import codes, edits, facts, tensors


def native(base: float, dim: int) -> list[float]:
    return [1.0 / base ** (i / dim) for i in range(0, dim, 2)]


def llama3_reference(base: float, dim: int, factor: float, original: int) -> list[float]:
    """_compute_llama3_parameters with low_freq_factor 1 and high_freq_factor 4."""
    found = []
    for w in native(base, dim):
        wavelength = 2 * math.pi / w
        if wavelength < original / 4.0:
            found.append(w)
        elif wavelength > original / 1.0:
            found.append(w / factor)
        else:
            smooth = (original / wavelength - 1.0) / (4.0 - 1.0)
            found.append((1 - smooth) * w / factor + smooth * w)
    return found


def yarn_reference(base: float, dim: int, factor: float, original: int) -> list[float]:
    """_compute_yarn_parameters with beta_fast 32, beta_slow 1 and truncation."""

    def correction(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(correction(32)), 0)
    high = min(math.ceil(correction(1)), dim - 1)
    found = []
    for i, w in enumerate(native(base, dim)):
        ramp = min(max((i - low) / max(high - low, 0.001), 0.0), 1.0)
        found.append(w / factor * ramp + w * (1 - ramp))
    return found


def llama_31_factors(factor: float = 8.0) -> tuple[float, ...]:
    """As convert_hf_to_gguf.py writes rope_freqs.weight, float32."""
    pairs = zip(native(5e5, 128), llama3_reference(5e5, 128, factor, 8192), strict=True)
    return tuple(as_float32(w / scaled) for w, scaled in pairs)


def llama_31(factors: tuple[float, ...] | None = None) -> ModelFacts:
    tensor = {ROPE_FREQS: factors or llama_31_factors()}
    return facts(
        train_length=131072,
        freq_base=5e5,
        scaling=Scaling("linear", 1.0, None, 1.0, (ROPE_FREQS,)),
        factors=tensor,
        factor_support=FactorSupport.BY_TYPE,
    )


#: Shaped like Phi-3-mini-128k's: 48 pairs, short near 1, long from 1 to about 64.
PHI_3_SHORT = tuple(as_float32(1.0 + 0.04 * i) for i in range(48))
PHI_3_LONG = tuple(as_float32(64.0 ** (i / 47)) for i in range(48))
PHI_3_ATTENTION = as_float32(1.19024)


def phi_3_128k() -> ModelFacts:
    return facts(
        architecture="phi3",
        train_length=131072,
        freq_base=1e4,
        rotary_dim=96,
        scaling=Scaling(
            "longrope", 1.0, 4096, PHI_3_ATTENTION, (ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT)
        ),
        factors={ROPE_FACTORS_LONG: PHI_3_LONG, ROPE_FACTORS_SHORT: PHI_3_SHORT},
        factor_support=FactorSupport.LONG_SHORT,
    )


#: With the entry rope_scaling {factor 4, original 32768, type yarn} that the model card gives.
QWEN_25 = facts(
    architecture="qwen2",
    train_length=131072,
    freq_base=1e6,
    scaling=Scaling("yarn", 4.0, 32768, 1.0, ()),
)
GPT_OSS = facts(
    architecture="gpt-oss",
    train_length=131072,
    freq_base=150_000.0,
    rotary_dim=64,
    scaling=Scaling("yarn", 32.0, 4096, 1.0, ()),
)
DEEPSEEK_CODER = facts(
    train_length=16384, freq_base=1e5, scaling=Scaling("linear", 4.0, None, 1.0, ())
)


def refusal(model: ModelFacts, **request: object) -> PlanError:
    with pytest.raises(PlanError) as caught:
        plan(model, PlanRequest(**request))  # type: ignore[arg-type]
    return caught.value


def test_the_llama_31_tensor_has_29_ones_6_between_and_29_eights() -> None:
    factors = llama_31_factors()
    assert factors.count(1.0) == 29
    assert factors.count(8.0) == 29
    between = [factor for factor in factors if 1.0 < factor < 8.0]
    assert between == pytest.approx([1.2075, 1.5534, 2.0263, 2.6945, 3.6843, 5.2573], abs=5e-5)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (llama_31(), llama3_reference(5e5, 128, 8.0, 8192)),
        (QWEN_25, yarn_reference(1e6, 128, 4.0, 32768)),
        (GPT_OSS, yarn_reference(150_000.0, 64, 32.0, 4096)),
        (DEEPSEEK_CODER, [w / 4.0 for w in native(1e5, 128)]),
        (phi_3_128k(), [w / f for w, f in zip(native(1e4, 96), PHI_3_LONG, strict=True)]),
    ],
    ids=["Llama-3.1", "Qwen2.5 with YaRN", "gpt-oss", "deepseek-coder", "Phi-3-mini-128k"],
)
def test_native_frequencies_are_those_in_effect(model: ModelFacts, expected: list[float]) -> None:
    assert native_scaling(model).inv_freq == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("model", "original"), [(QWEN_25, 32768), (GPT_OSS, 4096)])
def test_yarn_goes_on_yarn_with_the_target_over_the_original_length(
    model: ModelFacts, original: int
) -> None:
    made = plan(model, PlanRequest(target_length=262144, method=Method.YARN))
    factor = 262144 / original
    assert edits(made) == {"context_length": 262144, "rope.scaling.factor": factor}
    expected = yarn_reference(model.freq_base, model.rotary_dim, factor, original)
    assert made.inv_freq == pytest.approx(expected, rel=1e-12)
    assert made.attention_factor == pytest.approx(1 + 0.1 * math.log(factor))


def test_yarn_keeps_the_trained_factor_where_it_reaches_the_target() -> None:
    # As converters write it: context_length from max_position_embeddings, which stays 32768.
    short = facts(
        architecture="qwen2",
        train_length=32768,
        freq_base=1e6,
        scaling=Scaling("yarn", 4.0, 32768, 1.0, ()),
    )
    assert edits(plan(short, PlanRequest(target_length=131072, method=Method.YARN))) == {
        "context_length": 131072
    }
    assert (
        plan(short, PlanRequest(target_length=65536, method=Method.YARN)).freq_scale_factor == 4.0
    )


def test_linear_goes_on_linear_with_the_product_of_the_factors() -> None:
    made = plan(DEEPSEEK_CODER, PlanRequest(target_length=32768, method=Method.LINEAR))
    assert edits(made) == {
        "context_length": 32768,
        "rope.scaling.factor": 8.0,
        "rope.scaling.original_context_length": 4096,
    }
    assert made.inv_freq == pytest.approx([w / 8.0 for w in native(1e5, 128)])


def test_llama3_makes_the_models_own_factors_again_for_the_target() -> None:
    made = plan(llama_31(), PlanRequest(target_length=262144, method=Method.LLAMA3))
    assert tensors(made)[ROPE_FREQS] == pytest.approx(llama_31_factors(16.0), rel=1e-6)
    assert made.inv_freq == pytest.approx(llama3_reference(5e5, 128, 16.0, 8192), rel=1e-6)
    assert "rope.freq_base" not in edits(made)


@pytest.mark.parametrize("method", [Method.GAMMA, Method.NTK])
def test_base_methods_stand_above_rope_freqs(method: Method) -> None:
    made = plan(llama_31(), PlanRequest(target_length=262144, method=method))
    after = made.freq_base.after
    assert after == pytest.approx(5e5 * (2 if method is Method.GAMMA else 2 ** (128 / 126)))
    factors = llama_31_factors()
    expected = [w / f for w, f in zip(native(after, 128), factors, strict=True)]
    assert made.inv_freq == pytest.approx(expected, rel=1e-9)
    assert made.tensor_edits == ()


@pytest.mark.parametrize("method", [Method.LINEAR, Method.YARN])
def test_scaling_methods_divide_what_rope_freqs_divide(method: Method) -> None:
    made = plan(llama_31(), PlanRequest(target_length=262144, method=method))
    assert edits(made)["rope.scaling.type"] == method.value
    assert edits(made)["rope.scaling.factor"] == 2.0
    plain = (
        [w / 2 for w in native(5e5, 128)]
        if method is Method.LINEAR
        else yarn_reference(5e5, 128, 2.0, 131072)
    )
    expected = [w / f for w, f in zip(plain, llama_31_factors(), strict=True)]
    assert made.inv_freq == pytest.approx(expected, rel=1e-9)


def test_longrope_gets_new_long_factors_and_keeps_the_short_ones() -> None:
    made = plan(phi_3_128k(), PlanRequest(target_length=262144, method=Method.LINEAR))
    assert set(tensors(made)) == {ROPE_FACTORS_LONG}
    assert tensors(made)[ROPE_FACTORS_LONG] == pytest.approx([2 * f for f in PHI_3_LONG])
    assert edits(made) == {"context_length": 262144}
    assert made.original_length == 4096
    assert made.attention_factor == PHI_3_ATTENTION
    assert made.keep_short


def test_the_gamma_rule_on_longrope_multiplies_as_its_base_would() -> None:
    made = plan(phi_3_128k(), PlanRequest(target_length=262144))
    expected = [f * 2 ** (2 * i / 96) for i, f in enumerate(PHI_3_LONG)]
    assert tensors(made)[ROPE_FACTORS_LONG] == pytest.approx(expected, rel=1e-6)
    assert made.freq_base.before == made.freq_base.after == 1e4


def test_longrope_factors_from_outside_replace_the_models_own() -> None:
    long = tuple(2.0 + i for i in range(48))
    made = plan(
        phi_3_128k(),
        PlanRequest(
            target_length=262144,
            method=Method.LONGROPE,
            recipe=Recipe(Method.LONGROPE, factors=Factors(long, None, 1.25)),
        ),
    )
    assert tensors(made) == {ROPE_FACTORS_LONG: long}
    assert edits(made)["rope.scaling.attn_factor"] == 1.25


@pytest.mark.parametrize(
    ("model", "scale"), [(llama_31(), 8.0), (QWEN_25, 4.0), (DEEPSEEK_CODER, 4.0)]
)
def test_gamma_counts_the_native_scaling_as_a_larger_base(model: ModelFacts, scale: float) -> None:
    method = {4.0: Method.YARN, 8.0: Method.LLAMA3}[scale]
    if model is DEEPSEEK_CODER:
        method = Method.LINEAR
    length = model.train_length
    made = plan(model, PlanRequest(target_length=2 * length, method=method))
    assert made.gamma.native == pytest.approx(gamma_pade(model.freq_base * scale, length))
    assert made.gamma.unscaled == pytest.approx(gamma_pade(model.freq_base * scale, 2 * length))
    assert made.gamma.effective == pytest.approx(made.gamma.native)


def test_angles_are_compared_with_those_of_the_trained_frequencies() -> None:
    made = plan(DEEPSEEK_CODER, PlanRequest(target_length=32768, method=Method.LINEAR))
    assert made.out_of_distribution.pairs == 0
    assert made.out_of_distribution.max_excess == pytest.approx(1.0)


#: Three quarters of the pairs do not turn, as gemma4's converter writes it.
SWITCHED_OFF = llama_31((1.0,) * 16 + (1e30,) * 48)


@pytest.mark.parametrize("method", [Method.GAMMA, Method.YARN, Method.LINEAR], ids=str)
def test_pairs_that_do_not_turn_have_no_angles_and_no_part_in_gamma(method: Method) -> None:
    made = plan(SWITCHED_OFF, PlanRequest(target_length=524288, method=method))
    slowest = SWITCHED_OFF.inv_freq[15]
    assert slowest * 131072 > 2 * math.pi, "every angle of the pairs that turn was trained"
    assert (made.out_of_distribution.pairs, made.out_of_distribution.max_excess) == (0, 0.0)
    assert made.gamma.native == gamma_pade(5e5, 131072)
    (said,) = (w.message for w in made.warnings if w.code == "slow_pairs_off")
    assert "16 of 64 pairs turn" in said


def test_it_is_said_that_gamma_is_not_defined_for_factors() -> None:
    assert "gamma_not_defined" in codes(plan(llama_31(), PlanRequest(target_length=262144)))
    assert "gamma_not_defined" in codes(plan(phi_3_128k(), PlanRequest(target_length=262144)))
    yarn = plan(QWEN_25, PlanRequest(target_length=262144, method=Method.YARN))
    assert "native_scaling" in codes(yarn)
    assert "gamma_not_defined" not in codes(yarn)


@pytest.mark.parametrize(
    ("model", "methods", "way_out"),
    [
        (QWEN_25, [Method.GAMMA, Method.NTK, Method.LINEAR, Method.LLAMA3], "--method yarn"),
        (GPT_OSS, [Method.GAMMA, Method.NTK, Method.LINEAR, Method.LLAMA3], "--method yarn"),
        (DEEPSEEK_CODER, [Method.YARN, Method.LLAMA3], "--method linear, gamma or ntk"),
        (phi_3_128k(), [Method.YARN], "--method gamma, ntk, linear, llama3 or longrope"),
    ],
    ids=["Qwen2.5 with YaRN", "gpt-oss", "deepseek-coder", "Phi-3-mini-128k"],
)
def test_everything_else_is_refused_with_what_can_be_done(
    model: ModelFacts, methods: list[Method], way_out: str
) -> None:
    for method in methods:
        error = refusal(model, target_length=2 * model.train_length, method=method)
        assert error.code == "cannot_combine"
        assert way_out in error.message


def test_factors_of_another_kind_than_llama3_are_not_made_again() -> None:
    odd = tuple(1.0 + 0.1 * i for i in range(64))
    error = refusal(llama_31(odd), target_length=262144, method=Method.LLAMA3)
    assert error.code == "cannot_combine"
    assert plan(llama_31(odd), PlanRequest(target_length=262144)).edits


@pytest.mark.parametrize(
    ("scaling", "named"),
    [
        (Scaling("linear", 4.0, None, 1.0, (ROPE_FREQS,)), "linear scaling by 4"),
        (Scaling("linear", 1.0, None, 1.19, ()), "attention factor 1.19"),
        (Scaling("longrope", 4.0, 4096, 1.0, ()), "longrope scaling by 4"),
        (Scaling("linear", 1.0, None, 1.0, ("rope_freqs.weight",)), "were not read"),
    ],
)
def test_scaling_that_no_training_explains_is_refused(scaling: Scaling, named: str) -> None:
    model = facts(train_length=16384, freq_base=1e5, scaling=scaling)
    error = refusal(model, target_length=32768)
    assert error.code == "cannot_combine"
    assert named in error.message


def test_a_tensor_that_llama_cpp_ignores_for_the_architecture_is_refused() -> None:
    model = facts(
        architecture="qwen2",
        train_length=16384,
        freq_base=1e5,
        scaling=Scaling("linear", 1.0, None, 1.0, (ROPE_FREQS,)),
        factors={ROPE_FREQS: (2.0,) * 64},
    )
    assert "does not rotate qwen2" in refusal(model, target_length=32768).message
