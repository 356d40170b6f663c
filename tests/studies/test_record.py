"""The record that the package reads holds what is complete, and that as it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ggufext.planning import measured
from ggufext.planning.methods import Method
from ggufext.planning.study_record import STATUS
from made_up_study import made_up_cells, made_up_registry
from planning.facts import facts
from record import record
from report import RECORD, ROOT
from schedule import SMOLLM2, Run
from study import Study, read_study

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.planning.model_records import ModelRecord


def made_up(fails: Callable[[Run], bool] = lambda _: False) -> dict[str, Any]:
    """The module that the package would have."""
    names: dict[str, Any] = {}
    study = Study(tuple(made_up_cells(fails=fails)), made_up_registry())
    exec(record(study), names)
    return names


def of(models: tuple[ModelRecord, ...], name: str) -> ModelRecord:
    (found,) = (each for each in models if each.model.startswith(name))
    return found


def test_the_committed_record_is_what_the_committed_results_say() -> None:
    assert RECORD.read_text(encoding="utf-8") == record(read_study()), (
        "run: python studies/gamma_rule/report.py"
    )


def test_readme_says_of_the_rule_what_the_record_says() -> None:
    readme = " ".join((ROOT / "README.md").read_text("utf-8").replace("**", "").split())
    assert STATUS.removeprefix("the γ rule ") in readme


def test_a_complete_study_names_model_factor_texts_intervals_and_verdicts() -> None:
    made = made_up()
    smollm2 = of(made["STUDY"], "SmolLM2")
    assert (smollm2.train_length, smollm2.heads) == (8192, (3, 64))
    found = {(method, factor): each for method, factor, each in smollm2.found}
    yarn = found[Method.YARN, 2]
    assert (yarn.measure, yarn.against, yarn.n) == ("mean_loss_beyond", "native", 4)
    assert yarn.value == pytest.approx(-2.95, abs=0.01)
    assert yarn.interval is not None
    assert yarn.interval[0] <= yarn.value <= yarn.interval[1]
    # One text has no interval: linear is measured on one.
    assert (Method.LINEAR, 2) not in found
    assert [
        (each.rival, each.verdict, each.measurement.measure) for each in smollm2.comparisons
    ] == [
        (Method.NTK, "better", "mean_loss_beyond"),
        (Method.YARN, "worse", "mean_loss_beyond"),
        (Method.NTK, "better", "mean_loss_within"),
        (Method.YARN, "the same", "mean_loss_within"),
    ]
    ntk, yarn = made["STATUS"].split("against ")[1:]
    assert " and loss of SmolLM2-135M and its short texts; " in ntk
    assert "loss of SmolLM2-135M, the same in its short texts" in yarn
    assert "not validated" in made["STATUS"]


def test_of_a_study_that_is_not_complete_no_verdict_is_told() -> None:
    made = made_up(lambda run: run.model == SMOLLM2 and run.text == "mercurial")
    assert "study of it is not complete" in made["STATUS"]
    assert all(not each.comparisons for each in made["STUDY"])
    # Three of four texts are not what was planned; other models and factors are there.
    assert {factor for _, factor, _ in of(made["STUDY"], "SmolLM2").found} == {4}
    assert len(of(made["STUDY"], "the language").found) == 12


def test_of_no_results_nothing_is_told() -> None:
    made = made_up(lambda _: True)
    assert made["STUDY"] == ()


def test_what_is_recommended_is_what_the_comparisons_say(monkeypatch: pytest.MonkeyPatch) -> None:
    smollm2 = of(made_up()["STUDY"], "SmolLM2")
    monkeypatch.setattr(measured, "_KNOWN", (smollm2,))
    model = facts(train_length=8192, freq_base=100_000.0, layers=30, heads_kv=3, rotary_dim=64)
    said = measured.recommended(model, 2)
    assert said is not None
    assert (said.methods, said.factor) == ((Method.YARN,), 2)
    assert said.comparisons == smollm2.comparisons
