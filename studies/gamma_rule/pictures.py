"""The pictures of docs/gamma-rule.md; each shows every text, model or seed that there is.

They stand on a light ground, so that they can be read on a dark page too. Each file names the
SHA-256 of what it was drawn from, so that a test can tell whether it is of these results.
"""

from __future__ import annotations

import hashlib
import json
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING

import findings
from conditions import NATIVE, YARN_PLAIN
from findings import KEYS, NATS, RIVALS, RULE
from schedule import SMOLLM2, Measure

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from study import Study

#: Blue, orange, green … of Okabe and Ito, told apart with any colour vision.
_COLOURS = {NATIVE: "#777777", RULE: "#0072B2", "ntk": "#E69F00", "yarn": "#009E73"}
_MARKERS = {SMOLLM2: "*", "language": "s", "passkey": "o"}
_NOTHING = "not measured yet"


def digest(study: Study) -> str:
    """SHA-256 of everything that is drawn, in hexadecimal."""
    drawn = [[cell.run.name, cell.fields] for cell in study.cells]
    return hashlib.sha256(json.dumps([drawn, study.registry]).encode()).hexdigest()


def write_pictures(study: Study, folder: Path) -> None:
    """Draw all of them as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(exist_ok=True)
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        for name, draw in PICTURES.items():
            figure = pyplot.figure(figsize=(8.4, 3.4), layout="constrained")
            draw(study, figure)
            figure.savefig(folder / name, dpi=130, metadata={"Description": digest(study)})
            pyplot.close(figure)


def _nothing(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, _NOTHING, ha="center", va="center", transform=axes.transAxes)


def _loss(study: Study, figure: Figure) -> None:
    """Loss of each rival less the rule's in every bin of positions; native is off this scale."""
    tables: dict[str, dict[str, list[float]]] = {}
    edges: list[list[int]] = []
    for cell in study.compared:
        if (cell.run.measure, cell.kind, cell.run.factor) == (Measure.LOSS, SMOLLM2, 2):
            means = [fmean(blocks) for blocks in cell.fields["losses"]]
            tables.setdefault(cell.fields["condition"], {})[cell.unit] = means
            edges = cell.fields["bins"]
    ticks = [f"{start // 1024}k–{end // 1024}k" for start, end in edges]
    shown = [*RIVALS, YARN_PLAIN]
    all_axes = figure.subplots(1, len(shown), sharey=True)
    for axes, rival in zip(all_axes, shown, strict=True):
        lines = [
            [value - rule for value, rule in zip(values, tables[RULE][text], strict=True)]
            for text, values in tables.get(rival, {}).items()
            if text in tables.get(RULE, {})
        ]
        if not lines:
            _nothing(axes)
            continue
        axes.set_title(f"{rival} − rule")
        axes.axhline(0, color="#444444", linewidth=0.8)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_xlabel("position, tokens")
        if len(lines) > 1:
            mean = [fmean(values) for values in zip(*lines, strict=True)]
            axes.plot(mean, color="#222222", linewidth=2.5)
        for line in lines:
            axes.plot(line, color=_COLOURS["yarn"], linewidth=0.9, marker="o", markersize=3)
    all_axes[0].set_ylabel("loss less the rule's, nats")
    texts = len(tables.get(RULE, {}))
    figure.suptitle(
        f"SmolLM2-135M at factor 2: {texts} of 4 texts, a line each; black: their mean; below 0 is "
        "better than the rule"
    )


