"""A run of training that was stopped ends with the weights of one that was not."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="needs PyTorch 2.13.0")

import torch

import lessons
import train_passkey
from small_llama import Model
from training import Schedule, Trainer

if TYPE_CHECKING:
    from pathlib import Path

SCHEDULE = Schedule(learning_rate=1e-3, warm_up=4, cosine_from=0.5)
SHAPE = replace(train_passkey.SHAPE, layers=1)
STEPS = 6


def trainer(checkpoint: Path) -> tuple[Model, Trainer]:
    torch.manual_seed(2)
    model = Model(SHAPE)
    rng = random.Random(3)
    return model, Trainer(model, schedule=SCHEDULE, rng=rng, checkpoint=checkpoint)


def steps(model: Model, run: Trainer, count: int) -> None:
    for _ in range(count):
        loss, _ = train_passkey.loss_and_accuracy(model, lessons.one_key(run.rng, 56))
        run.step(loss, progress=run.steps / STEPS)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    whole, run = trainer(checkpoint)
    steps(whole, run, STEPS)
    first, run = trainer(checkpoint)
    steps(first, run, 2)
    run.save(level=5)
    second, run = trainer(checkpoint)
    assert run.resume() == {"level": 5}
    assert run.steps == 2
    assert run.seconds > 0
    steps(second, run, STEPS - 2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_the_learning_rate_warms_up_stays_and_falls() -> None:
    assert SCHEDULE.at(0, progress=0.0) == pytest.approx(0.25e-3)
    assert SCHEDULE.at(3, progress=0.1) == pytest.approx(1e-3)
    assert SCHEDULE.at(9, progress=0.5) == pytest.approx(1e-3)
    assert SCHEDULE.at(9, progress=1.0) == pytest.approx(0.03e-3)
