"""How a model's weights are stored, by name and by share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gguf import LlamaFileType

from gguf_bytes import SMALLEST_LLAMA, U32, Tensor, gguf_bytes
from ggufext.header.header import parse_header
from ggufext.header.weights import TensorType, quantization, tensor_types

if TYPE_CHECKING:
    from ggufext.header.header import Header

TENSORS = (Tensor("a", (32, 100), "Q4_0"), Tensor("b", (32,)), Tensor("c", (32, 1), "Q4_0"))


def header(keys: dict[str, object], tensors: tuple[Tensor, ...] = TENSORS) -> Header:
    data = gguf_bytes({**SMALLEST_LLAMA, **keys}, tensors)
    return parse_header(data, file_size=len(data))


def test_types_come_with_their_shares_the_largest_first() -> None:
    assert tensor_types(header({})) == (TensorType("Q4_0", 2, 101 * 18), TensorType("F32", 1, 128))
    assert tensor_types(header({}), header({}))[1] == TensorType("F32", 2, 256)


def test_the_name_is_that_of_the_file_type() -> None:
    for kind in LlamaFileType:
        if kind is not LlamaFileType.GUESSED:
            name = kind.name.removeprefix("ALL_").removeprefix("MOSTLY_")
            assert quantization(header({"general.file_type": U32(kind.value)})) == name


def test_without_a_file_type_it_is_the_type_of_most_bytes() -> None:
    assert quantization(header({})) == "Q4_0"
    assert quantization(header({"general.file_type": U32(4711)})) == "Q4_0"
    assert quantization(header({"general.file_type": "Q8_0"})) == "Q4_0"
    assert quantization(header({}, ())) is None
