"""A rewritten file read independently: by gguf-py, and by llama.cpp where it is installed."""

from __future__ import annotations

import math
import struct
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from ggufext.audit.rope_nodes import ContextSettings, observe
from ggufext.editing.inspection import facts_of
from ggufext.errors import EditError
from ggufext.planning.methods import Method

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ggufext.audit.rope_nodes import RopeNode
    from ggufext.header.header import Value
    from ggufext.header.model import LayerFacts
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
    for node in seen.rope_nodes:
        for name, found, planned in _compared(node, plan, layers[node.layer]):
            if not math.isclose(found, planned, rel_tol=1e-6):
                _differs(
                    path,
                    f"llama.cpp rotates {node.tensor} of layer {node.layer} with {name} "
                    f"{found:g}, planned {planned:g}",
                )
    moved = sum(layer.moves for layer in layers)
    return (
        f"llama.cpp loads the file and rotates {moved} of {len(layers)} layers as planned, the "
        "others as before"
    )


def _compared(node: RopeNode, plan: Plan, layer: LayerFacts) -> Iterator[tuple[str, float, float]]:
    """What is compared of one node: name, found and planned value."""
    scale = 1.0 / plan.freq_scale_factor if layer.moves else 1.0
    yield "base", node.freq_base, plan.freq_base.after if layer.moves else layer.freq_base
    yield "scale", node.freq_scale, scale
    yield "attention factor", node.attn_factor, 1.0
    if scale != 1.0:
        # Where nothing is scaled, YaRN's mix has two equal sides.
        yarn = plan.method is Method.YARN
        yield "yarn mix", node.ext_factor, 1.0 if yarn else 0.0
        if yarn:
            yield "original length", node.n_ctx_orig, plan.train_length.value


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
