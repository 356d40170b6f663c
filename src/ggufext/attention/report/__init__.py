"""Measured attention in the terminal, as a page, a PNG or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.report import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.attention.results import MeasureResult


def write_report(result: MeasureResult, path: Path) -> None:
    """Write a report in the format of its ending: .html, .png or .json.

    Raises
    ------
    GgufextError
        See `ggufext.audit.report.write_file`.
    """
    from ggufext.attention.report.page import page
    from ggufext.attention.report.picture import png

    write_file(path, result, page, png)
