"""Attention by distance of a model in a file, from a request to a result."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ggufext.attention.fit import curves, distance_edges
from ggufext.attention.request import SHORTEST, SINK, query_rows, usual_length
from ggufext.attention.results import (
    ConditionAttention,
    LayerAttention,
    LayerGroup,
    MeasureResult,
    MeasureRun,
)
from ggufext.attention.text import filler
from ggufext.audit.conditions import conditions, refuse_copies, with_copies
from ggufext.audit.engines.llama_cpp import LlamaCpp, contexts
from ggufext.audit.request import PLANNED, LocalSettings
from ggufext.audit.run.file_run import model_size, refuse_embedding_model
from ggufext.audit.run.measure import Stop
from ggufext.audit.run.preparation import versions
from ggufext.audit.task.text_files import read_text, too_short
from ggufext.errors import EngineError, ModelWarning, PlanError
from ggufext.llama.memory import plan_memory
from ggufext.opened.model import open_model
from ggufext.planning.footprint import CacheType, padded_cells
from ggufext.planning.gamma import gamma_pade
from ggufext.planning.request import PlanRequest
from ggufext.text import binary_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ggufext.attention.request import MeasureRequest
    from ggufext.audit.conditions import CopyNeeded, ResolvedCondition
    from ggufext.header.facts import ModelFacts
    from ggufext.llama.expectation import Expected
    from ggufext.llama.memory import Budget, ModelSize

    _Sums = npt.NDArray[np.float64]

#: Micro-batch, tokens, where memory allows it.
_MICRO_BATCH = 512

#: A length that does not fit is halved so often to name one that does.
_HALVINGS = 8


@dataclass(frozen=True, slots=True)
class MeasureProgress:
    """How far a run is.

    Attributes
    ----------
    condition : str
    tokens, total : int
        Tokens read, and to be read, of all conditions.
    """

    condition: str
    tokens: int
    total: int


def measure(
    path: Path,
    request: MeasureRequest,
    *,
    allow_copy: Callable[[CopyNeeded], bool] = refuse_copies,
    notify: Callable[[MeasureProgress], None] = lambda _: None,
) -> MeasureResult:
    """Measure how attention of a model falls with distance; nothing is written to its file.

    Parameters
    ----------
    path : Path
        A GGUF file, of a split model the first shard.
    request : MeasureRequest
    allow_copy : callable
        Asked before a temporary copy is made for a condition that needs one.
    notify : callable
        Hears of every piece of text that was read.

    Returns
    -------
    MeasureResult
        Complete, or the conditions that were measured until Ctrl-C or the engine's death.

    Raises
    ------
    HeaderError, PlanError
        The file, a condition, a length or a text cannot be measured: ``request_absurd``,
        ``target_absurd``, ``bad_condition``, ``bad_text``, ``text_too_short`` …
    EngineError
        ``no_attention``, ``cannot_be_audited``, ``out_of_memory``, ``model_not_loaded``,
        ``engine_unknown``, ``engine_died`` …, before a condition was measured.
    KeyboardInterrupt
        The same.
    """
    with open_model(path) as model:
        assert model.header.path is not None
        path = model.header.path  # of a split model that of the first part
        refuse_embedding_model(model.header)
        request, length, distance = _resolved(request, model.facts.context_length)
        rows = query_rows(length, distance, request.rows)
        planned = PlanRequest(
            target_length=request.target_length or length,
            train_length=request.train_length,
            train_freq_base=request.train_freq_base,
        )
        facts = model.original_facts(planned)
        size = model_size(model, facts)
        chosen = conditions(model, request.conditions, planned)
    _refuse_no_target(request, length, facts.train_length)
    for condition in chosen:
        if condition.self_extend is not None:
            raise PlanError(
                code="bad_condition",
                message=f"condition {condition.name!r}; Self-Extend moves positions, so distances "
                "are not those of the text: leave it out",
            )
    text = None if request.text is None else read_text(request.text, tokens=length)
    with ExitStack() as held:
        chosen = held.enter_context(with_copies(path, chosen, allow_copy))
        engine = LlamaCpp(path, llama_cpp=request.llama_cpp)
        held.callback(engine.close)
        size = replace(size, widths=replace(size.widths, vocabulary=engine.n_vocab))
        budget = _budget(size, length, engine.hello.available, path)
        if request.text is None or text is None:
            parts = filler(length, engine.counts, request.seed)
        else:
            parts = [text]
            (found,) = engine.counts(parts)
            if found < length:
                raise too_short(request.text, found, length)
        ready = _Ready(path, request, length, distance, facts, engine, parts, rows, budget)
        return _measured(ready, chosen, notify)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A run before which everything that can be refused was refused."""

    path: Path
    request: MeasureRequest
    length: int
    distance: int
    facts: ModelFacts
    engine: LlamaCpp
    parts: Sequence[str]
    rows: tuple[int, ...]
    budget: Budget


