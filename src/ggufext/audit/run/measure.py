"""The passkey audit: ask a model for keys at every length and depth, and record the answers."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ggufext import __version__
from ggufext.audit.request import Mode, depth_bins
from ggufext.audit.run.asking import Work
from ggufext.audit.run.records import Records
from ggufext.audit.task.prompts import prompts_hash
from ggufext.errors import EngineError, ModelWarning, PlanError
from ggufext.planning.result import LARGEST_TARGET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ggufext.audit.engines import Engine
    from ggufext.audit.run.asking import Progress, Session
    from ggufext.audit.run.duration import Estimate, Speed
    from ggufext.audit.run.records import Trial
    from ggufext.audit.task.prompts import PromptPlan, Question
    from ggufext.errors import GgufextError
    from ggufext.llama.memory import MemoryPlan

#: Shortest length taken for real, tokens.
_SHORTEST = 64

#: Most texts a cell: the bootstrap over texts then holds 4,000 × 1,000 counts, 32 MB.
_MOST_TRIALS = 1000

#: An engine's reasons for not measuring a question.
_NOT_MEASURED = frozenset(
    {"server_context_too_short", "server_counts_differ", "server_refused", "server_truncated"}
)

#: Room for the answer of a chat model, which may say a sentence first.
_CHAT_ANSWER_TOKENS = 64


class Template(Enum):
    """Whether prompts are put into the model's chat template."""

    AUTO = "auto"
    """Where the file brings one; a server is asked in plain text."""
    NONE = "none"
    """Plain text."""
    CHAT = "chat"
    """The file's own, which must be there; a server's, through its chat endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyRequest:
    """What to ask.

    Attributes
    ----------
    lengths : tuple of int
        Tokens of prompt and answer.
    depths : int or tuple of float
        Equal bins of a length, 1 … 100; or the depths themselves, from 0 (the beginning) to 1.
    trials : int
        Trials a cell, 1 … 1,000, each in a text of its own.
    mode : Mode
    seed : int
    conditions : tuple of str
        See `ggufext.audit.conditions.conditions.conditions`.
    target_length : int or None
        What planned conditions extend to, tokens; the longest length when absent.
    train_length, train_freq_base
        What the model was really trained with, where the file says something else; see
        `ggufext.header.training.trained_facts`.
    template : Template
    answer_tokens : int or None
        Longest answer; by default the key's own tokens, 64 for chat models.
    records : Path or None
        File that finished trials are written to, a JSON line each.
    resume : bool
        Go on with that file.
    """

    lengths: tuple[int, ...]
    depths: int | tuple[float, ...] = 10
    trials: int = 5
    mode: Mode = Mode.STANDARD
    seed: int = 0
    conditions: tuple[str, ...] = ("file",)
    target_length: int | None = None
    train_length: int | None = None
    train_freq_base: float | None = None
    template: Template = Template.AUTO
    answer_tokens: int | None = None
    records: Path | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be asked.

        Raises
        ------
        PlanError
            ``request_absurd``, ``target_absurd``.
        """
        depth_bins(self.depths)
        if self.trials > _MOST_TRIALS:
            raise PlanError(
                code="request_absurd",
                message=f"{self.trials:,} trials a cell; up to {_MOST_TRIALS:,}, which with 10 "
                "depths are 10,000 answers a length",
            )
        if not (self.lengths and self.conditions and self.trials > 0):
            raise PlanError(
                code="request_absurd",
                message="at least one length, condition, depth and trial is needed",
            )
        for length in self.lengths:
            if not _SHORTEST <= length <= LARGEST_TARGET:
                raise PlanError(
                    code="target_absurd",
                    message=f"length of {length:,} tokens; lengths go from {_SHORTEST} to "
                    f"{LARGEST_TARGET:,}",
                )


class Stop(Enum):
    """Why a run ended before its last question."""

    INTERRUPTED = "interrupted"
    """Ctrl-C."""
    FAILED = "failed"
    """The engine died or refused; `PasskeyRun.failure` says how."""


@dataclass(frozen=True, slots=True)
class RunNotes:
    """What is known before the first question.

    Attributes
    ----------
    questions : int
        Questions of the whole run, over all conditions; those of a resumed run included.
    finished : int
        Questions that a resumed run has answered before.
    tokens : int
        Tokens of prompts that are to be computed for the others.
    estimate : Estimate or None
        How long that takes; None where it was not measured: on devices, on other machines, and
        where measuring would take longer than the run is worth.
    memory_plan : MemoryPlan or None
    warnings : tuple of ModelWarning
    """

    questions: int
    finished: int
    tokens: int
    estimate: Estimate | None
    memory_plan: MemoryPlan | None
    warnings: tuple[ModelWarning, ...]


