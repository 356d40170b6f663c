"""What a search is asked to do: to which length, on which texts, in how many minutes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.comparison.request import CompareRequest
from ggufext.errors import PlanError

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.audit.request import LocalSettings

#: A month.
_MOST_MINUTES = 43_200


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest:
    """What to search for, on what, and for how long.

    Attributes
    ----------
    target_length : int
        Length to extend to, tokens.
    minutes : float
        How long the search may take, its decision on held-out texts included, minutes:
        0.1 … 43,200.
    metadata_only : bool
        Leave out scalings that need a tensor in the file.
    texts : tuple of Path
        Files of UTF-8 text. Without any, texts of sentences that the program makes itself.
    search_texts : int
        How many texts are searched on, 1 … 100.
    trials : int
        How many texts decide.
    depths, seed, train_length, train_freq_base, threshold, resume, engine
        See `ggufext.comparison.request.CompareRequest`.
    """

    target_length: int
    minutes: float
    metadata_only: bool = False
    texts: tuple[Path, ...] = ()
    search_texts: int = 4
    trials: int = 3
    depths: int | tuple[float, ...] = 4
    seed: int = 0
    train_length: int | None = None
    train_freq_base: float | None = None
    threshold: float = 0.8
    resume: Path | None = None
    engine: LocalSettings | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be searched.

        Raises
        ------
        PlanError
            ``request_absurd``, ``target_absurd``.
        """
        self.compared(())
        if not 0.1 <= self.minutes <= _MOST_MINUTES or not 1 <= self.search_texts <= 100:
            raise PlanError(
                code="request_absurd",
                message=f"{self.minutes:g} minutes and {self.search_texts} texts to search on; "
                f"from 0.1 to {_MOST_MINUTES:,} minutes and 1 to 100 texts",
            )

    def compared(self, conditions: tuple[str, ...], *, texts: int | None = None) -> CompareRequest:
        """The comparison of some conditions on so many texts, `trials` without a number."""
        return CompareRequest(
            target_length=self.target_length,
            conditions=conditions,
            texts=self.texts,
            trials=texts or self.trials,
            depths=self.depths,
            seed=self.seed,
            train_length=self.train_length,
            train_freq_base=self.train_freq_base,
            threshold=self.threshold,
            resume=self.resume,
            engine=self.engine,
        )
