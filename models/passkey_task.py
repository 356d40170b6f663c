"""The passkey task of the shipped model: its vocabulary, its wording and its prompts.

A prompt hides one or several 5-digit pass keys in filler of random sentences and asks for one of
them. Everything is made of words of one small vocabulary, so a prompt has an exact length in
tokens, and its plain text gives the same tokens in llama.cpp's tokenizer (`tokenizer.ggml.model`
gpt2, `.pre` llama-bpe: a piece of text that is in the vocabulary is one token, any other piece
falls apart into bytes).

The words are those of the audit's prompts (`ggufext.audit.task.wording`), so that `ggufext check`
asks the model in its own language; their order there is the vocabulary of the shipped files. Pure
Python without third-party modules.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING

from ggufext.audit.task.wording import (
    ADJECTIVES,
    ADVERBS,
    DETERMINERS,
    LABELS,
    NOUNS,
    OPENERS,
    PREPOSITIONS,
    VERBS,
)
from ggufext.audit.task.wording import sentence_of as sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")
UNKNOWN, BOS, EOS, PAD = range(4)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIXED = _words("pass key keys is are hidden here Remember it them What of Several")

WORDS = tuple(
    " " + word
    for group in (
        FIXED,
        OPENERS,
        DETERMINERS,
        PREPOSITIONS,
        ADVERBS,
        ADJECTIVES,
        VERBS,
        NOUNS,
        LABELS,
    )
    for word in group
)
FIRST_BYTE = len(SPECIALS)
FIRST_WORD = FIRST_BYTE + 256
VOCABULARY_SIZE = FIRST_WORD + len(WORDS)
WORD_IDS = {word: FIRST_WORD + i for i, word in enumerate(WORDS)}

SENTENCE_WORDS = range(3, 14)
SHORTEST_SENTENCE = SENTENCE_WORDS.start + 1  # its words and the full stop
LONGEST_SENTENCE = SENTENCE_WORDS.stop
DIGITS = 5
ANSWER_TOKENS = 1 + DIGITS  # a space token and one token a digit

# What llama.cpp's llama-bpe splits ASCII text into before it looks the pieces up; `_` is no letter.
_PIECE = re.compile(
    r"(?:[^\r\n\w]|_)?[^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Prompt:
    """A question about pass keys hidden in filler.

    Attributes
    ----------
    text : str
        The prompt as plain text, without the BOS token; the answer follows it directly.
    ids : tuple of int
        The prompt as token ids, BOS first.
    key : str
        The pass key asked for, 5 digits, the first not 0.
    key_start, key_end : int
        Tokens [key_start, key_end) of `ids` are the line that states the key.
    question_start : int
        Index in `ids` of the question's first token.
    """

    text: str
    ids: tuple[int, ...]
    key: str
    key_start: int
    key_end: int
    question_start: int

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The right answer: a space token and five digit tokens."""
        return tuple(encode(" " + self.key))

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.ids) + ANSWER_TOKENS

    @property
    def distance(self) -> int:
        """Tokens between the key line and the question."""
        return self.question_start - self.key_end


def encode(text: str) -> list[int]:
    """Token ids of plain text, without BOS.

    For ASCII text they are those of llama.cpp's tokenizer with this vocabulary.
    """
    ids: list[int] = []
    for piece in _PIECE.findall(text):
        word = WORD_IDS.get(piece)
        if word is None:
            ids.extend(FIRST_BYTE + byte for byte in piece.encode())
        else:
            ids.append(word)
    return ids


def decode(ids: Iterable[int]) -> str:
    """Plain text of token ids; special tokens have no text, invalid UTF-8 becomes U+FFFD."""
    parts = []
    for token in ids:
        if token >= FIRST_WORD:
            parts.append(WORDS[token - FIRST_WORD].encode())
        elif token >= FIRST_BYTE:
            parts.append(bytes([token - FIRST_BYTE]))
    return b"".join(parts).decode(errors="replace")


def random_key(rng: random.Random) -> str:
    """Five digits, the first not 0: the key reads the same as an integer."""
    return str(rng.randrange(10 ** (DIGITS - 1), 10**DIGITS))


def filler(rng: random.Random, tokens: int) -> list[str]:
    """Random sentences that together have exactly `tokens` tokens.

    Raises
    ------
    ValueError
        If `tokens` is 1, 2 or 3: no sentence is that short.
    """
    if 0 < tokens < SHORTEST_SENTENCE:
        raise ValueError(f"no sentence has {tokens} tokens, the shortest has {SHORTEST_SENTENCE}")
    sentences = []
    while tokens:
        size = rng.choice(
            [
                size
                for size in range(SHORTEST_SENTENCE, LONGEST_SENTENCE + 1)
                if size == tokens or size <= tokens - SHORTEST_SENTENCE
            ]
        )
        sentences.append(sentence(rng, size - 1))
        tokens -= size
    return sentences


def passkey_prompt(rng: random.Random, *, length: int, depth: float) -> Prompt:
    """Prompt of standard mode: one pass key, stated twice in one line.

    Parameters
    ----------
    rng : random.Random
        Source of the filler and of the key.
    length : int
        Tokens of prompt and answer, at least `shortest_length()`.
    depth : float
        Where the key line stands in the filler: 0 before all of it, 1 behind; it moves to the
        nearest sentence boundary.

    Raises
    ------
    ValueError
        If the length is too short for the prompt.
    """
    key = random_key(rng)
    line = f" The pass key is {key}. Remember, {key} is the pass key."
    question = " What is the pass key? The pass key is"
    announcement = " One pass key is hidden here. Remember it."
    text = _hide(rng, announcement, [line], depths=[depth], tokens=length - _after(question))
    return _prompt(text, line=line, question=question, key=key)


