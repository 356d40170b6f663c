"""What a comparison hands on of the condition that it recommends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ggufext import inspect, rewrite, undo
from ggufext.comparison.evidence import evidence
from ggufext.planning.request import PlanRequest, decode_recipe
from ggufext.text import json_text

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.comparison.results import CompareResult


def test_evidence_is_what_the_report_says_of_the_recommended_condition(
    compared: CompareResult,
) -> None:
    found = compared.evidence
    assert found is not None
    gamma = compared.conditions[2]
    assert (found.condition, found.texts) == ("planned:gamma", 2)
    assert found.reason == compared.recommendation.reason
    assert found.llama_cpp == compared.run.versions["llama_cpp"]
    by_name = {(each.measure, each.against): each for each in found.measurements}
    assert len(by_name) == len(found.measurements) == 7
    for other, sign in (("native", -1), ("planned:linear", -1), ("planned:yarn", 1)):
        (pair,) = (x for x in compared.losses if {x.a, x.b} == {other, "planned:gamma"})
        said = by_name["loss_beyond", other]
        assert said.value == sign * pair.difference.mean
        assert said.n == sum(each.tokens for each in gamma.losses[2:])
        assert said.interval is not None
        assert said.interval[0] < said.value < said.interval[1]
    cost = gamma.short_cost
    assert cost is not None
    within = by_name["loss_within", "native"]
    assert (within.value, within.interval) == (cost.loss.mean, cost.loss.interval)
    assert within.n == sum(each.tokens for each in gamma.losses[:2])
    assert by_name["divergence", "native"].value == cost.divergence.mean
    assert by_name["same_top", "native"].n == cost.positions
    assert by_name["keys_at_target", None].value == gamma.keys[-1].accuracy


def test_nothing_recommended_is_nothing_to_show(compared: CompareResult) -> None:
    measured = (compared.conditions, compared.losses, compared.run)
    assert evidence("compare", None, "not needed", *measured, train_length=256) is None


def test_the_json_of_a_comparison_is_written_with_its_evidence_and_taken_back(
    compared: CompareResult, passkey_model: Path, tmp_path: Path
) -> None:
    recipe = decode_recipe(json_text(compared))
    assert recipe.evidence == compared.evidence
    assert recipe.target_length is not None
    path = tmp_path / "model.gguf"
    path.write_bytes(passkey_model.read_bytes())
    request = PlanRequest(target_length=recipe.target_length, method=recipe.method, recipe=recipe)
    rewrite(path, request)
    history = inspect(path).history
    assert history is not None
    assert history.evidence == compared.evidence
    undo(path)
    assert path.read_bytes() == passkey_model.read_bytes()
    rewrite(path, replace(request, target_length=1024))
    history = inspect(path).history
    assert history is not None
    assert history.evidence is None
