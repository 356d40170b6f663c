"""Write the files that `make fuzz` starts from into a folder."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "builders"))

from gguf_bytes import (
    BOOL,
    FLOAT64,
    INT8,
    STRING,
    U16,
    U32,
    U64,
    UINT8,
    Array,
    Raw,
    Tensor,
    gguf_bytes,
)
from made_up_headers import files

WINDOW = 2**16

SEEDS = {
    "empty": gguf_bytes(),
    "model": gguf_bytes(
        {
            "general.architecture": "llama",
            "llama.context_length": U32(4096),
            "llama.rope.freq_base": 10000.0,
            "split.count": U16(1),
            "size": U64(2**40),
            "flag": True,
            "tokens": ["a", "bc", "", "Ġd", "é"],
            "scores": [0.0, -1.0],
            "flags": Array(BOOL, [True, False]),
            "none": Array(STRING, []),
            "wide": Array(FLOAT64, [1.0]),
            "narrow": Array(INT8, [-1]),
        },
        [Tensor("token_embd.weight", (32, 2), "Q8_0"), Tensor("norm", (5,)), Tensor("x", ())],
        alignment=64,
    ),
    "no_tensors": gguf_bytes({"general.architecture": "llama", "tokens": ["a"] * 50}, version=2),
    "twins": gguf_bytes(
        {"ka": U32(1), "kb": U32(2), "kc": U32(3)},
        [Tensor("ta", (8,)), Tensor("tb", (8,)), Tensor("tc", (8,))],
    ),
    "across_the_window": gguf_bytes(
        {
            "filler": Raw(9, struct.pack("<iQ", UINT8, WINDOW - 100) + bytes(WINDOW - 100)),
            "tokens": ["abc" * i for i in range(40)],
            "name": "text",
        },
        [Tensor("t", (8,))],
    ),
    "llama_file_type": b"MZqFpD='\n" + bytes(600),
} | {f"made_up_{number}": data for number, data in enumerate(files(200))}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in SEEDS.items():
        (folder / f"{name}.gguf").write_bytes(data)
