"""What was measured of attention: the dataclasses whose fields are the JSON of the command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ggufext.attention.request import MeasureRequest
    from ggufext.audit.run.measure import Stop
    from ggufext.errors import ModelWarning
    from ggufext.llama.memory import MemoryPlan


@dataclass(frozen=True, slots=True)
class Decay:
    """A power law fitted to mean attention: A(d) ∝ d^(−γ).

    Attributes
    ----------
    first, last : int
        Distances that it was fitted to, tokens, both in it.
    gamma : float
        γ_obs: minus the slope of log attention against log distance, one point a range.
    interval : (float, float) or None
        Of γ, 95 %, from a bootstrap over blocks of query rows; None where it cannot be drawn.
    r_squared : float
        Share of the variance of log attention that the law explains, up to 1.
    """

    first: int
    last: int
    gamma: float
    interval: tuple[float, float] | None
    r_squared: float


@dataclass(frozen=True, slots=True)
class AttentionCurve:
    """Mean attention of one query by distance.

    Attributes
    ----------
    attention : tuple of float
        Of each range of distances the mean weight of one token in it, a share of all attention.
    itself, beyond, sink : float
        Share of the query itself, of tokens farther than the last range, and of the first tokens
        of the text.
    decay : Decay or None
        Over all ranges; None where too few of them get any attention.
    near, far : Decay or None
        Over the nearer and the farther half of the ranges.
    """

    attention: tuple[float, ...]
    itself: float
    beyond: float
    sink: float
    decay: Decay | None
    near: Decay | None
    far: Decay | None


@dataclass(frozen=True, slots=True)
class LayerAttention:
    """Attention of one layer.

    Attributes
    ----------
    layer : int
        From 0.
    curve : AttentionCurve
        Mean over its heads.
    heads : tuple of AttentionCurve
        By query head: with grouped queries head h uses KV head h // (heads / KV heads).
    """

    layer: int
    curve: AttentionCurve
    heads: tuple[AttentionCurve, ...]


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """Layers that see equally far and rotate alike.

    Attributes
    ----------
    window : int or None
        Tokens that sliding-window (local) layers see; None: global layers.
    rotates : bool
        Whether they rotate queries and keys; others know no positions.
    edges : tuple of int
        Distances at which the ranges begin, tokens, from 1, and one behind the last: range i holds
        edges[i] … edges[i + 1] − 1.
    gamma_pade : float or None
        γ that the base of these layers predicts at the length that was read; None where γ is not
        defined: without rotation, or with factors.
    curve : AttentionCurve
        Mean over the heads of all layers.
    layers : tuple of LayerAttention
        Each by itself.
    """

    window: int | None
    rotates: bool
    edges: tuple[int, ...]
    gamma_pade: float | None
    curve: AttentionCurve
    layers: tuple[LayerAttention, ...]


@dataclass(frozen=True, slots=True)
class ConditionAttention:
    """One way of running the model, on the same text as the others.

    Attributes
    ----------
    name : str
        As of `ggufext.audit.findings.results.Condition`.
    groups : tuple of LayerGroup
        Global layers first.
    unseen : tuple of int
        Layers without attention that could be read, from 0: recurrent ones have none.
    """

    name: str
    groups: tuple[LayerGroup, ...]
    unseen: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MeasureRun:
    """What was run.

    Attributes
    ----------
    path : str
        The model file.
    versions : mapping of str to str
        Of the programs and libraries that took part, by name.
    train_length : int
        Training length of the model before any edit of ours, tokens.
    rows : tuple of int
        Positions of the queries, tokens.
    memory_plan : MemoryPlan
    seconds : float
        What it took, seconds.
    stop : Stop or None
        What ended the run before its last condition; None for a complete run.
    """

    path: str
    versions: Mapping[str, str]
    train_length: int
    rows: tuple[int, ...]
    memory_plan: MemoryPlan
    seconds: float
    stop: Stop | None

    @property
    def complete(self) -> bool:
        """Whether every condition was measured."""
        return self.stop is None


@dataclass(frozen=True, slots=True)
class MeasureResult:
    """Attention by distance: a description of the model, which nothing passes or fails.

    Attributes
    ----------
    request : MeasureRequest
        What was asked for: of an absent length or distance, what stood for it.
    run : MeasureRun
    conditions : tuple of ConditionAttention
        In the order of the request.
    warnings : tuple of ModelWarning
        What the run had to say, and what keeps its numbers from being a claim.
    """

    request: MeasureRequest
    run: MeasureRun
    conditions: tuple[ConditionAttention, ...]
    warnings: tuple[ModelWarning, ...]
