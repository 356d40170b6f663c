"""What a run computes, how long that takes at a speed, and the speed measured."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ggufext.errors import EngineError
from ggufext.llama.process import LlamaProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ggufext.audit.task import Question
    from ggufext.llama.settings import LoadRequest


#: Tokens of a chat's answer, as far as an answer of ours needs to be known: a sentence with a key.
_USUAL_ANSWER = 16


@dataclass(frozen=True, slots=True)
class PromptSpan:
    """Positions of a prompt that are computed, [start, end): the rest is reused."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Processor seconds a token of each thread, at the start of a context and at its end.

    Attributes
    ----------
    prompt_start, prompt_end : float
        Of a token of a prompt, in micro-batches.
    answer_start, answer_end : float
        Of a token of an answer, one by one.
    context : int
        Cells in use where the end was measured, ≥ 1.
    tokens : int
        Tokens that the measurement took.
    can_reuse : bool
        Whether the start of a prompt can be kept for the next.
    stretch : float
        Seconds of a clock for a processor second: more than 1 where other programs run.
    """

    prompt_start: float
    prompt_end: float
    answer_start: float
    answer_end: float
    context: int
    tokens: int
    can_reuse: bool
    stretch: float

    def seconds(self, spans: Iterable[PromptSpan], *, answer_tokens: int) -> float:
        """Processor time of prompts with answers; of all work only attention grows with position.

        Parameters
        ----------
        spans : iterable of PromptSpan
        answer_tokens : int
            Longest answer.
        """
        answer = min(answer_tokens, _USUAL_ANSWER)
        total = 0.0
        for span in spans:
            middle = self._between(self.prompt_start, self.prompt_end, (span.start + span.end) / 2)
            total += (span.end - span.start) * middle
            total += answer * self._between(self.answer_start, self.answer_end, span.end)
        return total

    def _between(self, start: float, end: float, position: float) -> float:
        return start + max(end - start, 0.0) * position / self.context


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a run will take, seconds.

    Attributes
    ----------
    seconds : float
    sweep_seconds : float or None
        The same lengths, depths, trials and conditions in sweep mode; None where the run is one,
        or a sweep is not possible.
    shorter_seconds : float or None
        Without the longest length; None where it is the only one.
    """

    seconds: float
    sweep_seconds: float | None
    shorter_seconds: float | None


def spans(questions: Sequence[Question], *, reuse: int) -> list[PromptSpan]:
    """What is computed of each prompt, asked in this order.

    Parameters
    ----------
    questions : sequence of Question
    reuse : int
        The common start with the prompt before is kept up to a multiple of so many tokens; 0:
        nothing is kept.
    """
    found: list[PromptSpan] = []
    before: Question | None = None
    for question in questions:
        start = 0
        if reuse and before is not None and before.text == question.text:
            pairs = zip(before.parts, question.parts, strict=False)
            same = next(
                (index for index, (a, b) in enumerate(pairs) if a != b),
                min(len(before.parts), len(question.parts)),
            )
            start = question.tokens * same // len(question.parts) // reuse * reuse
        found.append(PromptSpan(start, question.tokens))
        before = question
    return found


#: Tokens of a micro-batch that is timed: larger ones are hardly faster on processors (4.7 against
#: 4.5 ms a token of a model with 135 million parameters), and take so much longer to time.
_MEASURED_UBATCH = 128

#: A run of fewer micro-batches is not measured: about ten of them are what it takes.
_WORTH_MEASURING = 32

#: In a shorter run the number of threads is not tried: five of them are what that takes.
_WORTH_CHOOSING = 100


def measure_threads(
    load: LoadRequest,
    numbers: Sequence[int],
    *,
    tokens: int,
    llama_cpp: Path | None = None,
) -> dict[int, float]:
    """Seconds a token of a prompt by the number of threads, on up to five micro-batches.

    Parameters
    ----------
    load : LoadRequest
        What the run opens.
    numbers : sequence of int
        To try; the first one is what the run would take without.
    tokens : int
        What the run is going to compute.

    Returns
    -------
    dict
        Empty where there is nothing to choose from, the run is too short to be worth it, or
        llama.cpp refuses.
    """
    if len(numbers) < 2 or tokens < _WORTH_CHOOSING * (load.context.n_ubatch or 0):
        return {}
    with LlamaProcess(llama_cpp) as process, suppress(EngineError):
        reply, _ = process.request(load.path, "threads", load=load, numbers=list(numbers))
        return dict(zip(numbers, reply["seconds"], strict=True))
    return {}


def measure_speed(
    load: LoadRequest,
    flash_attention: Sequence[bool],
    *,
    tokens: int,
    llama_cpp: Path | None = None,
) -> dict[bool, Speed]:
    """Seconds a token, without and with flash attention, on a few hundred tokens.

    Parameters
    ----------
    load : LoadRequest
        What the run opens.
    flash_attention : sequence of bool
        Settings to try.
    tokens : int
        What the run is going to compute.
    llama_cpp : Path, optional
        See `LlamaProcess`.

    Returns
    -------
    dict
        By setting. One that llama.cpp refuses, or dies of, is not there: an audit does not depend
        on its speed. Empty where the run is too short to be worth it.
    """
    if tokens < _WORTH_MEASURING * (load.context.n_ubatch or 0):
        return {}
    found = {}
    with LlamaProcess(llama_cpp) as process:
        for setting in flash_attention:
            n_ubatch = min(load.context.n_ubatch or _MEASURED_UBATCH, _MEASURED_UBATCH)
            context = replace(load.context, flash_attn_type=int(setting), n_ubatch=n_ubatch)
            with suppress(EngineError):
                reply, _ = process.request(load.path, "time", load=replace(load, context=context))
                found[setting] = Speed(**reply)
    return found
