"""``ggufext diff``: lines for people, an object for programs, a status for scripts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import program
from gguf_bytes import gguf_bytes
from ggufext.editing.rewrite import rewrite
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return program.run("diff", *arguments)


def test_the_status_says_whether_headers_differ(llama: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.gguf"
    rewrite(llama, PlanRequest(target_length=8192), output=longer)
    assert run(llama, llama).returncode == 0
    assert run(llama, longer).returncode == 3
    assert run(llama, tmp_path / "absent.gguf").returncode == 1
    assert run(llama).returncode == 2


def test_a_rewrite_shows_as_the_keys_that_it_wrote(llama: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.gguf"
    rewrite(
        llama,
        PlanRequest(target_length=8192, method=Method.YARN),
        output=longer,
        keep_history=False,
    )
    lines = run(llama, longer).stdout.splitlines()
    assert "~ llama.context_length: 2048 → 8192" in lines
    assert '+ llama.rope.scaling.type: "yarn" (STRING)' in lines
    assert lines[-1].endswith("and 21 tensors are equal")


def test_json_has_the_fields_of_the_dataclasses(llama: Path, tmp_path: Path) -> None:
    longer = tmp_path / "longer.gguf"
    rewrite(llama, PlanRequest(target_length=8192), output=longer)
    found = json.loads(run(llama, longer, "--json").stdout)
    assert set(found) == {"keys", "tensors", "same_keys", "same_tensors"}
    length = next(key for key in found["keys"] if key["key"] == "llama.context_length")
    assert length["after"] == {"type": "UINT32", "count": 1, "text": "8192"}


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    old, new = tmp_path / "old.gguf", tmp_path / "new.gguf"
    old.write_bytes(gguf_bytes({"\x1b[2Jkey": "\x1b]0;x\x07"}))
    new.write_bytes(gguf_bytes({"k": 1}))
    done = run(old, new)
    assert done.returncode == 3
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
