"""Which results say that they are no claim, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ggufext.audit.findings.results import Comparison, ComparisonTest
from ggufext.audit.findings.summary import cautions, too_few_texts
from made_up_audits import audit

if TYPE_CHECKING:
    from ggufext.audit.findings.results import CheckResult


def codes(result: CheckResult) -> list[str]:
    return [warning.code for warning in result.warnings]


def test_a_whole_run_of_a_model_that_knows_the_task_needs_no_caution() -> None:
    assert codes(audit()) == []


def test_a_run_that_was_cut_short_says_so() -> None:
    assert codes(audit(complete=False)) == ["cut_short"]


def test_a_model_that_fails_within_training_is_called_unable_not_badly_extended() -> None:
    (warning,) = audit({"file": (0.1, 0.0, 0.0)}).warnings
    assert warning.code == "task_not_possible"
    assert "says nothing about an extension" in warning.message


def test_a_failing_file_points_to_the_native_condition_only_where_that_was_not_asked() -> None:
    alone = audit({"file": (0.1, 0.0, 0.0)}).warnings[0].message
    both = audit({"file": (0.1, 0.0, 0.0), "native": (0.1, 0.0, 0.0)}).warnings[0].message
    assert "--condition native" in alone
    assert "--condition native" not in both


def test_a_plan_that_fails_within_training_is_blamed_where_the_model_succeeds() -> None:
    (warning,) = audit({"native": (1.0, 0.0, 0.0), "planned:linear": (0.0, 0.0, 0.0)}).warnings
    assert warning.code == "short_contexts_lost"
    assert warning.message.startswith("planned:linear loses keys")


def test_native_is_not_blamed_where_an_extension_finds_more_within_training() -> None:
    better = {"native": (0.1, 0.0, 0.0), "file": (1.0, 0.0, 0.0)}
    assert codes(audit(better)) == []
    (warning,) = audit({**better, "planned:linear": (0.0, 0.0, 0.0)}).warnings
    assert warning.message.startswith("planned:linear loses keys")


def test_a_run_without_a_length_within_training_has_no_control() -> None:
    assert codes(audit(lengths=(512, 1024, 2048))) == ["no_native_control"]


def test_a_model_of_unknown_training_length_is_not_said_to_lack_a_control() -> None:
    conditions = audit(lengths=(512, 1024, 2048)).conditions
    assert cautions(conditions, train_length=None, stop=None) == ()


def test_few_answers_a_length_are_no_claim() -> None:
    assert codes(audit(texts=3)) == ["few_answers"]
    assert codes(audit(texts=4)) == []


def test_a_model_that_says_more_than_the_key_is_named() -> None:
    (condition,) = audit({"file": (1.0, 0.0, 0.0)}).conditions
    talking = tuple(replace(x, substring=1.0) for x in condition.lengths)
    found = cautions([replace(condition, lengths=talking)], train_length=256, stop=None)
    assert [warning.code for warning in found] == ["answers_talk"]
    assert "in 100 % of the answers" in found[0].message


@pytest.mark.parametrize(("texts", "said"), [(5, True), (6, False)])
def test_texts_too_few_to_show_any_difference_are_named(texts: int, said: bool) -> None:
    over_texts = Comparison("a", "b", 9, 0, ComparisonTest.PERMUTATION_OVER_TEXTS, 0.06)
    each_prompt = Comparison("a", "b", 9, 0, ComparisonTest.MCNEMAR, 0.004)
    found = [warning.code for warning in too_few_texts([over_texts], texts)]
    assert found == (["few_answers"] if said else [])
    assert too_few_texts([each_prompt], texts) == ()
