"""What ``--json`` prints, compared with the schemas of the documentation."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

try:
    import jsonschema
except ModuleNotFoundError:  # a wheel is tested with pytest alone
    jsonschema = None

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"


def check_output(command: str, printed: str) -> None:
    """Refuse JSON that the schema of its command does not know.

    Nothing printed is wrong usage or Ctrl-C, which say nothing to programs.
    """
    if jsonschema is None or not printed:
        return
    for error in _validator(command).iter_errors(json.loads(printed)):
        raise AssertionError(f"{command} --json: {_reason(error)}")


def _reason(error: Any) -> str:
    """What is wrong with the shape that is missed least."""
    if error.context:
        shapes: dict[object, list[Any]] = {}
        for each in error.context:
            shapes.setdefault(each.schema_path[0], []).append(each)
        return _reason(min(shapes.values(), key=len)[0])
    return f"{'/'.join(map(str, error.absolute_path))}: {error.message[:2000]}"


@cache
def _validator(command: str) -> Any:
    schema = json.loads((FOLDER / f"{command}.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)
