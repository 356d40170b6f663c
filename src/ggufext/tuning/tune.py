"""The search for a scaling of a model file: one way from a request to a result."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.audit.conditions import refuse_copies
from ggufext.audit.engines.llama_cpp import LlamaCpp, usual_threads
from ggufext.audit.request import LocalSettings
from ggufext.audit.run.measure import Preparing
from ggufext.audit.run.records import check_records_path
from ggufext.comparison.compare import compared_model, texts_of, texts_run
from ggufext.comparison.measure import CompareProgress, measure
from ggufext.comparison.request import NATIVE
from ggufext.errors import PlanError
from ggufext.planning.edits import moves_nothing
from ggufext.tuning.candidates import Kind, Space
from ggufext.tuning.findings import EndedSearch, Searched, result_of
from ggufext.tuning.halving import Halving
from ggufext.tuning.screening import (
    RememberedScreen,
    capture,
    first_text,
    kept_errors,
    search,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ggufext.audit.conditions import CopyNeeded
    from ggufext.audit.run.measure import Computing
    from ggufext.comparison.measure import CompareNotes
    from ggufext.comparison.texts import KeysInTexts
    from ggufext.header.facts import ModelFacts
    from ggufext.tuning.candidates import Candidate
    from ggufext.tuning.request import TuneRequest
    from ggufext.tuning.results import TuneResult
    from ggufext.tuning.screen import Screen
    from ggufext.tuning.screening import Screened

    Notify = Callable[["TuneProgress"], None]

#: Scalings of each kind that are tried on the model.
_MOST = {Kind.BASE: 5, Kind.PAIRS: 4, Kind.SHARPENED_PAIRS: 3}


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
        Complete, or what was measured until Ctrl-C or the engine's death; Ctrl-C in the screen,
        behind which the first is measured, is passed on.

    Raises
    ------
    HeaderError, PlanError
        The file or a text cannot be searched on: ``target_not_longer``, ``bad_text``,
        ``text_too_short``, ``cannot_combine`` …
    EngineError
        Before the first cell: ``no_attention``, and as of `ggufext.audit.check.check`.
    """
    end = time.monotonic() + 60 * request.minutes
    check_records_path(request.resume)  # the screen takes minutes
    asked = request.compared((), texts=request.search_texts + request.trials)
    facts, model = compared_model(path, asked)
    path = Path(model.path)  # of a split model that of the first part
    task = texts_of(asked, facts)
    space, under = _space(path, facts, request)
    screen = RememberedScreen(
        partial(_read, path, facts, request, under, task, model.size, notify),
        kept_errors(request.resume),
    )
    closed, others = search(screen, space, partial(_tell, notify, "{:,} candidates screened"))
    searched = Searched(closed, tuple(_chosen(others)), others)
    asked = replace(asked, conditions=(NATIVE, *searched.closed_names, *searched.chosen_names))
    with texts_run(
        path, asked, facts, task, allow_copy, partial(_heard, notify), recipes=searched.recipes
    ) as prepared:
        # With the answers, so that a run that goes on need not read the text of the screen again.
        kept = replace(prepared, identity={**prepared.identity, "screened": screen.errors})
        halving = _halving(request, searched, task, seconds=end - time.monotonic())
        measured = measure(kept, task, partial(_heard, notify), rounds=halving)
    request = replace(request, engine=prepared.request.engine)
    return result_of(EndedSearch(measured, task, halving, searched, request, model, facts))


def _space(path: Path, facts: ModelFacts, request: TuneRequest) -> tuple[Space, Candidate]:
    """What is searched, and the closed form under which the text of the screen is read."""
    space = Space(facts, request.compared(()).plan, metadata_only=request.metadata_only)
    # What is captured of comes from metadata alone; linear would lose what is near.
    under = next(
        (
            each
            for each in space.closed_forms()
            if not each.plan.tensor_edits and each.name != "planned:linear"
        ),
        None,
    )
    if moves_nothing(facts) or under is None or next(space.starts(), None) is None:
        raise PlanError(
            code="cannot_combine",
            path=path,
            message="files of this model take neither another base nor other keys, so there is "
            "nothing to search: `ggufext compare` measures the methods that it takes",
        )
    return space, under


def _read(
    path: Path,
    facts: ModelFacts,
    request: TuneRequest,
    under: Candidate,
    task: KeysInTexts,
    size: int,
    notify: Notify,
) -> Screen:
    """Read the text of the screen under a closed form; other parameters as of `tune`."""
    settings = request.engine or LocalSettings()
    told = partial(_tell, notify, "reading a text for the screen, {:,} tokens")
    with closing(LlamaCpp(path, llama_cpp=settings.llama_cpp, computed=told)) as engine:
        return capture(
            path,
            facts,
            request.compared(()).plan,
            under,
            engine=engine,
            parts=first_text(request, task, engine.counts),
            threads=settings.threads or usual_threads(size),
        )


def _tell(notify: Notify, words: str, number: int) -> None:
    notify(TuneProgress(words.format(number)))


def _chosen(others: Sequence[Screened]) -> Iterator[Screened]:
    """The best of each kind by the screen, which hardly tells those that are all good apart."""
    left = dict(_MOST)
    for each in others:
        if left[each.candidate.kind] > 0:
            left[each.candidate.kind] -= 1
            yield each


def _halving(
    request: TuneRequest, searched: Searched, task: KeysInTexts, *, seconds: float
) -> Halving:
    found = len(task.texts)
    search = min(request.search_texts, max(found - request.trials, found // 2))
    return Halving(
        searched.closed_names,
        searched.chosen_names,
        native=NATIVE,
        search=task.texts[:search],
        held=task.texts[search:],
        seconds=seconds,
    )


def _heard(notify: Notify, event: Preparing | Computing | CompareNotes | CompareProgress) -> None:
    if isinstance(event, CompareProgress):
        done = f"runs of a scaling on a text: {event.finished:,}"
        notify(TuneProgress(f"{event.condition}; {done}"))
    elif isinstance(event, Preparing):
        notify(TuneProgress(event.what))
