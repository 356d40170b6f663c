"""Runs a model on tokens in one micro-batch and keeps what every layer attends with, whole.

In a process of its own, as llama.cpp may end it: ``python captured_attention.py MODEL OUT TOKENS``.
OUT (.npz) gets ``q-N`` and ``k-N`` after the rotation, tokens × heads × elements, ``scale-N`` and
``softmax-N``, heads × tokens × cells, of every layer N.
"""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ggufext.llama.library import Llama, Tensor
from ggufext.llama.loaded import Model
from ggufext.llama.settings import ContextSettings, LoadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Arrays = dict[str, npt.NDArray[np.float32]]

#: KV cache in F32: what is recomputed from keys in F16 differs by a hundredth.
SETTINGS = ContextSettings(
    n_ctx=512,
    n_batch=512,
    n_ubatch=512,
    type_k="f32",
    type_v="f32",
    flash_attn_type=0,
    swa_full=True,
)


def captured(model: Path, tokens: Sequence[int], folder: Path) -> Arrays:
    """What `capture` finds, in a process of its own."""
    out = folder / "captured.npz"
    words = [str(token) for token in tokens]
    subprocess.run([sys.executable, __file__, str(model), str(out), *words], check=True)
    with np.load(out) as found:
        return dict(found)


def capture(model: Path, tokens: Sequence[int]) -> Arrays:
    """Run the model in this process."""
    found: Arrays = {}
    llama = Llama()

    def node(address: int, ask: bool, _: Any) -> bool:
        tensor = Tensor.from_address(address)
        name, operation = tensor.name.decode(), llama.ggml.op_name(tensor)
        rotated = re.fullmatch(r"([QK])cur-(\d+)", name) if operation == "ROPE" else None
        softmax = re.fullmatch(r"kq_soft_max-(\d+)", name)
        if not ask and rotated:
            found[f"{rotated[1].lower()}-{rotated[2]}"] = _copy(tensor)
        if not ask and softmax:
            found[f"softmax-{softmax[1]}"] = _copy(tensor)
            (scale,) = struct.unpack("f", struct.pack("i", tensor.op_params[0]))
            found[f"scale-{softmax[1]}"] = np.array(scale, np.float32)
        return bool(rotated or softmax)

    loaded = Model(llama, LoadRequest(path=model))
    loaded.open(SETTINGS, on_node=llama.node_callback(node))
    loaded.decode(np.array(tokens, np.int32), 0)
    loaded.close()
    return found


def _copy(tensor: Tensor) -> npt.NDArray[np.float32]:
    shape = tuple(reversed(tensor.ne[:3]))
    strides = tuple(reversed(tensor.nb[:3]))
    size = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 4
    memory = memoryview((ctypes.c_char * size).from_address(tensor.data)).cast("B")
    made: npt.NDArray[np.float32] = np.ndarray(shape, np.float32, memory, 0, strides).copy()
    return made


if __name__ == "__main__":
    found = capture(Path(sys.argv[1]), [int(each) for each in sys.argv[3:]])
    np.savez(sys.argv[2], allow_pickle=False, **found)
