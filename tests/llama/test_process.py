"""A child process that runs llama.cpp: its death, its refusals and its end."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ggufext.errors import EngineError
from ggufext.llama import process as process_module
from ggufext.llama.process import LlamaProcess
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings, LoadRequest
from llama_here import child_of, needs_llama_cpp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def process() -> Iterator[LlamaProcess]:
    needs_llama_cpp()
    with LlamaProcess() as process:
        yield process


def test_a_child_that_died_is_replaced_at_the_next_request(process: LlamaProcess) -> None:
    hello = process.hello()
    died = child_of(process)
    os.kill(died, signal.SIGSEGV)
    with pytest.raises(EngineError, match="SIGSEGV"):
        process.hello()
    assert process.hello().version == hello.version
    assert child_of(process) != died


def test_a_refusal_leaves_the_child_as_it_is(process: LlamaProcess, tmp_path: Path) -> None:
    process.hello()
    before = child_of(process)
    with pytest.raises(EngineError) as refused:
        observe(tmp_path / "absent.gguf", tokens=(0,), process=process)
    assert (refused.value.code, refused.value.path) == (
        "model_not_loaded",
        tmp_path / "absent.gguf",
    )
    process.hello()
    assert child_of(process) == before


def test_the_log_is_that_of_the_last_request(
    process: LlamaProcess, random_models: Callable[[str], Path]
) -> None:
    first = observe(random_models("llama"), tokens=(0,), process=process)
    second = observe(random_models("qwen3"), tokens=(0,), process=process)
    assert any("qwen3" in line for line in second.log)
    assert not any("qwen3" in line for line in first.log)
    assert not any("general.architecture str = llama" in line for line in second.log)


def test_an_answer_that_was_not_waited_for_is_not_the_next_ones(
    process: LlamaProcess, monkeypatch: pytest.MonkeyPatch, random_models: Callable[[str], Path]
) -> None:
    hello = process.hello()

    def interrupted(_stream: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ggufext.llama.process.receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            observe(random_models("llama"), tokens=(0,), process=process)
    assert process._child is None
    assert process.hello().version == hello.version


def test_the_same_weights_are_loaded_once(
    process: LlamaProcess, random_models: Callable[[str], Path]
) -> None:
    def opened(n_ctx: int, freq_base: float) -> str:
        load = LoadRequest(
            path=random_models("llama"),
            context=ContextSettings(n_ctx=n_ctx),
            kv_overrides={"llama.rope.freq_base": freq_base},
        )
        process.request(load.path, "open", load=load)
        return "\n".join(process.log())

    loading = "llama_model_loader: loaded meta data"
    assert loading in opened(512, 500.0)
    again = opened(256, 500.0)
    assert loading not in again
    assert "constructing llama_context" in again
    assert loading in opened(256, 600.0)


@pytest.mark.parametrize(
    ("last_act", "code", "words"),
    [
        ("os.write(2, b'failed to allocate 1 TB\\n'); os.abort()", "out_of_memory", "1 TB"),
        ("os.kill(os.getpid(), 9)", "engine_died", "memory runs out"),
        ("os.write(2, b'one\\ntwo\\nthree\\nfour\\n'); os._exit(7)", "engine_died", "status 7"),
        ("raise RuntimeError('no library')", "engine_died", "no library"),
    ],
)
def test_how_llama_cpp_ended_is_said(
    last_act: str, code: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    child.write_text(f"#!{sys.executable}\nimport os\n{last_act}\n")
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    with LlamaProcess() as process, pytest.raises(EngineError, match=words) as died:
        process.hello()
    assert died.value.code == code
    assert ("four | three | two" in died.value.message) is ("four" in last_act)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc")
def test_no_child_outlives_its_process(process: LlamaProcess) -> None:
    process.hello()
    child = Path(f"/proc/{child_of(process)}")
    assert child.exists()
    process.close()
    assert not child.exists()


#: Asks for what takes minutes, and says who computes it once it was asked.
ASKING = """
import sys
from pathlib import Path
from ggufext.llama import process
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings

child = process.LlamaProcess()
child.hello()
receive = process.receive

def asked(stream):
    print(child._child.pid, flush=True)
    return receive(stream)

process.receive = asked
settings = ContextSettings(n_ctx=4096)
observe(Path(sys.argv[1]), tokens=(0,) * 4096, starts=(0,) * 100, settings=settings, process=child)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process as Linux can")
def test_a_child_ends_with_the_process_that_asks_it(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_llama_cpp()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = [sys.executable, "-c", ASKING, str(passkey_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        child = os.pidfd_open(int(asking.stdout.readline()))
        asking.kill()
    try:
        assert select.select([child], [], [], 30)[0], "the child goes on computing"
    finally:
        os.close(child)


@pytest.fixture
def without_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GNU OpenMP library, as on a system without libgomp.so.1."""

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)


@pytest.mark.usefixtures("without_openmp")
def test_without_an_openmp_of_the_system_the_one_of_the_extra_is_used(
    process: LlamaProcess,
) -> None:
    if find_spec("cmeel") is None or needs_llama_cpp().package != "xllamacpp":
        pytest.skip("needs xllamacpp and cmeel-libomp: pip install 'ggufext[check]'")
    process.hello()
    loaded = Path(f"/proc/{child_of(process)}/maps").read_text(encoding="utf-8")
    assert "cmeel.prefix/lib/libgomp.so.1" in loaded


@pytest.mark.usefixtures("without_openmp")
def test_the_openmp_of_the_extra_goes_before_other_folders_of_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "cmeel_libomp-21.1.8.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: cmeel-libomp\nVersion: 21.1.8\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = process_module._with_openmp({"LD_LIBRARY_PATH": "/opt/lib", "HOME": "/home"})
    folder = tmp_path / "cmeel.prefix" / "lib"
    assert found == {"LD_LIBRARY_PATH": f"{folder}:/opt/lib", "HOME": "/home"}


def test_an_openmp_of_the_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    assert process_module._with_openmp({"HOME": "/home"}) == {"HOME": "/home"}
