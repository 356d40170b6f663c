"""The speed of models, measured in a child process that may die of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ggufext.audit.engines import llama_cpp
from ggufext.audit.run.duration import measure_speed, measure_threads
from ggufext.llama.settings import ContextSettings, LoadRequest
from ggufext.system import system
from llama_here import needs_llama_cpp
from random_model import write_random_model


def load(path: Path, n_ctx: int) -> LoadRequest:
    context = ContextSettings(n_ctx=n_ctx, n_batch=2048, n_ubatch=64, swa_full=True)
    return LoadRequest(path=path, context=context)


def test_both_settings_are_measured_near_the_end_of_the_context_on_few_tokens(
    passkey_model: Path,
) -> None:
    found = measure_speed(load(passkey_model, 4096), (False, True), tokens=10**6)
    assert set(found) == {False, True}
    for speed in found.values():
        assert 4096 - 4 * 64 < speed.context <= 4096
        assert speed.tokens < 5 * 64
        assert min(speed.prompt_start, speed.prompt_end, speed.answer_start, speed.answer_end) > 0


@pytest.mark.parametrize("architecture", ["gemma3", "falcon-h1", "lfm2", "qwen2vl", "deepseek2"])
def test_other_memories_are_measured_too(tmp_path: Path, architecture: str) -> None:
    needs_llama_cpp()
    path = write_random_model(tmp_path / "model.gguf", architecture)
    found = measure_speed(load(path, 1024), (False, True), tokens=10**6)
    assert {speed.context > 700 for speed in found.values()} == {True}


def test_caches_of_local_layers_are_filled_too(tmp_path: Path) -> None:
    needs_llama_cpp()
    path = write_random_model(tmp_path / "model.gguf", "gemma3")
    program = f"""
import sys
sys.path[:] = {sys.path!r}
from ctypes import c_int32, c_void_p
from pathlib import Path
from ggufext.llama.library import Llama
from ggufext.llama.loaded import Model
from ggufext.llama.settings import ContextSettings, LoadRequest
from ggufext.llama.stopwatch import Stopwatch
llama = Llama()
model = Model(llama, LoadRequest(path=Path({str(path)!r})))
watch = Stopwatch(llama, model, ContextSettings(n_ctx=4096, n_ubatch=64, swa_full=True))
watch.measure()
first = llama.ggml.function("llama_memory_seq_pos_min", c_int32, c_void_p, c_int32)
print(watch.cells, first(model.memory, 0))
"""
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    # The caches still hold the first position: no copy took the place of another.
    cells, first = map(int, child.stdout.split())
    assert (cells > 3500, first) == (True, 0)


def test_a_context_of_a_few_micro_batches_is_measured_too(passkey_model: Path) -> None:
    found = measure_speed(load(passkey_model, 256), (False, True), tokens=10**6)
    assert {speed.context <= 256 for speed in found.values()} == {True}


def test_clock_time_is_at_least_processor_time(passkey_model: Path) -> None:
    (speed,) = measure_speed(load(passkey_model, 2048), (False,), tokens=10**6).values()
    assert speed.stretch >= 0.99


def test_numbers_of_threads_are_compared(passkey_model: Path) -> None:
    for context in (256, 4096):
        found = measure_threads(load(passkey_model, context), (1, 2), tokens=10**6)
        assert list(found) == [1, 2]
        assert min(found.values()) > 0
    assert measure_threads(load(passkey_model, 4096), (1,), tokens=10**6) == {}
    assert measure_threads(load(passkey_model, 4096), (1, 2), tokens=99 * 64) == {}


def test_a_model_that_llama_cpp_does_not_load_has_no_threads(tmp_path: Path) -> None:
    needs_llama_cpp()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert measure_threads(load(tmp_path / "model.gguf", 4096), (1, 2), tokens=10**6) == {}


@pytest.mark.parametrize(
    ("usual", "processors", "numbers"),
    [(8, 8, (8, 4)), (2, 2, (2, 1)), (1, 8, (1, 2)), (1, 1, (1,)), (3, 3, (3, 1))],
)
def test_one_other_number_of_threads_is_tried(
    monkeypatch: pytest.MonkeyPatch, usual: int, processors: int, numbers: tuple[int, ...]
) -> None:
    monkeypatch.setattr(system, "usable_processors", lambda: processors)
    context = ContextSettings(n_threads=usual)
    assert llama_cpp.thread_numbers(LoadRequest(path=Path("m"), context=context)) == numbers


def test_a_short_run_is_not_measured(passkey_model: Path) -> None:
    assert measure_speed(load(passkey_model, 4096), (False, True), tokens=2000) == {}


def test_a_model_that_llama_cpp_does_not_load_has_no_speed(tmp_path: Path) -> None:
    needs_llama_cpp()
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert measure_speed(load(tmp_path / "model.gguf", 4096), (True,), tokens=10**6) == {}
