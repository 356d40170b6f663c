"""Scalings that a file of this architecture can hold, beyond the closed forms; pure.

Symbols: T training length, L target length, f = L/T, θ RoPE base, ω_i the inverse frequency of pair
i in radians per token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from ggufext.audit.conditions import planned_request
from ggufext.audit.request import PLANNED
from ggufext.comparison.request import NATIVE, CompareRequest
from ggufext.errors import PlanError
from ggufext.planning.methods import Method, yarn
from ggufext.planning.native import native_scaling
from ggufext.planning.plan import plan
from ggufext.planning.request import Factors, PlanRequest, Recipe, YarnRecipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ggufext.header.facts import ModelFacts
    from ggufext.planning.result import Plan

#: Exponents x of bases θ·f^x; 1 is the γ rule.
_EXPONENTS = (0.4, 0.55, 0.7, 0.85, 1.15, 1.3, 1.5, 1.75, 2.0)

#: (beta_fast, beta_slow) beside YaRN's own (32, 1), and its attention factor or none.
_BETAS = ((32.0, 1.0), (16.0, 1.0), (64.0, 1.0), (32.0, 2.0), (8.0, 0.5))

#: A pair that this divides turns nowhere.
_STOPPED = 1e6

#: Significant digits of what is searched: the last ones change nothing that could be measured, but
#: may differ from one processor to another.
_DIGITS = 4


class Kind(Enum):
    """What a scaling changes; the screen compares those of a kind alone."""

    CLOSED_FORM = "closed form"
    BASE = "base"
    PAIRS = "pairs"
    """Every pair by a factor of its own: YaRN with other keys, or a tensor."""
    SHARPENED_PAIRS = "sharpened pairs"
    """The same, and an attention factor."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scaling with a name, as a recipe and as what it makes of the rotation.

    Attributes
    ----------
    name : str
        Of its condition, ``"planned:…"``.
    recipe : Recipe or None
        None for a closed form, whose name says it all.
    plan : Plan
    """

    name: str
    recipe: Recipe | None
    plan: Plan

    @property
    def kind(self) -> Kind:
        """What it changes."""
        if self.recipe is None:
            return Kind.CLOSED_FORM
        if self.recipe.freq_base is not None:
            return Kind.BASE
        return Kind.PAIRS if self.plan.attention_factor == 1.0 else Kind.SHARPENED_PAIRS


class Space:
    """The candidates of one model and target.

    Parameters
    ----------
    facts : ModelFacts
        Before any extension.
    request : PlanRequest
        What all plans share.
    metadata_only : bool
        Leave out what needs tensors.

    Attributes
    ----------
    pairs : int
        Rotated pairs of a head.
    yarn_attention_factor : float
        Of YaRN for this target.
    """

    def __init__(self, facts: ModelFacts, request: PlanRequest, *, metadata_only: bool) -> None:
        self._facts = facts
        self._request = request
        self._factor = request.target_length / facts.train_length
        self._tensors = not metadata_only
        self.pairs = len(facts.inv_freq)
        self._trained_attention_factor = native_scaling(facts).attention_factor
        keys = facts.scaling.yarn
        self._betas = keys.beta_fast, keys.beta_slow
        self._yarn = yarn(facts.freq_base, facts.rotary_dim, self._factor, facts.train_length, keys)
        self.yarn_attention_factor = self._yarn.attention_factor

    def closed_forms(self) -> list[Candidate]:
        """What `compare` measures by itself, as far as the model takes it.

        Raises
        ------
        PlanError
            It takes none; why not the first.
        """
        asked = CompareRequest(
            target_length=self._request.target_length,
            train_length=self._request.train_length,
            train_freq_base=self._request.train_freq_base,
        )
        usual, _ = asked.resolved(self._facts)
        requests = {
            name: planned_request(name, asked.plan, self._facts.published)
            for name in usual.conditions
            if name != NATIVE
        }
        return [
            Candidate(name, None, plan(self._facts, request)) for name, request in requests.items()
        ]

    def starts(self) -> Iterator[Candidate]:
        """Bases, and factors by the names that papers gave them."""
        for exponent in _EXPONENTS:
            yield from self.base(exponent)
        facts, factor = self._facts, self._factor
        for betas in _BETAS:
            for attention in (self.yarn_attention_factor, self._trained_attention_factor):
                if betas != self._betas or attention != self.yarn_attention_factor:
                    yield from self.yarn(*betas, attention)
        whole = integer_wavelengths(self._yarn.inv_freq)
        yield from self.rotation("yarn-integer", whole, self.yarn_attention_factor)
        yield from self.rotation("unturned", unturned(facts.inv_freq, facts.train_length, factor))
        yield from self.rotation("cope", soft_clip(facts.inv_freq, facts.train_length))

    def base(self, exponent: float) -> Iterator[Candidate]:
        """The base θ·f^x; nothing where the model takes none."""
        exponent = round(exponent, 2)
        base = rounded(self._facts.freq_base * self._factor**exponent)
        recipe = Recipe(Method.GAMMA, self._request.target_length, freq_base=base)
        yield from self._planned(f"base:{exponent:g}", recipe)

    def yarn(self, fast: float, slow: float, attention_factor: float) -> Iterator[Candidate]:
        """YaRN with other betas and attention: as keys, as factors where those are not read."""
        facts, name = self._facts, f"yarn:{fast:g},{slow:g},{attention_factor:.3g}"
        said = YarnRecipe(fast, slow, rounded(attention_factor))
        recipe = Recipe(Method.YARN, self._request.target_length, yarn=said)
        found = list(self._planned(name, recipe))
        if found:
            yield from found
            return
        keys = replace(facts.scaling.yarn, beta_fast=fast, beta_slow=slow)
        made = yarn(facts.freq_base, facts.rotary_dim, self._factor, facts.train_length, keys)
        yield from self.rotation(name, made.inv_freq, attention_factor)

    def exponent(self, candidate: Candidate) -> float:
        """The exponent x of a base."""
        base = candidate.plan.freq_base
        return round(math.log(base.after / base.before) / math.log(self._factor), 2)

    def factors_of(self, candidate: Candidate) -> tuple[float, ...]:
        """What it divides each pair by."""
        return tuple(map(_factor, self._facts.inv_freq, candidate.plan.inv_freq))

    def rotation(
        self, name: str, inv_freq: Sequence[float], attention_factor: float = 1.0
    ) -> Iterator[Candidate]:
        """Frequencies as factors; nothing where the model takes none."""
        factors = tuple(map(_factor, self._facts.inv_freq, inv_freq))
        yield from self.factors(name, factors, attention_factor)

    def factors(
        self, name: str, factors: tuple[float, ...], attention_factor: float
    ) -> Iterator[Candidate]:
        """Factors a pair; nothing where the model takes none."""
        if self._tensors:
            recipe = Recipe(
                Method.LONGROPE,
                self._request.target_length,
                factors=Factors(factors, attention_factor=rounded(attention_factor)),
            )
            yield from self._planned(name, recipe)

    def _planned(self, name: str, recipe: Recipe) -> Iterator[Candidate]:
        name = PLANNED + name
        try:
            request = planned_request(name, self._request, self._facts.published, {name: recipe})
            made = plan(self._facts, request)
        except PlanError:
            return  # no such key or tensor in files of this architecture
        yield Candidate(name, recipe, made)


def _factor(before: float, after: float) -> float:
    return rounded(min(before / after, _STOPPED)) if after > 0.0 else _STOPPED


def rounded(value: float) -> float:
    """A value to a few significant digits."""
    return float(f"{value:.{_DIGITS}g}")


def integer_wavelengths(inv_freq: Sequence[float]) -> tuple[float, ...]:
    """Frequencies whose wavelengths are whole numbers of tokens.

    Source: Wang et al. 2024, Resonance RoPE (arXiv 2403.00071), section 4.
    """
    return tuple(2.0 * math.pi / max(round(2.0 * math.pi / w), 1) for w in inv_freq)


def unturned(inv_freq: Sequence[float], length: int, factor: float) -> tuple[float, ...]:
    """Frequencies of which those that turned less than once within a length are divided."""
    return tuple(w / factor if w * length < 2.0 * math.pi else w for w in inv_freq)


def soft_clip(inv_freq: Sequence[float], length: int) -> tuple[float, ...]:
    """Frequencies of which those that turned less than once within a length fade to 0.

    The c slowest are multiplied by ½(1 + cos(π k/(c − 1))), k from 0 to c − 1.

    Source: Li et al. 2026, CoPE (arXiv 2602.05258), and the authors' modeling_cope.py, which fixes
    c = 20 for the model it trains; c is here what the paper says of these pairs, a period longer
    than the training length.
    """
    count = sum(w * length < 2.0 * math.pi for w in inv_freq)
    kept = len(inv_freq) - count
    return tuple(
        w * 0.5 * (1.0 + math.cos(math.pi * (i - kept) / max(count - 1, 1))) if i >= kept else w
        for i, w in enumerate(inv_freq)
    )