def sweep_prompts(rng: random.Random, *, length: int, depths: Sequence[float]) -> list[Prompt]:
    """Prompts of sweep mode: one text with several labelled pass keys, a question for each.

    Parameters
    ----------
    rng : random.Random
        Source of the filler, the labels and the keys.
    length : int
        Tokens of each prompt and answer, at least `shortest_length(keys=len(depths))`.
    depths : sequence of float
        Where each key line stands, as in `passkey_prompt`; at most one key a label.

    Returns
    -------
    list of Prompt
        One a key, in the order of `depths`; they differ from `question_start` on.

    Raises
    ------
    ValueError
        If the length is too short for the prompts, or there are more keys than labels.
    """
    if len(depths) > len(LABELS):
        raise ValueError(f"{len(depths)} keys, but there are only {len(LABELS)} labels")
    unused = list(LABELS)
    # Not random.sample: its sequence has changed between versions of Python.
    labels = [unused.pop(rng.randrange(len(unused))) for _ in depths]
    keys = [random_key(rng) for _ in depths]
    sentences = [f" The pass key of the {label} is" for label in labels]
    lines = [f"{start} {key}." for start, key in zip(sentences, keys, strict=True)]
    questions = [
        f" What is the pass key of the {label}?{start}"
        for label, start in zip(labels, sentences, strict=True)
    ]
    announcement = " Several pass keys are hidden here. Remember them."
    text = _hide(rng, announcement, lines, depths=depths, tokens=length - _after(questions[0]))
    return [
        _prompt(text, line=line, question=question, key=key)
        for line, question, key in zip(lines, questions, keys, strict=True)
    ]


def shortest_length(*, keys: int | None = None) -> int:
    """Fewest tokens of prompt and answer: the fixed text and one filler sentence.

    Parameters
    ----------
    keys : int, optional
        Labelled keys of a sweep prompt; None for standard mode.
    """
    # BOS, announcement, key line, question, answer; counted in the texts above.
    fixed = 1 + 10 + 24 + 10 + ANSWER_TOKENS if keys is None else 1 + 10 + 14 * keys + 16 + 6
    return fixed + SHORTEST_SENTENCE


def prompt_set(
    *, seed: int, length: int, depths: int, trials: int, keys: int | None = None
) -> list[Prompt]:
    """Draw fixed prompts, each with a text of its own: `trials` for every depth bin of a length.

    The depth of the key asked for is drawn at random within its bin, those of other keys anywhere.
    The set is a property of the arguments: a prompt does not change when another length or more
    trials are asked for.

    Parameters
    ----------
    seed : int
        Seed of the set.
    length : int
        Tokens of prompt and answer.
    depths : int
        Number of equal bins of [0, 1], at least 1.
    trials : int
        Prompts a bin, at least 1.
    keys : int, optional
        Labelled keys of a sweep prompt, at least 1; None for standard mode.

    Returns
    -------
    list of Prompt
        In the order of the bins.
    """
    prompts = []
    for depth_bin in range(depths):
        for trial in range(trials):
            rng = random.Random(f"{seed}/{length}/{depth_bin}/{depths}/{trial}/{keys}")
            depth = (depth_bin + rng.random()) / depths
            if keys is None:
                prompt = passkey_prompt(rng, length=length, depth=depth)
            else:
                others = [rng.random() for _ in range(keys - 1)]
                prompt = sweep_prompts(rng, length=length, depths=[depth, *others])[0]
            prompts.append(prompt)
    return prompts


def _after(question: str) -> int:
    return len(encode(question)) + ANSWER_TOKENS


def _hide(
    rng: random.Random, announcement: str, lines: list[str], *, depths: Sequence[float], tokens: int
) -> str:
    """Text of `tokens` tokens, BOS counted: announcement, filler and the lines at their depths."""
    fixed = 1 + len(encode("".join([announcement, *lines])))
    room = tokens - fixed
    if room < SHORTEST_SENTENCE:
        raise ValueError(f"the prompt needs {SHORTEST_SENTENCE - room} tokens more than its length")
    sentences = filler(rng, room)
    boundaries = list(accumulate((len(encode(text)) for text in sentences), initial=0))
    slots: list[list[str]] = [[] for _ in boundaries]
    for depth, line in zip(depths, lines, strict=True):
        distances = [abs(boundary - depth * room) for boundary in boundaries]
        slots[distances.index(min(distances))].append(line)
    parts = [announcement]
    for slot, following in zip_longest(slots, sentences, fillvalue=""):
        parts += [*slot, following]
    return "".join(parts)


def _prompt(text: str, *, line: str, question: str, key: str) -> Prompt:
    key_start = 1 + len(encode(text[: text.index(line)]))
    return Prompt(
        text=text + question,
        ids=(BOS, *encode(text + question)),
        key=key,
        key_start=key_start,
        key_end=key_start + len(encode(line)),
        question_start=1 + len(encode(text)),
    )
