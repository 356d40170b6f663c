"""Which layers rotate, which are local, what reaches them, and what they cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gguf_bytes import F32, U32, Array, gguf_bytes
from ggufext.errors import HeaderError, PlanError
from ggufext.header.architectures import (
    Architecture,
    Layout,
    Positions,
    architecture,
    architecture_names,
)
from ggufext.header.facts import ModelFacts, model_facts
from ggufext.header.header import parse_header

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOL = 7


def facts(name: str, keys: Mapping[str, object] | None = None, *, layers: int = 8) -> ModelFacts:
    model: dict[str, object] = {
        "context_length": U32(4096),
        "block_count": U32(layers),
        "embedding_length": U32(1024),
        "attention.head_count": U32(8),
        "attention.head_count_kv": U32(4),
        "rope.freq_base": F32(50_000.0),
    }
    model |= keys or {}
    written = {f"{name}.{key}": value for key, value in model.items() if value is not None}
    data = gguf_bytes(keys={"general.architecture": name, **written}, tensors=[])
    return model_facts(parse_header(data, file_size=len(data)))


WINDOW = {"attention.sliding_window": U32(512)}


def local(found: ModelFacts) -> list[int]:
    return [i for i, layer in enumerate(found.layers) if layer.window is not None]


def unrotated(found: ModelFacts) -> list[int]:
    return [i for i, layer in enumerate(found.layers) if not layer.rotates]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gemma2", [0, 2, 4, 6]),
        ("gpt-oss", [0, 2, 4, 6]),
        ("gemma3n", [0, 1, 2, 3, 5, 6, 7]),
        ("olmo2", [0, 1, 2, 4, 5, 6]),
        ("smallthinker", [1, 2, 3, 5, 6, 7]),
        ("phi3", []),
        ("llama", []),
    ],
)
def test_the_architecture_says_which_layers_are_local(name: str, expected: list[int]) -> None:
    assert local(facts(name, WINDOW)) == expected


@pytest.mark.parametrize(
    ("name", "written", "window"),
    [
        ("gemma2", None, 4096),
        ("gemma2", U32(512), 512),
        ("llama4", None, 8192),
        ("llama4", U32(512), 8192),
        ("smallthinker", U32(512), 4096),
    ],
)
def test_some_windows_have_a_default_or_one_size_only(
    name: str, written: object, window: int
) -> None:
    found = facts(name, {"attention.sliding_window": written})
    assert {layer.window for layer in found.layers} == {None, window}


def test_a_pattern_that_an_architecture_needs_and_the_file_lacks_is_named() -> None:
    with pytest.raises(HeaderError) as caught:
        facts("spark2_5", WINDOW)
    assert (caught.value.code, caught.value.field) == (
        "missing_key",
        "spark2_5.attention.sliding_window_pattern",
    )


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("smollm3", {}, [3, 7]),
        ("llama4", {}, [3, 7]),
        ("afmoe", WINDOW, [3, 7]),
        ("smallthinker", WINDOW, [0, 4]),
        ("smallthinker", {}, []),
        ("cohere2", WINDOW, [3, 7]),
        ("cohere2moe", WINDOW, [0, 4]),
        ("cohere2moe", {**WINDOW, "leading_dense_block_count": U32(1)}, [4]),
        ("exaone4", WINDOW, []),
        ("qwen3next", {}, [0, 1, 2, 4, 5, 6]),
        ("qwen35", {"full_attention_interval": U32(2)}, [0, 2, 4, 6]),
        ("qwen35", {"attention.recurrent_layers": Array(BOOL, [False] * 7 + [True])}, [7]),
        ("lfm2", {"attention.head_count_kv": Array(4, [0, 4, 0, 4, 0, 4, 0, 4])}, [0, 2, 4, 6]),
        (
            "granite_swa",
            {
                **WINDOW,
                "attention.sliding_window_pattern": Array(BOOL, [True, False] * 4),
                "attention.rope_pattern": Array(BOOL, [True] * 6 + [False] * 2),
            },
            [6, 7],
        ),
    ],
)
def test_some_layers_have_no_positions(
    name: str, keys: dict[str, object], expected: list[int]
) -> None:
    assert unrotated(facts(name, keys)) == expected


def test_exaone4_has_local_layers_with_64_layers_only() -> None:
    found = facts("exaone4", layers=64)
    assert unrotated(found) == list(range(3, 64, 4))
    assert not any(layer.moves for layer in found.layers)


@pytest.mark.parametrize(
    ("name", "base", "follows_base", "can_be_kept", "follows_scaling"),
    [
        ("gemma3", 10_000.0, False, True, False),
        ("gemma2", 50_000.0, True, True, True),
        ("olmo2", 50_000.0, True, False, False),
        ("cohere2", 50_000.0, True, False, True),
    ],
)
def test_what_reaches_local_layers(
    name: str, base: float, follows_base: bool, can_be_kept: bool, follows_scaling: bool
) -> None:
    layer = facts(name, WINDOW).layers[0]
    assert layer.window == 512
    assert layer.freq_base == base
    assert layer.follows_freq_base == follows_base
    assert layer.freq_base_can_be_kept == can_be_kept
    assert layer.follows_scaling == follows_scaling


def test_freq_base_swa_counts_where_it_is_read_only() -> None:
    own = {**WINDOW, "rope.freq_base_swa": F32(20_000.0)}
    assert facts("gemma2", own).layers[0].freq_base == 20_000.0
    assert not facts("gemma2", own).layers[0].follows_freq_base
    assert facts("olmo2", own).layers[0].freq_base == 50_000.0


def test_local_layers_may_have_heads_of_their_own() -> None:
    found = facts(
        "gemma4",
        {
            **WINDOW,
            "attention.sliding_window_pattern": Array(BOOL, [True, False] * 4),
            "attention.key_length": U32(512),
            "attention.value_length": U32(512),
            "attention.key_length_swa": U32(256),
            "attention.value_length_swa": U32(256),
            "rope.dimension_count": U32(512),
            "rope.dimension_count_swa": U32(256),
            "attention.shared_kv_layers": U32(2),
        },
    )
    assert [layer.key_length for layer in found.layers[:2]] == [256, 512]
    assert [layer.rotary_dim for layer in found.layers[:2]] == [256, 512]
    assert found.rotary_dim == 512
    assert [layer.head_count_kv for layer in found.layers] == [4] * 6 + [0] * 2


def test_mla_caches_keys_only() -> None:
    mla = {
        "attention.head_count_kv": U32(1),
        "attention.key_length": U32(576),
        "attention.value_length": U32(512),
        "attention.key_length_mla": U32(192),
        "attention.value_length_mla": U32(128),
        "rope.dimension_count": U32(64),
    }
    found = facts("deepseek2", mla)
    assert (found.head_dim, found.rotary_dim, found.scales_attention) == (192, 64, True)
    assert {(layer.key_length, layer.value_length) for layer in found.layers} == {(576, 0)}
    plain = facts("deepseek2", {**mla, "attention.key_length_mla": None})
    assert {layer.value_length for layer in plain.layers} == {512}


def test_alpha_multiplies_the_base_of_hunyuan() -> None:
    found = facts("hunyuan-dense", {"rope.scaling.alpha": F32(1000.0)})
    assert found.freq_base == pytest.approx(50_000.0 * 1000.0 ** (128 / 126))
    assert facts("llama", {"rope.scaling.alpha": F32(1000.0)}).freq_base == 50_000.0


def test_layers_that_predict_further_tokens_do_not_count() -> None:
    assert len(facts("glm4moe", {"nextn_predict_layers": U32(1)}).layers) == 7


@pytest.mark.parametrize(
    ("name", "keys", "field"),
    [
        ("glm4moe", {"nextn_predict_layers": U32(8)}, "nextn_predict_layers"),
        ("hunyuan-dense", {"rope.scaling.alpha": F32(1e30)}, "rope.scaling.alpha"),
        (
            "qwen35",
            {"attention.recurrent_layers": Array(BOOL, [True])},
            "attention.recurrent_layers",
        ),
        (
            "gemma2",
            {**WINDOW, "rope.dimension_count_swa": U32(15)},
            "rope.dimension_count_swa",
        ),
        (
            "gemma4",
            {
                **WINDOW,
                "attention.sliding_window_pattern": Array(BOOL, [True, False] * 4),
                "attention.key_length_swa": U32(64),
            },
            "attention.key_length_swa",
        ),
    ],
)
def test_nonsense_about_layers_is_named(name: str, keys: dict[str, object], field: str) -> None:
    with pytest.raises(HeaderError) as caught:
        facts(name, keys)
    assert caught.value.code == "nonsense_value"
    assert caught.value.field == f"{name}.{field}"


@pytest.mark.parametrize(
    ("sections", "layout"),
    [
        (None, Layout.INTERLEAVED),
        (Array(5, [16, 24, 24, 0]), Layout.SECTIONS),
        (Array(5, [64, 0, 0, 0]), Layout.INTERLEAVED),
    ],
)
def test_glm4_has_sections_where_the_file_says_so(sections: object, layout: Layout) -> None:
    assert facts("glm4", {"rope.dimension_sections": sections}).layout is layout


def refusal(entry: Architecture) -> str | None:
    if entry.kind != "language_model":
        return "not_a_language_model"
    return {Positions.LEARNED: "learned_positions", Positions.NONE: "no_rope"}.get(entry.positions)


@pytest.mark.parametrize(
    "name", [name for name in architecture_names() if refusal(architecture(name))]
)
def test_what_cannot_be_extended_is_refused_by_name(name: str) -> None:
    with pytest.raises(PlanError) as caught:
        facts(name)
    assert caught.value.code == refusal(architecture(name))
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("name", "keys", "code"),
    [
        ("baichuan", {"block_count": U32(40)}, "no_rope"),
        ("granite", {"rope.scaling.finetuned": False}, "no_rope"),
        ("cogvlm", {}, "rope_keys_not_read"),
    ],
)
def test_single_models_that_cannot_be_extended_are_refused(
    name: str, keys: dict[str, object], code: str
) -> None:
    with pytest.raises(PlanError) as caught:
        facts(name, keys)
    assert caught.value.code == code
