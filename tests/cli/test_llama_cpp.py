"""``--llama-cpp``: every command that runs llama.cpp does so with the library that is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from ggufext.cli import cli
from llama_here import needs_llama_cpp

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def library() -> Path:
    """The library that is installed."""
    return needs_llama_cpp().path


def ran(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def audit(model: Path, *options: str | Path) -> dict[str, object]:
    asked = ("--lengths", "1024,2048", "--depths", "2", "--trials", "1", "--threads", "1")
    done = ran("check", model, *asked, "--audit", "--json", *options)
    assert done.exit_code == 0, done.output
    assert "measured on the first tokens" in done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_check_uses_it_for_every_step(
    library: Path, passkey_model: Path, request: pytest.FixtureRequest
) -> None:
    installed = audit(passkey_model, "--flash-attention", "off")
    request.getfixturevalue("without_llama_cpp")
    named = audit(passkey_model, "--flash-attention", "off", "--llama-cpp", library)
    assert named["conditions"] == installed["conditions"]
    run = named["run"]
    assert isinstance(run, dict)
    assert run["audited"]
    assert set(run["versions"]) == {"ggufext", "python", "llama_cpp", "processor"}


def test_rewrite_is_verified_with_it(
    library: Path, passkey_copy: Path, without_llama_cpp: None
) -> None:
    done = ran(
        *("rewrite", passkey_copy, "--target", "4k", "--verify", "--json", "--force"),
        *("--llama-cpp", library),
    )
    assert done.exit_code == 0, done.output
    values, rotation = json.loads(done.stdout)["verified"]
    assert "llama.cpp's GGUF reader" in values
    assert "rotates 4 of 4 layers" in rotation


def test_doctor_says_which_one_it_is(
    library: Path, tmp_path: Path, without_llama_cpp: None
) -> None:
    done = ran("doctor", tmp_path, "--json", "--llama-cpp", library)
    found = json.loads(done.stdout)["llama_cpp"]
    assert found["ok"]
    assert found["value"].startswith("--llama-cpp (llama.cpp ")
    assert f", {library})" in found["value"]


def test_doctor_says_what_is_wrong_with_one_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "libllama.so").write_text("no library")
    done = ran("doctor", tmp_path, "--json", "--llama-cpp", tmp_path)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert not found["llama_cpp"]["ok"]
    assert "cannot be loaded" in found["llama_cpp"]["value"]
    assert "without --llama-cpp" in found["llama_cpp"]["hint"]
    assert found["folder"]["value"]


def test_an_unknown_one_is_refused_before_the_file_is_edited(
    passkey_copy: Path, tmp_path: Path
) -> None:
    before = passkey_copy.read_bytes()
    done = ran(
        *("rewrite", passkey_copy, "--target", "4k", "--verify", "--force"),
        *("--llama-cpp", tmp_path),
    )
    assert "is no build of llama.cpp known here" in str(done.exception)
    assert passkey_copy.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "--server", "http://localhost:1", "--lengths", "1k"), "belongs to FILE"),
        (("check", "MODEL", "--llama-server", "llama-server"), "--llama-cpp and --llama-server"),
        (("check", "MODEL", "--dask", "tcp://localhost:1"), "--llama-cpp and --dask"),
        (("rewrite", "MODEL", "--target", "4k"), "belongs to --verify"),
    ],
)
def test_what_it_cannot_go_with_is_refused(
    arguments: tuple[str, ...], words: str, passkey_copy: Path, tmp_path: Path
) -> None:
    before = passkey_copy.read_bytes()
    given = [str(passkey_copy) if each == "MODEL" else each for each in arguments]
    done = ran(*given, "--llama-cpp", tmp_path)
    assert done.exit_code in {1, 2}
    assert words in done.output + str(done.exception)
    assert passkey_copy.read_bytes() == before


def test_answers_of_another_library_are_not_gone_on_with(
    library: Path, passkey_model: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    asked = ("check", passkey_model, "--lengths", "128", "--depths", "2", "--trials", "1")
    assert ran(*asked, "--resume", answers).exit_code == 0
    kept = answers.read_text()
    # The same one, wherever it lies.
    assert ran(*asked, "--resume", answers, "--llama-cpp", library).exit_code == 0
    assert answers.read_text() == kept
    head, _, rest = kept.partition("\n")
    fields = json.loads(head)
    fields["llama_cpp"] = f"0.0.9 {fields['llama_cpp']}"
    answers.write_text(f"{json.dumps(fields)}\n{rest}")
    done = ran(*asked, "--resume", answers)
    assert "other llama_cpp" in done.output + str(done.exception)
