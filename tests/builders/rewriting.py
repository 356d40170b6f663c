"""Edits by options: fields of a request and arguments of `rewrite`, or values to set."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ggufext.editing.rewrite import rewrite
from ggufext.editing.setting import set_keys
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.editing.rewrite import Rewritten
    from ggufext.editing.setting import KeysSet

_FIELDS = {field.name for field in fields(PlanRequest)}


def rewrite_with(path: Path, options: dict[str, Any], **more: Any) -> Rewritten:
    """Rewrite a file as `options` and `more` say."""
    both = options | more
    request = PlanRequest(**{name: value for name, value in both.items() if name in _FIELDS})
    return rewrite(path, request, **{n: value for n, value in both.items() if n not in _FIELDS})


def edit_with(path: Path, options: dict[str, Any], **more: Any) -> Rewritten | KeysSet:
    """Set keys where `options` have ``values``, else rewrite a file as they and `more` say."""
    if "values" not in options:
        return rewrite_with(path, options, **more)
    of_both = {name: value for name, value in more.items() if name not in _FIELDS}
    return set_keys(path, **options, **of_both)
