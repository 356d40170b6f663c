"""The report as one HTML page that loads nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.report.document import document, table
from ggufext.audit.report.drawing import element
from ggufext.comparison.report import page as comparison
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

#: Of a request, what the page has nowhere else.
_ASKED = (
    *("target_length", "minutes", "metadata_only", "texts", "search_texts"),
    *("trials", "depths", "seed", "threshold"),
)


def page(result: TuneResult) -> str:
    """The whole HTML document, UTF-8."""
    found, decision = searched(result), result.decision
    notes = [element("li", element("strong", "Note"), " ", x.message) for x in warnings(result)]
    more = more_text(result)
    return document(
        title(result),
        [
            element("p", element("strong", "Result"), " ", result_text(result)),
            *([element("ul", *notes, attributes={"class": "caution"})] if notes else []),
            element("h2", "What was searched"),
            table(SEARCHED_TITLE, ["scaling", *found.columns], list(found.rows.items())),
            *([element("p", more, attributes={"class": "soft"})] if more else []),
            *(
                [
                    element("h2", HELD_OUT_TITLE),
                    element("p", run_line(decision), attributes={"class": "soft"}),
                    *comparison.sections(measured(decision)),
                ]
                if decision is not None
                else []
            ),
            *comparison.reproduction(result, result.run, result.model, result.request, _ASKED),
        ],
    )
