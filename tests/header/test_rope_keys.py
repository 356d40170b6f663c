"""Keys of rotation reach the facts of a model, and YaRN's keys mean what llama.cpp computes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import F32, U32, Array
from ggufext.errors import HeaderError, PlanError
from ggufext.header.architectures import architecture
from ggufext.header.frequencies import USUAL_YARN, Yarn
from ggufext.header.rope_keys import unread_suffixes
from header.test_layers import BOOL, facts

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Keys that decide what rotates and how, or what queries are multiplied by at a position; a file
#: that the key acts on: architecture, value, and what it needs beside it.
ACTS: dict[str, tuple[str, object, dict[str, object]]] = {
    "rope.freq_base": ("llama", F32(7e5), {}),
    "rope.freq_base_swa": ("gemma3", F32(7e5), {"attention.sliding_window": U32(16)}),
    "rope.dimension_count": ("qwen2", U32(64), {}),
    "rope.dimension_count_swa": ("gemma4", U32(64), {"attention.sliding_window": U32(16)}),
    "rope.dimension_sections": ("glm4", Array(5, [4, 6, 6, 0]), {}),
    "rope.scaling.type": ("llama", "none", {"rope.scaling.factor": F32(4.0)}),
    "rope.scaling.factor": ("llama", F32(4.0), {}),
    "rope.scale_linear": ("llama", F32(4.0), {}),
    "rope.scaling.original_context_length": ("llama", U32(512), {}),
    "rope.scaling.attn_factor": ("llama", F32(1.2), {}),
    "rope.scaling.finetuned": ("granite", False, {}),
    "rope.scaling.alpha": ("hunyuan-dense", F32(1000.0), {}),
    "rope.scaling.yarn_ext_factor": ("grok", F32(0.5), {}),
    "rope.scaling.yarn_attn_factor": ("grok", F32(0.5), {}),
    "rope.scaling.yarn_beta_fast": ("mistral3", F32(4.0), {}),
    "rope.scaling.yarn_beta_slow": ("mistral3", F32(2.0), {}),
    "rope.scaling.yarn_log_multiplier": ("deepseek2", F32(0.1), {}),
    "attention.temperature_scale": ("mistral3", F32(0.1), {}),
    "attention.head_count": ("llama", U32(16), {}),
    "attention.head_count_kv": ("llama", U32(2), {}),
    "attention.key_length": ("llama", U32(64), {}),
    "attention.value_length": ("llama", U32(64), {}),
    "attention.key_length_mla": ("deepseek2", U32(192), {}),
    "attention.key_length_swa": ("gemma4", U32(64), {"attention.sliding_window": U32(16)}),
    "attention.value_length_swa": ("gemma4", U32(64), {"attention.sliding_window": U32(16)}),
    "attention.sliding_window": ("gemma3", U32(16), {}),
    "attention.sliding_window_pattern": ("gemma3", U32(3), {"attention.sliding_window": U32(16)}),
    "attention.rope_pattern": ("granite_swa", Array(BOOL, [True, False] * 4), {}),
    "attention.shared_kv_layers": ("gemma4", U32(2), {}),
    "attention.recurrent_layers": ("qwen35", Array(BOOL, [True, False] * 4), {}),
}
PATTERN = {"attention.sliding_window_pattern": Array(BOOL, [True, False] * 4)}


_NORM = "a norm's constant"
_WIDTH = "a width of matrices"
_SPARSE = "which keys a sparse layer looks at, by their contents"
_OTHER_MODELS = "read for architectures without RoPE only"
_UNVERIFIED = "read for an architecture that is not verified: writing needs --force"

#: Keys that leave a rotation alone, and why.
NEUTRAL: Mapping[str, str] = {
    "attention.max_alibi_bias": _OTHER_MODELS,
    "attention.relative_buckets_count": _OTHER_MODELS,
    "attention.decay_lora_rank": _OTHER_MODELS,
    "attention.iclr_lora_rank": _OTHER_MODELS,
    "attention.value_residual_mix_lora_rank": _OTHER_MODELS,
    "attention.gate_lora_rank": _OTHER_MODELS,
    "attention.layer_norm_epsilon": _NORM,
    "attention.layer_norm_rms_epsilon": _NORM,
    "attention.group_norm_epsilon": _NORM,
    "attention.group_norm_groups": _NORM,
    "attention.q_lora_rank": _WIDTH,
    "attention.kv_lora_rank": _WIDTH,
    "attention.kv_lora_rank_swa": _WIDTH,
    "attention.output_lora_rank": _WIDTH,
    "attention.output_group_count": _WIDTH,
    "attention.value_length_mla": _WIDTH,
    "attention.key_length_mla_swa": _UNVERIFIED,
    "attention.value_length_mla_swa": _UNVERIFIED,
    "attention.compress_ratios": _UNVERIFIED,
    "attention.compress_rope_freq_base": _UNVERIFIED,
    "attention.temperature_length": "where queries begin to grow; no plan changes it",
    "attention.causal": "which keys a query may see",
    "attention.clamp_kqv": "acts before the rotation, at every position alike",
    "attention.scale": "multiplies every score alike; no plan changes it",
    "attention.output_scale": "acts behind the attention",
    "attention.value_scale": "values are not rotated",
    "attention.indexer.head_count": _SPARSE,
    "attention.indexer.key_length": _SPARSE,
    "attention.indexer.top_k": _SPARSE,
    "attention.indexer.block_size": _SPARSE,
    "attention.indexer.local_blocks": _SPARSE,
    "attention.indexer.types": _SPARSE,
    "attention.indexer.kpool": _SPARSE,
    "attention.indexer.kpool_select_tail": _SPARSE,
}

#: Written by list_architectures.rotation_keys; the version stands above.
KEYS = Path(__file__).with_name("rotation_keys.txt").read_text(encoding="utf-8").splitlines()[1:]


def test_every_key_of_rotation_and_attention_acts_or_is_neutral_for_a_reason() -> None:
    assert sorted([*ACTS, *NEUTRAL]) == KEYS
    assert all(NEUTRAL.values())


@pytest.mark.parametrize("key", ACTS)
def test_an_acting_key_changes_the_facts_or_is_refused(key: str) -> None:
    name, value, beside = ACTS[key]
    if name == "gemma4" and "attention.sliding_window" in beside:
        beside = beside | PATTERN
    without = facts(name, beside)
    try:
        found = facts(name, beside | {key: value})
    except (HeaderError, PlanError):
        return
    assert found != without


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("llama", set()),
        ("grok", {"yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow"}),
        (
            "mistral3",
            {"yarn_beta_fast", "yarn_beta_slow", "yarn_log_multiplier", "temperature_scale"},
        ),
        ("deepseek2", {"yarn_log_multiplier", "temperature_scale", "temperature_length"}),
        ("deepseek32", {"yarn_log_multiplier"}),
        ("hunyuan_vl", {"alpha"}),
    ],
)
def test_what_an_architecture_does_not_read_is_named(name: str, read: set[str]) -> None:
    unread = {key.rpartition(".")[2] for key in unread_suffixes(architecture(name))}
    known = {key.rpartition(".")[2] for key in unread_suffixes(architecture("never-heard-of"))}
    assert known - unread == read


def test_keys_that_are_not_read_do_not_reach_the_facts() -> None:
    keys: dict[str, object] = {"rope.scaling.yarn_beta_fast": F32(4.0)}
    assert facts("llama", keys).scaling.yarn == USUAL_YARN


def test_defaults_are_those_of_the_architecture() -> None:
    assert facts("grok").scaling.yarn.beta_fast == 8.0
    assert facts("mistral3").scaling.yarn.beta_fast == 32.0


@pytest.mark.parametrize(
    ("name", "stored", "mscale", "all_dim"),
    [
        ("mistral3", 1.0, 1.0, 1.0),
        ("deepseek2", 0.0707, 0.707, 0.707),
        ("deepseek32", 0.1, 1.0, 1.0),
        ("mistral4", 0.0707, 1.0, 0.707),
    ],
)
def test_the_log_multiplier_is_stored_in_two_units(
    name: str, stored: float, mscale: float, all_dim: float
) -> None:
    found = facts(name, {"rope.scaling.yarn_log_multiplier": F32(stored)}).scaling.yarn
    assert found.mscale == pytest.approx(mscale, rel=1e-6)
    assert found.mscale_all_dim == pytest.approx(all_dim, rel=1e-6)


@pytest.mark.parametrize("ext_factor", [-1.0, -0.5])
def test_a_negative_ext_factor_leaves_the_mix_to_the_type(ext_factor: float) -> None:
    yarn = facts("grok", {"rope.scaling.yarn_ext_factor": F32(ext_factor)}).scaling.yarn
    assert (yarn.mix("yarn"), yarn.mix("linear"), yarn.mix("none")) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_betas_that_no_ramp_can_have_are_refused(value: float) -> None:
    with pytest.raises(HeaderError) as caught:
        facts("mistral3", {"rope.scaling.yarn_beta_fast": F32(value)})
    assert caught.value.code == "nonsense_value"


def test_the_attention_factor_is_that_of_the_formula() -> None:
    log = math.log(16.0)
    assert USUAL_YARN.attention_factor(16.0, 1.0) == pytest.approx(1.0 + 0.1 * log)
    assert USUAL_YARN.attention_factor(16.0, 0.0) == 1.0
    assert USUAL_YARN.attention_factor(0.5, 1.0) == 1.0
    both = Yarn(mscale=1.0, mscale_all_dim=0.707)
    expected = (1.0 + 0.1 * log) / (1.0 + 0.0707 * log)
    assert both.attention_factor(16.0, 1.0) == pytest.approx(expected)
    assert Yarn(attn_factor=1.3).attention_factor(16.0, 0.0) == 1.3
