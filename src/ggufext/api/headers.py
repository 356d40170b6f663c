"""Headers of files: keys, tensors, and what two of them say differently."""

from __future__ import annotations

from pathlib import Path

from ggufext.api.names import find_model
from ggufext.arguments import public
from ggufext.header import header
from ggufext.header.difference import (
    HeaderDifference,
    KeyDifference,
    ShownValue,
    TensorDifference,
    difference,
)
from ggufext.header.header import Header, TensorInfo
from ggufext.locating.remote import RemoteModel

__all__ = [
    "Header",
    "HeaderDifference",
    "KeyDifference",
    "RemoteModel",
    "ShownValue",
    "TensorDifference",
    "TensorInfo",
    "diff",
    "read_header",
]

read_header = public(header.read_header)


@public
def diff(
    before: Path | str | Header | RemoteModel, after: Path | str | Header | RemoteModel
) -> HeaderDifference:
    """Compare two headers: keys with their values, tensors with types and shapes.

    Parameters
    ----------
    before, after : Path, str, Header or RemoteModel
        A name that `find_model` understands, or what was read of it already.

    Raises
    ------
    HeaderError, LocationError
    """
    return difference(_header(before), _header(after))


def _header(model: Path | str | Header | RemoteModel) -> Header:
    if isinstance(model, (Path, str)):
        model = find_model(model)
    if isinstance(model, RemoteModel):
        return model.header
    return model if isinstance(model, Header) else header.read_header(model)
