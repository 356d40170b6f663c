"""Trains the shipped passkey model and writes it as GGUF (needs PyTorch 2.13.0, gguf, numpy).

    python models/train_passkey.py --seed 3 --output models

A llama of one million parameters, training length 256, freq_base 500, learns to answer with the
pass key of its prompt. The figures and the choice of the seed are in the model card (README.md).
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

import lessons
import passkey_task as task
from small_llama import Model, Shape, Vocabulary, byte_names, write_gguf
from training import Schedule, Trainer

if TYPE_CHECKING:
    from lessons import Lesson

SHAPE = Shape(
    vocabulary=task.VOCABULARY_SIZE,
    width=128,
    layers=4,
    heads=4,
    feed_forward=384,
    freq_base=500.0,
    context_length=lessons.TRAINING_LENGTH,
)
SCHEDULE = Schedule(learning_rate=1.5e-3, warm_up=100, cosine_from=0.45)
PREPARATION_LIMIT = 6000
CHECKPOINT_STEPS = 500
PROMPT_STEPS = 3000
# Preparation, standard mode, sweep mode.
PROMPT_SHARES = (0.1, 0.35, 0.55)


def loss_and_accuracy(model: Model, lesson: Lesson) -> tuple[torch.Tensor, float]:
    """Weighted cross-entropy, and the share of answers that are right in every token."""
    ids = torch.tensor(lesson.rows)
    targets = ids[:, 1:]
    logits = model(ids[:, :-1])
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    losses = losses.view_as(targets)
    # The target at index i is the token at position i + 1.
    answers = torch.tensor([[position - 1 for position in answer] for answer in lesson.answers])
    asked = torch.zeros(targets.shape[1], dtype=torch.bool)
    asked[answers.flatten()] = True
    right = (logits.argmax(-1) == targets)[:, answers].all(-1).float().mean().item()
    rest = losses[:, ~asked].mean()
    return losses[:, asked].mean() + lesson.rest_weight * rest, right


def train(seed: int, *, checkpoint: Path, resume: bool) -> Model:
    """Train a model.

    Parameters
    ----------
    seed : int
    checkpoint : Path
        Where the state is kept every CHECKPOINT_STEPS.
    resume : bool
        Go on from the checkpoint.

    Raises
    ------
    RuntimeError
        If the preparation is not mastered in PREPARATION_LIMIT steps.
    """
    torch.manual_seed(seed)
    model = Model(SHAPE)
    rng = random.Random(f"train/{seed}")
    trainer = Trainer(model, schedule=SCHEDULE, rng=rng, checkpoint=checkpoint)
    preparation = lessons.preparation()
    skills = {"preparation": preparation, "standard": lessons.standard(), "sweep": lessons.sweep()}
    prompt_step = 0
    if resume:
        state = trainer.resume()
        prompt_step = state["prompt_step"]
        for name, skill in skills.items():
            skill.restore(state[name])
    while prompt_step < PROMPT_STEPS:
        if not preparation.mastered:
            skill = preparation
        else:
            skill = rng.choices(list(skills.values()), PROMPT_SHARES)[0]
            prompt_step += 1
        if trainer.steps - prompt_step > PREPARATION_LIMIT:
            raise RuntimeError("the preparation was not mastered; try another seed")
        loss, right = loss_and_accuracy(model, skill.draw(rng))
        skill.report(right)
        trainer.step(loss, progress=prompt_step / PROMPT_STEPS)
        if trainer.steps % 100 == 0:
            levels = " ".join(
                f"{name} {skill.level} ({skill.accuracy:.2f})" for name, skill in skills.items()
            )
            print(f"step {trainer.steps} {levels} {trainer.seconds:.0f} s", flush=True)
        if trainer.steps % CHECKPOINT_STEPS == 0:
            kept = {name: skill.state for name, skill in skills.items()}
            trainer.save(prompt_step=prompt_step, **kept)
    return model


def vocabulary() -> Vocabulary:
    """The tokens of `passkey_task`."""
    names = byte_names()
    words = ["".join(names[byte] for byte in word.encode()) for word in task.WORDS]
    return Vocabulary(
        tokens=[*task.SPECIALS, *names, *words],
        controls=frozenset(range(len(task.SPECIALS))),
        # llama.cpp wants a merge; these two bytes never occur in UTF-8, so this one never applies.
        merges=[f"{names[0xFE]} {names[0xFF]}"],
        pre="llama-bpe",
        bos=task.BOS,
        eos=task.EOS,
        unknown=task.UNKNOWN,
        pad=task.PAD,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument(
        "--resume", action="store_true", help="go on from passkey-checkpoint.pt in the output"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    checkpoint = arguments.output / "passkey-checkpoint.pt"
    model = train(arguments.seed, checkpoint=checkpoint, resume=arguments.resume)
    for kind in ("Q8_0", "Q4_0"):
        target = arguments.output / f"passkey-{kind}.gguf"
        write_gguf(
            model,
            target,
            name="ggufext passkey",
            description="Finds a 5-digit pass key in filler text; trained at 256 tokens",
            vocabulary=vocabulary(),
            kind=kind,
        )
        print(f"{target} {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
