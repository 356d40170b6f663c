"""A model whose answer is known: what a library of llama.cpp is tried on before it is asked.

Structures of the right sizes with the right default values could still be laid out otherwise. The
model, a llama of one layer (tests/builders/known_answer.py), takes 10 ms.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ggufext.errors import EngineError
from ggufext.llama.binding import unknown
from ggufext.llama.loaded import GraphReader, Model
from ggufext.llama.settings import ContextSettings, LoadRequest

if TYPE_CHECKING:
    from typing import Any

    from ggufext.llama.library import Llama

#: Base and scale that the overrides and the context are given; the file's are 10,000 and 1.
FREQ_BASE, FREQ_SCALE = 100.0, 0.5

LOAD = LoadRequest(
    path=Path(__file__).with_suffix(".gguf"),
    context=ContextSettings(
        n_ctx=256, n_batch=32, n_ubatch=32, type_k="f32", type_v="f32", rope_freq_scale=FREQ_SCALE
    ),
    kv_overrides={"llama.rope.freq_base": FREQ_BASE},
)

TOKENS = (1, 4, 2, 7)

#: Behind the last of the tokens, computed in float64 by tests/llama/test_known_answer.py.
LOGITS = (0.6577, 1.5119, 0.3013, -1.3997, -1.6141, -1.8898, -0.0931, 1.3313)

#: Builds that are known deviate by up to 0.0013.
_TOLERANCE = 0.02


def check_known_answer(llama: Llama) -> None:
    """Run the model.

    Raises
    ------
    EngineError
        ``engine_unknown`` where the library does not run it, rotates it otherwise or answers
        otherwise.
    """
    try:
        with llama.silence():
            seen, logits = _run(llama)
    except (EngineError, ValueError) as error:
        raise unknown(llama.place.path, f"fails on a known model ({error})") from error
    rotations = [(each["freq_base"], each["freq_scale"]) for each in seen["rope_nodes"]]
    if rotations != [(FREQ_BASE, FREQ_SCALE)] * 2:
        raise unknown(llama.place.path, f"rotates a known model with {rotations}")
    types = [each["type"] for each in seen["cache_tensors"]]
    if types != ["f32"] * 2:
        raise unknown(llama.place.path, f"keeps the cache of a known model as {types}")
    if len(logits) != len(LOGITS) or not np.allclose(logits, LOGITS, rtol=0, atol=_TOLERANCE):
        raise unknown(llama.place.path, f"answers a known model with {logits.tolist()}")


def _run(llama: Llama) -> tuple[dict[str, Any], Any]:
    graph = GraphReader(llama.ggml)
    model = Model(llama, LOAD)
    try:
        model.open(LOAD.context, on_node=llama.node_callback(graph.node))
        logits = model.decode(np.array(TOKENS, np.int32), 0).copy()
        return graph.found(), logits
    finally:
        model.close()
