"""The passkey audit: ask a model for keys at every length and depth, and record the answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ggufext.audit.results import MemoryPlan, Mode, Trial
    from ggufext.errors import GgufextError, ModelWarning


class Stop(Enum):
    """Why a run ended before its last question."""

    INTERRUPTED = "interrupted"
    """Ctrl-C."""
    FAILED = "failed"
    """The engine died or refused; `PasskeyRun.failure` says how."""


@dataclass(frozen=True, slots=True)
class RunNotes:
    """What is known before the first question, and again whenever something was decided.

    Attributes
    ----------
    questions : int
        Questions of the whole run, over all conditions; those of a resumed run included.
    tokens : int
        Tokens that the run is expected to evaluate: what a progress bar counts.
    memory_plan : MemoryPlan or None
    warnings : tuple of ModelWarning
    """

    questions: int
    tokens: int
    memory_plan: MemoryPlan | None
    warnings: tuple[ModelWarning, ...]


@dataclass(frozen=True, slots=True)
class PasskeyRun:
    """Everything a run measured, complete or cut short.

    Attributes
    ----------
    path : str
        The model file or the server's address.
    engine : str
    mode : Mode
    seed : int
    train_length : int or None
        Training length T of the model before any edit of ours, tokens; None for a server.
    trials : tuple of Trial
        `Trial.depth` is the middle of the depth bin; one trial a (condition, text, length, bin).
    prompts_hash : str
        SHA-256 of all prompts in order.
    tokens_evaluated, tokens_naive : int
    memory_plan : MemoryPlan or None
    versions : mapping of str to str
    seconds : float
    complete : bool
    stop : Stop or None
        None for a complete run.
    failure : GgufextError or None
        What ended a run with `Stop.FAILED`.
    audited : tuple of str
        What the ROPE-node audit compared, a sentence a condition.
    warnings : tuple of ModelWarning
    """

    path: str
    engine: str
    mode: Mode
    seed: int
    train_length: int | None
    trials: tuple[Trial, ...]
    prompts_hash: str
    tokens_evaluated: int
    tokens_naive: int
    memory_plan: MemoryPlan | None
    versions: Mapping[str, str]
    seconds: float
    complete: bool
    stop: Stop | None
    failure: GgufextError | None
    audited: tuple[str, ...]
    warnings: tuple[ModelWarning, ...]
