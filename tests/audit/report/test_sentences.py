"""What the reports say in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ggufext.audit.findings.results import (
    Cell,
    Comparison,
    ComparisonTest,
    LostInTheMiddle,
    Profile,
)
from ggufext.audit.report.sentences import (
    accuracy_text,
    cell_text,
    distances_text,
    effective_text,
    lost_text,
    memory_lines,
    model_name,
    notes,
    tokens_text,
    verdict_text,
)
from ggufext.llama.memory import MemoryPlan
from made_up_audits import HOSTILE, audit, named, with_run


def test_a_cell_without_hits_is_not_measured() -> None:
    assert cell_text(Cell(256, 0.5, 128, 0, None, None)) == "not measured"
    assert cell_text(Cell(256, 0.5, 128, 10, 0, (0, 0.28))) == "0 of 10 (0–28 %)"


def test_an_accuracy_that_is_none_is_not_measured() -> None:
    assert accuracy_text(None, None) == "not measured"


def test_effective_length_says_its_bound_and_interval() -> None:
    condition = replace(
        audit().conditions[0], effective_length=512, effective_length_interval=(256, 1024)
    )
    assert effective_text(condition, 0.8) == (
        "finds at least 80 % of the keys up to 512 tokens (95 % interval 256 to 1,024)"
    )


def test_effective_length_0_is_said_in_words() -> None:
    condition = replace(audit().conditions[0], effective_length=0, effective_length_interval=(0, 0))
    assert "at no tested length" in effective_text(condition, 0.8)


def test_effective_length_that_was_not_measured_is_no_number() -> None:
    condition = audit({"file": (None, None, None)}).conditions[0]
    assert effective_text(condition, 0.8) == "effective length not measured"


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-0.4, -0.1), "lost more often"),
        ((-0.3, 0.1), "no difference shown"),
        ((0.1, 0.3), "found more often"),
    ],
)
def test_the_middle_is_called_lost_only_where_the_interval_excludes_0(
    interval: tuple[float, float], verdict: str
) -> None:
    assert verdict in lost_text(LostInTheMiddle(sum(interval) / 2, interval))


@pytest.mark.parametrize(
    ("only_a", "only_b", "p", "verdict"),
    [
        (9, 0, 0.004, "a finds more"),
        (0, 9, 0.004, "b finds more"),
        (1, 3, 0.6, "no difference shown"),
    ],
)
def test_a_comparison_names_the_better_one_only_below_5_percent(
    only_a: int, only_b: int, p: float, verdict: str
) -> None:
    assert verdict_text(Comparison("a", "b", only_a, only_b, ComparisonTest.MCNEMAR, p)) == verdict


def test_distances_name_the_tokens_they_hold() -> None:
    assert distances_text(Profile(64, 128, 1.0, (0.5, 1.0), 4)) == "64–127"
    assert distances_text(Profile(1, 2, 1.0, (0.5, 1.0), 4)) == "1"


def test_saved_tokens_are_claimed_only_where_some_were_saved() -> None:
    assert "2.0 times fewer" in tokens_text(
        with_run(audit(), tokens_evaluated=10, tokens_naive=20).run
    )
    assert "fewer" not in tokens_text(with_run(audit(), tokens_evaluated=20, tokens_naive=20).run)
    assert "fewer" not in tokens_text(with_run(audit(), tokens_evaluated=0, tokens_naive=20).run)


def test_memory_is_a_sum_and_then_every_reduction() -> None:
    plan = MemoryPlan(2**30, 2**29, 2**28, 2**26, 2**31, ("KV cache in q8_0",))
    assert list(memory_lines(with_run(audit(), memory_plan=plan).run)) == [
        "memory 1.81 GiB of 2.00 GiB free: model 1.00 GiB, KV cache 512.00 MiB, compute "
        "256.00 MiB, "
        "process 64.00 MiB",
        "KV cache in q8_0",
    ]
    assert list(memory_lines(with_run(audit(), memory_plan=None).run)) == []


def test_a_model_name_is_the_last_part_of_a_path_or_a_whole_address() -> None:
    assert model_name(with_run(audit(), path="/data/m.gguf").run) == "m.gguf"
    assert (
        model_name(with_run(audit(), path="http://127.0.0.1:8080/v1").run)
        == "http://127.0.0.1:8080/v1"
    )


def test_names_lose_their_control_characters() -> None:
    said = [model_name(named("path", HOSTILE).run), *notes(named("warning", HOSTILE))]
    assert not any(c in text for text in said for c in "\x1b\u202e")
