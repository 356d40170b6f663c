"""The passkey task; its prompts are a property of seed, tokenizer, lengths, depths and texts.

Prompts of one text share its filler, so that an engine can reuse what it has computed: those of
standard mode up to the key, those of sweep mode up to the question. `Text.questions` come in the
order in which one growing and shrinking sequence reuses most.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from ggufext.audit.request import Mode
from ggufext.audit.task import Question, wording
from ggufext.audit.task.answers import judge, stop_rule
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ggufext.audit.task import Counts, Pieces, PromptPlan
    from ggufext.audit.task.answers import Judgement

#: A prompt without room for this many filler sentences shows nothing about depth.
_SMALLEST_FILLER = 4

#: Sentences at the end of a standard prompt that are chosen to meet its length exactly.
_TAIL_SENTENCES = 2

#: Sentences to choose them from.
_SPARE_SENTENCES = 24

#: Tokens of sentences that fill the place of a piece of a text: more than any piece has.
_SPARE_TOKENS = 2048

#: Keys that a tokenizer is tried on.
_SAMPLE = ("10000", "48213", "70707", "95061")


class _Filler:
    """Random sentences of at least `tokens` tokens together, each used once."""

    def __init__(self, rng: random.Random, tokens: int, counts: Counts) -> None:
        self._pool: list[tuple[str, int]] = []
        wanted = tokens
        while wanted >= 0 or not self._pool:
            texts = [wording.sentence(rng) for _ in range(_SPARE_SENTENCES + wanted // 8)]
            block = list(zip(texts, counts(texts), strict=True))
            if any(count < 1 for _, count in block):
                raise EngineError(
                    code="cannot_be_audited",
                    message="the tokenizer gives some sentences no tokens at all, so no prompt of "
                    "a known length can be made; this model cannot be audited in words",
                )
            self._pool += block
            wanted -= sum(count for _, count in block)
        self.longest = max(count for _, count in self._pool)

    def turned(self, by: int) -> _Filler:
        """The same sentences, beginning with another one."""
        other = copy(self)
        by %= len(self._pool)
        other._pool = self._pool[by:] + self._pool[:by]
        return other

    def exactly(self, tokens: int) -> list[tuple[str, int]]:
        """Sentences of exactly `tokens` tokens together, or a few less where none fit."""
        taken: list[tuple[str, int]] = []
        while tokens > _TAIL_SENTENCES * self.longest:
            taken.append(self._pool.pop(0))
            tokens -= taken[-1][1]
        last = self._subset(tokens)
        taken += [self._pool.pop(index) for index in sorted(last, reverse=True)]
        return taken

    def _subset(self, tokens: int) -> tuple[int, ...]:
        """Indices of sentences with the largest sum up to `tokens`."""
        sums: dict[int, tuple[int, ...]] = {0: ()}
        for index, (_, count) in enumerate(self._pool[:_SPARE_SENTENCES]):
            for total, indices in tuple(sums.items()):
                if total + count <= tokens:
                    sums.setdefault(total + count, (*indices, index))
            if tokens in sums:
                break
        return sums[max(sums)]

    def all(self) -> list[tuple[str, int]]:
        """Every sentence in order."""
        return self._pool


class _Pieces(_Filler):
    """Pieces of a text in their order, and sentences of ours where a length ends within one."""

    def __init__(self, pieces: Sequence[str], spare: _Filler, counts: Counts) -> None:
        self._pool = list(zip(pieces, counts(pieces), strict=True))
        self._spare = spare
        self.longest = spare.longest

    def exactly(self, tokens: int) -> list[tuple[str, int]]:
        """See `_Filler`; the text goes on behind the sentences with the piece that did not fit."""
        taken: list[tuple[str, int]] = []
        closing = _TAIL_SENTENCES * self._spare.longest
        while self._pool and tokens - self._pool[0][1] >= closing:
            taken.append(self._pool.pop(0))
            tokens -= taken[-1][1]
        # From another one on each time: they would run out.
        self._spare = self._spare.turned(len(taken))
        return taken + self._spare.turned(0).exactly(tokens)


def _rng(plan: PromptPlan, *parts: object) -> random.Random:
    """Source of one choice: another length or more texts do not change it."""
    return random.Random("/".join(map(str, ("passkey", plan.mode.value, plan.seed, *parts))))


def _require_room(length: int, room: int, fixed: int, filler: _Filler) -> None:
    wanted = _SMALLEST_FILLER * filler.longest
    if room < wanted:
        raise EngineError(
            code="length_too_short",
            message=f"length {length:,} has no room for the prompt; with this model it needs "
            f"{fixed + wanted:,} tokens; leave that length out, or ask at fewer depths",
        )


def _standard(plan: PromptPlan, text: int, counts: Counts) -> list[Question]:
    """Questions of one text, the deepest key first: all others share the filler before theirs."""
    asking = (wording.QUESTION,) if plan.chat else (wording.QUESTION, wording.ANSWER_START)
    announced, *asked = counts([wording.ANNOUNCEMENT, *asking])
    cells = [(length, bin_) for length in plan.lengths for bin_ in range(len(plan.depths))]
    keys = [wording.random_key(_rng(plan, "key", text, *cell)) for cell in cells]
    key_lines = [wording.key_line(key) for key in keys]
    key_tokens = counts(key_lines)
    fixed = plan.lead + announced + sum(asked) + plan.trail + plan.answer_tokens

    filler = _Filler(_rng(plan, "filler", text), plan.lengths[-1], counts)
    for length in plan.lengths:
        needed = fixed + max(key_tokens)
        _require_room(length, length - needed, needed, filler)
    # Tokenizing is what making prompts costs: the cells of a text share what ends them.
    spare = _Filler(_rng(plan, "tail", text), 0, counts)
    sentences = [sentence for sentence, _ in filler.all()]
    starts = list(accumulate((count for _, count in filler.all()), initial=0))

    questions = []
    for (length, bin_), key, line, size in zip(cells, keys, key_lines, key_tokens, strict=True):
        room = length - fixed - size
        shared = max(0, bisect_right(starts, room) - 1 - _TAIL_SENTENCES)
        turn = _rng(plan, "tail", text, length, bin_).randrange(_SPARE_SENTENCES)
        tail = spare.turned(turn).exactly(room - starts[shared])
        depth = plan.depths[bin_].at(_rng(plan, "depth", text, length, bin_).random())
        body = (*sentences[:shared], *(sentence for sentence, _ in tail))
        ends = (*starts[:shared], *accumulate((n for _, n in tail), initial=starts[shared]))
        place = _nearest(ends, depth * room)
        behind = ends[-1] - ends[place]
        questions.append(
            Question(
                text=text,
                length=length,
                depth=plan.depths[bin_].depth,
                distance=behind,
                key=key,
                parts=(wording.ANNOUNCEMENT, *body[:place], line, *body[place:], *asking),
                tokens=fixed - plan.answer_tokens + ends[-1] + size,
                key_start=plan.lead + announced + ends[place],
                stop=stop_rule(key),
            )
        )
    return sorted(questions, key=lambda question: -question.key_start)


def _nearest(starts: Sequence[int], wanted: float) -> int:
    """Index of the sentence boundary nearest to a position."""
    above = min(bisect_left(starts, wanted), len(starts) - 1)
    return min((max(above - 1, 0), above), key=lambda i: abs(starts[i] - wanted))


@dataclass(frozen=True, slots=True)
class _Placed:
    """A labelled key in a sweep text: its line lies at tokens [start, end)."""

    label: str
    key: str
    start: int
    end: int


def sweep(
    plan: PromptPlan, text: int, counts: Counts, *, pieces: Sequence[str] | None = None
) -> list[Question]:
    """Questions of one text, the shortest length first: the text only ever grows.

    Parameters
    ----------
    plan : PromptPlan
    text : int
        Its number.
    counts : callable
        Token counts of texts, each as it stands behind a full stop.
    pieces : sequence of str, optional
        What stands between the keys in the place of filler: so many tokens of it as the longest
        length has. Where a length ends within a piece, sentences of ours fill the rest.

    Raises
    ------
    EngineError
        ``length_too_short``, ``request_absurd``.
    """
    (announced,) = counts([wording.SWEEP_ANNOUNCEMENT])
    begin = plan.lead + announced
    wanted_keys = len(plan.lengths) * len(plan.depths)
    if wanted_keys > wording.MOST_LABELS:
        raise EngineError(
            code="request_absurd",
            message=f"{len(plan.lengths)} lengths at {len(plan.depths)} depths need "
            f"{wanted_keys:,} labelled keys; there are {wording.MOST_LABELS:,}; ask for fewer",
        )
    names = wording.labels(_rng(plan, "labels", text), wanted_keys)
    keys = [wording.random_key(_rng(plan, "key", text, index)) for index in range(len(names))]
    lines = [wording.sweep_key_line(*pair) for pair in zip(names, keys, strict=True)]
    line_tokens = counts(lines)
    askings = [
        (wording.sweep_question(name),)
        if plan.chat
        else (wording.sweep_question(name), wording.sweep_answer_start(name))
        for name in names
    ]
    sizes = iter(counts([part for asking in askings for part in asking]))
    asked = [sum(next(sizes) for _ in asking) for asking in askings]

    longest_question = max(asked) + plan.trail + plan.answer_tokens
    stops = [(length - longest_question) // plan.split * plan.split for length in plan.lengths]
    wanted = _SPARE_TOKENS if pieces else plan.lengths[-1]
    filler = _Filler(_rng(plan, "filler", text), wanted, counts)
    if pieces:
        filler = _Pieces(pieces, filler, counts)
    targets, cells = _sweep_targets(plan, text, begin, stops)
    for length, stop, before in zip(plan.lengths, stops, (begin, *stops), strict=False):
        inside, between = (
            sum(
                size
                for size, target in zip(line_tokens, targets, strict=False)
                if low <= target < stop
            )
            for low in (begin, before)
        )
        keyed = max(2 * len(plan.depths) * max(line_tokens), inside)
        room = stop - begin - keyed if between <= stop - before else 0
        _require_room(length, room, begin + longest_question + plan.split + keyed, filler)

    parts: list[str] = [wording.SWEEP_ANNOUNCEMENT]
    placed: dict[int, _Placed] = {}
    ends: list[tuple[int, int]] = []  # parts and tokens before each length's question
    position = begin
    waiting = sorted(range(len(targets)), key=lambda index: targets[index])
    for stop in stops:
        here = [index for index in waiting if targets[index] < stop]
        waiting = waiting[len(here) :]
        sentences = filler.exactly(stop - position - sum(line_tokens[index] for index in here))
        while here or sentences:
            if here and (not sentences or position >= targets[here[0]]):
                index = here.pop(0)
                parts.append(lines[index])
                end = position + line_tokens[index]
                placed[index] = _Placed(names[index], keys[index], position, end)
                position = end
            else:
                sentence, count = sentences.pop(0)
                parts.append(sentence)
                position += count
        ends.append((len(parts), position))

    questions = []
    for (length_index, bin_), key_index in cells.items():
        known, tokens = ends[length_index]
        key = placed[key_index]
        questions.append(
            Question(
                text=text,
                length=plan.lengths[length_index],
                depth=plan.depths[bin_].depth,
                distance=tokens - key.end,
                key=key.key,
                parts=(*parts[:known], *askings[key_index]),
                tokens=tokens + asked[key_index] + plan.trail,
                key_start=key.start,
                stop=stop_rule(key.key),
            )
        )
    return questions


def _sweep_targets(
    plan: PromptPlan, text: int, begin: int, stops: Sequence[int]
) -> tuple[list[int], dict[tuple[int, int], int]]:
    """Where keys should lie so that every length has one in each depth bin.

    Returns
    -------
    targets : list of int
        Positions in tokens, one a key.
    cells : dict
        Index of the key that each (index of the length, depth bin) asks for.
    """
    targets: list[int] = []
    cells: dict[tuple[int, int], int] = {}
    for length_index, (length, stop) in enumerate(zip(plan.lengths, stops, strict=True)):
        for bin_, wanted in enumerate(plan.depths):
            low, high = (
                begin + math.floor((stop - begin) * edge) for edge in (wanted.start, wanted.end)
            )
            inside = [index for index, target in enumerate(targets) if low <= target < high]
            rng = _rng(plan, "depth", text, length, bin_)
            if inside:
                cells[length_index, bin_] = rng.choice(inside)
            else:
                targets.append(min(low + int(rng.random() * (high - low)), stop - 1))
                cells[length_index, bin_] = len(targets) - 1
    return targets, cells


def check_keys(pieces: Pieces, *, path: Path | None = None) -> None:
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


class Passkey:
    """Pass keys hidden in filler text; see `ggufext.audit.task.Task`.

    Standard mode hides one key in a text, sweep mode many labelled ones.
    """

    @staticmethod
    def questions(plan: PromptPlan, counts: Counts) -> tuple[Question, ...]:
        """All questions in the order to ask them: text by text.

        Parameters
        ----------
        plan : PromptPlan
        counts : callable
            Token counts of texts, each as it stands behind a full stop.

        Raises
        ------
        EngineError
            ``length_too_short``: a length has no room for the prompt itself; ``request_absurd``.
        """
        compose = _standard if plan.mode is Mode.STANDARD else sweep
        questions: list[Question] = []
        for text in range(plan.texts):
            questions += compose(plan, text, counts)
        return tuple(questions)

    @staticmethod
    def check_tokenizer(pieces: Pieces, path: Path) -> None:
        """See `check_keys`."""
        check_keys(pieces, path=path)

    @staticmethod
    def answer_tokens(counts: Counts) -> int:
        """As many as the longest key has: what a model says next is not its answer."""
        return max(counts([f" {key}" for key in ("10000", "48213", "70707", "99999")]))

    @staticmethod
    def judge(question: Question, answer: str) -> Judgement:
        """Whether the first integer of an answer is the key."""
        return judge(answer, question.key)
