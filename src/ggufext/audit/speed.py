"""How fast a model runs on this processor, and whether flash attention makes it faster."""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING, Any

from ggufext.audit.child_process import start_child
from ggufext.audit.workload import Speed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: A run of fewer micro-batches is not measured: about ten of them are what it takes.
_WORTH_MEASURING = 32


def measure_speed(
    path: Path, how: Mapping[str, Any], flash_attention: Sequence[bool], *, tokens: int
) -> dict[bool, Speed]:
    """Seconds a token, without and with flash attention, on a few hundred tokens.

    Parameters
    ----------
    path : Path
        The model file.
    how : mapping
        Arguments of `ggufext.audit.engines.llama_cpp.LlamaCpp.open`.
    flash_attention : sequence of bool
        Settings to try.
    tokens : int
        What the run is going to compute.

    Returns
    -------
    dict
        By setting. One that llama.cpp refuses, or dies of, is not there: an audit does not depend
        on its speed. Empty where the run is too short to be worth it.
    """
    if tokens < _WORTH_MEASURING * how["settings"]["n_ubatch"]:
        return {}
    request = {
        "path": str(how["path"] or path),
        "settings": how["settings"],
        "kv_overrides": how["kv_overrides"],
        "gpu_layers": how["gpu_layers"],
        "flash_attention": list(flash_attention),
    }
    with tempfile.TemporaryFile() as log:
        child = start_child("ggufext.audit.engines.stopwatch", log, hears_interrupt=False)
        try:
            replies, _ = child.communicate(json.dumps(request).encode() + b"\n")
        finally:
            child.kill()
            child.wait()
    measured = (json.loads(line) for line in replies.splitlines())
    return {fields.pop("flash_attention"): Speed(**fields) for fields in measured}
