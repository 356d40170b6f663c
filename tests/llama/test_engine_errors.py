"""What becomes of the caller when llama.cpp refuses a file or dies of it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ggufext.errors import EngineError
from ggufext.llama.library import Ggml, Tensor
from ggufext.llama.rope_nodes import Observation, observe
from ggufext.llama.settings import ContextSettings
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., Observation]


@pytest.mark.parametrize("scaling_type", ["dynamic", "YARN", "llama3", "x"])
def test_unknown_scaling_type_ends_the_child_and_says_why(
    run_model: Run, scaling_type: str
) -> None:
    with pytest.raises(EngineError, match=r"GGML_ASSERT.*rope_scaling_type_train") as error:
        run_model("llama", {"rope.scaling.type": scaling_type})
    assert error.value.code == "engine_died"


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_partial_rotation_ends_the_child(run_model: Run, architecture: str) -> None:
    with pytest.raises(EngineError, match="n_embd_head == n_rot") as error:
        run_model(architecture, {"rope.dimension_count": 16})
    assert error.value.code == "engine_died"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"context_length": None}, r"key not found in model: llama\.context_length"),
        ({"rope.freq_base": 10_000}, "wrong type u32 but expected type f32"),
        ({"rope.dimension_count": 16}, "invalid n_rot: 16, expected 32"),
        ({"block_count": 3}, r"tensor 'blk\.2\.attn_norm\.weight' not found"),
    ],
)
def test_refused_file_gives_llama_cpps_own_reason(
    run_model: Run, keys: dict[str, object], words: str
) -> None:
    with pytest.raises(EngineError, match=words) as error:
        run_model("llama", keys)
    assert error.value.code == "model_not_loaded"


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "gemma3"])
def test_frequency_factors_make_the_file_unloadable(run_model: Run, architecture: str) -> None:
    pairs = 16 if architecture == "qwen2" else 32
    tensors = {"rope_freqs.weight": np.ones(pairs, dtype=np.float32)}
    with pytest.raises(EngineError, match="wrong number of tensors") as error:
        run_model(architecture, tensors=tensors)
    assert error.value.code == "model_not_loaded"


@pytest.mark.parametrize(
    ("scaling_type", "tensor"),
    [("longrope", "rope_freqs.weight"), ("linear", "rope_factors_long.weight")],
)
def test_factors_of_the_other_scaling_type_make_the_file_unloadable(
    run_model: Run, scaling_type: str, tensor: str
) -> None:
    tensors = {tensor: np.ones(16, dtype=np.float32)}
    with pytest.raises(EngineError, match="wrong number of tensors"):
        run_model("llama", {"rope.scaling.type": scaling_type}, tensors=tensors)


def test_quantized_v_cache_without_flash_attention_creates_no_context(run_model: Run) -> None:
    settings = ContextSettings(n_ctx=512, type_v="q8_0", flash_attn_type=0)
    with pytest.raises(EngineError, match="quantized V cache requires flash_attn") as error:
        run_model("llama", settings=settings)
    assert error.value.code == "context_not_created"


@pytest.mark.parametrize(
    "settings",
    [ContextSettings(n_ctx=512, type_k="q9"), ContextSettings(n_ctx=512, rope_scaling_type="ntk")],
)
def test_setting_that_llama_cpp_does_not_know(run_model: Run, settings: ContextSettings) -> None:
    with pytest.raises(EngineError, match="knows no") as error:
        run_model("llama", settings=settings)
    assert error.value.code == "unknown_setting"


def test_too_small_a_context_is_an_error_not_a_short_answer(run_model: Run) -> None:
    with pytest.raises(EngineError) as error:
        run_model("llama", settings=ContextSettings(n_ctx=256))
    assert error.value.code == "decode_failed"


@pytest.mark.usefixtures("run_model")
def test_a_script_without_main_guard_can_ask(tmp_path: Path) -> None:
    model = write_random_model(tmp_path / "model.gguf")
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from ggufext.llama.rope_nodes import observe\n"
        f"print(len(observe(Path({str(model)!r}), tokens=(0,)).rope_nodes))\n"
    )
    answer = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert answer.stdout == "4\n"


@pytest.mark.usefixtures("without_llama_cpp")
def test_missing_engine_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"pip install 'ggufext\[check\]'") as error:
        observe(tmp_path / "model.gguf", tokens=(0,))
    assert error.value.code == "extra_missing"


def library(tensor: Tensor, *, overhead: int) -> Any:
    """A libggml that lays out tensors like `Tensor`, but for the size it tells."""
    place = ctypes.addressof(tensor) + Tensor.name.offset
    names = ("ggml_op_name", "ggml_op_desc", "ggml_type_name", "ggml_nbytes")
    functions = {name: lambda *_: b"NONE" for name in names}
    return SimpleNamespace(
        **functions,
        ggml_get_name=lambda *_: place,
        ggml_get_data=lambda *_: None,
        ggml_nelements=lambda *_: 0,
        ggml_tensor_overhead=lambda: overhead,
    )


def test_another_size_of_tensors_is_noticed() -> None:
    tensor = Tensor()
    Ggml(library(tensor, overhead=368)).verify(tensor)
    with pytest.raises(EngineError, match=r"'size': \(336, 344\)") as unknown:
        Ggml(library(tensor, overhead=376)).verify(tensor)
    assert unknown.value.code == "engine_unknown"
