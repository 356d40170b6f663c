from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ggufext import rewrite
from ggufext.audit.check import measure_model
from ggufext.audit.conditions import conditions
from ggufext.audit.engines import llama_cpp
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.request import CheckRequest, LocalSettings, Mode, Template
from ggufext.audit.run import choice, file_run
from ggufext.audit.run.duration import Speed
from ggufext.audit.run.measure import Computing, Measured, Preparing, Progress, RunNotes
from ggufext.audit.run.records import Trial
from ggufext.errors import EngineError, PlanError
from ggufext.llama.memory import plan_memory
from ggufext.planning.footprint import CacheType
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from llama_here import child_of, needs_llama_cpp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.llama.settings import ContextSettings, LoadRequest

REQUEST = CheckRequest(lengths=(128, 256), depths=3, trials=2)
LONG = replace(REQUEST, lengths=(256, 1024), depths=5, trials=3)


def check(
    path: Path,
    request: CheckRequest = REQUEST,
    settings: LocalSettings | None = None,
    notify: Callable[[Preparing | RunNotes | Computing | Progress], None] = lambda _: None,
) -> Measured:
    # Not measured: the faster one may be another the next time.
    settings = settings or LocalSettings(threads=1, flash_attention=False)
    return measure_model(path, replace(request, engine=settings), notify=notify)


def accuracy(run: Measured, length: int, condition: str = "file") -> float:
    hits = [t.hit for t in run.trials if (t.length, t.condition) == (length, condition)]
    assert None not in hits
    return sum(map(bool, hits)) / len(hits)


def trials_with_pid_of_child(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None], after: int
) -> Callable[[Preparing | RunNotes | Computing | Progress], None]:
    """A listener that does something to the child after some trials."""
    engines: list[LlamaCpp] = []

    class Noted(LlamaCpp):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[arg-type]
            engines.append(self)

    monkeypatch.setattr(file_run, "LlamaCpp", Noted)
    heard: list[Progress] = []

    def notify(event: Preparing | RunNotes | Computing | Progress) -> None:
        if isinstance(event, Progress):
            heard.append(event)
            if len(heard) == after:
                act(child_of(engines[-1]._process))

    return notify


def test_shipped_model_finds_every_key_up_to_its_training_length(passkey_model: Path) -> None:
    run = check(passkey_model)
    assert accuracy(run, 128) == accuracy(run, 256) == 1.0
    assert (run.run.complete, run.run.stop, run.run.train_length) == (True, None, 256)


def test_extension_shows_in_the_rewritten_file_and_native_undoes_it(passkey_copy: Path) -> None:
    before = check(passkey_copy, LONG)
    rewrite(passkey_copy, PlanRequest(target_length=1024, method=Method.YARN))
    after = check(passkey_copy, replace(LONG, conditions=("file", "native")))
    assert accuracy(before, 1024) <= 0.5
    assert accuracy(after, 1024) >= 0.8
    assert accuracy(after, 1024, "native") == accuracy(before, 1024)
    assert after.run.prompts_hash == before.run.prompts_hash


def test_planned_condition_gives_the_trials_of_the_rewritten_file(passkey_copy: Path) -> None:
    planned = check(passkey_copy, replace(LONG, conditions=("planned:gamma",)))
    rewrite(passkey_copy, PlanRequest(target_length=1024, method=Method.GAMMA))
    written = check(passkey_copy, LONG)
    assert [replace(trial, condition="file") for trial in planned.trials] == list(written.trials)


def test_run_is_the_same_twice(passkey_model: Path) -> None:
    assert check(passkey_model, LONG).trials == check(passkey_model, LONG).trials


