"""Every measurement of the study, in the order in which they are made, with its cost.

    python studies/gamma_rule/cells.py

prints the table of protocol.md. A cell is one model under one condition at one factor on its texts
or prompts, for one measure; what a piece of the run leaves open is a matter of cells.
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
from trained import TrainedModel, trained_models

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FACTORS = (2, 4, 8)
SMOLLM2, SMOLLM2_LENGTH = "SmolLM2-135M-Instruct", 8192
PASSKEY_LENGTH, LANGUAGE_LENGTH = 256, 512
#: Held-out modules of the standard library of CPython 3.11.
LANGUAGE_TEXTS = 13

#: Minutes of one core that the study may take: twelve hours of two.
BUDGET = 24 * 60
#: Bases at which the decay of attention is measured, as multiples of the trained one.
DECAY_MULTIPLES = (1 / 16, 1 / 4, 1, 4)


class Measure(Enum):
    """What a cell gives."""

    TRAINING = "training"
    """A model."""
    RETRIEVAL = "retrieval"
    """Keys found of those asked for, by length and depth."""
    LOSS = "loss"
    """Loss by position; the cost on short texts; keys in the same texts where it finds any."""
    DECAY = "decay"
    """Attention by distance, and γ_obs."""
    TUNING = "tuning"
    """A recipe, chosen on the tuning texts."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement.

    Attributes
    ----------
    measure : Measure
    model : str
    condition : str
        A name of `conditions`; of DECAY the multiple of the trained base.
    factor : int
        Target over training length; 1 where nothing is extended.
    text : str
        A text of `texts`, ``modules`` for the held-out modules, or ``prompts``.
    minutes : float
        Of one core, estimated.
    """

    measure: Measure
    model: str
    condition: str
    factor: int
    text: str
    minutes: float

    @property
    def name(self) -> str:
        """Unique in the study; results carry it."""
        parts = (self.measure.value, self.model, f"x{self.factor}", self.condition, self.text)
        return "/".join(parts)


def cells() -> list[Cell]:
    """All cells in order: each beginning of the list answers something."""
    models = trained_models()
    passkey = [model for model in models if model.kind == "passkey"]
    language = next(model for model in models if model.kind == "language")
    return [
        _training(language),
        *_language(language.name),
        *_smollm2_main(),
        *[cell for model in passkey for cell in (_training(model), *_passkey(model.name))],
        *_smollm2_far(),
        *_smollm2_variants(),
    ]


def prefill_minutes(tokens: int) -> float:
    """Minutes of one core for a prefill of SmolLM2 with flash attention.

    Fitted to 11.4 minutes for 16,384 tokens and 40 for 32,768.
    """
    return (0.01038 * tokens + 1.918e-6 * tokens**2) / 60


def _training(model: TrainedModel) -> Cell:
    minutes = 46.0 if model.kind == "language" else 8.5
    return Cell(Measure.TRAINING, model.name, NATIVE, 1, "", minutes)


def _extensions() -> list[str]:
    targets = [gamma_target(gamma) for gamma in GAMMA_TARGETS]
    multiples = [base_multiple(multiple) for multiple in BASE_MULTIPLES]
    return [*CLOSED_FORMS, YARN_PLAIN, *targets, *multiples]


def _language(model: str) -> Iterator[Cell]:
    """Loss of every condition, at factor 4 first; then decay, and what tuning adds."""
    for factor in (4, 2, 8):
        minutes = 0.3 + LANGUAGE_TEXTS * LANGUAGE_LENGTH * factor / 2000 / 60
        for condition in (NATIVE, *_extensions()):
            yield Cell(Measure.LOSS, model, condition, factor, "modules", minutes)
    yield from _decay(model, "modules", minutes=1.0)
    for factor in (4, 8):
        yield Cell(Measure.TUNING, model, TUNED, factor, "tuning modules", 10.0)
        yield Cell(Measure.LOSS, model, TUNED, factor, "modules", 0.5 * factor)


def _passkey(model: str) -> Iterator[Cell]:
    """Keys of every condition, and the decay."""
    for factor in FACTORS:
        for condition in (NATIVE, *_extensions()):
            minutes = 0.02 + 0.02 * factor
            yield Cell(Measure.RETRIEVAL, model, condition, factor, "prompts", minutes)
    yield from _decay(model, "prompts", minutes=0.1)


def _decay(model: str, text: str, *, minutes: float) -> Iterator[Cell]:
    for multiple in DECAY_MULTIPLES:
        yield Cell(Measure.DECAY, model, f"{multiple:g}", 1, text, minutes)


def _smollm2_main() -> Iterator[Cell]:
    """Twice the training length: the closed forms on every test text, text by text."""
    length = 2 * SMOLLM2_LENGTH
    for text in texts.TEST:
        for condition in (NATIVE, "gamma", "yarn", "ntk", YARN_PLAIN):
            yield _smollm2(condition, 2, text.project)
    yield _smollm2("linear", 2, texts.TEST[0].project)
    screen = 4 * prefill_minutes(length)
    yield Cell(Measure.TUNING, SMOLLM2, TUNED, 2, "tuning", round(screen * 2.5, 1))
    for text in texts.TEST:
        yield _smollm2(TUNED, 2, text.project)
    # Without flash attention, which keeps no weights: 2.5 times a plain prefill.
    minutes = 2.5 * prefill_minutes(SMOLLM2_LENGTH)
    for multiple in (1, 1 / 16, 4):
        first = texts.TEST[0].project
        yield Cell(Measure.DECAY, SMOLLM2, f"{multiple:g}", 1, first, round(minutes, 1))


def _smollm2_far() -> Iterator[Cell]:
    """Four times the training length; native needs no run: it does not depend on the target."""
    for text in texts.TEST[:2]:
        for condition in ("gamma", "yarn", "ntk"):
            yield _smollm2(condition, 4, text.project)


def _smollm2_variants() -> Iterator[Cell]:
    """Other bases than the rule's, on two texts at factor 2, and on one at factor 4.

    Bases below the trained one are left out: at factor 2 that is γ .3, .5 and .7. Half of the
    rule's base is the trained one there, so native.
    """
    for text in texts.TEST[:2]:
        for condition in (base_multiple(2), base_multiple(4), gamma_target(0.85)):
            yield _smollm2(condition, 2, text.project)
    for condition in (YARN_PLAIN, gamma_target(0.85)):
        yield _smollm2(condition, 4, texts.TEST[0].project)


def _smollm2(condition: str, factor: int, text: str) -> Cell:
    minutes = prefill_minutes(factor * SMOLLM2_LENGTH)
    if condition in {YARN_PLAIN, TUNED}:
        # Factor tensors: positions up to the training length run in a context of their own.
        minutes += prefill_minutes(SMOLLM2_LENGTH)
    return Cell(Measure.LOSS, SMOLLM2, condition, factor, text, round(minutes, 1))


def table(listed: Iterable[Cell]) -> str:
    """Cells and minutes by measure, kind of model and factor, as Markdown."""
    groups: dict[tuple[str, str, int], list[Cell]] = defaultdict(list)
    for cell in listed:
        kind = cell.model.split("-")[0]
        groups[cell.measure.value, kind, cell.factor].append(cell)
    rows = ["| measure | models | factor | cells | minutes |", "|---|---|---|---|---|"]
    for (measure, kind, factor), members in sorted(groups.items()):
        minutes = sum(cell.minutes for cell in members)
        rows.append(f"| {measure} | {kind} | {factor} | {len(members)} | {minutes:.0f} |")
    everything = [cell for members in groups.values() for cell in members]
    total = sum(cell.minutes for cell in everything)
    rows.append(f"| all | | | {len(everything)} | {total:.0f} |")
    return "\n".join(rows)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(table(cells()))


if __name__ == "__main__":
    main()
