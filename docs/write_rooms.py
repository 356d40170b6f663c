"""Draws the rooms of src/ggufext, and what each imports, into CONTRIBUTING.md.

python docs/write_rooms.py

An arrow that follows from others is left out. The drawing is mermaid's, which code hosts show.
"""

from __future__ import annotations

import re
from pathlib import Path

import grimp

CONTRIBUTING = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"

_BLOCK = re.compile(r"```mermaid\n.*?```", re.DOTALL)

#: The package that is drawn as rooms of its own.
_OPENED_UP = "audit"


def rooms() -> dict[str, set[str]]:
    """What each room imports, by name: ``llama``, ``audit.run`` …."""
    graph = grimp.build_graph("ggufext", cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        # The package itself loads its public functions when they are first used.
        if (importer := _room(module)) is None:
            continue
        imported = {_room(other) for other in graph.find_modules_directly_imported_by(module)}
        found.setdefault(importer, set()).update(imported - {importer, None})  # type: ignore[arg-type]
    return found


def _room(module: str) -> str | None:
    _, *parts = module.split(".")
    if not parts or parts[0].startswith("_"):
        return None
    return ".".join(parts[: 2 if parts[0] == _OPENED_UP else 1])


def drawing() -> str:
    """The rooms as a mermaid block.

    Raises
    ------
    ValueError
        Rooms import each other in a circle.
    """
    direct = rooms()
    lines = ["```mermaid", "flowchart TD"]
    for room in sorted(direct):
        far = {other for near in direct[room] for other in _reached(near, direct, (room,))}
        lines += [f"    {room} --> {other}" for other in sorted(direct[room] - far)]
    return "\n".join([*lines, "```"])


def _reached(room: str, direct: dict[str, set[str]], way: tuple[str, ...]) -> set[str]:
    """Every room that a room imports, directly or not."""
    if room in way:
        raise ValueError(f"a circle: {' → '.join((*way, room))}")
    found = set(direct.get(room, ()))
    for other in direct.get(room, ()):
        found |= _reached(other, direct, (*way, room))
    return found


if __name__ == "__main__":
    page = CONTRIBUTING.read_text(encoding="utf-8")
    CONTRIBUTING.write_text(_BLOCK.sub(lambda _: drawing(), page), encoding="utf-8")
