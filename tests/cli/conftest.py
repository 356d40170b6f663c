"""The command line as its tests call it in this process."""

from __future__ import annotations

import click
import pytest

from ggufext.cli import waiting
from ggufext.text import json_text
from schemas import check_output


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not make a command say how far it is."""
    monkeypatch.setattr(waiting, "_PATIENCE", 600)


@pytest.fixture(autouse=True)
def _documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command prints as JSON in this process is what its schema says."""

    def checked(value: object) -> str:
        text = json_text(value)
        context = click.get_current_context(silent=True)
        if context is not None and context.info_name:
            check_output(context.info_name, text)
        return text

    monkeypatch.setattr("ggufext.cli.output.json_text", checked)
