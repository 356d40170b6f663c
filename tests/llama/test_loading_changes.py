"""What is refused because llama.cpp would not load it is what llama.cpp does not load."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from gguf import GGUFValueType

from gguf_bytes import SMALLEST_LLAMA, SMALLEST_TENSORS, gguf_bytes
from ggufext.editing.rewrite import rewrite
from ggufext.errors import HeaderError
from ggufext.header.architectures import table
from ggufext.opened.inspection import inspect
from ggufext.opened.model import facts_of
from ggufext.planning.request import PlanRequest
from llama_here import needs_llama_cpp
from loading_changes import (
    MODELS,
    Change,
    changes,
    difference,
    known_differences,
    llama_cpp_verdict,
    verdicts,
)
from random_model import Typed, write_random_model

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.llama.process import LlamaProcess

needs_llama_cpp()


#: Of each architecture; loading_changes.py makes all of them.
SAMPLE = 3


@pytest.mark.parametrize("name", MODELS)
def test_both_say_the_same_of_a_changed_model(
    name: str, tmp_path: Path, probe: LlamaProcess
) -> None:
    unchanged = verdicts(name, Change("none", {}), tmp_path, probe)
    assert (unchanged.ours, unchanged.llama_cpp) == (None, None)
    chosen = random.Random(name).sample(list(changes(name)), SAMPLE)
    tried = [verdicts(name, change, tmp_path, probe) for change in chosen]
    found = {line for each in tried if (line := difference(name, each))}
    assert found <= known_differences()


def test_nothing_that_loads_is_refused_but_for_nonsense_in_dimensions() -> None:
    strict = {line for line in known_differences() if "too strict" in line}
    assert all("rope.dimension_count" in line for line in strict)


def test_the_smallest_model_of_the_tests_loads(tmp_path: Path, probe: LlamaProcess) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(SMALLEST_LLAMA, SMALLEST_TENSORS))
    assert llama_cpp_verdict(path, probe) is None


@pytest.mark.parametrize(
    ("name", "keys", "field"),
    [
        (
            "gemma3",
            {"attention.layer_norm_rms_epsilon": None, "rope.freq_base": None},
            "gemma3.attention.layer_norm_rms_epsilon",
        ),
        (
            "qwen35",
            {"rope.dimension_sections": Typed((4, 4, 4), GGUFValueType.ARRAY, GGUFValueType.INT32)},
            "qwen35.rope.dimension_sections",
        ),
        ("llama", {"rope.dimension_count": 16}, "llama.rope.dimension_count"),
        ("llama", {"block_count": 3}, "blk.2.attn_norm.weight"),
        ("gpt-oss", {"attention.sliding_window": None}, "gpt-oss.attention.sliding_window"),
    ],
)
def test_what_does_not_load_is_shown_but_neither_planned_nor_rewritten(
    tmp_path: Path, probe: LlamaProcess, name: str, keys: dict[str, Any], field: str
) -> None:
    path = tmp_path / "model.gguf"
    write_random_model(path, name, metadata={f"{name}.{key}": v for key, v in keys.items()})
    content = path.read_bytes()
    assert llama_cpp_verdict(path, probe) is not None
    assert field in next(w.message for w in inspect(path).warnings if w.code == "would_not_load")
    with pytest.raises(HeaderError) as planned:
        facts_of(path)
    with pytest.raises(HeaderError) as forced:
        rewrite(path, PlanRequest(target_length=8192, force=True))
    for caught in (planned, forced):
        assert (caught.value.code, caught.value.field) == ("would_not_load", field)
    assert path.read_bytes() == content


def test_keys_of_the_tokenizer_of_another_type_are_refused_by_both(
    tmp_path: Path, probe: LlamaProcess
) -> None:
    demanded = table()["loading"]["vocabulary"]
    for key in (*demanded["types"], *demanded["lists"]):
        if key.endswith("precompiled_charsmap"):
            continue  # of another tokenizer
        tried = verdicts("llama", Change(key, {key[1:]: 0.5}), tmp_path, probe)
        assert tried.ours is not None, key
        assert tried.llama_cpp is not None, key


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("hunyuan-dense", {"expert_count": 1}),
        ("gemma4", {"attention.sliding_window": 0}),
        ("llama", {"attention.head_count": (4, 4), "rope.dimension_count_swa": 16}),
        ("qwen35", {"attention.recurrent_layers": (True, False), "full_attention_interval": None}),
        ("gemma3", {"attention.sliding_window_pattern": (True,) * 6}),
        ("qwen3", {"vocab_size": 999}),
    ],
)
def test_what_looks_odd_and_loads_is_not_refused(
    tmp_path: Path, probe: LlamaProcess, name: str, keys: dict[str, Any]
) -> None:
    change = Change("odd", {f"{name}.{key}": value for key, value in keys.items()})
    tried = verdicts(name, change, tmp_path, probe)
    assert (tried.ours, tried.llama_cpp) == (None, None)
