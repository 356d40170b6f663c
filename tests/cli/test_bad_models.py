"""Files that are no model to extend, or say nonsense: named, in one line, and left alone.

What is wrong with the format itself is in tests/header/test_refusals.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from gguf import GGUFValueType

from gguf_bytes import F32, I32, U16, U32, Tensor, gguf_bytes
from ggufext import cli
from random_model import MetadataValue, Typed, write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TARGET = ("--target", "8k")
COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": (),
    "plan": TARGET,
    "rewrite": TARGET,
    "check": ("--lengths", "512", "--trials", "1"),
}


@dataclass(frozen=True)
class Run:
    status: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run the command line in this process, as the program does."""

    def run(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["ggufext", *map(str, arguments)])
        status: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return Run(status or 0, captured.out, captured.err)

    return run


def keys(architecture: str, **changed: object) -> dict[str, object]:
    """Keys of a small model; names go without the architecture's prefix, dots as ``__``."""
    found: dict[str, object] = {
        "general.architecture": architecture,
        f"{architecture}.context_length": U32(2048),
        f"{architecture}.block_count": U32(2),
        f"{architecture}.embedding_length": U32(64),
        f"{architecture}.attention.head_count": U32(2),
        f"{architecture}.attention.head_count_kv": U32(1),
    }
    return found | {f"{architecture}.{k.replace('__', '.')}": v for k, v in changed.items()}


WEIGHTS = (Tensor("token_embd.weight", (64, 8)), Tensor("blk.0.attn_q.weight", (64, 64)))

#: Name: bytes, code, field.
OTHER_FILES: dict[str, tuple[bytes, str, str]] = {
    "LoRA adapter": (
        gguf_bytes(
            {
                "general.architecture": "llama",
                "general.type": "adapter",
                "adapter.type": "lora",
                "adapter.lora.alpha": F32(16.0),
            },
            [Tensor("blk.0.attn_q.weight.lora_a", (64, 8))],
        ),
        "not_a_language_model",
        "general.type",
    ),
    "LoRA adapter without general.type": (
        gguf_bytes({"general.architecture": "llama", "adapter.type": "lora"}),
        "not_a_language_model",
        "adapter.type",
    ),
    "importance matrix": (
        gguf_bytes(
            {
                "general.type": "imatrix",
                "imatrix.datasets": ["calibration.txt"],
                "imatrix.chunk_count": U32(100),
                "imatrix.chunk_size": U32(512),
            },
            [Tensor("blk.0.attn_q.weight.in_sum2", (64, 1))],
        ),
        "not_a_language_model",
        "general.type",
    ),
    "control vector": (
        gguf_bytes(
            {
                "general.architecture": "controlvector",
                "controlvector.model_hint": "llama",
                "controlvector.layer_count": U32(1),
            },
            [Tensor("direction.1", (64,))],
        ),
        "not_a_language_model",
        "controlvector.model_hint",
    ),
    "projector": (
        gguf_bytes(
            {
                "general.architecture": "clip",
                "general.type": "mmproj",
                "clip.has_vision_encoder": True,
                "clip.vision.image_size": U32(336),
            },
            [Tensor("v.patch_embd.weight", (14, 14, 3, 64))],
        ),
        "not_a_language_model",
        "general.type",
    ),
    "old projector": (
        gguf_bytes({"general.architecture": "clip", "clip.has_vision_encoder": True}),
        "not_a_language_model",
        "general.architecture",
    ),
    "no architecture": (
        gguf_bytes({"general.name": "something"}, WEIGHTS),
        "missing_key",
        "general.architecture",
    ),
} | {
    name: (gguf_bytes(keys(name), WEIGHTS), code, "general.architecture")
    for name, code in {
        "eagle3": "not_a_language_model",
        "dflash": "not_a_language_model",
        "bert": "not_a_language_model",
        "nomic-bert": "not_a_language_model",
        "t5": "not_a_language_model",
        "gpt2": "learned_positions",
        "starcoder": "learned_positions",
        "mpt": "learned_positions",
        "mamba": "no_rope",
        "bloom": "no_rope",
    }.items()
}

