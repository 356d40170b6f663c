"""docs/architectures.md says what the experiment shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_here import needs_llama_cpp
from write_architectures import PAGE, page

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiment import Trial

needs_llama_cpp()


def test_page_is_what_the_experiment_gives(trial: Callable[[str], Trial]) -> None:
    expected = page(trial)
    assert PAGE.read_text(encoding="utf-8") == expected, "run: python docs/write_architectures.py"
