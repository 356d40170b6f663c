"""Trains the models of the study, one after another, and goes on where it was stopped.

    PYTHONPATH=models python studies/gamma_rule/train.py --minutes 55

Needs PyTorch 2.13.0, tokenizers 0.23.3, gguf and numpy. Models, checkpoints and what is known of
each lie in the folder that GGUFEXT_STUDY_CACHE names (build/study when it names none). `--register`
writes models.json, failures included, from what lies there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import platform
import time
from typing import TYPE_CHECKING, Any

import torch

import language_model
import passkey_models
import train_passkey
from small_llama import write_gguf
from trained import REGISTRY, TrainedModel, cache_folder, trained_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from small_llama import Model, Vocabulary


def train(order: TrainedModel, folder: Path, *, stop: Callable[[], bool]) -> bool:
    """Train one model into a folder; whether it is finished."""
    checkpoint = folder / f"{order.name}.checkpoint"
    if order.kind == "language":
        text = language_model.corpus()
        vocabulary = language_model.vocabulary(text.tokenizer)
        trained = language_model.train(
            text, freq_base=order.freq_base, seed=order.seed, checkpoint=checkpoint, stop=stop
        )
    else:
        vocabulary = train_passkey.vocabulary()
        trained = passkey_models.train(
            freq_base=order.freq_base,
            head_dim=order.head_dim,
            seed=order.seed,
            checkpoint=checkpoint,
            stop=stop,
        )
    if trained is None:
        return False
    model, facts = trained
    _write(order, folder, model=model, vocabulary=vocabulary, facts=facts)
    checkpoint.unlink()
    return True


def register(folder: Path) -> dict[str, Any]:
    """What is known of the models in a folder: finished ones by name, and those still open."""
    known = {order.name: folder / f"{order.name}.json" for order in trained_models()}
    return {
        "finished": [json.loads(path.read_text()) for path in known.values() if path.exists()],
        "open": [name for name, path in known.items() if not path.exists()],
    }


def _write(
    order: TrainedModel,
    folder: Path,
    *,
    model: Model,
    vocabulary: Vocabulary,
    facts: dict[str, Any],
) -> None:
    path = folder / f"{order.name}.gguf"
    write_gguf(
        model,
        path,
        name=order.name,
        description=f"A model of the study of the γ rule, trained at {model.shape.context_length}",
        vocabulary=vocabulary,
    )
    entry = {
        "name": order.name,
        **dataclasses.asdict(order),
        "parameters": sum(p.numel() for p in model.parameters()),
        "shape": dataclasses.asdict(model.shape),
        **facts,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    # Written last: a model without it is not finished.
    (folder / f"{order.name}.json").write_text(json.dumps(entry, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=55, help="stop after so many (default 55)")
    parser.add_argument("--threads", type=int, default=1, help="change last bits of the weights")
    parser.add_argument("--register", action="store_true", help="write models.json, train nothing")
    arguments = parser.parse_args()
    folder = cache_folder()
    if arguments.register:
        text = json.dumps(register(folder), indent=2, ensure_ascii=False)
        REGISTRY.write_text(text + "\n")
        return
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    end = time.monotonic() + 60 * arguments.minutes
    for order in trained_models():
        if (folder / f"{order.name}.json").exists():
            continue
        print(order.name, flush=True)
        if not train(order, folder, stop=lambda: time.monotonic() > end):
            return


if __name__ == "__main__":
    main()
