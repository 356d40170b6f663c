"""The command line as a user or a program meets it: a real process, its output and its status."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import U32, gguf_bytes
from ggufext.cli.output import show_warnings
from ggufext.errors import ModelWarning
from program import result, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


INSPECT_FIELDS = {
    "path", "architecture", "support", "train_length", "rope", "layers", "head_dim", "alignment",
    "data_offset", "size", "tensor_count", "key_count", "quantization", "tensor_types",
    "kv_cache_bytes_per_token", "likely_strategy", "shards", "history", "warnings",
    "earlier_extension", "published",
}  # fmt: skip

PLAN_FIELDS = {
    "path", "architecture", "method", "train_length", "target_length", "factor", "freq_base",
    "gamma", "d_horizon", "verdict", "out_of_distribution", "kv_cache_bytes", "edits", "warnings",
    "tensor_edits", "keep_short", "earlier_extension",
}  # fmt: skip


def test_inspect_json_has_the_documented_fields(llama: Path) -> None:
    found = result("inspect", llama)
    assert set(found) == INSPECT_FIELDS
    assert found["train_length"] == {"value": 2048, "source": "llama.context_length"}
    assert found["rope"]["scaling"]["factor"] == 1.0
    assert set(found["kv_cache_bytes_per_token"]) == {"f16", "q8_0", "q4_0"}


def test_inspect_tells_each_layer(random_models: Callable[[str], Path]) -> None:
    path = random_models("gemma3")
    layers = result("inspect", path)["layers"]
    assert [layer["window"] for layer in layers] == [16] * 5 + [None]
    assert [layer["moves"] for layer in layers] == [False] * 5 + [True]
    told = run("inspect", path, "--layers").stdout
    assert "layers 0 to 4" in told
    assert "sees 16 tokens, base 10,000 in 64 dimensions, kept as trained" in told
    assert "layer 5" in told
    assert "layer 5" not in run("inspect", path).stdout


def test_inspect_tells_layers_without_rotation_and_cache(
    random_models: Callable[[str], Path],
) -> None:
    recurrent, attending = result("inspect", random_models("qwen3next"))["layers"]
    assert (recurrent["rotates"], recurrent["freq_base"], recurrent["head_count_kv"]) == (
        False,
        None,
        0,
    )
    assert attending["rotates"]
    told = run("inspect", random_models("qwen3next"), "--layers").stdout
    assert "no rotation, kept as trained; no KV cache of its own" in told


def test_plan_json_has_the_documented_fields(llama: Path) -> None:
    one = result("plan", llama, "--target", "8k", "--method", "yarn")
    assert set(one) >= PLAN_FIELDS
    assert one["target_length"] == 8192
    every = result("plan", llama, "--target", "8k")
    methods = [made["method"] for made in every["plans"]]
    assert methods == ["gamma", "ntk", "yarn", "linear", "llama3"]


def test_rewrite_undo_and_inspect_go_together(llama: Path) -> None:
    original = llama.read_bytes()
    done = result("rewrite", llama, "--target", "8k")
    assert set(done) >= PLAN_FIELDS | {"strategy", "output", "bytes_written", "seconds", "undo"}
    assert result("inspect", llama)["history"]["target_length"] == 8192
    undone = result("undo", llama)
    assert (undone["state"], undone["size"]) == ("restored", len(original))
    assert llama.read_bytes() == original


def test_results_go_to_standard_output_and_warnings_to_standard_error(llama: Path) -> None:
    done = run("rewrite", llama, "--target", "16k", "--method", "yarn")
    assert done.returncode == 0
    assert "written by" in done.stdout
    assert "warning" not in done.stdout
    assert "not validated" in done.stderr


def test_a_warning_is_shown_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    long = 100 * "once more, " + "the end"
    show_warnings((ModelWarning("long", long),), "model.gguf")
    assert capsys.readouterr().err == f"warning: model.gguf: {long}\n"


def test_warnings_of_several_methods_are_said_once_and_name_the_file_once(llama: Path) -> None:
    lines = run("plan", llama, "--target", "16k").stderr.splitlines()
    assert [line for line in lines if str(llama) in line] == lines[:1]
    assert all(line.startswith("warning: ") for line in lines)
    assert len([line for line in lines if "acts on short texts" in line]) == 1


def test_nothing_is_coloured_in_a_pipe(llama: Path) -> None:
    for command in (("inspect",), ("plan", "--target", "8k"), ("rewrite", "--target", "8k")):
        done = run(command[0], llama, *command[1:])
        assert "\x1b" not in done.stdout + done.stderr


def test_a_narrow_terminal_cuts_no_expectation_off(llama: Path) -> None:
    narrow = os.environ | {"COLUMNS": "80", "FORCE_COLOR": "1"}
    shown = run("plan", llama, "--target", "8k", env=narrow).stdout
    assert shown.count("USABLE-WITH-CARE") + shown.count("HEALTHY") == 4
    assert "NEEDS-FINETUNE" in shown
    assert "…" not in shown


def test_plan_tells_what_fits_into_a_memory(llama: Path) -> None:
    done = result("plan", llama, "--target", "8k", "--method", "gamma", "--vram", "8m")
    fits = {fit["cache_type"]: fit for fit in done["memory"]}
    assert fits["f16"]["fits"] is False
    assert 0 < fits["f16"]["largest_context"] < fits["q4_0"]["largest_context"]


def test_a_target_within_the_training_length_is_no_error_for_plan(llama: Path) -> None:
    done = run("plan", llama, "--target", "2k")
    assert done.returncode == 0
    assert "NO-EXTENSION-NEEDED" in done.stdout
    assert run("rewrite", llama, "--target", "2k").returncode == 1


@pytest.mark.parametrize("size", ["32q", "-1", "1e3k", "0", "", "3.5k", "k"])
def test_malformed_sizes_are_usage_errors(llama: Path, size: str) -> None:
    done = run("plan", llama, f"--target={size}")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("size", ["8192", "8k", "8K"])
def test_sizes_are_binary_multiples(llama: Path, size: str) -> None:
    assert result("plan", llama, "--target", size, "--method", "ntk")["target_length"] == 8192


def test_an_error_is_one_line_and_an_object(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(keys={"general.architecture": "llama"})[:-3])
    done = run("plan", path, "--target", "8k", "--json")
    assert done.returncode == 1
    failure = json.loads(done.stdout)
    assert failure["path"] == str(path)
    assert set(failure["error"]) == {"code", "message", "field", "offset"}
    assert len(done.stderr.splitlines()) == 1
    assert str(path) in done.stderr


def test_one_failing_file_does_not_stop_the_others(llama: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    done = run("rewrite", broken, llama, "--target", "8k", "--json")
    assert done.returncode == 1
    first, second = json.loads(done.stdout)["files"]
    assert first["error"]["code"] == "truncated"
    assert second["strategy"] in {"insert", "copy"}
    assert "broken.gguf" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect",),
        ("plan", "--target", "8k"),
        ("rewrite", "--target", "8k"),
        ("set", "general.name=x"),
        ("undo",),
        ("recover",),
    ],
)
@pytest.mark.parametrize("content", [b"", b"GGUF", b"\x00" * 64, b"PK\x03\x04" + b"x" * 64])
def test_no_traceback_reaches_a_user(
    tmp_path: Path, arguments: tuple[str, ...], content: bytes
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    for place in (path, tmp_path, tmp_path / "absent.gguf"):
        done = run(arguments[0], place, *arguments[1:])
        # A folder is listed by inspect, whatever is in it.
        expected = 0 if (place, arguments[0]) == (tmp_path, "inspect") else 1
        assert done.returncode == expected
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == expected
    assert path.read_bytes() == content


def test_control_characters_of_a_file_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(
        gguf_bytes(
            keys={
                "general.architecture": "evil\x1b[31m",
                "evil\x1b[31m.context_length": U32(2048),
                "evil\x1b[31m.block_count": U32(1),
                "evil\x1b[31m.embedding_length": U32(64),
                "evil\x1b[31m.attention.head_count": U32(2),
            }
        )
    )
    plan = ("plan", "--target", "8k", "--force")
    for command in (("inspect",), plan, (*plan, "--json")):
        done = run(command[0], path, *command[1:])
        assert "\x1b" not in done.stdout + done.stderr
        assert done.returncode == 0


def test_help_names_every_command_and_option() -> None:
    assert run("--help").returncode == 0
    for command in ("inspect", "plan", "rewrite", "set", "undo", "recover"):
        done = run(command, "--help")
        assert done.returncode == 0
        assert "--json" in done.stdout


def test_a_plan_tells_what_was_measured_beside_what_is_expected(
    passkey_model: Path, llama: Path
) -> None:
    table = run("plan", passkey_model, "--target", "1k").stdout
    rows = {line.split()[0]: line.rstrip() for line in table.splitlines() if line.split()}
    assert rows["gamma"].endswith("USABLE-WITH-CARE  80 % of 54 keys")
    assert rows["linear"].endswith("NEEDS-FINETUNE    0 % of 54 keys")
    assert rows["llama3"].endswith("USABLE-WITH-CARE")
    assert (
        "measured: keys found at the target, on passkey-Q8_0.gguf at factor 4 (models/README.md)"
    ) in table
    one = run("plan", passkey_model, "--target", "1k", "--method", "yarn").stdout
    assert (
        "  measured on passkey-Q8_0.gguf at factor 4: keys found at the target 85 % of 54 keys "
        "(95 %: 73 % to 92 %); models/README.md\n"
    ) in one
    assert "measured" not in run("plan", llama, "--target", "8k").stdout
