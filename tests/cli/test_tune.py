"""``ggufext tune``: its options, what it prints, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from ggufext.cli.tune import tune
from ggufext.errors import GgufextError
from ggufext.planning.request import decode_recipe

if TYPE_CHECKING:
    from pathlib import Path

SHORT = (
    *("--target", "512", "--minutes", "10", "--metadata-only"),
    *("--search-texts", "1", "--trials", "1", "--depths", "2"),
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(tune, [*arguments, "--flash-attention", "off", "--threads", "1"])


@pytest.fixture(scope="module")
def printed(passkey_model: Path) -> str:
    result = run(str(passkey_model), *SHORT)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_was_tried_and_the_decision_are_told(printed: str) -> None:
    lines = [line.strip() for line in printed.splitlines()]
    assert lines[0].startswith("Scalings by loss beyond the training length on the search texts")
    names = [line.split()[0] for line in lines[2 : lines.index("")]]
    assert {"planned:gamma", "planned:ntk", "planned:yarn", "planned:linear"} <= set(names)
    assert "On held-out texts" in lines
    assert "only screened" in printed


def test_the_result_is_one_sentence_with_the_figures(printed: str) -> None:
    (line,) = [each for each in printed.splitlines() if each.startswith("  result: ")]
    assert "on 1 held-out text the loss of planned:base:" in line
    assert " against planned:" in line
    assert printed.count("made_text") == 0
    assert printed.count("sentences that this program makes itself") == 1


def test_json_is_the_result_and_a_recipe(passkey_model: Path) -> None:
    result = run(str(passkey_model), *SHORT, "--json")
    found = json.loads(result.stdout)
    assert found["request"]["minutes"] == 10
    assert found["tuned"].startswith("planned:base:")
    assert decode_recipe(result.stdout).target_length == 512


def test_reports_are_written_and_refused_before_the_search(
    passkey_model: Path, tmp_path: Path
) -> None:
    result = run(str(passkey_model), *SHORT, "--report", str(tmp_path / "report.html"))
    assert result.exit_code == 0
    assert "report written to" in result.stderr
    assert "Search for a scaling of" in (tmp_path / "report.html").read_text()
    refused = run(str(passkey_model), *SHORT, "--report", str(tmp_path / "report.pdf"))
    assert isinstance(refused.exception, GgufextError)
    assert refused.exception.code == "report_path"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--minutes", "5"), "Missing option '--target'"),
        (("--target", "512"), "Missing option '--minutes'"),
        (("--target", "512", "--minutes", "0"), "'--minutes'"),
        (("--target", "512", "--minutes", "5", "--search-texts", "0"), "'--search-texts'"),
    ],
)
def test_wrong_options_are_usage_errors(
    arguments: tuple[str, ...], says: str, passkey_model: Path
) -> None:
    result = run(str(passkey_model), *arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_a_copy_that_nobody_allows_is_an_error_that_names_the_way_out(passkey_model: Path) -> None:
    result = run(str(passkey_model), "--target", "512", "--minutes", "5", "--depths", "2")
    assert isinstance(result.exception, GgufextError)
    assert result.exception.code == "copy_not_allowed"
    assert "--yes" in str(result.exception)


def test_a_cluster_and_rpc_workers_are_not_asked_at_once(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.touch()
    both = ("--dask", "tcp://127.0.0.1:1", "--rpc", "127.0.0.1:2")
    found = CliRunner().invoke(tune, [str(model), "--target", "1k", "--minutes", "1", *both])
    assert found.exit_code == 2
    assert "give one of --dask and --rpc" in found.stderr
