"""Reading: bytes to Header, Header to ModelFacts."""

from __future__ import annotations

from ggufext.header.header import (
    JOURNAL_SUFFIX,
    MAGIC,
    POISONED_MAGIC,
    Header,
    KeyValue,
    Scalar,
    TensorInfo,
    Value,
    ValueType,
    parse_header,
    read_header,
    read_header_from,
)

__all__ = [
    "JOURNAL_SUFFIX",
    "MAGIC",
    "POISONED_MAGIC",
    "Header",
    "KeyValue",
    "Scalar",
    "TensorInfo",
    "Value",
    "ValueType",
    "parse_header",
    "read_header",
    "read_header_from",
]
