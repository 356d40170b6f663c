"""What the study runs fits its budget and is what its protocol says."""

from __future__ import annotations

from pathlib import Path

import ggufext
import passkey_task
import schedule
from conditions import NATIVE, TUNED, recipe
from schedule import BUDGET, Measure, runs

PROTOCOL = Path(schedule.__file__).with_name("protocol.md")


def test_the_budget_holds_every_run_and_a_reserve() -> None:
    assert sum(run.minutes for run in runs()) < 0.95 * BUDGET


def test_no_cell_takes_longer_than_a_piece() -> None:
    # Training and tuning go on where they were stopped.
    measured = [run for run in runs() if run.measure not in {Measure.TRAINING, Measure.TUNING}]
    assert max(run.minutes / run.cells for run in measured) < schedule.PIECE


def test_every_run_has_results_of_its_own() -> None:
    names = [run.name for run in runs()]
    assert len(set(names)) == len(names)


def test_a_model_is_trained_before_it_is_measured_and_tuned_before_tuned_is_a_condition() -> None:
    trained, tuned = {schedule.SMOLLM2}, set()
    for run in runs():
        if run.measure is Measure.TRAINING:
            trained.add(run.model)
            continue
        assert run.model in trained
        if run.measure is Measure.TUNING:
            tuned.add((run.model, run.factor))
        elif TUNED in run.conditions:
            assert (run.model, run.factor) in tuned


def test_native_stands_beside_whatever_is_measured() -> None:
    for run in runs():
        assert run.measure is Measure.TUNING or NATIVE in run.conditions


def test_every_condition_has_a_meaning() -> None:
    facts = ggufext.facts_of(Path(passkey_task.__file__).with_name("passkey-Q8_0.gguf"))
    for name in {name for run in runs() for name in run.conditions} - {TUNED}:
        recipe(name, facts, 1024)


def test_the_decay_is_measured_at_the_multiples_of_the_trained_base() -> None:
    facts = ggufext.facts_of(Path(passkey_task.__file__).with_name("passkey-Q8_0.gguf"))
    target = 2 * facts.train_length
    names = schedule.decay_conditions((1 / 4, 1, 4))
    assert names[1] == NATIVE
    for name, multiple in ((names[0], 1 / 4), (names[2], 4)):
        made = recipe(name, facts, target)
        assert made is not None
        plan = ggufext.plan(
            facts,
            ggufext.PlanRequest(target_length=target, method=made.method, recipe=made),
        )
        slowest = (facts.freq_base * multiple) ** (-15 / 16)
        assert abs(plan.inv_freq[-1] / slowest - 1) < 1e-6


def test_the_protocol_holds_the_table() -> None:
    assert schedule.table(runs()) in PROTOCOL.read_text(encoding="utf-8")
