"""A finished audit as a picture in the terminal, a page, a PNG or JSON."""

from __future__ import annotations

import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ggufext.errors import GgufextError
from ggufext.opened.files import why_not_writable
from ggufext.text import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ggufext.audit.findings.results import CheckResult

_Result = TypeVar("_Result")

#: What the ending of a report's name may be.
_SUFFIXES = (".html", ".png", ".json")

#: Of the extra ``[report]``: resvg draws a PNG, and no text in it without a font.
_PNG_PACKAGES = ("resvg_py", "font_source_sans_pro")


def check_report_path(path: Path, *, inputs: Iterable[Path] = ()) -> None:
    """Refuse a report that could not be written, before hours of measuring.

    Parameters
    ----------
    path : Path
    inputs : iterable of Path
        Files of the run, which a report must not replace.

    Raises
    ------
    GgufextError
        ``report_path`` for another ending than .html, .png or .json, a folder that does not exist
        or takes no files, or a file that the run reads; ``extra_missing`` for a PNG without
        its packages.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise GgufextError(
            code="report_path",
            path=path,
            message=f"a report ends in {', '.join(_SUFFIXES)}; found "
            f"{path.suffix or 'no ending'!r}",
        )
    if why := why_not_writable(path):
        raise GgufextError(code="report_path", path=path, message=why)
    target = _target(path)
    for each in inputs:
        if target == _target(each) or (path.exists() and each.exists() and path.samefile(each)):
            raise GgufextError(
                code="report_path",
                path=path,
                message="is a file that this run reads or keeps its answers in, and the report "
                "would replace it; name another file",
            )
    if path.suffix.lower() == ".png" and None in map(find_spec, _PNG_PACKAGES):
        raise GgufextError(
            code="extra_missing",
            path=path,
            message="a PNG needs resvg-py and a font, which are not installed: pip install "
            "'ggufext[report]', or ask for .html",
        )


def write_report(result: CheckResult, path: Path) -> None:
    """Write a report in the format of its ending: .html, .png or .json; see `write_file`."""
    from ggufext.audit.report.page import page
    from ggufext.audit.report.picture import png

    write_file(path, result, page, png)


def write_file(
    path: Path, result: _Result, page: Callable[[_Result], str], png: Callable[[_Result], bytes]
) -> None:
    """Write a report; what stood there before stays until the new one is on the disk.

    Parameters
    ----------
    path : Path
    result : dataclass
        Of .json the content.
    page, png : callable
        Make the content of .html and .png of it.

    Raises
    ------
    GgufextError
        See `check_report_path`; ``report_not_written``.
    """
    check_report_path(path)
    contents = {
        ".html": lambda: page(result).encode(),
        ".png": lambda: png(result),
        ".json": lambda: json_text(result).encode() + b"\n",
    }
    target = _target(path)
    beside = target.with_name(f".ggufext-report-{secrets.token_hex(8)}")
    try:
        try:
            with beside.open("xb") as file:
                file.write(contents[path.suffix.lower()]())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise GgufextError(
            code="report_not_written",
            path=path,
            message=f"cannot be written ({error.strerror}); what stood there is unchanged; give "
            "another --report (with --resume, a run is not repeated)",
        ) from error


def _target(path: Path) -> Path:
    """Where a path leads; a loop of links leads to itself."""
    return Path(os.path.realpath(path))
