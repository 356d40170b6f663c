"""Plans in the words of other engines: what is said, and what is refused."""

from __future__ import annotations

import itertools
import json
import shlex
import struct
from configparser import ConfigParser
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufext.header.architectures import FactorSupport, Layout
from ggufext.header.facts import ModelFacts, Scaling
from ggufext.planning.emit import Emission, Engine, emit, number
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import Factors, PlanRequest, Recipe
from planning.facts import LLAMA_2, LLAMA_3, facts

if TYPE_CHECKING:
    from ggufext.planning.result import Plan

TARGET = 32768
METHODS = (Method.GAMMA, Method.NTK, Method.YARN, Method.LINEAR)
GGUF_ENGINES = (Engine.LLAMA_CPP, Engine.OLLAMA, Engine.KOBOLDCPP, Engine.LMSTUDIO)


def emission(
    engine: Engine,
    method: Method = Method.GAMMA,
    *,
    of: ModelFacts = LLAMA_3,
    target: int = TARGET,
    model: str = "model.gguf",
) -> Emission:
    return emit(plan(of, PlanRequest(target_length=target, method=method)), of, engine, model=model)


def entries(found: Emission, block: int = 0) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(found.blocks[block].text)
    return result


def options(text: str) -> dict[str, str]:
    """Options of a command by name."""
    words = shlex.split(text)
    return {word: after for word, after in itertools.pairwise(words) if word.startswith("-")}


def preset(found: Emission) -> ConfigParser:
    """The file for llama-server's router among the blocks."""
    (block,) = (each for each in found.blocks if "--models-preset" in each.title)
    parsed = ConfigParser(interpolation=None)
    parsed.read_string(block.text)
    return parsed


def factors_of_single_pairs(of: ModelFacts) -> Plan:
    """A plan whose frequencies no base and factor give."""
    factors = Factors(long=tuple(1.0 + i / 7 for i in range(64)), attention_factor=1.1)
    return plan(
        taking_factors(of),
        PlanRequest(
            target_length=TARGET,
            method=Method.LONGROPE,
            recipe=Recipe(Method.LONGROPE, factors=factors),
        ),
    )


def taking_factors(of: ModelFacts) -> ModelFacts:
    return replace(of, factor_support=FactorSupport.BY_TYPE)


def test_base_methods_are_a_plain_rotation_for_transformers() -> None:
    found = emission(Engine.HF)
    rotation = {"rope_type": "default", "rope_theta": 2e6}
    assert entries(found) == {"max_position_embeddings": TARGET, "rope_parameters": rotation}
    older = {"max_position_embeddings": TARGET, "rope_theta": 2e6, "rope_scaling": None}
    assert entries(found, 1) == older


def test_yarn_names_the_original_length_for_transformers() -> None:
    found = emission(Engine.HF, Method.YARN, of=LLAMA_2)
    scaling = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096}
    assert entries(found)["rope_parameters"] == scaling | {"rope_theta": 1e4}
    assert entries(found, 1)["rope_scaling"] == scaling


def test_vllm_gets_the_length_where_no_factor_tells_it() -> None:
    for method in METHODS:
        command = options(emission(Engine.VLLM, method).blocks[0].text)
        overrides = json.loads(command["--hf-overrides"])
        assert command["--max-model-len"] == str(TARGET)
        rotation = overrides["rope_parameters"]
        if "factor" in rotation:
            assert "max_position_embeddings" not in overrides
        else:
            assert overrides["max_position_embeddings"] == TARGET


@given(st.integers(512, 300_000), st.integers(2, 900_000))
def test_the_factor_never_misses_the_target(train_length: int, more: int) -> None:
    # vLLM multiplies it with the original length and refuses a longer context.
    of = facts(train_length=train_length, freq_base=1e4, rotary_dim=16)
    target = train_length + more
    made = plan(of, PlanRequest(target_length=target, method=Method.YARN, force=True))
    rotation = entries(emit(made, of, Engine.HF, model="m"))["rope_parameters"]
    assert rotation["factor"] * rotation["original_max_position_embeddings"] >= target
    assert rotation["factor"] == pytest.approx(target / train_length, rel=1e-7)


def test_local_layers_keep_their_rotation_where_transformers_can_say_so() -> None:
    of = with_local_layers("gemma3")
    rotation = entries(emission(Engine.HF, of=of))["rope_parameters"]
    assert rotation["sliding_attention"] == {"rope_type": "default", "rope_theta": 1e4}
    assert rotation["full_attention"]["rope_theta"] == 2e6
    assert entries(emission(Engine.HF, of=of), 1)["rope_local_base_freq"] == 1e4


