"""A library of llama.cpp has to answer a model whose answer is known before it is asked."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gguf import GGUFReader

import known_answer as model
from ggufext.errors import EngineError
from ggufext.llama import binding, known_answer
from ggufext.llama.process import LlamaProcess
from llama_here import needs_llama_cpp
from made_up_library import build_on_top

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]


def norm(values: Array, weight: Array) -> Array:
    mean = (values**2).mean(axis=-1, keepdims=True)
    found: Array = values / np.sqrt(mean + model.EPSILON) * weight
    return found


def rotated(heads: Array) -> Array:
    """Pairs (2i, 2i + 1) of (tokens, heads, elements), each by its position's angle."""
    tokens, _, size = heads.shape
    frequencies = known_answer.FREQ_BASE ** (-2 * np.arange(size // 2) / size)
    angles = known_answer.FREQ_SCALE * np.arange(tokens)[:, None, None] * frequencies
    turned = (heads[..., 0::2] + 1j * heads[..., 1::2]) * np.exp(1j * angles)
    found: Array = np.stack([turned.real, turned.imag], axis=-1).reshape(heads.shape)
    return found


def reference() -> Array:
    """Logits behind the last token, in float64."""
    tensors: dict[str, Array] = {
        each.name: each.data.astype(np.float64) for each in GGUFReader(model.PATH).tensors
    }

    def weight(name: str) -> Array:
        return tensors[f"{name}.weight"]

    def times(values: Array, name: str) -> Array:
        found: Array = values @ weight(f"blk.0.{name}").T
        return found

    values = weight("token_embd")[list(known_answer.TOKENS)]
    count = len(values)
    normed = norm(values, weight("blk.0.attn_norm"))
    q, k, v = (
        times(normed, f"attn_{name}").reshape(count, -1, model.HEAD_DIM) for name in ("q", "k", "v")
    )
    scores = np.einsum("ihd,jd->hij", rotated(q), rotated(k)[:, 0]) / np.sqrt(model.HEAD_DIM)
    shares = np.tril(np.exp(scores))
    shares /= shares.sum(axis=-1, keepdims=True)
    heads = np.einsum("hij,jd->ihd", shares, v[:, 0]).reshape(count, -1)
    values = values + times(heads, "attn_output")
    normed = norm(values, weight("blk.0.ffn_norm"))
    gate = times(normed, "ffn_gate")
    inner = gate / (1 + np.exp(-gate)) * times(normed, "ffn_up")
    values = values + times(inner, "ffn_down")
    logits: Array = norm(values, weight("output_norm")) @ weight("output").T
    last: Array = logits[-1]
    return last


def test_the_answer_is_that_of_plain_float64() -> None:
    assert np.abs(reference() - known_answer.LOGITS).max() < 0.0001


def test_the_model_is_the_one_that_its_script_writes(tmp_path: Path) -> None:
    model.write(tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == known_answer.LOAD.path.read_bytes()


def test_the_log_of_the_first_request_tells_nothing_of_it() -> None:
    needs_llama_cpp()
    with LlamaProcess() as process:
        process.hello()
        assert not [line for line in process.log() if "known_answer" in line]


_OVERRIDES_FORGOTTEN = f"""
typedef struct {{ char b[{ctypes.sizeof(binding._ModelParams)}]; }} params;
void *llama_model_load_from_file(const char *path, params given) {{
  void *(*real)(const char *, params) = dlsym(RTLD_NEXT, "llama_model_load_from_file");
  memset(given.b + {binding._ModelParams.kv_overrides.offset}, 0, sizeof(void *));
  return real(path, given);
}}
"""

_ZEROS = "float *llama_get_logits_ith(void *c, int i) { static float zeros[8]; return zeros; }"

_NOTHING = "float *llama_get_logits_ith(void *c, int i) { return 0; }"

_CONTEXT_FAILS = "void *llama_init_from_model(void) { return 0; }"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RTLD_NEXT of Linux")
@pytest.mark.parametrize(
    ("functions", "words"),
    [
        (_OVERRIDES_FORGOTTEN, "rotates a known model with [(10000.0, 0.5), (10000.0, 0.5)]"),
        (_ZEROS, "answers a known model with [0.0, 0.0"),
        (_NOTHING, "fails on a known model"),
        (_CONTEXT_FAILS, "fails on a known model (llama.cpp gives no reason)"),
    ],
)
def test_a_library_that_looks_right_and_answers_otherwise_is_refused(
    functions: str, words: str, tmp_path: Path
) -> None:
    library = build_on_top(tmp_path / "libllama.so", needs_llama_cpp().path, functions)
    with LlamaProcess(library) as process, pytest.raises(EngineError) as refused:
        process.hello()
    assert refused.value.code == "engine_unknown"
    assert words in refused.value.message
