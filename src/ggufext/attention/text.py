"""The text that attention is measured on: a file's, or one made for it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ggufext.audit.task import wording
from ggufext.errors import EngineError, PlanError, of_system

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.audit.task import Counts

#: Characters of a file that are read for each token: more than text needs.
_CHARACTERS = 32

#: Sentences that are counted at once.
_SENTENCES = 256


def read_text(path: Path, tokens: int) -> str:
    """The beginning of a file, enough for so many tokens.

    Raises
    ------
    PlanError
        ``bad_text``: it is not UTF-8; and what the system says of the file.
    """
    try:
        with path.open(encoding="utf-8") as file:
            # The leading space: words behind a full stop begin with one.
            return " " + file.read(_CHARACTERS * tokens).lstrip()
    except UnicodeDecodeError as error:
        raise PlanError(
            code="bad_text",
            path=path,
            message=f"is not UTF-8 text ({error.reason} at byte {error.start:,} of its beginning); "
            "name a text file, or leave --text out",
        ) from error
    except OSError as error:
        raise of_system(error, path, kind=PlanError) from error


def refuse_short(text: str, tokens: int, counts: Counts, path: Path) -> None:
    """Refuse a text that a length does not fit into.

    Raises
    ------
    PlanError
        ``bad_text``.
    """
    (found,) = counts([text])
    if found < tokens:
        raise PlanError(
            code="bad_text",
            path=path,
            message=f"its {len(text):,} characters are {found:,} tokens of this model, and "
            f"{tokens:,} are to be read: give a longer text, or a --length up to {found:,}",
        )


def filler(tokens: int, counts: Counts, seed: int) -> list[str]:
    """Filler sentences of the audit, of at least so many tokens together.

    Raises
    ------
    EngineError
        ``cannot_be_audited``.
    """
    rng = random.Random(seed)
    sentences: list[str] = []
    while tokens > 0:
        block = [wording.sentence(rng) for _ in range(_SENTENCES)]
        found = sum(counts(block))
        if not found:
            raise EngineError(
                code="cannot_be_audited",
                message="the tokenizer gives English sentences no tokens at all; name a --text "
                "that it knows",
            )
        sentences += block
        tokens -= found
    return sentences