@pytest.mark.parametrize("engine", [Engine.HF, Engine.VLLM])
def test_local_layers_that_share_the_rotation_are_not_expressible(engine: Engine) -> None:
    found = emission(engine, of=with_local_layers("gemma2"))
    assert found.blocks == ()
    assert "same parameters" in str(found.not_expressible)


def with_local_layers(architecture: str) -> ModelFacts:
    of = facts(train_length=8192, freq_base=5e5, architecture=architecture)
    local = replace(of.layers[0], window=1024, freq_base=1e4, moves=False)
    return replace(of, layers=(local, *of.layers[1:]))


def test_a_partly_rotated_head_is_said() -> None:
    of = replace(facts(train_length=8192, freq_base=5e5, rotary_dim=32), head_dim=80)
    layer = replace(of.layers[0], key_length=80, value_length=80)
    of = replace(of, layers=(layer,))
    assert entries(emission(Engine.HF, of=of))["rope_parameters"]["partial_rotary_factor"] == 0.4


def test_positions_in_sections_need_the_configuration() -> None:
    of = replace(LLAMA_3, layout=Layout.SECTIONS)
    assert "config.json" in str(emission(Engine.HF, of=of).not_expressible)


def test_phi3_takes_yarn_as_factors_in_transformers() -> None:
    of = facts(train_length=4096, freq_base=1e4, architecture="phi3")
    found = emission(Engine.HF, Method.YARN, of=of)
    assert len(found.blocks) == 1
    assert "Transformers 4" in found.notes[-1]
    rotation = entries(found)["rope_parameters"]
    assert rotation["rope_type"] == "longrope"
    assert rotation["short_factor"] == rotation["long_factor"]
    assert rotation["long_factor"][-1] == pytest.approx(8.0)
    assert emission(Engine.VLLM, Method.YARN, of=of).not_expressible
    plain = entries(emission(Engine.HF, Method.NTK, of=of))["rope_parameters"]
    assert plain["rope_type"] == "default"


def test_llama_server_is_told_a_training_length_that_does_not_cap_it() -> None:
    text = emission(Engine.LLAMA_CPP).blocks[0].text
    assert options(text) == {
        "-m": "model.gguf",
        "--ctx-size": "32768",
        "--rope-scaling": "none",
        "--rope-freq-base": "2000000",
        "--yarn-orig-ctx": "8192",
        "--override-kv": "llama.context_length=int:32768",
    }


def test_llama_server_gets_yarn_whole() -> None:
    found = options(emission(Engine.LLAMA_CPP, Method.YARN, of=LLAMA_2).blocks[0].text)
    yarn = {"--rope-scaling": "yarn", "--rope-scale": "8", "--yarn-orig-ctx": "4096"}
    assert found | yarn | {"--yarn-ext-factor": "1"} == found


def test_ollama_has_the_context_only() -> None:
    found = emission(Engine.OLLAMA, Method.YARN, model="models/a b.gguf")
    assert found.blocks[0].text == "FROM models/a b.gguf\nPARAMETER num_ctx 32768"
    assert "no RoPE parameter" in str(found.not_expressible)
    assert emission(Engine.OLLAMA).blocks[0].text.startswith("FROM ./model.gguf\n")


def test_ollama_warns_where_an_engine_of_its_own_ran_the_architecture() -> None:
    of = facts(train_length=8192, freq_base=1e6, architecture="qwen3")
    assert "own engine" in emission(Engine.OLLAMA, Method.YARN, of=of).notes[-1]
    assert "own engine" not in emission(Engine.OLLAMA, Method.NTK, of=of).notes[-1]


@pytest.mark.parametrize(
    ("method", "ropeconfig"), [(Method.GAMMA, "1 80000"), (Method.LINEAR, "0.125 10000")]
)
def test_koboldcpp_takes_scale_and_base(method: Method, ropeconfig: str) -> None:
    text = emission(Engine.KOBOLDCPP, method, of=LLAMA_2).blocks[0].text
    assert text.endswith(f"--contextsize 32768 --ropeconfig {ropeconfig}")


def test_koboldcpp_has_no_yarn_but_runs_the_rewritten_file() -> None:
    found = emission(Engine.KOBOLDCPP, Method.YARN)
    assert "no YaRN" in str(found.not_expressible)
    assert [options(block.text) for block in found.blocks] == [
        {"--model": "model.gguf", "--contextsize": "32768"}
    ]


def test_koboldcpp_would_not_scale_linearly_under_another_type() -> None:
    of = facts(train_length=4096, freq_base=1e4, scaling=Scaling("yarn", 1.0, 4096, 1.0, ()))
    found = emission(Engine.KOBOLDCPP, Method.LINEAR, of=of)
    assert "rope.scaling.type yarn" in str(found.not_expressible)


