"""What the study found so far: cells, models and failures, as they are committed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import findings
from conditions import TUNED
from findings import Cell
from schedule import SMOLLM2, SMOLLM2_BASE, Measure, Run, runs
from trained import HERE, REGISTRY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

RESULTS = HERE / "results"
#: Runs that died, a line each.
FAILURES = "failures.jsonl"


@dataclass(frozen=True, slots=True)
class Study:
    """What is there so far.

    Attributes
    ----------
    cells : tuple of Cell
        Of all models.
    registry : mapping
        What models.json holds.
    failures : sequence of mapping
        ``run`` and ``error`` of every run that died.
    """

    cells: tuple[Cell, ...]
    registry: Mapping[str, Any]
    failures: Sequence[Mapping[str, str]] = ()

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """Of models that were trained."""
        entries: Sequence[Mapping[str, Any]] = self.registry["finished"]
        return entries

    @property
    def compared(self) -> list[Cell]:
        """Cells that count: a passkey model that has not learned its task is left out."""
        learned = {entry["name"] for entry in self.entries if entry["mastered"]}
        return [each for each in self.cells if each.kind != "passkey" or each.run.model in learned]

    @property
    def freq_bases(self) -> dict[str, float]:
        """Trained base of every model."""
        trained = {entry["name"]: float(entry["freq_base"]) for entry in self.entries}
        return {SMOLLM2: SMOLLM2_BASE, **trained}

    def wanted(self) -> list[Run]:
        """Runs of the schedule, without those of searches that kept nothing of their own."""
        closed = {
            (each.run.model, each.run.factor)
            for each in findings.tunings(self.cells)
            if not each.kept
        }
        return [
            run
            for run in runs()
            if not (
                run.measure is Measure.LOSS
                and TUNED in run.conditions
                and (run.model, run.factor) in closed
            )
        ]

    def done(self, run: Run) -> int:
        """Finished cells of a run."""
        if run.measure is Measure.TRAINING:
            return sum(entry["name"] == run.model for entry in self.entries)
        return sum(cell.run.name == run.name for cell in self.cells)

    def is_finished(self, run: Run) -> bool:
        """Whether a run has all of its cells."""
        return self.done(run) >= run.cells

    @property
    def left(self) -> list[Run]:
        """Runs that are not finished."""
        return [run for run in self.wanted() if not self.is_finished(run)]


def read_study(folder: Path = RESULTS) -> Study:
    """All there is, in the order of the schedule."""
    cells = []
    for run in runs():
        cells += [Cell(run, fields) for fields in read_lines(folder / f"{run.name}.jsonl")]
    return Study(
        cells=tuple(cells),
        registry=json.loads(REGISTRY.read_text(encoding="utf-8")),
        failures=read_lines(folder / FAILURES),
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file with one a line; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
