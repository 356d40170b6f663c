"""Every command takes the names that people use, and tables are for people and programs."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import program
from ollama_folder import add_model
from random_model import write_random_model
from range_server import ranged, serving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def blob(llama: Path, tmp_path: Path) -> Path:
    """A model in the user's folder of Ollama models, named tiny."""
    others = {"template": b"{{ .Prompt }}", "params": b'{"stop": ["<|end|>"]}'}
    return add_model(tmp_path / ".ollama/models", llama.read_bytes(), others=others)


def run(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "O"))}
    environment = {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    return program.run(*arguments, cwd=home, env=environment)


def answered(home: Path, *arguments: object) -> Any:
    return json.loads(run(home, *arguments, "--json").stdout)


def test_inspect_and_plan_read_the_blob_of_a_name(blob: Path, tmp_path: Path) -> None:
    assert answered(tmp_path, "inspect", "ollama:tiny")["path"] == str(blob)
    assert run(tmp_path, "inspect", "ollama:tiny").stdout.startswith(f"ollama:tiny ({blob})\n")
    plans = answered(tmp_path, "plan", "ollama:tiny", "--target", "8k")["plans"]
    assert {plan["path"] for plan in plans} == {str(blob)}


@pytest.mark.parametrize(
    "command",
    [("rewrite", "--target", "8k"), ("set", "general.name=x"), ("undo",), ("recover",)],
)
def test_a_blob_is_not_edited_in_place(
    blob: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    before = blob.read_bytes()
    error = answered(tmp_path, command[0], "ollama:tiny", *command[1:])["error"]
    assert error["code"] == "ollama_blob"
    assert blob.read_bytes() == before


def test_check_looks_names_up_like_the_others(blob: Path, tmp_path: Path) -> None:
    error = answered(tmp_path, "check", "ollama:absent")["error"]
    assert error["code"] == "ollama_missing"


def test_rewrite_to_a_new_file_prints_a_modelfile(blob: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.gguf"
    done = run(tmp_path, "rewrite", "ollama:tiny", "--target", "8k", "--output", new)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(
        f'FROM {new}\nTEMPLATE """{{{{ .Prompt }}}}"""\nPARAMETER stop """<|end|>"""\n'
        "PARAMETER num_ctx 8192\n"
    )
    assert answered(tmp_path, "inspect", new)["train_length"]["value"] == 8192


def test_the_modelfile_is_a_field_for_programs(blob: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.gguf"
    done = answered(tmp_path, "rewrite", blob, "--target", "8k", "--output", new)
    assert done["modelfile"] == f"FROM {new}\nPARAMETER num_ctx 8192\n"


def test_keys_set_in_a_new_file_print_a_modelfile_that_keeps_the_context(tmp_path: Path) -> None:
    params = {"params": b'{"num_ctx": 4096}'}
    content = write_random_model(tmp_path / "m.gguf").read_bytes()
    add_model(tmp_path / ".ollama/models", content, others=params)
    new = tmp_path / "new.gguf"
    done = run(tmp_path, "set", "ollama:tiny", "general.name=new", "--output", new)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"FROM {new}\nPARAMETER num_ctx 4096\n")


def test_a_name_that_fails_does_not_stop_the_others(
    blob: Path, llama: Path, tmp_path: Path
) -> None:
    names = ("ollama:absent", "https://host.invalid/m.gguf", llama)
    files = answered(tmp_path, "rewrite", *names, "--target", "8k")["files"]
    codes = [file.get("error", {}).get("code") for file in files]
    assert codes == ["ollama_missing", "remote_model", None]


def test_without_a_name_the_models_of_all_places_are_listed(blob: Path, tmp_path: Path) -> None:
    (place,) = answered(tmp_path, "inspect")["places"]
    assert (place["where"], place["path"]) == ("ollama", str(blob.parents[1]))
    assert [model["name"] for model in place["models"]] == ["ollama:tiny:latest"]
    shown = run(tmp_path, "inspect")
    assert shown.returncode == 0
    assert "Ollama" in shown.stdout
    assert "ollama:tiny:latest" in shown.stdout


def test_a_home_without_models_is_no_error(tmp_path: Path) -> None:
    done = run(tmp_path, "inspect")
    assert done.returncode == 0
    assert "name a file or a folder" in done.stdout
    assert answered(tmp_path, "inspect") == {"places": []}


MODEL_FIELDS = {
    "name", "path", "parts", "architecture", "quantization", "size", "train_length", "scaling",
    "support", "problems",
}  # fmt: skip


def test_a_folder_is_one_table(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    found = answered(tmp_path, "inspect", tmp_path)
    assert set(found) == {"where", "path", "models", "problem"}
    assert [set(model) for model in found["models"]] == [MODEL_FIELDS] * 2
    lines = run(tmp_path, "inspect", tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["name", "broken.gguf", "model.gguf"]
    assert lines[2].split()[-1] == "truncated"


def test_a_table_in_a_pipe_has_one_line_a_model_and_no_colour(tmp_path: Path) -> None:
    name = "x" * 200 + "\x1b[2J[bold]"
    (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
    shown = run(tmp_path, "inspect", tmp_path).stdout
    assert "\x1b" not in shown
    assert "[bold]" in shown
    assert len(shown.splitlines()) == 3


def test_files_and_folders_go_together(llama: Path, tmp_path: Path) -> None:
    first, second = answered(tmp_path, "inspect", llama, tmp_path)["files"]
    assert first["architecture"] == second["models"][0]["architecture"] == "llama"
    lines = run(tmp_path, "inspect", llama, tmp_path).stdout.splitlines()
    assert lines[-1].split()[1:3] == ["1", "model"]


def test_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    done = run(tmp_path, "inspect", tmp_path)
    assert done.returncode == 0
    assert "0 models" in done.stdout


def shown_on_terminal(home: Path, *arguments: object) -> str:
    """What a terminal of 80 columns gets to show."""
    terminal, inner = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ggufext", *map(str, arguments)],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env={**os.environ, "HOME": str(home), "COLUMNS": "80", "TERM": "xterm", "NO_PROXY": "*"},
    ):
        os.close(inner)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while part := os.read(terminal, 4096):
                shown += part
    os.close(terminal)
    return shown.decode()


def test_a_table_on_a_terminal_fits_and_leaves_out_empty_columns(
    llama: Path, tmp_path: Path
) -> None:
    llama.rename(tmp_path / f"{'long-name-' * 10}.gguf")
    lines = shown_on_terminal(tmp_path, "inspect", tmp_path).splitlines()[1:]
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert plain[0].split() == ["name", "architecture", "weights", "size", "context", "support"]
    assert max(map(len, plain)) <= 80
    assert "".join(line.split()[0] for line in plain[1:]) == f"{'long-name-' * 10}.gguf"


def test_a_password_in_an_address_is_shown_nowhere(llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs ggufext[remote]")
    with serving() as server:
        server.answers["/m.gguf"] = ranged(llama.read_bytes())
        address = server.address.replace("://", "://me:secret@")
        names = (f"{address}/m.gguf", f"{address}/absent.gguf")
        for arguments in (names, names[:1], names[1:], (*names, "--json")):
            done = run(tmp_path, "inspect", *arguments)
            assert "m.gguf" in done.stdout + done.stderr or "absent" in done.stderr
            assert "secret" not in done.stdout + done.stderr
