"""Which conditions and lengths a request stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ggufext.comparison.request import CompareRequest, key_lengths
from ggufext.errors import PlanError
from ggufext.header.architectures import FactorSupport, Support
from ggufext.header.published import Published
from planning.facts import LLAMA_3, facts

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts

QWEN3 = replace(LLAMA_3, published=Published("Qwen3", 32_768, 1e6, 4.0, "https://example.org"))
USUAL = ("native", "planned:linear", "planned:ntk", "planned:gamma", "planned:yarn")


@pytest.mark.parametrize(
    ("trained", "target", "lengths"),
    [
        (8192, 8193, (8192, 8193)),
        (8192, 16_384, (8192, 16_384)),
        (8192, 32_768, (8192, 16_384, 32_768)),
        (8192, 131_072, (8192, 32_768, 65_536, 131_072)),
        (256, 1000, (256, 500, 1000)),
    ],
)
def test_keys_are_asked_as_trained_and_at_doublings_up_to_the_target(
    trained: int, target: int, lengths: tuple[int, ...]
) -> None:
    assert key_lengths(trained, target) == lengths


@pytest.mark.parametrize("target", [8192, 4096])
def test_a_target_within_the_training_length_leaves_nothing_to_compare(target: int) -> None:
    with pytest.raises(PlanError) as refused:
        key_lengths(8192, target)
    assert refused.value.code == "target_not_longer"


def conditions(
    request: CompareRequest, model: ModelFacts, *, copies: bool = False
) -> tuple[str, ...]:
    resolved, left_out = request.resolved(model, copies=copies)
    assert not left_out
    return resolved.conditions


def test_what_the_publisher_documents_is_measured_where_it_reaches_the_target() -> None:
    request = CompareRequest(target_length=131_072)
    assert conditions(request, QWEN3) == (*USUAL, "planned:documented")
    assert conditions(request, LLAMA_3) == USUAL
    assert conditions(replace(request, target_length=262_144), QWEN3) == USUAL


def test_native_is_always_measured_and_first() -> None:
    for asked in (("planned:yarn",), ("planned:yarn", "native"), ("native", "planned:yarn")):
        request = CompareRequest(target_length=131_072, conditions=asked)
        assert conditions(request, QWEN3) == ("native", "planned:yarn")


def test_llama3_is_usual_where_copies_are_allowed_and_the_model_takes_it() -> None:
    request = CompareRequest(target_length=131_072)
    takes = replace(LLAMA_3, factor_support=FactorSupport.ROPE_FREQS)
    assert conditions(request, takes) == USUAL
    assert conditions(request, takes, copies=True) == (*USUAL, "planned:llama3")


def test_a_usual_condition_that_the_model_does_not_take_is_left_out_with_the_reason() -> None:
    model = facts(train_length=8192, freq_base=5e5, architecture="gemma2")
    local = replace(model.layers[0], window=1024, moves=False, follows_scaling=True)
    model = replace(model, layers=(*model.layers, local))
    resolved, left_out = CompareRequest(target_length=131_072).resolved(model, copies=True)
    assert resolved.conditions == ("native", "planned:ntk", "planned:gamma")
    assert {each.code for each in left_out} == {"condition_left_out"}
    for method, each in zip(("linear", "yarn", "llama3"), left_out, strict=True):
        assert each.message.startswith(f"planned:{method} is left out: ")


def test_a_model_that_takes_no_method_is_refused() -> None:
    unknown = replace(LLAMA_3, support=Support.UNKNOWN)
    with pytest.raises(PlanError) as refused:
        CompareRequest(target_length=131_072).resolved(unknown)
    assert refused.value.code == "unverified_architecture"
