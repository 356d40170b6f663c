"""Every bad argument is named, and nothing has been written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ggufext.rope import rebase, rotate, rotate_qk

INV_FREQ = tuple(0.5**i for i in range(16))


def tensor(*shape: int, dtype: Any = np.float32) -> Any:
    return np.ones(shape or (4, 2, 32), dtype)


def read_only() -> Any:
    x = tensor()
    x.flags.writeable = False
    return x


#: argument, error, part of the message, keyword arguments that differ from a good call
CASES: list[tuple[str, type[Exception], str, dict[str, Any]]] = [
    ("x", TypeError, "list", {"x": [1.0]}),
    ("x", TypeError, "NoneType", {"x": None}),
    ("x", TypeError, "float64", {"x": tensor(dtype=np.float64)}),
    ("x", TypeError, "int32", {"x": tensor(dtype=np.int32)}),
    ("x", TypeError, ">f4", {"x": tensor(dtype=">f4")}),
    ("x", TypeError, "bool", {"x": tensor(dtype=bool)}),
    ("x", ValueError, "2 dimensions", {"x": tensor(4, 32)}),
    ("x", ValueError, "5 dimensions", {"x": tensor(1, 1, 4, 2, 32)}),
    ("x", ValueError, "would need a copy", {"x": tensor(4, 2, 64)[..., ::2]}),
    ("x", ValueError, "would need a copy", {"x": tensor(4, 32, 2).transpose(0, 2, 1)}),
    ("positions", TypeError, "float64", {"positions": np.arange(4.0)}),
    ("positions", TypeError, "bool", {"positions": np.ones(4, bool)}),
    ("positions", TypeError, "bfloat16", {"positions": "bfloat16"}),
    ("positions", TypeError, "object", {"positions": ["a", None, 1, 2]}),
    ("positions", ValueError, "[3], expected [4]", {"positions": np.arange(3)}),
    ("positions", ValueError, "[1, 4], expected [4]", {"positions": np.zeros((1, 4), int)}),
    ("positions", ValueError, "0 dimensions", {"positions": np.int64(3)}),
    ("positions", ValueError, "-1 at index 2", {"positions": [0, 1, -1, 3]}),
    ("positions", ValueError, "2147483648", {"positions": [0, 1, 2, 2**31]}),
    (
        "positions",
        ValueError,
        "18446744073709551615",
        {"positions": np.array([2**64 - 1] * 4, np.uint64)},
    ),
    ("inv_freq", ValueError, "element 3 is nan", {"inv_freq": (*INV_FREQ[:3], np.nan)}),
    ("inv_freq", ValueError, "element 0 is inf", {"inv_freq": (np.inf,)}),
    ("inv_freq", ValueError, "element 1 is -", {"inv_freq": (1.0, -1e-9)}),
    ("inv_freq", ValueError, "17 frequencies", {"inv_freq": (*INV_FREQ, 1.0)}),
    ("inv_freq", ValueError, "2 dimensions", {"inv_freq": np.ones((2, 8))}),
    ("inv_freq", TypeError, "element 0 is str", {"inv_freq": ["1"]}),
    ("inv_freq", TypeError, "NoneType", {"inv_freq": None}),
    ("inv_freq", TypeError, "str", {"inv_freq": "0.5"}),
    ("attention_factor", TypeError, "str", {"attention_factor": "1"}),
    ("attention_factor", ValueError, "nan", {"attention_factor": float("nan")}),
    ("attention_factor", ValueError, "0", {"attention_factor": 0}),
    ("attention_factor", ValueError, "-1", {"attention_factor": -1.0}),
    ("layout", ValueError, "'neox'", {"layout": "neox"}),
    ("layout", ValueError, "None", {"layout": None}),
    ("rotary_dim", ValueError, "31, expected an even number", {"rotary_dim": 31}),
    ("rotary_dim", ValueError, "-2", {"rotary_dim": -2}),
    ("rotary_dim", TypeError, "float", {"rotary_dim": 32.0}),
    ("inv_freq", ValueError, "16 frequencies, expected 8", {"rotary_dim": 16}),
    ("sections", ValueError, "add up to the 16", {"sections": (8, 4, 3, 0)}),
    ("sections", ValueError, "3 or 4", {"sections": (8, 8)}),
    ("sections", ValueError, "3 or 4", {"sections": (17, -1, 0, 0)}),
    ("sections", TypeError, "float", {"sections": (8, 8.0, 0, 0)}),
    ("sections", ValueError, "empty", {"sections": ()}),
    ("positions", ValueError, "expected [4, 4]", {"sections": (8, 4, 4, 0)}),
    (
        "section_order",
        ValueError,
        "without sections",
        {"section_order": "blocked", "sections": None},
    ),
    ("section_order", ValueError, "missing", {"sections": (8, 8, 0), "section_order": None}),
    ("section_order", ValueError, "'mrope'", {"section_order": "mrope"}),
    ("inverse", TypeError, "int", {"inverse": 1}),
    ("out", TypeError, "str", {"out": "x"}),
    ("out", TypeError, "float16, expected float32", {"out": tensor(dtype=np.float16)}),
    ("out", ValueError, "[4, 1, 32], expected [4, 2, 32]", {"out": tensor(4, 1, 32)}),
    ("out", ValueError, "[1, 4, 2, 32]", {"out": tensor(1, 4, 2, 32)}),
    ("out", ValueError, "read-only", {"out": read_only()}),
    ("threads", ValueError, "0, expected at least 1", {"threads": 0}),
    ("threads", TypeError, "float", {"threads": 1.5}),
    ("threads", TypeError, "bool", {"threads": True}),
]


@pytest.mark.parametrize(
    ("argument", "error", "message", "bad"), CASES, ids=[f"{c[0]}-{c[2]}" for c in CASES]
)
def test_a_bad_argument_is_named_and_nothing_is_written(
    argument: str, error: type[Exception], message: str, bad: dict[str, Any]
) -> None:
    call = {"x": tensor(), "positions": np.arange(4), "inv_freq": INV_FREQ, "out": tensor()} | bad
    if isinstance(call["positions"], str):
        call["positions"] = np.arange(4).astype(pytest.importorskip("ml_dtypes").bfloat16)
    if "sections" in call and "section_order" not in call:
        call["section_order"] = "blocked"
    with pytest.raises(error) as caught:
        rotate(call.pop("x"), call.pop("positions"), **call)
    assert str(caught.value).startswith(f"{argument}: ")
    assert message in str(caught.value)
    if isinstance(call["out"], np.ndarray):
        assert (call["out"] == 1).all()


def test_a_read_only_tensor_is_not_rotated_in_place() -> None:
    x = read_only()
    with pytest.raises(ValueError, match="out: is read-only"):
        rotate(x, np.arange(4), inv_freq=INV_FREQ, out=x)


def test_q_and_k_must_fit_each_other() -> None:
    q = tensor(4, 8, 32)
    for k, error, message in (
        (tensor(4, 2, 32, dtype=np.float16), TypeError, "k: is float16 but q is float32"),
        (tensor(5, 2, 32), ValueError, "k: has shape"),
        (tensor(1, 4, 2, 32), ValueError, "k: has shape"),
        (tensor(4, 2, 16), ValueError, "more than head_dim 16 of k"),
        (None, TypeError, "k: is None"),
        ([1], TypeError, "k: is list"),
    ):
        with pytest.raises(error, match=message):
            rotate_qk(q, k, np.arange(4), inv_freq=INV_FREQ, out=(q, q))
    assert (q == 1).all()


def test_outputs_of_q_and_k_come_as_a_pair() -> None:
    q, k = tensor(4, 8, 32), tensor(4, 2, 32)
    with pytest.raises(TypeError, match="out: is ndarray, expected None or a tuple"):
        rotate_qk(q, k, np.arange(4), inv_freq=INV_FREQ, out=q)
    with pytest.raises(ValueError, match=r"out\[1\]: has shape"):
        rotate_qk(q, k, np.arange(4), inv_freq=INV_FREQ, out=(q, q))
    assert (q == 1).all()


def test_an_argument_that_changes_while_it_is_read_is_read_as_it_was() -> None:
    class Clearing:
        def __float__(self) -> float:
            values.clear()
            return 1.0

    values: list[Any] = [Clearing(), *(0.5 for _ in range(100_000))]
    x = tensor(1, 1, 2 * len(values))
    expected = rotate(x, [3], inv_freq=[1.0, *values[1:]])
    assert np.array_equal(rotate(x, [3], inv_freq=values), expected)
    assert not values


def test_outputs_are_the_elements_of_the_tuple_whatever_its_class_says() -> None:
    class Pair(tuple[Any, Any]):
        __slots__ = ()

        def __getitem__(self, index: Any) -> Any:
            return tensor(4, 2, 32)

    q, k = tensor(4, 8, 32), tensor(4, 2, 32)
    q_out, k_out = np.zeros_like(q), np.zeros_like(k)
    rotate_qk(q, k, np.arange(4), inv_freq=INV_FREQ, out=Pair((q_out, k_out)))
    assert np.array_equal(q_out, rotate(q, np.arange(4), inv_freq=INV_FREQ))
    assert np.array_equal(k_out, rotate(k, np.arange(4), inv_freq=INV_FREQ))


class Plan:
    def __init__(self, inv_freq: tuple[float, ...], attention_factor: float = 1.0) -> None:
        self.inv_freq, self.attention_factor = inv_freq, attention_factor


def test_rebase_names_the_plan_that_does_not_fit() -> None:
    k, new = tensor(), Plan(INV_FREQ)
    for old, message in (
        (Plan(INV_FREQ[:8]), "old.inv_freq: has 8 frequencies, expected 16"),
        (Plan((float("nan"), *INV_FREQ[1:])), "old.inv_freq: element 0 is nan"),
        (Plan(INV_FREQ, 0.0), "old.attention_factor: is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            rebase(k, np.arange(4), old, new, out=k)
    with pytest.raises(TypeError, match="k: is list"):
        rebase([1], np.arange(4), new, new)
    assert (k == 1).all()
