"""What ggufext tells of the study: a module of `ggufext.planning`, as text; pure.

It holds what is complete by the protocol and nothing else: a difference from native where every
text of the schedule has it, the words for the γ rule where all eight primary comparisons are
complete, since Holm's procedure is over all of them. Passkey models are not in it: a comparison is
over models of many shapes there, and none of them is anybody's.
"""

from __future__ import annotations

import json
from itertools import groupby
from operator import itemgetter
from textwrap import wrap
from typing import TYPE_CHECKING

import findings
from conditions import CLOSED_FORMS, NATIVE
from schedule import LANGUAGE_LENGTH, SMOLLM2, SMOLLM2_BASE, SMOLLM2_LENGTH, Measure
from trained import LANGUAGE_BASE, LANGUAGE_HEAD_DIM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from findings import Primary
    from inference import Paired
    from study import Study

_SOURCE = "docs/gamma-rule.md"
_FACTORS = (2, 4, 8)
#: Name, training length, base, layers, and KV heads with their size.
_SHAPES = {
    SMOLLM2: ("SmolLM2-135M-Instruct Q4_1", SMOLLM2_LENGTH, SMOLLM2_BASE, 30, (3, 64)),
    "language": (
        "the language model of the study (3.5 M)",
        LANGUAGE_LENGTH,
        LANGUAGE_BASE,
        4,
        (4, LANGUAGE_HEAD_DIM),
    ),
}
_DERIVED = "the γ rule is derived, not validated by its author"
_PLACES = {
    "P1": "keys of small models",
    "P2": "loss of a small one",
    "P3": "loss of SmolLM2-135M",
    "P4": "its short texts",
}
_HEAD = '"""What the study of the γ rule found; written by studies/gamma_rule/report.py."""'


def record(study: Study) -> str:
    """Source of ``ggufext.planning.study_record``."""
    primary = findings.primary(study.compared)
    complete = all(study.is_finished(run) for each in primary for run in each.runs)
    models = [
        text for kind in _SHAPES if (text := _model(study, kind, primary if complete else ()))
    ]
    lines = [_HEAD, "", "from __future__ import annotations", ""]
    if models:
        lines += [
            "from ggufext.planning.methods import Method",
            "from ggufext.planning.model_records import ModelRecord, beyond_native"
            + (", compared" if complete else ""),
        ]
    else:
        lines += [
            "from typing import TYPE_CHECKING",
            "",
            "if TYPE_CHECKING:",
            "    from ggufext.planning.model_records import ModelRecord",
        ]
    lines += [
        "",
        "#: What is known of the rule, one clause.",
        *_status(primary if complete else ()),
        "",
        "#: What was measured on models.",
    ]
    if models:
        lines += ["STUDY: tuple[ModelRecord, ...] = (", *models, ")"]
    else:
        lines += ["STUDY: tuple[ModelRecord, ...] = ()"]
    return "\n".join(lines) + "\n"


def status(primary: Sequence[Primary]) -> str:
    """What is known of the rule, one clause; without comparisons that they are not there yet."""
    if not primary:
        return f"{_DERIVED}, and this project's study of it is not complete"
    words = (
        f"against {name}, it is {_verdicts(primary, rival)}"
        for rival, name in findings.RIVALS.items()
    )
    return f"{_DERIVED}; measured {'; '.join(words)}"


def _verdicts(primary: Sequence[Primary], rival: str) -> str:
    """The four comparisons with a rival, neighbours of one verdict together."""
    said = [(each.verdict.value, _PLACES[each.name]) for each in primary if each.rival == rival]
    return ", ".join(
        f"{verdict} in {' and '.join(place for _, place in alike)}"
        for verdict, alike in groupby(said, key=itemgetter(0))
    )


def _status(primary: Sequence[Primary]) -> Iterator[str]:
    yield "STATUS = ("
    lines = wrap(status(primary), 90)
    for line in lines:
        yield f"    {_quoted(line if line is lines[-1] else line + ' ')}"
    yield ")"


def _model(study: Study, kind: str, primary: Sequence[Primary]) -> str | None:
    name, length, base, layers, heads = _SHAPES[kind]
    found = list(_methods(study, kind))
    comparisons = [
        _comparison(each, each.found) for each in primary if each.kind == kind and each.found
    ]
    if not found:
        return None
    fields = [
        f"model={_quoted(name)}",
        f"source={_quoted(_SOURCE)}",
        'architecture="llama"',
        f"train_length={length}",
        f"freq_base={float(base)}",
        f"layers={layers}",
        f"heads={heads}",
        _tuple("found", found),
    ]
    if comparisons:
        fields.append(_tuple("comparisons", comparisons))
    return _call("    ", "ModelRecord", fields)


def _tuple(name: str, items: Sequence[str]) -> str:
    body = "".join(f"            {item},\n" for item in items)
    return f"{name}=(\n{body}        )"


def _call(indent: str, name: str, fields: Sequence[str]) -> str:
    body = "".join(f"{indent}    {field},\n" for field in fields)
    return f"{indent}{name}(\n{body}{indent}),"


def _methods(study: Study, kind: str) -> Iterator[str]:
    """Each closed form against native, where every text has it and there are several."""
    for factor in _FACTORS:
        table = findings.tabulate(study.compared, Measure.LOSS, kind, factor, findings.loss_beyond)
        for condition in CLOSED_FORMS:
            found = findings.difference(table, condition, NATIVE)
            if found and found.units == findings.planned_units(kind, factor, condition):
                yield f"beyond_native(Method.{condition.upper()}, {factor}, {_numbers(found)})"


def _comparison(each: Primary, found: Paired) -> str:
    measure = "mean_loss_within" if each.short else "mean_loss_beyond"
    said = f"{_quoted(each.verdict.value)}, {_quoted(measure)}"
    return f"compared(Method.{each.rival.upper()}, {each.factor}, {said}, {_numbers(found)})"


def _numbers(found: Paired) -> str:
    return f"{found.mean:.3f}, ({found.low:.3f}, {found.high:.3f}), {found.units}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
