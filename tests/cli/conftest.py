"""The command line as its tests call it in this process."""

from __future__ import annotations

import pytest

from ggufext.cli import waiting


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not make a command say how far it is."""
    monkeypatch.setattr(waiting, "_PATIENCE", 600)
