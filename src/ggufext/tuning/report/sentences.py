"""What the reports of a search say: the same in the terminal, on the page and in the PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.report.sentences import model_name, short_name
from ggufext.comparison.report.sentences import Rows
from ggufext.errors import printable_message

if TYPE_CHECKING:
    from ggufext.errors import ModelWarning
    from ggufext.tuning.results import TuneResult

SEARCHED_TITLE = "Scalings by loss beyond the training length on the search texts"
HELD_OUT_TITLE = "On held-out texts"

#: Scalings that were only screened: so many are shown.
_SCREENED_SHOWN = 5


def title(result: TuneResult) -> str:
    """What was searched for."""
    length = result.request.target_length
    return f"Search for a scaling of {model_name(result.run)} to {length:,} tokens"


def result_text(result: TuneResult) -> str:
    """What is to be written, and why, in a sentence."""
    if result.kept and result.tuned is not None:
        return f"{short_name(result.tuned)} is kept: {printable_message(result.reason)}"
    found = "the closed form stays" if result.plan else "nothing is recommended"
    if result.decision is None:
        found = "not decided"
    return f"{found}: {printable_message(result.reason)}"


def searched(result: TuneResult) -> Rows:
    """What was run, and the best of what was only screened."""
    run = sum(each.texts > 0 for each in result.searched)
    rows = {
        each.name: [
            f"{each.texts}",
            "–" if each.loss is None else f"{each.loss:.3f}",
            f"{each.output_error:.3f}",
        ]
        for each in result.searched[: run + _SCREENED_SHOWN]
    }
    return Rows(["texts", "loss in nats a token", "output error of the screen"], rows)


def more_text(result: TuneResult) -> str | None:
    """How many scalings the table leaves out."""
    more = len(result.searched) - len(searched(result).rows)
    return f"and {more} more, only screened" if more else None


def warnings(result: TuneResult) -> list[ModelWarning]:
    """Those of the search and of its decision, each once."""
    decided = result.decision.warnings if result.decision else ()
    return list(dict.fromkeys((*decided, *result.warnings)))
