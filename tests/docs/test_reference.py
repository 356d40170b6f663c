"""The page of the Python API asks for every group of it and for every kind of error."""

import pkgutil
import re
from pathlib import Path

import ggufext.api
from ggufext import errors

PAGE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


def test_every_group_of_the_api_is_on_the_page() -> None:
    groups = {module.name for module in pkgutil.iter_modules(ggufext.api.__path__)}
    assert set(re.findall(r"^::: ggufext\.api\.(\w+)$", PAGE, re.MULTILINE)) == groups


def test_every_kind_of_error_is_on_the_page() -> None:
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert set(re.findall(r"^ +- (\w+)$", PAGE, re.MULTILINE)) == kinds
