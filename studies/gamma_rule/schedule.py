"""Every run of the study, in the order in which they are made, with its cost.

    python studies/gamma_rule/schedule.py

prints the table of protocol.md. A run is one model at one factor: all its conditions on all its
texts, which is one request to ggufext. Its cells, a condition on a text each, are kept as they are
finished.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import texts
from conditions import (
    BASE_MULTIPLES,
    CLOSED_FORMS,
    GAMMA_TARGETS,
    NATIVE,
    TUNED,
    YARN_PLAIN,
    base_multiple,
    gamma_target,
)
from trained import trained_models

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SMOLLM2, SMOLLM2_LENGTH = "SmolLM2", 8192
LANGUAGE_LENGTH = 512
#: Test modules of the standard library of CPython 3.11 that are long enough.
MODULES = 13

#: Minutes of one core that the study may take: twelve hours of two.
BUDGET = 24 * 60
#: Bases at which the decay of attention is measured, as multiples of the trained one.
DECAY_MULTIPLES = (1 / 16, 1 / 4, 1, 4)


class Measure(Enum):
    """What a run gives."""

    TRAINING = "training"
    """A model."""
    TUNING = "tuning"
    """A recipe, chosen on the tuning texts."""
    RETRIEVAL = "retrieval"
    """Keys found, by length and depth: `ggufext check`."""
    LOSS = "loss"
    """Loss by position, the cost on short text, keys in the texts: `ggufext compare`."""
    DECAY = "decay"
    """Attention by distance, and γ_obs: `ggufext measure`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One request.

    Attributes
    ----------
    measure : Measure
    model : str
        SMOLLM2, or the name of a trained model.
    factor : int
        Target over training length; 1 where nothing is extended.
    conditions : tuple of str
        Names of `conditions`.
    texts : int
        So many of the model's test texts, the first ones first; 0 where it reads made prompts or
        the tuning texts.
    minutes : float
        Of one core, estimated.
    """

    measure: Measure
    model: str
    factor: int
    conditions: tuple[str, ...]
    texts: int = 0
    minutes: float

    @property
    def name(self) -> str:
        """Of its results, unique in the study."""
        added = "-linear" if self.model == SMOLLM2 and "linear" in self.conditions else ""
        return f"{self.measure.value}-{self.model}-x{self.factor}{added}"

    @property
    def cells(self) -> int:
        """Conditions times texts."""
        return len(self.conditions) * max(self.texts, 1)


def runs() -> list[Run]:
    """All runs in order: each beginning of the list answers something."""
    models = trained_models()
    language = next(model for model in models if model.kind == "language").name
    passkey = [model.name for model in models if model.kind == "passkey"]
    return [
        _training(language, minutes=46),
        *_language(language),
        *_smollm2(),
        *(run for name in passkey for run in _passkey(name)),
        *_smollm2_last(),
    ]


def decay_conditions(multiples: Iterable[float]) -> tuple[str, ...]:
    """Conditions that have a multiple of the trained base at factor 2, where the rule doubles it.

    A plan within the training length writes no base, so the decay is measured up to that length
    in models extended to twice as much.
    """
    return tuple(NATIVE if multiple == 1 else base_multiple(multiple / 2) for multiple in multiples)


def prefill_minutes(tokens: int) -> float:
    """Minutes of one core for a prefill of SmolLM2 with flash attention.

    Fitted to 11.4 minutes for 16,384 tokens and 40 for 32,768.
    """
    return (0.01038 * tokens + 1.918e-6 * tokens**2) / 60


def _training(model: str, *, minutes: float) -> Run:
    return Run(
        measure=Measure.TRAINING, model=model, factor=1, conditions=(NATIVE,), minutes=minutes
    )


def _extensions() -> tuple[str, ...]:
    targets = (gamma_target(gamma) for gamma in GAMMA_TARGETS)
    multiples = (base_multiple(multiple) for multiple in BASE_MULTIPLES)
    return (*CLOSED_FORMS, YARN_PLAIN, *targets, *multiples)


def _tuning(model: str, factor: int, *, minutes: float) -> Run:
    return Run(
        measure=Measure.TUNING, model=model, factor=factor, conditions=(TUNED,), minutes=minutes
    )


def _language(model: str) -> Iterator[Run]:
    for factor in (4, 8, 2):
        tuned = (TUNED,) if factor > 2 else ()
        conditions = (NATIVE, *_extensions(), *tuned)
        if tuned:
            yield _tuning(model, factor, minutes=10)
        cells = len(conditions) * MODULES
        yield Run(
            measure=Measure.LOSS,
            model=model,
            factor=factor,
            conditions=conditions,
            texts=MODULES,
            # 2,000 tokens a second, and a second to load.
            minutes=cells * (1 + LANGUAGE_LENGTH * factor / 2000) / 60,
        )
    yield Run(
        measure=Measure.DECAY,
        model=model,
        factor=2,
        conditions=decay_conditions(DECAY_MULTIPLES),
        texts=MODULES,
        minutes=4,
    )


def _passkey(model: str) -> Iterator[Run]:
    yield _training(model, minutes=8.5)
    conditions = (NATIVE, *_extensions())
    for factor in (2, 4, 8):
        minutes = len(conditions) * (0.02 + 0.02 * factor)
        yield Run(
            measure=Measure.RETRIEVAL,
            model=model,
            factor=factor,
            conditions=conditions,
            minutes=minutes,
        )
    yield Run(
        measure=Measure.DECAY,
        model=model,
        factor=2,
        conditions=decay_conditions(DECAY_MULTIPLES),
        minutes=0.4,
    )


def _smollm2() -> Iterator[Run]:
    """Twice the training length, on every test text; tuning before, so that it is a condition.

    Bases below the trained one are left out, and half of the rule's base is the trained one here.
    """
    length = 2 * SMOLLM2_LENGTH
    yield _tuning(SMOLLM2, 2, minutes=10 * prefill_minutes(length))
    conditions = (NATIVE, "gamma", "yarn", "ntk", YARN_PLAIN, base_multiple(2), gamma_target(0.85))
    yield _smollm2_loss(2, (*conditions, TUNED), texts=len(texts.TEST))


def _smollm2_last() -> Iterator[Run]:
    multiples = (1 / 16, 1, 4)
    yield Run(
        measure=Measure.DECAY,
        model=SMOLLM2,
        factor=2,
        conditions=decay_conditions(multiples),
        texts=1,
        # Without flash attention, which keeps no weights: 2.5 times a plain prefill.
        minutes=len(multiples) * 2.5 * prefill_minutes(SMOLLM2_LENGTH),
    )
    yield _smollm2_loss(4, (NATIVE, "gamma", "yarn", "ntk"), texts=2)
    yield _smollm2_loss(2, (NATIVE, "linear"), texts=1)


def _smollm2_loss(factor: int, conditions: tuple[str, ...], *, texts: int) -> Run:
    whole, short = prefill_minutes(factor * SMOLLM2_LENGTH), prefill_minutes(SMOLLM2_LENGTH)
    # Factor tensors: positions up to the training length run in a context of their own.
    with_tensors = sum(name in {YARN_PLAIN, TUNED} for name in conditions)
    return Run(
        measure=Measure.LOSS,
        model=SMOLLM2,
        factor=factor,
        conditions=conditions,
        texts=texts,
        minutes=texts * (len(conditions) * whole + with_tensors * short),
    )


def table(listed: Iterable[Run]) -> str:
    """Cells and minutes by measure, kind of model and factor, as Markdown."""
    groups: dict[tuple[str, str, int], list[Run]] = defaultdict(list)
    for run in listed:
        groups[run.measure.value, run.model.split("-")[0], run.factor].append(run)
    rows = ["| measure | model | factor | runs | cells | minutes |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {measure} | {kind} | {factor} | {_sums(members)} |"
        for (measure, kind, factor), members in sorted(groups.items())
    ]
    everything = [run for members in groups.values() for run in members]
    return "\n".join([*rows, f"| all | | | {_sums(everything)} |"])


def _sums(members: list[Run]) -> str:
    minutes = sum(run.minutes for run in members)
    return f"{len(members)} | {sum(run.cells for run in members):,} | {minutes:,.0f}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(table(runs()))


if __name__ == "__main__":
    main()
