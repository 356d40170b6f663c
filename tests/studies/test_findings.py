"""Effects that were put into made-up results are found again, with the words of the protocol."""

from __future__ import annotations

import pytest

import findings
from findings import Cell, DecayWord
from inference import Verdict
from made_up_study import DECAY_SLOPE, made_up_cells, made_up_registry
from schedule import SMOLLM2, Measure


@pytest.fixture(scope="module")
def cells() -> list[Cell]:
    return made_up_cells()


def test_the_primary_comparisons_say_what_was_put_in(cells: list[Cell]) -> None:
    found = {(each.name, each.rival): each for each in findings.primary(cells)}
    assert [each.verdict for each in found.values()] == [
        Verdict.BETTER,  # keys: 50 against 30 of 60
        Verdict.WORSE,  # against 55
        Verdict.BETTER,  # loss: .10 against .30
        Verdict.WORSE,  # against .05
        Verdict.BETTER,
        Verdict.WORSE,
        Verdict.BETTER,  # cost: .004 against .03
        Verdict.SAME,  # against .005
    ]
    units = [each.found.units for each in found.values() if each.found]
    assert units == [27, 27, 13, 13, 4, 4, 4, 4]
    loss = found["P2", "ntk"].found
    assert loss is not None
    assert loss.mean == pytest.approx(-0.2, abs=0.002)


def test_what_was_not_run_is_undecided_and_no_part_of_the_correction() -> None:
    some = made_up_cells(fails=lambda run: run.model == SMOLLM2)
    found = findings.primary(some)
    assert [each.found is None for each in found] == [False] * 4 + [True] * 4
    assert [each.verdict for each in found[4:]] == [Verdict.UNDECIDED] * 4


def test_the_mean_loss_weighs_bins_by_their_width() -> None:
    fields = {
        "bins": [[0, 64], [64, 512], [512, 1024], [1024, 2048]],
        "losses": [[1.0, 3.0], [4.0], [5.0], [8.0]],
    }
    assert findings.loss_short(fields, 512) == pytest.approx((64 * 2 + 448 * 4) / 512)
    assert findings.loss_beyond(fields, 512) == pytest.approx((512 * 5 + 1024 * 8) / 1536)
    assert findings.loss_near_end(fields, 512) == 8


def test_a_bin_without_a_scored_token_counts_nowhere() -> None:
    fields = {"bins": [[0, 64], [64, 512], [512, 1024]], "losses": [[], [4.0], []]}
    assert findings.loss_short(fields, 512) == 4
    assert findings.loss_beyond(fields, 512) is None


def test_keys_are_counted_beyond_and_up_to_the_training_length() -> None:
    fields = {"lengths": [[128, 60, 60], [256, 30, 60], [512, 15, 60], [1024, 0, 60]]}
    assert findings.keys_beyond(fields, 256) == pytest.approx(15 / 120)
    assert findings.keys_short(fields, 256) == pytest.approx(90 / 120)


def test_the_slope_of_the_decay_is_found_over_models_and_within_them(cells: list[Cell]) -> None:
    bases = {entry["name"]: entry["freq_base"] for entry in made_up_registry()["finished"]}
    slopes = findings.decay_slopes(findings.decays(cells, {**bases, SMOLLM2: 100_000}))
    assert slopes.between == pytest.approx(DECAY_SLOPE, abs=0.05)
    assert slopes.interval is not None
    assert slopes.interval[0] < DECAY_SLOPE < slopes.interval[1] < 1
    assert slopes.within is not None
    assert slopes.within.mean == pytest.approx(DECAY_SLOPE, abs=0.05)
    assert slopes.within.units == 29


def test_every_other_base_is_compared_with_the_rule(cells: list[Cell]) -> None:
    table = findings.tabulate(cells, Measure.LOSS, "language", 4, findings.loss_beyond)
    found = findings.other_bases(table)
    assert len(found) == 8
    assert all(each.found.mean == pytest.approx(0.9, abs=0.01) for each in found)


def test_a_search_is_held_against_the_closed_form_that_was_best_on_its_texts(
    cells: list[Cell],
) -> None:
    found = findings.tunings(cells)
    assert [(each.run.factor, each.closed, each.kept) for each in found] == [
        (4, "yarn", True),
        (8, "yarn", True),
        (2, "yarn", True),
    ]
    for each in found:
        assert each.found is not None
        assert each.found.mean == pytest.approx(-0.02, abs=0.005)
    assert [each.found.units for each in found if each.found] == [13, 13, 4]


def test_effects_of_base_and_head_size_are_corrected_together() -> None:
    shapes = [(base, head) for base in (1, 2) for head in (1, 2) for _ in range(2)]
    models = {str(number): shape for number, shape in enumerate(shapes)}
    jitter = {name: 0.001 * index for index, name in enumerate(models)}
    table = {
        "gamma": {name: 0.1 * base + jitter[name] for name, (base, _) in models.items()},
        "ntk": dict.fromkeys(models, 0.0),
        "yarn": dict.fromkeys(models, 0.0),
    }
    found = findings.all_effects(table, models)
    assert [(each.rival, each.of) for each in found] == [
        (rival, of) for rival in ("ntk", "yarn") for of in ("base", "head size")
    ]
    alone = findings.effects(table, models, "ntk")
    assert alone is not None
    assert found[0].p == pytest.approx(4 * alone[0])
    assert findings.all_effects({}, models) == []


def test_the_words_of_a_slope_are_those_of_the_protocol() -> None:
    word = findings.decay_word
    assert word((0.5, 1.5)) is DecayWord.FOLLOWS
    assert word((0.5, 0.9)) is DecayWord.MOVES
    assert word((1.1, 1.5)) is DecayWord.MOVES
    assert word((-0.1, 1.5)) is DecayWord.NOT
    assert word((0.0, 1.0)) is DecayWord.NOT
    assert word(None) is DecayWord.OPEN
