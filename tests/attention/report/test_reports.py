"""What a measurement says in the terminal, on a page, in a PNG and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import BytesIO, StringIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from ggufext.attention.report import write_report
from ggufext.attention.report.page import page
from ggufext.attention.report.picture import curves_chart, heads_chart, layers_chart, png
from ggufext.attention.report.sentences import gamma_text, group_lines, number, range_text
from ggufext.attention.report.terminal import print_report
from ggufext.attention.results import Decay
from ggufext.errors import ModelWarning
from made_up_audits import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from ggufext.attention.results import LayerGroup, MeasureResult


def group_of(result: MeasureResult) -> LayerGroup:
    return result.conditions[0].groups[0]


def printed(result: MeasureResult) -> str:
    out = StringIO()
    print_report(result, file=out)
    return out.getvalue()


def of_class(picture: Element, name: str) -> list[Element]:
    return [each for each in picture.iter() if name in (each.get("class") or "").split()]


def without_fits(result: MeasureResult) -> MeasureResult:
    """The same, as of a model in which no head attends to anything but the first tokens."""

    def emptied(group: LayerGroup) -> LayerGroup:
        none = (0.0,) * (len(group.edges) - 1)
        curve = replace(group.curve, attention=none, decay=None, near=None, far=None)
        layers = tuple(
            replace(layer, curve=curve, heads=tuple(curve for _ in layer.heads))
            for layer in group.layers
        )
        return replace(group, curve=curve, layers=layers, gamma_pade=None)

    conditions = (
        replace(each, groups=tuple(map(emptied, each.groups))) for each in result.conditions
    )
    return replace(result, conditions=tuple(conditions))


def test_every_report_says_that_it_is_a_description(measured: MeasureResult) -> None:
    for report in (printed(measured), page(measured)):
        assert "This describes the model; it passes or fails nothing." in report
        assert "depends on the range of distances" in report
        assert "differs from head to head" in report
        assert "did not rank extension methods" in report


def test_the_observed_exponent_stands_beside_that_of_the_formula(measured: MeasureResult) -> None:
    group = group_of(measured)
    assert group.curve.decay is not None
    line = (
        f"γ observed {gamma_text(group.curve.decay)} over 1–160 tokens, "
        f"R² {group.curve.decay.r_squared:.3f}; "
        f"γ by formula {number(group.gamma_pade or 0)} (γ_Padé at this length)"
    )
    for report in (printed(measured), page(measured)):
        assert line in report


def test_every_layer_has_a_row(measured: MeasureResult) -> None:
    rows = re.findall(r"^ +(\d) +\S+ \(95 %.*\)  +[\d.−]+ ", printed(measured), re.MULTILINE)
    assert rows == list("0123") * 2


def test_a_pipe_gets_no_escape_sequences_and_hostile_names_stay_harmless(
    measured: MeasureResult,
) -> None:
    hostile = replace(measured.conditions[0], name=HOSTILE)
    result = replace(
        measured,
        run=replace(measured.run, path=f"/tmp/{HOSTILE}.gguf"),
        conditions=(hostile,),
        warnings=(ModelWarning("memory_reduced", HOSTILE),),
    )
    assert "\x1b" not in printed(result)
    found = page(result)
    assert "<script>" not in found
    assert "\u202e" not in found
    assert png(result)


def test_the_curves_have_a_point_a_range_and_a_line_a_condition(measured: MeasureResult) -> None:
    groups = {each.name: each.groups[0] for each in measured.conditions}
    chart = curves_chart(groups, 0)
    ranges = len(group_of(measured).edges) - 1
    for number_ in range(2):
        assert len([x for x in of_class(chart, f"s{number_}") if x.tag == "polyline"]) == 1
        assert len(
            [x for x in of_class(chart, "marker") if f"s{number_}" in x.attrib["class"]]
        ) == (ranges)
    # Weights fall downwards, distances grow to the right.
    (first,) = (x for x in of_class(chart, "s0") if x.tag == "polyline")
    pairs = (each.split(",") for each in first.attrib["points"].split())
    points = [(float(x), float(y)) for x, y in pairs]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    order = sorted(range(ranges), key=lambda i: -groups["file"].curve.attention[i])
    assert [y for _, y in sorted(points, key=lambda p: p[1])] == [points[i][1] for i in order]


def test_layers_and_heads_are_drawn_each(measured: MeasureResult) -> None:
    group = group_of(measured)
    assert len(of_class(layers_chart(measured, group, 0), "thin")) == 4
    chart = heads_chart(measured, group, 0)
    assert len(of_class(chart, "marker")) == 4 * 4 + 4
    assert len(of_class(chart, "limit")) == 1
    for mark in of_class(chart, "marker"):
        assert 0 <= float(mark.attrib["cy"]) <= 270


def test_the_page_holds_the_numbers_of_its_pictures(measured: MeasureResult) -> None:
    found = page(measured)
    group = group_of(measured)
    for i, value in enumerate(group.curve.attention):
        assert f'<th scope="row">{range_text(group.edges, i)}</th><td>{value:.3g}</td>' in found
    names = re.findall(r'id="([\w-]+)"', found)
    assert len(names) == len(set(names))


def test_a_model_without_any_decay_has_its_reports_too(measured: MeasureResult) -> None:
    result = without_fits(measured)
    assert "not fitted: too few distances get any attention" in printed(result)
    assert "γ is not defined by a formula for these layers" in page(result)
    assert png(result)


def test_the_png_is_as_large_as_what_it_shows(measured: MeasureResult) -> None:
    wide, high = Image.open(BytesIO(png(measured))).size
    assert wide == 2 * (2 * 620 + 24 + 48)
    one = replace(measured, conditions=measured.conditions[:1])
    assert high > Image.open(BytesIO(png(one))).size[1] > 500


@pytest.mark.parametrize("ending", [".html", ".png", ".json"])
def test_a_report_is_written_by_its_ending(
    ending: str, measured: MeasureResult, tmp_path: Path
) -> None:
    path = tmp_path / f"report{ending}"
    write_report(measured, path)
    starts = {".html": b"<!DOCTYPE html>", ".png": b"\x89PNG", ".json": b"{"}
    assert path.read_bytes().startswith(starts[ending])


def test_json_has_every_head_by_name(measured: MeasureResult, tmp_path: Path) -> None:
    write_report(measured, tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text("utf-8"))
    group = read["conditions"][0]["groups"][0]
    assert group["window"] is None
    head = group["layers"][3]["heads"][2]
    decay = group_of(measured).layers[3].heads[2].decay
    assert decay is not None
    assert head["decay"] == {
        "first": decay.first,
        "last": decay.last,
        "gamma": decay.gamma,
        "interval": list(decay.interval or ()),
        "r_squared": decay.r_squared,
    }
    assert read["run"]["stop"] is None


def test_minus_signs_are_real_and_zero_has_none() -> None:
    assert (number(-0.804), number(-0.001), number(1.255)) == ("−0.80", "0.00", "1.25")
    assert gamma_text(Decay(1, 9, -0.5, (-0.75, 0.25), 0.9)) == "−0.50 (95 % −0.75 to 0.25)"
    assert gamma_text(Decay(1, 9, 0.5, None, 0.9)) == "0.50"


def test_a_group_of_one_head_says_nothing_of_single_heads(measured: MeasureResult) -> None:
    group = group_of(measured)
    layer = replace(group.layers[0], heads=group.layers[0].heads[:1])
    lines = list(group_lines(replace(group, layers=(layer,))))
    assert not any("single heads" in line for line in lines)
