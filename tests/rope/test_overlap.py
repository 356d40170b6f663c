"""Outputs may be the input itself, or memory of their own; nothing between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggufext.rope import rotate, rotate_qk

INV_FREQ = (1.0, 0.1)


def rotate_into(x: Any, out: Any) -> Any:
    return rotate(x, np.arange(x.shape[0]), inv_freq=INV_FREQ, out=out)


def test_a_shifted_view_overlaps() -> None:
    memory = np.ones((5, 2, 4), np.float32)
    with pytest.raises(ValueError, match="out: shares memory with x"):
        rotate_into(memory[:4], memory[1:])
    assert (memory == 1).all()


def test_neighbours_do_not_overlap() -> None:
    memory = np.ones((8, 2, 4), np.float32)
    rotate_into(memory[:4], memory[4:])


def test_an_output_with_repeated_elements_is_refused() -> None:
    x = np.ones((4, 2, 4), np.float32)
    out = np.lib.stride_tricks.as_strided(np.ones((1, 2, 4), np.float32), x.shape, (0, 16, 4))
    with pytest.raises(ValueError, match="several elements at one address"):
        rotate_into(x, out)


def test_outputs_of_q_and_k_must_not_meet() -> None:
    q, k = np.ones((4, 2, 4), np.float32), np.ones((4, 2, 4), np.float32)
    for out in ((k, q), (q, q), (q.copy(), q), (k, q.copy())):
        with pytest.raises(ValueError, match="shares memory"):
            rotate_qk(q, k, np.arange(4), inv_freq=INV_FREQ, out=out)
    assert (q == 1).all()
    assert (k == 1).all()


def test_one_tensor_may_be_both_query_and_key() -> None:
    x = np.ones((4, 2, 4), np.float32)
    q, k = rotate_qk(x, x, np.arange(4), inv_freq=INV_FREQ)
    assert np.array_equal(q, k)


views = st.tuples(
    st.integers(0, 40),
    st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]), st.just(4)),
    st.tuples(st.sampled_from([4, 8, 16, 24, 32]), st.sampled_from([4, 8, 12, 20])),
)


@settings(max_examples=400, deadline=None)
@given(views, views)
def test_overlap_is_decided_as_numpy_decides_it(a: Any, b: Any) -> None:
    memory = np.zeros(400, np.float32)

    def view(spec: Any) -> Any:
        start, shape, strides = spec
        return np.lib.stride_tricks.as_strided(
            memory[start:], shape, (strides[0] * 4, strides[1] * 4, 4)
        )

    x, out = view(a), view((b[0], a[1], b[2]))
    same = x.ctypes.data == out.ctypes.data and all(
        n == 1 or s == t for n, s, t in zip(x.shape, x.strides, out.strides, strict=True)
    )
    try:
        rotate_into(x, out)
        refused = ""
    except ValueError as error:
        refused = str(error)
    if "one address" in refused:
        return
    assert bool(refused) == (np.shares_memory(x, out) and not same)
