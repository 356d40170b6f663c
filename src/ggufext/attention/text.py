"""The text that attention is measured on where no file is named."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ggufext.audit.task import wording
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from ggufext.audit.task import Counts

#: Sentences that are counted at once.
_SENTENCES = 256


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
