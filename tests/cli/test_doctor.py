"""``ggufext doctor`` says what a machine allows, and what to do where it does not."""

from __future__ import annotations

import errno
import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from ggufext.api import doctor
from ggufext.cli.doctor import doctor as command
from ggufext.opened.files import FileSystem
from ggufext.opened.strategies import Blocks
from llama_here import needs_llama_cpp

if TYPE_CHECKING:
    from pathlib import Path


def test_json_is_value_ok_and_hint_by_name(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(tmp_path), "--json"])
    found = json.loads(done.output)
    assert {"cpu", "memory", "llama_cpp", "amx", "gpu", "remote", "folder"} <= set(found)
    assert all(set(finding) == {"value", "ok", "hint"} for finding in found.values())


def test_the_folder_is_left_as_it_was(tmp_path: Path) -> None:
    doctor.doctor(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_processor_with_amx_gets_the_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_cpu_flags", lambda: ("avx2", "amx_tile"))
    finding = doctor.doctor(tmp_path)["amx"]
    assert "has AMX" in finding.value
    assert "GGML_NATIVE=OFF" in finding.hint


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Blocks(), "copy"),
        (Blocks(insert=4096), "in place, growing by 4,096 bytes"),
        (
            Blocks(insert=4096, share=4096),
            "growing by 4,096 bytes, new files share blocks",
        ),
        (Blocks(share=4096), "reflink"),
    ],
)
def test_a_folder_says_what_is_possible_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Blocks, words: str
) -> None:
    monkeypatch.setattr(doctor, "blocks_for", lambda *_arguments: place)
    assert words in doctor.doctor(tmp_path)["folder"].value


def test_a_file_system_without_nameless_files_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_files: FileSystem, _folder: Path) -> int:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(FileSystem, "create_nameless", refuse)
    assert "copy" in doctor.doctor(tmp_path)["folder"].value


def made_up_nvml(*, answers: bool) -> ModuleType:
    """A pynvml with one device, of a driver that answers or not."""
    nvml = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def count() -> int:
        if not answers:
            raise NVMLError("no answer")
        return 1

    memory = SimpleNamespace(free=70 << 30, total=80 << 30)
    for name, value in {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": count,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda _handle: memory,
        "nvmlDeviceGetCudaComputeCapability": lambda _handle: (9, 0),
        "nvmlDeviceGetName": lambda _handle: "Made-up GPU",
        "nvmlSystemGetDriverVersion": lambda: "999.1",
        "nvmlSystemGetCudaDriverVersion": lambda: 12080,
    }.items():
        setattr(nvml, name, value)
    nvml.__spec__ = ModuleSpec("pynvml", None)
    return nvml


def test_a_gpu_says_capability_memory_and_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", made_up_nvml(answers=True))
    assert doctor.doctor(tmp_path)["gpu"].value == (
        "Made-up GPU, compute capability 9.0, 70.00 GiB of 80.00 GiB free; driver 999.1, "
        "CUDA up to 12.8"
    )


def test_a_driver_that_does_not_answer_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", made_up_nvml(answers=False))
    finding = doctor.doctor(tmp_path)["gpu"]
    assert not finding.ok
    assert "no answer" in finding.value


def test_the_build_of_llama_cpp_is_told(tmp_path: Path) -> None:
    needs_llama_cpp()
    value = doctor.doctor(tmp_path)["llama_cpp"].value
    assert "GPU offload" in value
    assert "CPU:" in value


def test_a_llama_cpp_that_crashes_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    child.write_text(f"#!{sys.executable}\nimport os\nos.abort()\n")
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    found = doctor.doctor(tmp_path)
    assert not found["llama_cpp"].ok
    assert "SIGABRT" in found["llama_cpp"].value
    assert "not known" in found["rpc"].value
