"""A language model of 3.5 million parameters, trained on the standard library's sources.

Needs PyTorch 2.13.0, tokenizers 0.23.3, gguf and numpy. Training length 512, freq_base 10,000,
four heads of 64 in each of four layers. Every row of a batch begins with the token that llama.cpp
puts before a text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

from small_llama import Model, Shape, Vocabulary
from standard_library import Part, digest, sources
from training import Schedule, Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from standard_library import Source

VOCABULARY = 1024
SPECIALS = ("<s>", "</s>")
BOS, EOS = range(2)
LENGTH = 512
ROWS = 8
STEPS = 2000
CHECKPOINT_STEPS = 25
SCHEDULE = Schedule(learning_rate=2e-3, warm_up=100, cosine_from=0.3)
# Windows of the tuning modules whose loss the registry names.
WINDOWS = 64


def shape(freq_base: float) -> Shape:
    """Size of the model with a RoPE base."""
    return Shape(
        vocabulary=VOCABULARY,
        width=256,
        layers=4,
        heads=4,
        feed_forward=704,
        freq_base=freq_base,
        context_length=LENGTH,
        tied=True,
    )


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Sources as tokens.

    Attributes
    ----------
    tokenizer : Tokenizer
        Trained on the training modules alone.
    training, tuning : torch.Tensor
        Token ids, files in order of their names, EOS behind each.
    digest : str
        Of the training modules; see `standard_library.digest`.
    """

    tokenizer: Tokenizer
    training: torch.Tensor
    tuning: torch.Tensor
    digest: str


def corpus(library: Sequence[Source] | None = None) -> Corpus:
    """The standard library in tokens of a vocabulary trained on its training part."""
    library = sources() if library is None else library
    texts = {part: [s.text for s in library if s.part is part] for part in Part}
    tokenizer = train_tokenizer(texts[Part.TRAINING])

    def stream(part: Part) -> torch.Tensor:
        encoded = tokenizer.encode_batch(texts[part])
        return torch.tensor([token for each in encoded for token in [*each.ids, EOS]])

    return Corpus(
        tokenizer=tokenizer,
        training=stream(Part.TRAINING),
        tuning=stream(Part.TUNING),
        digest=digest(s for s in library if s.part is Part.TRAINING),
    )


def train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """Byte-level BPE that splits text as GPT-2 does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """What llama.cpp needs to split text in the same way."""
    import json

    ids: dict[str, int] = tokenizer.get_vocab()
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return Vocabulary(
        tokens=sorted(ids, key=ids.__getitem__),
        controls=frozenset((BOS, EOS)),
        merges=[" ".join(pair) for pair in merges],
        pre="gpt-2",
        bos=BOS,
        eos=EOS,
    )


def rows(stream: torch.Tensor, starts: Sequence[int]) -> torch.Tensor:
    """BOS and LENGTH tokens from each start: [starts, 1 + LENGTH]."""
    begin = torch.tensor([BOS])
    return torch.stack([torch.cat((begin, stream[i : i + LENGTH])) for i in starts])


def loss_of(model: Model, batch: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the next token, nats, over rows of `rows`."""
    logits = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def held_out_loss(model: Model, text: torch.Tensor) -> float:
    """Mean loss, nats, of WINDOWS windows of a text, evenly spread."""
    last = len(text) - LENGTH
    starts = [last * i // (WINDOWS - 1) for i in range(WINDOWS)]
    with torch.no_grad():
        losses = [loss_of(model, rows(text, starts[i : i + ROWS])) for i in range(0, WINDOWS, ROWS)]
    return float(torch.stack(losses).mean())


def train(
    text: Corpus, *, freq_base: float, seed: int, checkpoint: Path, stop: Callable[[], bool]
) -> tuple[Model, dict[str, Any]] | None:
    """Train a model, or go on with it.

    Parameters
    ----------
    text : Corpus
    freq_base : float
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
    model = Model(shape(freq_base))
    rng = random.Random(f"language/{seed}")
    trainer = Trainer(model, schedule=SCHEDULE, rng=rng, checkpoint=checkpoint)
    loss = float("nan")
    if checkpoint.exists():
        loss = trainer.resume()["loss"]
    while trainer.steps < STEPS:
        starts = [rng.randrange(len(text.training) - LENGTH) for _ in range(ROWS)]
        step_loss = loss_of(model, rows(text.training, starts))
        trainer.step(step_loss, progress=trainer.steps / STEPS)
        loss = step_loss.item()
        if trainer.steps % CHECKPOINT_STEPS == 0:
            trainer.save(loss=loss)
            print(f"step {trainer.steps} loss {loss:.3f} {trainer.seconds:.0f} s", flush=True)
            if stop():
                return None
    facts = {
        "steps": trainer.steps,
        "tokens": trainer.steps * ROWS * LENGTH,
        "cpu_seconds": round(trainer.seconds),
        "training_digest": text.digest,
        "training_tokens": len(text.training),
        "held_out_loss": round(held_out_loss(model, text.tuning), 4),
        "mastered": True,
    }
    return model, facts
