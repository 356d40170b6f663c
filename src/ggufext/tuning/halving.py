"""Which cells a search measures next: many candidates on few texts, few on many; pure but for time.

Source: Jamieson and Talwalkar, AISTATS 2016 (successive halving); here a quarter goes on.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from statistics import fmean as mean
from typing import TYPE_CHECKING

from ggufext.comparison.texts import WITHIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ggufext.comparison.measure import CellRecord
    from ggufext.comparison.texts import Text

#: A share of 1/this of the candidates goes on, and reads this many times as many texts.
_SHARE = 4

#: Closed forms that go on in any case, so that the best of them is known well.
_CLOSED = 2

#: A cell that also asks for keys takes longer than one that is only scored.
_WITH_KEYS = 1.25


@dataclass(frozen=True, slots=True)
class Standing:
    """What the search knows of a condition.

    Attributes
    ----------
    name : str
    texts : int
        Of the search that it was measured on.
    loss : float
        Mean beyond the training length on them, nats a token.
    """

    name: str
    texts: int
    loss: float


class Halving:
    """Successive halving over search texts, and then the decision on held-out ones.

    To be `ggufext.comparison.measure.measure`'s rounds.

    Parameters
    ----------
    closed, tuned : sequence of str
        Conditions, the closed forms and the others in the order of the screen.
    native : str
        Measured on held-out texts only.
    search, held : sequence of Text
    seconds : float
        Until when the search may go on; the decision is within it.
    clock : callable
        Seconds that pass.

    Attributes
    ----------
    held : tuple of Text
    out_of_time : bool
        Whether the search ended before its last round.
    """

    def __init__(
        self,
        closed: Sequence[str],
        tuned: Sequence[str],
        *,
        native: str,
        search: Sequence[Text],
        held: Sequence[Text],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._closed, self._tuned, self._native = tuple(closed), tuple(tuned), native
        # On what is searched nothing is asked, and no distribution compared.
        self._search = [_scored_alone(text) for text in search]
        self.held = tuple(held)
        self._clock = clock
        self._started = clock()
        self._end = self._started + seconds
        self._before: int | None = None  # cells of an earlier run
        self.out_of_time = False

    def __call__(self, finished: Sequence[CellRecord]) -> list[tuple[str, Text]]:
        """Cells that are wanted next; none once the decision is measured."""
        if self._before is None:
            self._before = len(finished)
        known = {(record.condition, record.text) for record in finished}
        losses = self._losses(finished)
        going, texts = [*self._closed, *self._tuned], 1
        while not self.out_of_time:
            wanted = [
                (name, text)
                for name in going
                for text in self._search[:texts]
                if (name, text.number) not in known
            ]
            chosen = self._in_time(wanted, finished)
            if chosen:
                return chosen
            if wanted:
                self.out_of_time = True
                break
            going = self._best(going, losses, texts)
            if texts >= len(self._search) or self._alone(going):
                break
            texts = min(texts * _SHARE, len(self._search))
        return self._undecided(finished)

    def decided(self, finished: Sequence[CellRecord]) -> bool:
        """Whether native and the best of both kinds read all held-out texts."""
        return len(self.winners(finished)) == 2 and not self._undecided(finished)

    def standings(self, finished: Sequence[CellRecord]) -> list[Standing]:
        """What was measured of each condition on the search texts; most texts first, then best."""
        losses = self._losses(finished)
        found = [Standing(name, len(each), mean(each.values())) for name, each in losses.items()]
        return sorted(found, key=lambda each: (-each.texts, each.loss, each.name))

    def winners(self, finished: Sequence[CellRecord]) -> list[str]:
        """The best closed form and the best other, as far as they were measured."""
        ranked = [each.name for each in self.standings(finished)]
        found = []
        for group in (self._closed, self._tuned):
            found += [name for name in ranked if name in group][:1]
        return found

    def _undecided(self, finished: Sequence[CellRecord]) -> list[tuple[str, Text]]:
        known = {(record.condition, record.text) for record in finished}
        winners = self.winners(finished)
        return [
            (name, text)
            for name in (self._native, *winners)
            for text in self.held
            if len(winners) == 2 and (name, text.number) not in known
        ]

    def _losses(self, finished: Sequence[CellRecord]) -> dict[str, dict[int, float]]:
        """Loss beyond the training length of each condition on each search text."""
        numbers = {text.number for text in self._search}
        losses: dict[str, dict[int, float]] = defaultdict(dict)
        for record in finished:
            if record.text in numbers:
                blocks = [loss for each in record.losses[WITHIN:] for loss in each]
                losses[record.condition][record.text] = mean(blocks)
        return losses

    def _alone(self, going: Sequence[str]) -> bool:
        return sum(name in self._tuned for name in going) <= 1

    def _best(
        self, going: Sequence[str], losses: Mapping[str, Mapping[int, float]], texts: int
    ) -> list[str]:
        """The best closed forms, and a share of the others.

        By the texts of this round alone: some may have been read further since.
        """
        numbers = [text.number for text in self._search[:texts]]
        means = {name: mean(losses[name][number] for number in numbers) for name in going}
        ranked = sorted(going, key=lambda name: (means[name], name))
        closed = [name for name in ranked if name in self._closed]
        tuned = [name for name in ranked if name in self._tuned]
        return [*closed[:_CLOSED], *tuned[: math.ceil(len(tuned) / _SHARE)]]

    def _in_time(
        self, wanted: list[tuple[str, Text]], finished: Sequence[CellRecord]
    ) -> list[tuple[str, Text]]:
        """As many of the cells as leave time for the decision; one tells how long they take."""
        measured = len(finished) - (self._before or 0)
        if not measured:
            return wanted[:1]
        pace = (self._clock() - self._started) / measured
        left = self._end - self._clock() - 3 * len(self.held) * _WITH_KEYS * pace
        return wanted[: max(int(left / pace), 0)]


def _scored_alone(text: Text) -> Text:
    return replace(
        text,
        segments=tuple(replace(each, distributions=(), questions=()) for each in text.segments),
    )
