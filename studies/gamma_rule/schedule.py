"""Every run of the study, in the order in which they are made, with its cost.

    python studies/gamma_rule/schedule.py

prints the table of protocol.md. A run is one request to ggufext: a model at one factor, all its
conditions, on one text of a pretrained model or all modules of the language model. Its cells, a
condition on a text each, are kept as they are finished.
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

SMOLLM2, SMOLLM2_LENGTH, SMOLLM2_BASE = "SmolLM2", 8192, 100_000
LANGUAGE_LENGTH, PASSKEY_LENGTH = 512, 256
#: Test modules of the standard library of CPython 3.11 that are long enough.
MODULES = 13

#: Minutes of one core that the study may take: twelve hours of two.
BUDGET = 24 * 60
#: Minutes of a piece, in which whole cells are measured.
PIECE = 55
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
    text : str or None
        Project of the text; None where the run reads modules, made prompts or tuning texts.
    minutes : float
        Of one core, estimated.
    """

    measure: Measure
    model: str
    factor: int
    conditions: tuple[str, ...]
    text: str | None = None
    minutes: float

    @property
    def name(self) -> str:
        """Of its results, unique in the study."""
        parts = [self.measure.value, self.model, f"x{self.factor}"]
        if TUNED in self.conditions and self.measure is Measure.LOSS:
            parts.append(TUNED)
        return "-".join([*parts, self.text] if self.text else parts)

    @property
    def cells(self) -> int:
        """Conditions times texts."""
        return len(self.conditions) * (MODULES if self.reads_modules else 1)

    @property
    def reads_modules(self) -> bool:
        """Whether it reads the test modules of the standard library."""
        return self.model.startswith("language") and self.measure in {Measure.LOSS, Measure.DECAY}


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


def language_minutes(factor: int) -> float:
    """Minutes of one core for a text under a condition: 2,000 tokens a second, one to load."""
    return (1 + LANGUAGE_LENGTH * factor / 2000) / 60


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
        yield _language_loss(model, factor, (NATIVE, *_extensions()))
    yield Run(
        measure=Measure.DECAY,
        model=model,
        factor=2,
        conditions=decay_conditions(DECAY_MULTIPLES),
        minutes=4,
    )
    for factor in (4, 8):
        yield _tuning(model, factor, minutes=10)
        yield _language_loss(model, factor, (NATIVE, TUNED))


def _language_loss(model: str, factor: int, conditions: tuple[str, ...]) -> Run:
    return Run(
        measure=Measure.LOSS,
        model=model,
        factor=factor,
        conditions=conditions,
        minutes=len(conditions) * MODULES * language_minutes(factor),
    )


def _passkey(model: str) -> Iterator[Run]:
    yield _training(model, minutes=8.5)
    for factor in (4, 2, 8):
        # Other bases are compared at one factor.
        extensions = _extensions() if factor == 4 else (*CLOSED_FORMS, YARN_PLAIN)
        conditions = (NATIVE, *extensions)
        yield Run(
            measure=Measure.RETRIEVAL,
            model=model,
            factor=factor,
            conditions=conditions,
            minutes=len(conditions) * (0.03 + 0.032 * factor),
        )
    yield Run(
        measure=Measure.DECAY,
        model=model,
        factor=2,
        conditions=decay_conditions(DECAY_MULTIPLES),
        minutes=0.4,
    )


def _smollm2() -> Iterator[Run]:
    """Twice the training length, text by text; other bases and linear on the first ones.

    Bases below the trained one are left out, and half of the rule's base is the trained one here.
    """
    main = (NATIVE, "gamma", "yarn", "ntk", YARN_PLAIN)
    bases = (base_multiple(2), gamma_target(0.85))
    for test, more in zip(texts.TEST, ((*bases, "linear"), bases, (), ()), strict=True):
        yield _smollm2_loss(2, (*main, *more), test.project)


def _smollm2_last() -> Iterator[Run]:
    first, second = texts.TEST[0].project, texts.TEST[1].project
    multiples = (1 / 16, 1, 4)
    yield Run(
        measure=Measure.DECAY,
        model=SMOLLM2,
        factor=2,
        conditions=decay_conditions(multiples),
        text=first,
        # Without flash attention, which keeps no weights: 2.5 times a plain prefill.
        minutes=len(multiples) * 2.5 * prefill_minutes(SMOLLM2_LENGTH),
    )
    for text in (first, second):
        yield _smollm2_loss(4, (NATIVE, "gamma", "yarn", "ntk"), text)
    # The screen, four closed forms, three runs with keys that decide, and so three other scalings.
    yield _tuning(SMOLLM2, 2, minutes=12 * prefill_minutes(2 * SMOLLM2_LENGTH))
    for test in texts.TEST:
        yield _smollm2_loss(2, (NATIVE, TUNED), test.project)


def _smollm2_loss(factor: int, conditions: tuple[str, ...], text: str) -> Run:
    whole, short = prefill_minutes(factor * SMOLLM2_LENGTH), prefill_minutes(SMOLLM2_LENGTH)
    # Factor tensors: positions up to the training length run in a context of their own.
    with_tensors = sum(name in {YARN_PLAIN, TUNED} for name in conditions)
    minutes = len(conditions) * whole + with_tensors * short
    # A run that goes on needs native's distributions again, up to the training length.
    begun_again = (len(conditions) - 1) // max(int(PIECE // whole), 1)
    return Run(
        measure=Measure.LOSS,
        model=SMOLLM2,
        factor=factor,
        conditions=conditions,
        text=text,
        minutes=minutes + begun_again * short,
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
