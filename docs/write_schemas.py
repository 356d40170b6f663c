"""Writes schemas/COMMAND.json: what `ggufext COMMAND --json` may print, as JSON Schema.

python docs/write_schemas.py

Everything is read from the dataclasses that become the output: their annotations say types, their
docstrings what a field means.
"""

from __future__ import annotations

import builtins
import json
import pydoc
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import product
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Any

import griffe

from ggufext.api.audits import CheckResult
from ggufext.api.comparisons import CompareResult
from ggufext.api.doctor import Finding
from ggufext.api.edits import Undone
from ggufext.api.headers import HeaderDifference
from ggufext.api.measurements import MeasureResult
from ggufext.api.models import Inspection, ModelPlace
from ggufext.api.tunings import TuneResult
from ggufext.presenting.documents import (
    ChangedModel,
    Failure,
    KnownPlaces,
    PlannedModel,
    PlannedModels,
    RewrittenModel,
    RunTimePlanned,
)
from ggufext.text import MERGED, jsonable

FOLDER = Path(__file__).with_name("schemas")

#: What each command prints, beside a failure.
OUTPUTS: Mapping[str, tuple[Any, ...]] = {
    "inspect": (Inspection, ModelPlace, KnownPlaces),
    "plan": (PlannedModel, PlannedModels, RunTimePlanned),
    "rewrite": (RewrittenModel,),
    "set": (ChangedModel,),
    "undo": (Undone,),
    "recover": (Undone,),
    "diff": (HeaderDifference,),
    "check": (CheckResult,),
    "compare": (CompareResult,),
    "measure": (MeasureResult,),
    "tune": (TuneResult,),
    "doctor": (Mapping[str, Finding],),
}
#: Commands that take several files, and then print an object for each.
SEVERAL = frozenset({"inspect", "rewrite", "undo"})

Schema = dict[str, Any]

_NUMBER: Schema = {
    "description": "A number; text where it is not finite, for which JSON has no form.",
    "anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}],
}
_PLAIN = {bool: "boolean", int: "integer", str: "string", NoneType: "null", PurePath: "string"}


def schemas() -> Mapping[str, str]:
    """Text of every schema by the name of its file."""
    return {
        f"{command}.json": json.dumps(_of_command(command), indent=2, ensure_ascii=False) + "\n"
        for command in OUTPUTS
    }


def _of_command(command: str) -> Schema:
    known = _Definitions()
    shapes = [known.of(kind) for kind in OUTPUTS[command]]
    failure = known.of(Failure)
    if command in SEVERAL:
        shapes.append(
            _object(
                {"files": {"type": "array", "items": {"anyOf": [*shapes, failure]}}},
                "What came of each file or folder, where several were named, in their order.",
            )
        )
        shapes[-1]["properties"]["files"]["description"] = "One object a file."
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ggufext {command} --json",
        "anyOf": [*shapes, failure],
        "$defs": known.schemas,
    }


def _object(properties: Schema, description: str) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


