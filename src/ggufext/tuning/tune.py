"""The search for a scaling of a model file: one way from a request to a result."""

from __future__ import annotations

import random
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ggufext.audit.conditions import refuse_copies
from ggufext.audit.engines.llama_cpp import LlamaCpp, usual_threads
from ggufext.audit.request import LocalSettings
from ggufext.audit.run.file_run import file_run, refuse_embedding_model
from ggufext.audit.run.measure import Preparing
from ggufext.audit.task import wording
from ggufext.comparison.compare import micro_batch
from ggufext.comparison.evidence import evidence
from ggufext.comparison.findings import recommended_plan, result_of
from ggufext.comparison.measure import CompareProgress, measure
from ggufext.comparison.request import NATIVE, key_lengths
from ggufext.comparison.results import ComparedModel
from ggufext.comparison.texts import DISTRIBUTIONS, KeysInTexts, read_pieces
from ggufext.errors import ModelWarning, PlanError
from ggufext.header.facts import facts_hash
from ggufext.opened.model import open_model
from ggufext.tuning.candidates import Kind, Space
from ggufext.tuning.halving import Halving
from ggufext.tuning.results import SearchedCondition, TuneResult
from ggufext.tuning.screening import capture, search
from ggufext.tuning.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ggufext.audit.conditions import CopyNeeded
    from ggufext.audit.run.measure import Computing, Prepared
    from ggufext.comparison.measure import CompareNotes, MeasuredCells
    from ggufext.comparison.results import CompareResult
    from ggufext.header.facts import ModelFacts
    from ggufext.tuning.request import TuneRequest
    from ggufext.tuning.screening import Screened

    Notify = Callable[["TuneProgress"], None]

#: Scalings of each kind that are tried on the model.
_MOST = {Kind.BASE: 5, Kind.PAIRS: 4, Kind.SHARPENED_PAIRS: 3}

#: Bins of the losses that lie within the training length.
_WITHIN = 2


@dataclass(frozen=True, slots=True)
class TuneProgress:
    """How far a search is, in a few words."""

    detail: str


def tune(
    path: Path,
    request: TuneRequest,
    *,
    allow_copy: Callable[[CopyNeeded], bool] = refuse_copies,
    notify: Notify = lambda _: None,
) -> TuneResult:
    """Search for a scaling that is better than the closed forms; nothing is written to the file.

    Parameters
    ----------
    path : Path
        A GGUF file, of a split model the first shard.
    request : TuneRequest
    allow_copy : callable
        Asked before a temporary copy is made for a scaling that needs one.
    notify : callable
        Hears how far it is.

    Returns
    -------
    TuneResult
        Complete, or what was measured until Ctrl-C or the engine's death.

    Raises
    ------
    HeaderError, PlanError
        The file or a text cannot be searched on: ``target_not_longer``, ``bad_text``,
        ``text_too_short``, ``cannot_combine`` …
    EngineError
        Before the first cell: ``no_attention``, and as of `ggufext.audit.check.check`.
    """
    return _Search(path, request, allow_copy, notify).result()


