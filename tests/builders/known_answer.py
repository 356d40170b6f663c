"""Writes the model on which a library of llama.cpp is tried when it is loaded.

Usage: ``python tests/builders/known_answer.py``, which writes src/ggufext/llama/known_answer.gguf
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

PATH = Path(__file__).resolve().parents[2] / "src" / "ggufext" / "llama" / "known_answer.gguf"

EMBEDDING, HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD, VOCABULARY = 16, 2, 1, 8, 16, 8
FREQ_BASE, EPSILON = 10_000.0, 1e-5

_SHAPES = {
    "token_embd": (VOCABULARY, EMBEDDING),
    "output_norm": (EMBEDDING,),
    "output": (VOCABULARY, EMBEDDING),
    "blk.0.attn_norm": (EMBEDDING,),
    "blk.0.attn_q": (HEADS * HEAD_DIM, EMBEDDING),
    "blk.0.attn_k": (KV_HEADS * HEAD_DIM, EMBEDDING),
    "blk.0.attn_v": (KV_HEADS * HEAD_DIM, EMBEDDING),
    "blk.0.attn_output": (EMBEDDING, HEADS * HEAD_DIM),
    "blk.0.ffn_norm": (EMBEDDING,),
    "blk.0.ffn_gate": (FEED_FORWARD, EMBEDDING),
    "blk.0.ffn_up": (FEED_FORWARD, EMBEDDING),
    "blk.0.ffn_down": (EMBEDDING, FEED_FORWARD),
}


def write(path: Path) -> None:
    """Write a llama of one layer without a vocabulary; its weights are eighths of −8 … 8."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(EMBEDDING)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_freq_base(FREQ_BASE)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("none")
    number = 0
    for name, shape in _SHAPES.items():
        count = int(np.prod(shape))
        # Fractions of multiples of the golden ratio: spread evenly, and the same everywhere.
        spread = np.arange(number + 1, number + count + 1) * 40_503 % 65_536 // 3_856 - 8
        writer.add_tensor(f"{name}.weight", (spread / 8).astype(np.float32).reshape(shape))
        number += count
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(PATH)
