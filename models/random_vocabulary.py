"""A byte-level vocabulary of any size: loadable, and as heavy as that of a real file."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import IntEnum

#: Merges per token in the vocabularies of the 128k-token models: 280,147 for 128,256.
MERGES_PER_TOKEN = 2.19

#: Longest token in characters; gives the 7.8 MB of a real header with 128k tokens.
LONGEST_TOKEN = 10

CONTROL_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>")


class TokenType(IntEnum):
    """Types of tokens, as numbered by llama.cpp."""

    NORMAL = 1
    CONTROL = 3


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens, their types and the merges that build them; the last two are begin and end."""

    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    begin: int
    end: int


def byte_tokens() -> tuple[str, ...]:
    """Printable characters that stand for the 256 bytes, in the order of GPT-2's vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return tuple(chr(code) for code in (*printable, *range(0x100, 0x100 + 256 - len(printable))))


def random_vocabulary(size: int, *, seed: int = 0) -> Vocabulary:
    """Build a vocabulary of `size` tokens, each longer token the merge of two earlier ones.

    Parameters
    ----------
    size : int
        Tokens, ≥ 259: the bytes, one merged token and two control tokens.
    seed : int
        The same seed gives the same vocabulary.
    """
    if size < 256 + 1 + len(CONTROL_TOKENS):
        raise ValueError(f"vocabulary of {size} tokens; at least 259 are needed")
    choice = random.Random(seed)
    tokens = list(byte_tokens())
    known = set(tokens)
    merges: dict[str, None] = {}
    while len(tokens) < size - len(CONTROL_TOKENS):
        # The cube favours early, short tokens, as training does.
        left, right = (tokens[int(len(tokens) * choice.random() ** 3)] for _ in range(2))
        if len(left) + len(right) <= LONGEST_TOKEN and left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
            merges[f"{left} {right}"] = None
    # Other splits of the same tokens: real lists hold several ways to build one token.
    wanted = int(MERGES_PER_TOKEN * len(merges))
    splits = (
        f"{token[:cut]} {token[cut:]}"
        for cut in range(1, LONGEST_TOKEN)
        for token in tokens[256:]
        if cut < len(token)
    )
    while len(merges) < wanted and (split := next(splits, None)) is not None:
        merges[split] = None
    return Vocabulary(
        tokens=(*tokens, *CONTROL_TOKENS),
        types=(TokenType.NORMAL,) * len(tokens) + (TokenType.CONTROL,) * len(CONTROL_TOKENS),
        merges=tuple(merges),
        begin=len(tokens),
        end=len(tokens) + 1,
    )
