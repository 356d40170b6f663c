"""A hostile header costs as much memory as it has bytes, whatever it claims."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from gguf_bytes import (
    STRING,
    U32,
    UINT8,
    UINT64,
    Array,
    Raw,
    Tensor,
    gguf_bytes,
    header_bytes,
    string_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLAIMS = {
    "2^40 keys": header_bytes(key_count=2**40) + bytes(4096),
    "2^40 tensors": header_bytes(tensor_count=2**40) + bytes(4096),
    "2^20 tensors, in a file with room for them": header_bytes(tensor_count=2**20)
    + bytes(26 * 2**20),
    "a string of 2^29 bytes": header_bytes({"k": Raw(STRING, string_bytes("a", length=2**29))}),
    "a key of 2^29 bytes": header_bytes(key_count=1) + string_bytes("abcdefgh", length=2**29),
    "2^29 strings": header_bytes({"k": Array(STRING, [], count=2**29)}),
    "2^29 numbers": header_bytes({"k": Array(UINT64, [], count=2**29)}),
    "a tensor of 2^61 bytes": header_bytes(tensors=[Tensor("t", (2**59,))]),
}

CHILD = """
import resource
import sys
if sys.argv[2] == "pure":
    sys.modules["ggufext._core"] = None
from ggufext.errors import HeaderError
from ggufext.header.header import read_header

with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
limit = used + 16 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    read_header(sys.argv[1])
except HeaderError as error:
    print(error.code)
else:
    print("read")
"""


@pytest.fixture(params=["native", "pure"])
def verdict_with_16_mib(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """What reading says in a process that may not grow by more."""

    def verdict(path: Path) -> str:
        command = [sys.executable, "-c", CHILD, str(path), request.param]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        return child.stdout.strip()

    return verdict


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_is_refused_without_memory_for_it(
    claim: str, tmp_path: Path, verdict_with_16_mib: Callable[[Path], str]
) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(CLAIMS[claim])
    assert verdict_with_16_mib(path) in {
        "count_too_large",
        "string_too_long",
        "array_too_long",
        "tensor_name",
        "data_past_end",
    }


def test_a_large_header_is_indexed_without_memory_for_its_values(
    tmp_path: Path, verdict_with_16_mib: Callable[[Path], str]
) -> None:
    path = tmp_path / "large.gguf"
    blob = 64 * 2**20
    path.write_bytes(
        gguf_bytes(
            {
                "bytes": Raw(9, Array(UINT8, [], count=blob).payload + bytes(blob)),
                "strings": ["x" * 1000] * 20_000,
            }
        )
    )
    assert verdict_with_16_mib(path) == "read"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(Array(STRING, [], count=2**30 - 1), id="empty strings"),
        pytest.param(Array(UINT64, [], count=2**30 - 1), id="numbers"),
        pytest.param(Raw(STRING, string_bytes("", length=2**29)), id="one string"),
    ],
)
def test_a_header_of_holes_is_refused_by_its_size(
    value: Raw, tmp_path: Path, verdict_with_16_mib: Callable[[Path], str]
) -> None:
    path = tmp_path / "holes.gguf"
    path.write_bytes(header_bytes({"first": U32(1), "k": value}))
    os.truncate(path, 9 * 2**30)  # what the header claims is there, as holes
    assert verdict_with_16_mib(path) == "header_too_large"


def test_running_out_of_memory_is_an_error_not_a_crash(
    tmp_path: Path, verdict_with_16_mib: Callable[[Path], str]
) -> None:
    path = tmp_path / "many.gguf"
    path.write_bytes(
        header_bytes(tensor_count=400_000) + Tensor("t", ()).info_bytes(offset=0) * 400_000
    )
    assert verdict_with_16_mib(path) == "out_of_memory"
