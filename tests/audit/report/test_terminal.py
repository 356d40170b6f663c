"""The report as text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from ggufext.audit.report.terminal import print_report
from made_up_audits import HOSTILE, SHARES, audit, named

if TYPE_CHECKING:
    from ggufext.audit.findings.results import CheckResult


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(result: CheckResult, file: io.StringIO | None = None) -> str:
    out = file or io.StringIO()
    print_report(result, file=out)
    return out.getvalue()


def test_a_pipe_gets_no_escape_sequences() -> None:
    assert "\x1b" not in printed(audit())


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert "\x1b[38;2;0;0;0;48;2;250;242;164m" in printed(audit(), Terminal())


def test_every_condition_has_a_heatmap_with_all_lengths() -> None:
    text = printed(audit())
    for name in SHARES:
        assert name in text
    assert text.count("1,024  ") == len(SHARES)


def test_a_cell_that_was_not_measured_is_a_dash_with_a_legend() -> None:
    text = printed(audit({"file": (1.0, 0.0, 1.0)}, missing=((1024, 0.5),)))
    row = next(line for line in text.splitlines() if line.strip().startswith("50 %"))
    assert row.split() == ["50", "%", "100", "%", "0", "%", "–"]
    assert "– not measured" in text


def test_an_interrupted_run_shows_what_was_measured_and_names_the_rest() -> None:
    shares = {"file": (1.0, 0.0, None), "planned:yarn": (None, None, None)}
    text = printed(audit(shares, complete=False, missing=((256, 0.9), (512, 0.9))))
    assert "–" not in text.replace("–100", "").replace("0–", "")  # of intervals
    assert text.count("90 %") == 1
    assert "not measured: file at 1,024 tokens; file at depths of 90 %; planned:yarn" in text
    assert text.count("planned:yarn") == 1


def test_the_legend_mentions_the_dash_only_where_there_is_one() -> None:
    assert "not measured" not in printed(audit())


def test_all_pairs_are_compared_in_words() -> None:
    assert "planned:yarn finds more" in printed(audit())


@pytest.mark.parametrize("place", ["path", "engine", "condition"])
def test_hostile_names_are_printed_as_text(place: str) -> None:
    text = printed(named(place, HOSTILE))
    assert "\x1b" not in text
    assert "[red]" in text


def test_an_audit_without_any_answer_is_printed() -> None:
    text = printed(audit({"file": (None, None, None)}, complete=False))
    assert "not measured: file" in text
    assert "depth" not in text
