"""Which conditions and lengths a request stands for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ggufext.comparison.request import CompareRequest, key_lengths
from ggufext.errors import PlanError
from ggufext.header.published import Published
from planning.facts import LLAMA_3

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


def test_what_the_publisher_documents_is_measured_where_it_reaches_the_target() -> None:
    request = CompareRequest(target_length=131_072)
    assert request.resolved(QWEN3).conditions == (*USUAL, "planned:documented")
    assert request.resolved(LLAMA_3).conditions == USUAL
    longer = replace(request, target_length=262_144)
    assert longer.resolved(QWEN3).conditions == USUAL


def test_native_is_always_measured_and_first() -> None:
    for asked in (("planned:yarn",), ("planned:yarn", "native"), ("native", "planned:yarn")):
        request = CompareRequest(target_length=131_072, conditions=asked)
        assert request.resolved(QWEN3).conditions == ("native", "planned:yarn")
