"""All pictures as one PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.report.drawing import below, paragraph, png_of
from ggufext.comparison.report.picture import WIDTH, blocks, listed
from ggufext.comparison.report.sentences import measured, run_line
from ggufext.tuning.report.sentences import (
    HELD_OUT_TITLE,
    SEARCHED_TITLE,
    more_text,
    result_text,
    searched,
    title,
    warnings,
)

if TYPE_CHECKING:
    from ggufext.tuning.results import TuneResult


def png(result: TuneResult) -> bytes:
    """All pictures and sentences as one PNG; needs the extra ``[report]``."""
    decision, more = result.decision, more_text(result)
    return png_of(
        [
            paragraph(title(result), WIDTH, "title"),
            paragraph(f"result: {result_text(result)}", WIDTH, "name"),
            listed(SEARCHED_TITLE, searched(result)),
            *([paragraph(more, WIDTH, "soft")] if more else []),
            *(
                [
                    paragraph(f"{HELD_OUT_TITLE}: {run_line(decision)}", WIDTH, "name"),
                    *blocks(measured(decision)),
                ]
                if decision is not None
                else []
            ),
            below([paragraph(f"note: {x.message}", WIDTH) for x in warnings(result)], 4),
        ]
    )
