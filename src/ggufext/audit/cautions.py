"""What keeps a result from being a claim, as warnings of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.results import ComparisonTest
from ggufext.audit.statistics import SIGNIFICANT
from ggufext.errors import ModelWarning
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ggufext.audit.results import Comparison, Condition

#: Answers at a length below which an interval is too wide for a claim.
_CLAIM = 20

#: Share of answers that hold the key behind another number, from which on that is said.
_TALKATIVE = 0.1


def cautions(
    conditions: Sequence[Condition], *, train_length: int | None, complete: bool
) -> tuple[ModelWarning, ...]:
    """Warnings that follow from the numbers themselves.

    Returns
    -------
    tuple of ModelWarning
        ``cut_short``, ``task_not_possible``, ``short_contexts_lost``, ``no_native_control``,
        ``answers_talk``, ``few_answers``.
    """
    found: list[ModelWarning] = []
    if not complete:
        found.append(
            ModelWarning(
                "cut_short",
                "the run was cut short: cells without an answer are shown as not measured",
            )
        )
    found += _native_control(conditions, train_length)
    for condition in conditions:
        found += _talkative(condition)
    answers = [x.trials for c in conditions for x in c.lengths if x.trials]
    if answers and min(answers) < _CLAIM:
        found.append(
            ModelWarning(
                "few_answers",
                f"some lengths have {min(answers)} answers: pool at least {_CLAIM} before a claim "
                "(--trials)",
            )
        )
    return tuple(found)


def too_few_texts(comparisons: Sequence[Comparison], texts: int) -> tuple[ModelWarning, ...]:
    """Whether conditions are compared over so few texts that no difference can show.

    Returns
    -------
    tuple of ModelWarning
        ``few_texts`` or nothing.
    """
    smallest = 2.0 ** (1 - texts)
    over_texts = any(c.test is ComparisonTest.PERMUTATION_OVER_TEXTS for c in comparisons)
    if not over_texts or smallest < SIGNIFICANT:
        return ()
    return (
        ModelWarning(
            "few_texts",
            f"conditions are compared over {texts} texts, so p cannot fall below {smallest:.2g} "
            "whatever they do: 6 texts are the fewest that can show a difference (--trials)",
        ),
    )


def _native_control(
    conditions: Sequence[Condition], train_length: int | None
) -> Iterator[ModelWarning]:
    """A failure within training is the model's, unless another condition succeeds there."""
    able = [c.name for c in conditions if c.native_control]
    unable = [c.name for c in conditions if c.native_control is False]
    if unable and able:
        yield ModelWarning(
            "short_contexts_lost",
            f"{', '.join(unable)} loses keys within the training length, where {able[0]} finds "
            "them: it costs short contexts",
        )
    elif unable:
        native = any(c.name == "native" for c in conditions)
        yield ModelWarning(
            "task_not_possible",
            "no condition finds the key even within the training length: the model cannot do this "
            "task"
            + ("" if native else ", or an edit of the file costs it (--condition native tells)")
            + "; the audit says nothing about an extension",
        )
    elif not able and train_length is not None:
        yield ModelWarning(
            "no_native_control",
            f"no length within the training length of {train_length:,} tokens was measured: a "
            "model that cannot do this task at all would look like a bad extension",
        )


def _talkative(condition: Condition) -> Iterator[ModelWarning]:
    answered = sum(x.trials for x in condition.lengths)
    if not answered:
        return
    first = sum((x.accuracy or 0.0) * x.trials for x in condition.lengths) / answered
    anywhere = sum((x.substring or 0.0) * x.trials for x in condition.lengths) / answered
    if anywhere - first > _TALKATIVE:
        yield ModelWarning(
            "answers_talk",
            f"{condition.name}: the key stands somewhere in {percent(anywhere)} of the answers, "
            f"but is the first number in {percent(first)}: the model says more than the key",
        )
