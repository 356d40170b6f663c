"""Whether tests can ask a llama.cpp here."""

from __future__ import annotations

import pytest

from ggufext.errors import EngineError
from ggufext.llama.binding import Place, installed


def needs_llama_cpp() -> Place:
    """The library that is used; skips the test, or the module that calls this, without one."""
    try:
        return installed()
    except EngineError as error:
        pytest.skip(error.message, allow_module_level=True)
