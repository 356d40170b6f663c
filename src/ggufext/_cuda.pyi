"""Types of the CUDA module, which is there only when it was built (csrc/bind/cuda.cpp)."""

from typing import Any

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
    stream: int,
    old_inv_freq: Any,
    old_attention_factor: Any,
) -> Any: ...
def device_count() -> int: ...
