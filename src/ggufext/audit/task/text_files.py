"""Files of text that a model reads."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from ggufext.errors import PlanError, of_system

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes read of a file, for a token: no text has so many.
_BYTES_A_TOKEN = 64


def read_text(path: Path, *, tokens: int) -> str:
    """The beginning of a file of UTF-8 text, as much as `tokens` tokens can need.

    White space around it is left out, and stands before it: words behind a full stop have one.

    Raises
    ------
    PlanError
        ``bad_text``: the file is empty or not UTF-8; what the system says of it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(tokens * _BYTES_A_TOKEN)
        # A character that is cut off at the end of what is read is no error.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data)
    except UnicodeDecodeError as error:
        raise PlanError(
            code="bad_text",
            path=path,
            offset=error.start,
            message="is not UTF-8, so it is no text; name a text file, or convert it",
        ) from error
    except OSError as error:
        raise of_system(error, path, kind=PlanError) from error
    text = text.replace("\r\n", "\n").strip()
    if not text:
        raise PlanError(code="bad_text", path=path, message="is empty; name a text file")
    return f" {text}"


def too_short(path: Path, found: int, wanted: int) -> PlanError:
    """The error of a text that has fewer tokens than are wanted."""
    return PlanError(
        code="text_too_short",
        path=path,
        message=f"holds {found:,} tokens of this model, and {wanted:,} are read; name a longer "
        "text, or a shorter length",
    )
