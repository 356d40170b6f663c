"""What llama.cpp does with each RoPE key, shown by the ROPE nodes and the logits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ggufext.llama.rope_nodes import Observation, RopeMode, RopeNode, observe
from ggufext.llama.settings import ContextSettings
from observed import logits_array
from random_architectures import ARCHITECTURES
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Observation]

FACTOR = 4.0

every_architecture = pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))

UNSCALED = RopeNode(
    layer=0,
    tensor="q",
    n_dims=32,
    mode=RopeMode.INTERLEAVED,
    n_ctx_orig=2048,
    freq_base=10_000.0,
    freq_scale=1.0,
    ext_factor=0.0,
    attn_factor=1.0,
    beta_fast=32.0,
    beta_slow=1.0,
    factors=None,
)


def global_nodes(observation: Observation) -> list[RopeNode]:
    """Nodes of the layers that are not local; gemma3's last layer is its only one."""
    nodes = observation.rope_nodes
    layers = {node.layer for node in nodes}
    return [node for node in nodes if len(layers) == 2 or node.layer == max(layers)]


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("llama", UNSCALED),
        ("qwen2", replace(UNSCALED, mode=RopeMode.HALF, freq_base=1e6)),
        ("qwen3", replace(UNSCALED, mode=RopeMode.HALF, freq_base=1e6, n_dims=64)),
        ("gemma3", replace(UNSCALED, mode=RopeMode.HALF, n_dims=64)),
    ],
)
def test_first_node_shows_layout_and_values_of_the_file(
    run_model: Run, architecture: str, expected: RopeNode
) -> None:
    assert run_model(architecture).rope_nodes[0] == expected


@every_architecture
def test_every_layer_rotates_queries_and_keys_alike(run_model: Run, architecture: str) -> None:
    nodes = run_model(architecture).rope_nodes
    layers = ARCHITECTURES[architecture].geometry.layers
    assert [node.layer for node in nodes[::2]] == list(range(layers))
    assert [replace(node, tensor="k") for node in nodes[::2]] == list(nodes[1::2])


@every_architecture
def test_freq_base_reaches_the_global_layers_and_the_logits(
    run_model: Run, architecture: str
) -> None:
    changed = run_model(architecture, {"rope.freq_base": 500_000.0})
    assert {node.freq_base for node in global_nodes(changed)} == {500_000.0}
    assert changed.logits != run_model(architecture).logits


@every_architecture
def test_an_absent_freq_base_means_10000(run_model: Run, architecture: str) -> None:
    absent = run_model(architecture, {"rope.freq_base": None})
    assert absent.logits == run_model(architecture, {"rope.freq_base": 10_000.0}).logits


@every_architecture
def test_context_length_alone_changes_no_logit(run_model: Run, architecture: str) -> None:
    longer = run_model(architecture, {"context_length": 8192})
    assert longer.n_ctx_train == 8192
    assert longer.logits == run_model(architecture).logits


@every_architecture
def test_linear_scaling_divides_the_angles_by_the_factor(run_model: Run, architecture: str) -> None:
    keys = {"rope.scaling.type": "linear", "rope.scaling.factor": FACTOR}
    scaled = run_model(architecture, keys)
    assert {node.freq_scale for node in global_nodes(scaled)} == {1 / FACTOR}
    assert {node.ext_factor for node in scaled.rope_nodes} == {0.0}
    assert scaled.logits != run_model(architecture).logits


@every_architecture
@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"rope.scaling.factor": FACTOR}, id="no type"),
        pytest.param({"rope.scale_linear": FACTOR}, id="the old key"),
        pytest.param(
            {"rope.scaling.type": "longrope", "rope.scaling.factor": FACTOR}, id="longrope"
        ),
    ],
)
def test_scales_like_linear(run_model: Run, architecture: str, keys: dict[str, object]) -> None:
    linear = {"rope.scaling.type": "linear", "rope.scaling.factor": FACTOR}
    assert run_model(architecture, keys).logits == run_model(architecture, linear).logits


@every_architecture
@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"rope.scaling.type": "none", "rope.scaling.factor": FACTOR}, id="type none"),
        pytest.param({"rope.scaling.type": "linear", "rope.scaling.factor": 0.0}, id="factor 0"),
        pytest.param({"rope.scaling.type": "yarn", "rope.scaling.factor": 1.0}, id="yarn by 1"),
        pytest.param({"rope.scaling.type": "yarn"}, id="yarn without factor"),
        pytest.param({"rope.scaling.original_context_length": 256}, id="original length alone"),
        pytest.param({"rope.scaling.finetuned": True}, id="finetuned"),
        pytest.param({"rope.scaling.alpha": 1000.0}, id="alpha"),
        pytest.param({"rope.scaling.yarn_ext_factor": 1.0}, id="yarn_ext_factor alone"),
    ],
)
def test_changes_no_logit(run_model: Run, architecture: str, keys: dict[str, object]) -> None:
    assert run_model(architecture, keys).logits == run_model(architecture).logits


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": FACTOR}


@every_architecture
def test_yarn_mixes_around_the_original_length(run_model: Run, architecture: str) -> None:
    keys = {**YARN, "rope.scaling.original_context_length": 256}
    nodes = global_nodes(run_model(architecture, keys))
    expected = {(256, 1 / FACTOR, 1.0)}
    assert {(node.n_ctx_orig, node.freq_scale, node.ext_factor) for node in nodes} == expected


