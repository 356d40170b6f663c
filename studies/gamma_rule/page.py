"""docs/gamma-rule.md as Markdown, from what the study found; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import described
import findings
from findings import KEYS, NATS, RIVALS, RULE, DecayWord
from inference import SIGNIFICANT
from page_text import (
    MODELS,
    condition_text,
    difference_text,
    markdown_table,
    mean_text,
    p_text,
    values_text,
)
from schedule import DECAY_MULTIPLES, Measure, decay_conditions

if TYPE_CHECKING:
    from findings import OtherBase
    from study import Study

_PLACES = {
    "P1": "in finding keys beyond the training length, on small models made for that at four "
    "times the length",
    "P2": "in the loss on longer texts, on a small language model at four times its length",
    "P3": "in the same on SmolLM2-135M at twice its length",
    "P4": "in what it costs there on short texts",
}


def page(study: Study) -> str:
    """All of docs/gamma-rule.md."""
    sections = [
        ("In short", _short(study)),
        ("H1: does attention fall as γ says?", _decay(study)),
        ("H2: is the rule's base the best?", _bases(study)),
        ("H3: is it better than its rivals?", _primary(study)),
        ("H4: does that depend on base and head size?", _effects(study)),
        ("H5: does a search find something better?", _tunings(study)),
        *described.losses(study.compared),
        *described.keys(study.compared),
        *described.units(study.compared),
        ("Models", described.models(study)),
        ("Runs", described.runs(study)),
        ("Left out", _LEFT_OUT),
        ("How to repeat it", _REPEAT),
    ]
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections)
    return f"# What the γ rule is worth\n\n{_state(study)}\n\n{_INTRODUCTION}\n\n{body}\n"


_INTRODUCTION = """\
The γ rule, the default method, writes the base θ·L/T, so that the predicted exponent γ at the
target length L is what it was at the training length T
([methods](methods.md#the-exponent-of-attention)). It is derived, and its author's validation did
not finish. Here it is measured against NTK-aware scaling and YaRN, by a protocol that was written
before (`studies/gamma_rule/protocol.md`); it defines every term of this page."""

_LEFT_OUT = """\
Gemma 3 270M (65,536 tokens a run) and SmolLM2 at factor 8 were too long for the hours that there
were. All texts are documentation of software in English, so nothing is said of other genres and
languages. Small models are there for what needs many of them: what they show need not hold for real
ones."""

_REPEAT = """\
```console
$ export GGUFEXT_STUDY_CACHE=…   # a folder for models and texts
$ python studies/gamma_rule/texts.py
$ PYTHONPATH=models python studies/gamma_rule/train.py --minutes 55
$ PYTHONPATH=models python studies/gamma_rule/train.py --register
$ PYTHONPATH=models python studies/gamma_rule/run.py --minutes 55 --smollm2 SmolLM2….gguf
$ python studies/gamma_rule/report.py
```

Training and runs go on where they were stopped. The last line writes this page, its pictures and
what `ggufext plan` shows of it, from `models.json` and `results/` alone."""


def _state(study: Study) -> str:
    wanted, left = study.wanted(), study.left
    if not left:
        return f"All {len(wanted)} runs of the study are finished."
    return (
        f"**Not complete: {len(wanted) - len(left)} of {len(wanted)} runs are finished.** What is "
        "not run is [named below](#runs); whatever is said here may change with it."
    )


def _short(study: Study) -> str:
    said: dict[str, list[str]] = {}
    for each in findings.primary(study.compared):
        said.setdefault(each.name, []).append(f"**{each.verdict.value}**")
    parts = "; ".join(f"{_PLACES[name]}, {' and '.join(words)}" for name, words in said.items())
    rivals = " and ".join(RIVALS.values())
    return (
        f"Against {rivals}, in this order, the γ rule is: {parts}.\n\n*Better* and *worse* are "
        f"differences that are both certain and of interest ({NATS:g} nats a token, "
        f"{100 * KEYS:.0f} keys of a hundred), *the same* is one that is certainly smaller, and "
        "*undecided* is all else, also what is not measured."
    )


def _decay(study: Study) -> str:
    found = findings.decays(study.compared, study.freq_bases)
    slopes = findings.decay_slopes(found)
    between = "–" if slopes.between is None else f"{slopes.between:+.2f}"
    if slopes.interval is not None:
        between += " ({:+.2f} … {:+.2f})".format(*slopes.interval)
    words = {
        DecayWord.FOLLOWS: "its interval is above 0 and holds 1: it follows",
        DecayWord.MOVES: "its interval is above 0 without 1: it moves, by another amount",
        DecayWord.NOT: "its interval holds 0 or less: it does not follow",
        DecayWord.OPEN: "no interval yet",
    }
    models = len({each.model for each in found})
    within = (slopes.within.low, slopes.within.high) if slopes.within else None
    both = {findings.decay_word(slopes.interval), findings.decay_word(within)}
    claim = "they do not"
    if both == {DecayWord.FOLLOWS}:
        claim = "they do"
    elif both <= {DecayWord.FOLLOWS, DecayWord.OPEN}:
        claim = "that is open"
    so_far = "so far, " if any(run.measure is Measure.DECAY for run in study.left) else ""
    rows = [
        (
            "over native models",
            models,
            between,
            so_far + words[findings.decay_word(slopes.interval)],
        ),
        (
            "within a model, over bases",
            slopes.within.units if slopes.within else 0,
            mean_text(slopes.within),
            so_far + words[findings.decay_word(within)],
        ),
    ]
    by_model: dict[str, dict[str, str]] = {}
    for each in found:
        shown = f"{each.predicted:.2f} → {each.observed:.2f}"
        by_model.setdefault(each.model, {})[each.condition] = shown
    multiples = [decay_conditions([multiple])[0] for multiple in DECAY_MULTIPLES]
    every = [
        (model, *(shown.get(each, "–") for each in multiples)) for model, shown in by_model.items()
    ]
    return (
        "The claim: the exponent γ_obs of mean attention follows γ_Padé when the base moves, with "
        f"a slope of 1. Both slopes below have to say so: {so_far}{claim}.\n\n"
        f"{markdown_table(('slope of γ_obs on γ_Padé', 'models', 'mean (95 %)', 'so'), rows)}\n\n"
        "![γ_obs against γ_Padé of every model at every base](images/gamma-rule-decay.png)\n\n"
        f"γ_Padé → γ_obs at multiples of the trained base:\n\n"
        f"{markdown_table(('model', 'θ/16', 'θ/4', 'θ', '4θ'), every)}"
    )


def _bases(study: Study) -> str:
    found = findings.all_other_bases(study.compared)
    rows = [
        (
            what,
            condition_text(each.condition),
            each.found.units,
            mean_text(each.found),
            p_text(each.p),
        )
        for what, table, _ in found
        for each in table
    ]
    against = [
        f"{condition_text(each.condition)} ({what})"
        for what, table, higher in found
        for each in table
        if _beats(each, higher_is_better=higher)
    ]
    if not rows:
        said = "Not measured yet."
    elif against:
        said = f"Against it: better than the rule's base is {', '.join(against)}."
    else:
        said = "No other base was measured to be better than the rule's."
    head = ("measure", "condition", "units", "it − rule (95 %)", "p (Holm)")
    return (
        f"Beyond T at factor 4. {said}\n\n![Eight other bases against the rule's, with intervals]"
        f"(images/gamma-rule-bases.png)\n\n{markdown_table(head, rows)}"
    )


def _beats(each: OtherBase, *, higher_is_better: bool) -> bool:
    return each.p < SIGNIFICANT and (each.found.mean > 0) == higher_is_better


def _primary(study: Study) -> str:
    rows = [
        (
            each.name,
            each.rival,
            f"{len(each.values)} of {each.units}",
            values_text(each.values),
            p_text(each.p) if each.found else "–",
            each.verdict.value,
        )
        for each in findings.primary(study.compared)
    ]
    head = ("", "rival", "units", "rule − rival (95 %)", "p (Holm)", "the rule is")
    places = "\n".join(f"- {name}: {what}" for name, what in _PLACES.items())
    return (
        f"{places}\n\nP1 is a share of keys, the others are nats a token; a unit is a model or a "
        f"text.\n\n{markdown_table(head, rows)}\n\n![Loss by position on SmolLM2 at factor 2, less "
        "that of the γ rule, every text](images/gamma-rule-loss.png)"
    )


def _effects(study: Study) -> str:
    table = findings.tabulate(study.compared, Measure.RETRIEVAL, "passkey", 4, findings.keys_beyond)
    shapes = {
        entry["name"]: (entry["freq_base"], entry["head_dim"])
        for entry in study.entries
        if entry["kind"] == "passkey" and entry["mastered"]
    }
    rows = []
    for base, head in sorted({shapes[name] for name in table.get(RULE, {})}):
        names = {name for name, each in shapes.items() if each == (base, head)}
        some = {
            condition: {name: share for name, share in units.items() if name in names}
            for condition, units in table.items()
        }
        against = [difference_text(some, RULE, rival) for rival in RIVALS]
        rows.append((f"{base:,}", head, len(some[RULE]), *against))
    tests = findings.all_effects(table, shapes)
    said = []
    for each in tests:
        word = "depends" if each.p < SIGNIFICANT else "is not measured to depend"
        said.append(
            f"- The difference to {RIVALS[each.rival]} {word} on the {each.of} "
            f"(p {p_text(each.p)}; interaction of both {p_text(each.interaction)})."
        )
    if not tests:
        said = ["Not tested yet: each base and head size needs at least two models."]
    head_row = ("base", "head", "models", *(f"rule − {rival} (95 %)" for rival in RIVALS))
    lines = "\n".join(said)
    return (
        f"Share of the keys found beyond T at factor 4, passkey models.\n\n{lines}\n\n"
        "![Keys found beyond the training length by base and head size]"
        f"(images/gamma-rule-keys.png)\n\n{markdown_table(head_row, rows)}"
    )


def _tunings(study: Study) -> str:
    rows = []
    for each in findings.tunings(study.cells):
        so = "kept nothing of its own"
        if each.kept:
            so = "kept, not measured on the test texts yet"
        if each.found is not None:
            low, high = each.found.low, each.found.high
            so = "better" if high < 0 else "worse" if low > 0 else "no difference measured"
        rows.append(
            (
                MODELS[each.run.model.split("-")[0]],
                each.run.factor,
                each.closed or "–",
                each.found.units if each.found else 0,
                mean_text(each.found),
                so,
            )
        )
    head = ("model", "factor", "best closed form", "texts", "tuned − it (95 %)", "tuned is")
    return (
        "`ggufext tune` on the tuning texts, and its scaling against the closed form that was best "
        f"there: loss beyond T on the test texts.\n\n{markdown_table(head, rows)}"
    )
