"""The difference of two headers is what a reader would call one: values, types and shapes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import ggufext
from gguf_bytes import F32, F64, FLOAT32, I32, U32, U64, Array, Tensor, gguf_bytes
from ggufext.header.difference import HeaderDifference, difference
from ggufext.header.header import parse_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ggufext.header.difference import KeyDifference
    from ggufext.header.header import Header


def header(keys: Mapping[str, object] | None = None, tensors: Sequence[Tensor] = ()) -> Header:
    data = gguf_bytes(keys or {}, tensors)
    return parse_header(data, file_size=len(data))


def key_difference(old: object, new: object) -> KeyDifference:
    (found,) = difference(header({"k": old}), header({"k": new})).keys
    return found


def test_a_header_does_not_differ_from_itself() -> None:
    nan = float("nan")
    keys = {"a": F32(nan), "b": Array(FLOAT32, [nan, 1.0]), "c": "text", "d": ["x", "y"]}
    one = header(keys, [Tensor("t", (32,))])
    found = difference(one, header(keys, [Tensor("t", (32,))]))
    assert found == HeaderDifference((), (), same_keys=4, same_tensors=1)
    assert found.is_empty


def test_the_order_of_keys_is_no_difference() -> None:
    assert difference(header({"a": 1, "b": 2}), header({"b": 2, "a": 1})).is_empty


def test_a_key_of_one_side_has_no_value_on_the_other() -> None:
    found = difference(header({"a": 1, "b": 2}), header({"b": 2, "c": 3}))
    shown = [(k.key, k.before and k.before.text, k.after and k.after.text) for k in found.keys]
    assert shown == [("a", "1", None), ("c", None, "3")]
    assert found.same_keys == 1


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        (U32(1), U32(2), ("1", "2")),
        (F32(0.5), F32(0.25), ("0.5", "0.25")),
        (True, False, ("true", "false")),
        ("a", "b", ('"a"', '"b"')),
        (["a", "b"], ["a", "c"], ('["a", "b"]', '["a", "c"]')),
    ],
)
def test_a_changed_value_is_shown_on_both_sides(
    old: object, new: object, texts: tuple[str, str]
) -> None:
    found = key_difference(old, new)
    assert found.before is not None
    assert found.after is not None
    assert (found.before.text, found.after.text) == texts


@pytest.mark.parametrize(
    ("old", "new"),
    [(U32(1), I32(1)), (U32(1), U64(1)), (F32(1.0), F64(1.0)), ([1], Array(5, [1]))],
)
def test_a_changed_type_is_a_difference_even_of_equal_values(old: object, new: object) -> None:
    found = key_difference(old, new)
    assert found.before is not None
    assert found.after is not None
    assert found.before.type != found.after.type


def test_a_long_array_is_shown_from_where_it_differs() -> None:
    words = [f"w{i}" for i in range(5000)]
    found = key_difference(words, [*words[:3000], "new", *words[3001:]])
    assert found.first_difference == 3000
    assert found.after is not None
    assert found.after.text == '[…, "new", "w3001", "w3002", "w3003", …]'
    assert found.after.count == 5000


def test_an_array_that_was_cut_differs_behind_its_end() -> None:
    assert key_difference(["a", "b", "c"], ["a", "b"]).first_difference == 2


def test_a_long_text_is_shown_around_where_it_differs() -> None:
    found = key_difference("x" * 10_000 + "old", "x" * 10_000 + "new")
    assert found.after is not None
    assert found.after.text == '"…' + "x" * 20 + 'new"'


def test_what_is_shown_is_printable_and_short() -> None:
    found = key_difference("\x1b[2J\u202e\x00" * 1000, b"\xff\xfe\x9b" * 1000)
    for side in (found.before, found.after):
        assert side is not None
        assert side.text.isprintable()
        assert len(side.text) < 400


def test_tensors_differ_by_type_and_shape_and_not_by_place() -> None:
    old = [
        Tensor("moved", (32,)),
        Tensor("type", (32,)),
        Tensor("shape", (32, 2)),
        Tensor("old", ()),
    ]
    new = [
        Tensor("new", ()),
        Tensor("type", (32,), "Q8_0"),
        Tensor("shape", (32, 4)),
        Tensor("moved", (32,)),
    ]
    found = difference(header(tensors=old), header(tensors=new))
    assert [(t.name, t.before is None, t.after is None) for t in found.tensors] == [
        ("type", False, False),
        ("shape", False, False),
        ("old", False, True),
        ("new", True, False),
    ]
    assert found.same_tensors == 1


def test_shown_values_are_json_where_they_are_not_shortened() -> None:
    found = key_difference('a "quoted" text', "é")
    assert found.before is not None
    assert json.loads(found.before.text) == 'a "quoted" text'


def test_paths_and_headers_are_compared_alike(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf_bytes({"n": 1}))
    found = ggufext.diff(tmp_path / "a.gguf", header({"n": 2}))
    assert [key.key for key in found.keys] == ["n"]
    assert ggufext.diff(str(tmp_path / "a.gguf"), tmp_path / "a.gguf").is_empty
