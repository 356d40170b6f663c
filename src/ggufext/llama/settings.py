"""What a run of llama.cpp is opened with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Value of a metadata key that stands in for the file's.
Override = bool | int | float | str


#: LLAMA_CONTEXT_TYPE_MTP of llama.h: a context of the layers that predict tokens behind the next.
MTP_CONTEXT = 1


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """Parameters of a llama.cpp context; None leaves llama_context_default_params alone.

    The names are those of ``llama_context_params`` in llama.h; types go by ggml's names
    (``"q8_0"``), the scaling type by its name in files (``"yarn"``). Threads are one by default.
    """

    n_ctx: int | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    n_seq_max: int | None = None
    n_threads: int | None = None
    n_threads_batch: int | None = None
    type_k: str | None = None
    type_v: str | None = None
    swa_full: bool | None = None
    kv_unified: bool | None = None
    flash_attn_type: int | None = None
    rope_scaling_type: str | None = None
    rope_freq_base: float | None = None
    rope_freq_scale: float | None = None
    yarn_ext_factor: float | None = None
    yarn_attn_factor: float | None = None
    yarn_beta_fast: float | None = None
    yarn_beta_slow: float | None = None
    yarn_orig_ctx: int | None = None
    ctx_type: int | None = None


@dataclass(frozen=True, slots=True)
class SelfExtend:
    """Self-Extend: positions beyond the neighbour window are divided by the group size.

    Attributes
    ----------
    group, window : int
        The window is a multiple of the group.

    Source: Jin et al. 2024; the calls are those of llama.cpp's passkey example.
    """

    group: int
    window: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """A model to load, and the context to create for it.

    Attributes
    ----------
    path : Path
        A GGUF file, the first shard of a split model.
    context : ContextSettings
    kv_overrides : mapping
        Metadata values that stand in for the file's, by key.
    gpu_layers : int
        Layers on devices.
    self_extend : SelfExtend or None
    """

    path: Path
    context: ContextSettings = ContextSettings()
    kv_overrides: Mapping[str, Override] = field(default_factory=dict)
    gpu_layers: int = 0
    self_extend: SelfExtend | None = None
