"""What an installed wheel holds; without ggufext installed as one there is nothing to look at."""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

import ggufext

SOURCES = Path(__file__).resolve().parents[1] / "src"


@pytest.fixture
def wheel() -> Distribution:
    """The installed wheel that this Python imports ggufext from."""
    try:
        installed = distribution("ggufext")
    except PackageNotFoundError:
        pytest.skip("ggufext is not installed")
    if Path(str(installed.locate_file("ggufext"))) != Path(ggufext.__file__).parent:
        pytest.skip(f"ggufext is imported from {Path(ggufext.__file__).parent}, not from a wheel")
    return installed


def test_the_wheel_holds_every_file_of_the_package_and_no_other_but_native_modules(
    wheel: Distribution,
) -> None:
    sources = {
        path.relative_to(SOURCES).as_posix()
        for path in SOURCES.rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".so", ".pyd"}
    }
    packed = {
        file.as_posix()
        for file in wheel.files or ()
        if file.parts[0] == "ggufext" and file.suffix not in {".pyc", ".so", ".pyd"}
    }
    assert packed == sources


def test_the_version_of_the_wheel_is_the_one_that_the_program_says(wheel: Distribution) -> None:
    assert wheel.version == ggufext.__version__
