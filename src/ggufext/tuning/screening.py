"""The screen of a model: what its attention reads is captured, candidates are searched by it."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ggufext.audit.conditions import conditions
from ggufext.audit.run.records import kept_setting
from ggufext.audit.task import wording
from ggufext.errors import EngineError, PlanError
from ggufext.header.architectures import Layout
from ggufext.llama.settings import ContextSettings, LoadRequest
from ggufext.opened.model import open_model
from ggufext.planning.footprint import CacheType, kv_cache_bytes, padded_cells
from ggufext.planning.native import native_scaling
from ggufext.text import binary_size
from ggufext.tuning.candidates import Kind, rounded
from ggufext.tuning.screen import Capture, CapturedLayer, Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from ggufext.audit.engines.llama_cpp import LlamaCpp
    from ggufext.audit.task import Counts
    from ggufext.comparison.texts import KeysInTexts
    from ggufext.header.facts import ModelFacts
    from ggufext.planning.request import PlanRequest
    from ggufext.rope.rotation import Frequencies
    from ggufext.tuning.candidates import Candidate, Space
    from ggufext.tuning.request import TuneRequest

#: Queries whose attention is compared, evenly spread beyond the training length.
_ROWS = 128

#: Layers that are looked at, evenly spread, and the bytes that they may take.
_LAYERS, _BYTES = 8, 512 << 20

#: Micro-batch, tokens.
_MICRO_BATCH = 512

#: Of the search: exponents of bases tried beside the best, knots of factors, and steps of their
#: logarithms.
_NEAR, _KNOTS, _STEPS = (-0.1, -0.05, 0.05, 0.1), 5, (0.3, 0.15, 0.07)


@dataclass(frozen=True, slots=True)
class Screened:
    """A candidate and its output error; see `ggufext.tuning.screen.Screen`."""

    candidate: Candidate
    error: float


class RememberedScreen:
    """A screen that no rotation is shown twice, and whose text is read when one is new to it.

    Parameters
    ----------
    read : callable
        Gives the screen; called once, or never.
    errors : mapping
        Output errors by rotation, of an earlier run.

    Attributes
    ----------
    errors : dict
        All that are known.
    """

    def __init__(self, read: Callable[[], Screen], errors: Mapping[str, float]) -> None:
        self._read = read
        self._screen: Screen | None = None
        self.errors = dict(errors)

    def error(self, candidate: Frequencies) -> float:
        """As of `ggufext.tuning.screen.Screen`."""
        rotation = json.dumps([list(candidate.inv_freq), candidate.attention_factor])
        name = hashlib.sha256(rotation.encode()).hexdigest()[:16]
        if name not in self.errors:
            if self._screen is None:
                self._screen = self._read()
            self.errors[name] = self._screen.error(candidate)
        return self.errors[name]


def kept_errors(path: Path | None) -> dict[str, float]:
    """`RememberedScreen.errors` of the run that a file of records is of; empty without one."""
    found = kept_setting(path, "screened")
    if not isinstance(found, dict):
        return {}
    return {name: error for name, error in found.items() if isinstance(error, float)}


def capture(
    path: Path,
    facts: ModelFacts,
    request: PlanRequest,
    under: Candidate,
    *,
    engine: LlamaCpp,
    parts: Sequence[str],
    threads: int,
) -> Screen:
    """Read a text once under an extension, and keep what attention reads.

    Under native, values behind the training length come from attention that has lost its way.

    Parameters
    ----------
    path : Path
    facts : ModelFacts
    request : PlanRequest
    under : Candidate
        A closed form, which is metadata alone.
    engine : LlamaCpp
    parts : sequence of str
        The text; as many tokens as the target has.
    threads : int

    Raises
    ------
    EngineError
        ``no_attention``, ``out_of_memory``, ``engine_unknown`` …
    """
    with open_model(path) as model:
        (condition,) = conditions(model, (under.name,), request)
    length, trained = request.target_length, facts.train_length
    rows = [trained + (length - trained) * (i + 1) // _ROWS - 1 for i in range(_ROWS)]
    load = LoadRequest(
        path=path,
        context=ContextSettings(
            n_ctx=padded_cells(length),
            n_batch=_MICRO_BATCH,
            n_ubatch=_MICRO_BATCH,
            n_threads=threads,
            n_threads_batch=threads,
            type_k="f32",
            type_v="f32",
            flash_attn_type=1,
            swa_full=True,
        ),
        kv_overrides=dict(condition.kv_overrides),
    )
    shapes, values = engine.capture(
        load,
        parts,
        rows=sorted(set(rows)),
        layers=_chosen_layers(facts, length, path, engine.hello.available),
    )
    layout = "interleaved" if facts.layout is Layout.INTERLEAVED else "half"
    captured = Capture(
        tuple(captured_layers(shapes, values)), tuple(sorted(set(rows))), under.plan, layout
    )
    return Screen(captured, native_scaling(facts), trained)


def first_text(request: TuneRequest, task: KeysInTexts, counts: Counts) -> tuple[str, ...]:
    """A text as long as the target, the first that is searched on or one of our own sentences.

    Raises
    ------
    PlanError
        ``text_too_short``: the files do not give two, of which one decides.
    """
    length = request.target_length
    if not request.texts:
        rng = random.Random(f"tuning/{request.seed}")
        sentences = [wording.sentence(rng) for _ in range(length)]
        ends = accumulate(counts(sentences))
        return tuple(sentences[: 1 + sum(end < length for end in ends)])
    found = task.stretches(length, request.search_texts + request.trials, counts)
    if len(found) < 2:
        raise PlanError(
            code="text_too_short",
            path=request.texts[0],
            message=f"gives one text of {length:,} tokens; a search needs one and its decision "
            "another: name a longer text or a second one, or a smaller target",
        )
    return found[0][1]


def _chosen_layers(facts: ModelFacts, length: int, path: Path, available: int) -> list[int]:
    """Layers that an extension moves and whose keys and values lie apart, as many as fit."""
    found = [
        (index, layer)
        for index, layer in enumerate(facts.layers)
        if layer.moves and layer.value_length and layer.rotary_dim in {None, facts.rotary_dim}
    ]
    if not found:
        raise EngineError(
            code="no_attention",
            path=path,
            message=f"no layer of this model ({facts.architecture}) keeps keys and values apart, "
            "so candidates cannot be screened: `ggufext compare` measures methods on it",
        )
    _, layer = found[0]
    a_layer = 4 * length * layer.head_count_kv * (layer.key_length + layer.value_length)
    count = min(max(_BYTES // a_layer, 1), _LAYERS, len(found))
    # The cache, and what is captured: in the child, on its way, here and turned.
    cache = kv_cache_bytes(facts.layers, length, CacheType.F16) or 0
    needed = 2 * cache + 4 * count * a_layer
    if needed > available:
        raise EngineError(
            code="out_of_memory",
            path=path,
            message=f"the screen needs {binary_size(needed)} for {length:,} tokens, and "
            f"{binary_size(available)} are free; free some, or choose a smaller target",
        )
    return [found[index * len(found) // count][0] for index in range(count)]


def captured_layers(shapes: list[dict[str, Any]], values: bytes) -> Iterator[CapturedLayer]:
    """Layers as `ggufext.llama.capture.AttentionCapture.read` gives them."""
    start = 0
    for each in shapes:
        arrays = {}
        for name in ("queries", "keys", "values"):
            count = int(np.prod(each[name]))
            arrays[name] = np.frombuffer(values, np.float32, count, start).reshape(each[name])
            start += 4 * count
        yield CapturedLayer(**arrays, scale=each["scale"])


def search(
    screen: RememberedScreen, space: Space, tell: Callable[[int], None]
) -> tuple[list[Screened], list[Screened]]:
    """Closed forms, and other candidates with those that a search by the screen adds, best first.

    Parameters
    ----------
    screen : RememberedScreen
    space : Space
    tell : callable
        Hears how many candidates were screened.
    """
    found: dict[str, Screened] = {}

    known: set[tuple[object, ...]] = set()

    def screened(candidates: Iterable[Candidate]) -> None:
        for each in candidates:
            rotation = (each.plan.inv_freq, each.plan.attention_factor)
            if rotation not in known:
                known.add(rotation)
                found[each.name] = Screened(each, screen.error(each.plan))
                tell(len(found))

    screened(space.closed_forms())
    names = set(found)
    screened(space.starts())
    others = sorted((x for n, x in found.items() if n not in names), key=_error)
    bases = [x.candidate for x in others if x.candidate.kind is Kind.BASE]
    for step in _NEAR if bases else ():
        screened(space.base(space.exponent(bases[0]) + step))
    start = next((x.candidate for x in others if x.candidate.kind is Kind.PAIRS), None)
    for factors in _searched_factors(screen, space, start) if start else ():
        screened(factors)
    others = sorted((x for n, x in found.items() if n not in names), key=_error)
    return [found[name] for name in found if name in names], others


def _error(screened: Screened) -> tuple[float, str]:
    return screened.error, screened.candidate.name


def _searched_factors(
    screen: RememberedScreen, space: Space, start: Candidate
) -> Iterator[Iterator[Candidate]]:
    """Coordinate search over logarithms of factors, rising with the pair, between a few knots.

    What it finds, with no attention factor and with YaRN's: the screen takes any for an error.
    """
    pairs = np.arange(space.pairs)
    places = np.linspace(0, space.pairs - 1, min(_KNOTS, space.pairs))
    point = np.interp(places, pairs, np.log(space.factors_of(start)))

    def at(point: npt.NDArray[np.float64], attention_factor: float = 1.0) -> Iterator[Candidate]:
        factors = np.exp(np.interp(pairs, places, point)).tolist()
        name = "searched" if attention_factor == 1.0 else f"searched:{attention_factor:.3g}"
        return space.factors(name, tuple(map(rounded, factors)), attention_factor)

    def error(point: npt.NDArray[np.float64]) -> float:
        rising = (np.diff(point) >= 0).all()
        return min((screen.error(x.plan) for x in at(point) if rising), default=float("inf"))

    point = np.maximum.accumulate(point)
    best = error(point)
    for step in _STEPS:
        for index in range(len(point)):
            for change in (step, -step):
                trial = point.copy()
                trial[index] += change
                if (found := error(trial)) < best:
                    best, point = found, trial
                    break
    yield at(point)
    yield at(point, space.yarn_attention_factor)
