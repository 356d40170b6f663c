"""What a search says on a page, in a PNG and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO, StringIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from ggufext import write_report
from ggufext.audit.request import LocalSettings
from ggufext.planning.request import decode_recipe
from ggufext.tuning.report.page import page
from ggufext.tuning.report.picture import png
from ggufext.tuning.report.sentences import more_text, result_text, searched
from ggufext.tuning.report.terminal import print_report
from ggufext.tuning.request import TuneRequest
from ggufext.tuning.tune import tune

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.tuning.results import TuneResult


@pytest.fixture(scope="module")
def found(passkey_model: Path) -> TuneResult:
    request = TuneRequest(
        target_length=512,
        minutes=60,
        metadata_only=True,
        search_texts=1,
        trials=2,
        depths=2,
        engine=LocalSettings(threads=1, flash_attention=False),
    )
    return tune(passkey_model, request)


def printed(result: TuneResult) -> str:
    out = StringIO()
    print_report(result, file=out)
    return out.getvalue()


def size(data: bytes) -> tuple[int, int]:
    with Image.open(BytesIO(data)) as image:
        return image.size


def test_result_and_warnings_stand_in_every_report_once(found: TuneResult) -> None:
    for report in (printed(found), page(found)):
        assert report.count(result_text(found)) == 1
        assert report.partition("Everything as JSON")[0].count("sentences that this program") == 1


def test_what_was_run_is_shown_and_the_best_of_what_was_only_screened(found: TuneResult) -> None:
    rows = searched(found).rows
    assert {each.name for each in found.searched if each.texts} < rows.keys()
    assert [cells[1] for cells in rows.values()][-5:] == ["–"] * 5
    assert more_text(found) == f"and {len(found.searched) - len(rows)} more, only screened"
    whole = page(found)
    assert all(f'<th scope="row">{name}</th>' in whole for name in rows)


def test_the_decision_is_drawn_and_the_run_can_be_repeated(found: TuneResult) -> None:
    whole = page(found)
    assert whole.count('role="img"') >= 2
    for words in ("On held-out texts", "Loss by position", "<dt>minutes</dt><dd>60</dd>"):
        assert words in whole
    assert size(png(found))[1] > size(png(replace(found, decision=None)))[1] + 400


def test_a_search_that_decided_nothing_has_its_reports_too(found: TuneResult) -> None:
    undecided = replace(found, decision=None, kept=False, plan=None, reason="nothing <was> decided")
    for report in (printed(undecided), page(undecided)):
        assert "On held-out texts" not in report
    assert "not decided: nothing &lt;was&gt; decided" in page(undecided)


@pytest.mark.parametrize("reason", ["kept", "stays", "nothing"])
def test_the_sentence_says_what_is_to_be_written(found: TuneResult, reason: str) -> None:
    changed = {
        "kept": replace(found, kept=True, tuned="planned:base:1.2"),
        "stays": replace(found, kept=False),
        "nothing": replace(found, kept=False, plan=None),
    }[reason]
    begins = {
        "kept": "planned:base:1.2 is kept: ",
        "stays": "the closed form stays: ",
        "nothing": "nothing is recommended: ",
    }[reason]
    assert result_text(changed).startswith(begins)


def test_reports_are_written_by_their_endings(found: TuneResult, tmp_path: Path) -> None:
    for ending in ("html", "png", "json"):
        write_report(found, tmp_path / f"report.{ending}")
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text)["reason"] == found.reason
    assert decode_recipe(text).target_length == 512
    assert (tmp_path / "report.html").read_text() == page(found)
    assert size((tmp_path / "report.png").read_bytes())[0] > 1000
