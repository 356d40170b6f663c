"""The rules of a GGUF header in plain Python: what `ggufext._core` must agree with, in each word.

It reads headers where the native module is absent, under the same names. Source: the GGUF
specification in ggml's docs, and what llama.cpp accepts (ggml/src/gguf.cpp of llama-cpp-python
0.3.36). Where the two leave room, the stricter rule holds.
"""

from __future__ import annotations

from ggufext.header.pure.index import HeaderIndex
from ggufext.header.pure.types import ggml_types
from ggufext.header.pure.values import decode_value, read_value

__all__ = ["HeaderIndex", "decode_value", "ggml_types", "read_value"]
