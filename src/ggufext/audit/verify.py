"""A rewritten file read independently: by gguf-py, and by llama.cpp where it is installed."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from ggufext.audit.expectation import SMALL_CONTEXT, differences, of_plan
from ggufext.audit.rope_nodes import ContextSettings, observe
from ggufext.editing.inspection import facts_of
from ggufext.errors import EditError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ggufext.audit.rope_nodes import Override
    from ggufext.header.header import Value
    from ggufext.header.layers import LayerFacts
    from ggufext.planning.plan import Plan


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

    try:
        reader = GGUFReader(path)
    except Exception as error:
        # What it raises for a file that it does not understand is not said anywhere.
        _differs(path, f"gguf-py does not read the file ({type(error).__name__}: {error})")
    fields = reader.fields
    for edit in plan.edits:
        field = fields.get(edit.key)
        found = None if field is None else field.contents()
        if not _same(found, edit.after):
            _differs(path, f"gguf-py reads {edit.key} as {found!r}, planned {edit.after!r}")
    tensors = {tensor.name: tensor.data for tensor in reader.tensors} if plan.tensor_edits else {}
    for made in plan.tensor_edits:
        values = tensors.get(made.name)
        if values is None or tuple(values.tolist()) != made.after:
            _differs(path, f"gguf-py does not read the planned factors in {made.name}")
    done = f"gguf-py reads the {len(plan.edits)} planned values"
    return done + (f" and {len(plan.tensor_edits)} tensors" if plan.tensor_edits else "")


def _by_llama_cpp(path: Path, plan: Plan) -> str:
    layers = facts_of(path).layers
    is_long = plan.original_length < SMALL_CONTEXT
    _see(path, plan, layers, n_ctx=SMALL_CONTEXT, is_long=is_long)
    how = "as planned, the others as before"
    if plan.long_factors != plan.short_factors and not is_long:
        # A context above the original length, without the cache that the real one needs.
        shorter = {f"{plan.architecture}.rope.scaling.original_context_length": SMALL_CONTEXT}
        _see(path, plan, layers, n_ctx=2 * SMALL_CONTEXT, is_long=True, overrides=shorter)
        how += "; it takes the long factors above the original length only"
    moved = sum(layer.moves for layer in layers)
    return f"llama.cpp loads the file and rotates {moved} of {len(layers)} layers {how}"


def _see(
    path: Path,
    plan: Plan,
    layers: tuple[LayerFacts, ...],
    *,
    n_ctx: int,
    is_long: bool,
    overrides: Mapping[str, Override] | None = None,
) -> None:
    seen = observe(path, tokens=(0,), settings=ContextSettings(n_ctx=n_ctx), kv_overrides=overrides)
    if seen.n_ctx_train != plan.target_length:
        _differs(
            path,
            f"llama.cpp takes {seen.n_ctx_train:,} for the context length, planned "
            f"{plan.target_length:,}",
        )
    expected = [of_plan(plan, layer, is_long=is_long) for layer in layers]
    for difference in differences(seen.rope_nodes, expected):
        _differs(path, difference)


def _same(found: object, planned: Value) -> bool:
    if isinstance(planned, float) and isinstance(found, (int, float)):
        return struct.pack("<f", found) == struct.pack("<f", planned)
    return found == planned


def _differs(path: Path, what: str) -> NoReturn:
    raise EditError(code="not_verified", path=path, message=what)
