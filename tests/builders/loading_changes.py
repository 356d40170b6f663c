"""Changes to models after which llama.cpp may not load them, and both verdicts on each.

Usage: ``python tests/builders/loading_changes.py [ARCHITECTURE …]`` makes every change and prints
where the verdicts differ and loading_differences.txt does not say so; without architectures it
writes that file anew.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf import GGUFValueType

from ggufext.errors import EngineError, HeaderError, PlanError
from ggufext.header.facts import model_facts
from ggufext.header.header import read_header
from ggufext.header.loading import refuse_unloadable
from ggufext.llama.process import LlamaProcess
from ggufext.llama.rope_nodes import observe
from ggufext.llama.settings import ContextSettings
from random_architectures import ARCHITECTURES
from random_model import Typed, write_random_model
from tiny_architectures import TINY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from random_architectures import Architecture, Key

MODELS: dict[str, Architecture] = {**TINY, **ARCHITECTURES}


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a model: a label, keys to set (None: to leave out), tensors to leave out
    and to add.
    """

    label: str
    keys: dict[str, Any]
    without: str | None = None
    added: str | None = None


def changes(name: str) -> Iterator[Change]:
    """Every single change to the model of one architecture."""
    model = MODELS[name]
    for key in model.keys:
        yield from _of_key(key, key.full_name(name), model)
    for needed in ("tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"):
        yield Change(f"no {needed}", {needed: None})
    for suffix in ("rope.dimension_sections", "attention.sliding_window", "rope.dimension_count",
                   "attention.key_length", "attention.value_length"):  # fmt: skip
        if all(key.name != suffix for key in model.keys):
            value: Any = 16
            if suffix.endswith("sections"):
                value = Typed((4, 4, 4), GGUFValueType.ARRAY, GGUFValueType.INT32)
            yield Change(f"{suffix} added", {f"{name}.{suffix}": value})
    for tensor in model.tensors:
        yield Change(f"no {tensor.name}", {}, without=tensor.name)
    names = {tensor.name for tensor in model.tensors}
    for added in {"blk.0.strange.weight", "strange.weight", "rope_freqs.weight"} - names:
        yield Change(f"{added} added", {}, added=added)


def _of_key(key: Key, full: str, model: Architecture) -> Iterator[Change]:
    value = key.value
    if isinstance(value, str) and hasattr(model.geometry, value):
        value = getattr(model.geometry, value)
    yield Change(f"no {key.name}", {full: None})
    if isinstance(value, bool | str):
        yield Change(f"{key.name} of another type", {full: 7})
    elif isinstance(value, int):
        yield Change(f"{key.name} of another type", {full: float(value)})
        yield Change(f"{key.name} as u64", {full: Typed(value, GGUFValueType.UINT64)})
        others = {value + 1, value // 2, value * 2} - {value}
        if key.name == "attention.sliding_window":
            others.add(0)
        for other in sorted(others):
            yield Change(f"{key.name} {value} → {other}", {full: other})
        if value < 64:
            yield Change(f"{key.name} one a layer", {full: (value,) * model.geometry.layers})
            yield Change(f"{key.name} one too few", {full: (value,) * (model.geometry.layers + 1)})
    elif isinstance(value, float):
        yield Change(f"{key.name} of another type", {full: int(value)})
    else:
        yield Change(f"{key.name} shorter", {full: tuple(value[:-1])})
        yield Change(f"{key.name} longer", {full: (*value, value[-1])})
        yield Change(f"{key.name} alone", {full: value[0]})


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Why the program, and why llama.cpp, does not load a changed model; None: it does."""

    change: Change
    ours: str | None
    llama_cpp: str | None


def verdicts(name: str, change: Change, folder: Path, process: LlamaProcess) -> Verdicts:
    """Write a changed model and ask both."""
    model = MODELS[name]
    path = folder / "model.gguf"
    if change.without:
        kept = tuple(each for each in model.tensors if each.name != change.without)
        model = replace(model, tensors=kept)
    added = {change.added: np.ones(16, dtype=np.float32)} if change.added else None
    write_random_model(path, model, type="F32", metadata=change.keys, tensors=added)
    return Verdicts(change, _ours(path), llama_cpp_verdict(path, process))


def _ours(path: Path) -> str | None:
    try:
        header = read_header(path)
        refuse_unloadable(header, model_facts(header))
    except HeaderError as error:
        return f"{error.code} {error.field}: {error.message}"
    except PlanError as error:
        return f"{error.code}: {error.message}"  # nothing to extend, whether it loads or not
    return None


def llama_cpp_verdict(path: Path, process: LlamaProcess) -> str | None:
    """Why llama.cpp does not load a file, or makes no context of it."""
    try:
        observe(path, tokens=(), settings=ContextSettings(n_ctx=512), starts=(), process=process)
    except EngineError as error:
        return f"{error.code}: {error.message}"
    return None


#: Changes after which a file is planned that llama.cpp does not load, or refused that it does.
DIFFERENCES = Path(__file__).with_name("loading_differences.txt")


def known_differences() -> set[str]:
    """Lines of the file."""
    return set(DIFFERENCES.read_text(encoding="utf-8").splitlines())


def difference(name: str, tried: Verdicts) -> str | None:
    """A line for the file; None where both say the same."""
    if (tried.ours is None) == (tried.llama_cpp is None):
        return None
    verdict = "too strict" if tried.ours else "too lax"
    return f"{name}: {verdict}: {tried.change.label}"


def main() -> None:
    found = []
    known = known_differences() if sys.argv[1:] else set()
    with LlamaProcess() as process, tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or MODELS:
            tried = [verdicts(name, change, Path(folder), process) for change in changes(name)]
            lines = [line for each in tried if (line := difference(name, each))]
            found += lines
            loads = sum(each.llama_cpp is None for each in tried)
            print(f"{name}: {len(tried)} changes, {loads} load", flush=True)
            print(*(f"  {line}" for line in lines if line not in known), sep="\n", flush=True)
    if not sys.argv[1:]:
        DIFFERENCES.write_text("\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
