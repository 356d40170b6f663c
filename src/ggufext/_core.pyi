"""Types of the native module."""

from typing import Any

# --- RoPE kernels (csrc/bind/rope.cpp) ---

def rope_rotate(
    first: Any,
    second: Any,
    positions: Any,
    inv_freq: Any,
    attention_factor: float,
    layout: str,
    rotary_dim: int | None,
    sections: Any,
    section_order: str | None,
    inverse: bool,
    out: Any,
    threads: int,
    old_inv_freq: Any = None,
    old_attention_factor: float = 1.0,
) -> Any: ...
def rope_instruction_set() -> str: ...
