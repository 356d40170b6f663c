"""Passkey models with every base and head size of the study, trained on the one-key task.

Needs PyTorch 2.13.0, gguf and numpy. The task, the lessons and the loss are those of the shipped
model (models/); only labelled keys are left out, which a model this small learns with some seeds
only.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

import lessons
import passkey_task
import train_passkey
from small_llama import Model, Shape
from training import Schedule, Trainer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAYERS = 3
STEPS = 3000
CHECKPOINT_STEPS = 100
SCHEDULE = Schedule(learning_rate=2e-3, warm_up=200, cosine_from=0.45)
# Prompts of the control at the training length, and what a model must find of them.
DEPTHS, TRIALS = 6, 10
CONTROL_SEED = 30_000
MASTERED = 0.9


def shape(freq_base: float, head_dim: int) -> Shape:
    """Size of the model with a RoPE base and heads of a width; the residual stream stays."""
    shipped = train_passkey.SHAPE
    return replace(
        shipped, layers=LAYERS, heads=shipped.width // head_dim, freq_base=float(freq_base)
    )


def control(model: Model) -> float:
    """Share of keys found at the training length, every token of the answer right."""
    prompts = passkey_task.prompt_set(
        seed=CONTROL_SEED, length=lessons.TRAINING_LENGTH, depths=DEPTHS, trials=TRIALS
    )
    ids = torch.tensor([[*prompt.ids, *prompt.answer_ids] for prompt in prompts])
    answer = passkey_task.ANSWER_TOKENS
    with torch.no_grad():
        guesses = model(ids[:, :-1]).argmax(-1)
    return float((guesses[:, -answer:] == ids[:, -answer:]).all(-1).float().mean())


def train(
    *, freq_base: float, head_dim: int, seed: int, checkpoint: Path, stop: Callable[[], bool]
) -> tuple[Model, dict[str, Any]] | None:
    """Train a model, or go on with it.

    Parameters
    ----------
    freq_base : float
    head_dim : int
        A divisor of the shipped model's width.
    seed : int
    checkpoint : Path
        Kept every CHECKPOINT_STEPS.
    stop : callable
        Asked where a checkpoint was kept.

    Returns
    -------
    (Model, dict) or None
        The model and what the registry says of it; None when it was stopped.
    """
    torch.manual_seed(seed)
    model = Model(shape(freq_base, head_dim))
    rng = random.Random(f"passkey/{freq_base:g}/{head_dim}/{seed}")
    trainer = Trainer(model, schedule=SCHEDULE, rng=rng, checkpoint=checkpoint)
    skill = lessons.standard()
    if checkpoint.exists():
        skill.restore(trainer.resume()["skill"])
    while trainer.steps < STEPS:
        loss, right = train_passkey.loss_and_accuracy(model, skill.draw(rng))
        skill.report(right)
        trainer.step(loss, progress=trainer.steps / STEPS)
        if trainer.steps % CHECKPOINT_STEPS == 0:
            trainer.save(skill=skill.state)
            reached = f"level {skill.level} ({skill.accuracy:.2f}) loss {loss.item():.3f}"
            print(f"step {trainer.steps} {reached} {trainer.seconds:.0f} s", flush=True)
            if stop():
                return None
    found = control(model)
    facts = {
        "steps": trainer.steps,
        "tokens": trainer.steps * lessons.TOKENS_PER_STEP,
        "cpu_seconds": round(trainer.seconds),
        "level": skill.level,
        "control_accuracy": round(found, 4),
        "mastered": found >= MASTERED,
    }
    return model, facts
