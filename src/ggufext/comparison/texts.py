"""The texts of a comparison: keys stand between their pieces, and what is scored of them.

A text is read once for each condition, up to one length after the other: what it really says is
scored, and at every length keys are asked for.
"""

from __future__ import annotations

import random
import re
from copy import copy
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from ggufext.audit.task import passkey, wording
from ggufext.audit.task.text_files import read_text, too_short

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence
    from pathlib import Path

    from ggufext.audit.task import Counts, Pieces, PromptPlan, Question
    from ggufext.audit.task.answers import Judgement

#: Tokens of a text that are scored: beyond that the blocks of an interval get no more, only longer.
_MOST_ROWS = 4000

#: Positions of all texts whose whole distributions are compared, and of one at least.
DISTRIBUTIONS, _FEWEST_DISTRIBUTIONS = 256, 8

#: Tokens that are averaged before intervals are drawn; fewer where a bin would have few blocks.
_BLOCK, _SMALLEST_BLOCK, _FEWEST_BLOCKS = 64, 8, 8

#: Positions below this share of the training length are a bin of their own.
_SHORT_SHARE = 8

#: Of `bin_edges`, the bins within the training length.
WITHIN = 2

#: Bins beyond it.
_FEWEST_BEYOND, _MOST_BEYOND = 2, 4

#: Characters of the longest piece: what keys and lengths are placed by.
_LONGEST_PIECE = 120

_SENTENCE = re.compile(r"(?<=[.!?])(?= \S)")
_WORD = re.compile(r"(?<=\S)(?= \S)")


