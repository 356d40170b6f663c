"""What a combination changes in a file: metadata keys and factor tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header.architectures import FactorSupport
from ggufext.header.factors import ROPE_FREQS
from ggufext.header.header import ValueType
from ggufext.header.model import DEFAULT_FREQ_BASE
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
    # The file may hold another base than that of the training.
    today = dict(facts.metadata)[f"{facts.architecture}.rope.freq_base"]
    after = as_float32(rotation.freq_base / facts.freq_base_multiplier)
    if after != (DEFAULT_FREQ_BASE if today is None else today):
        write("rope.freq_base", ValueType.FLOAT32, after)
    if freq_base_swa is not None:
        write("rope.freq_base_swa", ValueType.FLOAT32, freq_base_swa)
    write("rope.scaling.type", ValueType.STRING, made.form.value)
    if made.form in {Form.LINEAR, Form.YARN} or facts.has_scaling_factor:
        # Type none does not switch a factor off for the local layers of every architecture, and
        # longrope does not switch it off for any.
        write("rope.scaling.factor", ValueType.FLOAT32, rotation.freq_scale_factor)


def context_length_edits(facts: ModelFacts, target_length: int) -> tuple[MetadataEdit, ...]:
    """Keys to write where nothing but context_length changes, and only where that is too low."""
    today, prefix = dict(facts.metadata), f"{facts.architecture}."
    declared = today.get(f"{prefix}context_length")
    if not isinstance(declared, int) or declared >= target_length:
        return ()
    key = f"{prefix}context_length"
    edits = [MetadataEdit(key, ValueType.UINT32, declared, target_length)]
    scaled = facts.scaling.type in {"yarn", "longrope"} and facts.scaling.in_effect
    if scaled and facts.scaling.original_context_length is None:
        # Without this key llama.cpp takes context_length for it, which is raised.
        key = f"{prefix}rope.scaling.original_context_length"
        edits.append(MetadataEdit(key, ValueType.UINT32, None, declared))
    return tuple(edits)


def tensor_edits(
    facts: ModelFacts, made: tuple[tuple[str, tuple[float, ...]], ...]
) -> tuple[TensorEdit, ...]:
    """Tensors to write, by name; those that hold the values already are left out."""
    today = dict(facts.factors) | dict(facts.left_over)
    return tuple(
        TensorEdit(name, today.get(name), after) for name, after in made if today.get(name) != after
    )


def neutral_factors(
    facts: ModelFacts, form: Form, written: tuple[tuple[str, tuple[float, ...]], ...]
) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """Tensors of an earlier extension that a plan does not write, made to divide by 1.

    They stay in the file: taking a tensor out of the middle would move all weights behind it.

    Parameters
    ----------
    form : Form
        Of the plan.
    written : tuple of (str, tuple of float)
        What the plan writes by itself.

    Raises
    ------
    PlanError
        ``cannot_combine``: llama.cpp would not load the file with such a tensor.
    """
    names = {name for name, _ in written}
    found = [(name, values) for name, values in facts.left_over if name not in names]
    for name, _ in found:
        if facts.factor_support is FactorSupport.BY_TYPE and (
            (name == ROPE_FREQS) == (form is Form.LONG)
        ):
            other = "without" if form is Form.LONG else "with"
            raise PlanError(
                code="cannot_combine",
                field=name,
                message="was added by an earlier extension and stays in the file; with it "
                f"llama.cpp loads {facts.architecture} only where the method is written {other} "
                "--keep-short; choose that, or extend the original file",
            )
    return tuple((name, (1.0,) * len(values)) for name, values in found)
