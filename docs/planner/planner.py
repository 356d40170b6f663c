"""What the page that plans shows: ggufext's own answers, about files that the browser lends.

It runs in the browser, in the working directory where the files lie; everything it shows is text
that this module or ggufext wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.api import emissions, plans
from ggufext.api.names import first_shard
from ggufext.errors import (
    GgufextError,
    HeaderError,
    command,
    of_system,
    printable,
    printable_message,
)
from ggufext.header.layers import layers_in_file
from ggufext.presenting import sentences
from ggufext.presenting.documents import failure_of
from ggufext.presenting.overview import overview
from ggufext.text import binary_size, json_text, size_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.api.emissions import Emission
    from ggufext.api.plans import CacheFit, Plan
    from ggufext.presenting.overview import Overview

#: Multiples of what a person writes.
_TOKENS, _BYTES = "km", "kmgt"

#: Bytes that the page reads of a file.
MOST_READ = 16 << 20

_PROGRAMS = {
    emissions.Engine.HF: "Hugging Face Transformers",
    emissions.Engine.VLLM: "vLLM",
    emissions.Engine.LLAMA_CPP: "llama.cpp",
    emissions.Engine.OLLAMA: "Ollama",
    emissions.Engine.KOBOLDCPP: "KoboldCpp",
    emissions.Engine.LMSTUDIO: "LM Studio",
}


def answer(name: str, target: str, memory: str, refused: Callable[[], bool]) -> str:
    """Plan for a file, as JSON: what the page shows, or what is wrong.

    Parameters
    ----------
    name : str
        A file of the working directory, where what belongs to it lies too.
    target, memory : str
        As a person writes them: ``32k``, ``12g``; no memory is asked about without one.
    refused : callable
        Whether more than `MOST_READ` bytes of a file were asked for.
    """
    target, memory = target.strip(), memory.strip()
    for field, text, units in (("target", target, _TOKENS), ("memory", memory or "1", _BYTES)):
        try:
            size_of(text, units)
        except ValueError as error:
            return json_text({"field": field, "text": str(error)})
    path = Path(name)
    try:
        path = first_shard(path)
        return json_text(_shown(path, target, memory))
    except (GgufextError, OSError) as error:
        found = error if isinstance(error, GgufextError) else of_system(error)
        if refused():
            found = HeaderError(
                code="front_too_short",
                message=f"more than the first {binary_size(MOST_READ)} would have to be read, and "
                "this page reads no more of a file: run "
                f"`{command('plan', path, '--target', target)}`",
            )
        found.path = found.path or path
        return json_text({"error": failure_of(found).error, "text": str(found)})


def _shown(path: Path, target: str, memory: str) -> dict[str, object]:
    config = emissions.read_config(path)
    if config is not None:
        memory = ""  # a configuration has no weights
    found = overview(
        path,
        plans.PlanRequest(target_length=size_of(target, _TOKENS)),
        config=config,
        engines=tuple(_PROGRAMS),
        memory=size_of(memory, _BYTES) if memory else None,
    )
    first = found.plans[0]
    needless = first.verdict is plans.Verdict.NO_EXTENSION_NEEDED
    heads, rows = sentences.table(found.plans, found.documented)
    target_line = sentences.target_line(first)
    return {
        "path": printable(str(path)),
        "head": sentences.head_line(first),
        "lines": _lines(first) if needless else [target_line],
        "methods": None if needless else {"heads": heads, "rows": rows},
        "below": [] if needless else [line.strip() for line in sentences.table_lines(found.plans)],
        "memory": None if config else _memory(path, found),
        "layers": _layers(found),
        "plans": [_plan(path, found, made, target) for made in found.plans],
        "warnings": [printable_message(warning.message) for warning in found.warnings],
        "command": _call("plan", path, target, *(("--vram", memory) if memory else ())),
        "json": json_text(found.document()),
    }


def _memory(path: Path, found: Overview) -> dict[str, object] | None:
    """Memory at the target by type of KV cache; what fits, where a memory was given."""
    fits = found.fits
    if not fits:
        try:
            fits = plans.cache_fits(path, found.facts, found.plans[0].target_length, memory=0)
        except HeaderError:  # nobody asked for what cannot be said
            return None
    heads = ["KV cache", "its size", "weights", "to compute", "together"]
    rows = [[fit.cache_type, *_sizes(fit)] for fit in fits]
    if found.fits:
        heads += ["on the card", "longest context"]
        for row, fit in zip(rows, fits, strict=True):
            row += ["fits" if fit.fits else "does not fit", f"{fit.largest_context:,}"]
    return {"heads": heads, "rows": rows}


def _sizes(fit: CacheFit) -> list[str]:
    parts = (fit.bytes, fit.weights_bytes, fit.compute_bytes)
    return [binary_size(size) for size in (*parts, sum(parts))]


def _layers(found: Overview) -> dict[str, object]:
    layers = layers_in_file(found.facts.layers, found.facts.rotary_dim)
    return {"heads": ["layers", "what they do"], "rows": list(sentences.layer_rows(layers))}


def _plan(path: Path, found: Overview, made: Plan, target: str) -> dict[str, object]:
    is_config = path.suffix.lower() == ".json"
    method, verb = made.method.value, "plan" if is_config else "rewrite"
    return {
        "method": method,
        "verdict": made.verdict.value,
        "lines": _lines(made),
        "command": _call(verb, path, target, "--method", method) if made.edits else None,
        "programs": [_program(emission) for emission in found.emitted[made.method]],
    }


def _lines(made: Plan) -> list[str]:
    return [line.strip() for line in sentences.plan_lines(made)]


def _program(emission: Emission) -> dict[str, object]:
    return {
        "name": _PROGRAMS[emission.engine],
        "blocks": [{"title": block.title, "text": block.text} for block in emission.blocks],
        "refused": emission.not_expressible,
        "notes": [printable_message(note) for note in emission.notes],
    }


def _call(verb: str, path: Path, target: str, *options: str) -> str:
    return command(verb, path, "--target", target, *options)
