"""``ggufext compare``: its options, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from ggufext.cli.compare import beginning, compare
from ggufext.cli.waiting import Told, Wait
from ggufext.comparison.measure import CompareNotes
from ggufext.errors import GgufextError
from ggufext.planning.request import decode_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORT = ("--target", "512", "--trials", "1", "--depths", "2", "--condition", "planned:gamma")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(compare, [*arguments, "--flash-attention", "off"])


@pytest.fixture(scope="module")
def printed(passkey_model: Path) -> str:
    result = run(str(passkey_model), *SHORT)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_tables_tell_losses_keys_and_cost_of_every_condition(printed: str) -> None:
    lines = printed.splitlines()
    for title in ("Loss in nats a token by position", "Keys found by length", "Against native"):
        (place,) = (index for index, line in enumerate(lines) if line.startswith(title))
        rows = [line.split()[0] for line in lines[place + 2 : place + 4] if line.split()]
        assert "planned:gamma" in rows
    assert sum("memory" in line for line in lines) == 1


def test_the_recommendation_and_what_weakens_it_are_said(printed: str) -> None:
    assert "  recommended: planned:gamma: " in printed
    assert "note: the texts are sentences that this program makes itself" in printed
    assert "note: intervals are for this text" in printed


def test_the_estimate_is_said_before_and_progress_goes_to_standard_error(
    passkey_model: Path,
) -> None:
    result = run(str(passkey_model), *SHORT)
    assert "measuring 2 cells of a condition and a text, " in result.stderr
    assert "measuring" not in result.stdout


def test_reports_are_written_and_one_that_cannot_be_is_refused_before_anything_is_measured(
    passkey_model: Path, tmp_path: Path
) -> None:
    names = [str(tmp_path / f"report.{ending}") for ending in ("html", "json")]
    result = run(str(passkey_model), *SHORT, *(x for name in names for x in ("--report", name)))
    assert result.exit_code == 0, result.output
    for name in names:
        assert f"report written to {name}" in result.stderr
        assert "planned:gamma" in Path(name).read_text()
    kept = tmp_path / "run.jsonl.json"
    refused = run(str(passkey_model), *SHORT, "--resume", str(kept), "--report", str(kept))
    assert isinstance(refused.exception, GgufextError)
    assert refused.exception.code == "report_path"
    assert not kept.exists()


def test_json_is_the_result_and_a_recipe(passkey_model: Path) -> None:
    result = run(str(passkey_model), *SHORT, "--json")
    found = json.loads(result.stdout)
    assert found["request"]["conditions"] == ["native", "planned:gamma"]
    assert found["recommendation"]["condition"] == "planned:gamma"
    assert decode_recipe(result.stdout).target_length == 512


def test_beginning_says_what_is_done_and_how_long_the_rest_takes() -> None:
    assert beginning(CompareNotes(10, 4, 5000, 90.0)) == (
        "measuring 6 cells of a condition and a text (4 are done), 5,000 tokens: about 90 s, "
        "measured on the first tokens of this model"
    )
    assert beginning(CompareNotes(10, 0, 5000, None)) == (
        "measuring 10 cells of a condition and a text, 5,000 tokens"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing option '--target'"),
        (("--target", "lots"), "is not a size"),
        (("--target", "1k", "--dask", "tcp://a:1", "--rpc", "b:2"), "one of --dask and --rpc"),
    ],
)
def test_wrong_usage_ends_with_status_2(
    arguments: Sequence[str], says: str, passkey_model: Path
) -> None:
    result = run(str(passkey_model), *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("content", "code"), [("short.", "text_too_short"), ("", "bad_text"), (None, "unreadable")]
)
def test_a_text_that_cannot_serve_is_a_named_error(
    content: str | None, code: str, passkey_model: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_text(content)
    result = run(str(passkey_model), *SHORT, "--text", str(text))
    assert isinstance(result.exception, GgufextError)
    assert result.exception.code == code
    assert result.exception.path == text


def interrupting(_: Wait, told: Told) -> None:
    """Ctrl-C comes when three cells are done."""
    if ", 3 of" in told.detail:
        raise KeyboardInterrupt


def test_an_interrupted_run_prints_what_it_has_and_goes_on_later(
    passkey_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (str(passkey_model), *SHORT, "--trials", "2", "--resume", str(tmp_path / "run.jsonl"))
    monkeypatch.setattr(Wait, "tell", interrupting)
    result = run(*kept)
    assert result.exit_code == 130
    assert "interrupted: the report holds what was done" in result.stderr
    assert "note: the run was cut short" in result.stdout
    monkeypatch.undo()
    resumed = run(*kept)
    assert resumed.exit_code == 0
    assert "measuring 1 cells of a condition and a text (3 are done)" in resumed.stderr
    assert "cut short" not in resumed.stdout