class Span(NamedTuple):
    """Positions of a text, [start, end), tokens."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A text up to a length, and what is measured of it there.

    Attributes
    ----------
    length : int
        Nominal, tokens.
    parts : tuple of str
        The text from its beginning.
    rows : tuple of int
        Indices of tokens behind those of the segment before: what follows each is scored.
    distributions : tuple of int
        Of these, those whose whole distribution is wanted.
    questions : tuple of Question
    """

    length: int
    parts: tuple[str, ...]
    rows: tuple[int, ...]
    distributions: tuple[int, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A text with its keys.

    Attributes
    ----------
    number : int
    segments : tuple of Segment
        By rising length.
    bins : tuple of int
        Tokens scored in each bin of `bin_edges`.
    """

    number: int
    segments: tuple[Segment, ...]
    bins: tuple[int, ...]

    @property
    def questions(self) -> tuple[Question, ...]:
        """Those of all lengths."""
        return tuple(question for each in self.segments for question in each.questions)

    @property
    def distributions(self) -> int:
        """Positions whose whole distribution is wanted."""
        return sum(len(each.distributions) for each in self.segments)


def bin_edges(train_length: int, target_length: int) -> tuple[Span, ...]:
    """Bins of positions: short, up to the training length, and equal ones beyond it.

    Parameters
    ----------
    train_length, target_length : int
        Tokens, the target the longer.
    """
    short = train_length // _SHORT_SHARE
    beyond = target_length - train_length
    count = min(max(-(-target_length // train_length), _FEWEST_BEYOND), _MOST_BEYOND)
    edges = [train_length + beyond * index // count for index in range(count + 1)]
    return (Span(0, short), Span(short, train_length), *map(Span, edges, edges[1:]))


def blocks(values: Sequence[float]) -> tuple[float, ...]:
    """Means of neighbours: losses of near tokens lean on each other, those of blocks hardly.

    Parameters
    ----------
    values : sequence of float
        Of the scored tokens of a bin, in their order.

    Returns
    -------
    tuple of float
        Of blocks of equal size, but for one token; none of no values.
    """
    size = min(_BLOCK, max(_SMALLEST_BLOCK, len(values) // _FEWEST_BLOCKS))
    count = max(len(values) // size, 1) if values else 0
    edges = [len(values) * index // count for index in range(count + 1)] if count else []
    return tuple(sum(values[start:end]) / (end - start) for start, end in pairwise(edges))


def pieces(text: str) -> tuple[str, ...]:
    """A text in pieces that keys can stand between: sentences, and long ones at their blanks.

    The pieces together are the text, without white space around it and with a blank before.
    """
    return tuple(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    text = text.strip()
    for sentence in _SENTENCE.split(f" {text}") if text else ():
        piece = ""
        for word in _WORD.split(sentence):
            if piece and len(piece) + len(word) > _LONGEST_PIECE:
                yield piece
                piece = ""
            piece += word
            while len(piece) > 2 * _LONGEST_PIECE:  # a language without blanks
                yield piece[:_LONGEST_PIECE]
                piece = piece[_LONGEST_PIECE:]
        yield piece


def read_pieces(path: Path, *, tokens: int) -> tuple[str, ...]:
    """Pieces of a file, as many as `tokens` tokens can need; errors as of `read_text`."""
    return pieces(read_text(path, tokens=tokens))


class KeysInTexts:
    """Labelled keys between the pieces of texts; see `ggufext.audit.task.Task`.

    Parameters
    ----------
    files : sequence of (Path, sequence of str)
        Texts in pieces; without any the program makes texts of its own sentences.
    train_length, target_length : int
        Tokens.

    Attributes
    ----------
    texts : tuple of Text
        Known when `questions` is.
    names : tuple of str
        Where each text is from.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, Sequence[str]]],
        *,
        train_length: int,
        target_length: int,
    ) -> None:
        self._files = files
        self._train_length = train_length
        self.bins = bin_edges(train_length, target_length)
        self.texts: tuple[Text, ...] = ()
        self.names: tuple[str, ...] = ()

    def questions(self, plan: PromptPlan, counts: Counts) -> tuple[Question, ...]:
        """All questions, text by text, the shortest length first.

        Raises
        ------
        EngineError
            See `ggufext.audit.task.passkey.sweep`.
        PlanError
            ``text_too_short``.
        """
        made = () if self._files else tuple(_made(plan, text, counts) for text in range(plan.texts))
        found = [("made text", each) for each in made] or self.stretches(
            plan.lengths[-1], plan.texts, counts
        )
        self.names = tuple(name for name, _ in found)
        most = max(DISTRIBUTIONS // len(found), _FEWEST_DISTRIBUTIONS)
        self.texts = tuple(
            self._text(plan, number, counts, own=own, distributions=most)
            for number, (_, own) in enumerate(found)
        )
        return tuple(question for text in self.texts for question in text.questions)

    def only(self, numbers: Container[int]) -> KeysInTexts:
        """The same with some of its texts."""
        found = copy(self)
        kept = [
            (text, name)
            for text, name in zip(self.texts, self.names, strict=True)
            if text.number in numbers
        ]
        found.texts, found.names = tuple(text for text, _ in kept), tuple(name for _, name in kept)
        return found

    def stretches(
        self, length: int, most: int, counts: Counts
    ) -> list[tuple[str, tuple[str, ...]]]:
        """Texts of the files, in turn from each, with the name of the file.

        Parameters
        ----------
        length : int
            Of each, tokens.
        most : int
            Texts; one of each file in any case.
        counts : callable

        Raises
        ------
        PlanError
            ``text_too_short``: a file has not one.
        """
        by_file = []
        for path, whole in self._files:
            stretches, held = _divided(whole, counts, length=length, most=most)
            if not stretches:
                raise too_short(path, held, length)
            by_file.append([(path.name, each) for each in stretches])
        turns = [each for turn in zip_longest(*by_file) for each in turn if each is not None]
        return turns[: max(most, len(by_file))]

    def _text(
        self,
        plan: PromptPlan,
        number: int,
        counts: Counts,
        *,
        own: tuple[str, ...],
        distributions: int,
    ) -> Text:
        questions = passkey.sweep(plan, number, counts, pieces=own)
        by_length = {
            length: [each for each in questions if each.length == length] for length in plan.lengths
        }
        # A question is the last two parts of its prompt.
        known = {length: asked[0].parts[:-2] for length, asked in by_length.items()}
        stops = [plan.lead + sum(counts(parts)) for parts in known.values()]
        longest = known[plan.lengths[-1]]
        scored = self._scored(plan.lead, longest, counts(longest), set(own), stops)
        within = [row for row in scored if row < stops[0]]
        count = min(distributions, len(within))
        chosen = {within[len(within) * index // count] for index in range(count)}
        segments = []
        for length, start, end in zip(plan.lengths, (0, *stops), stops, strict=False):
            rows = tuple(row for row in scored if start <= row < end)
            segments.append(
                Segment(
                    length=length,
                    parts=known[length],
                    rows=rows,
                    distributions=tuple(row for row in rows if row in chosen),
                    questions=tuple(by_length[length]),
                )
            )
        return Text(
            number=number,
            segments=tuple(segments),
            bins=tuple(
                sum(each.start <= row + 1 < each.end for row in scored) for each in self.bins
            ),
        )

    def _scored(
        self,
        lead: int,
        parts: Sequence[str],
        sizes: Sequence[int],
        own: set[str],
        stops: Sequence[int],
    ) -> list[int]:
        """Rows before tokens of the text itself, at most `_MOST_ROWS`.

        What follows a key or a sentence of ours is left out with it, and so is what lies between
        the first stop and the training length: contexts for one and the other may differ.
        """
        rows: list[int] = []
        position, follows_own = lead, False
        for part, size in zip(parts, sizes, strict=True):
            is_own = part in own
            if is_own:
                rows += range(position - follows_own, position + size - 1)
            position, follows_own = position + size, is_own
        boundaries = {stop - 1 for stop in stops}
        known = [
            row
            for row in rows
            if row not in boundaries and (row + 1 < stops[0] or row + 1 >= self._train_length)
        ]
        return known[:: -(-len(known) // _MOST_ROWS)] if known else []

    @staticmethod
    def check_tokenizer(pieces: Pieces, path: Path) -> None:
        """See `ggufext.audit.task.passkey.check_keys`."""
        passkey.check_keys(pieces, path=path)

    @staticmethod
    def answer_tokens(counts: Counts) -> int:
        """See `ggufext.audit.task.Task`."""
        return passkey.Passkey.answer_tokens(counts)

    @staticmethod
    def judge(question: Question, answer: str) -> Judgement:
        """Whether the first integer of an answer is the key."""
        return passkey.Passkey.judge(question, answer)


def _made(plan: PromptPlan, text: int, counts: Counts) -> tuple[str, ...]:
    """Sentences of ours, as many as the longest length has room for."""
    rng = random.Random(f"comparison/{plan.seed}/{text}")
    made: list[str] = []
    tokens = 0
    while tokens < plan.lengths[-1]:
        more = [wording.sentence(rng) for _ in range(_FEWEST_BLOCKS)]
        made += more
        tokens += sum(counts(more))
    return tuple(made)


def _divided(
    whole: Sequence[str], counts: Counts, *, length: int, most: int
) -> tuple[list[tuple[str, ...]], int]:
    """Stretches of at least `length` tokens each, up to `most`; and the tokens they were cut of."""
    stretches: list[tuple[str, ...]] = []
    current: list[str] = []
    tokens = total = 0
    for piece, size in zip(whole, counts(whole), strict=True):
        current.append(piece)
        tokens += size
        if tokens >= length:
            stretches.append(tuple(current))
            total += tokens
            current, tokens = [], 0
            if len(stretches) == most:
                break
    return stretches, total + tokens
