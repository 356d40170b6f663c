"""Engines that answer prompts: llama.cpp in a child process or on a cluster, and servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Sequence

    from ggufext.audit.task import Question
    from ggufext.errors import ModelWarning
    from ggufext.llama.settings import LoadRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """What an engine said to a prompt.

    Attributes
    ----------
    text : str
    evaluated : int
        Tokens that were computed for it, those of the answer included.
    naive : int
        Tokens that would have been computed without reuse.
    measured : bool
        False where the engine did not see the whole prompt.
    """

    text: str
    evaluated: int
    naive: int
    measured: bool = True


@dataclass(frozen=True, slots=True)
class Scores:
    """What an engine expected at places of a text.

    Attributes
    ----------
    log_probabilities : array of float
        Of the tokens that really follow, natural logarithms, one a row asked for.
    distributions : bytes
        Float32, shape (positions asked for, n_vocab): natural logarithms of the probabilities of
        every token.
    evaluated, naive : int
        See `Answer`.
    """

    log_probabilities: array[float]
    distributions: bytes
    evaluated: int
    naive: int


class AuditEngine(Protocol):
    """Something that continues prompts greedily."""

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Tokens of texts, each as it stands behind a full stop."""

    def answers(
        self, load: LoadRequest | None, questions: Sequence[Question], *, tokens: int
    ) -> Iterator[tuple[Question, Answer]]:
        """Answer questions, best in their order, which shares most; any order of answers will do.

        Parameters
        ----------
        load : LoadRequest or None
            The model and context to ask; None for an engine that runs what it has loaded.
        questions : sequence of Question
            Those of a text follow each other.
        tokens : int
            Longest answer.
        """

    def warnings(self) -> tuple[ModelWarning, ...]:
        """What was noticed while asking."""

    def close(self) -> None:
        """Give everything back; the engine is not used afterwards."""
