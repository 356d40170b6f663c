"""Results of the study of the γ rule that nobody measured, with effects that are known."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from conditions import NATIVE, TUNED
from findings import Cell, train_length
from ggufext.planning.gamma import gamma_pade
from schedule import Measure, Run, runs
from trained import trained_models

if TYPE_CHECKING:
    from collections.abc import Callable

#: Nats above 2 beyond the training length, by condition; 1 where none is said.
BEYOND = {NATIVE: 3.0, "gamma": 0.10, "yarn": 0.05, "ntk": 0.30, TUNED: 0.03}
#: Keys found beyond it, of 60 at each length.
FOUND = {NATIVE: 5, "gamma": 50, "yarn": 55, "ntk": 30}
#: Nats that a condition costs on short text; 0.03 where none is said.
SHORT = {NATIVE: 0.0, "gamma": 0.004, "yarn": 0.005}
#: γ_obs is so much of γ_Padé, and this beside it.
DECAY_SLOPE, DECAY_START = 0.5, 0.2
MODULES = [f"module{number}.py.txt" for number in range(13)]


def made_up_cells(*, fails: Callable[[Run], bool] = lambda _: False) -> list[Cell]:
    """Every cell of every run but those of runs that fail."""
    return [
        Cell(run, fields)
        for run in runs()
        if run.measure in _MAKERS and not fails(run)
        for fields in _MAKERS[run.measure](run, random.Random(run.name))
    ]


def made_up_registry(*, failed: str = "") -> dict[str, Any]:
    """What models.json holds when all is trained; one model did not learn its task."""
    return {
        "finished": [
            {
                "name": model.name,
                "kind": model.kind,
                "freq_base": model.freq_base,
                "head_dim": model.head_dim,
                "seed": model.seed,
                "parameters": 800_000,
                "steps": 3000,
                "cpu_seconds": 480,
                "mastered": model.name != failed,
                **({"held_out_loss": 2.1} if model.kind == "language" else {}),
                **({"control_accuracy": 0.95} if model.kind == "passkey" else {}),
            }
            for model in trained_models()
        ],
        "open": [],
    }


def _retrieval(run: Run, rng: random.Random) -> list[dict[str, Any]]:
    lengths = [128 * 2**power for power in range(5) if 128 * 2**power <= 256 * run.factor]
    shift = rng.choice((-2, 0, 2))
    return [
        {
            "condition": condition,
            "text": None,
            "lengths": [
                [length, 60 if length <= 256 else _found(condition, rng) + shift, 60]
                for length in lengths
            ],
        }
        for condition in run.conditions
    ]


def _found(condition: str, rng: random.Random) -> int:
    return FOUND.get(condition, 20) + rng.randint(-1, 1)


def _loss(run: Run, _rng: random.Random) -> list[dict[str, Any]]:
    length = train_length(run.model.split("-")[0])
    middle = length * (run.factor + 1) // 2
    bins = [[0, length // 8], [length // 8, length], [length, middle]]
    bins.append([middle, length * run.factor])
    cells = []
    for text in [f"{run.text}.txt"] if run.text else MODULES:
        own = random.Random(text).uniform(-0.2, 0.2)
        for condition in run.conditions:
            noise = random.Random(f"{text}/{condition}").uniform(-0.001, 0.001)
            short = 2 + own + noise + SHORT.get(condition, 0.03)
            beyond = 2 + own + noise + BEYOND.get(condition, 1.0)
            cells.append(
                {
                    "condition": condition,
                    "text": text,
                    "bins": bins,
                    "losses": [[short] * 8, [short] * 8, [beyond] * 8, [beyond] * 8],
                    "divergence": 0.0,
                    "same_top": 1.0,
                    "keys": [],
                }
            )
    return cells


def _decay(run: Run, rng: random.Random) -> list[dict[str, Any]]:
    kind = run.model.split("-")[0]
    bases = {model.name: model.freq_base for model in trained_models()}
    base = bases.get(run.model, 100_000)
    cells = []
    for condition in run.conditions:
        # At factor 2 the rule doubles the base.
        multiple = 1.0 if condition == NATIVE else 2 * float(condition.removeprefix("base*"))
        predicted = gamma_pade(base * multiple, train_length(kind))
        observed = DECAY_START + DECAY_SLOPE * predicted + rng.uniform(-0.01, 0.01)
        cells += [
            {"condition": condition, "text": text, "gamma": observed}
            for text in (MODULES if run.reads_modules else [run.text])
        ]
    return cells


def _tuning(_run: Run, _rng: random.Random) -> list[dict[str, Any]]:
    searched: list[tuple[str, bool, float | None]] = [
        ("planned:unturned", False, 2.0),
        ("planned:yarn", True, 2.1),
        ("planned:gamma", True, 2.2),
        ("planned:base:2", False, None),
    ]
    return [
        {
            "condition": TUNED,
            "text": None,
            "searched": [
                {
                    "name": name,
                    "closed_form": closed_form,
                    "output_error": 0.1,
                    "texts": 0 if loss is None else 1,
                    "loss": loss,
                }
                for name, closed_form, loss in searched
            ],
            "kept": True,
        }
    ]


_MAKERS = {
    Measure.RETRIEVAL: _retrieval,
    Measure.LOSS: _loss,
    Measure.DECAY: _decay,
    Measure.TUNING: _tuning,
}