FOREIGN_FILES: dict[str, tuple[bytes, str, str]] = {
    name: (content, "not_gguf", "magic")
    for name, content in {
        "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
        "HTML page": b"<!DOCTYPE html>\n<html><head><title>401</title></head></html>",
        "zip": b"PK\x03\x04" + bytes(64),
        "llamafile": b"MZqFpD='\n" + bytes(64),
        "safetensors": struct.pack("<Q", 64) + b'{"__metadata__":{}}'.ljust(64) + bytes(32),
        "server's error": b'{"error":"Repository not found"}',
    }.items()
}

U, F = GGUFValueType.UINT32, GGUFValueType.FLOAT32

#: Keys of a real-looking llama model, changed to what no model has: value, code.
WRONG_VALUES: list[tuple[str, MetadataValue, str]] = [
    ("context_length", "2048", "wrong_type"),
    ("context_length", Typed(2048, GGUFValueType.UINT64), "wrong_type"),
    ("rope.freq_base", Typed(10000, U), "wrong_type"),
    ("rope.freq_base", Typed(1e4, GGUFValueType.FLOAT64), "wrong_type"),
    ("rope.scaling.type", Typed(1, U), "wrong_type"),
    ("rope.scaling.factor", "4", "wrong_type"),
    ("context_length", Typed(0, U), "nonsense_value"),
    ("rope.freq_base", Typed(1.0, F), "nonsense_value"),
    ("rope.freq_base", Typed(float("nan"), F), "nonsense_value"),
    ("rope.freq_base", Typed(float("inf"), F), "nonsense_value"),
    ("rope.scaling.type", "ntk", "nonsense_value"),
    ("rope.scaling.factor", Typed(-4.0, F), "nonsense_value"),
    ("rope.scaling.factor", Typed(float("nan"), F), "nonsense_value"),
    ("rope.dimension_count", Typed(31, U), "nonsense_value"),
    ("rope.dimension_count", Typed(4096, U), "nonsense_value"),
    ("block_count", Typed(2**32 - 1, U), "nonsense_value"),
    ("attention.head_count", Typed(0, U), "nonsense_value"),
    ("attention.head_count", Typed(2**32 - 1, U), "nonsense_value"),
    ("attention.head_count_kv", Typed(2**32 - 1, U), "nonsense_value"),
    ("context_length", None, "missing_key"),
]


