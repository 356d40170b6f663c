"""Engines that answer prompts: llama.cpp in a child process, and servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.errors import ModelWarning


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


class Engine(Protocol):
    """Something that continues a prompt greedily."""

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Tokens of texts, each as it stands behind a full stop."""

    def ask(self, parts: Sequence[str], *, key: str, tokens: int) -> Answer:
        """Continue the prompt by up to `tokens` tokens, or until the answer is surely `key`."""

    def warnings(self) -> tuple[ModelWarning, ...]:
        """What was noticed while asking."""

    def close(self) -> None:
        """Give everything back; the engine is not used afterwards."""
