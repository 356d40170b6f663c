"""Hugging Face configurations: what is read, and what is refused by name."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufext.errors import GgufextError, PlanError
from ggufext.header.architectures import Layout
from ggufext.header.hf_config import HfConfig, config_file, read_config
from ggufext.planning.emit import Engine, emit
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 4,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rope_scaling": None,
}
GEMMA3: dict[str, Any] = LLAMA | {
    "model_type": "gemma3_text",
    "head_dim": 256,
    "num_hidden_layers": 7,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., HfConfig]:
    def read(entries: object, **options: int) -> HfConfig:
        path = tmp_path / "config.json"
        path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        return read_config(path, **options)

    return read


@pytest.fixture
def refusal(read: Callable[..., HfConfig]) -> Callable[[object], GgufextError]:
    def refusal(entries: object) -> GgufextError:
        with pytest.raises(GgufextError) as caught:
            read(entries)
        assert caught.value.path is not None
        return caught.value

    return refusal


def test_geometry_and_rotation_are_read(read: Callable[..., HfConfig]) -> None:
    facts = read(LLAMA).facts
    assert (facts.train_length, facts.train_length_source) == (8192, "max_position_embeddings")
    assert (facts.freq_base, facts.rotary_dim, facts.head_dim) == (5e5, 128, 128)
    assert {(layer.head_count_kv, layer.key_length) for layer in facts.layers} == {(8, 128)}
    assert len(facts.layers) == 4
    assert not facts.scaling.in_effect


def test_the_new_dictionary_is_read_like_the_old_entries(read: Callable[..., HfConfig]) -> None:
    new = {key: value for key, value in LLAMA.items() if not key.startswith("rope_")}
    new["rope_parameters"] = {"rope_type": "default", "rope_theta": 500000.0}
    assert read(new).facts == read(LLAMA).facts


def test_a_language_model_inside_a_larger_one_is_found(read: Callable[..., HfConfig]) -> None:
    config = read({"model_type": "llava", "text_config": LLAMA, "vision_config": {}})
    assert config.section == "text_config"
    assert config.facts.train_length_source == "text_config.max_position_embeddings"
    made = plan(config.facts, PlanRequest(target_length=32768))
    for engine in (Engine.HF, Engine.VLLM):
        text = emit(made, config.facts, engine, model="m", config=config).blocks[0].text
        assert '"text_config": {' in text


@pytest.mark.parametrize("name", ["partial_rotary_factor", "rotary_pct", "rotary_emb_fraction"])
def test_a_partly_rotated_head_is_read_under_its_names(
    name: str, read: Callable[..., HfConfig]
) -> None:
    config = read(LLAMA | {name: 0.25})
    assert config.facts.rotary_dim == 32
    assert dict(config.kept)["partial_rotary_factor"] == 0.25


def test_local_layers_with_a_base_of_their_own_stay(read: Callable[..., HfConfig]) -> None:
    old = read(GEMMA3)
    assert [layer.window for layer in old.facts.layers] == [1024] * 5 + [None, 1024]
    assert [layer.moves for layer in old.facts.layers] == [False] * 5 + [True, False]
    kinds = ["full_attention" if i == 5 else "sliding_attention" for i in range(7)]
    new = {k: v for k, v in GEMMA3.items() if not k.startswith(("rope_", "sliding_window_"))}
    new |= {
        "layer_types": kinds,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    }
    assert read(new).facts == old.facts
    assert read(new).local == old.local


def test_a_base_beside_the_blocks_of_layer_types_holds_for_both(
    read: Callable[..., HfConfig],
) -> None:
    full = {"rope_type": "linear", "factor": 8.0}
    blocks = {"full_attention": full, "sliding_attention": {"rope_type": "default"}}
    config = read(GEMMA3 | {"rope_parameters": blocks})
    assert dict(config.local or ())["rope_theta"] == 1e6
    assert config.facts.scaling.factor == 8.0


def test_local_layers_that_are_scaled_themselves_are_refused(
    refusal: Callable[[object], GgufextError],
) -> None:
    scaled = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}
    blocks = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": scaled}
    error = refusal(GEMMA3 | {"rope_parameters": blocks})
    assert error.code == "cannot_combine"
    assert error.field == "rope_parameters.sliding_attention.rope_type"


def test_gemma3_files_that_leave_out_what_its_class_knows_are_read(
    read: Callable[..., HfConfig],
) -> None:
    sparse = {"model_type": "gemma3_text", "num_hidden_layers": 6, "sliding_window": 1024}
    facts = read(sparse | {"hidden_size": 2560}).facts
    assert (facts.train_length, facts.freq_base, facts.head_dim) == (131072, 1e6, 256)


def test_an_unused_window_is_none(read: Callable[..., HfConfig]) -> None:
    qwen = LLAMA | {"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}
    assert {layer.window for layer in read(qwen).facts.layers} == {None}


def test_windows_in_every_layer_move_together(read: Callable[..., HfConfig]) -> None:
    config = read(LLAMA | {"model_type": "mistral", "sliding_window": 4096})
    assert {(layer.window, layer.moves) for layer in config.facts.layers} == {(4096, True)}
    assert [warning.code for warning in config.warnings] == ["windows_everywhere"]


@pytest.mark.parametrize(
    "entries",
    [
        {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 128},
        {"model_type": "gemma2", "sliding_window": 4096},
        {"attention_chunk_size": 8192},
    ],
)
def test_local_layers_that_share_the_rotation_are_refused(
    entries: dict[str, Any], refusal: Callable[[object], GgufextError]
) -> None:
    assert refusal(LLAMA | entries).code == "local_layers_would_change"


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"type": "linear", "factor": 4.0}, ("linear", 4.0, 1.0)),
        ({"rope_type": "yarn", "factor": 4.0}, ("yarn", 4.0, 1.0)),
        ({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.0}, ("yarn", 4.0, 0.8783)),
        ({"type": "default"}, ("none", 1.0, 1.0)),
        ({"type": "dynamic", "factor": 2.0}, ("none", 1.0, 1.0)),
    ],
)
def test_native_scaling_is_read(
    scaling: dict[str, Any], expected: tuple[str, float, float], read: Callable[..., HfConfig]
) -> None:
    found = read(LLAMA | {"rope_scaling": scaling}).facts.scaling
    assert (found.type, found.factor) == expected[:2]
    assert found.attention_factor == pytest.approx(expected[2], rel=1e-4)


def test_betas_and_mscale_of_yarn_are_read(read: Callable[..., HfConfig]) -> None:
    yarn = {"type": "yarn", "factor": 16, "original_max_position_embeddings": 2048}
    yarn |= {"beta_fast": 4.0, "beta_slow": 2, "mscale": 1.0, "mscale_all_dim": 1.0}
    scaling = read(LLAMA | {"rope_scaling": yarn}).facts.scaling
    assert (scaling.yarn.beta_fast, scaling.yarn.beta_slow) == (4.0, 2.0)
    assert scaling.attention_factor == 1.0
    assert scaling.yarn.attention_factor(16.0, scaling.mix) == 1.0


@pytest.mark.parametrize(
    "scaling",
    [
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        {"type": "su", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64},
    ],
)
def test_factors_of_training_are_no_plain_rotation(
    scaling: dict[str, Any], read: Callable[..., HfConfig]
) -> None:
    assert read(LLAMA | {"rope_scaling": scaling}).facts.scaling.in_effect


def test_yarn_that_leaves_the_length_alone_reaches_further(read: Callable[..., HfConfig]) -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
    facts = read(LLAMA | {"rope_scaling": yarn}).facts
    assert (facts.train_length, facts.train_length_source) == (32768, "rope_scaling.factor")
    assert read(LLAMA | {"rope_scaling": yarn}, train_length=9000).facts.train_length == 9000


def test_dynamic_scaling_is_warned_of(read: Callable[..., HfConfig]) -> None:
    config = read(LLAMA | {"rope_scaling": {"type": "dynamic", "factor": 2.0}})
    assert [warning.code for warning in config.warnings] == ["scaling_replaced"]


def test_code_of_its_own_is_warned_of(read: Callable[..., HfConfig]) -> None:
    assert read(LLAMA | {"auto_map": {}}).warnings[0].code == "own_code"


def test_sections_of_positions_are_kept(read: Callable[..., HfConfig]) -> None:
    config = read(LLAMA | {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}})
    assert config.facts.layout is Layout.SECTIONS
    made = plan(config.facts, PlanRequest(target_length=32768))
    text = emit(made, config.facts, Engine.HF, model="m", config=config).blocks[0].text
    assert json.loads(text)["rope_parameters"]["mrope_section"] == [16, 24, 24]


@pytest.mark.parametrize(
    ("changed", "code", "field"),
    [
        ({"max_position_embeddings": None}, "missing_key", "max_position_embeddings"),
        ({"num_attention_heads": "32"}, "wrong_type", "num_attention_heads"),
        ({"max_position_embeddings": True}, "wrong_type", "max_position_embeddings"),
        ({"max_position_embeddings": 8192.5}, "wrong_type", "max_position_embeddings"),
        ({"max_position_embeddings": 0}, "nonsense_value", "max_position_embeddings"),
        ({"rope_theta": -1}, "nonsense_value", "rope_theta"),
        ({"rope_theta": [1]}, "wrong_type", "rope_theta"),
        ({"head_dim": 5}, "nonsense_value", "head_dim"),
        ({"head_dim": 2**40}, "nonsense_value", "head_dim"),
        ({"hidden_size": 2**39}, "nonsense_value", "hidden_size"),
        ({"num_hidden_layers": 2**39}, "nonsense_value", "num_hidden_layers"),
        ({"max_position_embeddings": 10**400}, "nonsense_value", "max_position_embeddings"),
        ({"rope_theta": 10**400}, "nonsense_value", "rope_theta"),
        ({"rope_theta": 1e39}, "nonsense_value", "rope_theta"),
        ({"partial_rotary_factor": 7}, "nonsense_value", "head_dim"),
        ({"rope_scaling": [1]}, "wrong_type", "rope_scaling"),
        (
            {"rope_scaling": {"type": "linear", "factor": -2}},
            "nonsense_value",
            "rope_scaling.factor",
        ),
        ({"rope_scaling": {"type": "proportional"}}, "cannot_combine", "rope_scaling.type"),
        ({"rope_scaling": {"type": ["x"]}}, "cannot_combine", "rope_scaling.type"),
        ({"rope_scaling": {"type": "linear", "alpha": 9}}, "cannot_combine", "rope_scaling.alpha"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": [64]}},
            "wrong_type",
            "rope_scaling.beta_fast",
        ),
        ({"layer_types": ["full_attention"]}, "nonsense_value", "layer_types"),
        ({"layer_types": [{}] * 4}, "nonsense_value", "layer_types"),
        ({"kv_lora_rank": 512}, "cannot_combine", "kv_lora_rank"),
        ({"model_type": "gpt2"}, "learned_positions", "model_type"),
        ({"model_type": "bloom", "rope_theta": None}, "no_rope", "rope_theta"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(
    changed: dict[str, Any], code: str, field: str, refusal: Callable[[object], GgufextError]
) -> None:
    error = refusal(LLAMA | changed)
    assert (error.code, error.field) == (code, field)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"rope_theta": NaN}', "[" * 100_000, '{"a": 1' + "0" * 5000 + "}", "\0"],
)
def test_anything_that_is_no_json_object_is_refused(
    text: str, refusal: Callable[[object], GgufextError]
) -> None:
    error = refusal(text)
    assert error.code == "not_config"
    assert len(str(error)) < 600


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(GgufextError) as caught:
        read_config(path)
    assert caught.value.code == "not_config"


def test_a_folder_stands_for_its_configuration(tmp_path: Path) -> None:
    assert config_file(tmp_path) is None
    (tmp_path / "config.json").write_text("{}")
    assert config_file(tmp_path) == tmp_path / "config.json"
    assert config_file(tmp_path / "model.gguf") is None


def test_scaling_of_the_training_is_extended_in_kind(read: Callable[..., HfConfig]) -> None:
    config = read(LLAMA | {"rope_scaling": {"type": "linear", "factor": 4.0}})
    made = plan(config.facts, PlanRequest(target_length=16384, method=Method.LINEAR))
    assert made.freq_scale_factor == 8.0
    with pytest.raises(PlanError) as caught:
        plan(config.facts, PlanRequest(target_length=16384, method=Method.YARN))
    assert caught.value.code == "cannot_combine"


@pytest.mark.parametrize("factors", [None, [1.0] * 3, [0.0] * 64, ["1"] * 64, {}])
def test_factors_that_no_pair_can_have_are_refused(
    factors: object, refusal: Callable[[object], GgufextError]
) -> None:
    scaling = {"type": "longrope", "short_factor": [1.0] * 64, "long_factor": factors}
    error = refusal(LLAMA | {"rope_scaling": scaling})
    assert error.code in {"missing_key", "wrong_type", "nonsense_value"}
    assert error.field == "rope_scaling.long_factor"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
ROPE_TYPES = ["default", "linear", "dynamic", "yarn", "llama3", "longrope", "su", "mrope", "?"]
ROPE_BLOCKS = st.fixed_dictionaries(
    {},
    optional={
        "rope_type": st.sampled_from(ROPE_TYPES) | JSON_VALUES,
        "type": st.sampled_from(ROPE_TYPES) | JSON_VALUES,
        "rope_theta": st.floats(1, 1e9) | JSON_VALUES,
        "factor": st.floats(0, 64) | JSON_VALUES,
        "attention_factor": JSON_VALUES,
        "original_max_position_embeddings": st.integers(-1, 9999) | JSON_VALUES,
        "beta_fast": JSON_VALUES,
        "low_freq_factor": JSON_VALUES,
        "long_factor": JSON_VALUES,
        "partial_rotary_factor": st.floats(0, 2) | JSON_VALUES,
        "mrope_section": JSON_VALUES,
    },
)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "model_type": st.sampled_from(["llama", "qwen2", "gemma3_text", "gpt2"]) | JSON_VALUES,
        "head_dim": st.integers(-1, 300) | JSON_VALUES,
        "num_hidden_layers": st.integers(-1, 40) | JSON_VALUES,
        "num_attention_heads": JSON_VALUES,
        "num_key_value_heads": JSON_VALUES,
        "max_position_embeddings": st.integers(-1, 2**40) | JSON_VALUES,
        "rope_theta": JSON_VALUES,
        "rope_scaling": ROPE_BLOCKS | JSON_VALUES,
        "rope_parameters": st.dictionaries(
            st.sampled_from(["full_attention", "sliding_attention"]), ROPE_BLOCKS | JSON_VALUES
        )
        | ROPE_BLOCKS
        | JSON_VALUES,
        "rope_local_base_freq": JSON_VALUES,
        "layer_types": st.lists(st.sampled_from(["full_attention", "sliding_attention"]))
        | JSON_VALUES,
        "sliding_window": st.integers(-1, 4096) | JSON_VALUES,
        "sliding_window_pattern": st.integers(-1, 9) | JSON_VALUES,
        "use_sliding_window": JSON_VALUES,
        "max_window_layers": JSON_VALUES,
        "text_config": JSON_VALUES,
    },
)


@settings(max_examples=300, deadline=None)
@given(CHANGES)
def test_any_object_is_planned_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(LLAMA | changes))
    with contextlib.suppress(GgufextError):
        config = read_config(path)
        made = plan(config.facts, PlanRequest(target_length=2 * config.facts.train_length))
        for engine in Engine:
            emit(made, config.facts, engine, model="m", config=config)
