"""A library of llama.cpp that is named is used, and no other; what is no known build is refused."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from ggufext.errors import EngineError
from ggufext.llama import binding
from ggufext.llama.process import Hello, LlamaProcess
from llama_here import child_of, needs_llama_cpp
from made_up_library import build_library, parameters


@pytest.fixture
def library() -> Path:
    """The library that is installed."""
    return needs_llama_cpp().path


def hello(llama_cpp: Path | None) -> Hello:
    with LlamaProcess(llama_cpp) as process:
        return process.hello()


def refusal(llama_cpp: Path) -> EngineError:
    with pytest.raises(EngineError) as refused:
        hello(llama_cpp)
    return refused.value


def test_a_named_library_is_used_and_no_package_is_looked_for(
    library: Path, monkeypatch: pytest.MonkeyPatch, without_llama_cpp: None
) -> None:
    found = hello(library)
    assert (found.path, found.package) == (str(library), "")
    assert found.versions == {"llama_cpp": found.release}
    assert found.devices
    monkeypatch.chdir(library.parent)
    assert hello(Path(library.name)).path == str(library)


@pytest.mark.parametrize("folder", [".", "bin", "lib", "build/bin"])
@pytest.mark.parametrize("name", ["libllama.so", "libllama.so.0", "libllama.v0.5.0.so"])
def test_the_library_is_found_in_the_folder_of_a_build(
    folder: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "libllama-common.so").touch()
    file = tmp_path / folder / name
    file.touch()
    assert binding.named(tmp_path).path.resolve() == file.resolve()


def test_a_process_that_died_comes_back_with_the_same_library(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(library.parent)
    with LlamaProcess(Path(library.name)) as process:
        process.hello()
        os.kill(child_of(process), 9)
        with pytest.raises(EngineError, match="SIGKILL"):
            process.hello()
        process.close()
        monkeypatch.chdir(tmp_path)
        assert process.hello().path == str(library)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.write_text("text")])
def test_what_is_no_library_is_refused(make: object, tmp_path: Path) -> None:
    path = tmp_path / "libllama.so"
    make(path)  # type: ignore[operator]
    refused = refusal(path)
    assert refused.code == "engine_unknown"
    assert str(path) in refused.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "libllama.so"
    os.mkfifo(path)
    assert refusal(path).code == "engine_unknown"


def test_no_file_at_all_is_refused(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "libllama.so").message


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ({"llama_decode": None}, "has no llama_decode"),
        ({"ggml_op_name": None}, "has no ggml_op_name"),
        (
            {"llama_version": 'const char *llama_version(void) { return "0.9.0"; }'},
            "is llama.cpp 0.9.0; known is",
        ),
        (
            {"llama_version": "const char *llama_version(void) { return 0; }"},
            "is llama.cpp of no version; known is",
        ),
        (
            {"llama_model_default_params": parameters("model", more=8)},
            r"llama_model_default_params fills \d+ bytes, not \d+",
        ),
        (
            {"llama_model_default_params": parameters("model", defaults={"n_gpu_layers": 7})},
            "gives n_gpu_layers 7, not -1",
        ),
        (
            {"ggml_backend_dev_by_type": "void *ggml_backend_dev_by_type(void) { return 0; }"},
            "has no backend for this processor",
        ),
        ({}, "fails on a known model"),
    ],
)
def test_another_build_is_refused_in_the_child(
    functions: dict[str, str | None], words: str, tmp_path: Path
) -> None:
    refused = refusal(build_library(tmp_path / "libllama.so", functions))
    assert refused.code == "engine_unknown"
    assert "libllama.so is no build" in refused.message
    assert re.search(words, refused.message)


def test_backends_that_lie_beside_the_library_are_loaded_from_there(tmp_path: Path) -> None:
    folder = tmp_path / "ünder here"
    folder.mkdir()
    note = tmp_path / "note"
    load = (
        "void ggml_backend_load_all_from_path(const char *folder) {\n"
        f'  FILE *file = fopen("{note}", "w"); fputs(folder, file); fclose(file);\n}}'
    )
    library = build_library(folder / "libllama.so", {"ggml_backend_load_all_from_path": load})
    refusal(library)  # it knows no answer
    assert note.read_text(encoding="utf-8") == str(folder)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ELF")
def test_a_library_for_another_processor_is_refused(tmp_path: Path) -> None:
    library = build_library(tmp_path / "libllama.so")
    content = bytearray(library.read_bytes())
    content[18:20] = (8).to_bytes(2, "little")  # e_machine: MIPS
    library.write_bytes(content)
    refused = refusal(library)
    assert refused.code == "engine_unknown"
    assert "cannot be loaded" in refused.message


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ELF")
def test_a_dependency_that_is_missing_is_named(tmp_path: Path) -> None:
    other = build_library(tmp_path / "libother.so")
    shared = ("-Wl,--no-as-needed", f"-L{tmp_path}", "-lother")
    library = build_library(tmp_path / "libllama.so", flags=shared)
    other.unlink()
    refused = refusal(library)
    assert refused.code == "engine_unknown"
    assert "libother.so" in refused.message


def test_a_library_that_crashes_when_it_is_loaded_ends_its_process_only(tmp_path: Path) -> None:
    crash = {"crash": "__attribute__((constructor)) void crash(void) { abort(); }"}
    refused = refusal(build_library(tmp_path / "libllama.so", crash))
    assert refused.code == "engine_died"
    assert "SIGABRT" in refused.message


def test_a_library_cut_short_is_named(library: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(library, tmp_path / "libllama.so"))
    os.truncate(path, 1 << 16)
    refused = refusal(path)
    # The loader may find it out itself, or the process may end by SIGBUS.
    assert refused.code in {"engine_unknown", "engine_died"}
    assert str(path) in refused.message
