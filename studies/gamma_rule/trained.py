"""The models that are trained for the study, by name, and where they lie. No PyTorch here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
#: What is known of every trained model, failures included.
REGISTRY = HERE / "models.json"

FREQ_BASES = (500, 10_000, 100_000)
HEAD_DIMS = (32, 64, 16)
SEEDS = (0, 1, 2)
LANGUAGE_BASE, LANGUAGE_HEAD_DIM = 10_000, 64


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """One model to train.

    Attributes
    ----------
    kind : str
        language or passkey.
    freq_base, head_dim, seed : int
    """

    kind: str
    freq_base: int
    head_dim: int
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.kind}-base{self.freq_base}-head{self.head_dim}-seed{self.seed}"


def trained_models() -> list[TrainedModel]:
    """Every model, in an order whose every beginning is of use.

    The language model; then one seed of all passkey models before the next seed. Other bases of
    the language model come last, where hours are left.
    """
    passkey = [
        TrainedModel("passkey", base, head_dim, seed)
        for seed in SEEDS
        for head_dim in HEAD_DIMS
        for base in FREQ_BASES
    ]
    others = [base for base in FREQ_BASES if base != LANGUAGE_BASE]
    language = [
        TrainedModel("language", base, LANGUAGE_HEAD_DIM, SEEDS[0])
        for base in (LANGUAGE_BASE, *others)
    ]
    return [language[0], *passkey, *language[1:]]


def cache_folder() -> Path:
    """Folder of trained models and fetched texts: GGUFEXT_STUDY_CACHE, else build/study."""
    default = HERE.parents[1] / "build" / "study"
    return Path(os.environ.get("GGUFEXT_STUDY_CACHE", default))