def _keys(study: Study, figure: Figure) -> None:
    """Every passkey model by base, head size and method."""
    table = findings.tabulate(study.compared, Measure.RETRIEVAL, "passkey", 4, findings.keys_beyond)
    shapes = {entry["name"]: (entry["freq_base"], entry["head_dim"]) for entry in study.entries}
    bases = sorted({shapes[name][0] for name in table.get(RULE, {})})
    all_axes = figure.subplots(1, max(len(bases), 1), sharey=True, squeeze=False)[0]
    heads = (16, 32, 64)
    shift = dict(zip(_COLOURS, (-0.24, -0.08, 0.08, 0.24), strict=True))
    for axes, base in zip(all_axes, bases, strict=False):
        axes.set_title(f"base {base:,}")
        for condition, colour in _COLOURS.items():
            points = [
                (heads.index(shapes[name][1]) + shift[condition], share)
                for name, share in table.get(condition, {}).items()
                if shapes[name][0] == base
            ]
            axes.scatter(*zip(*points, strict=True), color=colour, s=16, label=condition)
            for x, of in groupby(sorted(points), key=lambda point: point[0]):
                shares = [share for _, share in of]
                if len(shares) > 1:
                    axes.hlines(fmean(shares), x - 0.07, x + 0.07, color=colour, linewidth=2)
        axes.set_xticks(range(len(heads)), heads)
        axes.set_xlim(-0.5, len(heads) - 0.5)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("head size")
    all_axes[0].set_ylabel("share of keys found beyond T")
    if bases:
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False)
    else:
        _nothing(all_axes[0])
    models = len(table.get(RULE, {}))
    figure.suptitle(f"Passkey models at factor 4, a point a model ({models} of 27)")


def _decay(study: Study, figure: Figure) -> None:
    """γ_obs against γ_Padé; the points of one model are joined."""
    axes = figure.subplots()
    found = sorted(
        findings.decays(study.compared, study.freq_bases),
        key=lambda each: (each.model, each.freq_base),
    )
    for model, of in groupby(found, key=lambda each: each.model):
        kind = model.split("-")[0]
        each = list(of)
        x, y = [point.predicted for point in each], [point.observed for point in each]
        colour = _COLOURS[{SMOLLM2: "yarn", "language": "ntk", "passkey": RULE}[kind]]
        axes.plot(x, y, color=colour, linewidth=0.7, marker=_MARKERS[kind], markersize=4)
        native = [point for point in each if point.condition == NATIVE]
        for point in native:
            axes.scatter(
                point.predicted, point.observed, s=70, marker="o", facecolors="none", color="k"
            )
    low, high = -1.0, 1.0
    axes.plot([low, high], [low, high], color="#444444", linewidth=0.8, linestyle="--")
    axes.set_xlabel("γ_Padé")
    axes.set_ylabel("γ_obs")
    models = len({each.model for each in found})
    axes.set_title(
        f"Bases of a model are joined, its own is ringed; dashed: the claim ({models} of 29 models)"
        "\ncircles: passkey models, squares: language model, stars: SmolLM2-135M"
    )
    if not found:
        _nothing(axes)


def _bases(study: Study, figure: Figure) -> None:
    """The eight other bases against the rule's, with intervals."""
    found = findings.all_other_bases(study.compared)
    all_axes = figure.subplots(1, len(found))
    for axes, (what, others, higher), interest in zip(all_axes, found, (NATS, KEYS), strict=True):
        if not others:
            _nothing(axes)
            continue
        axes.axvline(0, color="#444444", linewidth=0.8)
        axes.axvspan(-interest, interest, color="#dddddd", zorder=0)
        for row, each in enumerate(reversed(others)):
            axes.plot([each.found.low, each.found.high], [row, row], color=_COLOURS[RULE])
            axes.plot(each.found.mean, row, "o", color=_COLOURS[RULE], markersize=4)
        axes.set_yticks(range(len(others)), [each.condition for each in reversed(others)])
        better = "right" if higher else "left"
        units = max(each.found.units for each in others)
        axes.set_title(f"{what} ({units} units)")
        axes.set_xlabel(f"other base − rule; {better}: the other is better")
    figure.suptitle(
        "Other bases beyond T at factor 4, with 95 % intervals; grey: too small to be of interest"
    )


PICTURES: dict[str, Callable[[Study, Figure], None]] = {
    "gamma-rule-loss.png": _loss,
    "gamma-rule-keys.png": _keys,
    "gamma-rule-decay.png": _decay,
    "gamma-rule-bases.png": _bases,
}
