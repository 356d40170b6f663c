"""What the shipped model is trained on, lesson by lesson.

Asked for one of several labelled keys from the start, a model this small picks one at random and
stays there. So it first learns to continue repeated words, then to repeat labelled digits in
another order, and only then reads prompts. A skill goes one level up when the moving average of
its answers' accuracy passes a bound. Pure Python: the rows are token ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import passkey_task as task
from ggufext.audit.task.wording import LABELS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

TRAINING_LENGTH = 256
TOKENS_PER_STEP = 2048
STANDARD_LENGTHS = (56, 72, 96, 128, 160, 208, TRAINING_LENGTH)
SWEEPS = ((1, 72), (2, 96), (2, 128), (3, 160), (4, 208), (4, 256), (6, 256), (8, 256), (12, 256))
MEMORY = 0.9
REHEARSAL = 0.25
# A further question with its answer, and the full stop before it.
QUESTION_TOKENS = 1 + 16 + task.ANSWER_TOKENS
FILLER_WEIGHT = 0.05


@dataclass(frozen=True)
class Lesson:
    """One batch.

    Attributes
    ----------
    rows : list of list of int
        Token ids, all rows of one length.
    answers : list of range
        Positions of the answers in a row, the same in every row and all of one size.
    rest_weight : float
        Weight of all other tokens in the loss, against 1 for the answers.
    """

    rows: list[list[int]]
    answers: list[range]
    rest_weight: float


class Skill:
    """Lessons of rising difficulty; the level rises with the accuracy reported.

    Parameters
    ----------
    levels : sequence of callable
        Draws a lesson of each level.
    bound : float
        Accuracy that opens the next level, 0 … 1.
    rehearsal : float
        Share of lessons drawn from a random level up to the current one.
    """

    def __init__(
        self,
        levels: Sequence[Callable[[random.Random], Lesson]],
        *,
        bound: float,
        rehearsal: float,
    ) -> None:
        self._levels = levels
        self._bound = bound
        self._rehearsal = rehearsal
        self._counts = False
        self.level = 0
        self.accuracy = 0.0
        self.mastered = False

    def draw(self, rng: random.Random) -> Lesson:
        """Lesson of the current level, or one of an earlier level to keep what was learned."""
        self._counts = rng.random() >= self._rehearsal
        level = self.level if self._counts else rng.randint(0, self.level)
        return self._levels[level](rng)

    def report(self, accuracy: float) -> None:
        """Take the share of right answers to the lesson drawn last."""
        if not self._counts:
            return
        self.accuracy = MEMORY * self.accuracy + (1 - MEMORY) * accuracy
        if self.accuracy > self._bound:
            if self.level + 1 < len(self._levels):
                self.level, self.accuracy = self.level + 1, 0.0
            else:
                self.mastered = True

    @property
    def state(self) -> tuple[int, float, bool]:
        """What was learned so far, for `restore`."""
        return self.level, self.accuracy, self.mastered

    def restore(self, state: tuple[int, float, bool]) -> None:
        """Go on from the state of an earlier run."""
        self.level, self.accuracy, self.mastered = state


def preparation() -> Skill:
    """Continue repeated words, then repeat 2, 4 and 8 labelled keys in another order."""
    pairs = [lambda rng, keys=keys: labelled_digits(rng, keys) for keys in (2, 4, 8)]
    return Skill([repeated_words, *pairs], bound=0.85, rehearsal=REHEARSAL)


def standard() -> Skill:
    """Prompts of standard mode, up to the training length."""
    levels = [lambda rng, length=length: one_key(rng, length) for length in STANDARD_LENGTHS]
    return Skill(levels, bound=0.9, rehearsal=0.5)


def sweep() -> Skill:
    """Prompts of sweep mode, up to 12 keys and the training length."""
    levels = [lambda rng, keys=k, length=n: several_keys(rng, keys, length) for k, n in SWEEPS]
    return Skill(levels, bound=0.8, rehearsal=0.5)


def repeated_words(rng: random.Random) -> Lesson:
    """Random words, all of them a second time."""
    count = rng.choice((16, 24, 32, 48))
    first = [
        [rng.randrange(task.FIRST_WORD, task.VOCABULARY_SIZE) for _ in range(count)]
        for _ in range(_rows(1 + 2 * count))
    ]
    # Only from the second repeated word on does the past tell what follows.
    answers = [range(i, i + 1) for i in range(count + 2, 1 + 2 * count)]
    return Lesson([[task.BOS, *row, *row] for row in first], answers, rest_weight=0.0)


def labelled_digits(rng: random.Random, keys: int) -> Lesson:
    """Labels directly followed by five digits, all of them a second time in another order."""
    size = 1 + task.DIGITS
    rows = []
    for _ in range(_rows(1 + 2 * keys * size)):
        labels = sorted(LABELS, key=lambda _: rng.random())[:keys]
        blocks = [f" {label}{task.random_key(rng)}" for label in labels]
        again = sorted(blocks, key=lambda _: rng.random())
        rows.append([task.BOS, *task.encode("".join([*blocks, *again]))])
    starts = range(1 + keys * size, 1 + 2 * keys * size, size)
    return Lesson(rows, [range(i + 1, i + size) for i in starts], rest_weight=0.0)


def one_key(rng: random.Random, length: int) -> Lesson:
    """Prompts of standard mode with their answers."""
    rows = []
    for _ in range(_rows(length)):
        prompt = task.passkey_prompt(rng, length=length, depth=rng.random())
        rows.append([*prompt.ids, *prompt.answer_ids])
    return Lesson(rows, [range(length - task.ANSWER_TOKENS, length)], FILLER_WEIGHT)


def several_keys(rng: random.Random, keys: int, length: int) -> Lesson:
    """Prompts of sweep mode; as many questions as the length has room for, at random fewer."""
    spare = length - task.shortest_length(keys=keys)
    questions = rng.randint(1, min(keys, 1 + spare // QUESTION_TOKENS))
    first = length - (questions - 1) * QUESTION_TOKENS
    rows = []
    for _ in range(_rows(length)):
        depths = [rng.random() for _ in range(keys)]
        prompts = task.sweep_prompts(rng, length=first, depths=depths)
        asked = sorted(prompts, key=lambda _: rng.random())[:questions]
        row = [*asked[0].ids, *asked[0].answer_ids]
        for prompt in asked[1:]:
            row += task.encode(".")
            row += [*prompt.ids[prompt.question_start :], *prompt.answer_ids]
        rows.append(row)
    ends = range(first, length + 1, QUESTION_TOKENS)
    answers = [range(end - task.ANSWER_TOKENS, end) for end in ends]
    return Lesson(rows, answers, FILLER_WEIGHT)


def _rows(length: int) -> int:
    return TOKENS_PER_STEP // length
