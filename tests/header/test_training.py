"""What a plan starts from where a file says something else: an earlier extension, the publisher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gguf_bytes import F32, U32, Tensor, gguf_bytes
from ggufext.errors import PlanError
from ggufext.header.header import parse_header
from ggufext.header.training import trained_facts

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts

LLAMA: dict[str, object] = {
    "general.architecture": "llama",
    "llama.context_length": U32(8192),
    "llama.block_count": U32(2),
    "llama.embedding_length": U32(64),
    "llama.attention.head_count": U32(2),
    "llama.rope.freq_base": F32(20000.0),
}
PREFIX = "llama.rope.scaling."
ORIGINAL: dict[str, object] = {f"{PREFIX}original_context_length": U32(2048)}
LONG = Tensor("rope_factors_long.weight", (16,), "F32")
SHORT = Tensor("rope_factors_short.weight", (16,), "F32")
FREQS = Tensor("rope_freqs.weight", (16,), "F32")


def trained(keys: dict[str, object], *tensors: Tensor, **given: float) -> ModelFacts:
    data = gguf_bytes(keys={**LLAMA, **keys}, tensors=tensors)
    return trained_facts(parse_header(data, file_size=len(data)), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "tensors", "base_known"),
    [
        (ORIGINAL, (), False),
        ({**ORIGINAL, f"{PREFIX}type": "none"}, (), False),
        ({**ORIGINAL, f"{PREFIX}type": "none"}, (FREQS,), False),
        ({**ORIGINAL, f"{PREFIX}type": "longrope"}, (LONG,), True),
    ],
)
def test_an_original_length_that_no_scaling_needs_is_an_extension(
    keys: dict[str, object], tensors: tuple[Tensor, ...], base_known: bool
) -> None:
    found = trained(keys, *tensors).earlier_extension
    assert found is not None
    assert (found.train_length, found.target_length) == (2048, 8192)
    assert (found.method, found.freq_base_known) == (None, base_known)


@pytest.mark.parametrize(
    ("keys", "tensors"),
    [
        ({}, ()),
        ({f"{PREFIX}original_context_length": U32(8192)}, ()),
        ({f"{PREFIX}original_context_length": U32(0)}, ()),
        ({**ORIGINAL, f"{PREFIX}type": "yarn", f"{PREFIX}factor": F32(4.0)}, ()),
        ({**ORIGINAL, f"{PREFIX}type": "linear", f"{PREFIX}factor": F32(4.0)}, ()),
        ({**ORIGINAL, f"{PREFIX}type": "longrope"}, (LONG, SHORT)),
        (ORIGINAL, (FREQS,)),
    ],
)
def test_scaling_of_the_training_is_no_extension(
    keys: dict[str, object], tensors: tuple[Tensor, ...]
) -> None:
    assert trained(keys, *tensors).earlier_extension is None


def test_a_phi3_without_factors_in_sight_is_as_converted() -> None:
    """Its converter writes no type; the factors may lie in another part of a split model."""
    keys = {key.replace("llama", "phi3"): value for key, value in {**LLAMA, **ORIGINAL}.items()}
    keys |= {"general.architecture": "phi3", "phi3.attention.head_count_kv": U32(2)}
    data = gguf_bytes(keys=keys)
    found = trained_facts(parse_header(data, file_size=len(data)))
    assert (found.train_length, found.earlier_extension) == (8192, None)
    data = gguf_bytes(keys={**keys, "phi3.rope.scaling.type": "none"})
    extended = trained_facts(parse_header(data, file_size=len(data))).earlier_extension
    assert extended is not None


def test_an_absent_base_cannot_have_been_changed() -> None:
    data = gguf_bytes(
        keys={key: value for key, value in LLAMA.items() if "freq_base" not in key} | ORIGINAL
    )
    found = trained_facts(parse_header(data, file_size=len(data))).earlier_extension
    assert found is not None
    assert found.freq_base_known


def test_the_training_length_is_the_one_before_the_extension() -> None:
    found = trained(ORIGINAL)
    assert found.train_length == 2048
    assert found.train_length_source == "llama.rope.scaling.original_context_length"


def test_a_given_base_is_that_of_the_training() -> None:
    found = trained(ORIGINAL, train_freq_base=1e4)
    assert found.freq_base == 1e4
    assert found.earlier_extension is not None
    assert found.earlier_extension.freq_base_known
    assert dict(found.metadata)["llama.rope.freq_base"] == 20000.0


def test_a_given_length_says_that_the_model_was_trained_as_it_stands() -> None:
    found = trained(ORIGINAL, train_length=8192)
    assert (found.train_length, found.train_length_source) == (8192, "--train-length")
    assert found.earlier_extension is None


def test_a_given_length_below_it_leaves_the_extension_one() -> None:
    found = trained(ORIGINAL, train_length=1024)
    assert found.earlier_extension is not None
    assert found.earlier_extension.train_length == found.train_length == 1024


@pytest.mark.parametrize("base", [1.0, float("inf"), float("nan"), 1e39])
def test_a_base_that_no_file_holds_is_refused(base: float) -> None:
    with pytest.raises(PlanError, match="32-bit number above 1"):
        trained({}, train_freq_base=base)


def test_an_extended_file_of_a_known_family_is_still_one() -> None:
    names = {"general.basename": "Mistral-Nemo", **ORIGINAL}
    names |= {
        "llama.context_length": U32(262144),
        f"{PREFIX}original_context_length": U32(131072),
    }
    found = trained(names)
    assert found.earlier_extension is not None
    assert found.train_length == 131072
    assert found.train_length_source == "llama.rope.scaling.original_context_length"
    assert found.published is not None
    assert found.published.family == "Mistral Nemo"


def test_a_given_length_overrides_the_documented_one() -> None:
    names = {"general.basename": "Mistral-Nemo", "llama.context_length": U32(1024000)}
    assert trained(names).train_length == 131072
    assert "mistralai" in trained(names).train_length_source
    assert trained(names, train_length=65536).train_length == 65536
