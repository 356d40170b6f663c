"""Write tiny_architectures.toml: the tensors that llama.cpp's loaders require for tiny models.

Usage: ``python models/list_tensors.py [ARCHITECTURE …]``; all without arguments. Nothing is read
from llama.cpp's sources: a file without tensors is offered, llama.cpp says which tensor it misses
and which shape it expects, until it loads the file.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.errors import EngineError
from ggufext.llama.library import Llama
from ggufext.llama.settings import LoadRequest
from random_model import write_random_model
from tiny_architectures import DECIDED, SHAPES, architecture

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MISSING = re.compile(r"tensor '([^']+)'(?: not found|$|;)")
_SHAPE = re.compile(r"tensor '([^']+)' has wrong shape; expected +([\d, ]+), got")

Shapes = dict[str, tuple[int, ...]]


def required_tensors(llama: Llama, name: str, folder: Path) -> Shapes:
    """Ask llama.cpp for the tensors of one architecture."""
    try:  # most layers are like an earlier one: a guess of whole layers saves most questions
        return _asked(llama, name, folder, guess_layers=True)
    except ValueError:
        return _asked(llama, name, folder, guess_layers=False)


def _asked(llama: Llama, name: str, folder: Path, *, guess_layers: bool) -> Shapes:
    shapes: Shapes = {}
    waiting = [
        tensor.replace("*", str(layer))
        for tensor in DECIDED[name].optional
        for layer in range(DECIDED[name].layers if "*" in tensor else 1)
    ]
    while True:
        if (complaint := _complaint(llama, name, shapes, folder)) is None:
            if not waiting:
                return shapes
            shapes[waiting.pop()] = (1,)
        elif match := _SHAPE.search(complaint):
            shapes[match[1]] = tuple(int(extent) for extent in match[2].split(","))
        elif (match := _MISSING.search(complaint)) and match[1] not in shapes:
            shapes[match[1]] = (1,)
            if guess_layers:
                shapes |= _layer_like_the_one_before(shapes, match[1])
        else:
            raise ValueError(f"{name}: {complaint}")


def _layer_like_the_one_before(shapes: Shapes, missing: str) -> Shapes:
    layer = re.match(r"blk\.(\d+)\.", missing)
    if layer is None or layer[1] == "0":
        return {}
    before, here = f"blk.{int(layer[1]) - 1}.", layer[0]
    return {
        name.replace(before, here): shape
        for name, shape in shapes.items()
        if name.startswith(before)
    }


def _complaint(llama: Llama, name: str, shapes: Shapes, folder: Path) -> str | None:
    path = write_random_model(folder / "model.gguf", architecture(name, shapes), type="F32")
    try:
        llama.api.llama_model_free(llama.load(LoadRequest(path=path)))
    except EngineError as refusal:
        return refusal.message
    return None


def shortened(shapes: Shapes, layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors with ``*`` for the layer where every layer has the same."""
    for name, shape in shapes.items():
        starred = re.sub(r"^blk\.\d+\.", "blk.*.", name)
        everywhere = (starred.replace("*", str(layer)) for layer in range(layers))
        if starred == name or any(shapes.get(other) != shape for other in everywhere):
            yield name, shape
        elif name.startswith("blk.0."):
            yield starred, shape


def main() -> None:
    wanted = sys.argv[1:] or list(DECIDED)
    llama = Llama()
    tables = tomllib.loads(SHAPES.read_text(encoding="utf-8")) if SHAPES.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            try:
                found = required_tensors(llama, name, Path(folder))
            except ValueError as error:
                print(error, flush=True)
                continue
            tables[name] = dict(shortened(found, DECIDED[name].layers))
            print(f"{name}: {len(found)} tensors", flush=True)
            _write(tables)


def _write(tables: Mapping[str, Mapping[str, Sequence[int]]]) -> None:
    lines = ["# Written by list_tensors.py from the answers of llama-cpp-python 0.3.36."]
    for name in DECIDED:
        if name in tables:
            lines += ["", f"[{name}]"]
            lines += [f'"{tensor}" = {list(shape)}' for tensor, shape in tables[name].items()]
    SHAPES.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
