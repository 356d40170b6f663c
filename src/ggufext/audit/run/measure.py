"""A run: every question that is not answered yet is asked, and every answer recorded."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ggufext.audit.request import Mode
from ggufext.audit.run.duration import Estimate, spans
from ggufext.audit.run.records import ANSWERS, Record, Records, Trial
from ggufext.errors import EngineError, ModelWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ggufext.audit.engines import AuditEngine
    from ggufext.audit.request import CheckRequest
    from ggufext.audit.run.duration import Speed
    from ggufext.audit.task import PromptPlan, Question, Task
    from ggufext.llama.memory import MemoryPlan
    from ggufext.llama.settings import LoadRequest

#: An engine's reasons for not measuring a question.
_NOT_MEASURED = frozenset(
    {"server_context_too_short", "server_counts_differ", "server_refused", "server_truncated"}
)


@dataclass(frozen=True, slots=True)
class Stop:
    """What ended a run before its last question.

    Attributes
    ----------
    code : str
        ``"interrupted"`` for Ctrl-C, else that of the error.
    message : str
        What was found, what was expected and what to do.
    """

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was run, and what it cost.

    Attributes
    ----------
    path : str
        The model file or the server's address.
    engine : str
        What answered.
    versions : mapping of str to str
        Of the programs and libraries that took part, by name.
    train_length : int or None
        Training length T of the model before any edit of ours, tokens; None where it is not known.
    memory_plan : MemoryPlan or None
        None for a server.
    flash_attention : bool or None
        Whether it was used; None for a server.
    audited : tuple of str
        What the ROPE-node audit compared, a sentence a condition.
    prompts_hash : str
        SHA-256 of all prompts in order.
    tokens_evaluated, tokens_naive : int
        Tokens that were computed, and that one prompt a trial would have cost.
    seconds : float
        What it took, seconds.
    stop : Stop or None
        None for a complete run.
    """

    path: str
    engine: str
    versions: Mapping[str, str]
    train_length: int | None = None
    memory_plan: MemoryPlan | None = None
    flash_attention: bool | None = None
    audited: tuple[str, ...] = ()
    prompts_hash: str
    tokens_evaluated: int = 0
    tokens_naive: int = 0
    seconds: float = 0.0
    stop: Stop | None = None

    @property
    def complete(self) -> bool:
        """Whether every question was asked."""
        return self.stop is None


@dataclass(frozen=True, slots=True)
class Stage:
    """One condition in one context.

    Attributes
    ----------
    condition : str
    lengths : tuple of int
        Those that share the context.
    reuse : int
        See `ggufext.audit.run.duration.spans`.
    load : LoadRequest or None
        Model and context; None for an engine that runs what it has loaded.
    """

    condition: str
    lengths: tuple[int, ...]
    reuse: int
    load: LoadRequest | None = None

    def of(self, questions: Sequence[Question]) -> list[Question]:
        """The questions of its lengths."""
        return [question for question in questions if question.length in self.lengths]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that is ready to start: everything that can be refused was refused before.

    Attributes
    ----------
    request : CheckRequest
        With the lengths and the settings that an absent value stands for.
    run : Run
        What is known of it beforehand.
    engine : AuditEngine
    task : Task
    prompts : PromptPlan
    questions : tuple of Question
        Made from `prompts`.
    stages : tuple of Stage
    identity : mapping
        What a resumed run must share beyond its prompts.
    speed : Speed or None
        Where it was measured.
    warnings : tuple of ModelWarning
    """

    request: CheckRequest
    run: Run
    engine: AuditEngine
    task: Task
    prompts: PromptPlan
    questions: tuple[Question, ...]
    stages: tuple[Stage, ...]
    identity: Mapping[str, Any]
    speed: Speed | None = None
    warnings: tuple[ModelWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class Preparing:
    """What is done before the first question.

    Attributes
    ----------
    what : str
    done : int
        Bytes.
    total : int or None
        Bytes; None where nothing is copied.
    """

    what: str
    done: int = 0
    total: int | None = None


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
    """

    questions: int
    finished: int
    tokens: int
    estimate: Estimate | None


