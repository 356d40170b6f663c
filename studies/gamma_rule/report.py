"""Prints every figure of docs/gamma-rule.md as Markdown, from results/*.jsonl and models.json.

python studies/gamma_rule/report.py

What was not run or not learned stands in the tables as that.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import findings
from conditions import NATIVE
from findings import NATS, RIVALS, RULE, Cell
from inference import block_interval
from schedule import SMOLLM2, Measure, runs
from trained import HERE, REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from findings import Fields, Table
    from inference import Paired

_SMOLLM2_BASE = 100_000


def read_cells(folder: Path) -> list[Cell]:
    """Cells of all runs that have any, in the order of the schedule."""
    cells = []
    for run in runs():
        path = folder / f"{run.name}.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            cells += [Cell(run, json.loads(line)) for line in lines]
    return cells


def report(cells: Sequence[Cell], models: Mapping[str, Any]) -> str:
    """All tables, as Markdown.

    Parameters
    ----------
    cells : sequence of Cell
    models : mapping
        What models.json holds.
    """
    entries = models["finished"]
    learned = {entry["name"] for entry in entries if entry["mastered"]}
    compared = [cell for cell in cells if cell.kind != "passkey" or cell.run.model in learned]
    sections = [
        ("Models", _models(entries, models["open"])),
        ("Runs", _runs(cells)),
        ("The γ rule against its rivals", _primary(compared)),
        ("Another base than the rule's", _bases(compared)),
        ("Base and head size", _effects(compared, entries)),
        ("Decay of attention", _decay(compared, entries)),
        *_losses(compared),
        *_keys(compared),
        *_texts(compared),
    ]
    return "\n\n".join(f"## {title}\n\n{body}" for title, body in sections) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return "Nothing was measured."
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _models(entries: Sequence[Mapping[str, Any]], left: Sequence[str]) -> str:
    rows = []
    for entry in entries:
        loss, control = entry.get("held_out_loss"), entry.get("control_accuracy")
        reached = f"loss {loss:.3f}" if control is None else f"{control:.2f} of the keys"
        learned = "yes" if entry["mastered"] else "no"
        cost = f"{entry['cpu_seconds'] / 60:.0f}"
        rows.append((entry["name"], entry["parameters"], entry["steps"], reached, learned, cost))
    head = ("model", "parameters", "steps", "reached", "learned", "minutes")
    return _table(head, rows) + (f"\n\nNot trained: {', '.join(left)}." if left else "")


def _runs(cells: Sequence[Cell]) -> str:
    rows = []
    measured = (Measure.RETRIEVAL, Measure.LOSS, Measure.DECAY)
    for run in runs():
        done = sum(cell.run.name == run.name for cell in cells)
        if run.measure in measured and done < run.cells:
            rows.append((run.name, done, run.cells))
    return _table(("not complete", "cells", "of"), rows) if rows else "All are complete."


def _mean(found: Paired | None) -> str:
    if found is None:
        return "–"
    return f"{found.mean:+.3f} ({found.low:+.3f} … {found.high:+.3f})"


def _primary(cells: Sequence[Cell]) -> str:
    rows = [
        (
            each.name,
            each.rival,
            each.found.units if each.found else 0,
            _mean(each.found),
            f"{each.p:.3g}",
            each.verdict.value,
        )
        for each in findings.primary(cells)
    ]
    return _table(("comparison", "rival", "units", "rule − rival", "p (Holm)", "the rule is"), rows)


def _bases(cells: Sequence[Cell]) -> str:
    rows: list[tuple[object, ...]] = []
    for what, measure, kind, value in (
        ("loss beyond T", Measure.LOSS, "language", findings.loss_beyond),
        ("keys beyond T", Measure.RETRIEVAL, "passkey", findings.keys_beyond),
    ):
        table = findings.tabulate(cells, measure, kind, 4, value)
        rows += [
            (what, each.condition, each.found.units, _mean(each.found), f"{each.p:.3g}")
            for each in findings.other_bases(table)
        ]
    return _table(("measure", "condition", "units", "it − rule", "p (Holm)"), rows)


def _effects(cells: Sequence[Cell], entries: Sequence[Mapping[str, Any]]) -> str:
    table = findings.tabulate(cells, Measure.RETRIEVAL, "passkey", 4, findings.keys_beyond)
    models = {
        entry["name"]: (entry["freq_base"], entry["head_dim"])
        for entry in entries
        if entry["kind"] == "passkey" and entry["mastered"]
    }
    rows = []
    for base, head in sorted(set(models.values())):
        names = {name for name, each in models.items() if each == (base, head)}
        some = {
            condition: {name: share for name, share in units.items() if name in names}
            for condition, units in table.items()
        }
        against = [_mean(findings.difference(some, RULE, rival)) for rival in RIVALS]
        rows.append((base, head, len(names), *against))
    parts = [_table(("base", "head", "models", *(f"rule − {rival}" for rival in RIVALS)), rows)]
    for rival in RIVALS:
        p_values = findings.effects(table, models, rival)
        if p_values:
            base, head, both = (f"{p:.3g}" for p in p_values)
            parts.append(f"Against {rival}: p of the base {base}, head size {head}, both {both}.")
    return "\n\n".join(parts)


def _decay(cells: Sequence[Cell], entries: Sequence[Mapping[str, Any]]) -> str:
    bases = {SMOLLM2: _SMOLLM2_BASE, **{entry["name"]: entry["freq_base"] for entry in entries}}
    found = findings.decays(cells, bases)
    slopes = findings.decay_slopes(found)
    rows = [
        (each.model, each.condition, f"{each.predicted:.3f}", f"{each.observed:.3f}")
        for each in found
    ]
    table = _table(("model", "condition", "γ_Padé", "γ_obs"), rows)
    between = "–" if slopes.between is None else f"{slopes.between:+.2f}"
    interval = "" if slopes.interval is None else " ({:+.2f} … {:+.2f})".format(*slopes.interval)
    return (
        f"Slope over models: {between}{interval}. Slope within a model, mean: "
        f"{_mean(slopes.within)}.\n\n{table}"
    )


_LOSSES: tuple[tuple[str, Callable[[Fields, int], float | None]], ...] = (
    ("short − native", findings.loss_short),
    ("beyond T − rule", findings.loss_beyond),
    ("near L − rule", findings.loss_near_end),
)


def _losses(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    for kind in (SMOLLM2, "language"):
        for factor in (2, 4, 8):
            tables = [
                findings.tabulate(cells, Measure.LOSS, kind, factor, value) for _, value in _LOSSES
            ]
            if not tables[0]:
                continue
            rows = [
                (
                    condition,
                    len(units),
                    *(
                        _mean(findings.difference(table, condition, reference))
                        for table, reference in zip(tables, (NATIVE, RULE, RULE), strict=True)
                    ),
                )
                for condition, units in tables[0].items()
            ]
            head = ("condition", "texts", *(name for name, _ in _LOSSES))
            yield f"Loss, {kind}, factor {factor}", _table(head, rows)


def _keys(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    for factor in (2, 4, 8):
        beyond, short = (
            findings.tabulate(cells, Measure.RETRIEVAL, "passkey", factor, value)
            for value in (findings.keys_beyond, findings.keys_short)
        )
        if beyond:
            rows = [
                (condition, len(units), _share(beyond, condition), _share(short, condition))
                for condition, units in beyond.items()
            ]
            head = ("condition", "models", "keys beyond T", "keys up to T")
            yield f"Keys, passkey models, factor {factor}", _table(head, rows)


def _share(table: Table, condition: str) -> str:
    shares = table[condition].values()
    return f"{sum(shares) / len(shares):.3f} ({min(shares):.2f} … {max(shares):.2f})"


def _texts(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    """Every text of SmolLM2 by itself: the rule less a rival, with an interval from its blocks."""
    by_cell: dict[tuple[int, str], dict[str, Fields]] = {}
    for cell in cells:
        if cell.run.measure is Measure.LOSS and cell.kind == SMOLLM2:
            by_condition = by_cell.setdefault((cell.run.factor, cell.unit), {})
            by_condition[cell.fields["condition"]] = cell.fields
    rows = []
    for (factor, text), fields in sorted(by_cell.items()):
        for rival in RIVALS:
            if RULE in fields and rival in fields:
                blocks = _blocks_beyond(fields[RULE], fields[rival])
                interval = block_interval(blocks)
                mean = sum(blocks) / len(blocks)
                low, high = interval or (float("nan"),) * 2
                rows.append((factor, text, rival, f"{mean:+.3f} ({low:+.3f} … {high:+.3f})"))
    if rows:
        head = ("factor", "text", "rival", "rule − rival beyond T")
        yield f"Every text of {SMOLLM2} (differences of interest: {NATS} nats)", _table(head, rows)


def _blocks_beyond(a: Fields, b: Fields) -> list[float]:
    length = findings.train_length(SMOLLM2)
    beyond = [index for index, (start, _) in enumerate(a["bins"]) if start >= length]
    return [
        first - second
        for index in beyond
        for first, second in zip(a["losses"][index], b["losses"][index], strict=True)
    ]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    models = json.loads(REGISTRY.read_text(encoding="utf-8"))
    print(report(read_cells(HERE / "results"), models), end="")


if __name__ == "__main__":
    main()
