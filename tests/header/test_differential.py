"""Thousands of generated and changed headers: llama.cpp, gguf-py and this reader say the same.

Three readers that were written apart judge every file, and each accepted file's keys, values and
tensors are compared. What may differ is listed below with its reason; anything else fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gguf_bytes import STRING
from ggufext.errors import HeaderError
from ggufext.header import header
from ggufext.header.header import read_header
from header.ggml import judged_by_llama_cpp, shown
from header.readers import READERS
from llama_here import needs_llama_cpp
from made_up_headers import files

if TYPE_CHECKING:
    from pathlib import Path

FILES = 2000

#: Rules of the GGUF specification, and bounds of our own, that llama.cpp does not have.
STRICTER_THAN_LLAMA_CPP = frozenset(
    {"key_has_nul", "key_not_utf8", "tensor_name", "tensor_shape", "data_past_end"}
)

#: Why gguf-py refuses what others accept: it decodes names of tensors as UTF-8.
REFUSED_BY_GGUF_PY_ALONE = "UnicodeDecodeError"

Judged = dict[str, Any]
"""What a reader found: ``{"keys": [...], "tensors": [...], ...}``, or ``{"refused": why}``."""


# What each reader says, in one form: numbers as their text, strings as hexadecimal bytes.


def judged_here(path: Path) -> Judged:
    try:
        read = read_header(path)
    except HeaderError as error:
        return {"refused": error.code}
    keys = []
    for key, entry in read.keys.items():
        found = read.value(key)
        values = list(found) if isinstance(found, tuple) else [found]
        type_ = int(entry.type if entry.element_type is None else entry.element_type)
        keys.append([key.encode().hex(), int(entry.type), type_, [shown(type_, v) for v in values]])
    tensors = [
        [
            tensor.name.encode("utf-8", "surrogateescape").hex(),
            [*tensor.shape, *[1] * (4 - len(tensor.shape))],
            tensor.type.lower(),
            tensor.offset,
            tensor.size,
        ]
        for tensor in read.tensors
    ]
    return {
        "version": read.version,
        "alignment": read.alignment,
        "data_offset": read.data_offset,
        "keys": keys,
        "tensors": tensors,
    }


def judged_by_gguf_py(path: Path) -> Judged:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except Exception as error:  # it raises whatever its arrays raise
        return {"refused": repr(error)}
    keys = []
    for name, field in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        types = [int(type_) for type_ in field.types]
        if types[-1] == STRING:
            values = [bytes(field.parts[part]).hex() for part in field.data]
        else:
            values = [shown(types[-1], field.parts[part][0].item()) for part in field.data]
        keys.append([name.encode().hex(), types[0], types[-1], values])
    tensors = [
        [
            tensor.name.encode().hex(),
            [*map(int, tensor.shape), *[1] * (4 - len(tensor.shape))],
            tensor.tensor_type.name.lower(),
            tensor.data_offset - reader.data_offset,
            int(tensor.n_bytes),
        ]
        for tensor in reader.tensors
    ]
    return {"alignment": reader.alignment, "keys": keys, "tensors": tensors}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("headers")
    made = []
    for i, data in enumerate(files(FILES)):
        made.append(folder / f"{i}.gguf")
        made[-1].write_bytes(data)
    return made


@pytest.fixture(scope="module", params=READERS)
def here(paths: list[Path], request: pytest.FixtureRequest) -> list[Judged]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header, "reader", READERS[request.param])
        return [judged_here(path) for path in paths]


@pytest.fixture(scope="module")
def llama_cpp(paths: list[Path]) -> list[Judged]:
    return judged_by_llama_cpp(needs_llama_cpp().path, paths)


def is_refused(judged: Judged) -> bool:
    return "refused" in judged


def as_c_strings(judged: Judged) -> Judged:
    """Strings cut at their first zero byte, as llama.cpp's functions return them."""
    keys = [
        [key, type_, kind, [cut(v) for v in values] if kind == STRING else values]
        for key, type_, kind, values in judged["keys"]
    ]
    return judged | {"keys": keys}


def cut(stored: str) -> str:
    return bytes.fromhex(stored).split(b"\0")[0].hex()


def test_llama_cpp_accepts_a_good_part_of_the_files(llama_cpp: list[Judged]) -> None:
    assert sum(not is_refused(judged) for judged in llama_cpp) >= 0.3 * FILES


def test_this_reader_and_llama_cpp_accept_the_same_files_but_for_named_rules(
    here: list[Judged], llama_cpp: list[Judged]
) -> None:
    disagreements = {
        i: (ours.get("refused"), theirs.get("refused"))
        for i, (ours, theirs) in enumerate(zip(here, llama_cpp, strict=True))
        if is_refused(ours) != is_refused(theirs)
        and ours.get("refused") not in STRICTER_THAN_LLAMA_CPP
    }
    assert disagreements == {}


def test_every_listed_rule_is_met(here: list[Judged], llama_cpp: list[Judged]) -> None:
    met = {
        ours["refused"]
        for ours, theirs in zip(here, llama_cpp, strict=True)
        if is_refused(ours) and not is_refused(theirs)
    }
    assert met == STRICTER_THAN_LLAMA_CPP


def test_keys_values_and_tensors_are_those_that_llama_cpp_reads(
    here: list[Judged], llama_cpp: list[Judged]
) -> None:
    for ours, theirs in zip(here, llama_cpp, strict=True):
        if not is_refused(ours) and not is_refused(theirs):
            assert as_c_strings(ours) == theirs


def test_keys_values_and_tensors_are_those_that_gguf_py_reads(
    paths: list[Path], here: list[Judged]
) -> None:
    # It is asked only about files that are accepted here: it believes the counts of the others,
    # and takes memory for them.
    compared = 0
    for path, ours in zip(paths, here, strict=True):
        if is_refused(ours):
            continue
        theirs = judged_by_gguf_py(path)
        if is_refused(theirs):
            assert theirs["refused"].startswith(REFUSED_BY_GGUF_PY_ALONE)
            continue
        keys = [
            # It knows no element type of an empty array.
            [key, type_, type_ if not values else kind, values]
            for key, type_, kind, values in ours["keys"]
        ]
        assert (keys, ours["tensors"]) == (theirs["keys"], theirs["tensors"])
        assert ours["alignment"] == theirs["alignment"]
        compared += 1
    assert compared >= 0.3 * FILES
