"""Arguments of the public functions, checked where they come in; errors of the system named."""

from __future__ import annotations

import inspect
import math
import os
import sys
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ggufext.audit.findings.results import CheckResult
from ggufext.audit.request import CheckRequest, LocalSettings, Mode, ServerSettings, Template
from ggufext.errors import LocationError, of_system
from ggufext.header.header import Header
from ggufext.header.model import ModelFacts
from ggufext.locating.remote import RemoteModel
from ggufext.opened.strategies import Strategy
from ggufext.planning.emit import Engine
from ggufext.planning.footprint import CacheType
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest, Recipe
from ggufext.planning.result import LARGEST_TARGET, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Expected:
    """Types of an argument, and the range of a number, both ends included."""

    types: tuple[type, ...]
    low: float = -math.inf
    high: float = math.inf

    def range(self) -> str:
        """The range in words."""
        if self.high == math.inf:
            return f"at least {self.low:,}"
        return f"{self.low:,} to {self.high:,}"


_NAME = _Expected((Path, str))
_TOKENS = _Expected((int,), 1, LARGEST_TARGET)
_NUMBER = _Expected((int, float), -sys.float_info.max, sys.float_info.max)
_TEXT = _Expected((str,))

#: By the name that all public functions give an argument; others are checked by what takes them.
_ARGUMENTS: Mapping[str, _Expected] = {
    "after": _Expected((Path, str, Header)),
    "before": _Expected((Path, str, Header)),
    "bound": _Expected((int, float), 1e-6, 1 - 1e-6),
    "engine": _Expected((Engine,)),
    "facts": _Expected((ModelFacts,)),
    "header": _Expected((Header,)),
    "made": _Expected((Plan,)),
    "method": _Expected((Method,)),
    "gamma": _NUMBER,
    "recipe": _Expected((Recipe,)),
    "model": _Expected((Path, str, ModelFacts, RemoteModel, ServerSettings)),
    "output": _NAME,
    "path": _NAME,
    "request": _Expected((CheckRequest, PlanRequest)),
    "result": _Expected((CheckResult,)),
    "strategy": _Expected((Strategy,)),
    "target_length": _Expected((int,)),
    "text": _TEXT,
    "train_freq_base": _NUMBER,
    "train_length": _TOKENS,
}

#: Of the settings, by the names of their fields.
_FIELDS: Mapping[str, _Expected] = {
    "answer_tokens": _TOKENS,
    "api_key": _TEXT,
    "cache_type": _Expected((CacheType,)),
    "conditions": _Expected((tuple,)),
    "dask": _TEXT,
    "engine": _Expected((LocalSettings,)),
    "gpu_layers": _Expected((int,), 0),
    "lengths": _Expected((tuple,)),
    "mode": _Expected((Mode,)),
    "model": _TEXT,
    "resume": _Expected((Path,)),
    "retries": _Expected((int,), 0),
    "retry_seconds": _Expected((int, float), 0),
    "rpc": _Expected((tuple,)),
    "seed": _Expected((int,), 0),
    "target_length": _TOKENS,
    "template": _Expected((Template,)),
    "threads": _Expected((int,), 1),
    "threshold": _Expected((int, float), 1e-6, 1),
    "timeout": _Expected((int, float), 0.001, 1_000_000),
    "train_freq_base": _NUMBER,
    "train_length": _TOKENS,
    "trials": _Expected((int,)),
    "url": _TEXT,
}


def public(
    function: Callable[_Arguments, _Result], *, unchecked: frozenset[str] = frozenset()
) -> Callable[_Arguments, _Result]:
    """A function of the project as users call it.

    The result checks arguments before anything is done, and errors of the system come as ours.

    Parameters
    ----------
    function : callable
    unchecked : frozenset of str
        Arguments that mean something else here than in other public functions.

    Raises
    ------
    TypeError
        Of the result: an argument has another type than its documentation says.
    ValueError
        Of the result: a number lies outside its documented range.
    GgufextError
        Of the result: what `function` raises, and `of_system` of an `OSError`.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if value is not None or signature.parameters[name].default is not None:
                _check(name, value, None if name in unchecked else _ARGUMENTS.get(name))
        try:
            return function(*args, **kwargs)
        except OSError as error:
            raise of_system(error) from error

    # Where it can be found: processes find a function by its module and its name.
    call.__module__ = "ggufext.api"
    return call


def _check(name: str, value: Any, expected: _Expected | None) -> None:
    if expected is None:
        return
    if not isinstance(value, expected.types) or isinstance(value, bool):
        kinds = " or ".join(_words(kind) for kind in expected.types)
        raise TypeError(f"{name}: is {type(value).__name__}, expected {kinds}")
    if isinstance(value, (int, float)) and not expected.low <= value <= expected.high:
        raise ValueError(f"{name}: is {value}, expected {expected.range()}")
    if isinstance(value, (Path, str)) and Path in expected.types:
        _check_name(name, value)
    if isinstance(value, (CheckRequest, PlanRequest, LocalSettings, ServerSettings)):
        for field in fields(value):
            found = getattr(value, field.name)
            # A plan refuses a target itself, in the words of the command line.
            fields_of = _ARGUMENTS if isinstance(value, PlanRequest) else _FIELDS
            if found is not None or field.default is not None:
                _check(f"{name}.{field.name}", found, fields_of.get(field.name))


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
