"""``ggufext doctor`` says what a machine allows, and what to do where it does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from ggufext.audit import doctor
from ggufext.cli.doctor import doctor as command

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_json_is_value_ok_and_hint_by_name(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(tmp_path), "--json"])
    found = json.loads(done.output)
    assert {"cpu", "llama_cpp", "amx", "gpu", "folder"} <= set(found)
    assert all(set(finding) == {"value", "ok", "hint"} for finding in found.values())


def test_the_folder_is_left_as_it_was(tmp_path: Path) -> None:
    doctor.examine(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_processor_with_amx_gets_the_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_cpu_flags", lambda: ("avx2", "amx_tile"))
    finding = doctor.examine(tmp_path)["amx"]
    assert "has AMX" in finding.value
    assert "GGML_NATIVE=OFF" in finding.hint


def test_a_folder_that_cannot_insert_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "insert_block", lambda _files, _folder: None)
    assert "copy" in doctor.examine(tmp_path)["folder"].value
