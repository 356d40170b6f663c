"""Extend the context of GGUF models in place, and measure whether they still find anything.

`read_header`, `inspect`, `plan`, `rewrite`, `undo` and `recover` are the whole way from a file to
a longer context and back; `check` measures what the model still finds there, `measure` how its
attention falls with distance, `compare` which method works, and `tune` searches for a better one.
Their results are frozen dataclasses; all are loaded when first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ggufext import errors as errors
    from ggufext import rope as rope
    from ggufext.api.audits import *
    from ggufext.api.comparisons import *
    from ggufext.api.doctor import *
    from ggufext.api.edits import *
    from ggufext.api.emissions import *
    from ggufext.api.headers import *
    from ggufext.api.measurements import *
    from ggufext.api.models import *
    from ggufext.api.names import *
    from ggufext.api.plans import *
    from ggufext.api.tunings import *

#: Modules of `ggufext.api`; a name is looked for in those that are loaded, then in this order.
_GROUPS = (
    *("names", "headers", "plans", "edits", "models", "emissions", "doctor", "audits"),
    *("comparisons", "measurements", "tunings"),
)


def __getattr__(name: str) -> object:
    if name in {"errors", "rope"}:
        return import_module(f"{__name__}.{name}")
    if name == "__all__":
        return __dir__()
    if not name.startswith("_"):
        places = [f"{__name__}.api.{group}" for group in _GROUPS]
        for place in sorted(places, key=lambda place: place not in sys.modules):
            module = import_module(place)
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    groups = (import_module(f"{__name__}.api.{group}") for group in _GROUPS)
    return ["__version__", *(name for group in groups for name in group.__all__)]
