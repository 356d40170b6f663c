"""Whether a tokenizer leaves pass keys alone, so that a hit and a miss mean something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.task import wording
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_SAMPLE = ("10000", "48213", "70707", "95061")


def check_keys(
    pieces: Callable[[Sequence[str]], list[list[bytes]]], *, path: Path | None = None
) -> None:
    """Check that a key is the same tokens wherever it stands, and tokens of its own.

    Parameters
    ----------
    pieces : callable
        Bytes of every token of texts, each as it stands behind a full stop.

    Raises
    ------
    EngineError
        ``cannot_be_audited``.
    """
    for key in _SAMPLE:
        line, answer = pieces([wording.key_line(key), f" {key}"])
        found = {_tokens_of(key, line, 0), _tokens_of(key, line, 1), _tokens_of(key, answer, 0)}
        if None in found:
            text = b"".join(line).decode(errors="replace").strip()
            raise EngineError(
                code="cannot_be_audited",
                path=path,
                message=f"the tokenizer gives key {key} no tokens of its own in {text!r}: digits "
                "are lost or merged with their neighbours, and a hit would mean nothing; this "
                "model cannot be audited with numbers",
            )
        if len(found) != 1:
            raise EngineError(
                code="cannot_be_audited",
                path=path,
                message=f"the tokenizer splits key {key} differently in the text and in the "
                "answer: a miss would blame the model for its tokenizer; it cannot be audited "
                "with numbers",
            )


def _tokens_of(key: str, pieces: Sequence[bytes], occurrence: int) -> tuple[bytes, ...] | None:
    """Tokens of an occurrence of a key without a leading space; None where not its own."""
    text, wanted = b"".join(pieces), key.encode()
    start = text.find(wanted)
    for _ in range(occurrence):
        start = text.find(wanted, start + 1)
    if start < 0:
        return None
    end, position = start + len(wanted), 0
    found: list[bytes] = []
    for piece in pieces:
        low, high = position, position + len(piece)
        position = high
        if high <= start or low >= end:
            continue
        own = piece.lstrip(b" ") if low < start else piece
        if high - len(own) < start or high > end:
            return None
        found.append(own)
    return tuple(found)
