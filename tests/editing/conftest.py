"""Fixtures for tests that edit files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ggufext.editing.files import FileSystem
from ggufext.editing.strategies import insert_block

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def inserting(tmp_path: Path) -> int:
    """Bytes of a block in a folder whose file system can insert ranges."""
    block = insert_block(FileSystem(), tmp_path)
    if block is None:
        pytest.skip("the file system of the temporary folder cannot insert ranges (ext4, xfs can)")
    return block
