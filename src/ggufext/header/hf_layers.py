"""Which layers of a Hugging Face configuration see a sliding window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header.model import MOST_LAYERS

if TYPE_CHECKING:
    from ggufext.header.hf_reader import ConfigReader

#: Window of each attention layer in tokens; None for a layer that sees everything.
LocalLayers = tuple[int | None, ...]

#: Every n-th layer is global where the file does not say (Transformers' configuration classes).
_PATTERNS = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4}

#: Layers without a growing cache: they hold a state of fixed size.
_RECURRENT = frozenset({"linear_attention", "conv", "mamba", "recurrent"})


def local_layers(read: ConfigReader, *, own_rotation: bool) -> LocalLayers:
    """Windows of the layers.

    Parameters
    ----------
    read : ConfigReader
    own_rotation : bool
        Whether local layers have a rope block of their own.

    Raises
    ------
    PlanError
        ``local_layers_would_change``: local and global layers share one rope block.
    """
    count = read.required("num_hidden_layers", at_most=MOST_LAYERS)
    name, kinds = _layer_types(read, count)
    attention = [kind for kind in kinds if kind not in _RECURRENT]
    other = set(attention) - {"full_attention", "sliding_attention"}
    mixed = len(set(attention)) > 1
    if other or (mixed and not own_rotation):
        raise PlanError(
            code="local_layers_would_change",
            field=read.field(name),
            message="local layers share the rope block of the global ones in Transformers, and an "
            "extension would move them too; plan the GGUF file, where llama.cpp may keep them "
            "apart",
        )
    window = read.required("sliding_window") if "sliding_attention" in attention else None
    return tuple(window if kind == "sliding_attention" else None for kind in attention)


def _layer_types(read: ConfigReader, count: int) -> tuple[str, list[str]]:
    """The entry that decides, and the type of each layer."""
    kinds = read.entries.get("layer_types")
    if kinds is not None:
        read.check_type("layer_types", kinds, list, "a list")
        if len(kinds) != count or not all(isinstance(kind, str) for kind in kinds):
            read.nonsense("layer_types", f"{count} names, one a layer")
        return "layer_types", list(kinds)
    if read.entries.get("attention_chunk_size") is not None:
        return "attention_chunk_size", ["chunked_attention"] * count
    # Qwen's files name a window that nothing uses unless this switch is on.
    unused = read.model_type.startswith("qwen") and not read.entries.get("use_sliding_window")
    if read.entries.get("sliding_window") is None or unused:
        return "sliding_window", ["full_attention"] * count
    first_local = read.count("max_window_layers") or 0
    if read.model_type.startswith("qwen"):
        return "max_window_layers", [
            "sliding_attention" if layer >= first_local else "full_attention"
            for layer in range(count)
        ]
    period = read.count("sliding_window_pattern") or _PATTERNS.get(read.model_type)
    if period is None:
        return "sliding_window", ["sliding_attention"] * count
    return "sliding_window_pattern", [
        "full_attention" if (layer + 1) % period == 0 else "sliding_attention"
        for layer in range(count)
    ]