def test_the_process_that_asks_opens_the_model_once(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    for module in (os, io):
        open_ = module.open

        def noting(path: Any, *args: Any, true: Any = open_, **options: Any) -> Any:
            opened.append(path)
            return true(path, *args, **options)

        monkeypatch.setattr(module, "open", noting)
    check(passkey_model, replace(REQUEST, conditions=("file", "native", "planned:gamma")))
    assert [path for path in opened if str(path) == str(passkey_model)] == [passkey_model]


def test_every_cell_is_asked_once_a_text_and_condition(passkey_model: Path) -> None:
    run = check(passkey_model, replace(REQUEST, conditions=("file", "planned:gamma")))
    cells = {(t.condition, t.text, t.length, t.depth) for t in run.trials}
    assert len(cells) == len(run.trials) == 2 * 2 * 2 * 3


def test_standard_mode_saves_two_fifths_of_the_tokens_over_ten_depths(
    passkey_model: Path,
) -> None:
    run = check(passkey_model, CheckRequest(lengths=(1024, 2048, 4096), trials=1))
    assert run.run.tokens_naive >= 1.7 * run.run.tokens_evaluated


def test_sweep_costs_little_more_than_one_reading_of_each_text(passkey_model: Path) -> None:
    request = CheckRequest(lengths=(512, 1024, 2048), depths=10, trials=2, mode=Mode.SWEEP)
    run = check(passkey_model, request)
    assert run.run.tokens_evaluated <= 1.3 * (2 * 2048 + 40 * len(run.trials))
    assert len(run.trials) == 60


def test_notes_come_before_the_first_trial_and_count_the_questions(passkey_model: Path) -> None:
    heard: list[Preparing | RunNotes | Computing | Progress] = []
    run = check(passkey_model, notify=heard.append)
    (notes,) = (event for event in heard if isinstance(event, RunNotes))
    assert notes.questions == len(run.trials)
    told = [event for event in heard if isinstance(event, Progress)]
    assert not any(isinstance(event, Preparing) for event in heard[heard.index(notes) :])
    assert tuple(event.trial for event in told) == run.trials
    assert [event.questions for event in told] == list(range(1, len(run.trials) + 1))
    assert told[-1].tokens == notes.tokens
    assert notes.tokens == pytest.approx(run.run.tokens_evaluated, rel=0.25)
    assert notes.estimate is None  # too short a run


def test_death_of_the_engine_keeps_the_finished_trials_and_resume_goes_on(
    passkey_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = tmp_path / "trials.jsonl"
    request = replace(REQUEST, resume=records)
    notify = trials_with_pid_of_child(monkeypatch, lambda pid: os.kill(pid, signal.SIGSEGV), 5)
    died = check(passkey_model, request, notify=notify)
    assert not died.run.complete
    assert died.run.stop is not None
    assert died.run.stop.code == "engine_died"
    assert len(died.trials) == 5
    monkeypatch.undo()

    heard: list[Preparing | RunNotes | Computing | Progress] = []
    resumed = check(passkey_model, request, notify=heard.append)
    assert resumed.run.complete
    told = [event for event in heard if isinstance(event, Progress)]
    assert len(told) == len(resumed.trials) - 5
    assert resumed.trials[:5] == died.trials
    whole = check(passkey_model)
    assert set(resumed.trials) == set(whole.trials)


def test_interrupt_gives_what_was_measured(passkey_model: Path, tmp_path: Path) -> None:
    def interrupt(event: Preparing | RunNotes | Computing | Progress) -> None:
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    run = check(passkey_model, replace(REQUEST, resume=tmp_path / "r"), notify=interrupt)
    assert run.run.stop is not None
    assert run.run.stop.code == "interrupted"
    assert len(run.trials) == 1


def test_interrupt_before_the_first_question_gives_what_an_earlier_run_measured(
    passkey_model: Path, tmp_path: Path
) -> None:
    def interrupt(event: Preparing | RunNotes | Computing | Progress) -> None:
        if isinstance(event, RunNotes):
            raise KeyboardInterrupt

    request = replace(REQUEST, resume=tmp_path / "r")
    whole = check(passkey_model, request)
    again = check(passkey_model, request, notify=interrupt)
    assert again.run.stop is not None
    assert again.run.stop.code == "interrupted"
    assert again.trials == whole.trials


def test_resume_ignores_a_line_that_was_cut_off(passkey_model: Path, tmp_path: Path) -> None:
    records = tmp_path / "trials.jsonl"
    whole = check(passkey_model, replace(REQUEST, resume=records))
    text = records.read_text()
    records.write_text(text[:-20])
    resumed = check(passkey_model, replace(REQUEST, resume=records))
    assert resumed.trials == whole.trials
    assert [
        Trial(**json.loads(line)["trial"]) for line in records.read_text().splitlines()[1:]
    ] == (list(whole.trials))


def test_resume_with_other_prompts_is_refused(passkey_model: Path, tmp_path: Path) -> None:
    records = tmp_path / "trials.jsonl"
    check(passkey_model, replace(REQUEST, resume=records))
    with pytest.raises(EngineError, match="prompts_hash") as refused:
        check(passkey_model, replace(REQUEST, resume=records, seed=1))
    assert refused.value.code == "resume_mismatch"


def test_records_of_another_run_are_not_overwritten(passkey_model: Path, tmp_path: Path) -> None:
    records = tmp_path / "trials.jsonl"
    records.write_text("precious\n")
    with pytest.raises(EngineError, match="another file") as refused:
        check(passkey_model, replace(REQUEST, resume=records))
    assert refused.value.code == "resume_mismatch"
    assert records.read_text() == "precious\n"


def test_resume_of_something_else_leaves_it_alone(passkey_copy: Path) -> None:
    before = passkey_copy.read_bytes()
    with pytest.raises(EngineError, match="no record of a run") as refused:
        check(passkey_copy, replace(REQUEST, resume=passkey_copy))
    assert refused.value.code == "resume_mismatch"
    assert passkey_copy.read_bytes() == before


def test_resume_of_a_record_that_was_changed_is_refused(
    passkey_model: Path, tmp_path: Path
) -> None:
    records = tmp_path / "trials.jsonl"
    check(passkey_model, replace(REQUEST, resume=records))
    records.write_text(records.read_text().replace('"hit"', '"hits"'))
    with pytest.raises(EngineError, match="no answer") as refused:
        check(passkey_model, replace(REQUEST, resume=records))
    assert refused.value.code == "resume_mismatch"


def test_every_record_is_a_line_of_json(passkey_model: Path, tmp_path: Path) -> None:
    records = tmp_path / "trials.jsonl"
    run = check(passkey_model, replace(REQUEST, resume=records))
    _, *lines = map(json.loads, records.read_text().splitlines())
    assert [Trial(**line["trial"]) for line in lines] == list(run.trials)


def test_kept_answers_name_their_run_as_earlier_versions_did(
    passkey_model: Path, tmp_path: Path
) -> None:
    records = tmp_path / "trials.jsonl"
    conditions = ("native", "planned:llama3")
    request = replace(REQUEST, lengths=(128, 512), conditions=conditions, resume=records)
    settings = LocalSettings(threads=1, flash_attention=False)
    measure_model(passkey_model, replace(request, engine=settings), allow_copy=lambda _: True)
    begins = json.loads(records.read_text().splitlines()[0])
    assert (begins["format"], begins["size"]) == ("ggufext check 1", passkey_model.stat().st_size)
    assert begins["conditions"] == [
        ["native", [], "None"],
        [
            "planned:llama3",
            [],
            "RewrittenCopy(target_length=512, method=<Method.LLAMA3: 'llama3'>, train_length=None, "
            "keep_short=False, recipe=None, train_freq_base=None)",
        ],
    ]
    settings_of_run = {"answer_tokens": 6, "cache_type": "f16", "flash_attention": False}
    assert settings_of_run.items() <= begins.items()


def test_audit_compares_the_rope_nodes_of_every_condition(passkey_model: Path) -> None:
    request = replace(REQUEST, conditions=("file", "planned:yarn"), target_length=1024)
    run = check(passkey_model, request, LocalSettings(threads=1, audit=True))
    assert [sentence.split(":")[0] for sentence in run.run.audited] == ["file", "planned"]
    assert "4 of 4 layers" in run.run.audited[0]


def test_audit_refuses_to_measure_what_was_not_planned(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def lying(*arguments: object, **options: object) -> object:
        (found,) = conditions(*arguments, **options)  # type: ignore[arg-type]
        return (replace(found, kv_overrides=(("llama.rope.freq_base", 9999.0),)),)

    monkeypatch.setattr(file_run, "conditions", lying)
    with pytest.raises(EngineError, match="base 9999, planned 500") as refused:
        check(passkey_model, settings=LocalSettings(threads=1, audit=True))
    assert refused.value.code == "rope_mismatch"


def test_memory_plan_is_part_of_the_run(passkey_model: Path) -> None:
    plan = check(passkey_model).run.memory_plan
    assert plan is not None
    assert plan.model >= passkey_model.stat().st_size
    # 4 layers, 4 heads of 32, keys and values of 2 bytes, 256 cells.
    assert plan.kv_cache == 4 * 4 * 32 * 2 * 2 * 256


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS")
def test_lengths_that_do_not_fit_into_memory_are_left_out_and_said(passkey_model: Path) -> None:
    program = f"""
import resource, sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from ggufext.audit.check import measure_model
from ggufext.audit.request import CheckRequest, LocalSettings
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
settings = LocalSettings(threads=1)
request = CheckRequest(lengths=(256, 1 << 21), depths=1, trials=1, engine=settings)
run = measure_model(Path({str(passkey_model)!r}), request)
print(*run.run.memory_plan.steps, sep="\\n")
print([trial.length for trial in run.trials])
"""
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "length 2,097,152 left out" in child.stdout
    assert child.stdout.splitlines()[-1] == "[256]"


def test_model_that_fits_nowhere_is_refused_before_it_is_loaded(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        file_run,
        "plan_memory",
        lambda *arguments, **options: plan_memory(*arguments, **{**options, "available": 1 << 20}),
    )
    with pytest.raises(EngineError, match=r"1\.00 MiB are free") as refused:
        check(passkey_model)
    assert refused.value.code == "out_of_memory"


def opened_with(
    path: Path, settings: LocalSettings, monkeypatch: pytest.MonkeyPatch
) -> ContextSettings:
    """Context settings of a run."""
    used = []

    class Noted(LlamaCpp):
        def open(self, load: LoadRequest) -> None:
            used.append(load.context)
            super().open(load)

    monkeypatch.setattr(file_run, "LlamaCpp", Noted)
    check(path, CheckRequest(lengths=(128,), depths=1, trials=1), settings)
    (found,) = used
    return found


def test_a_small_model_runs_in_one_thread(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened_with(passkey_model, LocalSettings(), monkeypatch).n_threads == 1


def test_a_large_model_runs_on_every_processor(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "_SMALL_MODEL", 0)
    processors = len(os.sched_getaffinity(0))
    assert opened_with(passkey_model, LocalSettings(), monkeypatch).n_threads == processors


MEASURED = CheckRequest(lengths=(1024, 2048), depths=2, trials=1)


def speed(seconds: float) -> Speed:
    return Speed(
        seconds, seconds, seconds, seconds, context=2000, tokens=263, can_reuse=True, stretch=3
    )


def test_settings_change_only_where_that_is_worth_it() -> None:
    assert choice.fastest({}) is None
    assert choice.fastest({4: 1.0, 2: 0.95}) == 4
    assert choice.fastest({4: 1.0, 2: 0.85}) == 2
    assert choice.fastest({False: 1.0, True: 1.05}) is False
    assert choice.fastest({True: 1.0}) is True


@pytest.mark.parametrize(
    ("paces", "threads", "why"),
    [
        ({1: 0.3, 2: 0.1}, 2, "(with 1 a prompt took 3.0 times as long)"),
        ({1: 0.3, 2: 0.6}, 1, "(with 2 a prompt took 2.0 times as long)"),
        ({1: 0.3, 2: 0.29}, 1, "(2 was about as fast)"),
    ],
)
def test_threads_are_those_that_were_faster_and_named(
    passkey_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    paces: dict[int, float],
    threads: int,
    why: str,
) -> None:
    tried: list[int | None] = []

    def measured(load: LoadRequest, *_: object, **__: object) -> dict[bool, Speed]:
        tried.append(load.context.n_threads)
        return {}

    monkeypatch.setattr(file_run, "measure_threads", lambda *_, **__: paces)
    monkeypatch.setattr(file_run, "measure_speed", measured)
    context = opened_with(passkey_model, LocalSettings(), monkeypatch)
    assert (context.n_threads, context.n_threads_batch, tried) == (threads, threads, [threads])
    (note,) = choice.threads_chosen(paces)
    assert note.code == "threads_chosen"
    assert note.message.startswith(f"threads: {threads}, ")
    assert why in note.message


def test_asked_threads_are_not_tried(passkey_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_run, "measure_threads", None)
    monkeypatch.setattr(file_run, "measure_speed", lambda *_, **__: {})
    assert opened_with(passkey_model, LocalSettings(threads=3), monkeypatch).n_threads == 3


@pytest.mark.parametrize("faster", [False, True])
def test_flash_attention_is_used_on_processors_where_it_is_faster_and_kept_by_a_resumed_run(
    passkey_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    tried: list[tuple[bool, ...]] = []
    heard: list[Preparing | RunNotes | Computing | Progress] = []

    def measured(*arguments: Any, **_: object) -> dict[bool, Speed]:
        tried.append(arguments[1])
        return {each: speed(0.5 if each is faster else 1.0) for each in arguments[1]}

    monkeypatch.setattr(file_run, "measure_speed", measured)
    settings = LocalSettings(threads=1)
    request = replace(MEASURED, resume=tmp_path / "run.jsonl")
    run = check(passkey_model, request, settings, notify=heard.append)
    assert run.run.flash_attention is faster
    (note,) = [each for each in run.warnings if each.code == "flash_attention_chosen"]
    assert "100 % longer" in note.message
    (notes,) = (each for each in heard if isinstance(each, RunNotes))
    assert notes.estimate is not None
    assert notes.estimate.seconds == pytest.approx(3 * 0.5 * notes.tokens, rel=0.1)
    assert notes.estimate.sweep_seconds is not None
    assert notes.estimate.shorter_seconds is not None
    assert notes.estimate.sweep_seconds < notes.estimate.seconds
    assert notes.estimate.shorter_seconds < 0.5 * notes.estimate.seconds

    faster = not faster  # as it may seem on another day
    again = check(passkey_model, request, settings)
    assert (again.run.flash_attention, again.run.complete) == (run.run.flash_attention, True)
    assert tried == [(False, True), (run.run.flash_attention,)]
    (note,) = [each for each in again.warnings if each.code == "flash_attention_chosen"]
    assert "continues" in note.message


def test_speed_is_measured_on_the_model_at_hand(passkey_model: Path) -> None:
    heard: list[Preparing | RunNotes | Computing | Progress] = []
    run = check(passkey_model, MEASURED, LocalSettings(threads=1), notify=heard.append)
    (notes,) = (each for each in heard if isinstance(each, RunNotes))
    assert notes.estimate is not None
    assert notes.estimate.seconds > 0
    assert [each.code for each in run.warnings].count("flash_attention_chosen") == 1


def test_a_model_whose_speed_cannot_be_measured_is_audited_all_the_same(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_run, "measure_speed", lambda *_, **__: {})
    run = check(passkey_model, settings=LocalSettings(threads=1))
    assert (run.run.complete, run.run.flash_attention) == (True, False)


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        (LocalSettings(gpu_layers=0), 0),
        (LocalSettings(flash_attention=True), 1),
        (LocalSettings(flash_attention=False), 0),
        (LocalSettings(cache_type=CacheType.Q8_0), -1),
    ],
)
def test_flash_attention_is_off_in_a_short_run_on_processors_unless_asked_for_or_needed(
    passkey_model: Path, settings: LocalSettings, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened_with(passkey_model, settings, monkeypatch).flash_attn_type == value


def test_chat_is_refused_where_the_file_brings_no_template(passkey_model: Path) -> None:
    with pytest.raises(PlanError, match="--template none") as refused:
        check(passkey_model, replace(REQUEST, template=Template.CHAT))
    assert refused.value.code == "no_chat_template"


def test_embedding_model_is_refused_by_name(tmp_path: Path) -> None:
    needs_llama_cpp()
    from random_model import write_random_model

    path = write_random_model(tmp_path / "model.gguf", "qwen3", metadata={"qwen3.pooling_type": 3})
    with pytest.raises(EngineError, match="embedding model") as refused:
        check(path)
    assert refused.value.code == "cannot_be_audited"


def test_chat_template_of_the_file_is_put_around_every_prompt(tmp_path: Path) -> None:
    needs_llama_cpp()
    from random_model import write_random_model

    path = write_random_model(
        tmp_path / "model.gguf",
        metadata={"tokenizer.chat_template": "User: {{ messages[0].content }} Bot:"},
    )
    request = CheckRequest(lengths=(1024,), depths=1, trials=1, answer_tokens=4)
    run = check(path, request)
    assert run.run.complete
    assert run.trials[0].hit is False


def test_hostile_chat_template_is_refused(tmp_path: Path) -> None:
    needs_llama_cpp()
    from random_model import write_random_model

    path = write_random_model(
        tmp_path / "model.gguf",
        metadata={"tokenizer.chat_template": "{{ cycler.__init__.__globals__.os }}"},
    )
    with pytest.raises(EngineError, match="SecurityError") as refused:
        check(path, CheckRequest(lengths=(1024,), depths=1, trials=1))
    assert refused.value.code == "no_chat_template"


def test_longrope_lengths_below_the_original_are_measured_in_a_context_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_llama_cpp()
    import numpy as np

    from random_model import write_random_model

    factors = np.linspace(1, 4, 16, dtype=np.float32)
    path = write_random_model(
        tmp_path / "model.gguf",
        metadata={
            "llama.rope.scaling.type": "longrope",
            "llama.rope.scaling.original_context_length": 1024,
        },
        tensors={
            "rope_factors_long.weight": factors,
            "rope_factors_short.weight": np.ones_like(factors),
        },
    )
    contexts = []

    class Noted(LlamaCpp):
        def open(self, load: LoadRequest) -> None:
            contexts.append(load.context.n_ctx)
            super().open(load)

    monkeypatch.setattr(file_run, "LlamaCpp", Noted)
    run = check(path, CheckRequest(lengths=(768, 1024, 2048), depths=1, trials=1))
    assert contexts == [1024, 2048]
    assert len(run.trials) == 3


@pytest.mark.parametrize("changes", [{"lengths": ()}, {"depths": 0}, {"lengths": (8,)}])
def test_request_without_anything_to_measure_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PlanError):
        replace(REQUEST, **changes)  # type: ignore[arg-type]
