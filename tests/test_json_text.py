"""The one writer of JSON: whatever a result holds, it comes out as JSON that everybody reads."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path

import pytest

from ggufext.text import MERGED, json_text, jsonable


class Colour(Enum):
    RED = "red"


class Number(IntEnum):
    FOUR = 4


@dataclass(frozen=True)
class Inner:
    path: Path
    colour: Colour


@dataclass(frozen=True)
class Outer:
    inner: tuple[Inner, ...]
    shares: dict[int, float]


@dataclass(frozen=True)
class Merging:
    before: int
    outer: Outer = field(metadata=MERGED)
    number: Number


OUTER = Outer((Inner(Path("a/b"), Colour.RED),), {1: 0.5})


def refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def read(text: str) -> object:
    """As strictly as JSON is meant: Python's reader takes NaN too."""
    return json.loads(text, parse_constant=refuse)


def test_dataclasses_enums_paths_and_keys_become_plain() -> None:
    plain = {"inner": [{"path": "a/b", "colour": "red"}], "shares": {"1": 0.5}}
    assert jsonable(OUTER) == plain
    assert read(json_text(OUTER)) == plain


def test_a_merged_field_gives_way_to_its_own_fields_and_a_number_to_its_name() -> None:
    said = jsonable(Merging(1, OUTER, Number.FOUR))
    assert isinstance(said, dict)
    assert list(said) == ["before", "inner", "shares", "number"]
    assert said["inner"] == [{"path": "a/b", "colour": "red"}]
    assert said["number"] == "FOUR"


@pytest.mark.parametrize(
    ("number", "shown"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]
)
def test_numbers_that_are_not_finite_become_text(number: float, shown: str) -> None:
    assert read(json_text({"at": [number, (1.5, number)]})) == {"at": [shown, [1.5, shown]]}
    assert read(json_text({number: 1})) == {shown: 1}


def test_path_that_is_not_utf_8_can_be_encoded_and_comes_back() -> None:
    path = Path(os.fsdecode(b"caf\xe9/\xff.gguf"))
    text = json_text({"path": path})
    assert text.encode() == text.encode("ascii")
    assert read(text) == {"path": str(path)}
    assert os.fsencode(json.loads(text)["path"]) == b"caf\xe9/\xff.gguf"


def test_what_a_terminal_can_show_stays_and_what_it_would_obey_is_escaped() -> None:
    text = json_text({"ключ": "é 漢 \x1b[31m\u2028\u202e\x7f\t\n"})
    assert "ключ" in text
    assert "é 漢" in text
    assert all(line.isprintable() for line in text.split("\n"))
    assert read(text) == {"ключ": "é 漢 \x1b[31m\u2028\u202e\x7f\t\n"}


def test_without_indent_a_document_is_one_line() -> None:
    text = json_text({"a": "x\ny\u2028", "b": [1, 2]}, indent=None)
    assert len(text.splitlines()) == 1
    assert read(text) == {"a": "x\ny\u2028", "b": [1, 2]}


@pytest.mark.parametrize("value", [object(), {"a": b"bytes"}, [1j], {1, 2}])
def test_what_is_no_data_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        json_text(value)
