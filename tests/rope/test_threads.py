"""Calls from several Python threads at once give what they give one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ggufext.rope import rotate, rotate_qk
from threads import COUNT, at_once

POSITIONS = np.arange(600)


@pytest.mark.parametrize("threads", [1, 2])
def test_tensors_of_their_own_and_one_shared_tensor(
    threads: int, layout: Any, dtype: Any, draw: Any, frequencies: Any
) -> None:
    shared = draw((600, 16, 64), dtype)
    options: Any = {"inv_freq": list(frequencies(64)), "layout": layout, "threads": threads}

    def work(number: int) -> bytes:
        own = shared + dtype.type(number)
        new = rotate(shared, POSITIONS, **options)
        rotate(own, POSITIONS, out=own, **options)
        q, k = rotate_qk(shared[:, :12], shared[:, 12:], POSITIONS, **options)
        return b"".join(array.tobytes() for array in (new, own, q, k))

    assert at_once(work) == [work(number) for number in range(COUNT)]


def test_errors_reach_the_thread_that_made_them(draw: Any, frequencies: Any) -> None:
    x = draw((600, 2, 64))

    def work(number: int) -> str:
        positions = np.array([*range(599), -1 - number])
        with pytest.raises(ValueError, match="positions: ") as caught:
            rotate(x, positions, inv_freq=frequencies(64), out=x)
        return str(caught.value)

    assert [error.split()[1] for error in at_once(work)] == [f"{-1 - i}" for i in range(COUNT)]
