"""The run of a comparison: cells of one condition and one text, each measured by itself and kept.

The answers to the keys and the losses of a cell come from one reading of its text.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ggufext.audit.engines import Answer, Scores
from ggufext.audit.engines.cluster import Cluster
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.run.duration import spans
from ggufext.audit.run.measure import Stop, seconds
from ggufext.audit.run.records import RecordKind, Records
from ggufext.comparison.request import NATIVE
from ggufext.comparison.statistics import divergence
from ggufext.comparison.texts import blocks
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from ggufext.audit.run.measure import Prepared, Run, Stage
    from ggufext.audit.task import Question
    from ggufext.comparison.texts import KeysInTexts, Text
    from ggufext.errors import ModelWarning

    Rounds = Callable[[Sequence["CellRecord"]], Sequence[tuple[str, Text]]]


@dataclass(frozen=True, slots=True)
class CellRecord:
    """What one condition did with one text.

    Attributes
    ----------
    condition : str
    text : int
    losses : tuple of tuple of float
        In each bin of positions the losses of its blocks, nats a token; see
        `ggufext.comparison.texts.blocks`.
    divergence : tuple of float
        At each position where distributions are compared, from native, nats.
    same_top : tuple of bool
        There, whether native expects the same token most.
    answers : tuple of str
        In the order of the text's questions.
    hits, substrings : tuple of bool
        Whether the first integer of an answer is the key; whether the key stands in it.
    evaluated, naive : int
        Tokens that were computed, and that one prompt a question would have cost.
    """

    condition: str
    text: int
    losses: tuple[tuple[float, ...], ...]
    divergence: tuple[float, ...]
    same_top: tuple[bool, ...]
    answers: tuple[str, ...]
    hits: tuple[bool, ...]
    substrings: tuple[bool, ...]
    evaluated: int
    naive: int


def _read(fields: dict[str, Any]) -> CellRecord:
    lists = ("divergence", "same_top", "answers", "hits", "substrings")
    whole = {name: tuple(fields[name]) for name in lists}
    return CellRecord(**{**fields, **whole, "losses": tuple(map(tuple, fields["losses"]))})


def _cell(record: CellRecord) -> Hashable:
    return record.condition, record.text


CELLS = RecordKind("ggufext compare 1", _read, _cell)


@dataclass(frozen=True, slots=True)
class CompareNotes:
    """What is known before the first cell.

    Attributes
    ----------
    cells, finished : int
        Of one condition and one text each: of the whole run, and those of an earlier run.
    tokens : int
        That are to be computed for the others.
    seconds : float or None
        How long that takes; None where it was not measured: see
        `ggufext.audit.run.measure.RunNotes`.
    """

    cells: int
    finished: int
    tokens: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class CompareProgress:
    """How far a run has come.

    Attributes
    ----------
    condition : str
        That is measured.
    finished : int
        Cells, those of an earlier run included.
    tokens : int
        Of `CompareNotes.tokens`, those that are done.
    """

    condition: str
    finished: int
    tokens: int


@dataclass(frozen=True, slots=True)
class MeasuredCells:
    """A run with every cell, complete or cut short."""

    run: Run
    cells: tuple[CellRecord, ...]
    vocabulary: int
    warnings: tuple[ModelWarning, ...]


@dataclass(frozen=True, slots=True)
class _Work:
    """A cell to be measured; or, for those that come after it, native's distributions alone."""

    condition: str
    text: Text
    stages: tuple[Stage, ...]
    answer_tokens: int
    is_reference: bool = False

    @property
    def steps(self) -> int:
        """Results that come of it."""
        return sum(1 + len(segment.questions) for segment in self.text.segments)


def _steps(engine: LlamaCpp, work: _Work) -> Iterator[Scores | tuple[Question, Answer]]:
    """Read a text, length by length, and ask for its keys at each."""
    segments = {segment.length: segment for segment in work.text.segments}
    for stage in work.stages:
        assert stage.load is not None
        for segment in [segments[each] for each in stage.lengths if each in segments]:
            engine.use(stage.load)
            yield engine.score(
                segment.parts, rows=segment.rows, distributions=segment.distributions
            )
            for question in segment.questions:
                answer = engine.ask(question.parts, stop=question.stop, tokens=work.answer_tokens)
                yield question, answer


def measure(
    prepared: Prepared,
    task: KeysInTexts,
    notify: Callable[[CompareNotes | CompareProgress], None],
    *,
    rounds: Rounds | None = None,
) -> MeasuredCells:
    """Measure every cell that is not measured yet.

    Ctrl-C and the engine's death end the run early; what was measured is returned.

    Parameters
    ----------
    prepared : Prepared
        Of the keys in the texts, on llama.cpp here or on a cluster.
    task : KeysInTexts
        That of `prepared`.
    rounds : callable, optional
        Gets the cells that are finished, says which are wanted next, and none at the end. Without
        it all are wanted at once.

    Raises
    ------
    EngineError
        Before the first cell: ``resume_mismatch``, ``records_in_use``, ``records_not_written``.
    """
    started = time.monotonic()
    run, engine = prepared.run, prepared.engine
    assert isinstance(engine, (LlamaCpp, Cluster))
    stop: Stop | None = None
    identity = {**prepared.identity, "prompts_hash": run.prompts_hash}
    with Records(prepared.request.resume, identity, CELLS) as records:
        cells = _Cells(prepared, task, engine, records)
        every = [(name, text) for name in prepared.request.conditions for text in task.texts]
        try:
            wanted = cells.waiting(rounds(records.finished) if rounds else every)
            notify(cells.notes(wanted))
            while wanted:
                for progress in cells.measure(wanted):
                    notify(progress)
                wanted = cells.waiting(rounds(records.finished)) if rounds else []
        except KeyboardInterrupt:
            stop = Stop("interrupted", "the run was interrupted")
        except EngineError as error:
            stop = Stop(error.code, str(error))
    return MeasuredCells(
        run=replace(
            run,
            tokens_evaluated=sum(record.evaluated for record in records.finished),
            tokens_naive=sum(record.naive for record in records.finished),
            seconds=time.monotonic() - started,
            stop=stop,
        ),
        cells=tuple(records.finished),
        vocabulary=engine.n_vocab,
        warnings=(*prepared.warnings, *engine.warnings()),
    )


