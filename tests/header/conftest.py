"""Fixtures of the tests of headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ggufext.header import header
from header.readers import READERS

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Each reader in turn, with which headers are read meanwhile."""
    chosen: ModuleType = READERS[request.param]
    monkeypatch.setattr(header, "reader", chosen)
    return chosen
