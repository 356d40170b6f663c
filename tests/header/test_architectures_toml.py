"""The shipped list of architectures is complete and says only what its schema knows."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import ggufext.header

LIST = tomllib.loads(
    Path(ggufext.header.__file__).with_name("architectures.toml").read_text(encoding="utf-8")
)
ARCHITECTURES = LIST["architectures"]

SCHEMA: dict[str, set[object]] = {
    "support": {"verified", "read", "unknown"},
    "layout": {"interleaved", "half", "sections", "none"},
    "positions": {"rope", "learned", "none"},
    "kind": {"embedding", "draft", "diffusion", "encoder_decoder", "audio", "vision"},
    "sections_when_present": {True},
    "reads_rope_keys": {False},
    "rotates_with_block_count": {32},
    "local_layers": {"own_base"},
    "local_freq_base": {10_000.0},
    "local_pattern": {6},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_entry_fits_the_schema(name: str) -> None:
    entry = ARCHITECTURES[name]
    assert {"support", "layout", "positions"} <= entry.keys() <= SCHEMA.keys()
    assert all(value in SCHEMA[key] for key, value in entry.items())


@pytest.mark.parametrize("name", [n for n, e in ARCHITECTURES.items() if e["positions"] == "rope"])
def test_what_rotates_has_a_layout(name: str) -> None:
    assert ARCHITECTURES[name]["layout"] != "none"


def test_verified_are_those_that_the_tests_run() -> None:
    verified = {name for name, entry in ARCHITECTURES.items() if entry["support"] == "verified"}
    assert verified == {"llama", "qwen2", "qwen3", "gemma3"}


def test_every_name_is_known_to_the_installed_llama_cpp() -> None:
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        pytest.skip("needs llama-cpp-python: pip install .[check]")
    library = Path(found.origin).parent / "lib" / "libllama.so"
    if not library.exists():
        pytest.skip("libllama.so is not where this platform puts it")
    strings = library.read_bytes()
    # The linker lets "bert" be the end of "modern-bert".
    assert [name for name in ARCHITECTURES if name.encode() + b"\0" not in strings] == []


def test_list_is_what_the_sources_of_llama_cpp_give() -> None:
    sources = os.environ.get("GGUFEXT_LLAMA_CPP")
    if sources is None:
        pytest.skip("needs GGUFEXT_LLAMA_CPP, the folder of llama.cpp's sources")
    program = Path(__file__).with_name("list_architectures.py")
    described = importlib.util.spec_from_file_location("list_architectures", program)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules[described.name] = module
    described.loader.exec_module(module)
    shipped = Path(ggufext.header.__file__).with_name("architectures.toml").read_text("utf-8")
    assert module.toml(module.read(Path(sources)), LIST["llama_cpp"]) == shipped
