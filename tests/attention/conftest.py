"""A measurement of the shipped model that many tests look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ggufext.attention.measure import measure
from ggufext.attention.request import MeasureRequest

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.attention.results import MeasureResult


@pytest.fixture(scope="session")
def measured(passkey_model: Path) -> MeasureResult:
    request = MeasureRequest(length=320, conditions=("file", "planned:gamma"), target_length=1024)
    return measure(passkey_model, request)
