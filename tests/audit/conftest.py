from __future__ import annotations

import shutil
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="session")
def passkey_model() -> Path:
    """The shipped model; not to be changed."""
    pytest.importorskip("llama_cpp")
    return MODELS / "passkey-Q8_0.gguf"


@pytest.fixture
def passkey_copy(passkey_model: Path, tmp_path: Path) -> Path:
    """A copy of the shipped model to edit."""
    return Path(shutil.copy(passkey_model, tmp_path / "passkey.gguf"))
