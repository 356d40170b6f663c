"""Types of values and of tensors, by their numbers in GGUF files."""

from __future__ import annotations

import struct

Scalar = int | float | bool | str

#: By type number: name, and struct format of a value; STRING and ARRAY have none.
VALUE_TYPES = (
    ("UINT8", "B"),
    ("INT8", "b"),
    ("UINT16", "H"),
    ("INT16", "h"),
    ("UINT32", "I"),
    ("INT32", "i"),
    ("FLOAT32", "f"),
    ("BOOL", "?"),
    ("STRING", ""),
    ("ARRAY", ""),
    ("UINT64", "Q"),
    ("INT64", "q"),
    ("FLOAT64", "d"),
)
UINT32, STRING, ARRAY = 4, 8, 9

#: By type number: name, elements of a block, bytes of a block; 0 for what llama.cpp once had and no
#: longer reads. Source: ggml.h and ggml-common.h.
GGML_TYPES = (
    ("F32", 1, 4),
    ("F16", 1, 2),
    ("Q4_0", 32, 18),
    ("Q4_1", 32, 20),
    ("Q4_2", 0, 0),
    ("Q4_3", 0, 0),
    ("Q5_0", 32, 22),
    ("Q5_1", 32, 24),
    ("Q8_0", 32, 34),
    ("Q8_1", 32, 36),
    ("Q2_K", 256, 84),
    ("Q3_K", 256, 110),
    ("Q4_K", 256, 144),
    ("Q5_K", 256, 176),
    ("Q6_K", 256, 210),
    ("Q8_K", 256, 292),
    ("IQ2_XXS", 256, 66),
    ("IQ2_XS", 256, 74),
    ("IQ3_XXS", 256, 98),
    ("IQ1_S", 256, 50),
    ("IQ4_NL", 32, 18),
    ("IQ3_S", 256, 110),
    ("IQ2_S", 256, 82),
    ("IQ4_XS", 256, 136),
    ("I8", 1, 1),
    ("I16", 1, 2),
    ("I32", 1, 4),
    ("I64", 1, 8),
    ("F64", 1, 8),
    ("IQ1_M", 256, 56),
    ("BF16", 1, 2),
    ("Q4_0_4_4", 0, 0),
    ("Q4_0_4_8", 0, 0),
    ("Q4_0_8_8", 0, 0),
    ("TQ1_0", 256, 54),
    ("TQ2_0", 256, 66),
    ("IQ4_NL_4_4", 0, 0),
    ("IQ4_NL_4_8", 0, 0),
    ("IQ4_NL_8_8", 0, 0),
    ("MXFP4", 32, 17),
    ("NVFP4", 64, 36),
    ("Q1_0", 128, 18),
    ("Q2_0", 64, 18),
)


def smallest(type_: int) -> int:
    """Bytes of a value; of a string, those of its length."""
    return struct.calcsize("<" + (VALUE_TYPES[type_][1] or "Q"))


def ggml_types() -> list[tuple[int, str, int, int]]:
    """Number, name, elements and bytes of a block of each type that llama.cpp reads."""
    return [(number, *type_) for number, type_ in enumerate(GGML_TYPES) if type_[1]]