@every_architecture
def test_yarn_takes_the_context_length_where_no_original_length_is_written(
    run_model: Run, architecture: str
) -> None:
    longer = {**YARN, "context_length": 8192}
    kept = {**longer, "rope.scaling.original_context_length": 2048}
    assert run_model(architecture, kept).logits == run_model(architecture, YARN).logits
    assert run_model(architecture, longer).logits != run_model(architecture, YARN).logits


@every_architecture
def test_keys_that_converters_write_for_yarn_are_not_read(
    run_model: Run, architecture: str
) -> None:
    unread = ("ext_factor", "attn_factor", "beta_fast", "beta_slow", "log_multiplier")
    written = {f"rope.scaling.yarn_{name}": 0.5 for name in unread}
    observed = run_model(architecture, {**YARN, **written})
    assert observed.rope_nodes == run_model(architecture, YARN).rope_nodes
    assert observed.logits == run_model(architecture, YARN).logits


@every_architecture
def test_attn_factor_reaches_every_layer(run_model: Run, architecture: str) -> None:
    keys = {"rope.scaling.attn_factor": 1.5}
    nodes = run_model(architecture, keys).rope_nodes
    assert {node.attn_factor for node in nodes} == {1.5}
    assert run_model(architecture, keys).logits != run_model(architecture).logits


@every_architecture
@pytest.mark.parametrize(
    "keys",
    [
        {"rope.freq_base": 500_000.0},
        {**YARN, "rope.scaling.original_context_length": 256, "context_length": 1024},
    ],
)
def test_overrides_are_bit_identical_to_the_same_values_in_the_file(
    run_model: Run, architecture: str, keys: dict[str, object]
) -> None:
    overridden = run_model(architecture, overrides=keys)
    assert overridden.rope_nodes == run_model(architecture, keys).rope_nodes
    assert overridden.logits == run_model(architecture, keys).logits


@every_architecture
@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (ContextSettings(n_ctx=512, rope_freq_base=500_000.0), {"rope.freq_base": 500_000.0}),
        (
            ContextSettings(
                n_ctx=512, rope_scaling_type="yarn", rope_freq_scale=0.25, yarn_orig_ctx=256
            ),
            {**YARN, "rope.scaling.original_context_length": 256},
        ),
    ],
)
def test_context_settings_are_bit_identical_to_the_same_values_in_the_file(
    run_model: Run, architecture: str, settings: ContextSettings, keys: dict[str, object]
) -> None:
    set_by_caller = run_model(architecture, settings=settings)
    assert set_by_caller.logits == run_model(architecture, keys).logits


@pytest.mark.usefixtures("run_model")
@every_architecture
def test_only_distances_matter_not_the_start_position(tmp_path: Path, architecture: str) -> None:
    path = write_random_model(tmp_path / "model.gguf", architecture, type="F32")
    # F16 caches round the rotated keys, each position differently.
    settings = ContextSettings(n_ctx=512, type_k="f32", type_v="f32")
    observed = observe(path, tokens=range(100), starts=(0, 1000), settings=settings)
    at_zero, further = (logits_array(observed, run) for run in (0, 1))
    assert not np.array_equal(at_zero, further)
    # Angles of 1000 radians carry float32 errors of 3e-5, which scores and layers multiply;
    # another frequency base moves the logits, of unit size, by more than 1.
    np.testing.assert_allclose(further, at_zero, atol=0.03)


def test_yarn_without_its_mixing_is_linear(run_model: Run) -> None:
    settings = ContextSettings(n_ctx=512, yarn_ext_factor=0.0)
    linear = {"rope.scaling.type": "linear", "rope.scaling.factor": FACTOR}
    unmixed = run_model("llama", YARN, settings=settings)
    assert unmixed.logits == run_model("llama", linear).logits


def factors(value: float, pairs: int = 16) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.full(pairs, value, dtype=np.float32)


def test_frequency_factors_divide_the_angles_of_llama(run_model: Run) -> None:
    divided = run_model("llama", tensors={"rope_freqs.weight": factors(FACTOR)})
    assert {node.factors for node in divided.rope_nodes} == {(FACTOR,) * 16}
    linear = run_model("llama", {"rope.scaling.factor": FACTOR})
    # One divides by 4, the other multiplies by 1/4: exact in binary, so equal to the last bit.
    assert divided.logits == linear.logits


LONGROPE = {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 512}


@pytest.mark.parametrize(
    ("n_ctx", "value"),
    [pytest.param(512, 1.0, id="original length"), pytest.param(513, 2.0, id="one more")],
)
def test_longrope_takes_the_long_factors_above_the_original_length(
    run_model: Run, n_ctx: int, value: float
) -> None:
    tensors = {
        "rope_factors_long.weight": factors(2.0),
        "rope_factors_short.weight": factors(1.0),
    }
    settings = ContextSettings(n_ctx=n_ctx)
    nodes = run_model("llama", LONGROPE, settings=settings, tensors=tensors).rope_nodes
    assert {node.factors for node in nodes} == {(value,) * 16}


def test_long_factors_alone_leave_short_contexts_untouched(run_model: Run) -> None:
    alone = run_model("llama", LONGROPE, tensors={"rope_factors_long.weight": factors(2.0)})
    assert {node.factors for node in alone.rope_nodes} == {None}
    assert alone.logits == run_model("llama").logits
