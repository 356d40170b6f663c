"""What a combination changes in a file: metadata keys and factor tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header import rope_keys
from ggufext.header.architectures import FactorSupport
from ggufext.header.factors import ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, ROPE_FREQS
from ggufext.header.header import ValueType
from ggufext.header.model import DEFAULT_FREQ_BASE
from ggufext.planning.combining import Form, factor_key
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
    # The file may hold another base than that of the training.
    today = dict(facts.metadata)[f"{facts.architecture}.{rope_keys.FREQ_BASE}"]
    after = as_float32(rotation.freq_base / facts.freq_base_multiplier)
    if after != (DEFAULT_FREQ_BASE if today is None else today):
        write(rope_keys.FREQ_BASE, ValueType.FLOAT32, after)
    if freq_base_swa is not None:
        write(rope_keys.FREQ_BASE_SWA, ValueType.FLOAT32, freq_base_swa)
    assert made.form.value is not None
    write(rope_keys.SCALING_TYPE, ValueType.STRING, made.form.value)
    if made.form in {Form.LINEAR, Form.YARN} or facts.has_scaling_factor:
        after = factor_key(facts, made)
        if made.form is not Form.BASE or after != facts.scaling.factor:
            write(rope_keys.SCALING_FACTOR, ValueType.FLOAT32, after)
    if made.yarn is not None and made.yarn.ext_factor != facts.scaling.yarn.ext_factor:
        assert made.yarn.ext_factor is not None
        write(rope_keys.YARN_EXT_FACTOR, ValueType.FLOAT32, made.yarn.ext_factor)


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
