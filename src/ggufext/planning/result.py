"""A plan and its parts: pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.header.facts import DEFAULT_SOURCE
from ggufext.planning.native import turns

if TYPE_CHECKING:
    from ggufext.errors import ModelWarning
    from ggufext.header.facts import EarlierExtension, TrainLength
    from ggufext.header.frequencies import Yarn
    from ggufext.header.header import Value, ValueType
    from ggufext.planning.footprint import KvCacheBytes
    from ggufext.planning.gamma import Verdict
    from ggufext.planning.measured import Measured, Recommended
    from ggufext.planning.methods import Method


@dataclass(frozen=True, slots=True)
class MetadataEdit:
    """One key to write.

    Attributes
    ----------
    key : str
        Its name.
    type : ValueType
        GGUF type to write; keys that exist keep theirs.
    before : Value or None
        What the file holds; None: the key is new.
    after : Value
        What is written.
    """

    key: str
    type: ValueType
    before: Value | None
    after: Value


@dataclass(frozen=True, slots=True)
class TensorEdit:
    """One frequency-factor tensor to write.

    Attributes
    ----------
    name : str
        Its name.
    before : tuple of float or None
        What the file holds; None: the tensor is new.
    after : tuple of float
        What each pair's angle is divided by; float32 values.
    """

    name: str
    before: tuple[float, ...] | None
    after: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FreqBase:
    """RoPE base θ before and after, and where the one before came from.

    Attributes
    ----------
    before, after : float
        θ, > 1.
    source : str
        The key or option that the one before comes from, or that it is llama.cpp's default.
    """

    before: float
    after: float
    source: str

    @property
    def is_default(self) -> bool:
        """Whether the file says none, so that llama.cpp takes its own."""
        return self.source == DEFAULT_SOURCE


@dataclass(frozen=True, slots=True)
class Gamma:
    """Decay exponents γ by the Padé formula.

    Scaling that the model brings from its training counts as the base with the same slowest pair.

    Attributes
    ----------
    native : float
        γ at the training length with the native base.
    unscaled : float
        γ at the target length with the native base: what happens without an extension.
    after : float
        γ at the target length with the base that is written.
    effective : float
        γ at the target length with the whole scaling, as tafagent counts it: linear shortens the
        length by f, ntk and yarn count as base θ·f.
    """

    native: float
    unscaled: float
    after: float
    effective: float


@dataclass(frozen=True, slots=True)
class OutOfDistribution:
    """Angles at the target that training never showed. A description, not a verdict.

    Attributes
    ----------
    pairs : int
        How many pairs made no full turn in training and turn further at the target than they ever
        did.
    max_excess : float
        Largest angle at the target over the largest in training among the pairs that made no
        full turn; 0 where there is none.
    """

    pairs: int
    max_excess: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What one method would write into a model, and what to expect of it.

    Attributes
    ----------
    architecture : str
        What general.architecture says, or the model_type of a configuration.
    method : Method
    train_length : TrainLength
    target_length : int
        Context length wanted, tokens.
    factor : float
        Target over training length.
    freq_base : FreqBase
    gamma : Gamma
    d_horizon : float or None
        Tokens: `gamma.d_horizon` of the native base and the effective γ. With the native γ kept
        it equals the training length by construction; it says something only with another γ.
    verdict : Verdict
    out_of_distribution : OutOfDistribution
    kv_cache_bytes : KvCacheBytes
        Of the KV cache at the target.
    inv_freq : tuple of float
        Inverse frequency of each pair after the plan, radians per token.
    attention_factor : float
        What queries and keys are multiplied by.
    freq_scale_factor : float
        rope.scaling.factor that takes effect; 1 where a base or factor tensors do it all.
    factor_key : float
        rope.scaling.factor as the file holds it under the plan; 1 where it holds none.
    edits : tuple of MetadataEdit
        Keys to write; empty where nothing has to change.
    warnings : tuple of ModelWarning
        What to know before.
    tensor_edits : tuple of TensorEdit
        Tensors to write; empty for methods that need no tensor.
    keep_short : bool
        Whether contexts up to `original_length` rotate as before.
    original_length : int
        What rope.scaling.original_context_length says under the plan, tokens: where YaRN starts
        from, and up to where long factors do not act.
    scaling_type : str
        What rope.scaling.type means under the plan.
    attention_factor_written : float
        rope.scaling.attn_factor under the plan: what multiplies queries and keys beside YaRN's own
        factor.
    yarn : Yarn
        Betas and attention of YaRN under the plan.
    long_factors, short_factors : tuple of float or None
        What tensors divide each pair's angle by, in contexts above `original_length` and up to it;
        None: nothing.
    earlier_extension : EarlierExtension or None
        What the file carries already; the plan starts from the model before it.
    measured : Measured or None
        What was measured of this method at this factor on a model like this one.
    recommended : Recommended or None
        Which method is recommended by what was measured there; the same for all methods.
    """

    architecture: str
    method: Method
    train_length: TrainLength
    target_length: int
    factor: float
    freq_base: FreqBase
    gamma: Gamma
    d_horizon: float | None
    verdict: Verdict
    out_of_distribution: OutOfDistribution
    kv_cache_bytes: KvCacheBytes
    inv_freq: tuple[float, ...]
    attention_factor: float
    freq_scale_factor: float
    factor_key: float
    edits: tuple[MetadataEdit, ...]
    warnings: tuple[ModelWarning, ...]
    tensor_edits: tuple[TensorEdit, ...]
    keep_short: bool
    original_length: int
    scaling_type: str
    attention_factor_written: float
    yarn: Yarn
    long_factors: tuple[float, ...] | None
    short_factors: tuple[float, ...] | None
    earlier_extension: EarlierExtension | None = None
    measured: Measured | None = None
    recommended: Recommended | None = None

    @property
    def turning_pairs(self) -> int:
        """Pairs that the plan lets turn; some models switch the others off."""
        return sum(map(turns, self.inv_freq))
