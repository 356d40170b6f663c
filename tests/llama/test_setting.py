"""What llama.cpp makes of files in which keys were set: it loads every one that was not refused."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ggufext
from ggufext.editing.rewrite import undo
from ggufext.editing.setting import set_keys
from ggufext.errors import GgufextError
from ggufext.header.header import ValueType, read_header
from ggufext.llama.process import LlamaProcess
from llama_here import needs_llama_cpp
from loading_changes import MODELS, llama_cpp_verdict
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ggufext.header.header import Header

needs_llama_cpp()

#: Of each architecture; this file as a program tries all of them.
SAMPLE = 3

#: A key and its new value; None: to delete it.
Change = tuple[str, object]


def changes(header: Header) -> Iterator[Change]:
    """Values of every kind for every key."""
    for key, entry in header.keys.items():
        value = header.value(key)
        yield key, None
        yield f"{key}:u64", 1
        yield f"{key}:str", "x"
        if entry.type is ValueType.BOOL:
            yield key, not value
        elif entry.type is ValueType.STRING:
            yield from ((key, text) for text in ("", "x", "none"))
        elif isinstance(value, int):
            yield from ((key, number) for number in (0, 1, value + 1, value * 2, 2**31))
        elif isinstance(value, float):
            yield from ((key, number) for number in (0.0, -1.0, 0.5, value * 2, 1e30))
        elif isinstance(value, tuple):
            yield key, value[::-1]
            yield key, value[:-1]
            yield key, (*value, value[-1])
    name = header.value("general.architecture")
    for suffix, value in (
        ("rope.scaling.type:str", "yarn"),
        ("rope.scaling.factor:f32", 4.0),
        ("rope.scaling.original_context_length:u32", 0),
        ("attention.sliding_window:u32", 7),
        ("attention.scale:f32", 0.0),
        ("attention.causal:bool", False),
        ("expert_used_count:u32", 1),
        ("final_logit_softcapping:f32", 0.0),
    ):
        yield f"{name}.{suffix}", value


def verdict(path: Path, change: Change, process: LlamaProcess) -> str | None:
    """Why llama.cpp does not load a file any more in which a key was set, or None."""
    key, value = change
    original = path.read_bytes()
    try:
        values, gone = ({}, (key,)) if value is None else ({key: value}, ())
        done = set_keys(path, values, delete=gone)
    except GgufextError:
        assert path.read_bytes() == original
        return None
    found = llama_cpp_verdict(path, process)
    if done.receipt.undo is not None:
        undo(path)
    assert path.read_bytes() == original
    return found


@pytest.mark.parametrize("name", MODELS)
def test_what_can_be_set_loads(name: str, tmp_path: Path, probe: LlamaProcess) -> None:
    path = write_random_model(tmp_path / "model.gguf", name, type="F32")
    chosen = random.Random(name).sample(list(changes(read_header(path))), SAMPLE)
    assert [change for change in chosen if verdict(path, change, probe)] == []


def test_verify_asks_llama_cpp(llama: Path) -> None:
    done = ggufext.set_keys(llama, {"general.name": "new", "a.b:u8[]": [1]}, delete=())
    assert ggufext.verify(done) == (
        "llama.cpp's GGUF reader reads 1 value as written",
        "llama.cpp loads the file",
    )


if __name__ == "__main__":
    with LlamaProcess() as llama_cpp, tempfile.TemporaryDirectory() as folder:
        for architecture in sys.argv[1:] or MODELS:
            model = write_random_model(Path(folder) / "model.gguf", architecture, type="F32")
            for each in list(changes(read_header(model))):
                if refusal := verdict(model, each, llama_cpp):
                    print(architecture, each[0], str(each[1])[:60], refusal[:300], flush=True)
            print(architecture, "done", flush=True)
