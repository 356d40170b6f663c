"""Facts of a model as llama.cpp would take them, and what lint finds in its metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gguf_bytes import F32, SMALLEST_LLAMA, SMALLEST_TENSORS, U32, Array, Tensor, gguf_bytes
from ggufext.errors import HeaderError
from ggufext.header.architectures import (
    Layout,
    Positions,
    Support,
    architecture,
    architecture_names,
)
from ggufext.header.facts import ModelFacts, model_facts
from ggufext.header.header import parse_header
from ggufext.header.lint import lint

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.header import Header

LLAMA: dict[str, object] = {
    "general.architecture": "llama",
    "llama.context_length": U32(4096),
    "llama.block_count": U32(2),
    "llama.embedding_length": U32(4096),
    "llama.attention.head_count": U32(32),
}
GEMMA: dict[str, object] = {
    "general.architecture": "gemma3",
    "gemma3.context_length": U32(131072),
    "gemma3.block_count": U32(12),
    "gemma3.embedding_length": U32(2560),
    "gemma3.attention.head_count": U32(8),
    "gemma3.attention.head_count_kv": U32(4),
    "gemma3.attention.key_length": U32(256),
    "gemma3.attention.value_length": U32(256),
    "gemma3.attention.sliding_window": U32(1024),
    "gemma3.rope.freq_base": F32(1e6),
}


def header(keys: dict[str, object], tensors: list[Tensor] | None = None) -> Header:
    data = gguf_bytes(keys=keys, tensors=tensors or [])
    return parse_header(data, file_size=len(data))


def facts(keys: dict[str, object], tensors: list[Tensor] | None = None) -> ModelFacts:
    return model_facts(header(keys, tensors))


def test_absent_keys_take_llama_cpps_defaults() -> None:
    found = facts(LLAMA)
    assert found.freq_base == 10000.0
    assert (found.head_dim, found.rotary_dim) == (128, 128)
    assert found.layers[0].head_count_kv == 32
    assert found.scaling.in_effect is False
    assert found.layout is Layout.INTERLEAVED
    assert found.support is Support.VERIFIED


def test_kv_heads_may_differ_by_layer() -> None:
    found = facts({**LLAMA, "llama.attention.head_count_kv": Array(4, [8, 4])})
    assert [layer.head_count_kv for layer in found.layers] == [8, 4]


def test_too_few_kv_heads_are_nonsense() -> None:
    with pytest.raises(HeaderError) as caught:
        facts({**LLAMA, "llama.attention.head_count_kv": Array(4, [8])})
    assert caught.value.code == "nonsense_value"


@pytest.mark.parametrize(
    "key", ["context_length", "block_count", "embedding_length", "attention.head_count"]
)
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(HeaderError) as caught:
        facts({name: value for name, value in LLAMA.items() if name != f"llama.{key}"})
    assert caught.value.code == "missing_key"
    assert caught.value.field == f"llama.{key}"


def test_every_sixth_layer_of_gemma3_is_global_and_moves() -> None:
    found = facts(GEMMA)
    assert [layer.moves for layer in found.layers] == ([False] * 5 + [True]) * 2
    assert {layer.freq_base for layer in found.layers if layer.moves} == {1e6}
    assert {layer.freq_base for layer in found.layers if not layer.moves} == {10000.0}
    assert {layer.window for layer in found.layers} == {None, 1024}


def test_gemma3_files_may_bring_their_own_local_base_and_pattern() -> None:
    found = facts(
        {
            **GEMMA,
            "gemma3.rope.freq_base_swa": F32(20000.0),
            "gemma3.attention.sliding_window_pattern": U32(3),
        }
    )
    assert [layer.moves for layer in found.layers] == [False, False, True] * 4
    assert {layer.freq_base for layer in found.layers if not layer.moves} == {20000.0}


def test_gemma3_without_a_window_has_no_local_layers() -> None:
    found = facts({**GEMMA, "gemma3.attention.sliding_window": U32(0)})
    assert all(layer.moves for layer in found.layers)


def test_the_training_length_can_be_corrected() -> None:
    found = model_facts(header(LLAMA), train_length=2048)
    assert (found.train_length, found.train_length_source) == (2048, "--train-length")


def test_factor_tensors_are_scaling_in_effect() -> None:
    found = facts(LLAMA, [Tensor("rope_freqs.weight", (64,), "F32")])
    assert found.scaling.in_effect
    assert found.scaling.factor_tensors == ("rope_freqs.weight",)


def test_the_old_name_of_the_factor_counts() -> None:
    assert facts({**LLAMA, "llama.rope.scale_linear": F32(4.0)}).scaling.in_effect


def codes(keys: dict[str, object]) -> set[str]:
    long = {"llama.context_length": U32(4096)}
    read = header({**SMALLEST_LLAMA, **long, **keys}, list(SMALLEST_TENSORS))
    return {finding.code for finding in lint(read, model_facts(read))}


def test_a_sound_file_has_no_findings() -> None:
    assert codes({}) == set()


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"rope.scaling.yarn_ext_factor": F32(0.0)}, "key_not_read"),
        ({"rope.scaling.yarn_beta_fast": F32(16.0)}, "key_not_read"),
        ({"rope.scaling.type": "none", "rope.scaling.factor": F32(8.0)}, "key_not_read"),
        ({"rope.scaling.factor": F32(8.0)}, "default_assumed"),
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": F32(8.0)}, "scales_twice"),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": F32(8.0)}, "default_assumed"),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": F32(2.0),
                "rope.scaling.original_context_length": U32(1024),
            },
            "context_above_scaling",
        ),
        ({"rope.scale_linear": F32(2.0)}, "old_key"),
    ],
)
def test_lint_names_what_looks_wrong(keys: dict[str, object], code: str) -> None:
    assert code in codes({f"llama.{key}": value for key, value in keys.items()})


def test_unread_keys_are_no_finding_where_they_are_read() -> None:
    grok = {key.replace("llama", "grok"): value for key, value in LLAMA.items()}
    grok |= {"general.architecture": "grok", "grok.rope.scaling.yarn_ext_factor": F32(1.0)}
    read = header(grok)
    assert "key_not_read" not in {finding.code for finding in lint(read, model_facts(read))}


def test_architectures_that_nobody_knows_are_unknown() -> None:
    assert architecture("never-heard-of").support is Support.UNKNOWN
    assert "llama" in architecture_names()


def test_real_headers_give_known_facts(real_headers: Path) -> None:
    from ggufext.header.header import read_header

    llama_3 = model_facts(read_header(real_headers / "ggml-vocab-llama-bpe.gguf"))
    assert (llama_3.train_length, llama_3.freq_base) == (8192, 500000.0)
    coder = model_facts(read_header(real_headers / "ggml-vocab-deepseek-coder.gguf"))
    assert (coder.scaling.type, coder.scaling.factor) == ("linear", 4.0)


def test_every_entry_of_the_table_can_be_looked_up_alone() -> None:
    for name in architecture_names():
        assert architecture(name).positions is not Positions.UNKNOWN, name


@pytest.mark.parametrize("name", ["", "llama]", "llama]\nsupport", "..", "a b"])
def test_hostile_names_are_unknown(name: str) -> None:
    assert architecture(name).support is Support.UNKNOWN
