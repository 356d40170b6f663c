"""Checked entries of a Hugging Face config.json."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NoReturn

from ggufext.errors import HeaderError, printable
from ggufext.header.header import open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: No configuration is larger; a model file named by mistake is not read whole.
_LARGEST_CONFIG = 16 << 20

#: Whole numbers above are taken for mistakes: no model has as many of anything.
_LARGEST_COUNT = 2**40

#: So are reals that a 32-bit number cannot hold.
_LARGEST_REAL = 3.4e38

#: Values that a class of Transformers gives where its files do not say.
_DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "llama": {"rope_theta": 1e4},
    "mistral": {"rope_theta": 1e4},
    "qwen2": {"rope_theta": 1e4},
    "gemma": {"rope_theta": 1e4},
    "phi3": {"rope_theta": 1e4},
    "gemma3_text": {
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "max_position_embeddings": 131_072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window_pattern": 6,
    },
}

#: Other names of the same entries, in files of models that brought their own code.
_ALIASES = {
    "rope_theta": ("rope_theta", "rotary_emb_base"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct", "rotary_emb_fraction"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads"),
}


class ConfigReader:
    """Checked entries of one part of a configuration."""

    def __init__(self, entries: dict[str, Any], place: str | None) -> None:
        self.entries = entries
        self.place = place
        self.model_type = str(entries.get("model_type") or "")

    def field(self, name: str) -> str:
        """Full name of an entry, for errors."""
        return f"{self.place}.{name}" if self.place else name

    def found(self, name: str) -> tuple[str, Any]:
        """An entry under any of its names, with the name; null counts as absent."""
        for alias in _ALIASES.get(name, (name,)):
            if self.entries.get(alias) is not None:
                return alias, self.entries[alias]
        return name, _DEFAULTS.get(self.model_type, {}).get(name)

    def nonsense(self, name: str, expected: str) -> NoReturn:
        """Refuse a value."""
        value = printable(json.dumps(self.entries.get(name)), 60)
        raise HeaderError(
            code="nonsense_value",
            field=self.field(name),
            message=f"is {value}; expected {expected}; correct the configuration",
        )

    def missing(self, name: str) -> NoReturn:
        """Refuse an absence."""
        raise HeaderError(
            code="missing_key",
            field=self.field(name),
            message="is not in the file; where Transformers has a default for it, save the "
            "configuration again with its save_pretrained, or write it in",
        )

    def count(self, name: str, *, at_most: int = _LARGEST_COUNT) -> int | None:
        """A whole number above 0."""
        name, value = self.found(name)
        if value is None:
            return None
        self.check_type(name, value, int, "a whole number")
        if not 1 <= value <= at_most:
            self.nonsense(name, f"1 to {at_most:,}")
        return int(value)

    def required(self, name: str, *, at_most: int = _LARGEST_COUNT) -> int:
        """A whole number above 0 that must be there."""
        value = self.count(name, at_most=at_most)
        if value is None:
            self.missing(name)
        return value

    def real(self, name: str, *, above: float = 0.0) -> float | None:
        """A finite number above a bound."""
        name, value = self.found(name)
        if value is None:
            return None
        self.check_type(name, value, (int, float), "a number")
        if not above < value < _LARGEST_REAL:
            self.nonsense(name, f"a finite number above {above:g}")
        return float(value)

    def reals(self, name: str, count: int) -> tuple[float, ...]:
        """A list of finite numbers above 0, of a given length."""
        values = self.entries.get(name)
        if values is None:
            self.missing(name)
        self.check_type(name, values, list, "a list")
        if len(values) != count:
            self.nonsense(name, f"{count} numbers, one a rotated pair")
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(numbers) != count or not all(0 < v < _LARGEST_REAL for v in numbers):
            self.nonsense(name, "finite numbers above 0")
        return tuple(map(float, numbers))

    def part(self, name: str) -> dict[str, Any] | None:
        """A dictionary."""
        value = self.entries.get(name)
        if value is None:
            return None
        self.check_type(name, value, dict, "a dictionary")
        return dict(value)

    def check_type(
        self, name: str, value: object, kind: type | tuple[type, ...], expected: str
    ) -> None:
        """Refuse a value of another type; truth values are no numbers."""
        if not isinstance(value, kind) or isinstance(value, bool):
            raise HeaderError(
                code="wrong_type",
                field=self.field(name),
                message=f"is {printable(json.dumps(value), 60)}; expected {expected}",
            )


def parsed(path: Path) -> dict[str, Any]:
    """Entries of a configuration file.

    Raises
    ------
    HeaderError
        ``not_config`` for anything that is no JSON object of reasonable size.
    """

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    def refuse(found: str) -> NoReturn:
        raise HeaderError(
            code="not_config",
            message=f"found {found}, expected a Hugging Face config.json: a JSON object",
        )

    with os.fdopen(open_regular(path), "rb") as file:
        text = file.read(_LARGEST_CONFIG + 1)
    if len(text) > _LARGEST_CONFIG:
        refuse(f"more than {_LARGEST_CONFIG >> 20} MiB")
    try:
        entries = json.loads(text, parse_constant=constant)
    except RecursionError:
        refuse("lists in lists without end")
    except ValueError as error:
        refuse(f"no JSON ({printable(str(error), 100)})")
    if not isinstance(entries, dict):
        refuse(f"a JSON {type(entries).__name__}")
    return entries
