"""Arguments of the public functions, checked where they come in; errors of the system named.

Types are those of the annotations, of functions and of the requests and settings they take.
"""

from __future__ import annotations

import builtins
import inspect
import math
import os
import re
import sys
import typing
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache, wraps
from pathlib import Path
from types import UnionType
from typing import Any, ParamSpec, TypeVar

import ggufext
from ggufext.errors import LocationError, of_system

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@cache
def _ranges() -> Mapping[str, tuple[float, float]]:
    """Ranges of numbers, both ends included, by the one name that they have everywhere.

    A plan refuses a target itself, in the words of the command line.
    """
    from ggufext.planning.footprint import LARGEST_TARGET

    tokens = (1, LARGEST_TARGET)
    finite = (-sys.float_info.max, sys.float_info.max)
    return {
        "CheckRequest.target_length": tokens,
        "MeasureRequest.target_length": tokens,
        "MeasureRequest.distance": tokens,
        "answer_tokens": tokens,
        "bound": (1e-6, 1 - 1e-6),
        "gamma": finite,
        "gpu_layers": (0, math.inf),
        "retries": (0, math.inf),
        "retry_seconds": (0, math.inf),
        "seed": (0, math.inf),
        "threads": (1, math.inf),
        "threshold": (1e-6, 1),
        "timeout": (0.001, 1_000_000),
        "train_freq_base": finite,
        "train_length": tokens,
    }


def public(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A function of the project as users call it.

    The result checks arguments before anything is done, and errors of the system come as ours.

    Raises
    ------
    TypeError
        Of the result: an argument has another type than its documentation says.
    ValueError
        Of the result: a number lies outside its documented range.
    GgufextError
        Of the result: what `function` raises, and `of_system` of an `OSError`.
    """

    @wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        given = _signature(function).bind(*args, **kwargs).arguments
        for name, value in given.items():
            _check(name, value, function)
        try:
            return function(*args, **kwargs)
        except OSError as error:
            raise of_system(error, given.get("path")) from error

    # Where it can be found: processes find a function by its module and its name.
    call.__module__ = "ggufext"
    return call


#: Read when a function is called: reading those of all takes a millisecond of every start.
_signature = cache(inspect.signature)


class _PublicNames(dict[str, object]):
    """What annotations name and the module itself imports for the type checker alone."""

    def __contains__(self, name: object) -> bool:
        return hasattr(ggufext, str(name))  # Python 3.14 asks before it reads

    def __missing__(self, name: str) -> object:
        return getattr(ggufext, name)


@cache
def _types(annotated: Callable[..., object]) -> Mapping[str, Any]:
    """Types of a function's arguments or of a dataclass's fields."""
    module = vars(sys.modules[annotated.__module__])
    # A file system of its own is for tests.
    known = {"Path": Path, "Callable": Callable, "Mapping": Mapping, "FileSystem": object}
    names = ChainMap(module, vars(builtins), known, _PublicNames())
    return typing.get_type_hints(annotated, localns=names)


def _check(argument: str, value: Any, annotated: Callable[..., object]) -> None:
    """Check an argument of a function, or a field of a dataclass, named ``argument.field``."""
    name = argument.rpartition(".")[2]
    named = re.sub(r"\[.*\]", "", annotated.__annotations__[name]).split(" | ")
    # What a class is called is enough to know a right value: finding all classes loads modules.
    if not (
        type(value).__name__ in named
        or (value is None and "None" in named)
        or (isinstance(value, Path) and "Path" in named)
        or (callable(value) and "Callable" in named)
    ):
        _check_type(argument, value, _kinds(_types(annotated)[name]))
    if isinstance(value, (int, float)):
        _check_number(argument, value, annotated.__name__)
    if isinstance(value, (Path, str)) and "Path" in named:
        _check_name(argument, value)
    # What users fill in; what functions return comes back as it was.
    kind: type = type(value)
    if kind.__name__.endswith(("Request", "Settings")):
        for field in fields(value):
            _check(f"{argument}.{field.name}", getattr(value, field.name), kind)


def _check_type(argument: str, value: object, kinds: tuple[type, ...]) -> None:
    # A bool is an int to Python, and no length to anyone.
    if not (bool in kinds if isinstance(value, bool) else isinstance(value, kinds)):
        words = " or ".join(_words(kind) for kind in kinds if kind is not type(None))
        raise TypeError(f"{argument}: is {type(value).__name__}, expected {words}")


def _check_number(name: str, value: float, owner: str) -> None:
    field = name.rpartition(".")[2]
    everywhere = _ranges().get(field, (-math.inf, math.inf))
    low, high = _ranges().get(f"{owner}.{field}", everywhere)
    if not low <= value <= high:
        words = f"at least {low:,}" if high == math.inf else f"{low:,} to {high:,}"
        raise ValueError(f"{name}: is {value}, expected {words}")


def _kinds(expected: Any) -> tuple[type, ...]:
    """Classes of an annotation's values; numbers with a fraction may be whole."""
    origin = typing.get_origin(expected)
    if origin in {typing.Union, UnionType}:
        return tuple(kind for part in typing.get_args(expected) for kind in _kinds(part))
    return (int, float) if expected is float else (origin or expected,)


def _words(kind: type) -> str:
    if issubclass(kind, Enum):
        return f"{kind.__name__}, as {kind.__name__}.{next(iter(kind)).name}"
    return f"ggufext's {kind.__name__}" if is_dataclass(kind) else kind.__name__


def _check_name(name: str, value: Path | str) -> None:
    try:
        usable = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise LocationError(
            code="unreadable",
            path=value,
            message=f"no file can have the name that {name} gives: it holds a zero byte or half a "
            "character",
        )
