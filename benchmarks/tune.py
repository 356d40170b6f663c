"""`ggufext tune`: its screen against a real evaluation, and halving against all on all texts.

Prints seconds of capturing a text, of screening a candidate by it and of running one on the same
text, and their ratios; then for every seed whether successive halving ends with the scaling that is
best when all candidates read all texts, and the share of the tokens that it read.

Usage: ``python benchmarks/tune.py MODEL [--target 768] [--seeds 5] [--texts 8] [--threads 1]``
"""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ggufext.audit.request import LocalSettings
from ggufext.tuning import tune as tuning
from ggufext.tuning.halving import Halving
from ggufext.tuning.request import TuneRequest
from ggufext.tuning.screen import Screen
from ggufext.tuning.screening import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ggufext.comparison.measure import CellRecord
    from ggufext.comparison.texts import Text
    from ggufext.tuning.results import TuneResult


class AllOnAll(Halving):
    """Every candidate on every search text."""

    def __call__(self, finished: Sequence[CellRecord]) -> list[tuple[str, Text]]:
        """All that is not measured yet, and then the decision."""
        known = {(record.condition, record.text) for record in finished}
        left = [
            (name, text)
            for name in (*self._closed, *self._tuned)
            for text in self._search
            if (name, text.number) not in known
        ]
        return left or super().__call__(finished)


class Clock:
    """Seconds of captures and of screened candidates."""

    def __init__(self) -> None:
        self.captures: list[float] = []
        self.screened: list[float] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", type=int, default=768)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for seed in range(options.seeds):
        request = TuneRequest(
            target_length=options.target,
            minutes=600,
            search_texts=options.texts,
            trials=1,
            depths=1,
            seed=seed,
            engine=LocalSettings(threads=options.threads, flash_attention=False),
        )
        halved = tuned(options.model, request, Halving)
        clock = Clock()
        started = time.perf_counter()
        with watched(clock):
            full = tuned(options.model, request, AllOnAll)
        seconds = time.perf_counter() - started - sum(clock.captures) - sum(clock.screened)
        cells = sum(each.texts for each in full.searched)
        screened = sum(clock.screened) / len(clock.screened)
        print(
            f"seed {seed}: capture {clock.captures[0]:.2f} s, a candidate screened "
            f"{1000 * screened:.1f} ms, run on a text {1000 * seconds / cells:.0f} ms: "
            f"{seconds / cells / screened:.0f} times"
        )
        read = sum(each.texts for each in halved.searched)
        losses = {each.name: each.loss for each in full.searched if each.loss is not None}
        behind = losses[halved.tuned or ""] - losses[full.tuned or ""]
        print(
            f"  halving: {halved.tuned}, all on all: {full.tuned} "
            f"(+{behind:.4f} nats a token); {read} of {cells} readings, {read / cells:.0%}",
            flush=True,
        )


def tuned(model: Path, request: TuneRequest, policy: type[Halving]) -> TuneResult:
    with patch.object(tuning, "Halving", policy):
        return tuning.tune(model, request, allow_copy=lambda _: True)


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Time captures and screened candidates meanwhile."""

    def timed(function: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
        def call(*args: Any, **rest: Any) -> Any:
            started = time.perf_counter()
            found = function(*args, **rest)
            seconds.append(time.perf_counter() - started)
            return found

        return call

    with (
        patch.object(tuning, "capture", timed(capture, clock.captures)),
        patch.object(Screen, "error", timed(Screen.error, clock.screened)),
    ):
        yield


if __name__ == "__main__":
    main()