def test_koboldcpp_ends_at_262144_tokens() -> None:
    assert emission(Engine.KOBOLDCPP, target=262144).blocks
    found = emission(Engine.KOBOLDCPP, target=262145)
    assert found.blocks == ()
    assert "262144" in str(found.not_expressible)


def test_lm_studio_has_a_base_and_nothing_more() -> None:
    assert json.loads(emission(Engine.LMSTUDIO).blocks[0].text) == {
        "contextLength": TARGET,
        "ropeFrequencyBase": 2e6,
    }
    assert "no YaRN" in str(emission(Engine.LMSTUDIO, Method.YARN).not_expressible)


@pytest.mark.parametrize("engine", GGUF_ENGINES)
def test_factors_of_single_pairs_need_the_rewritten_file(engine: Engine) -> None:
    found = emit(factors_of_single_pairs(LLAMA_3), LLAMA_3, engine, model="model.gguf")
    assert found.not_expressible
    assert len(found.blocks) == 1


def test_factors_of_single_pairs_are_longrope_for_transformers() -> None:
    made = factors_of_single_pairs(LLAMA_3)
    rotation = entries(emit(made, LLAMA_3, Engine.HF, model="m"))["rope_parameters"]
    assert rotation["rope_type"] == "longrope"
    assert rotation["long_factor"] == pytest.approx([1.0 + i / 7 for i in range(64)])
    assert rotation["short_factor"] == [1.0] * 64
    assert rotation["attention_factor"] == pytest.approx(1.1)
    assert emit(made, LLAMA_3, Engine.VLLM, model="m").not_expressible


def test_llama3_has_a_name_of_its_own() -> None:
    of = taking_factors(LLAMA_2)
    made = plan(of, PlanRequest(target_length=TARGET, method=Method.LLAMA3))
    rotation = entries(emit(made, of, Engine.HF, model="m"))["rope_parameters"]
    assert rotation == {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": pytest.approx(8.0),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 4096,
    }
    command = options(emit(made, of, Engine.VLLM, model="m").blocks[0].text)
    assert json.loads(command["--hf-overrides"])["max_position_embeddings"] == TARGET


@pytest.mark.parametrize("engine", list(Engine))
def test_nothing_is_emitted_where_nothing_is_extended(engine: Engine) -> None:
    found = emission(engine, target=4096)
    assert found.blocks == ()
    assert "as it is" in str(found.not_expressible)


@pytest.mark.parametrize("engine", GGUF_ENGINES)
def test_a_name_with_control_characters_stands_in_no_command(engine: Engine) -> None:
    found = emission(engine, model="a\x1b[31m\nb.gguf")
    assert all("\x1b" not in block.text and "b.gguf" not in block.text for block in found.blocks)


def test_an_architecture_that_no_command_line_can_hold_is_refused() -> None:
    of = facts(train_length=4096, freq_base=1e4, architecture="evil\x1b[31m")
    found = emission(Engine.LLAMA_CPP, of=of)
    assert "control characters" in str(found.not_expressible)
    assert all("\x1b" not in block.text for block in found.blocks)


def test_nothing_of_a_file_runs_in_a_shell() -> None:
    of = facts(train_length=4096, freq_base=1e4, architecture="a;$(touch b)")
    for engine in Engine:
        for block in emission(engine, of=of, model="c;$(touch d) 'e").blocks:
            words = shlex.split(block.text) if "--" in block.text else []
            assert not {"b)", ";$(touch", "d)"} & set(words)


@given(st.floats(min_value=2.0**-100, max_value=2.0**100, width=32))
def test_numbers_are_read_back_as_the_same_32_bit_value(value: float) -> None:
    text = number(value)
    assert struct.pack("<f", float(text)) == struct.pack("<f", value)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.value)
def test_an_entry_of_the_router_says_what_the_command_says_and_the_other_is_native(
    method: Method,
) -> None:
    found = emission(Engine.LLAMA_CPP, method, model="/models/a b.gguf")
    parsed = preset(found)
    assert parsed.sections() == ["a b", f"a b-{TARGET}"]
    native, extended = (dict(parsed[name]) for name in parsed.sections())
    assert native == {"model": "/models/a b.gguf", "ctx-size": str(LLAMA_3.context_length)}
    said = options(found.blocks[0].text)
    assert {f"--{name}": value for name, value in extended.items() if name != "model"} == {
        name: value for name, value in said.items() if name != "-m"
    }


@pytest.mark.parametrize("model", ["a;b.gguf", "a#1/b.gguf", "a]b.gguf"])
def test_no_entries_for_a_name_that_a_preset_file_cannot_hold(model: str) -> None:
    found = emission(Engine.LLAMA_CPP, model=model)
    assert [each.title for each in found.blocks] == [
        "with the file as it is",
        "with the file that rewrite wrote",
    ]
