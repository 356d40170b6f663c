"""What every run begins with: its task, its lengths and conditions in order, its prompts."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import TYPE_CHECKING

from ggufext import __version__
from ggufext.audit.request import Mode, depth_bins
from ggufext.audit.task import PromptPlan
from ggufext.audit.task.passkey import Passkey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ggufext.audit.request import CheckRequest
    from ggufext.audit.task import Counts, Task

TASKS: Mapping[Mode, Task] = {Mode.STANDARD: Passkey(), Mode.SWEEP: Passkey()}

#: Room for the answer of a chat model, which may say a sentence first.
_CHAT_ANSWER_TOKENS = 64


def in_order(request: CheckRequest, lengths: tuple[int, ...]) -> CheckRequest:
    """The request with rising lengths, and every condition once."""
    return replace(
        request,
        lengths=tuple(sorted(set(lengths))),
        conditions=tuple(dict.fromkeys(request.conditions)),
    )


def prompt_plan(
    request: CheckRequest,
    lengths: tuple[int, ...],
    counts: Counts,
    *,
    around: tuple[int, int],
    chat: bool,
    split: int,
) -> PromptPlan:
    """What prompts are made from.

    Parameters
    ----------
    request : CheckRequest
    lengths : tuple of int
        Those of the request that are possible, tokens.
    counts : callable
        See `ggufext.audit.engines.AuditEngine`.
    around : (int, int)
        Tokens that the engine puts before and behind a prompt.
    chat : bool
        Whether the model answers as in a chat.
    split : int
        See `PromptPlan`.
    """
    lead, trail = around
    answer_tokens = request.answer_tokens
    if answer_tokens is None:
        of_task = TASKS[request.mode].answer_tokens
        answer_tokens = _CHAT_ANSWER_TOKENS if chat else of_task(counts)
    return PromptPlan(
        mode=request.mode,
        lengths=lengths,
        depths=depth_bins(request.depths),
        texts=request.trials,
        seed=request.seed,
        answer_tokens=answer_tokens,
        lead=lead,
        trail=trail,
        chat=chat,
        split=split,
    )


def versions(**of_engine: str) -> dict[str, str]:
    """Versions of this program and of Python, with those of the engine."""
    return {"ggufext": __version__, "python": platform.python_version(), **of_engine}
