"""A comparison of the shipped model that its reports show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ggufext.audit.request import LocalSettings
from ggufext.comparison.compare import compare
from ggufext.comparison.request import CompareRequest

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.comparison.results import CompareResult


@pytest.fixture(scope="session")
def compared(passkey_model: Path) -> CompareResult:
    """Three extensions of which one breaks, on two texts."""
    request = CompareRequest(
        target_length=768,
        conditions=("planned:linear", "planned:gamma", "planned:yarn"),
        trials=2,
        depths=3,
        engine=LocalSettings(threads=1, flash_attention=False),
    )
    return compare(passkey_model, request)