def _resolved(request: MeasureRequest, context: int) -> tuple[MeasureRequest, int, int]:
    """The request with length and distance, and these."""
    length = request.length or usual_length(context)
    distance = request.distance or length // 2
    request = replace(
        request,
        length=length,
        distance=distance,
        conditions=tuple(dict.fromkeys(request.conditions)),
    )
    return request, length, distance


def _refuse_no_target(request: MeasureRequest, length: int, trained: int) -> None:
    """Refuse planned conditions that would be the model as it is, for want of a target.

    Raises
    ------
    PlanError
        ``request_absurd``.
    """
    planned = [name for name in request.conditions if name.startswith(PLANNED)]
    if planned and request.target_length is None and length <= trained:
        raise PlanError(
            code="request_absurd",
            message=f"condition {planned[0]!r} would extend to the {length:,} tokens that are "
            f"read, which lie within training ({trained:,}): say with --target how far",
        )


def _budget(size: ModelSize, length: int, available: int, path: Path) -> Budget:
    """A memory plan for a length, without flash attention, which writes no attention out.

    Raises
    ------
    EngineError
        ``out_of_memory``.
    """
    halved = [length >> times for times in range(_HALVINGS)]
    budget = plan_memory(
        size,
        lengths=tuple(sorted(each for each in halved if each >= SHORTEST)),
        n_ubatch=_MICRO_BATCH,
        cache_type=CacheType.F16,
        flash_attention=False,
        available=available,
    )
    if budget.lengths[-1] < length:
        raise EngineError(
            code="out_of_memory",
            path=path,
            message=f"length {length:,} does not fit into the {binary_size(available)} that are "
            f"free: attention is written out to be read; --length {budget.lengths[-1]} fits",
        )
    return budget


def _measured(
    ready: _Ready,
    chosen: tuple[ResolvedCondition, ...],
    notify: Callable[[MeasureProgress], None],
) -> MeasureResult:
    started = time.monotonic()
    length = ready.rows[-1] + 1
    found: list[ConditionAttention] = []
    stop: Stop | None = None
    for condition in chosen:
        tell = partial(_tell, notify, condition.name, length * len(found), length * len(chosen))
        try:
            found.append(_attention(ready, condition, tell))
        except (KeyboardInterrupt, EngineError) as error:
            if not found:
                raise
            stop = (
                Stop(error.code, str(error))
                if isinstance(error, EngineError)
                else Stop("interrupted", "interrupted")
            )
            break
    warnings = [warning for condition in chosen for warning in condition.warnings]
    warnings += [ModelWarning("memory_reduced", step) for step in ready.budget.plan.steps]
    hello = ready.engine.hello
    return MeasureResult(
        request=ready.request,
        run=MeasureRun(
            path=str(ready.path),
            versions=versions(
                **{hello.package.replace("-", "_"): hello.version},
                processor=hello.system.strip(" |"),
            ),
            train_length=ready.facts.train_length,
            rows=ready.rows,
            memory_plan=ready.budget.plan,
            seconds=time.monotonic() - started,
            stop=stop,
        ),
        conditions=tuple(found),
        warnings=tuple(warnings),
    )


