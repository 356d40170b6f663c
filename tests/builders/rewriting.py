"""Rewrites by options of both kinds: fields of the request, and arguments of `rewrite`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ggufext.editing.rewrite import rewrite
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.editing.rewrite import Rewritten

_FIELDS = {field.name for field in fields(PlanRequest)}


def rewrite_with(path: Path, options: dict[str, Any], **more: Any) -> Rewritten:
    """Rewrite a file as `options` and `more` say."""
    both = options | more
    request = PlanRequest(**{name: value for name, value in both.items() if name in _FIELDS})
    return rewrite(path, request, **{n: value for n, value in both.items() if n not in _FIELDS})
