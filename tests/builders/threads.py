"""The same work in several threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

#: Threads of a test: more than there are processors on the smallest machines.
COUNT = 4


def at_once(work: Callable[[int], Result], rounds: int = 5) -> list[Result]:
    """What `work` returns for 0 … 3, each in a thread; all start together.

    Every thread works `rounds` times, and its results have to be equal.
    """
    start = threading.Barrier(COUNT)

    def run(number: int) -> Result:
        start.wait()
        first, *others = [work(number) for _ in range(rounds)]
        assert all(other == first for other in others)
        return first

    with ThreadPoolExecutor(COUNT) as pool:
        return list(pool.map(run, range(COUNT)))
