"""Agreement with ggml at small positions, within ggml's own error, and better than it at large."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggufext.rope import reference, rotate

_PATH = Path(__file__).parents[2] / "benchmarks" / "ggml_rope.py"
_SPEC = importlib.util.spec_from_file_location("ggml_rope", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
ggml_rope = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(ggml_rope)

pytestmark = pytest.mark.skipif(ggml_rope.library() is None, reason="no llama.cpp is installed")

MODES = {"interleaved": ggml_rope.NORM, "half": ggml_rope.NEOX}
SHAPE = (64, 4, 128)
INV_FREQ = 10_000.0 ** (-np.arange(64) / 64)


def run_ggml(x: Any, positions: Any, **options: Any) -> Any:
    engine = ggml_rope.GgmlRope(x.shape, x.dtype, **options)
    engine.data[...] = x
    engine.positions[...] = positions
    engine.run()
    result = engine.data.copy()
    engine.close()
    return result


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_results_agree_with_ggml_within_its_own_error(name: str, layout: Any, draw: Any) -> None:
    x = draw(SHAPE, name)
    positions = np.arange(SHAPE[0])
    theirs = run_ggml(x, positions, mode=MODES[layout]).astype(np.float64)
    ours = rotate(x, positions, inv_freq=INV_FREQ, layout=layout).astype(np.float64)
    exact = reference.rotate(x, positions, inv_freq=INV_FREQ, layout=layout)
    their_error = np.abs(theirs - exact).max()
    assert np.abs(ours - theirs).max() <= 2 * their_error
    assert their_error <= (1e-4 if name == "float32" else 4e-3)


@pytest.mark.parametrize("order", ["blocked", "interleaved"])
@pytest.mark.parametrize("sections", [(24, 20, 20, 0), (16, 16, 16, 16), (11, 20, 30, 3)])
def test_sections_agree_with_ggml(sections: Any, order: Any, draw: Any) -> None:
    x = draw(SHAPE)
    positions = np.random.default_rng(2).integers(0, 64, (4, SHAPE[0]))
    mode = ggml_rope.MROPE if order == "blocked" else ggml_rope.IMROPE
    theirs = run_ggml(x, positions, mode=mode, sections=sections)
    ours = rotate(
        x, positions, inv_freq=INV_FREQ, layout="half", sections=sections, section_order=order
    )
    assert np.abs(ours - theirs).max() <= 1e-4


def test_ggml_s_angle_is_off_where_ours_is_exact() -> None:
    x = np.zeros((1, 1, 128), np.float32)
    x[..., :64] = 1
    theirs = run_ggml(x, 1_000_000, mode=ggml_rope.NEOX)
    ours = rotate(x, [1_000_000], inv_freq=INV_FREQ, layout="half")
    cos = np.array([math.cos(math.fmod(1e6 * w, 2 * math.pi)) for w in INV_FREQ])
    assert np.abs(ours[0, 0, :64] - cos).max() <= 1.5e-7
    assert np.abs(theirs[0, 0, :64] - cos).max() >= 1e-2