class _Cells:
    """What is left to measure: native first, which the others are compared with."""

    def __init__(
        self,
        prepared: Prepared,
        task: KeysInTexts,
        engine: LlamaCpp | Cluster,
        records: Records[CellRecord],
    ) -> None:
        self._prepared = prepared
        self._task = task
        self._engine = engine
        self._records = records
        self._stages = {
            name: tuple(stage for stage in prepared.stages if stage.condition == name)
            for name in prepared.request.conditions
        }
        self._distributions: dict[int, bytes] = {}

    def waiting(self, wanted: Iterable[tuple[str, Text]]) -> list[_Work]:
        """Of the cells that are wanted those that are not measured."""
        known = {_cell(record) for record in self._records.finished}
        return [
            _Work(name, text, self._stages[name], self._prepared.prompts.answer_tokens)
            for name, text in wanted
            if (name, text.number) not in known
        ]

    def _references(self, waiting: Sequence[_Work]) -> list[_Work]:
        """Native's distributions that are needed and come from none of the cells themselves."""
        there = {work.text.number for work in waiting if work.condition == NATIVE}
        texts = {work.text.number: work.text for work in waiting if work.text.distributions}
        return [
            _Work(NATIVE, _reference(text), self._stages[NATIVE], 0, is_reference=True)
            for number, text in texts.items()
            if number not in there and number not in self._distributions
        ]

    def notes(self, waiting: Sequence[_Work]) -> CompareNotes:
        """How much that is, and how long it takes."""
        speed, prompts = self._prepared.speed, self._prepared.prompts
        finished = len(self._records.finished)
        asked = [
            (stage, stage.of(work.text.questions)) for work in waiting for stage in work.stages
        ]
        return CompareNotes(
            cells=finished + len(waiting),
            finished=finished,
            tokens=sum(
                span.end - span.start
                for stage, questions in asked
                for span in spans(questions, reuse=stage.reuse)
            ),
            seconds=speed.stretch * seconds(speed, prompts, asked) if speed else None,
        )

    def measure(self, waiting: Sequence[_Work]) -> Iterator[CompareProgress]:
        """Measure and record, cell by cell."""
        native = [work for work in waiting if work.condition == NATIVE]
        others = [work for work in waiting if work.condition != NATIVE]
        tokens = 0
        for wave in ([*self._references(waiting), *native], others):
            done: list[Scores | tuple[Question, Answer]] = []
            for work, step in self._engine.each(_steps, wave):
                done.append(step)
                if len(done) == work.steps:
                    self._finish(work, done)
                    done = []
                if not work.is_reference:
                    tokens += (step if isinstance(step, Scores) else step[1]).evaluated
                    yield CompareProgress(work.condition, len(self._records.finished), tokens)

    def _finish(self, work: _Work, steps: Sequence[Scores | tuple[Question, Answer]]) -> None:
        scores = [step for step in steps if isinstance(step, Scores)]
        distributions = b"".join(each.distributions for each in scores)
        if work.condition == NATIVE and distributions:
            self._distributions[work.text.number] = distributions
        if work.is_reference:
            return
        asked = [step for step in steps if not isinstance(step, Scores)]
        native = self._distributions[work.text.number] if work.text.distributions else b""
        far, same = divergence(native, distributions, self._engine.n_vocab)
        judged = [self._task.judge(question, answer.text) for question, answer in asked]
        costs = [each.evaluated for each in scores] + [answer.evaluated for _, answer in asked]
        self._records.append(
            CellRecord(
                condition=work.condition,
                text=work.text.number,
                losses=_losses(work.text, scores),
                divergence=tuple(round(each, _DIGITS) for each in far),
                same_top=tuple(same),
                answers=tuple(answer.text for _, answer in asked),
                hits=tuple(bool(each.hit) for each in judged),
                substrings=tuple(bool(each.substring) for each in judged),
                evaluated=sum(costs),
                naive=sum(answer.naive for _, answer in asked),
            )
        )


#: Of losses that are kept: less than what another thread or processor changes.
_DIGITS = 6


def _losses(text: Text, scores: Sequence[Scores]) -> tuple[tuple[float, ...], ...]:
    losses = iter([-value for each in scores for value in each.log_probabilities])
    by_bin = ([next(losses) for _ in range(count)] for count in text.bins)
    return tuple(tuple(round(each, _DIGITS) for each in blocks(values)) for values in by_bin)


def _reference(text: Text) -> Text:
    """A text up to the last of its distributions, without all else."""
    segments = (
        replace(segment, rows=(), questions=())
        for segment in text.segments
        if segment.distributions
    )
    return replace(text, segments=tuple(segments))
