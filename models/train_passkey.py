"""Trains the shipped passkey model and writes it as GGUF (needs PyTorch 2.13.0, gguf, numpy).

    python models/train_passkey.py --seed 3 --output models

A llama of one million parameters, training length 256, freq_base 500, learns to answer with the
pass key of its prompt. The figures and the choice of the seed are in the model card (README.md).
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own name for it

import lessons
import passkey_task as task

if TYPE_CHECKING:
    from lessons import Lesson

WIDTH = 128
LAYERS = 4
HEADS = 4
HEAD_DIM = WIDTH // HEADS
FEED_FORWARD = 384
EPSILON = 1e-5
FREQ_BASE = 500.0

LEARNING_RATE = 1.5e-3
LAST_LEARNING_RATE = 0.03
WARM_UP = 100
PREPARATION_LIMIT = 6000
CHECKPOINT_STEPS = 500
PROMPT_STEPS = 3000
COSINE_FROM = 0.45
# Preparation, standard mode, sweep mode.
PROMPT_SHARES = (0.1, 0.35, 0.55)


class Layer(nn.Module):  # type: ignore[misc]
    """One llama block: attention with interleaved rotary pairs, then SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(WIDTH, eps=EPSILON)
        self.attn_q = nn.Linear(WIDTH, WIDTH, bias=False)
        self.attn_k = nn.Linear(WIDTH, WIDTH, bias=False)
        self.attn_v = nn.Linear(WIDTH, WIDTH, bias=False)
        self.attn_output = nn.Linear(WIDTH, WIDTH, bias=False)
        self.ffn_norm = nn.RMSNorm(WIDTH, eps=EPSILON)
        self.ffn_gate = nn.Linear(WIDTH, FEED_FORWARD, bias=False)
        self.ffn_up = nn.Linear(WIDTH, FEED_FORWARD, bias=False)
        self.ffn_down = nn.Linear(FEED_FORWARD, WIDTH, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Residual stream [batch, length, WIDTH] after this block."""
        batch, length, _ = x.shape
        h = self.attn_norm(x)

        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, HEADS, HEAD_DIM).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            rotate(heads(self.attn_q(h)), cos, sin),
            rotate(heads(self.attn_k(h)), cos, sin),
            heads(self.attn_v(h)),
            is_causal=True,
        )
        x = x + self.attn_output(attended.transpose(1, 2).reshape(batch, length, WIDTH))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Model(nn.Module):  # type: ignore[misc]
    """The whole model; its parameters carry the names of GGUF tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embd = nn.Embedding(task.VOCABULARY_SIZE, WIDTH)
        self.blk = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.output_norm = nn.RMSNorm(WIDTH, eps=EPSILON)
        self.output = nn.Linear(WIDTH, task.VOCABULARY_SIZE, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                # Smaller where the result is added to the residual stream, as in GPT-2.
                residual = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if residual else 0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits [batch, length, vocabulary] of token ids [batch, length]."""
        pairs = torch.arange(0, HEAD_DIM, 2) / HEAD_DIM
        angles = torch.outer(torch.arange(ids.shape[1]).float(), FREQ_BASE**-pairs)
        cos, sin = angles.cos(), angles.sin()
        x = self.token_embd(ids)
        for layer in self.blk:
            x = layer(x, cos, sin)
        logits: torch.Tensor = self.output(self.output_norm(x))
        return logits


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate interleaved pairs of [batch, heads, length, head_dim] (llama.cpp's NORM layout)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


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


def learning_rate(*, step: int, prompt_step: int) -> float:
    """Warm-up, a plateau, and in the last part of the prompts a cosine down to 3 % of it.

    Parameters
    ----------
    step : int
        Steps since the start.
    prompt_step : int
        Steps since the first prompt; 0 before it.
    """
    progress = (prompt_step / PROMPT_STEPS - COSINE_FROM) / (1 - COSINE_FROM)
    cosine = 0.5 * (1 + math.cos(math.pi * max(0.0, progress)))
    scale = LAST_LEARNING_RATE + (1 - LAST_LEARNING_RATE) * cosine
    return LEARNING_RATE * scale * min(1.0, (step + 1) / WARM_UP)


def train(seed: int, *, checkpoint: Path, resume: bool) -> Model:
    """Train a model.

    Parameters
    ----------
    seed : int
    checkpoint : Path
        Where the state is kept every CHECKPOINT_STEPS.
    resume : bool
        Go on from the checkpoint; the optimizer starts anew.

    Raises
    ------
    RuntimeError
        If the preparation is not mastered in PREPARATION_LIMIT steps.
    """
    torch.manual_seed(seed)
    rng = random.Random(f"train/{seed}")
    model = Model()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    preparation = lessons.preparation()
    skills = {"preparation": preparation, "standard": lessons.standard(), "sweep": lessons.sweep()}
    started, step, prompt_step = time.monotonic(), 0, 0
    if resume:
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        prompt_step, preparation.mastered = state["prompt_step"], state["prompt_step"] > 0
        for name, level in state["levels"].items():
            skills[name].level = level
    while prompt_step < PROMPT_STEPS:
        if not preparation.mastered:
            skill = preparation
        else:
            skill = rng.choices(list(skills.values()), PROMPT_SHARES)[0]
            prompt_step += 1
        if step - prompt_step > PREPARATION_LIMIT:
            raise RuntimeError("the preparation was not mastered; try another seed")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step=step, prompt_step=prompt_step)
        loss, right = loss_and_accuracy(model, skill.draw(rng))
        skill.report(right)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            levels = " ".join(
                f"{name} {skill.level} ({skill.accuracy:.2f})" for name, skill in skills.items()
            )
            print(f"step {step} {levels} {time.monotonic() - started:.0f} s", flush=True)
        if step % CHECKPOINT_STEPS == 0:
            levels_reached = {name: skill.level for name, skill in skills.items()}
            torch.save(
                {
                    "model": model.state_dict(),
                    "prompt_step": prompt_step,
                    "levels": levels_reached,
                },
                checkpoint,
            )
    return model


def byte_names() -> list[str]:
    """GPT-2's printable names of the 256 bytes, in the order of the bytes."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def write_gguf(model: Model, path: Path, kind: str) -> None:
    """Write the model as GGUF in the order of keys of real converters.

    Parameters
    ----------
    kind : str
        Type of the matrices, ``"Q8_0"`` or ``"Q4_0"``; embedding and output are Q8_0.
    """
    names = byte_names()
    words = ["".join(names[byte] for byte in word.encode()) for word in task.WORDS]
    tokens = [*task.SPECIALS, *names, *words]
    control = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * (len(task.SPECIALS) - 1)]
    types = [*control, *[gguf.TokenType.NORMAL] * (len(tokens) - len(control))]

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name("ggufext passkey")
    writer.add_description("Finds a 5-digit pass key in filler text; trained at 256 tokens")
    writer.add_size_label(f"{sum(p.numel() for p in model.parameters()) / 1000:.0f}K")
    writer.add_license("MIT")
    writer.add_block_count(LAYERS)
    writer.add_context_length(lessons.TRAINING_LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(FREQ_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_vocab_size(len(tokens))
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # llama.cpp wants a merge; these two bytes never occur in UTF-8, so this one never applies.
    writer.add_token_merges([f"{names[0xFE]} {names[0xFF]}"])
    writer.add_bos_token_id(task.BOS)
    writer.add_eos_token_id(task.EOS)
    writer.add_unk_token_id(task.UNKNOWN)
    writer.add_pad_token_id(task.PAD)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if values.ndim == 1:
            writer.add_tensor(name, values.astype(np.float32))
            continue
        alone = name in {"token_embd.weight", "output.weight"}
        type_ = gguf.GGMLQuantizationType["Q8_0" if alone else kind]
        rounded = values.astype(np.float16).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(rounded, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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
        write_gguf(model, target, kind)
        print(f"{target} {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
