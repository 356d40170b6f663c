"""What a comparison says on a page, in a PNG and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import BytesIO, StringIO
from typing import TYPE_CHECKING

from PIL import Image

from ggufext import write_report
from ggufext.comparison.report.page import page
from ggufext.comparison.report.picture import loss_charts, png
from ggufext.comparison.report.sentences import (
    NEAR_TITLE,
    difference_text,
    estimate_text,
    recommendation_text,
)
from ggufext.comparison.report.terminal import print_report
from ggufext.comparison.results import Estimate
from ggufext.errors import ModelWarning
from made_up_audits import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from ggufext.comparison.results import CompareResult


def printed(result: CompareResult) -> str:
    out = StringIO()
    print_report(result, file=out)
    return out.getvalue()


def of_class(picture: Element, name: str) -> list[Element]:
    return [each for each in picture.iter() if name in (each.get("class") or "").split()]


def test_recommendation_and_warnings_stand_in_every_report(compared: CompareResult) -> None:
    said = recommendation_text(compared)
    assert said.startswith("planned:gamma: ")
    for report in (printed(compared), page(compared)):
        assert said in report
        assert "the texts are sentences that this program makes itself" in report


def test_every_condition_is_a_curve_with_an_interval_at_every_position(
    compared: CompareResult,
) -> None:
    chart, _ = loss_charts(compared).values()
    bins = len(compared.conditions[0].losses)
    for number, condition in enumerate(compared.conditions):
        drawn = of_class(chart, f"s{number}")
        assert len([x for x in drawn if x.tag == "polyline"]) == 1
        assert len([x for x in drawn if x.tag == "line"]) == bins
        marks = of_class(chart, "marker")
        mine = [x for x in marks if f"s{number}" in x.attrib["class"]]
        assert [x[0].text for x in mine] == [
            f"{condition.name}, {each.start:,}–{each.end - 1:,}: {estimate_text(each.loss)}"
            for each in condition.losses
        ]
    assert len(of_class(chart, "limit")) == 1


def test_a_higher_loss_lies_higher_and_later_positions_further_right(
    compared: CompareResult,
) -> None:
    chart, _ = loss_charts(compared).values()
    (curve,) = (x for x in of_class(chart, "s0") if x.tag == "polyline")
    points = [tuple(map(float, x.split(","))) for x in curve.attrib["points"].split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    losses = [each.loss.mean for each in compared.conditions[0].losses]
    by_place = sorted(range(len(points)), key=lambda i: points[i][1])
    assert by_place == sorted(range(len(losses)), key=lambda i: -losses[i])


def test_conditions_near_the_best_have_a_picture_of_their_own(compared: CompareResult) -> None:
    chart = loss_charts(compared)[NEAR_TITLE]
    drawn = {i for i in range(4) for x in of_class(chart, f"s{i}") if x.tag == "polyline"}
    # gamma and yarn, with the lines that they have in the other picture.
    assert drawn == {2, 3}
    alone = replace(compared, conditions=compared.conditions[2:])
    assert NEAR_TITLE not in loss_charts(alone)


def test_the_page_holds_the_numbers_of_its_pictures_and_how_to_repeat_it(
    compared: CompareResult,
) -> None:
    found = page(compared)
    for condition in compared.conditions:
        for each in condition.losses:
            assert f"<td>{estimate_text(each.loss)}</td>" in found
            if each.against_native is not None:
                assert f"<td>{difference_text(each.against_native)}</td>" in found
    for pair in compared.losses:
        assert f'<th scope="row">{pair.a} against {pair.b}</th>' in found
        assert f"<td>{difference_text(pair.difference)}</td>" in found
    assert compared.model.facts_hash in found
    assert compared.run.prompts_hash in found
    assert "<dt>seed</dt><dd>0</dd>" in found
    names = re.findall(r'id="([\w-]+)"', found)
    assert len(names) == len(set(names))


def test_a_difference_tells_its_sign_and_one_without_interval_has_none() -> None:
    assert difference_text(Estimate(0.055, (-0.001, 0.111))) == "+0.055 (-0.001 to +0.111)"
    assert estimate_text(Estimate(2.277, None)) == "2.277"
    assert difference_text(None) == "not measured"


def test_a_run_that_measured_nothing_has_its_reports_too(compared: CompareResult) -> None:
    empty = tuple(
        replace(x, texts=0, losses=(), beyond=None, keys=(), short_cost=None)
        for x in compared.conditions
    )
    result = replace(compared, conditions=empty, losses=(), keys=())
    assert "Loss by position" not in page(result)
    assert "To repeat it" in page(result)
    assert png(result)
    only_native = replace(compared, conditions=compared.conditions[:1], losses=(), keys=())
    assert "Every two conditions" not in page(only_native)
    assert png(only_native)


def test_hostile_names_stay_harmless(compared: CompareResult) -> None:
    result = replace(
        compared,
        run=replace(compared.run, path=f"/tmp/{HOSTILE}.gguf"),
        texts=(HOSTILE,),
        conditions=(replace(compared.conditions[0], name=HOSTILE), *compared.conditions[1:]),
        warnings=(ModelWarning("cut_short", HOSTILE),),
    )
    assert "\x1b" not in printed(result)
    assert "<script>" not in page(result)
    assert "\u202e" not in page(result)
    assert png(result)


def test_one_function_writes_each_format_by_its_ending(
    compared: CompareResult, tmp_path: Path
) -> None:
    for ending in ("html", "png", "json"):
        write_report(compared, tmp_path / f"report.{ending}")
    assert (tmp_path / "report.html").read_text() == page(compared)
    wide, _ = Image.open(BytesIO((tmp_path / "report.png").read_bytes())).size
    assert wide == 2 * (2 * 620 + 24 + 48)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["recommendation"]["condition"] == "planned:gamma"
