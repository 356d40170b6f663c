"""What a model was trained with, where its file may say something else."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ggufext.errors import PlanError
from ggufext.header import rope_keys
from ggufext.header.architectures import FactorSupport
from ggufext.header.facts import EarlierExtension, model_facts
from ggufext.header.frequencies import ROPE_FACTORS_LONG
from ggufext.header.published import published

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ggufext.header.facts import ModelFacts
    from ggufext.header.header import Header


def trained_facts(
    header: Header,
    *,
    train_length: int | None = None,
    train_freq_base: float | None = None,
    later_shards: tuple[Header, ...] = (),
    factors: tuple[tuple[str, tuple[float, ...]], ...] = (),
    added: tuple[str, ...] = (),
    recorded: tuple[str, int] | None = None,
) -> ModelFacts:
    """Facts that a plan starts from: those of the training.

    The training length is `train_length` where it is given, else that before an earlier
    extension, else what the publisher documents, else context_length. A `train_length` of
    context_length or more says that the model was trained as the file stands, so an original
    length below it is no sign of an extension.

    Parameters
    ----------
    header, train_length, train_freq_base, later_shards, factors
        As for `ggufext.header.facts.model_facts`.
    added : tuple of str
        Factor tensors that an earlier extension added.
    recorded : tuple of (str, int), optional
        Method and target length of an extension that a record tells of; `header` is the one
        before it.

    Raises
    ------
    HeaderError, PlanError
        As `model_facts`; ``base_out_of_range`` for a training base that no file holds.
    """
    if train_freq_base is not None and not (
        math.isfinite(train_freq_base) and 1.0 < train_freq_base < 3.4e38
    ):
        raise PlanError(
            code="base_out_of_range",
            path=header.path,
            message=f"training base of {train_freq_base:g}; it must be a 32-bit number above 1",
        )
    facts = model_facts(header, train_freq_base=train_freq_base, later_shards=later_shards)
    facts = replace(facts, factors=factors)
    as_it_stands = train_length is not None and train_length >= facts.train_length
    unrecorded = None if recorded or as_it_stands else _declared_extension(facts)
    if unrecorded is not None:
        kept_base = train_freq_base is not None or unrecorded.freq_base_known
        unrecorded = replace(unrecorded, freq_base_known=kept_base)
        if ROPE_FACTORS_LONG in facts.scaling.factor_tensors:
            added = (ROPE_FACTORS_LONG,)
            facts = replace(facts, scaling=replace(facts.scaling, type="none"))
        source = f"{facts.architecture}.{rope_keys.ORIGINAL_LENGTH}"
        facts = replace(facts, train_length=unrecorded.train_length, train_length_source=source)
    facts = _without(facts, added)
    facts = with_published(facts, _names(header))
    if train_length is not None:
        facts = replace(facts, train_length=train_length, train_length_source="--train-length")
    elif unrecorded is None:
        facts = at_documented_length(facts)
    found = unrecorded
    if recorded is not None:
        method, target_length = recorded
        found = EarlierExtension(facts.train_length, target_length, method, True)
    elif unrecorded is not None:
        found = replace(unrecorded, train_length=facts.train_length)
    return replace(facts, earlier_extension=found)


def with_published(facts: ModelFacts, names: Iterable[str]) -> ModelFacts:
    """Facts with what is documented of a model of such names, where something is."""
    scaling = facts.scaling
    found = published(
        names,
        architecture=facts.architecture,
        context_length=facts.train_length,
        scaled_from=scaling.original_context_length if scaling.in_effect else None,
    )
    return replace(facts, published=found)


def at_documented_length(facts: ModelFacts) -> ModelFacts:
    """Facts with the training length that is documented, where one is."""
    said = facts.published
    if said is None:
        return facts
    source = f"documented for {said.family}, {said.source}"
    return replace(facts, train_length=said.train_length, train_length_source=source)


def _declared_extension(facts: ModelFacts) -> EarlierExtension | None:
    """An extension that a file without a record shows: an original length that no scaling needs.

    Scaling that the model was trained with brings an original length too: linear, yarn, and
    longrope with short factors are taken for that.

    Parameters
    ----------
    facts : ModelFacts
        Of the file as it is, with the length that it declares.
    """
    scaling = facts.scaling
    original = scaling.original_context_length
    if not original or original >= facts.train_length:
        return None
    metadata, prefix = dict(facts.metadata), f"{facts.architecture}."
    tensors = set(scaling.factor_tensors)
    has_type = metadata[prefix + rope_keys.SCALING_TYPE] is not None
    if facts.factor_support is FactorSupport.LONG_SHORT and not has_type:
        # Phi-3 as converted: no type, and the factors may lie in a part that was not read.
        return None
    if scaling.type == "longrope":
        # Below the original length such a file rotates by its base alone: as it was trained.
        if tensors != {ROPE_FACTORS_LONG} or scaling.factor != 1.0:
            return None
        known = True
    elif scaling.type == "none" or (scaling.factor == 1.0 and not tensors):
        known = metadata[prefix + rope_keys.FREQ_BASE] is None
    else:
        return None
    return EarlierExtension(
        train_length=original,
        target_length=facts.train_length,
        method=None,
        freq_base_known=known,
    )


def _without(facts: ModelFacts, added: tuple[str, ...]) -> ModelFacts:
    """The facts without factor tensors that are no part of the model."""
    if not added:
        return facts
    own = tuple(name for name in facts.scaling.factor_tensors if name not in added)
    return replace(
        facts,
        scaling=replace(facts.scaling, factor_tensors=own),
        factors=tuple(each for each in facts.factors if each[0] not in added),
        left_over=tuple(each for each in facts.factors if each[0] in added),
    )


def _names(header: Header) -> Iterator[str]:
    """Names that a GGUF file gives its model and what it was made from."""

    def text(key: str) -> str:
        value = header.value(key) if key in header.keys else ""
        return value if isinstance(value, str) else ""

    basename = text("general.basename")
    if basename:
        yield basename
        for part in (text("general.size_label"), text("general.version")):
            yield f"{basename}-{part}"
    yield text("general.name")
    for key in header.keys:
        if key.startswith("general.base_model.") and key.endswith(".name"):
            yield text(key)
