"""What looks wrong, or does not do what it seems to, in a model's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.errors import HeaderError, ModelWarning, printable
from ggufext.header import rope_keys
from ggufext.header.architectures import Support, architecture, unknown_to_llama_cpp
from ggufext.header.loading import refuse_unloadable
from ggufext.header.rope_keys import unread_suffixes

if TYPE_CHECKING:
    from ggufext.header.facts import ModelFacts
    from ggufext.header.header import Header


def lint(
    header: Header, facts: ModelFacts, *, later_shards: tuple[Header, ...] = ()
) -> tuple[ModelWarning, ...]:
    """Findings about one model's RoPE metadata; an empty tuple is a clean bill.

    Parameters
    ----------
    header : Header
        Of the file as it is.
    facts : ModelFacts
        From the same header.
    later_shards : tuple of Header
        Of a split model's other parts.
    """
    if facts.support is Support.UNKNOWN:
        what = f"general.architecture {unknown_to_llama_cpp(facts.architecture)}"
        return (ModelWarning("unknown_architecture", what),)
    return (
        *_loading(header, facts, later_shards),
        *_unread_keys(header, facts),
        *_scaling(header, facts),
        *_support(facts),
        *_files((header, *later_shards)),
    )


def _loading(
    header: Header, facts: ModelFacts, later_shards: tuple[Header, ...]
) -> list[ModelWarning]:
    try:
        refuse_unloadable(header, facts, later_shards=later_shards)
    except HeaderError as error:
        return [ModelWarning(error.code, f"{printable(str(error.field))} {error.message}")]
    return []


def _unread_keys(header: Header, facts: ModelFacts) -> list[ModelWarning]:
    return [
        ModelWarning(
            "key_not_read",
            f"{facts.architecture}.{suffix} is present, but llama.cpp "
            f"does not read it for {facts.architecture}: it changes nothing",
        )
        for suffix in unread_suffixes(architecture(facts.architecture))
        if f"{facts.architecture}.{suffix}" in header.keys
    ]


def _scaling(header: Header, facts: ModelFacts) -> list[ModelWarning]:
    found: list[ModelWarning] = []
    prefix, scaling = f"{facts.architecture}.", facts.scaling
    has_type = f"{prefix}{rope_keys.SCALING_TYPE}" in header.keys
    if scaling.factor != 1.0 and scaling.type == "none":
        found.append(
            ModelWarning(
                "key_not_read",
                f"rope.scaling.factor is {scaling.factor:g}, but type none switches it off",
            )
        )
    if scaling.factor != 1.0 and not has_type:
        found.append(
            ModelWarning(
                "default_assumed",
                f"rope.scaling.factor is {scaling.factor:g} without a type: llama.cpp takes it for "
                "linear",
            )
        )
    if scaling.spreads_positions:
        found.append(ModelWarning("factor_below_one", scaling.spread))
    if scaling.factor != 1.0 and scaling.type == "longrope":
        found.append(
            ModelWarning(
                "scales_twice",
                "rope.scaling.factor stands beside longrope factors: llama.cpp applies both",
            )
        )
    if scaling.factor != 1.0 and scaling.type in {"yarn", "linear"}:
        found.extend(_context_of_scaling(facts))
    old = f"{prefix}{rope_keys.SCALE_LINEAR}"
    if old in header.keys:
        found.append(ModelWarning("old_key", f"{old} is the old name of rope.scaling.factor"))
    return found


def _context_of_scaling(facts: ModelFacts) -> list[ModelWarning]:
    scaling = facts.scaling
    original = scaling.original_context_length
    if original is None:
        if scaling.type == "yarn":
            return [
                ModelWarning(
                    "default_assumed",
                    "yarn without rope.scaling.original_context_length: llama.cpp takes "
                    f"context_length ({facts.train_length:,}) for the original length",
                )
            ]
        return []
    reached = original * scaling.factor
    if facts.train_length_source != "--train-length" and reached < facts.train_length * 0.999:
        return [
            ModelWarning(
                "context_above_scaling",
                f"context_length {facts.train_length:,} is more than {original:,} tokens times "
                f"factor {scaling.factor:g}",
            )
        ]
    return []


def _support(facts: ModelFacts) -> list[ModelWarning]:
    if facts.support is Support.VERIFIED:
        return []
    return [
        ModelWarning(
            "unverified_architecture",
            f"what llama.cpp does with the RoPE keys of {printable(facts.architecture, 64)} "
            "was not verified by experiment",
        )
    ]


def _files(shards: tuple[Header, ...]) -> list[ModelWarning]:
    found: list[ModelWarning] = []
    for header in shards:
        padded = -(-header.data_end // header.alignment) * header.alignment
        if header.file_size > padded:
            where = f" of {header.path.name}" if header.path and len(shards) > 1 else ""
            found.append(
                ModelWarning(
                    "trailing_bytes",
                    f"{header.file_size - padded:,} bytes follow the last tensor{where}",
                )
            )
    if not any(header.tensor_count for header in shards):
        found.append(ModelWarning("no_tensors", "the file holds no tensors: a vocabulary only"))
    return found
