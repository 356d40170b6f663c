"""What a dask worker compares before it answers, and when its file is another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ggufext.audit.engines import worker
from ggufext.editing.rewrite import rewrite
from ggufext.errors import EngineError
from ggufext.header.header import read_header
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from pathlib import Path


def test_copy_of_a_file_is_the_same_file(passkey_model: Path, passkey_copy: Path) -> None:
    assert worker.installation(passkey_copy) == worker.installation(passkey_model)


def test_other_weights_under_the_same_header_make_another_file(
    passkey_model: Path, passkey_copy: Path
) -> None:
    start = read_header(passkey_copy).data_offset
    whole = passkey_copy.read_bytes()
    passkey_copy.write_bytes(whole[:start] + bytes(each ^ 1 for each in whole[start:]))
    assert worker.installation(passkey_copy) != worker.installation(passkey_model)


def test_edited_file_is_another_file(passkey_model: Path, passkey_copy: Path) -> None:
    rewrite(passkey_copy, PlanRequest(target_length=1024))
    assert worker.installation(passkey_copy) != worker.installation(passkey_model)


def test_worker_without_the_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot read the model.*the file at the same") as error:
        worker.hello(tmp_path / "model.gguf", {})
    assert error.value.code == "worker_differs"


def test_worker_with_another_file_than_is_wanted_starts_no_engine(passkey_model: Path) -> None:
    wanted = worker.installation(passkey_model) | {"model file": "0" * 16}
    with pytest.raises(EngineError, match="has another model file") as error:
        worker.hello(passkey_model, wanted)
    assert error.value.code == "worker_differs"
