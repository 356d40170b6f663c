"""Recipes of scaling factors in files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.errors import PlanError, of_system
from ggufext.planning.request import LONGEST_RECIPE, decode_recipe

if TYPE_CHECKING:
    from ggufext.planning.request import Recipe


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe from a file.

    Raises
    ------
    PlanError
        ``bad_recipe``, and what the system says of the file.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return decode_recipe(file.read(LONGEST_RECIPE + 1))
    except PlanError as error:
        error.path = path
        raise
    except OSError as error:
        raise of_system(error, path, kind=PlanError) from error
