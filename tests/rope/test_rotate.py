"""What rotate() and rotate_qk() accept, against the float64 reference."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufext.rope import reference, rotate, rotate_qk


@pytest.mark.parametrize(
    "dim", [2, 4, 6, 16, 30, 32, 48, 64, 80, 96, 112, 128, 192, 256, 1100, 2050]
)
def test_every_head_size_is_rotated_completely(
    *, dim: int, layout: Any, dtype: Any, draw: Any, frequencies: Any, assert_close: Any
) -> None:
    x = draw((3, 2, dim), dtype)
    positions = np.array([0, 7, 4000])
    found = rotate(x, positions, inv_freq=frequencies(dim), layout=layout)
    assert found.dtype == x.dtype
    exact = reference.rotate(x, positions, inv_freq=frequencies(dim), layout=layout)
    assert_close(found, exact)


def test_in_place_gives_the_same_bits_as_a_new_array(
    layout: Any, dtype: Any, draw: Any, frequencies: Any
) -> None:
    x = draw((5, 3, 112), dtype)
    options: Any = {"inv_freq": frequencies(80), "layout": layout}
    new = rotate(x, np.arange(5), **options)
    out = np.empty_like(x)
    assert rotate(x, np.arange(5), out=out, **options) is out
    assert rotate(x, np.arange(5), out=x, **options) is x
    assert np.array_equal(x, new)
    assert np.array_equal(out, new)


def test_elements_behind_rotary_dim_are_copied_and_left_alone_in_place(
    layout: Any, dtype: Any, draw: Any, frequencies: Any
) -> None:
    x = draw((4, 2, 128), dtype)
    before = x.copy()
    new = rotate(x, np.arange(4), inv_freq=frequencies(32), rotary_dim=32, layout=layout)
    rotate(x, np.arange(4), inv_freq=frequencies(32), layout=layout, out=x)
    assert np.array_equal(new[..., 32:], before[..., 32:])
    assert np.array_equal(x[..., 32:], before[..., 32:])
    assert not np.array_equal(x[1:, :, :32], before[1:, :, :32])


def test_no_rotated_elements_is_a_copy(draw: Any) -> None:
    x = draw((4, 2, 8))
    assert np.array_equal(rotate(x, np.arange(4), inv_freq=[], rotary_dim=0), x)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_positions_of_every_integer_type(kind: str, draw: Any, frequencies: Any) -> None:
    x = draw((4, 2, 64))
    positions = [3, 0, 127, 3]
    found = rotate(x, np.array(positions, kind), inv_freq=frequencies(64))
    assert np.array_equal(found, rotate(x, positions, inv_freq=frequencies(64)))


def test_positions_may_have_any_stride_and_order(draw: Any, frequencies: Any) -> None:
    x = draw((4, 2, 64))
    backwards = np.arange(100)[80:40:-10]
    found = rotate(x, backwards, inv_freq=frequencies(64))
    assert np.array_equal(found, rotate(x, [80, 70, 60, 50], inv_freq=frequencies(64)))


def test_a_batch_takes_shared_or_own_positions(
    layout: Any, draw: Any, frequencies: Any, assert_close: Any
) -> None:
    x = draw((3, 5, 2, 64))
    own = np.arange(15).reshape(3, 5) * 11
    for positions in (np.arange(5), own, own.T.copy().T):
        found = rotate(x, positions, inv_freq=frequencies(64), layout=layout)
        exact = reference.rotate(x, positions, inv_freq=frequencies(64), layout=layout)
        assert_close(found, exact)


@pytest.mark.parametrize("order", ["blocked", "interleaved"])
@pytest.mark.parametrize(
    "sections", [(24, 20, 20, 0), (16, 16, 16, 16), (64, 0, 0, 0), (24, 20, 20), (5, 40, 16, 3)]
)
def test_sections_read_their_own_row_of_positions(
    *,
    sections: tuple[int, ...],
    order: Any,
    layout: Any,
    draw: Any,
    frequencies: Any,
    assert_close: Any,
) -> None:
    x = draw((2, 6, 3, 128))
    for shape in ((len(sections), 6), (len(sections), 2, 6)):
        positions = np.random.default_rng(3).integers(0, 900, shape)
        options: Any = {
            "inv_freq": frequencies(128),
            "layout": layout,
            "sections": sections,
            "section_order": order,
        }
        assert_close(rotate(x, positions, **options), reference.rotate(x, positions, **options))


def test_the_reference_deals_pairs_to_rows_as_llama_cpp_does() -> None:
    assert reference.section_rows((1, 2, 1, 0), "blocked") == [0, 1, 1, 2]
    assert reference.section_rows((2, 2, 1, 1), "interleaved") == [0, 1, 2, 0, 1, 3]
    assert reference.section_rows((3, 1, 1), "interleaved") == [0, 1, 2, 0, 0]


@pytest.mark.parametrize("shape", [(0, 4, 64), (3, 0, 64), (0, 3, 4, 64), (2, 0, 4, 64)])
def test_nothing_to_rotate_is_no_error(
    shape: tuple[int, ...], layout: Any, dtype: Any, frequencies: Any
) -> None:
    x = np.zeros(shape, dtype)
    found = rotate(x, np.zeros(shape[-3], np.int64), inv_freq=frequencies(64), layout=layout, out=x)
    assert found.shape == shape


def test_views_of_a_fused_tensor_are_rotated_in_place(
    layout: Any, dtype: Any, draw: Any, frequencies: Any
) -> None:
    qkv = draw((2, 6, 12, 64), dtype)
    before = qkv.copy()
    q, k = qkv[:, :, :8], qkv[:, :, 8:10]
    options: Any = {"inv_freq": frequencies(64), "layout": layout}
    rotate_qk(q, k, np.arange(6), out=(q, k), **options)
    assert np.array_equal(qkv[:, :, :10], rotate(before[:, :, :10], np.arange(6), **options))
    assert np.array_equal(qkv[:, :, 10:], before[:, :, 10:])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_strides_but_the_last_are_followed(data: st.DataObject) -> None:
    storage = np.random.default_rng(1).standard_normal((4, 6, 5, 40)).astype(np.float32)
    axes = data.draw(st.permutations([0, 1, 2]))
    step = data.draw(st.tuples(*[st.sampled_from([1, 2, -1, -2])] * 3))
    start = data.draw(st.integers(0, 8))
    x = storage.transpose(*axes, 3)[:: step[0], :: step[1], :: step[2], start : start + 32]
    inv_freq = 100.0 ** (-np.arange(16) / 16)
    positions = np.arange(x.shape[1])
    expected = rotate(np.ascontiguousarray(x), positions, inv_freq=inv_freq)
    untouched = storage.copy()
    rotate(x, positions, inv_freq=inv_freq, out=x)
    assert np.array_equal(x, expected)
    mask = np.ones(storage.shape, bool)
    mask.transpose(*axes, 3)[:: step[0], :: step[1], :: step[2], start : start + 32] = False
    assert np.array_equal(storage[mask], untouched[mask])


def test_an_input_may_be_read_only_and_broadcast(draw: Any, frequencies: Any) -> None:
    x = np.broadcast_to(draw((1, 3, 64)), (5, 3, 64))
    found = rotate(x, np.arange(5), inv_freq=frequencies(64))
    assert np.array_equal(found, rotate(x.copy(), np.arange(5), inv_freq=frequencies(64)))


def test_an_unaligned_array_is_rotated(draw: Any, frequencies: Any) -> None:
    raw = np.zeros(4 * 3 * 64 + 1, np.uint8)
    x = raw[1:].view(np.float32).reshape(1, 3, 64)
    x[...] = draw((1, 3, 64))
    expected = rotate(x.copy(), [9], inv_freq=frequencies(64))
    assert np.array_equal(rotate(x, [9], inv_freq=frequencies(64), out=x), expected)


def test_frequencies_may_be_a_tuple_a_list_or_any_float_array(draw: Any, frequencies: Any) -> None:
    x = draw((2, 1, 64))
    inv_freq = frequencies(64).astype(np.float32)
    expected = rotate(x, [5, 6], inv_freq=inv_freq)
    for same in (tuple(inv_freq), inv_freq.tolist(), inv_freq.astype(np.float64)):
        assert np.array_equal(rotate(x, [5, 6], inv_freq=same), expected)


@pytest.mark.parametrize("threads", [1, 2, 3, 8, None])
def test_the_number_of_threads_does_not_change_a_bit(
    threads: int | None, layout: Any, draw: Any, frequencies: Any
) -> None:
    x = draw((700, 16, 128))
    options: Any = {"inv_freq": frequencies(128), "layout": layout}
    expected = np.concatenate([rotate(x[i : i + 1], [i], **options) for i in range(700)])
    assert np.array_equal(rotate(x, np.arange(700), threads=threads, **options), expected)


def test_a_forked_child_rotates_with_threads_of_its_own() -> None:
    program = """
import os
import numpy as np
from ggufext.rope import rotate

x = np.ones((900, 16, 128), np.float32)
def run():
    return rotate(x, np.arange(900), inv_freq=np.ones(64), threads=2)
expected = run()
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(run(), expected) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.strip() == "0"


def test_rotation_is_not_loaded_with_the_package() -> None:
    program = "import sys, ggufext; print('numpy' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
