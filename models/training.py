"""One step of training after another, on a schedule, kept so that a run goes on where it was.

Needs PyTorch 2.13.0.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from small_llama import Model


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rates: a warm-up, a plateau, then a cosine.

    Attributes
    ----------
    learning_rate : float
        On the plateau.
    warm_up : int
        Steps up to it.
    cosine_from : float
        Progress at which the plateau ends, 0 … 1.
    last : float
        Share of the plateau that is left at progress 1.
    """

    learning_rate: float
    warm_up: int
    cosine_from: float
    last: float = 0.03

    def at(self, step: int, *, progress: float) -> float:
        """Learning rate of a step, from 0 on, at a progress of 0 … 1 through the run."""
        done = max(0.0, (progress - self.cosine_from) / (1 - self.cosine_from))
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        scale = self.last + (1 - self.last) * cosine
        return self.learning_rate * scale * min(1.0, (step + 1) / self.warm_up)


class Trainer:
    """A model, its optimizer and the source of its lessons.

    Parameters
    ----------
    model : Model
    schedule : Schedule
    rng : random.Random
        Draws the lessons.
    checkpoint : Path
        File of `save` and `resume`.

    Attributes
    ----------
    rng : random.Random
    steps : int
        Done so far.
    """

    def __init__(
        self, model: Model, *, schedule: Schedule, rng: random.Random, checkpoint: Path
    ) -> None:
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() == 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
            betas=(0.9, 0.98),
        )
        self._model = model
        self._schedule = schedule
        self._checkpoint = checkpoint
        self._before, self._started = 0.0, time.process_time()
        self.rng = rng
        self.steps = 0

    @property
    def seconds(self) -> float:
        """Processor time since the start, in all runs together."""
        return self._before + time.process_time() - self._started

    def step(self, loss: torch.Tensor, *, progress: float) -> None:
        """Change the weights by the gradient of a loss; see `Schedule.at` for the progress."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.at(self.steps, progress=progress)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self.steps += 1

    def save(self, **state: Any) -> None:
        """Keep everything, with the caller's own state; what was kept before stays until then."""
        whole = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": self.rng.getstate(),
            "steps": self.steps,
            "seconds": self.seconds,
            "state": state,
        }
        unfinished = self._checkpoint.with_suffix(".unfinished")
        torch.save(whole, unfinished)
        unfinished.replace(self._checkpoint)

    def resume(self) -> dict[str, Any]:
        """Go on from what was kept, bit for bit; the caller's own state.

        Raises
        ------
        OSError
            If nothing was kept.
        """
        whole = torch.load(self._checkpoint)
        self._model.load_state_dict(whole["model"])
        self._optimizer.load_state_dict(whole["optimizer"])
        self.rng.setstate(whole["rng"])
        self.steps, self._before = whole["steps"], whole["seconds"]
        state: dict[str, Any] = whole["state"]
        return state
