"""A search on the shipped model, from a request to what is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from scipy.stats import spearmanr

from ggufext.api.edits import rewrite
from ggufext.audit.request import LocalSettings
from ggufext.comparison.compare import compare
from ggufext.comparison.request import CompareRequest
from ggufext.errors import EngineError, GgufextError
from ggufext.opened.model import open_model
from ggufext.planning.gamma import gamma_pade
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest, YarnRecipe, decode_recipe
from ggufext.text import json_text
from ggufext.tuning.report.sentences import result_text
from ggufext.tuning.request import TuneRequest
from ggufext.tuning.tune import TuneProgress, tune
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.tuning.results import TuneResult

ENGINE = LocalSettings(threads=1, flash_attention=False)
REQUEST = TuneRequest(
    target_length=768, minutes=60, search_texts=4, trials=6, depths=3, engine=ENGINE
)


def found_by(path: Path, request: TuneRequest, **rest: object) -> TuneResult:
    return tune(path, request, allow_copy=lambda _: True, **rest)  # type: ignore[arg-type]


def outcome(result: TuneResult) -> tuple[object, ...]:
    """A result without what it cost."""
    losses = result.decision.losses if result.decision else None
    return result.plan, result.tuned, result.kept, result.reason, result.searched, losses


@pytest.fixture(scope="module")
def result(passkey_model: Path) -> TuneResult:
    return found_by(passkey_model, REQUEST)


def test_a_scaling_is_found_that_beats_the_closed_forms(result: TuneResult) -> None:
    assert result.run.complete
    assert result.kept
    assert result.tuned is not None
    assert result.decision is not None
    native, closed, tuned = result.decision.conditions
    assert (native.name, tuned.name) == ("native", result.tuned)
    assert tuned.beyond is not None
    assert closed.beyond is not None
    assert tuned.beyond.mean < closed.beyond.mean - 0.02
    assert closed.name in {each.name for each in result.searched if each.closed_form}
    assert len(result.decision.texts) == 6
    assert result.reason.startswith("on 6 held-out texts the loss of")
    found = result.evidence
    assert found is not None
    assert (found.tool.split()[1], found.condition, found.texts) == ("tune", result.tuned, 6)
    assert found.reason == result.reason
    against = {each.against for each in found.measurements if each.measure == "loss_beyond"}
    assert against == {"native", closed.name}


def test_few_read_all_texts_and_all_were_screened(result: TuneResult) -> None:
    texts = [each.texts for each in result.searched]
    assert texts == sorted(texts, reverse=True)
    assert texts[0] == 4
    assert sum(texts) < 0.6 * 4 * sum(count > 0 for count in texts)
    assert texts[-1] == 0
    assert all((each.loss is None) == (each.texts == 0) for each in result.searched)
    assert all(each.output_error > 0 for each in result.searched)


def test_the_same_request_gives_the_same_result(result: TuneResult, passkey_model: Path) -> None:
    assert outcome(found_by(passkey_model, REQUEST)) == outcome(result)


def test_json_of_a_result_is_a_recipe_that_is_written(
    result: TuneResult, passkey_model: Path, tmp_path: Path
) -> None:
    recipe = decode_recipe(json_text(result))
    assert recipe.method is Method.LONGROPE
    assert recipe.facts_hash == result.model.facts_hash
    written = tmp_path / "tuned.gguf"
    rewrite(passkey_model, PlanRequest(target_length=768, method=recipe.method, recipe=recipe),
            output=written)  # fmt: skip
    # What runs from the recipe is what was decided on.
    assert recipe.factors is not None
    with open_model(written) as model:
        assert model.history is not None
        assert model.history.evidence == result.evidence
        assert dict(model.facts.factors)["rope_factors_long.weight"] == pytest.approx(
            recipe.factors.long
        )
    file = tmp_path / "tune.json"
    file.write_text(json_text(result))
    again = compare(
        passkey_model,
        CompareRequest(target_length=768, conditions=(f"planned:{file}",), trials=1, depths=3,
                       engine=ENGINE),
        allow_copy=lambda _: True,
    )  # fmt: skip
    assert result.decision is not None
    first = again.conditions[1].beyond
    assert first is not None
    assert result.decision.conditions[2].beyond is not None
    assert first.mean == pytest.approx(result.decision.conditions[2].beyond.mean, abs=0.15)


@pytest.mark.parametrize(("finished", "stage"), [(20, "planned:"), (33, "native; ")])
def test_a_search_goes_on_where_it_was_cut_off(
    finished: int, stage: str, result: TuneResult, passkey_model: Path, tmp_path: Path
) -> None:
    kept = replace(REQUEST, resume=tmp_path / "run.jsonl")

    def interrupt(event: TuneProgress) -> None:
        if event.detail.endswith(f": {finished}"):
            assert event.detail.startswith(stage)
            raise KeyboardInterrupt

    begun = found_by(passkey_model, kept, notify=interrupt)
    assert begun.run.stop is not None
    assert begun.run.stop.code == "interrupted"
    assert begun.decision is None
    assert begun.evidence is None
    assert not begun.kept
    assert begun.reason.startswith("nothing was decided on held-out texts; on those")
    assert begun.plan is not None
    assert [each.code for each in begun.warnings] == ["cut_short"]
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == finished + 1
    heard: list[str] = []
    went_on = found_by(passkey_model, kept, notify=lambda event: heard.append(event.detail))
    assert outcome(went_on) == outcome(result)
    assert not any("reading a text for the screen" in each for each in heard)


def test_the_screen_of_another_search_is_not_believed(passkey_model: Path, tmp_path: Path) -> None:
    """What it said of other rotations is no answer, and the file stays what it was."""
    kept = replace(REQUEST, resume=tmp_path / "run.jsonl")

    def interrupt(event: TuneProgress) -> None:
        if event.detail.endswith(": 1"):
            raise KeyboardInterrupt

    found_by(passkey_model, kept, notify=interrupt)
    before = (tmp_path / "run.jsonl").read_bytes()
    heard: list[str] = []
    with pytest.raises(EngineError) as failure:
        found_by(
            passkey_model,
            replace(kept, target_length=512),
            notify=lambda event: heard.append(event.detail),
        )
    assert failure.value.code == "resume_mismatch"
    assert any("reading a text for the screen" in each for each in heard)
    assert (tmp_path / "run.jsonl").read_bytes() == before


def test_a_screen_that_is_cut_off_leaves_nothing_behind(passkey_copy: Path, tmp_path: Path) -> None:
    kept = replace(REQUEST, resume=tmp_path / "run.jsonl")

    def interrupt(event: TuneProgress) -> None:
        if "candidates screened" in event.detail:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found_by(passkey_copy, kept, notify=interrupt)
    assert list(tmp_path.iterdir()) == [passkey_copy]


def test_metadata_alone_needs_no_copy(passkey_model: Path) -> None:
    def refuse(_: object) -> bool:
        raise AssertionError

    request = replace(REQUEST, metadata_only=True, search_texts=1, trials=1)
    found = tune(passkey_model, request, allow_copy=refuse)
    assert found.run.complete
    assert found.plan is not None
    assert found.plan.method is not Method.LONGROPE
    others = [each.name for each in found.searched if not each.closed_form]
    assert all(name.startswith(("planned:base:", "planned:yarn:32,1,1")) for name in others)


def test_yarn_without_its_attention_factor_is_found_and_written_as_keys(
    passkey_copy: Path,
) -> None:
    request = replace(REQUEST, target_length=2048, metadata_only=True, search_texts=2)
    found = found_by(passkey_copy, request)
    assert found.kept
    assert found.tuned == "planned:yarn:32,1,1"
    recipe = decode_recipe(json_text(found))
    assert recipe.yarn == YarnRecipe(32.0, 1.0, 1.0)
    made = rewrite(
        passkey_copy, PlanRequest(target_length=2048, method=recipe.method, recipe=recipe)
    ).plan
    assert made.attention_factor == 1.0
    assert not made.tensor_edits
    with open_model(passkey_copy) as model:
        assert model.history is not None
        assert model.history.evidence == found.evidence is not None


def test_the_closed_form_is_kept_where_nothing_is_measured_to_be_better(
    passkey_model: Path,
) -> None:
    request = replace(REQUEST, metadata_only=True, search_texts=1, trials=2)
    found = found_by(passkey_model, request)
    assert not found.kept
    assert found.decision is not None
    assert found.plan is not None
    closed = found.decision.conditions[1].name
    assert closed == f"planned:{found.plan.method.value}"
    assert decode_recipe(json_text(found)).method is found.plan.method


def test_a_search_that_has_no_time_says_so(passkey_model: Path) -> None:
    found = found_by(passkey_model, replace(REQUEST, minutes=0.1, search_texts=100, trials=100))
    assert "time_used_up" in [each.code for each in found.warnings]
    # One closed form was run, which says nothing of the others.
    assert found.plan is None
    assert "so none is recommended" in found.reason
    assert result_text(found).startswith("not decided: ")
    with pytest.raises(GgufextError, match="recommends nothing to write") as refused:
        decode_recipe(json_text(found))
    assert refused.value.code == "nothing_recommended"


def test_progress_tells_every_stage(passkey_model: Path) -> None:
    heard: list[TuneProgress] = []
    request = replace(REQUEST, metadata_only=True, search_texts=1, trials=1)
    found_by(passkey_model, request, notify=heard.append)
    said = " ".join(each.detail for each in heard)
    for words in (
        "reading a text for the screen",
        "candidates screened",
        "planned:ntk; ",
        "native",
    ):
        assert words in said


def write_text(path: Path, sentences: int) -> Path:
    path.write_text("".join(f"The old dog slept near door {n % 9}.\n" for n in range(sentences)))
    return path


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"target_length": 256}, "target_not_longer", "256"),
        ({"texts": 20}, "text_too_short", "tokens of this model"),
        ({"texts": 100}, "text_too_short", "gives one text"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_measured(
    changed: dict[str, int], code: str, words: str, passkey_model: Path, tmp_path: Path
) -> None:
    given: dict[str, object] = dict(changed)
    if "texts" in changed:
        given["texts"] = (write_text(tmp_path / "text.txt", changed["texts"]),)
    with pytest.raises(GgufextError, match=words) as refused:
        found_by(passkey_model, replace(REQUEST, **given))  # type: ignore[arg-type]
    assert refused.value.code == code


@pytest.mark.parametrize(
    "make",
    [
        lambda: TuneRequest(target_length=1024, minutes=0),
        lambda: TuneRequest(target_length=1024, minutes=float("nan")),
        lambda: TuneRequest(target_length=1024, minutes=5, search_texts=0),
        lambda: TuneRequest(target_length=1024, minutes=5, trials=0),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(make: Callable[[], TuneRequest]) -> None:
    with pytest.raises(GgufextError) as refused:
        make()
    assert refused.value.code == "request_absurd"


def test_texts_of_the_user_are_searched_and_held_out(passkey_model: Path, tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt", 1200)
    request = replace(REQUEST, metadata_only=True, texts=(text,), search_texts=1, trials=2)
    found = found_by(passkey_model, request)
    assert found.decision is not None
    assert found.decision.texts == ("text.txt", "text.txt")
    assert "made_text" not in [each.code for each in found.warnings]


def test_the_screen_ranks_as_real_runs_do(result: TuneResult, passkey_model: Path) -> None:
    """Closed forms, and bases that are far from them."""
    errors = {each.name: each.output_error for each in result.searched}
    with open_model(passkey_model) as model:
        facts = model.original_facts(PlanRequest(target_length=768))
    bases = {x: f"planned:base:{x:g}" for x in (0.4, 0.55, 1.3, 2.0)}
    gammas = {gamma_pade(facts.freq_base * 3**x, 768): name for x, name in bases.items()}
    names = {f"planned:gamma={gamma:.4f}": name for gamma, name in gammas.items()}
    names |= {each.name: each.name for each in result.searched if each.closed_form}
    found = compare(
        passkey_model,
        CompareRequest(
            target_length=768, conditions=tuple(names), trials=6, depths=3, engine=ENGINE
        ),
    )
    pairs = [(x.beyond.mean, errors[names[x.name]]) for x in found.conditions[1:] if x.beyond]
    assert len(pairs) == 8
    assert spearmanr(pairs).statistic > 0.6


def refusal(path: Path, **changes: object) -> GgufextError:
    with pytest.raises(GgufextError) as refused:
        found_by(path, replace(REQUEST, target_length=8192, **changes))  # type: ignore[arg-type]
    return refused.value


@pytest.mark.parametrize("name", ["cohere2", "llama4"])
def test_a_model_of_which_nothing_can_be_searched_is_named(
    name: str, random_models: Callable[[str], Path]
) -> None:
    """Only its local layers rotate."""
    refused = refusal(random_models(name))
    assert refused.code == "cannot_combine"
    assert "nothing to search" in refused.message


def test_a_trained_yarn_is_searched_for_its_attention_alone(tmp_path: Path) -> None:
    path = write_random_model(
        tmp_path / "yarn.gguf",
        metadata={
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 512,
        },
    )
    request = replace(REQUEST, target_length=3072, search_texts=1, trials=1)
    found = found_by(path, request)
    assert {each.name for each in found.searched} == {"planned:yarn", "planned:yarn:32,1,1.14"}
    # Random weights know no text, so nothing is recommended.
    assert found.plan is None
    assert not found.kept


def test_a_model_without_keys_and_values_of_its_own_is_named(
    random_models: Callable[[str], Path],
) -> None:
    refused = refusal(random_models("deepseek2"))
    assert refused.code == "no_attention"


def test_memory_that_the_screen_would_not_find_is_named(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ggufext.tuning import screening

    monkeypatch.setattr(screening, "kv_cache_bytes", lambda *_: 1 << 60)
    refused = refusal(passkey_model)
    assert refused.code == "out_of_memory"
    assert "8,192 tokens" in refused.message
