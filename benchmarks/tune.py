"""`ggufext tune`: its screen against a real evaluation, and halving against all on all texts.

Prints seconds of capturing a text, of screening a candidate by it and of running two closed forms
on a text of the same length, and their ratios; then for every seed whether successive halving ends
with the scaling that is best when all candidates read all texts, and the share of the tokens that
it read.

Usage: ``python benchmarks/tune.py MODEL [--target 768] [--seeds 5] [--texts 8] [--threads 1]``;
of a large model ``--train-length 2048 --target 4096 --seeds 0 --text FILE``, without the halving.
"""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager
from dataclasses import replace
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
    """Seconds of captures, of screened candidates and of runs on a text."""

    def __init__(self) -> None:
        self.captures: list[float] = []
        self.screened: list[float] = []
        self.runs: list[float] = []

    def halving(self) -> type[Halving]:
        """A policy that runs two closed forms on one text, one after the other."""
        clock = self

        class Two(Halving):
            _since = 0.0

            def __call__(self, finished: Sequence[CellRecord]) -> list[tuple[str, Text]]:
                now = time.perf_counter()
                if finished:
                    clock.runs.append(now - self._since)
                self._since = now
                return [(name, self._search[0]) for name in self._closed[len(finished) : 2][:1]]

        return Two


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", type=int, default=768)
    parser.add_argument("--train-length", type=int, help="a smaller one makes a smaller target")
    parser.add_argument("--text", type=Path, action="append", default=[])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    request = TuneRequest(
        target_length=options.target,
        train_length=options.train_length,
        texts=tuple(options.text),
        minutes=600,
        search_texts=options.texts,
        trials=1,
        depths=1,
        engine=LocalSettings(threads=options.threads, flash_attention=False),
    )
    screen_against_runs(options.model, request)
    for seed in range(options.seeds):
        request = replace(request, seed=seed)
        halved = tuned(options.model, request, Halving)
        full = tuned(options.model, request, AllOnAll)
        cells = sum(each.texts for each in full.searched)
        read = sum(each.texts for each in halved.searched)
        losses = {each.name: each.loss for each in full.searched if each.loss is not None}
        behind = losses[halved.tuned or ""] - losses[full.tuned or ""]
        print(
            f"seed {seed}: halving: {halved.tuned}, all on all: {full.tuned} "
            f"(+{behind:.4f} nats a token); {read} of {cells} readings, {read / cells:.0%}",
            flush=True,
        )


def screen_against_runs(model: Path, request: TuneRequest) -> None:
    """Time of a screened candidate and of a real run, in one search that ends behind two runs."""
    clock = Clock()
    with watched(clock):
        tuned(model, replace(request, search_texts=1), clock.halving())
    count, capturing = len(clock.screened), sum(clock.captures)
    screened, run = sum(clock.screened) / count, sum(clock.runs) / len(clock.runs)
    print(
        f"capture {capturing:.2f} s, {count} candidates screened in {1000 * screened:.1f} ms each, "
        f"run on a text {run:.2f} s each: {run / screened:.0f} times, with the capture spread over "
        f"them {run / (screened + capturing / count):.0f} times",
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
