"""The memory estimate against what llama.cpp says that it allocates.

Worst deviations over this grid are in docs/llama_cpp.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from ggufext.header.header import read_header
from ggufext.header.weights import model_widths
from ggufext.llama.memory import ModelSize, plan_memory
from ggufext.opened.model import facts_of
from ggufext.planning.footprint import CacheType
from llama_here import needs_llama_cpp
from random_model import write_random_model

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.llama.memory import MemoryPlan

MIB = 1 << 20

#: Largest deviation of the sum that is allowed; what was found lies far below.
ALLOWED = 100 * MIB

#: Architecture, vocabulary, bytes that choose the widths, layers.
MODELS = {
    "llama": ("llama", 512, None, None),
    "llama with 128k tokens": ("llama", 128_000, None, None),
    "wide llama": ("llama", 512, 3 << 30, 1),
    "qwen2": ("qwen2", 8000, 60 << 20, 4),
    "qwen3 with 128k tokens": ("qwen3", 128_000, None, None),
    "gemma3": ("gemma3", 32_000, None, None),
}

#: Context, micro-batch, flash attention, cache type.
SETTINGS = [
    (512, 64, False, "f16"),
    (512, 512, True, "q8_0"),
    (4096, 256, False, "f16"),
    (8192, 512, False, "f16"),
    (8192, 64, True, "q8_0"),
    (32_768, 64, False, "f16"),
    (32_768, 512, False, "f16"),
    (32_768, 512, True, "f16"),
    (32_768, 128, True, "q8_0"),
]

Setting = tuple[int, int, bool, str]


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_llama_cpp()
    architecture, vocabulary, size, layers = MODELS[request.param]
    path = tmp_path_factory.mktemp("memory") / "model.gguf"
    return write_random_model(
        path,
        architecture,
        vocabulary=vocabulary,
        size=size,
        layers=layers,
        context=32_768,
        type="Q4_0",
    )


def estimate(path: Path, setting: Setting) -> MemoryPlan:
    n_ctx, n_ubatch, flash_attention, cache_type = setting
    header = read_header(path)
    size = ModelSize(
        header.data_end - header.data_offset, model_widths(header), facts_of(path).layers
    )
    return plan_memory(
        size,
        lengths=(n_ctx,),
        n_ubatch=n_ubatch,
        cache_type=CacheType[cache_type.upper()],
        flash_attention=flash_attention,
        available=1 << 40,
    ).plan


def reported(path: Path, setting: Setting) -> dict[str, float]:
    """Bytes of the buffers in llama.cpp's log, by what they are for."""
    from ggufext.llama.rope_nodes import observe
    from ggufext.llama.settings import ContextSettings

    n_ctx, n_ubatch, flash_attention, cache_type = setting
    settings = ContextSettings(
        n_ctx=n_ctx,
        n_ubatch=n_ubatch,
        swa_full=True,
        type_k=cache_type,
        type_v=cache_type,
        flash_attn_type=int(flash_attention),
    )
    log = "\n".join(observe(path, tokens=(0,), settings=settings).log)
    found = {"model": 0.0, "KV": 0.0, "compute": 0.0, "output": 0.0}
    buffers = re.findall(r"(\S+) +(model|KV|compute|output) buffer size = +([\d.]+) MiB", log)
    for where, what, mib in buffers:
        # The mapped file holds these weights too: cached pages, read while loading only.
        if where != "CPU_REPACK":
            found[what] += float(mib) * MIB
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_estimate_is_within_100_mib_of_what_llama_cpp_reports(
    model: Path, setting: Setting
) -> None:
    plan, said = estimate(model, setting), reported(model, setting)
    deviation = plan.model + plan.kv_cache + plan.compute - sum(said.values())
    print(f"deviation {deviation / MIB:+.1f} MiB of {sum(said.values()) / MIB:,.1f}")
    assert said["KV"] > 0
    assert said["compute"] > 0
    assert abs(deviation) <= ALLOWED


def test_shipped_model_is_estimated_as_well(passkey_model: Path) -> None:
    setting = (8192, 128, True, "f16")
    plan, said = estimate(passkey_model, setting), reported(passkey_model, setting)
    assert plan.kv_cache == pytest.approx(said["KV"], abs=0.01 * MIB)
    assert plan.model + plan.kv_cache + plan.compute == pytest.approx(
        sum(said.values()), abs=10 * MIB
    )
