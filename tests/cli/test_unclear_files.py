"""Files that leave something out or say it wrongly: what inspect, plan and rewrite say of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gguf_bytes import SMALLEST_LLAMA, U32, gguf_bytes
from program import result, run
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT = "llama.cpp's default, the file says none"


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    def write(architecture: str = "llama", **keys: Any) -> Path:
        metadata = {f"{architecture}.{k.replace('__', '.')}": v for k, v in keys.items()}
        return write_random_model(tmp_path / "model.gguf", architecture, metadata=metadata)

    return write


def test_an_absent_base_is_said_to_be_llama_cpps_default(model: Callable[..., Path]) -> None:
    path = model("qwen2", rope__freq_base=None, context_length=32768)
    assert f"base 10,000 ({DEFAULT})" in run("inspect", path).stdout
    assert result("inspect", path)["rope"]["freq_base_source"] == DEFAULT
    for options in ([], ["--method", "yarn"]):
        assert f"base 10,000 ({DEFAULT})" in run("plan", path, "--target", "64k", *options).stdout
    assert f"base 10,000 ({DEFAULT})" in run("rewrite", path, "--target", "64k", "--dry-run").stdout
    planned = result("plan", path, "--target", "64k", "--method", "gamma")
    assert planned["freq_base"] == {"before": 10000.0, "after": 20000.0, "source": DEFAULT}


def test_a_written_base_is_not(llama: Path) -> None:
    assert DEFAULT not in run("inspect", llama).stdout
    assert DEFAULT not in run("plan", llama, "--target", "8k").stdout
    assert result("inspect", llama)["rope"]["freq_base_source"] == "llama.rope.freq_base"


def test_a_factor_below_one_is_named(model: Callable[..., Path]) -> None:
    path = model(rope__scaling__type="linear", rope__scaling__factor=0.25)
    said = "rope.scaling.factor is 0.25: llama.cpp multiplies positions by 4"
    assert said in run("inspect", path).stderr
    assert said in run("plan", path, "--target", "8k", "--method", "linear").stderr
    written = run("rewrite", path, "--target", "8k", "--dry-run").stderr
    assert said in written
    assert "was trained with linear" not in written
    refused = run("rewrite", path, "--target", "8k", "--method", "yarn").stderr
    assert "as part of its training" not in refused
    assert "probably a mistake of the file" in refused


def test_an_unknown_architecture_is_said_first_and_no_advice_follows(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    keys = {key.replace("llama", "gptoss"): value for key, value in SMALLEST_LLAMA.items()}
    keys |= {"general.architecture": "gptoss", "gptoss.rope.scaling.factor": 32.0}
    path.write_bytes(gguf_bytes(keys))
    (warning,) = run("inspect", path).stderr.splitlines()
    for line in (
        warning,
        run("plan", path, "--target", "4k").stderr.strip(),
        run("rewrite", path, "--target", "4k").stderr.strip(),
    ):
        assert f"{path}: general.architecture" in line
        assert "is gptoss, unknown to llama.cpp" in line
        assert "it knows gpt-oss" in line
        assert "linear" not in line
    assert "linear to 4,096 tokens" in run(
        "plan", path, "--target", "4k", "--method", "linear", "--force"
    ).stdout  # fmt: skip


@pytest.mark.parametrize("kind", ["", "default"])
def test_advice_on_a_scaling_type_names_a_tool_that_can_do_it(
    model: Callable[..., Path], kind: str
) -> None:
    path = model(rope__scaling__type=kind)
    error = run("inspect", path).stderr
    assert "gguf-set-metadata" not in error
    tool = "gguf-new-metadata --remove-metadata llama.rope.scaling.type"
    assert tool in error
    name, *options = tool.split()
    copy = path.with_name("copy.gguf")
    program = Path(sys.executable).with_name(name)
    subprocess.run([program, "--force", *options, path, copy], check=True, capture_output=True)
    assert result("inspect", copy)["rope"]["scaling"]["factor"] == 1.0
    assert run("rewrite", copy, "--target", "8k").returncode == 0


def test_advice_on_a_number_names_a_tool_that_can_do_it(model: Callable[..., Path]) -> None:
    path = model(context_length=0)
    assert "correct the key with gguf-set-metadata" in run("inspect", path).stderr
    program = Path(sys.executable).with_name("gguf-set-metadata")
    subprocess.run(
        [program, "--force", path, "llama.context_length", "2048"], check=True, capture_output=True
    )
    assert result("inspect", path)["train_length"]["value"] == 2048


def test_quantization_is_named_by_the_file_with_shares_on_request(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_random_model(path, type="Q8_0", metadata={"general.file_type": 15})
    assert "Q4_K_M weights" in run("inspect", path).stdout
    told = run("inspect", path, "--layers").stdout
    assert "16 tensors Q8_0" in told
    assert "5 tensors F32" in told
    types = result("inspect", path)["tensor_types"]
    assert [each["type"] for each in types] == ["Q8_0", "F32"]


def test_inspect_tells_how_the_next_edit_goes(llama: Path) -> None:
    for target in ("8k", "16k"):
        strategy = result("inspect", llama)["likely_strategy"]
        assert f"next edit by {strategy}" in run("inspect", llama).stdout
        done = result("rewrite", llama, "--target", target)
        assert done["strategy"] == strategy


def test_a_vocabulary_is_planned_with_a_word_that_loading_was_not_judged(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    path.write_bytes(gguf_bytes({**SMALLEST_LLAMA, "llama.rope.dimension_count": U32(16)}))
    done = run("plan", path, "--target", "8k")
    assert done.returncode == 0
    assert "whether llama.cpp loads a model with these keys was not judged" in done.stderr


def test_a_file_that_does_not_load_is_not_called_verified(model: Callable[..., Path]) -> None:
    path = model(rope__dimension_count=16)
    shown = run("inspect", path)
    assert shown.returncode == 0
    assert "llama (llama.cpp does not load this file)" in shown.stdout
    assert "verified" not in shown.stdout
    for command in ("plan", "rewrite"):
        refused = run(command, path, "--target", "8k", "--force")
        assert refused.returncode == 1
        assert "16 rotated dimensions in heads of 32" in refused.stderr
