"""A finished audit as a picture in the terminal, a page, a PNG or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ggufext.errors import GgufextError

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.audit.results import CheckResult

#: What the ending of a report's name may be.
SUFFIXES = (".html", ".png", ".json")


def check_report_path(path: Path) -> None:
    """Refuse a report that could not be written, before hours of measuring.

    Raises
    ------
    GgufextError
        ``report_format`` for another ending than .html, .png or .json, ``report_folder`` for a
        folder that does not exist, ``report_extra_missing`` for a PNG without matplotlib.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise GgufextError(
            code="report_format",
            path=path,
            message=f"a report ends in {', '.join(SUFFIXES)}; found {path.suffix or 'no ending'!r}",
        )
    if not path.parent.is_dir():
        raise GgufextError(
            code="report_folder", path=path, message="its folder does not exist; create it first"
        )
    if path.suffix.lower() == ".png" and find_spec("matplotlib") is None:
        raise GgufextError(
            code="report_extra_missing",
            path=path,
            message="a PNG needs matplotlib, which is not installed: pip install "
            "'ggufext[report]', or ask for .html",
        )


def write_report(result: CheckResult, path: Path) -> None:
    """Write a report in the format of its ending: .html, .png or .json.

    Raises
    ------
    GgufextError
        See `check_report_path`.
    OSError
        The file cannot be written.
    """
    check_report_path(path)
    suffix = path.suffix.lower()
    if suffix == ".html":
        from ggufext.audit.report.page import page

        path.write_text(page(result), encoding="utf-8")
    elif suffix == ".png":
        from ggufext.audit.report.png import write_png

        write_png(result, path)
    else:
        path.write_text(as_json(result) + "\n", encoding="utf-8")


def as_json(result: CheckResult) -> str:
    """The result by the field names of its dataclasses."""
    return json.dumps(asdict(result), indent=2, ensure_ascii=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} has no place in a result")