def _tell(
    notify: Callable[[MeasureProgress], None], condition: str, before: int, total: int, tokens: int
) -> None:
    notify(MeasureProgress(condition, before + tokens, total))


def _attention(
    ready: _Ready, condition: ResolvedCondition, tell: Callable[[int], None]
) -> ConditionAttention:
    layers, distance = ready.facts.layers, ready.distance
    edges = [
        distance_edges(min(distance, layer.window - 1) if layer.window else distance)
        for layer in layers
    ]
    load = contexts(
        ready.path,
        condition,
        ready.budget,
        LocalSettings(threads=ready.request.threads),
        gpu_layers=0,
    )[-1][1]
    pieces: defaultdict[int, list[_Sums]] = defaultdict(list)
    for end, shapes, payload in ready.engine.attention(
        load,
        ready.parts,
        rows=ready.rows,
        sink=SINK,
        edges=edges,
    ):
        for layer, sums in _by_layer(shapes, payload):
            pieces[layer].append(sums)
        tell(end)
    if not pieces:
        raise EngineError(
            code="no_attention",
            path=ready.path,
            message="llama.cpp shows no softmax of attention over the text in any layer of this "
            f"model ({ready.facts.architecture}): it is recurrent, or attends in a way of its own; "
            "there is nothing to measure",
        )
    found = {layer: np.concatenate(parts) for layer, parts in sorted(pieces.items())}
    expected = condition.expected
    if condition.short_context and padded_cells(ready.length) > condition.short_context:
        expected = condition.expected_long or expected
    kinds: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
    for layer in found:
        kinds[layers[layer].window or 0, not layers[layer].rotates].append(layer)
    return ConditionAttention(
        name=condition.name,
        groups=tuple(
            _group(ready, edges[kinds[kind][0]], expected, {x: found[x] for x in kinds[kind]})
            for kind in sorted(kinds)
        ),
        unseen=tuple(layer for layer in range(len(layers)) if layer not in found),
    )


def _by_layer(shapes: list[dict[str, int]], payload: bytes) -> Iterator[tuple[int, _Sums]]:
    """Sums of each layer, rows × heads × columns."""
    values = np.frombuffer(payload, np.float32).astype(np.float64)
    columns = [each["heads"] * each["columns"] for each in shapes]
    rows = len(values) // max(sum(columns), 1)
    start = 0
    for shape, count in zip(shapes, columns, strict=True):
        end = start + rows * count
        yield shape["layer"], values[start:end].reshape(rows, shape["heads"], shape["columns"])
        start = end


def _group(
    ready: _Ready,
    edges: tuple[int, ...],
    expected: Sequence[Expected],
    sums: Mapping[int, _Sums],
) -> LayerGroup:
    """What was found in layers of one kind."""
    seed = ready.request.seed
    layers = []
    for layer, each in sums.items():
        *heads, mean = curves(each, edges, seed)
        layers.append(LayerAttention(layer, mean, tuple(heads)))
    every = np.concatenate(list(sums.values()), axis=1).mean(axis=1, keepdims=True)
    *_, curve = curves(every, edges, seed)
    first = next(iter(sums))
    facts = ready.facts.layers[first]
    return LayerGroup(
        window=facts.window,
        rotates=facts.rotates,
        edges=edges,
        gamma_pade=_predicted(ready, expected[first]) if facts.rotates else None,
        curve=curve,
        layers=tuple(layers),
    )


def _predicted(ready: _Ready, expected: Expected) -> float | None:
    """γ of the planning for what a layer rotates with, at the length that was read.

    Angles that are all divided by f are those of a text of length / f.
    """
    if expected.factors is not None:
        return None
    return gamma_pade(expected.freq_base, ready.length * expected.freq_scale)
