"""Successive halving on made-up losses: who goes on, what it costs, and what time does to it."""

from __future__ import annotations

import random

import pytest

from ggufext.comparison.measure import CellRecord
from ggufext.comparison.texts import Segment, Text
from ggufext.tuning.halving import Halving

CLOSED = ("planned:gamma", "planned:ntk", "planned:yarn")
TUNED = tuple(f"planned:base:{x}" for x in range(13))


def text(number: int) -> Text:
    segment = Segment(length=64, parts=(), rows=(1, 2), distributions=(1,), questions=())
    return Text(number=number, segments=(segment,), bins=(1, 1, 1, 1))


SEARCH, HELD = [text(x) for x in range(8)], [text(x) for x in range(8, 11)]


class Model:
    """Measures what a search asks for: a loss of each condition, and noise of each text."""

    def __init__(
        self, losses: dict[str, float], *, noise: float = 0.0, seconds: float = 1.0
    ) -> None:
        self.losses, self.noise, self.seconds = losses, noise, seconds
        self.now = 100.0
        self.finished: list[CellRecord] = []

    def clock(self) -> float:
        return self.now

    def loss(self, name: str, number: int) -> float:
        rng = random.Random(f"{name}/{number}")
        return self.losses.get(name, 5.0) + rng.gauss(0, self.noise)

    def measure(self, halving: Halving, most: int = 10_000) -> None:
        while wanted := halving(self.finished):
            for name, each in wanted[:most]:
                assert (name, each.number) not in {(x.condition, x.text) for x in self.finished}
                value = self.loss(name, each.number)
                self.now += self.seconds
                self.finished.append(
                    CellRecord(name, each.number, ((9.0,), (9.0,), (value,), (value,)),
                               (), (), (), (), (), 1, 1)
                )  # fmt: skip


def search(model: Model, seconds: float = 1e9, tuned: tuple[str, ...] = TUNED) -> Halving:
    halving = Halving(
        CLOSED,
        tuned,
        native="native",
        search=SEARCH,
        held=HELD,
        seconds=seconds,
        clock=model.clock,
    )
    model.measure(halving)
    return halving


def cells(model: Model, texts: list[Text]) -> list[tuple[str, int]]:
    numbers = {each.number for each in texts}
    return [(x.condition, x.text) for x in model.finished if x.text in numbers]


LOSSES = {**{name: 4.0 + 0.1 * i for i, name in enumerate(TUNED)}, "planned:ntk": 4.15}


def test_the_best_of_both_kinds_are_decided_on_held_out_texts() -> None:
    model = Model(LOSSES)
    halving = search(model)
    assert halving.winners(model.finished) == ["planned:ntk", TUNED[0]]
    assert {name for name, _ in cells(model, HELD)} == {"native", "planned:ntk", TUNED[0]}
    assert not halving.out_of_time
    assert halving.decided(model.finished)
    assert not halving.decided(model.finished[:-1])
    assert halving.standings(model.finished)[0].name == TUNED[0]
    assert ("native", 0) not in cells(model, SEARCH)


def test_all_read_the_first_text_and_few_read_all() -> None:
    model = Model(LOSSES)
    search(model)
    searched = cells(model, SEARCH)
    assert sorted(name for name, number in searched if number == 0) == sorted((*CLOSED, *TUNED))
    assert sum(number == 3 for _, number in searched) < 7
    assert len(searched) <= 0.27 * len((*CLOSED, *TUNED)) * len(SEARCH)


def test_more_texts_correct_what_one_text_said() -> None:
    model = Model(LOSSES)
    lucky = TUNED[2]
    plain = model.loss

    def loss(name: str, number: int) -> float:
        return 3.5 if (name, number) == (lucky, 0) else plain(name, number)

    model.loss = loss  # type: ignore[method-assign]
    halving = search(model)
    assert halving.winners(model.finished)[1] == TUNED[0]


def test_a_search_that_is_cut_off_anywhere_goes_on_to_the_same_cells() -> None:
    whole = Model(LOSSES, noise=0.2)
    search(whole)
    for count in range(0, len(whole.finished), 5):
        again = Model(LOSSES, noise=0.2)
        again.finished = whole.finished[:count]
        search(again)
        assert sorted((x.condition, x.text) for x in again.finished) == sorted(
            (x.condition, x.text) for x in whole.finished
        )


def test_time_for_the_decision_is_kept() -> None:
    for seconds in (20, 25, 30, 40, 60):
        model = Model(LOSSES)
        halving = search(model, seconds)
        assert len(cells(model, HELD)) == 9
        assert model.now - 100 <= seconds
        assert halving.out_of_time == (seconds < 55)


def test_without_time_for_the_decision_nothing_is_begun_that_needs_it() -> None:
    model = Model(LOSSES)
    halving = search(model, 3)
    assert [x.condition for x in model.finished] == [CLOSED[0]]
    assert halving.winners(model.finished) == [CLOSED[0]]
    assert not halving.decided(model.finished)
    assert halving.out_of_time


@pytest.mark.parametrize("seed", range(5))
def test_what_is_clearly_best_wins_as_it_would_on_all_texts(seed: int) -> None:
    rng = random.Random(seed)
    names = list(TUNED)
    rng.shuffle(names)
    model = Model({**{name: 4.0 + 0.1 * i for i, name in enumerate(names)}}, noise=0.03)
    halving = search(model)
    full = {name: sum(model.loss(name, x.number) for x in SEARCH) for name in TUNED}
    assert halving.winners(model.finished)[1] == min(full, key=full.__getitem__)


def test_a_single_candidate_is_read_no_further_than_it_takes() -> None:
    model = Model(LOSSES)
    search(model, tuned=TUNED[:1])
    assert {number for name, number in cells(model, SEARCH) if name == TUNED[0]} == {0}
