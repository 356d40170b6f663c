"""What a combination changes in a file: metadata keys and factor tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.header import rope_keys
from ggufext.header.factors import ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT
from ggufext.header.header import ValueType
from ggufext.planning.combining import Form
from ggufext.planning.methods import as_float32
from ggufext.planning.result import MetadataEdit, TensorEdit

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.header.header import Value
    from ggufext.header.model import ModelFacts
    from ggufext.planning.combining import Combination


def metadata_edits(
    facts: ModelFacts,
    made: Combination,
    target_length: int,
    *,
    freq_base_swa: float | None,
) -> tuple[MetadataEdit, ...]:
    """Keys to write; those that hold the value already are left out.

    Facts without keys do not come from a GGUF file, which leaves nothing to edit.

    Parameters
    ----------
    freq_base_swa : float or None
        Base that local layers have to keep.
    """
    if not facts.metadata:
        return ()
    today = dict(facts.metadata)
    prefix = f"{facts.architecture}."
    edits: list[MetadataEdit] = []

    def write(suffix: str, kind: ValueType, after: Value) -> None:
        before = today.get(prefix + suffix)
        if before != after:
            edits.append(MetadataEdit(prefix + suffix, kind, before, after))

    if made.form is Form.UNCHANGED and target_length <= facts.context_length:
        return ()
    write(rope_keys.CONTEXT_LENGTH, ValueType.UINT32, target_length)
    if made.form is not Form.UNCHANGED:
        _write_rotation(facts, made, write, freq_base_swa)
    if made.form is not Form.UNCHANGED or _original_length_acts(facts):
        # Without this key llama.cpp takes context_length for it, which is raised.
        write(rope_keys.ORIGINAL_LENGTH, ValueType.UINT32, made.original_length)
    if made.attention_factor_written != facts.scaling.attention_factor:
        write(rope_keys.ATTN_FACTOR, ValueType.FLOAT32, made.attention_factor_written)
    return tuple(edits)


def _original_length_acts(facts: ModelFacts) -> bool:
    """Whether the file as it is rotates or attends by its original length."""
    scaling = facts.scaling
    mixes = scaling.mix != 0.0 and scaling.factor_in_effect != 1.0
    long_or_short = {ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT} & set(scaling.factor_tensors)
    return mixes or facts.original_length_acts or bool(long_or_short)


def _write_rotation(
    facts: ModelFacts,
    made: Combination,
    write: Callable[[str, ValueType, Value], None],
    freq_base_swa: float | None,
) -> None:
    rotation = made.rotation
    if rotation.freq_base != facts.freq_base:
        in_file = as_float32(rotation.freq_base / facts.freq_base_multiplier)
        write(rope_keys.FREQ_BASE, ValueType.FLOAT32, in_file)
    if freq_base_swa is not None:
        write(rope_keys.FREQ_BASE_SWA, ValueType.FLOAT32, freq_base_swa)
    assert made.form.value is not None
    write(rope_keys.SCALING_TYPE, ValueType.STRING, made.form.value)
    if made.form in {Form.LINEAR, Form.YARN} or facts.has_scaling_factor:
        # Type none does not switch a factor off for the local layers of every architecture, and
        # longrope does not switch it off for any.
        write(rope_keys.SCALING_FACTOR, ValueType.FLOAT32, rotation.freq_scale_factor)
    if made.yarn is not None and made.yarn.ext_factor != facts.scaling.yarn.ext_factor:
        assert made.yarn.ext_factor is not None
        write(rope_keys.YARN_EXT_FACTOR, ValueType.FLOAT32, made.yarn.ext_factor)


def tensor_edits(facts: ModelFacts, made: Combination) -> tuple[TensorEdit, ...]:
    """Tensors to write; those that hold the values already are left out."""
    today = dict(facts.factors)
    return tuple(
        TensorEdit(name, today.get(name), after)
        for name, after in made.tensors
        if today.get(name) != after
    )
