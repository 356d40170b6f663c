"""Settings that are taken because they were measured to be faster, and how that is said."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ggufext.errors import ModelWarning
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ggufext.audit.run.duration import Speed

_Setting = TypeVar("_Setting", int, bool)

#: Another setting than the first is taken where that takes so much longer.
_WORTH_CHANGING = 1.1


def fastest(takes: Mapping[_Setting, float]) -> _Setting | None:
    """The setting to use; the first one where the others are hardly faster."""
    if not takes:
        return None
    usual, best = next(iter(takes)), min(takes, key=takes.__getitem__)
    return best if takes[usual] > _WORTH_CHANGING * takes[best] else usual


def threads_chosen(paces: Mapping[int, float]) -> tuple[ModelWarning, ...]:
    """Say how many threads were chosen, and why."""
    chosen = fastest(paces)
    if chosen is None:
        return ()
    (other,) = paces.keys() - {chosen}
    more = paces[other] / paces[chosen]
    why = (
        f"with {other} a prompt took {more:,.1f} times as long"
        if more > _WORTH_CHANGING
        else f"{other} was about as fast"
    )
    message = f"threads: {chosen}, measured on the first tokens of this model ({why})"
    return (ModelWarning("threads_chosen", message),)


def flash_attention_chosen(
    flash_attention: bool, takes: Mapping[bool, float], speed: Speed | None, *, kept: object
) -> tuple[ModelWarning, ...]:
    """Say that flash attention was chosen, and why: answers may differ with it."""
    state = "on" if flash_attention else "off"
    if isinstance(kept, bool):
        why = "as in the run that this one continues"
    elif speed is not None and len(takes) == 2:
        more = takes[not flash_attention] / takes[flash_attention]
        why = (
            f"which is faster here ({'off' if flash_attention else 'on'} it would take "
            f"{percent(more - 1)} longer"
            if more > _WORTH_CHANGING
            else "as usual (on is about as fast"
        )
        why += f", measured on {2 * speed.tokens:,} tokens of this model)"
    else:
        return ()
    message = f"flash attention is {state}, {why}; another setting may change single answers"
    return (ModelWarning("flash_attention_chosen", message),)