@dataclass(frozen=True, slots=True)
class Computing:
    """A prompt that is being computed, where the engine tells.

    Attributes
    ----------
    tokens : int
        Of the prompt, those that are done.
    """

    tokens: int


@dataclass(frozen=True, slots=True)
class Progress:
    """An answer, and how far the run has come with it.

    Attributes
    ----------
    trial : Trial
    questions : int
        Questions that are answered, those of the run that this one continues included.
    tokens : int
        Of `RunNotes.tokens`, those that are done.
    """

    trial: Trial
    questions: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A run with every answer, complete or cut short.

    Attributes
    ----------
    request : CheckRequest
    run : Run
    trials : tuple of Trial
        `Trial.depth` is the middle of the depth bin; one trial a (condition, text, length, bin),
        in the order of the questions.
    warnings : tuple of ModelWarning
    """

    request: CheckRequest
    run: Run
    trials: tuple[Trial, ...]
    warnings: tuple[ModelWarning, ...]


def measure(prepared: Prepared, notify: Callable[[Progress | RunNotes], None]) -> Measured:
    """Ask every question that is not answered yet.

    Ctrl-C and the engine's death end the run early; what was measured is returned.

    Raises
    ------
    EngineError
        Before the first question: ``resume_mismatch``, ``records_in_use``,
        ``records_not_written``.
    """
    started = time.monotonic()
    run, engine = prepared.run, prepared.engine
    stop: Stop | None = None
    identity = {**prepared.identity, "prompts_hash": run.prompts_hash}
    with Records(prepared.request.resume, identity, ANSWERS) as records:
        work = Work(prepared, records)
        try:
            notify(work.notes())
            for progress in work.ask():
                notify(progress)
            stop = _nothing_measured(engine, records)
        except KeyboardInterrupt:
            stop = Stop("interrupted", "the run was interrupted")
        except EngineError as error:
            stop = Stop(error.code, str(error))
    return Measured(
        request=prepared.request,
        run=replace(
            run,
            tokens_evaluated=sum(record.evaluated for record in records.finished),
            tokens_naive=sum(record.naive for record in records.finished),
            seconds=time.monotonic() - started,
            stop=stop,
        ),
        trials=work.trials(),
        warnings=(*prepared.warnings, *engine.warnings(), *_mute(records)),
    )


class Work:
    """What is left to ask, stage by stage.

    Attributes
    ----------
    questions : int
    tokens : int
        Tokens of prompts to compute for them.
    """

    def __init__(self, prepared: Prepared, records: Records[Record]) -> None:
        self._prepared = prepared
        self._records = records
        known = {_cell(record.trial.condition, record.trial) for record in records.finished}
        self._waiting = [
            (
                stage,
                [
                    question
                    for question in stage.of(prepared.questions)
                    if _cell(stage.condition, question) not in known
                ],
            )
            for stage in prepared.stages
        ]
        self.questions = sum(len(waiting) for _, waiting in self._waiting)
        self.tokens = sum(
            sum(self._costs(stage, waiting).values()) for stage, waiting in self._waiting
        )

    @staticmethod
    def _costs(stage: Stage, waiting: Sequence[Question]) -> dict[tuple[object, ...], int]:
        """Tokens to compute for each question."""
        computed = spans(waiting, reuse=stage.reuse)
        return {
            _cell(stage.condition, question): span.end - span.start
            for question, span in zip(waiting, computed, strict=True)
        }

    def notes(self) -> RunNotes:
        """How much that is, and how long it takes."""
        finished, speed = len(self._records.finished), self._prepared.speed
        return RunNotes(
            questions=finished + self.questions,
            finished=finished,
            tokens=self.tokens,
            estimate=self._estimate(speed) if speed else None,
        )

    def ask(self) -> Iterator[Progress]:
        """Ask and record, question by question."""
        task, engine, records = self._prepared.task, self._prepared.engine, self._records
        tokens = 0
        for stage, waiting in self._waiting:
            if not waiting:
                continue
            costs = self._costs(stage, waiting)
            answers = engine.answers(
                stage.load, waiting, tokens=self._prepared.prompts.answer_tokens
            )
            for question, answer in answers:
                judgement = task.judge(question, answer.text)
                trial = Trial(
                    condition=stage.condition,
                    text=question.text,
                    length=question.length,
                    depth=question.depth,
                    distance=question.distance,
                    hit=judgement.hit if answer.measured else None,
                    substring=judgement.substring if answer.measured else None,
                )
                records.append(Record(trial, answer.text, answer.evaluated, answer.naive))
                tokens += costs[_cell(stage.condition, question)]
                yield Progress(trial, len(records.finished), tokens)

    def trials(self) -> tuple[Trial, ...]:
        """All answers in the order of the questions, in which a cluster need not give them."""
        asked = (
            _cell(stage.condition, question)
            for stage in self._prepared.stages
            for question in stage.of(self._prepared.questions)
        )
        place = {cell: index for index, cell in enumerate(asked)}
        trials = [record.trial for record in self._records.finished]
        return tuple(sorted(trials, key=lambda trial: place[_cell(trial.condition, trial)]))

    def _estimate(self, speed: Speed) -> Estimate:
        """How long it takes by the clock, and how long less would take."""

        def clock(asked: Sequence[tuple[Stage, Sequence[Question]]]) -> float:
            return speed.stretch * seconds(speed, prompts, asked)

        prompts = self._prepared.prompts
        sweep: float | None = None
        if prompts.mode is not Mode.SWEEP:
            with suppress(EngineError):  # lengths too short for a sweep, or too many keys
                swept = self._prepared.task.questions(
                    replace(prompts, mode=Mode.SWEEP), self._prepared.engine.counts
                )
                sweep = clock([(stage, stage.of(swept)) for stage, _ in self._waiting])
        *_, longest = prompts.lengths
        shorter = [
            (stage, [question for question in waiting if question.length < longest])
            for stage, waiting in self._waiting
        ]
        return Estimate(
            seconds=clock(self._waiting),
            sweep_seconds=sweep,
            shorter_seconds=clock(shorter) if len(prompts.lengths) > 1 else None,
        )


def seconds(
    speed: Speed, prompts: PromptPlan, asked: Sequence[tuple[Stage, Sequence[Question]]]
) -> float:
    """Processor time of the questions of stages, of each thread."""
    return sum(
        speed.seconds(spans(questions, reuse=stage.reuse), answer_tokens=prompts.answer_tokens)
        for stage, questions in asked
    )


def prompt_tokens(stages: Sequence[Stage], questions: Sequence[Question]) -> int:
    """Tokens of prompts that stages compute."""
    return sum(
        span.end - span.start
        for stage in stages
        for span in spans(stage.of(questions), reuse=stage.reuse)
    )


def _cell(condition: str, asked: Question | Trial) -> tuple[str, int, int, float]:
    return condition, asked.text, asked.length, asked.depth


def _nothing_measured(engine: AuditEngine, records: Records[Record]) -> Stop | None:
    """A run that asked every question and measured none has failed, for the engine's reason."""
    if any(record.trial.hit is not None for record in records.finished):
        return None
    code, why = "nothing_measured", "no answer came to the end of its reasoning"
    for warning in engine.warnings():
        if warning.code in _NOT_MEASURED:
            code, why = warning.code, warning.message
    return Stop(code, f"no question could be measured: {why}")


def _mute(records: Records[Record]) -> tuple[ModelWarning, ...]:
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
