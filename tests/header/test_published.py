"""What publishers document: the table is sound, and a model is found in it by its names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import F32, U32, gguf_bytes
from ggufext.header.architectures import Support, architecture
from ggufext.header.header import parse_header
from ggufext.header.hf_config import read_config
from ggufext.header.published import PUBLISHED, Published
from ggufext.header.training import trained_facts

if TYPE_CHECKING:
    from pathlib import Path

QWEN3: dict[str, object] = {
    "general.architecture": "qwen3",
    "general.basename": "Qwen3",
    "qwen3.context_length": U32(40960),
    "qwen3.block_count": U32(2),
    "qwen3.embedding_length": U32(1024),
    "qwen3.attention.head_count": U32(16),
    "qwen3.rope.freq_base": F32(1e6),
}

QWEN3_CONFIG: dict[str, object] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_hidden_layers": 2,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000.0,
}


def found(keys: dict[str, object]) -> Published | None:
    data = gguf_bytes(keys=keys)
    return trained_facts(parse_header(data, file_size=len(data))).published


def named(architecture_name: str, context_length: int, **names: str) -> str | None:
    """Family of a model by its general.* names."""
    keys: dict[str, object] = {
        key.replace("qwen3.", f"{architecture_name}."): value for key, value in QWEN3.items()
    }
    del keys["general.basename"]
    keys |= {f"general.{name.replace('__', '.')}": value for name, value in names.items()}
    keys["general.architecture"] = architecture_name
    keys[f"{architecture_name}.context_length"] = U32(context_length)
    entry = found(keys)
    return entry.family if entry else None


def test_every_entry_says_a_length_or_a_scaling_that_files_do_not() -> None:
    for entry in PUBLISHED:
        lengths, said = entry.context_lengths, entry.published
        assert any(each != said.train_length for each in lengths) or (said.yarn_factor or 0) > 1.0
        assert said.source.startswith("https://")
        assert all(name == name.lower() and " " not in name for name in entry.names)
        for name in entry.architectures:
            assert architecture(name).support is not Support.UNKNOWN


def test_at_least_ten_families_are_known() -> None:
    assert len({entry.published.family for entry in PUBLISHED}) >= 10


def test_qwen3_was_trained_on_32768_and_documents_yarn_4() -> None:
    entry = found(QWEN3)
    assert entry is not None
    assert (entry.train_length, entry.yarn_factor, entry.yarn_length) == (32768, 4.0, 131072)


@pytest.mark.parametrize(
    ("family", "architecture_name", "context_length", "names"),
    [
        ("Qwen3", "qwen3moe", 40960, {"basename": "Qwen3", "size_label": "30B-A3B"}),
        ("Qwen3", "qwen3", 40960, {"name": "Qwen3 8B"}),
        ("Qwen3", "qwen3", 40960, {"basename": "Mine", "base_model__0__name": "Qwen3 8B Base"}),
        ("Qwen2.5", "qwen2", 32768, {"basename": "Qwen2.5", "size_label": "7B"}),
        ("Qwen2.5-Coder", "qwen2", 32768, {"basename": "Qwen2.5-Coder", "size_label": "7B"}),
        ("Mistral Nemo", "llama", 1024000, {"basename": "Mistral-Nemo", "version": "2407"}),
        ("DeepSeek-V2", "deepseek2", 163840, {"name": "DeepSeek V2 Chat"}),
        ("DeepSeek-V2-Lite", "deepseek2", 163840, {"basename": "DeepSeek-V2-Lite"}),
        ("DeepSeek-V3", "deepseek2", 163840, {"basename": "DeepSeek", "version": "V3-0324"}),
        ("Command R7B", "cohere2", 8192, {"name": "C4ai Command R7b 12 2024"}),
        (None, "qwen2", 131072, {"basename": "Qwen2.5", "size_label": "7B"}),
        (None, "qwen3", 40960, {"basename": "Qwen30"}),
        (None, "qwen3", 262144, {"basename": "Qwen3", "version": "2507"}),
        (None, "llama", 40960, {"basename": "Qwen3"}),
        (None, "qwen2", 32768, {"basename": "DeepSeek-R1-Distill-Qwen", "size_label": "7B"}),
        (None, "llama", 4096, {}),
    ],
)
def test_a_family_is_found_by_architecture_name_and_declared_length(
    family: str | None, architecture_name: str, context_length: int, names: dict[str, str]
) -> None:
    assert named(architecture_name, context_length, **names) == family


def test_the_smallest_qwen3_have_no_documented_scaling() -> None:
    entry = found({**QWEN3, "general.size_label": "0.6B"})
    assert entry is not None
    assert (entry.train_length, entry.yarn_factor) == (32768, None)


def test_a_file_that_scales_from_the_documented_length_speaks_for_itself() -> None:
    scaled = {
        "qwen3.rope.scaling.type": "yarn",
        "qwen3.rope.scaling.factor": F32(1.25),
        "qwen3.rope.scaling.original_context_length": U32(32768),
    }
    assert found({**QWEN3, **scaled}) is None


def test_names_of_another_type_are_no_names() -> None:
    assert found({**QWEN3, "general.basename": U32(3)}) is None


@pytest.mark.parametrize(
    ("folder", "entries_", "train_length"),
    [
        ("Qwen3-8B", {}, 32768),
        ("models--Qwen--Qwen3-8B/snapshots/0123abcd", {}, 32768),
        ("mine", {"_name_or_path": "Qwen/Qwen3-8B"}, 32768),
        ("mine", {}, 40960),
        ("Qwen30", {}, 40960),
    ],
)
def test_a_configuration_is_known_by_its_folder(
    tmp_path: Path, folder: str, entries_: dict[str, str], train_length: int
) -> None:
    path = tmp_path / folder / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(QWEN3_CONFIG | entries_))
    facts = read_config(path).facts
    assert facts.train_length == train_length
    assert facts.train_length_source.startswith("documented") == (train_length == 32768)
    assert read_config(path, train_length=40960).facts.train_length == 40960
