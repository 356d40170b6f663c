"""What a rotation is: the specification in float64 NumPy, slow and readable."""

from __future__ import annotations

from typing import Any

import numpy as np


def rotate(
    x: Any,
    positions: Any,
    *,
    inv_freq: Any,
    attention_factor: float = 1.0,
    layout: str = "interleaved",
    rotary_dim: int | None = None,
    sections: tuple[int, ...] | None = None,
    section_order: str | None = None,
    inverse: bool = False,
) -> Any:
    """Rotate pairs of `x` by position times frequency, in float64.

    Arguments as in `ggufext.rope.rotate`, without its checks. Angles lose 2⁻⁵³ of their size: the
    result is within 1e-9 of the exact one up to position 1 000 000 and 2e-7 up to 2³¹ − 1.

    Returns
    -------
    ndarray of float64
        Shape of `x`.
    """
    out = np.array(x, dtype=np.float64)
    omega = np.asarray(inv_freq, dtype=np.float64)
    half = len(omega) if rotary_dim is None else rotary_dim // 2
    position = np.asarray(positions, dtype=np.float64)[..., None]
    if sections is not None:
        position = np.moveaxis(position[section_rows(sections, section_order), ..., 0], 0, -1)
    angle = (position * omega)[..., None, :]  # [(batch,) tokens, 1 head, pairs]
    if inverse:
        angle, attention_factor = -angle, 1 / attention_factor
    pairs = (slice(0, half), slice(half, 2 * half))
    if layout == "interleaved":
        pairs = (slice(0, 2 * half, 2), slice(1, 2 * half, 2))
    x0, x1 = out[..., pairs[0]].copy(), out[..., pairs[1]].copy()
    out[..., pairs[0]] = (x0 * np.cos(angle) - x1 * np.sin(angle)) * attention_factor
    out[..., pairs[1]] = (x0 * np.sin(angle) + x1 * np.cos(angle)) * attention_factor
    return out


def section_rows(sections: tuple[int, ...], section_order: str | None) -> list[int]:
    """Row of positions that each pair reads (llama.cpp: ggml_mrope_cache_init).

    Parameters
    ----------
    sections : tuple of int
        Pairs of each row (t, h, w) or (t, h, w, e).
    section_order : str
        ``"blocked"``: MROPE, one block a row; ``"interleaved"``: IMROPE, t, h, w in turn, and what
        a row has no share of goes to e, or to t where there is no e.
    """
    if section_order == "blocked":
        return [row for row, count in enumerate(sections) for _ in range(count)]
    rest = 3 if len(sections) == 4 else 0
    pairs = range(sum(sections))
    return [i % 3 if i < 3 * sections[i % 3] else rest for i in pairs]
