"""The questions that a run has still to ask: asked one after another, their cost known before."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ggufext.audit.request import Mode
from ggufext.audit.run.duration import Estimate, spans
from ggufext.audit.run.records import Record, Trial
from ggufext.audit.task.answers import judge
from ggufext.audit.task.prompts import prompt_set
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ggufext.audit.engines import Answer, Engine
    from ggufext.audit.run.duration import Speed
    from ggufext.audit.run.records import Records
    from ggufext.audit.task.prompts import PromptPlan, Question


@dataclass(frozen=True, slots=True)
class Session:
    """One condition in one context: lengths that share it, and how it is asked.

    Attributes
    ----------
    condition : str
    lengths : tuple of int
    reuse : int
        See `ggufext.audit.run.duration.spans`.
    ask : callable
        Gives every question with its answer, as they come.
    """

    condition: str
    lengths: tuple[int, ...]
    reuse: int
    ask: Callable[[Sequence[Question]], Iterator[tuple[Question, Answer]]]

    def of(self, questions: Sequence[Question]) -> list[Question]:
        """The questions of its lengths."""
        return [question for question in questions if question.length in self.lengths]


@dataclass(frozen=True, slots=True)
class Progress:
    """An answer, and how far the run has come with it.

    Attributes
    ----------
    trial : Trial
    questions : int
        Questions that are answered, those of the run that this one continues included.
    tokens : int
        Of the tokens of `ggufext.audit.run.measure.RunNotes.tokens`, those that are done.
    """

    trial: Trial
    questions: int
    tokens: int


class Work:
    """What is left to ask, session by session.

    Attributes
    ----------
    questions : int
    tokens : int
        Tokens of prompts to compute for them.
    """

    def __init__(
        self, sessions: Sequence[Session], questions: Sequence[Question], finished: Sequence[Record]
    ) -> None:
        trials = (record.trial for record in finished)
        known = {(t.condition, t.text, t.length, t.depth) for t in trials}
        self._waiting = [
            (
                session,
                [
                    question
                    for question in session.of(questions)
                    if (session.condition, *_cell(question)) not in known
                ],
            )
            for session in sessions
        ]
        self.questions = sum(len(waiting) for _, waiting in self._waiting)
        self.tokens = sum(
            sum(self._costs(session, waiting).values()) for session, waiting in self._waiting
        )

    @staticmethod
    def _costs(session: Session, waiting: Sequence[Question]) -> dict[tuple[object, ...], int]:
        """Tokens to compute for each question."""
        computed = spans(waiting, reuse=session.reuse)
        return {
            _cell(question): span.end - span.start
            for question, span in zip(waiting, computed, strict=True)
        }

    def ask(self, records: Records) -> Iterator[Progress]:
        """Ask and record, question by question."""
        tokens = 0
        for session, waiting in self._waiting:
            if not waiting:
                continue
            costs = self._costs(session, waiting)
            for question, answer in session.ask(waiting):
                judgement = judge(answer.text, question.key)
                trial = Trial(
                    condition=session.condition,
                    text=question.text,
                    length=question.length,
                    depth=question.depth,
                    distance=question.distance,
                    hit=judgement.hit if answer.measured else None,
                    substring=judgement.substring if answer.measured else None,
                )
                records.append(Record(trial, answer.text, answer.evaluated, answer.naive))
                tokens += costs[_cell(question)]
                yield Progress(trial, len(records.finished), tokens)

    def estimate(self, speed: Speed, prompts: PromptPlan, engine: Engine) -> Estimate:
        """How long it takes at a speed, and how long less would take."""
        sweep: float | None = None
        if prompts.mode is not Mode.SWEEP:
            with suppress(EngineError):  # lengths too short for a sweep, or too many keys
                swept = prompt_set(replace(prompts, mode=Mode.SWEEP), engine.counts)
                sweep = seconds(
                    speed, prompts, [(session, session.of(swept)) for session, _ in self._waiting]
                )
        *_, longest = prompts.lengths
        shorter = [
            (session, [question for question in waiting if question.length < longest])
            for session, waiting in self._waiting
        ]
        return Estimate(
            seconds=seconds(speed, prompts, self._waiting),
            sweep_seconds=sweep,
            shorter_seconds=seconds(speed, prompts, shorter) if len(prompts.lengths) > 1 else None,
        )


def seconds(
    speed: Speed, prompts: PromptPlan, asked: Sequence[tuple[Session, Sequence[Question]]]
) -> float:
    """Time of the questions of sessions."""
    return sum(
        speed.seconds(spans(questions, reuse=session.reuse), answer_tokens=prompts.answer_tokens)
        for session, questions in asked
    )


def _cell(question: Question) -> tuple[int, int, float]:
    return question.text, question.length, question.depth


def ask_one_by_one(
    engine: Engine, open_: Callable[[], object], tokens: int, questions: Sequence[Question]
) -> Iterator[tuple[Question, Answer]]:
    """Ask questions in their order, in which an engine reuses most.

    Parameters
    ----------
    open_ : callable
        Called before the first question.
    tokens : int
        Longest answer.
    """
    open_()
    for question in questions:
        yield question, engine.ask(question.parts, key=question.key, tokens=tokens)
