"""A search in the terminal, as a page, a PNG or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.report import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.tuning.results import TuneResult


def write_report(result: TuneResult, path: Path) -> None:
    """Write a report in the format of its ending: .html, .png or .json.

    Raises
    ------
    GgufextError
        See `ggufext.audit.report.write_file`.
    """
    from ggufext.tuning.report.page import page
    from ggufext.tuning.report.picture import png

    write_file(path, result, page, png)
