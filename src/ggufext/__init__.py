"""Extend the context of GGUF models in place, and measure whether they still find anything.

`read_header`, `inspect`, `plan`, `rewrite`, `undo` and `recover` are the whole way from a file to
a longer context and back; `check` measures what the model still finds there. Their results are
frozen dataclasses; all are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ggufext import errors as errors
    from ggufext import rope as rope
    from ggufext.api import (
        CacheType,
        CheckRequest,
        Engine,
        Factors,
        LocalSettings,
        Method,
        Mode,
        PlanRequest,
        Recipe,
        ServerSettings,
        Template,
        check,
        decode_recipe,
        diff,
        dynamic,
        emit,
        inspect,
        model_facts,
        plan,
        plan_all_methods,
        read_header,
        recover,
        rewrite,
        self_extend,
        undo,
    )

__all__ = [
    "CacheType",
    "CheckRequest",
    "Engine",
    "Factors",
    "LocalSettings",
    "Method",
    "Mode",
    "PlanRequest",
    "Recipe",
    "ServerSettings",
    "Template",
    "__version__",
    "check",
    "decode_recipe",
    "diff",
    "dynamic",
    "emit",
    "inspect",
    "model_facts",
    "plan",
    "plan_all_methods",
    "read_header",
    "recover",
    "rewrite",
    "self_extend",
    "undo",
]


def __getattr__(name: str) -> object:
    if name in {"errors", "rope"}:
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ggufext import api

    return getattr(api, name)