class _Definitions:
    """Schemas of the classes of one document, by name."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}
        self._classes: dict[str, object] = {}

    def of(self, kind: Any) -> Schema:
        """The schema of an annotation, as `ggufext.text.jsonable` writes its values."""
        origin, parts = typing.get_origin(kind), typing.get_args(kind)
        if origin in {typing.Union, UnionType}:
            return {"anyOf": [self.of(part) for part in parts]}
        if origin is tuple:
            return self._array(parts)
        if origin is Mapping:
            return {"type": "object", "additionalProperties": self.of(parts[1])}
        if kind is float:
            self.schemas["Number"] = _NUMBER
            return {"$ref": "#/$defs/Number"}
        for plain, name in _PLAIN.items():
            if issubclass(kind, plain) and not issubclass(kind, Enum):
                return {"type": name}
        return self._reference(kind)

    def _array(self, parts: tuple[Any, ...]) -> Schema:
        if parts[-1] is Ellipsis:
            return {"type": "array", "items": self.of(parts[0])}
        items = [self.of(part) for part in parts]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}

    def _reference(self, kind: type) -> Schema:
        name = kind.__name__
        if self._classes.setdefault(name, kind) is not kind:
            raise ValueError(f"two classes named {name} in one document")
        if name not in self.schemas:
            self.schemas[name] = {}  # it may hold itself
            self.schemas[name] = _enum(kind) if issubclass(kind, Enum) else self._dataclass(kind)
        return {"$ref": f"#/$defs/{name}"}

    def _dataclass(self, kind: type) -> Schema:
        variants = [_object(p, _summary(kind)) for p in self._properties(kind)]
        return variants[0] if len(variants) == 1 else {"anyOf": variants}

    def _properties(self, kind: type) -> list[Schema]:
        """Properties of a dataclass; several sets where a merged field may be one of several."""
        if not is_dataclass(kind):
            raise TypeError(f"{kind} is no data")
        types, said = _types(kind), _said(kind)
        choices: list[list[Schema]] = []
        for field in fields(kind):
            of_field = types[field.name]
            if field.metadata == MERGED:
                each = typing.get_args(of_field) or (of_field,)
                choices.append([p for part in each for p in self._properties(part)])
            else:
                text = said.get(field.name) or _of_classes(of_field)
                if not text:
                    raise ValueError(f"{kind.__module__}.{kind.__name__}.{field.name}: no text")
                choices.append([{field.name: {"description": text, **self.of(of_field)}}])
        return [
            {name: schema for part in chosen for name, schema in part.items()}
            for chosen in product(*choices)
        ]


def _enum(kind: type[Enum]) -> Schema:
    documented = _source(kind).attributes
    lines = [_summary(kind)]
    for member in kind:
        docstring = documented[member.name].docstring if member.name in documented else None
        if docstring is not None:
            lines.append(f"{jsonable(member)}: {_clean(docstring.value)}")
    return {"description": " ".join(lines), "enum": [jsonable(member) for member in kind]}


def _of_classes(kind: Any) -> str:
    """What the one documented class in an annotation is, where the field needs no more words."""
    found = [part for part in _classes(kind) if is_dataclass(part) or issubclass(part, Enum)]
    return _summary(found[0]) if found else ""


def _classes(kind: Any) -> list[type]:
    parts = typing.get_args(kind)
    if parts:
        return [each for part in parts if part is not Ellipsis for each in _classes(part)]
    return [kind]


def _types(kind: type) -> Mapping[str, Any]:
    """Types of the fields, with those that a module imports for the type checker alone."""
    return typing.get_type_hints(kind, localns=_Names(kind.__module__))


class _Names(dict[str, object]):
    """What names stand for in a module, where it says so to type checkers alone."""

    def __init__(self, module: str) -> None:
        super().__init__()
        self._module = module

    def __missing__(self, name: str) -> object:
        if hasattr(sys.modules[self._module], name) or hasattr(builtins, name):
            raise KeyError(name)
        return pydoc.locate(_package()[self._module.partition(".")[2]].resolve(name))


@cache
def _package() -> Any:
    return griffe.load("ggufext", docstring_parser="numpy")


def _source(kind: type) -> Any:
    return _package()[f"{kind.__module__}.{kind.__name__}".partition(".")[2]]


def _summary(kind: type) -> str:
    """The text of a docstring before its sections."""
    return _clean(_source(kind).docstring.parsed[0].value)


def _said(kind: Any) -> Mapping[str, str]:
    """What a docstring says of each field, or that of another class for it."""
    said = {
        name: _clean(item.description)
        for section in _source(kind).docstring.parsed
        if section.kind is griffe.DocstringSectionKind.attributes
        for item in section.value
        for name in item.name.split(", ")
    }
    for name, text in said.items():
        if elsewhere := re.fullmatch(r"(?:See|As of) `(\S+)`\.", text):
            said[name] = _said(pydoc.locate(elsewhere[1]))[name]
    return said


def _clean(text: str) -> str:
    """A docstring's text for readers of JSON, without where Python says more."""
    text = re.sub(r"; see\s+`ggufext\.\S+`", "", text)
    words = {"None": "null", "True": "true", "False": "false"}
    text = re.sub(r"\b(?:None|True|False)\b", lambda found: words[found[0]], text)
    return " ".join(text.replace("``", "`").split())


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
