"""A rewritten file read independently: by llama.cpp, or by gguf-py where that is not installed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NoReturn

from ggufext.errors import EditError, EngineError
from ggufext.header.header import read_header
from ggufext.llama.expectation import SMALL_CONTEXT, differences, of_plan, rotations
from ggufext.llama.process import LlamaProcess
from ggufext.llama.settings import LoadRequest
from ggufext.opened.model import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ggufext.header.header import Value
    from ggufext.planning.result import Plan

    #: Values of the planned keys, elements of the planned tensors, by name.
    _Values = tuple[Mapping[str, object], Mapping[str, list[float] | None]]


#: Elements of arrays that gguf-py needs about two seconds for: 16 µs each on a 2-core AMD EPYC.
_MANY_ELEMENTS = 120_000


def verify_file(
    path: Path, plan: Plan, *, notify: Callable[[str], None] | None = None
) -> tuple[str, ...]:
    """Compare a rewritten file with its plan through readers that are not ours.

    Parameters
    ----------
    path : Path
    plan : Plan
        What the file should hold.
    notify : callable, optional
        Hears beforehand of a reader that will take more than about two seconds.

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
    with LlamaProcess() as process:
        try:
            values = _read_by_llama_cpp(path, plan, process)
        except EngineError as error:
            if error.code != "extra_missing":
                raise
            return _without_llama_cpp(path, plan, notify)
        return (
            _compared(path, plan, "llama.cpp's GGUF reader", *values),
            _by_llama_cpp(path, plan, process),
        )


def _without_llama_cpp(
    path: Path, plan: Plan, notify: Callable[[str], None] | None
) -> tuple[str, ...]:
    if notify is not None and _elements(path) > _MANY_ELEMENTS:
        notify(
            "gguf-py reads the file now, which takes a while with so large a vocabulary; "
            "llama.cpp's reader is quick (pip install 'ggufext[check]')"
        )
    return (
        _compared(path, plan, "gguf-py", *_read_by_gguf_py(path, plan)),
        "llama.cpp is not installed: not asked (pip install 'ggufext[check]')",
    )


def _elements(path: Path) -> int:
    return sum(entry.count for entry in read_header(path).keys.values())


def _read_by_gguf_py(path: Path, plan: Plan) -> _Values:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except Exception as error:
        # What it raises for a file that it does not understand is not said anywhere.
        _differs(path, f"gguf-py does not read the file ({type(error).__name__}: {error})")
    fields = {edit.key: reader.fields.get(edit.key) for edit in plan.edits}
    keys = {key: None if field is None else field.contents() for key, field in fields.items()}
    wanted = {made.name for made in plan.tensor_edits}
    return keys, {each.name: each.data.tolist() for each in reader.tensors if each.name in wanted}


def _read_by_llama_cpp(path: Path, plan: Plan, process: LlamaProcess) -> _Values:
    keys = [edit.key for edit in plan.edits]
    tensors = [made.name for made in plan.tensor_edits]
    load = LoadRequest(path=path)
    values, _ = process.request(path, "values", load=load, keys=keys, tensors=tensors)
    return values["keys"], values["tensors"]


def _compared(
    path: Path,
    plan: Plan,
    reader: str,
    keys: Mapping[str, object],
    tensors: Mapping[str, list[float] | None],
) -> str:
    for edit in plan.edits:
        found = keys.get(edit.key)
        if not _same(found, edit.after):
            _differs(path, f"{reader} reads {edit.key} as {found!r}, planned {edit.after!r}")
    for made in plan.tensor_edits:
        if tuple(tensors.get(made.name) or ()) != made.after:
            _differs(path, f"{reader} does not read the planned factors in {made.name}")
    done = f"{reader} reads the {len(plan.edits)} planned values"
    return done + (f" and {len(plan.tensor_edits)} tensors" if plan.tensor_edits else "")


def _by_llama_cpp(path: Path, plan: Plan, process: LlamaProcess) -> str:
    layers = facts_of(path).layers
    is_long = plan.original_length < SMALL_CONTEXT
    both = plan.long_factors != plan.short_factors and not is_long
    for seen, expected in rotations(
        path,
        [of_plan(plan, layer, is_long=is_long) for layer in layers],
        [of_plan(plan, layer, is_long=True) for layer in layers] if both else None,
        architecture=plan.architecture,
        kv_overrides={},
        process=process,
    ):
        if seen.n_ctx_train != plan.target_length:
            _differs(
                path,
                f"llama.cpp takes {seen.n_ctx_train:,} for the context length, planned "
                f"{plan.target_length:,}",
            )
        for difference in differences(seen.rope_nodes, expected):
            _differs(path, difference)
    how = "as planned, the others as before"
    if both:
        how += "; it takes the long factors above the original length only"
    moved = sum(layer.moves for layer in layers)
    return f"llama.cpp loads the file and rotates {moved} of {len(layers)} layers {how}"


def _same(found: object, planned: Value) -> bool:
    if isinstance(planned, float) and isinstance(found, (int, float)):
        return struct.pack("<f", found) == struct.pack("<f", planned)
    return found == planned


def _differs(path: Path, what: str) -> NoReturn:
    raise EditError(code="not_verified", path=path, message=what)
