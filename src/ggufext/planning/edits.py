"""What a combination changes in a file: metadata keys and factor tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.header.header import ValueType
from ggufext.planning.combining import Form
from ggufext.planning.local_layers import moves_nothing
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

    write("context_length", ValueType.UINT32, target_length)
    if not moves_nothing(facts):
        _write_rotation(facts, made, write, freq_base_swa)
    # Without this key llama.cpp takes context_length for the original length, which is raised.
    write("rope.scaling.original_context_length", ValueType.UINT32, made.original_length)
    if made.attention_factor_written != facts.scaling.attention_factor:
        write("rope.scaling.attn_factor", ValueType.FLOAT32, made.attention_factor_written)
    return tuple(edits)


def _write_rotation(
    facts: ModelFacts,
    made: Combination,
    write: Callable[[str, ValueType, Value], None],
    freq_base_swa: float | None,
) -> None:
    rotation = made.rotation
    if rotation.freq_base != facts.freq_base:
        in_file = as_float32(rotation.freq_base / facts.freq_base_multiplier)
        write("rope.freq_base", ValueType.FLOAT32, in_file)
    if freq_base_swa is not None:
        write("rope.freq_base_swa", ValueType.FLOAT32, freq_base_swa)
    write("rope.scaling.type", ValueType.STRING, made.form.value)
    if made.form in {Form.LINEAR, Form.YARN} or facts.has_scaling_factor:
        # Type none does not switch a factor off for the local layers of every architecture, and
        # longrope does not switch it off for any.
        write("rope.scaling.factor", ValueType.FLOAT32, rotation.freq_scale_factor)


def tensor_edits(facts: ModelFacts, made: Combination) -> tuple[TensorEdit, ...]:
    """Tensors to write; those that hold the values already are left out."""
    today = dict(facts.factors)
    return tuple(
        TensorEdit(name, today.get(name), after)
        for name, after in made.tensors
        if today.get(name) != after
    )