def assert_refused(path: Path, run: Callable[..., Run], code: str, field: str) -> None:
    """Every command says `code` about `field`, in one line and as JSON, and writes nothing."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for command, options in COMMANDS.items():
        done = run(command, path, *options, "--json")
        found = json.loads(done.out)
        if command == "inspect" and done.status == 0:
            assert code in {warning["code"] for warning in found["warnings"]}
            continue
        assert (command, done.status) == (command, 1)
        assert (found["error"]["code"], found["error"]["field"]) == (code, field)
        (line,) = done.err.splitlines()
        assert line.startswith(f"error: {path}: ")
        assert field in line
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", [*OTHER_FILES, *FOREIGN_FILES])
def test_what_is_no_language_model_is_refused_by_name_and_left_alone(
    name: str, run: Callable[..., Run], tmp_path: Path
) -> None:
    content, code, field = (OTHER_FILES | FOREIGN_FILES)[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert_refused(path, run, code, field)


@pytest.mark.parametrize(
    ("key", "value", "code"),
    WRONG_VALUES,
    ids=[f"{code}: {key} {value}" for key, value, code in WRONG_VALUES],
)
def test_a_model_with_a_wrong_value_is_refused_by_key_and_left_alone(
    key: str, value: MetadataValue, code: str, run: Callable[..., Run], tmp_path: Path
) -> None:
    path = write_random_model(tmp_path / "model.gguf", metadata={f"llama.{key}": value})
    assert_refused(path, run, code, f"llama.{key}")


def test_a_base_that_no_32_bit_number_can_hold_is_refused(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    path = write_random_model(
        tmp_path / "model.gguf", metadata={"llama.rope.freq_base": Typed(3e38, F)}
    )
    before = path.read_bytes()
    done = run("rewrite", path, *TARGET, "--json")
    assert json.loads(done.out)["error"]["code"] == "base_out_of_range"
    assert path.read_bytes() == before


EVIL = "\x1b]0;owned\x07\x1b[31m\r\n\u202egnp.exe\u2066\x00"[:-1]


def hostile_files() -> dict[str, bytes]:
    """Text that would take a terminal over, or fill it, wherever a file can hold text."""
    llama = keys("llama")
    evil = keys(EVIL)
    return {
        "general.name and template": gguf_bytes(
            llama | {"general.name": EVIL, "tokenizer.chat_template": EVIL + "x" * 2_000_000},
            WEIGHTS,
        ),
        "names that are no UTF-8": gguf_bytes(
            llama | {"general.name": b"\xff\xfe\x80", "general.type": b"\xff"}, WEIGHTS
        ),
        "architecture": gguf_bytes(evil, WEIGHTS),
        "long architecture": gguf_bytes(keys("A" * 60_000), WEIGHTS),
        "architecture that is no UTF-8": gguf_bytes(
            llama | {"general.architecture": b"ll\xffama"}, WEIGHTS
        ),
        "tensor names": gguf_bytes(llama, [Tensor(EVIL, (32,))]),
        "tensor type": gguf_bytes(llama, [Tensor(EVIL, (32,), number=99)]),
        "tensor shape": gguf_bytes(llama, [Tensor(EVIL, (32, 0))]),
        "key names": gguf_bytes([*llama.items(), (EVIL + "k" * 60_000, "v")], WEIGHTS),
        "repeated key": gguf_bytes([*llama.items(), (EVIL, "v"), (EVIL, "v")], WEIGHTS),
        "scaling type": gguf_bytes(keys("llama", rope__scaling__type=EVIL + "y" * 1_000_000)),
        "type of a key": gguf_bytes(keys(EVIL, context_length="z" * 1_000_000)),
        "layers": gguf_bytes(keys("llama", attention__head_count_kv=[I32(-1)] * 100_000), WEIGHTS),
        "split": gguf_bytes(llama | {"split.no": U16(1), "split.count": U16(2)}, WEIGHTS),
    }


@pytest.mark.parametrize("name", list(hostile_files()))
def test_hostile_text_of_a_file_is_escaped_and_shortened(
    name: str, run: Callable[..., Run], tmp_path: Path
) -> None:
    path = tmp_path / f"model{EVIL.replace('/', '')}.gguf"
    content = hostile_files()[name]
    path.write_bytes(content)
    every = ("plan", "--target", "8k", "--method", "yarn", "--emit")
    commands = [
        ("inspect",),
        ("plan", *TARGET),
        (*every, "hf,vllm,llama.cpp,ollama,koboldcpp,lmstudio"),
        ("rewrite", *TARGET, "--dry-run", "--force"),
        ("undo",),
        ("recover",),
    ]
    for command, *options in commands:
        for as_json in ([], ["--json"]):
            done = run(command, path, *options, *as_json)
            for text in (done.out, done.err):
                assert all(c == "\n" or c.isprintable() for c in text)
            assert all(len(line) < 2000 for line in done.err.splitlines())
            if as_json:
                json.loads(done.out)
            else:
                assert len(done.out) < 20_000
            assert "Traceback" not in done.err
    assert path.read_bytes() == content


@pytest.mark.parametrize("command", ["inspect", "plan", "rewrite", "check", "undo", "recover"])
def test_what_is_no_file_is_named_and_never_waited_for(
    command: str, run: Callable[..., Run], tmp_path: Path
) -> None:
    folder, pipe, absent = tmp_path / "folder", tmp_path / "pipe", tmp_path / "absent.gguf"
    folder.mkdir()
    os.mkfifo(pipe)
    for path, found in ((folder, "a directory"), (pipe, "a pipe"), (absent, "No such file")):
        if (command, path) == ("inspect", folder):
            continue  # lists the models in it
        done = run(command, path, *COMMANDS.get(command, ()), "--json")
        assert done.status == 1
        assert json.loads(done.out)["error"]["code"] in {"not_gguf", "unreadable", "os_error"}
        (line,) = done.err.splitlines()
        assert line.startswith(f"error: {path}: ")
        assert found in line
