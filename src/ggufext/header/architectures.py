"""What llama.cpp does with each architecture, and what it demands of a file: architectures.json.

The file is written from llama.cpp's sources by tests/header/list_architectures.py. The fields of an
entry are those of `Architecture`; those of `support` verified have `loading` beside them, which
`ggufext.header.loading` explains.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufext.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable


class Support(Enum):
    """How well an architecture is known."""

    VERIFIED = "verified"
    """Tried against llama.cpp: planned values reach the graph, nothing else moves."""
    READ = "read"
    """Read from llama.cpp's source, not tried."""
    UNKNOWN = "unknown"
    """Not in the table."""


class Layout(Enum):
    """Which dimensions of a head form a rotated pair."""

    INTERLEAVED = "interleaved"
    """Pairs (2i, 2i+1); llama.cpp's NORM."""
    HALF = "half"
    """Pairs (i, i + d/2); llama.cpp's NEOX."""
    SECTIONS = "sections"
    """Several position rows; llama.cpp's MROPE and IMROPE."""
    NONE = "none"
    """No rotation."""


class Positions(Enum):
    """Where a model gets positions from."""

    ROPE = "rope"
    LEARNED = "learned"
    """A table with one row a position: a longer context does not fit the file."""
    NONE = "none"
    UNKNOWN = "unknown"


class LocalRotation(Enum):
    """What sliding-window (local) layers rotate with."""

    OWN_BASE = "own_base"
    """A base of their own, unless the file has rope.freq_base_swa; never scaled."""
    COPIED = "copied"
    """The file's freq_base, unless it has rope.freq_base_swa; the file's factor, type none too."""
    COPIED_BASE = "copied_base"
    """The file's freq_base, unless it has rope.freq_base_swa; never scaled."""
    PLAIN = "plain"
    """rope.freq_base, always; never scaled, nor multiplied by an attention factor."""
    GLOBAL = "global"
    """Base and scaling of the global layers, always."""


class Unrotated(Enum):
    """Which layers of an architecture do not rotate."""

    GLOBAL_BESIDE_LOCAL = "global_beside_local"
    """Global layers, in a model that has local ones."""
    EVERY_FOURTH = "every_fourth"
    """Layers 3, 7, 11 …"""
    EVERY_FOURTH_BESIDE_LOCAL = "every_fourth_beside_local"
    """Layers 0, 4, 8 …, in a model that has local ones and not exactly four layers."""


