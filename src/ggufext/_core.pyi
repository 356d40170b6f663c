"""Types of the native module."""

from typing import Any

# --- RoPE kernels (csrc/bind/rope.cpp) ---

def rope_rotate(
    first: Any,
    second: Any,
    positions: Any,
    inv_freq: Any,
    attention_factor: Any,
    layout: Any,
    rotary_dim: Any,
    sections: Any,
    section_order: Any,
    inverse: Any,
    out: Any,
    threads: Any,
    old_inv_freq: Any,
    old_attention_factor: Any,
) -> Any: ...
def rope_instruction_set() -> str: ...
