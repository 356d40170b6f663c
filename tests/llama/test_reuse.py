"""Cells that a prompt shares with the one before are kept, and change no bit of the logits."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ggufext.llama.process import LlamaProcess
from ggufext.llama.settings import ContextSettings, LoadRequest
from llama_here import needs_llama_cpp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

UBATCH = 16
SETTINGS = ContextSettings(n_ctx=512, n_batch=64, n_ubatch=UBATCH, swa_full=True)

TEXT = tuple((7 * i * i + 3 * i) % 250 for i in range(300))

#: They share starts of different lengths with the one before.
PROMPTS = [array("i", [*TEXT[:at], 251, 252, *TEXT[at:]]) for at in (300, 220, 150, 70)]


def logits(load: LoadRequest, *, reuse: bool) -> list[bytes]:
    """Those behind each prompt, where `reuse` of one context for all."""
    found = []
    with LlamaProcess() as process:
        for index, prompt in enumerate(PROMPTS):
            if index == 0 or not reuse:
                process.request(load.path, "open", load=load)
            reply, behind = process.request(
                load.path, "ask", prompt.tobytes(), tokens=0, hidden="", stop=""
            )
            assert (reply["evaluated"] < reply["naive"]) is (reuse and index > 0)
            found.append(behind)
    assert len(set(found)) == len(PROMPTS)
    return found


@pytest.mark.parametrize("n_ubatch", [UBATCH, 64])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("flash_attn_type", [0, 1])
def test_reused_cells_give_bit_identical_logits(
    passkey_model: Path, n_ubatch: int, n_threads: int, flash_attn_type: int
) -> None:
    context = replace(
        SETTINGS,
        n_ubatch=n_ubatch,
        n_threads=n_threads,
        n_threads_batch=n_threads,
        flash_attn_type=flash_attn_type,
    )
    load = LoadRequest(path=passkey_model, context=context)
    assert logits(load, reuse=True) == logits(load, reuse=False)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3"])
def test_reused_cells_give_bit_identical_logits_in_other_architectures(
    architecture: str, random_models: Callable[[str], Path]
) -> None:
    needs_llama_cpp()
    load = LoadRequest(path=random_models(architecture), context=SETTINGS)
    assert logits(load, reuse=True) == logits(load, reuse=False)
