"""The comparison of conditions on a model file: one way from a request to a result."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ggufext.audit.conditions import permission
from ggufext.audit.run.file_run import file_run, refuse_embedding_model
from ggufext.comparison.findings import result_of
from ggufext.comparison.measure import measure
from ggufext.comparison.request import key_lengths
from ggufext.comparison.results import ComparedModel
from ggufext.comparison.texts import DISTRIBUTIONS, KeysInTexts, read_pieces
from ggufext.header.facts import facts_hash
from ggufext.opened.model import open_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from ggufext.audit.conditions import CopyNeeded
    from ggufext.audit.run.measure import Computing, Prepared, Preparing
    from ggufext.comparison.measure import CompareNotes, CompareProgress
    from ggufext.comparison.request import CompareRequest
    from ggufext.comparison.results import CompareResult
    from ggufext.header.facts import ModelFacts
    from ggufext.planning.request import Recipe

    Notify = Callable[[Preparing | CompareNotes | Computing | CompareProgress], None]

#: Micro-batches: large ones are fast, and every length ends on the boundary of one.
_SMALLEST_UBATCH, _LARGEST_UBATCH = 32, 512

#: Micro-batches that the shortest length has at least, where they can be so small.
_FEWEST = 8


def compare(
    path: Path,
    request: CompareRequest,
    *,
    allow_copy: bool | Callable[[CopyNeeded], bool] = False,
    notify: Notify = lambda _: None,
) -> CompareResult:
    """Measure conditions on the same texts; nothing is written to the file.

    Parameters
    ----------
    path : Path
        A GGUF file, of a split model the first shard.
    request : CompareRequest
    allow_copy : bool or callable
        Asked before a temporary copy is made for a condition that needs one; True adds to the usual
        conditions those that do.
    notify : callable
        See `ggufext.compare`.

    Returns
    -------
    CompareResult
        Complete, or what was measured until Ctrl-C or the engine's death.

    Raises
    ------
    HeaderError, PlanError
        The file, a condition or a text cannot be compared: ``target_not_longer``, ``bad_text``,
        ``text_too_short`` …
    EngineError
        Before the first cell, as of `ggufext.audit.check.check`.
    """
    facts, compared = compared_model(path, request)
    request, left_out = request.resolved(facts, copies=allow_copy is True)
    task = texts_of(request, facts)
    with texts_run(path, request, facts, task, permission(allow_copy), notify) as prepared:
        measured = measure(prepared, task, notify)
    measured = replace(measured, warnings=(*left_out, *measured.warnings))
    request = replace(request, engine=prepared.request.engine)
    return result_of(measured, task, request, compared, facts)


def compared_model(path: Path, request: CompareRequest) -> tuple[ModelFacts, ComparedModel]:
    """Facts of a model before any edit of ours, and which model it is.

    Raises
    ------
    PlanError
        ``target_not_longer``.
    """
    with open_model(path) as model:
        refuse_embedding_model(model.header)
        facts = model.original_facts(request.plan)
        found = ComparedModel(
            path=str(model.header.path),
            size=model.header.file_size,
            facts_hash=facts_hash(model.unextended, facts),
        )
    key_lengths(facts.train_length, request.target_length)
    return facts, found


def texts_of(request: CompareRequest, facts: ModelFacts) -> KeysInTexts:
    """The texts of a request; of files as much as is needed.

    Raises
    ------
    PlanError
        ``bad_text``.
    """
    wanted = request.trials * request.target_length
    return KeysInTexts(
        [(each, read_pieces(each, tokens=wanted)) for each in request.texts],
        train_length=facts.train_length,
        target_length=request.target_length,
    )


def texts_run(
    path: Path,
    request: CompareRequest,
    facts: ModelFacts,
    task: KeysInTexts,
    allow_copy: Callable[[CopyNeeded], bool],
    notify: Callable[[Preparing | Computing], None],
    *,
    recipes: Mapping[str, Recipe] = MappingProxyType({}),
) -> AbstractContextManager[Prepared]:
    """A run of all conditions of a request on texts with keys, as `file_run` makes it."""
    lengths = key_lengths(facts.train_length, request.target_length)
    n_ubatch = micro_batch(lengths[0])
    return file_run(
        path,
        request.keys(lengths),
        allow_copy,
        notify,
        task=task,
        n_ubatch=n_ubatch,
        # Of a micro-batch, of native's distributions and of those compared with them.
        kept_logits=n_ubatch + 2 * DISTRIBUTIONS,
        recipes=recipes,
    )


def micro_batch(shortest: int) -> int:
    """Micro-batch in tokens for a shortest length; every length loses less than one at its end."""
    size = _LARGEST_UBATCH
    while size > _SMALLEST_UBATCH and size * _FEWEST > shortest:
        size //= 2
    return size
