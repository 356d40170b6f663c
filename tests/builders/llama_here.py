"""Whether tests can ask a llama.cpp here, and in which process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ggufext.errors import EngineError
from ggufext.llama.binding import Place, installed

if TYPE_CHECKING:
    from ggufext.llama.process import LlamaProcess


def needs_llama_cpp() -> Place:
    """The library that is used; skips the test, or the module that calls this, without one."""
    try:
        return installed()
    except EngineError as error:
        pytest.skip(error.message, allow_module_level=True)


def child_of(process: LlamaProcess) -> int:
    """Number of the process that runs llama.cpp."""
    assert process._child is not None
    return process._child.pid
