"""What the study runs fits its budget and is what its protocol says."""

from __future__ import annotations

from pathlib import Path

import pytest

import ggufext
import passkey_task
import schedule
from conditions import NATIVE, TUNED, program_name
from ggufext.audit.conditions import planned_request
from schedule import BUDGET, Measure, runs

SHIPPED = Path(passkey_task.__file__).with_name("passkey-Q8_0.gguf")
PROTOCOL = Path(schedule.__file__).with_name("protocol.md")


def test_the_budget_holds_every_run_and_a_reserve() -> None:
    assert sum(run.minutes for run in runs()) < 0.96 * BUDGET


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


def test_every_condition_has_a_meaning(tmp_path: Path) -> None:
    facts = ggufext.facts_of(SHIPPED)
    for name in {name for run in runs() for name in run.conditions} - {TUNED}:
        program_name(name, facts, 1024, tmp_path)


def test_the_decay_is_measured_at_the_multiples_of_the_trained_base(tmp_path: Path) -> None:
    facts = ggufext.facts_of(SHIPPED)
    target = 2 * facts.train_length
    lower, native, higher = schedule.decay_conditions((1 / 4, 1, 4))
    assert native == NATIVE
    for condition, multiple in ((lower, 1 / 4), (higher, 4)):
        name = program_name(condition, facts, target, tmp_path)
        request = planned_request(name, ggufext.PlanRequest(target_length=target))
        assert ggufext.plan(facts, request).freq_base.after == pytest.approx(
            facts.freq_base * multiple
        )


def test_the_protocol_holds_the_table() -> None:
    assert schedule.table(runs()) in PROTOCOL.read_text(encoding="utf-8")
