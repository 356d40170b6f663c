"""Whether two models speak of the same tokens, as a draft model and its target must."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.errors import printable

if TYPE_CHECKING:
    from ggufext.header.header import Header

_TOKENS = "tokenizer.ggml.tokens"

#: Keys that llama.cpp compares, where both files have them.
_ALIKE = (
    "tokenizer.ggml.model",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.eos_token_id",
)

#: The first tokens may differ, and one list may be so much longer.
#: Source: llama.cpp, common/speculative.cpp (SPEC_VOCAB_…).
_FIRST, _LONGER = 5, 128


def difference(target: Header, draft: Header) -> str | None:
    """What keeps llama.cpp from letting one model draft tokens for another; None: nothing is seen.

    Parameters
    ----------
    target, draft : Header
        Of the first parts of split models.
    """
    for name, header in (("target", target), ("draft", draft)):
        if _TOKENS not in header.keys:
            return f"the {name} has no {_TOKENS}"
    for key in _ALIKE:
        if key in target.keys and key in draft.keys:
            wanted, found = target.value(key), draft.value(key)
            if wanted != found:
                return f"{key} is {_said(found)} in the draft and {_said(wanted)} in the target"
    ours, theirs = _tokens(target), _tokens(draft)
    if abs(len(ours) - len(theirs)) > _LONGER:
        return f"the draft has {len(theirs):,} tokens and the target {len(ours):,}"
    for number, (token, other) in enumerate(zip(ours, theirs, strict=False)):
        if number >= _FIRST and token != other:
            return (
                f"token {number:,} is {_said(other)} in the draft and {_said(token)} in the target"
            )
    return None


def token_count(header: Header) -> int:
    """Tokens that a file lists."""
    return header.keys[_TOKENS].count


def _tokens(header: Header) -> tuple[object, ...]:
    value = header.value(_TOKENS)
    return value if isinstance(value, tuple) else ()


def _said(value: object) -> str:
    return repr(printable(value, 40)) if isinstance(value, str) else str(value)
