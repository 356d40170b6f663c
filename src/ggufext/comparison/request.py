"""What a comparison is asked to do: to which length, under which conditions, on which texts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ggufext.audit.conditions import planned_request
from ggufext.audit.request import DOCUMENTED, PLANNED, CheckRequest, LocalSettings, Mode, Template
from ggufext.errors import ModelWarning, PlanError
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ggufext.header.facts import ModelFacts

#: What everything is compared with.
NATIVE = "native"

#: Methods where no condition is asked for; the second are a tensor, so each needs a copy.
_USUAL = tuple(f"{PLANNED}{name}" for name in ("linear", "ntk", "gamma", "yarn"))
_USUAL_WITH_COPIES = (*_USUAL, f"{PLANNED}llama3")

#: Doublings up to the target at which keys are asked beside the training length.
_DOUBLINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareRequest:
    """What to compare, and on what.

    Attributes
    ----------
    target_length : int
        Longest length measured, and what planned conditions extend to, tokens.
    conditions : tuple of str
        Names of conditions; see `ggufext.audit.conditions.conditions`; without any, those of
        linear, ntk, gamma and yarn that the model takes are planned, llama3 where copies are
        allowed beforehand, and what the publisher documents where it reaches the target.
        ``"native"`` is always among them, and Self-Extend never: it cannot score a text.
    texts : tuple of Path
        Files of UTF-8 text. Without any, texts of sentences that the program makes itself.
    trials : int
        How many texts at most, 1 … 1,000, each as long as the target; a long file gives several.
    depths : int or tuple of float
        Where keys stand in a text; see `ggufext.audit.request.CheckRequest`.
    seed : int
        Of keys, their places, made texts and resamples; no unit.
    train_length, train_freq_base
        See `ggufext.audit.request.CheckRequest`.
    threshold : float
        Accuracy from which on the keys that native finds within its training length show that the
        model can do the task, in (0, 1].
    resume : Path or None
        File that every finished cell is written to, a JSON line each, and whose cells of an earlier
        run of the same request are not measured again.
    engine : LocalSettings or None
        How to run llama.cpp; not with `llama_server`, which gives no probabilities of a text.
    """

    target_length: int
    conditions: tuple[str, ...] = ()
    texts: tuple[Path, ...] = ()
    trials: int = 3
    depths: int | tuple[float, ...] = 4
    seed: int = 0
    train_length: int | None = None
    train_freq_base: float | None = None
    threshold: float = 0.8
    resume: Path | None = None
    engine: LocalSettings | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be compared.

        Raises
        ------
        PlanError
            ``request_absurd``, ``target_absurd``, ``bad_condition``.
        """
        self.keys((self.target_length,))
        if self.engine is not None and self.engine.llama_server is not None:
            raise PlanError(
                code="request_absurd",
                message="a llama-server gives no probabilities of a text: leave llama_server out, "
                "or ask for keys alone with `ggufext check`",
            )
        for name in self.conditions:
            if name.startswith("self-extend"):
                raise PlanError(
                    code="bad_condition",
                    message=f"condition {name!r}; Self-Extend moves positions while it reads, so "
                    "no text can be scored: `ggufext check` asks it for keys",
                )

    def resolved(
        self, facts: ModelFacts, *, copies: bool = False
    ) -> tuple[CompareRequest, tuple[ModelWarning, ...]]:
        """The request with all its conditions, native first, and which usual ones it leaves out.

        Parameters
        ----------
        facts : ModelFacts
            Before any extension.
        copies : bool
            Whether the file may be copied for a condition, without a question.

        Raises
        ------
        PlanError
            That of the first usual condition, where the model takes none.
        """
        if self.conditions:
            return self._with(self.conditions), ()
        usual = [*(_USUAL_WITH_COPIES if copies else _USUAL)]
        documented = facts.published.yarn_length if facts.published else None
        if documented is not None and documented >= self.target_length:
            usual.append(DOCUMENTED)
        refused: dict[str, PlanError] = {}
        for name in usual:
            try:
                plan(facts, planned_request(name, self.plan, facts.published))
            except PlanError as error:
                refused[name] = error
        if len(refused) == len(usual):
            raise next(iter(refused.values()))
        left_out = (
            ModelWarning("condition_left_out", f"{name} is left out: {error}")
            for name, error in refused.items()
        )
        return self._with(name for name in usual if name not in refused), tuple(left_out)

    def _with(self, conditions: Iterable[str]) -> CompareRequest:
        return replace(self, conditions=tuple(dict.fromkeys((NATIVE, *conditions))))

    def keys(self, lengths: tuple[int, ...]) -> CheckRequest:
        """The audit of the keys in the texts at some lengths, rising, under its conditions."""
        return CheckRequest(
            lengths=lengths,
            depths=self.depths,
            trials=self.trials,
            mode=Mode.SWEEP,
            seed=self.seed,
            conditions=self.conditions or (NATIVE,),
            target_length=self.target_length,
            train_length=self.train_length,
            train_freq_base=self.train_freq_base,
            template=Template.NONE,
            threshold=self.threshold,
            resume=self.resume,
            engine=self.engine,
        )

    @property
    def plan(self) -> PlanRequest:
        """What planned conditions share."""
        return PlanRequest(
            target_length=self.target_length,
            train_length=self.train_length,
            train_freq_base=self.train_freq_base,
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """Files beside the model that a run reads or writes: kept cells, recipes, texts."""
        return (*self.keys((self.target_length,)).files, *self.texts)


def key_lengths(train_length: int, target_length: int) -> tuple[int, ...]:
    """Lengths at which keys are asked, tokens, rising: as trained, and doublings up to the target.

    Raises
    ------
    PlanError
        ``target_not_longer``.
    """
    if target_length <= train_length:
        raise PlanError(
            code="target_not_longer",
            message=f"target of {target_length:,} tokens; the model was trained on "
            f"{train_length:,}, and only beyond that is there something to compare",
        )
    halved = (target_length >> times for times in range(_DOUBLINGS))
    return (train_length, *sorted(length for length in halved if length > train_length))