@dataclass(frozen=True, slots=True)
class PasskeyRun:
    """Everything a run measured, complete or cut short.

    Attributes
    ----------
    path : str
        The model file or the server's address.
    engine : str
    mode : Mode
    seed : int
    train_length : int or None
        Training length T of the model before any edit of ours, tokens; None for a server.
    trials : tuple of Trial
        `Trial.depth` is the middle of the depth bin; one trial a (condition, text, length, bin).
    prompts_hash : str
        SHA-256 of all prompts in order.
    tokens_evaluated, tokens_naive : int
    memory_plan : MemoryPlan or None
    versions : mapping of str to str
    flash_attention : bool or None
        Whether it was used; None for a server.
    seconds : float
    complete : bool
    stop : Stop or None
        None for a complete run.
    failure : GgufextError or None
        What ended a run with `Stop.FAILED`.
    audited : tuple of str
        What the ROPE-node audit compared, a sentence a condition.
    warnings : tuple of ModelWarning
    """

    path: str
    engine: str
    mode: Mode
    seed: int
    train_length: int | None
    trials: tuple[Trial, ...]
    prompts_hash: str
    tokens_evaluated: int
    tokens_naive: int
    memory_plan: MemoryPlan | None
    versions: Mapping[str, str]
    flash_attention: bool | None
    seconds: float
    complete: bool
    stop: Stop | None
    failure: GgufextError | None
    audited: tuple[str, ...]
    warnings: tuple[ModelWarning, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that is ready to start: everything that can be refused was refused before.

    Attributes
    ----------
    path, engine_name, train_length, memory_plan, versions, flash_attention, audited, warnings
        See `PasskeyRun`.
    engine : Engine
    prompts : PromptPlan
    questions : tuple of Question
        Made from `prompts`.
    sessions : tuple of Session
    identity : mapping
        What a resumed run must share beyond its prompts.
    speed : Speed or None
        Where it was measured.
    """

    path: str
    engine_name: str
    engine: Engine
    prompts: PromptPlan
    questions: tuple[Question, ...]
    sessions: tuple[Session, ...]
    identity: Mapping[str, Any]
    train_length: int | None
    memory_plan: MemoryPlan | None
    versions: Mapping[str, str]
    flash_attention: bool | None
    speed: Speed | None
    audited: tuple[str, ...]
    warnings: tuple[ModelWarning, ...]


def measure(
    run: Prepared, request: PasskeyRequest, notify: Callable[[Progress | RunNotes], None]
) -> PasskeyRun:
    """Ask every question that is not answered yet, and close the engine.

    Ctrl-C and the engine's death end the run early; what was measured is returned.

    Raises
    ------
    EngineError
        Before the first question: ``records_exist``, ``resume_mismatch``, ``records_in_use``,
        ``records_not_written``.
    """
    started = time.monotonic()
    records: Records | None = None
    stop: Stop | None = None
    failure: GgufextError | None = None
    ended: list[ModelWarning] = []
    try:
        digest = prompts_hash(run.questions)
        records = Records(
            request.records, {**run.identity, "prompts_hash": digest}, resume=request.resume
        )
        work = Work(run.sessions, run.questions, records.finished)
        try:
            notify(
                RunNotes(
                    questions=len(records.finished) + work.questions,
                    finished=len(records.finished),
                    tokens=work.tokens,
                    estimate=work.estimate(run.speed, run.prompts, run.engine)
                    if run.speed
                    else None,
                    memory_plan=run.memory_plan,
                    warnings=run.warnings,
                )
            )
            for progress in work.ask(records):
                notify(progress)
            failure = _nothing_measured(run, records)
        except KeyboardInterrupt:
            stop = Stop.INTERRUPTED
            ended.append(ModelWarning("interrupted", "the run was interrupted"))
        except EngineError as error:
            failure = error
            ended.append(ModelWarning(error.code, error.message))
        if failure is not None:
            stop = Stop.FAILED
    finally:
        run.engine.close()
        if records is not None:
            records.close()
    return PasskeyRun(
        path=run.path,
        engine=run.engine_name,
        mode=request.mode,
        seed=request.seed,
        train_length=run.train_length,
        trials=_in_order(run, records),
        prompts_hash=digest,
        tokens_evaluated=sum(record.evaluated for record in records.finished),
        tokens_naive=sum(record.naive for record in records.finished),
        memory_plan=run.memory_plan,
        versions={"ggufext": __version__, "python": platform.python_version(), **run.versions},
        flash_attention=run.flash_attention,
        seconds=time.monotonic() - started,
        complete=stop is None,
        stop=stop,
        failure=failure,
        audited=run.audited,
        warnings=(*run.warnings, *run.engine.warnings(), *_mute(records), *ended),
    )


def _in_order(run: Prepared, records: Records) -> tuple[Trial, ...]:
    """Trials in the order of their questions, in which a cluster need not answer."""
    asked = [(s.condition, q) for s in run.sessions for q in run.questions if q.length in s.lengths]
    place = {(name, q.text, q.length, q.depth): index for index, (name, q) in enumerate(asked)}
    trials = [record.trial for record in records.finished]
    return tuple(sorted(trials, key=lambda t: place[t.condition, t.text, t.length, t.depth]))


def _nothing_measured(run: Prepared, records: Records) -> EngineError | None:
    """A run that asked every question and measured none has failed, for the engine's reason."""
    if any(record.trial.hit is not None for record in records.finished):
        return None
    code, why = "nothing_measured", "no answer came to the end of its reasoning"
    for warning in run.engine.warnings():
        if warning.code in _NOT_MEASURED:
            code, why = warning.code, warning.message
    return EngineError(code=code, message=f"no question could be measured: {why}")


def _mute(records: Records) -> tuple[ModelWarning, ...]:
    """Whether the engine never said a word, which a model rarely does."""
    answers = [record.answer for record in records.finished if record.trial.hit is not None]
    if not answers or any(answer.strip() for answer in answers):
        return ()
    return (
        ModelWarning(
            "answers_empty",
            f"all {len(answers)} answers are empty: more likely the engine's fault than the "
            "model's; ask it something by hand",
        ),
    )


def answer_tokens(request: PasskeyRequest, engine: Engine, *, chat: bool) -> int:
    """Tokens to keep free for an answer.

    A model that goes on with the sentence is stopped after as many tokens as the longest key
    has: what it says next is not its answer.
    """
    if request.answer_tokens is not None:
        return request.answer_tokens
    if chat:
        return _CHAT_ANSWER_TOKENS
    return max(engine.counts([f" {key}" for key in ("10000", "48213", "70707", "99999")]))
