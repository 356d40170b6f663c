"""A rewritten file read independently: by gguf-py, and by llama.cpp where it is installed."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from ggufext.audit.expectation import differences, of_plan
from ggufext.audit.rope_nodes import ContextSettings, observe
from ggufext.editing.inspection import facts_of
from ggufext.errors import EditError

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.header.header import Value
    from ggufext.planning.plan import Plan

#: Context of the run that shows what llama.cpp does: the file's own would need its whole cache.
_SMALL_CONTEXT = 256


def verify_file(path: Path, plan: Plan) -> tuple[str, ...]:
    """Compare a rewritten file with its plan through readers that are not ours.

    Parameters
    ----------
    path : Path
    plan : Plan
        What the file should hold.

    Returns
    -------
    tuple of str
        What was compared, a sentence each.

    Raises
    ------
    EditError
        ``not_verified``: a reader sees something else.
    EngineError
        llama.cpp is installed and does not load the file.
    """
    done = [_by_gguf_py(path, plan)]
    if find_spec("llama_cpp") is None:
        done.append("llama.cpp is not installed: not asked (pip install 'ggufext[check]')")
    else:
        done.append(_by_llama_cpp(path, plan))
    return tuple(done)


def _by_gguf_py(path: Path, plan: Plan) -> str:
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    for edit in plan.edits:
        field = fields.get(edit.key)
        found = None if field is None else field.contents()
        if not _same(found, edit.after):
            _differs(path, f"gguf-py reads {edit.key} as {found!r}, planned {edit.after!r}")
    return f"gguf-py reads the {len(plan.edits)} planned values"


def _by_llama_cpp(path: Path, plan: Plan) -> str:
    seen = observe(path, tokens=(0,), settings=ContextSettings(n_ctx=_SMALL_CONTEXT))
    if seen.n_ctx_train != plan.target_length:
        _differs(
            path,
            f"llama.cpp takes {seen.n_ctx_train:,} for the context length, planned "
            f"{plan.target_length:,}",
        )
    layers = facts_of(path).layers
    expected = [of_plan(plan, layer) for layer in layers]
    for difference in differences(seen.rope_nodes, expected):
        _differs(path, difference)
    moved = sum(layer.moves for layer in layers)
    return (
        f"llama.cpp loads the file and rotates {moved} of {len(layers)} layers as planned, the "
        "others as before"
    )


def _same(found: object, planned: Value) -> bool:
    if isinstance(planned, float) and isinstance(found, (int, float)):
        return struct.pack("<f", found) == struct.pack("<f", planned)
    return found == planned


def _differs(path: Path, what: str) -> NoReturn:
    raise EditError(
        code="not_verified",
        path=path,
        message=f"{what}; `ggufext undo {path.name}` gives the original back",
    )
