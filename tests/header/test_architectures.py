"""The shipped list of architectures is complete and says only what its schema knows."""

from __future__ import annotations

import dataclasses
import os
import typing
from pathlib import Path

import pytest

import random_architectures
from ggufext.header import architectures
from ggufext.header.architectures import Architecture, architecture, llama_cpp_version, table
from ggufext.header.rope_keys import READ_BY_SOME
from header import list_architectures
from header.llama_cpp_sources import Source, read
from llama_here import needs_llama_cpp
from tiny_architectures import TINY

ARCHITECTURES = table()["architectures"]

FIELDS = {field.name: field for field in dataclasses.fields(Architecture)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_entry_has_known_fields_and_repeats_no_default(name: str) -> None:
    entry = ARCHITECTURES[name]
    assert {"support", "layout", "positions"} <= entry.keys() <= FIELDS.keys() | {"loading"}
    defaults = {name: field.default for name, field in FIELDS.items()}
    assert [key for key, value in entry.items() if defaults.get(key, ...) == value] == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_entry_becomes_an_architecture(name: str) -> None:
    read = architecture(name)
    for field in FIELDS.values():
        hint = typing.get_type_hints(Architecture)[field.name]
        allowed = tuple if typing.get_origin(hint) is tuple else hint
        assert isinstance(getattr(read, field.name), allowed)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_fact_about_local_layers_says_what_they_rotate_with(name: str) -> None:
    about_local = {"local_pattern", "local_window", "fixed_window", "first_is_global"}
    entry = ARCHITECTURES[name]
    assert "local_rotation" in entry or not about_local & entry.keys()


@pytest.mark.parametrize("name", [n for n, e in ARCHITECTURES.items() if e["positions"] == "rope"])
def test_what_rotates_has_a_layout(name: str) -> None:
    assert ARCHITECTURES[name]["layout"] != "none"


def test_what_a_file_must_hold_is_listed_of_every_verified_architecture() -> None:
    for entry in ARCHITECTURES.values():
        assert ("loading" in entry) == (entry["support"] == "verified")


def test_verified_are_those_that_the_tests_run() -> None:
    verified = {name for name, entry in ARCHITECTURES.items() if entry["support"] == "verified"}
    assert verified == random_architectures.ARCHITECTURES.keys() | TINY.keys()


def test_every_name_is_known_to_the_installed_llama_cpp() -> None:
    strings = needs_llama_cpp().path.read_bytes()
    # The linker lets "bert" be the end of "modern-bert".
    assert [name for name in ARCHITECTURES if name.encode() + b"\0" not in strings] == []


@pytest.fixture(scope="module")
def source() -> Source:
    """The sources of llama.cpp that the installed one was built from."""
    sources = os.environ.get("GGUFEXT_LLAMA_CPP")
    if sources is None:
        pytest.skip("needs GGUFEXT_LLAMA_CPP, the folder of llama.cpp's sources")
    return read(Path(sources))


def test_list_is_what_the_sources_of_llama_cpp_give(source: Source) -> None:
    shipped = Path(architectures.__file__).with_name("architectures.json").read_text("utf-8")
    written = list_architectures.text(list_architectures.table(source, llama_cpp_version()))
    assert f"{written}\n" == shipped


#: Written by list_architectures.rotation_keys.
KEYS = Path(__file__).with_name("rotation_keys.txt").read_text(encoding="utf-8").splitlines()


def test_keys_of_rotation_are_those_of_the_sources(source: Source) -> None:
    assert list_architectures.rotation_keys(source) == KEYS[1:]


def test_keys_of_rotation_were_read_from_the_same_version() -> None:
    assert KEYS[0] == f"# {llama_cpp_version()}"


def test_keys_that_some_architectures_read_are_read_by_some() -> None:
    read = {key for entry in ARCHITECTURES.values() for key in entry.get("reads", ())}
    assert read == set(READ_BY_SOME)
