"""``ggufext set`` as it is typed: what it prints, what programs read, how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ggufext.header.header import read_header
from llama_here import needs_llama_cpp
from program import result, run

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = "{{ messages }}" * 1500


def test_a_template_comes_from_a_file_and_undo_gives_the_bytes_back(
    llama: Path, tmp_path: Path
) -> None:
    original = llama.read_bytes()
    template = tmp_path / "chat.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    done = run("set", llama, f"tokenizer.chat_template=@{template}", "general.name=new")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == str(llama)
    assert lines[1].startswith('  + tokenizer.chat_template: "{{ messages }}{{')
    assert any(line.startswith("  undo with: ggufext undo ") for line in lines)
    assert read_header(llama).value("tokenizer.chat_template") == TEMPLATE
    inspected = run("inspect", llama).stdout
    assert "set general.name, tokenizer.chat_template; `ggufext undo" in inspected
    assert run("undo", llama).returncode == 0
    assert llama.read_bytes() == original


def test_json_says_what_changed_and_how_it_was_written(llama: Path) -> None:
    found = result("set", llama, "my.key:u8=1", "--delete", "general.file_type", "--dry-run")
    assert set(found) == {
        "path", "changes", "strategy", "output", "bytes_written", "ranges", "seconds", "undo",
        "in_use", "verified", "modelfile",
    }  # fmt: skip
    assert [(each["key"], each["after"]) for each in found["changes"]] == [
        ("my.key", {"type": "UINT8", "count": 1, "text": "1"}),
        ("general.file_type", None),
    ]


def test_a_set_shows_in_diff_against_the_original(llama: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.gguf"
    assert run("set", llama, 'my.list:str[]=["é"]', "--output", new, "--no-history").returncode == 0
    assert (
        run("diff", llama, new).stdout.splitlines()[0]
        == '+ my.list: 1 element ["é"] (ARRAY of STRING)'
    )


def test_a_value_may_hold_what_keys_and_options_are_made_of(llama: Path) -> None:
    assert run("set", llama, "general.name=a=b:c", "a:b:str=--delete=@x").returncode == 0
    header = read_header(llama)
    assert header.value("general.name") == "a=b:c"
    assert header.value("a:b") == "--delete=@x"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((), 2, "nothing to do"),
        (("general.name",), 2, "is no KEY=VALUE"),
        (("general.name=a", "--llama-cpp", "."), 2, "belongs to --verify"),
        (("general.name=a", "general.name=b"), 1, "is named twice"),
        (("=a",), 1, "a key without a name"),
        (("general.name=@absent",), 1, "No such file"),
        (("a:u8=256",), 1, "u8 holds 0 to 255"),
        (("a=1",), 1, "its type must be said"),
        (("a:u9=1",), 1, "is none of GGUF's"),
        (("llama.block_count=4",), 1, "is not changed: it is a whole number"),
        (("--delete", "absent"), 1, "nothing to delete"),
    ],
)
def test_what_cannot_be_set_is_said_and_nothing_is_written(
    llama: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    before = llama.read_bytes()
    done = run("set", llama, *arguments)
    assert (done.returncode, said in done.stderr, done.stdout) == (status, True, "")
    assert "Traceback" not in done.stderr
    assert llama.read_bytes() == before


def test_a_code_says_to_programs_what_is_wrong(llama: Path) -> None:
    done = run("set", llama, "general.alignment:u32=64", "--json")
    found: dict[str, Any] = json.loads(done.stdout)["error"]
    assert (found["code"], found["field"]) == ("fixed_key", "general.alignment")


def test_verify_reads_the_result_with_llama_cpp(llama: Path) -> None:
    needs_llama_cpp()
    found = result("set", llama, "general.name=new", "--verify")
    assert found["verified"][-1] == "llama.cpp loads the file"
