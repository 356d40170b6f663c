"""The CUDA kernel's source, run on the host: mathematics, indexing and launch geometry.

What this cannot show is left to test_cuda.py and a device: memory spaces, streams, speed.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggufext.rope import reference, rotate

ROOT = Path(__file__).parents[2]
SOURCES = [
    "tests/rope/cuda_emulation.cpp",
    "csrc/cuda/rope_launch.cpp",
    "csrc/rope/rope_check.cpp",
    "csrc/rope/rope_overlap.cpp",
    "csrc/rope/rope_phase.cpp",
]
TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
LAYOUTS = {"interleaved": 0, "half": 1}
ORDERS = {None: 0, "blocked": 1, "interleaved": 2}


class Array(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("shape", ctypes.c_int64 * 4),
        ("strides", ctypes.c_int64 * 4),
    )

    @classmethod
    def of(cls, x: Any) -> Array:
        return cls(x.ctypes.data, (ctypes.c_int64 * 4)(*x.shape), (ctypes.c_int64 * 4)(*x.strides))


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Any:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    library = tmp_path_factory.mktemp("cuda") / "emulation.so"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Icsrc/core", "-Icsrc/rope", "-Icsrc/cuda"]
    subprocess.run([compiler, *flags, *SOURCES, "-o", str(library)], cwd=ROOT, check=True)
    return ctypes.CDLL(str(library))


def emulate(
    emulation: Any,
    tensors: list[Any],
    positions: Any,
    inv_freq: Any,
    layout: Any,
    *,
    factor: float = 1.0,
    out: list[Any] | None = None,
    sections: tuple[int, ...] = (),
    order: str | None = None,
    as_array: bool = False,
) -> tuple[int, ...]:
    """Bytes of an access, lanes, groups and tokens of a block, rounds, whether positions inline."""
    out = tensors if out is None else out
    count = len(tensors)
    geometry = (ctypes.c_int * 6)()
    pos = np.ascontiguousarray(positions, np.int64)
    freq = np.ascontiguousarray(inv_freq, np.float64)
    status = emulation.emulate(
        TYPES[tensors[0].dtype.name],
        LAYOUTS[layout],
        count,
        (Array * count)(*map(Array.of, tensors)),
        (Array * count)(*map(Array.of, out)),
        ctypes.c_void_p(pos.ctypes.data),
        len(sections),
        (ctypes.c_int64 * 4)(*sections),
        ORDERS[order],
        ctypes.c_void_p(freq.ctypes.data),
        len(freq),
        ctypes.c_double(factor),
        int(as_array),
        geometry,
    )
    assert status == 0
    return tuple(geometry)


@pytest.mark.parametrize("dim", [2, 6, 16, 30, 64, 80, 128, 512])
@pytest.mark.parametrize("heads", [(1, 1), (32, 8), (71, 1)])
def test_the_kernel_rotates_as_the_reference(
    *,
    dim: int,
    heads: tuple[int, int],
    layout: Any,
    dtype: Any,
    draw: Any,
    frequencies: Any,
    assert_close: Any,
    emulation: Any,
) -> None:
    q, k = (draw((1, 3, n, dim), dtype) for n in heads)
    positions = np.array([0, 77, 2**31 - 1])
    positions[2] = 1_000_000
    exact = [
        reference.rotate(
            x, positions, inv_freq=frequencies(dim), layout=layout, attention_factor=1.2
        )
        for x in (q, k)
    ]
    emulate(emulation, [q, k], positions, frequencies(dim), layout, factor=1.2)
    assert_close(q, exact[0])
    assert_close(k, exact[1])


def test_the_kernel_s_cosines_are_exact_at_the_last_position(
    method: Any, emulation: Any, layout: Any
) -> None:
    inv_freq, _ = method
    x = np.zeros((1, 4, 1, 128), np.float32)
    if layout == "half":
        x[..., :64] = 1
    else:
        x[..., 0::2] = 1
    positions = np.array([2**31 - 1, 2**31 - 2, 123_456_789, 1])
    cpu = rotate(x, positions, inv_freq=inv_freq, layout=layout)  # exact: test_accuracy.py
    emulate(emulation, [x], positions, inv_freq, layout)
    assert np.abs(x - cpu).max() <= 1.2e-7


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize("tokens", [5, 300])
def test_sections_batches_and_all_ways_positions_travel(
    *,
    tokens: int,
    as_array: bool,
    layout: Any,
    draw: Any,
    frequencies: Any,
    assert_close: Any,
    emulation: Any,
) -> None:
    x = draw((2, tokens, 2, 32))
    positions = np.random.default_rng(4).integers(0, 5000, (4, 2, tokens))
    for order in ("blocked", "interleaved"):
        exact = reference.rotate(
            x,
            positions,
            inv_freq=frequencies(32),
            layout=layout,
            sections=(6, 5, 4, 1),
            section_order=order,
        )
        out = np.empty_like(x)
        emulate(
            emulation,
            [x],
            positions,
            frequencies(32),
            layout,
            out=[out],
            sections=(6, 5, 4, 1),
            order=order,
            as_array=as_array,
        )
        assert_close(out, exact)


def test_what_does_not_rotate_is_copied(
    layout: Any, dtype: Any, draw: Any, frequencies: Any, emulation: Any
) -> None:
    for rotary in (0, 32):
        x, out = draw((1, 3, 5, 100), dtype), np.zeros((1, 3, 5, 100), dtype)
        emulate(
            emulation, [x], np.arange(3), frequencies(rotary) if rotary else [], layout, out=[out]
        )
        assert np.array_equal(out[..., rotary:], x[..., rotary:])


def test_fused_views_are_rotated_in_place_and_their_neighbours_left_alone(
    layout: Any, dtype: Any, draw: Any, frequencies: Any, emulation: Any
) -> None:
    qkv = draw((1, 4, 12, 64), dtype)
    before = qkv.copy()
    emulate(emulation, [qkv[:, :, :8], qkv[:, :, 8:10]], np.arange(4), frequencies(64), layout)
    expected = rotate(before[:, :, :10], np.arange(4), inv_freq=frequencies(64), layout=layout)
    difference = np.abs(qkv[:, :, :10].astype(np.float64) - expected.astype(np.float64))
    assert difference.max() <= {4: 1e-6, 2: 0.04}[dtype.itemsize]
    assert np.array_equal(qkv[:, :, 10:], before[:, :, 10:])


def aligned(shape: tuple[int, ...], dtype: Any, offset: int = 0) -> Any:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(count + 64, np.uint8)
    start = -raw.ctypes.data % 16 + offset
    return raw[start : start + count].view(dtype).reshape(shape)


def test_blocks_hold_whole_tokens_where_they_fit(emulation: Any, frequencies: Any) -> None:
    # The shape of the target, 16 bytes an access: (32 + 8) / 4 groups of 8 threads, or
    # (32 + 8) / 8 groups of 16 threads.
    q, k = aligned((1, 1, 32, 128), np.float16), aligned((1, 1, 8, 128), np.float16)
    assert emulate(emulation, [q, k], [0], frequencies(128), "half")[:5] == (16, 8, 10, 3, 1)
    assert emulate(emulation, [q, k], [0], frequencies(128), "interleaved")[:5] == (16, 16, 5, 3, 1)
    one = aligned((1, 1, 1, 64), np.float32)
    assert emulate(emulation, [one], [0], frequencies(64), "half")[:5] == (16, 8, 1, 32, 1)
    # 32 groups of 16 threads are two blocks of even load.
    many = aligned((1, 1, 128, 128), np.float32)
    assert emulate(emulation, [many], [0], frequencies(128), "half")[:5] == (16, 16, 16, 1, 2)
    # A block is 64 tokens deep at most.
    tiny = aligned((1, 1, 1, 8), np.float16)
    assert emulate(emulation, [tiny], [0], frequencies(8), "interleaved")[:5] == (16, 1, 1, 64, 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_positions_that_count_up_travel_in_the_launch(
    *, batch: int, layout: Any, draw: Any, frequencies: Any, assert_close: Any, emulation: Any
) -> None:
    x = draw((batch, 300, 2, 32))
    starts = np.arange(3 * batch).reshape(3, batch, 1) * 1000
    options: Any = {"sections": (6, 5, 5)}
    for change, is_inline in ((0, True), (1, False)):
        positions = starts + np.arange(300)
        positions[2, -1, 299] += change
        exact = reference.rotate(
            x,
            positions,
            inv_freq=frequencies(32),
            layout=layout,
            section_order="blocked",
            **options,
        )
        out = np.empty_like(x)
        found = emulate(
            emulation,
            [x],
            positions,
            frequencies(32),
            layout,
            out=[out],
            order="blocked",
            **options,
        )
        assert found[5] == is_inline
        assert_close(out, exact)


def test_accesses_are_narrow_where_addresses_are_not_aligned(
    emulation: Any, frequencies: Any
) -> None:
    x = aligned((1, 1, 2, 64), np.float16, offset=2)
    assert emulate(emulation, [x], [0], frequencies(64), "half")[0] == 2
    x = aligned((1, 1, 2, 64), np.float16, offset=4)
    assert emulate(emulation, [x], [0], frequencies(64), "interleaved")[0] == 4
    odd = aligned((1, 1, 2, 20), np.float32)  # 10 pairs are 40 bytes
    assert emulate(emulation, [odd], [0], frequencies(20), "half")[0] == 4


def test_half_precision_rounds_as_numpy_does(emulation: Any) -> None:
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values)]
    x = np.resize(values, (1, 1, 1024, 62)).astype(np.float16)
    out = np.empty_like(x)
    emulate(emulation, [x], [0], np.zeros(31), "interleaved", factor=0.7, out=[out])
    with np.errstate(over="ignore"):
        expected = (x.astype(np.float64) * 0.7).astype(np.float16)
    wrong = out.view(np.uint16) != expected.view(np.uint16)
    assert wrong.mean() <= 1e-3  # rounding through float32 differs next to ties only
    assert np.abs(out.astype(float) - expected.astype(float))[wrong].max(initial=0) <= 0.5 * 64
