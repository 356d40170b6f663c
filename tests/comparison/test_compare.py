"""A comparison on the shipped model, from a request to its result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.request import LocalSettings
from ggufext.audit.run.measure import Computing, Preparing
from ggufext.comparison.compare import compare
from ggufext.comparison.measure import CompareNotes, CompareProgress
from ggufext.comparison.request import CompareRequest
from ggufext.comparison.results import Finding
from ggufext.errors import EngineError, GgufextError
from ggufext.planning.methods import Method
from ggufext.planning.request import decode_recipe
from ggufext.text import json_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.comparison.results import CompareResult

ENGINE = LocalSettings(threads=1, flash_attention=False)
REQUEST = CompareRequest(
    target_length=768,
    conditions=("planned:gamma", "planned:linear"),
    trials=2,
    depths=3,
    engine=ENGINE,
)

Event = Preparing | CompareNotes | Computing | CompareProgress


def outcome(result: CompareResult) -> CompareResult:
    """A result without what it cost."""
    return replace(
        result,
        request=replace(result.request, resume=None, engine=None),
        run=replace(
            result.run, seconds=0, tokens_evaluated=0, tokens_naive=0, memory_plan=None, stop=None
        ),
    )


@pytest.fixture(scope="module")
def result(passkey_model: Path) -> CompareResult:
    return compare(passkey_model, REQUEST)


def test_an_extension_that_works_is_recommended_over_one_that_does_not(
    result: CompareResult,
) -> None:
    native, gamma, linear = result.conditions
    assert [each.name for each in result.conditions] == ["native", *REQUEST.conditions]
    assert native.keys[0].accuracy == 1
    assert linear.keys[-1].accuracy == 0
    assert gamma.beyond is not None
    assert native.beyond is not None
    assert gamma.beyond.mean < native.beyond.mean - 0.3
    assert (result.recommendation.finding, result.recommendation.condition) == (
        Finding.BEST,
        "planned:gamma",
    )
    assert "planned:linear" in result.recommendation.reason


def test_losses_are_told_by_position_and_against_native(result: CompareResult) -> None:
    native, gamma, _ = result.conditions
    edges = [(each.start, each.end) for each in gamma.losses]
    assert edges == [(0, 32), (32, 256), (256, 426), (426, 597), (597, 768)]
    for mine, theirs in zip(gamma.losses, native.losses, strict=True):
        assert mine.tokens == theirs.tokens
        assert theirs.against_native is None
        assert mine.against_native is not None
        assert mine.against_native.mean == pytest.approx(mine.loss.mean - theirs.loss.mean)


def test_short_cost_is_above_nothing_and_larger_for_what_the_model_cannot_do(
    result: CompareResult,
) -> None:
    native, gamma, linear = (each.short_cost for each in result.conditions)
    assert native is None
    assert gamma is not None
    assert linear is not None
    assert 0 < gamma.divergence.mean < linear.divergence.mean
    assert linear.same_top.mean < gamma.same_top.mean < 1
    assert gamma.positions == linear.positions > 100


def test_json_of_a_result_is_a_recipe_for_this_model(result: CompareResult) -> None:
    recipe = decode_recipe(json_text(result))
    assert (recipe.method, recipe.target_length) == (Method.GAMMA, 768)
    assert recipe.facts_hash == result.model.facts_hash
    assert json.loads(json_text(result))["plan"]["keep_short"] is False


def test_the_recipe_of_a_gamma_writes_the_base_that_was_measured(
    passkey_model: Path, tmp_path: Path
) -> None:
    from ggufext.api.edits import rewrite
    from ggufext.opened.model import open_model
    from ggufext.planning.request import PlanRequest

    request = replace(REQUEST, trials=1, conditions=("planned:gamma=0.6", "planned:linear"))
    found = compare(passkey_model, request)
    assert found.recommendation.condition == "planned:gamma=0.6"
    recipe = decode_recipe(json_text(found))
    paths = [tmp_path / "recipe.gguf", tmp_path / "gamma.gguf"]
    asked = PlanRequest(target_length=768, recipe=recipe), PlanRequest(target_length=768, gamma=0.6)
    bases = []
    for path, each in zip(paths, asked, strict=True):
        rewrite(passkey_model, each, output=path)
        with open_model(path) as model:
            bases.append(model.header.value("llama.rope.freq_base"))
    assert bases[0] == bases[1] != 500.0


def test_losses_are_those_of_the_text_scored_alone(
    result: CompareResult, passkey_model: Path
) -> None:
    """One cell by hand: the whole text at once, without questions between."""
    from ggufext.audit.conditions import refuse_copies
    from ggufext.audit.run.file_run import file_run
    from ggufext.comparison.texts import KeysInTexts

    task = KeysInTexts([], train_length=256, target_length=768)
    asked = replace(REQUEST, conditions=("native",)).keys((256, 384, 768))
    ready = file_run(passkey_model, asked, refuse_copies, print, task=task, n_ubatch=32)
    with ready as prepared:
        engine = prepared.engine
        assert isinstance(engine, LlamaCpp)
        totals = []
        for text in task.texts:
            assert prepared.stages[0].load is not None
            engine.use(prepared.stages[0].load)
            rows = [row for each in text.segments for row in each.rows]
            whole = engine.score(text.segments[-1].parts, rows=rows, distributions=[])
            totals.append([-x for x in whole.log_probabilities[-text.bins[-1] :]])
    mean = sum(sum(each) / len(each) for each in totals) / len(totals)
    last = result.conditions[0].losses[-1]
    assert last.loss.mean == pytest.approx(mean, rel=2e-3)


def test_the_same_request_gives_the_same_result(result: CompareResult, passkey_model: Path) -> None:
    assert outcome(compare(passkey_model, REQUEST)) == outcome(result)


@pytest.mark.parametrize("cells", [1, 2, 3, 5])
def test_a_run_goes_on_where_it_was_cut_off(
    cells: int, result: CompareResult, passkey_model: Path, tmp_path: Path
) -> None:
    kept = replace(REQUEST, resume=tmp_path / "run.jsonl")

    def interrupt(event: Event) -> None:
        if isinstance(event, CompareProgress) and event.finished == cells:
            raise KeyboardInterrupt

    begun = compare(passkey_model, kept, notify=interrupt)
    assert begun.run.stop is not None
    assert begun.run.stop.code == "interrupted"
    assert [each.code for each in begun.warnings].count("cut_short") == 1
    assert sum(each.texts for each in begun.conditions) == cells
    heard: list[Event] = []
    resumed = compare(passkey_model, kept, notify=heard.append)
    (notes,) = (event for event in heard if isinstance(event, CompareNotes))
    assert (notes.cells, notes.finished) == (6, cells)
    assert outcome(resumed) == outcome(result)


def test_what_is_measured_before_the_engine_dies_is_kept(
    passkey_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = replace(REQUEST, resume=tmp_path / "run.jsonl")
    ask, asked = LlamaCpp.ask, iter(range(1000))

    def dies(engine: LlamaCpp, *args: object, **rest: object) -> object:
        if next(asked) == 30:
            engine.close()
            raise EngineError(code="engine_died", message="llama.cpp's process ended")
        return ask(engine, *args, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(LlamaCpp, "ask", dies)
    found = compare(passkey_model, kept)
    assert found.run.stop is not None
    assert found.run.stop.code == "engine_died"
    assert [each.texts for each in found.conditions] == [2, 1, 0]
    monkeypatch.undo()
    assert compare(passkey_model, kept).run.complete


def test_progress_ends_with_every_cell_and_about_the_tokens_announced(
    passkey_model: Path,
) -> None:
    heard: list[Event] = []
    compare(passkey_model, replace(REQUEST, trials=1), notify=heard.append)
    (notes,) = (event for event in heard if isinstance(event, CompareNotes))
    last = heard[-1]
    assert isinstance(last, CompareProgress)
    assert last.finished == notes.cells == 3
    assert last.tokens == pytest.approx(notes.tokens, rel=0.35)


def test_short_contexts_that_are_kept_cost_nothing(passkey_model: Path) -> None:
    request = replace(
        REQUEST, trials=1, conditions=("planned:gamma+keep-short",), target_length=1024
    )
    found = compare(passkey_model, request, allow_copy=lambda _: True)
    native, kept = found.conditions
    assert kept.short_cost is not None
    assert kept.short_cost.divergence.mean == 0
    assert kept.short_cost.same_top.mean == 1
    assert kept.short_cost.loss.mean == 0
    assert kept.keys[0] == native.keys[0]
    assert kept.beyond is not None
    assert native.beyond is not None
    assert kept.beyond.mean < native.beyond.mean
    assert found.plan is not None
    assert found.plan.keep_short


def test_a_text_of_the_user_is_scored(passkey_model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(
        "".join(f"The old dog slept near the door{' again' * (n % 3)}.\n " for n in range(300))
    )
    found = compare(passkey_model, replace(REQUEST, trials=1, texts=(text,)))
    assert found.texts == ("text.txt",)
    assert "made_text" not in [each.code for each in found.warnings]
    native = found.conditions[0]
    assert native.losses[1].tokens > 80


def test_a_text_that_the_model_does_not_know_is_said(passkey_model: Path, tmp_path: Path) -> None:
    import random

    rng = random.Random(0)
    text = tmp_path / "text.txt"
    text.write_text("".join(rng.choice("qxzjkvw .") for _ in range(4000)))
    found = compare(passkey_model, replace(REQUEST, trials=1, texts=(text,)))
    assert "text_not_known" in [each.code for each in found.warnings]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"target_length": 256}, "target_not_longer"),
        ({"conditions": ("planned:magic",)}, "bad_condition"),
        ({"conditions": ("planned:none.json",)}, "unreadable"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_measured(
    changed: dict[str, object], code: str, passkey_model: Path
) -> None:
    heard: list[Event] = []
    with pytest.raises(GgufextError) as refused:
        compare(passkey_model, replace(REQUEST, **changed), notify=heard.append)  # type: ignore[arg-type]
    assert refused.value.code == code
    assert heard == []


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: CompareRequest(target_length=1024, conditions=("self-extend:g=4,w=64",)),
         "bad_condition"),
        (lambda: CompareRequest(target_length=1024, trials=0), "request_absurd"),
        (lambda: CompareRequest(target_length=8), "target_absurd"),
        (lambda: CompareRequest(
            target_length=1024, engine=LocalSettings(llama_server=Path("llama-server"))
        ), "request_absurd"),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused(
    make: Callable[[], CompareRequest], code: str
) -> None:
    with pytest.raises(GgufextError) as refused:
        make()
    assert refused.value.code == code


def test_the_cells_of_another_run_are_refused_by_what_differs(
    passkey_model: Path, tmp_path: Path
) -> None:
    kept = replace(REQUEST, trials=1, resume=tmp_path / "run.jsonl")
    compare(passkey_model, kept)
    with pytest.raises(GgufextError, match="prompts_hash") as refused:
        compare(passkey_model, replace(kept, seed=1))
    assert refused.value.code == "resume_mismatch"


def test_cells_that_could_not_be_kept_are_refused_before_a_copy_is_made(
    passkey_model: Path, tmp_path: Path
) -> None:
    def never(_: object) -> bool:
        raise AssertionError

    nowhere = tmp_path / "missing" / "run.jsonl"
    request = replace(REQUEST, conditions=("planned:llama3",), resume=nowhere)
    with pytest.raises(EngineError) as refused:
        compare(passkey_model, request, allow_copy=never)
    assert refused.value.code == "records_not_written"