class FactorSupport(Enum):
    """Which frequency-factor tensors llama.cpp loads and rotates with."""

    NONE = "none"
    """None: a file that carries one does not load, or the graph ignores it."""
    ROPE_FREQS = "rope_freqs"
    """rope_freqs.weight."""
    BY_TYPE = "by_type"
    """rope_factors_long and _short.weight with scaling type longrope, else rope_freqs.weight."""
    LONG_SHORT = "long_short"
    """rope_factors_long and _short.weight, whatever the scaling type."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One entry of the table.

    Attributes
    ----------
    name : str
        Value of general.architecture.
    support : Support
    layout : Layout
    positions : Positions
    kind : str
        ``"language_model"``, or what the file is instead.
    sections_when_present : bool
        Layout is SECTIONS where rope.dimension_sections says so.
    reads_rope_keys : bool
        False: base 10,000 and no scaling, whatever the file says.
    rotates_with_block_count : int or None
        The only number of layers with which the model rotates.
    rope_switch : bool
        rope.scaling.finetuned false switches the rotation off.
    reads : tuple of str
        Keys of `header.rope_keys.READ_BY_SOME` that take effect. rope.scaling.alpha multiplies the
        base by alpha^(d/(d-2)).
    yarn_beta_fast : float
        Where the file does not say.
    yarn_log_multiplier_unit : float
        What rope.scaling.yarn_log_multiplier is divided by.
    mscale_is_multiplier : bool
        The multiplier counts for rotated values too, so that their attention factor is 1.
    scales_attention : bool
        Scaling multiplies all scores of attention, not those of the rotated part alone.
    latent_cache : bool
        With attention.key_length_mla the cache holds keys only, values are part of them.
    local_rotation : LocalRotation or None
        None: the architecture has no sliding windows.
    local_freq_base : float or None
        Base of local layers with `LocalRotation.OWN_BASE`.
    local_pattern : int or None
        Every n-th layer is global where the file has no pattern; None: it must have one.
    first_is_global : bool
        A period of layers begins with the global one; it ends with it otherwise.
    local_window : int or None
        Tokens, where the file does not say.
    fixed_window : int or None
        Tokens, whatever number above 0 the file says.
    local_block_count : int or None
        The only number of layers with which there are local ones.
    local_where_attention : bool
        Every layer that attends is local.
    unrotated : Unrotated or None
    rope_pattern : bool
        attention.rope_pattern says which layers rotate.
    dense_layers_rotate : bool
        The leading dense layers rotate even where they are global.
    rotary_dim_per_layer : bool
        Local and global layers each have their own; else the first layer's holds for all.
    recurrent_interval : int or None
        Every n-th layer attends where the file does not say; the others are recurrent.
    shared_kv_layers : bool
        The last attention.shared_kv_layers layers use the KV cache of earlier ones.
    cached_layers : int or None
        Layers from this one on use the KV cache of earlier ones.
    factor_support : FactorSupport
    """

    name: str
    support: Support
    layout: Layout
    positions: Positions
    kind: str = "language_model"
    sections_when_present: bool = False
    reads_rope_keys: bool = True
    rotates_with_block_count: int | None = None
    rope_switch: bool = False
    reads: tuple[str, ...] = ()
    yarn_beta_fast: float = 32.0
    yarn_log_multiplier_unit: float = 1.0
    mscale_is_multiplier: bool = False
    scales_attention: bool = False
    latent_cache: bool = False
    local_rotation: LocalRotation | None = None
    local_freq_base: float | None = None
    local_pattern: int | None = None
    first_is_global: bool = False
    local_window: int | None = None
    fixed_window: int | None = None
    local_block_count: int | None = None
    local_where_attention: bool = False
    unrotated: Unrotated | None = None
    rope_pattern: bool = False
    dense_layers_rotate: bool = False
    rotary_dim_per_layer: bool = False
    recurrent_interval: int | None = None
    shared_kv_layers: bool = False
    cached_layers: int | None = None
    factor_support: FactorSupport = FactorSupport.NONE


#: How what JSON holds becomes a field's value, where it is no plain number, text or truth value.
_FIELDS: dict[str, Callable[[Any], object]] = {
    "support": Support,
    "layout": Layout,
    "positions": Positions,
    "local_rotation": LocalRotation,
    "unrotated": Unrotated,
    "factor_support": FactorSupport,
    "reads": tuple,
}


@cache
def table() -> dict[str, Any]:
    """Everything that architectures.json holds."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name("architectures.json").read_bytes())
    return found


def architecture_names() -> tuple[str, ...]:
    """Every architecture string in the table."""
    return tuple(table()["architectures"])


def llama_cpp_version() -> str:
    """The llama-cpp-python whose sources the table was read from."""
    return str(table()["llama_cpp"])


def architecture(name: str) -> Architecture:
    """Look an architecture up; one that is not in the table has support `Support.UNKNOWN`."""
    entry = table()["architectures"].get(name)
    if entry is None:
        return Architecture(name, Support.UNKNOWN, Layout.NONE, Positions.UNKNOWN)
    fields = {key: value for key, value in entry.items() if key != "loading"}
    for key in fields.keys() & _FIELDS.keys():
        fields[key] = _FIELDS[key](fields[key])
    return Architecture(name=name, **fields)


def unknown_to_llama_cpp(name: str) -> str:
    """A sentence on an architecture of support `Support.UNKNOWN`."""
    from difflib import get_close_matches

    known = architecture_names()
    if name in known:
        return f"is {name}, which llama.cpp names and loads no model of"
    alike = get_close_matches(name, known, n=3)
    hint = f"; it knows {', '.join(alike)}" if alike else ""
    return f"is {printable(name, 64)}, unknown to llama.cpp ({llama_cpp_version()}){hint}"