class _Search:
    def __init__(
        self,
        path: Path,
        request: TuneRequest,
        allow_copy: Callable[[CopyNeeded], bool],
        notify: Notify,
    ) -> None:
        self._end = time.monotonic() + 60 * request.minutes
        self._request = request
        self._allow_copy, self._notify = allow_copy, notify
        shared = request.compared(()).plan
        with open_model(path) as model:
            refuse_embedding_model(model.header)
            assert model.header.path is not None
            self._path = model.header.path  # of a split model that of the first part
            self._facts: ModelFacts = model.original_facts(shared)
            self._model = ComparedModel(
                path=str(self._path),
                size=model.header.file_size,
                facts_hash=facts_hash(model.unextended, self._facts),
            )
        self._lengths = key_lengths(self._facts.train_length, request.target_length)
        self._space = Space(self._facts, shared, metadata_only=request.metadata_only)

    def result(self) -> TuneResult:
        closed, others = self._screened()
        chosen = list(_chosen(others))
        self._recipes = {
            each.candidate.name: each.candidate.recipe for each in chosen if each.candidate.recipe
        }
        self._closed = tuple(each.candidate.name for each in closed)
        self._tuned = tuple(each.candidate.name for each in chosen)
        texts = self._request.search_texts + self._request.trials
        asked = self._request.compared((NATIVE, *self._closed, *self._tuned), texts=texts)
        wanted = texts * self._request.target_length
        task = KeysInTexts(
            [(each, read_pieces(each, tokens=wanted)) for each in self._request.texts],
            train_length=self._facts.train_length,
            target_length=self._request.target_length,
        )
        n_ubatch = micro_batch(self._lengths[0])
        with file_run(
            self._path,
            asked.keys(self._lengths),
            self._allow_copy,
            self._heard,
            task=task,
            n_ubatch=n_ubatch,
            kept_logits=n_ubatch + 2 * DISTRIBUTIONS,
            recipes=self._recipes,
        ) as prepared:
            halving = self._halving(task)
            measured = measure(prepared, task, self._heard, rounds=halving)
        return self._found(measured, task, halving, prepared, [*closed, *others])

    def _screened(self) -> tuple[list[Screened], list[Screened]]:
        settings = self._request.engine or LocalSettings()
        closed = list(self._space.closed_forms())
        # What is captured of comes from metadata alone; linear would lose what is near.
        under = next(
            (x for x in closed if not x.plan.tensor_edits and x.name != "planned:linear"), None
        )
        if under is None or next(self._space.starts(), None) is None:
            raise PlanError(
                code="cannot_combine",
                path=self._path,
                message="files of this model take neither another base nor factors, so there is "
                "nothing to search: `ggufext compare` measures the methods that it takes",
            )
        told = partial(self._tell, "reading a text for the screen, {:,} tokens")
        with closing(LlamaCpp(self._path, llama_cpp=settings.llama_cpp, computed=told)) as engine:
            screen = capture(
                self._path,
                self._facts,
                self._request.compared(()).plan,
                under,
                engine=engine,
                parts=list(self._text(engine)),
                threads=settings.threads or usual_threads(self._model.size),
            )
        return search(screen, self._space, partial(self._tell, "{:,} candidates screened"))

    def _heard(self, event: Preparing | Computing | CompareNotes | CompareProgress) -> None:
        if isinstance(event, CompareProgress):
            done = f"runs of a scaling on a text: {event.finished:,}"
            self._notify(TuneProgress(f"{event.condition}; {done}"))
        elif isinstance(event, Preparing):
            self._notify(TuneProgress(event.what))

    def _tell(self, words: str, number: int) -> None:
        self._notify(TuneProgress(words.format(number)))

    def _text(self, engine: LlamaCpp) -> Iterator[str]:
        """A text as long as the target, of the first file or of our own sentences.

        Raises
        ------
        PlanError
            ``bad_text``, ``text_too_short``.
        """
        length, left = self._request.target_length, self._request.target_length
        if self._request.texts:
            file = self._request.texts[0]
            pieces: Iterator[str] = iter(read_pieces(file, tokens=length))
        else:
            rng = random.Random(f"tuning/{self._request.seed}")
            pieces = (wording.sentence(rng) for _ in range(length))
        for piece in pieces:
            yield piece
            left -= engine.counts([piece])[0]
            if left <= 0:
                return
        raise PlanError(
            code="text_too_short",
            path=self._request.texts[0] if self._request.texts else None,
            message=f"holds {length - left:,} tokens of this model, and {length:,} are read; name "
            "a longer text, or a smaller target",
        )

    def _halving(self, task: KeysInTexts) -> Halving:
        found = len(task.texts)
        if found < 2:
            raise PlanError(
                code="text_too_short",
                path=self._request.texts[0],
                message=f"gives one text of {self._request.target_length:,} tokens; a search needs "
                "one and its decision another: name a longer text, or a smaller target",
            )
        search = min(self._request.search_texts, max(found - self._request.trials, found // 2))
        return Halving(
            self._closed,
            self._tuned,
            native=NATIVE,
            search=task.texts[:search],
            held=task.texts[search:],
            within=_WITHIN,
            seconds=self._end - time.monotonic(),
        )

    def _found(
        self,
        measured: MeasuredCells,
        task: KeysInTexts,
        halving: Halving,
        prepared: Prepared,
        screened: Sequence[Screened],
    ) -> TuneResult:
        standings = halving.standings(measured.cells)
        winners = halving.winners(measured.cells)
        decision = None
        if len(winners) == 2 and not halving(measured.cells):
            decision = self._decision(measured, task, halving, tuple(winners))
        closed = next((name for name in winners if name in self._closed), None)
        tuned = next((name for name in winners if name in self._tuned), None)
        kept, needed = False, True
        reason = "nothing was decided on held-out texts"
        if closed is not None:
            reason += f"; on those that were searched on the best closed form is {closed}"
        if decision is not None and closed is not None and tuned is not None:
            kept, reason = verdict(decision, closed, tuned)
            needed = decision.recommendation.condition is not None
        written = (tuned if kept else closed) if needed else None
        plan = recommended_plan(written, self._request.compared(()), self._facts, self._recipes)
        known = {each.name: each for each in standings}
        rank = {each.name: index for index, each in enumerate(standings)}
        searched = [
            SearchedCondition(
                name=each.candidate.name,
                closed_form=each.candidate.kind is Kind.CLOSED_FORM,
                output_error=each.error,
                texts=known[each.candidate.name].texts if each.candidate.name in known else 0,
                loss=known[each.candidate.name].loss if each.candidate.name in known else None,
            )
            for each in screened
        ]
        searched.sort(key=lambda each: (rank.get(each.name, len(rank)), each.output_error))
        said = measured.warnings if decision is None else decision.warnings
        warnings = [each for each in said if each.code != "native_is_file"]
        if measured.run.stop is not None and decision is None:
            warnings.append(
                ModelWarning("cut_short", f"the run was cut short: {measured.run.stop.message}")
            )
        if halving.out_of_time:
            warnings.append(
                ModelWarning(
                    "time_used_up",
                    f"the {self._request.minutes:g} minutes ended the search before its last round;"
                    " --resume goes on with it",
                )
            )
        measurements = None
        if decision is not None:
            measurements = evidence(
                "tune",
                written,
                reason,
                decision.conditions,
                decision.losses,
                measured.run,
                train_length=self._facts.train_length,
            )
        return TuneResult(
            plan=plan,
            evidence=measurements,
            model=self._model,
            request=replace(self._request, engine=prepared.request.engine),
            run=measured.run,
            tuned=tuned,
            kept=kept,
            reason=reason,
            searched=tuple(searched),
            decision=decision,
            warnings=tuple(warnings),
        )

    def _decision(
        self,
        measured: MeasuredCells,
        task: KeysInTexts,
        halving: Halving,
        winners: tuple[str, ...],
    ) -> CompareResult:
        held = {text.number for text in halving.held}
        cells = tuple(each for each in measured.cells if each.text in held)
        return result_of(
            replace(measured, cells=cells),
            task.only(held),
            self._request.compared((NATIVE, *winners)),
            self._model,
            self._facts,
            self._recipes,
        )


def _chosen(others: Sequence[Screened]) -> Iterator[Screened]:
    """The best of each kind by the screen, which hardly tells those that are all good apart."""
    left = dict(_MOST)
    for each in others:
        if left[each.candidate.kind] > 0:
            left[each.candidate.kind] -= 1
            yield each
