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
    errors = list(_validator(command).iter_errors(json.loads(printed)))
    if errors:
        error = jsonschema.exceptions.best_match(errors)
        place = "/".join(map(str, error.absolute_path))
        raise AssertionError(f"{command} --json at {place!r}: {error.message[:2000]}")


@cache
def _validator(command: str) -> Any:
    schema = json.loads((FOLDER / f"{command}.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema)
