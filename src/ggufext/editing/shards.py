"""Editing a split model: only its first part changes, and it counts the tensors of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.editing.patch import encode_entry
from ggufext.header.header import ValueType
from ggufext.header.shards import TENSOR_COUNT_KEY

if TYPE_CHECKING:
    from ggufext.header.header import Header


def raised_tensor_count(header: Header, *, added: int) -> dict[str, bytes]:
    """Entries to replace when tensors are appended to the first part of a split model.

    llama.cpp refuses a set that does not hold the tensors that its first part counts.

    Parameters
    ----------
    header : Header
        Of the file as it is.
    added : int
        Tensors that come; those of an earlier edit that go are counted as negative.

    Returns
    -------
    dict of str to bytes
        The new entry by its key, of the same size as the old; empty for a model in one file.

    Raises
    ------
    HeaderError
        ``wrong_type``.
    """
    count = header.integer(TENSOR_COUNT_KEY, value_type=ValueType.INT32)
    if count is None:
        return {}
    entry = encode_entry(TENSOR_COUNT_KEY, ValueType.INT32, count + added)
    return {TENSOR_COUNT_KEY: entry}
