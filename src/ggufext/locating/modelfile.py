"""The Modelfile that makes an Ollama model of a new GGUF file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.locating.ollama import OllamaModel

_QUOTES = '"""'


def modelfile(file: Path, *, context_length: int, model: OllamaModel | None = None) -> str:
    """Text of a Modelfile: the new file with everything else of the model it was made from.

    Parameters
    ----------
    file : Path
        The new GGUF file.
    context_length : int
        Tokens; Ollama uses a few thousand unless num_ctx says otherwise.
    model : OllamaModel, optional
        Gives projector, adapter, template, system prompt and parameters.

    Source: docs/modelfile.mdx and parser/parser.go of Ollama.
    """
    lines = [f"FROM {file.resolve()}"]
    if model is not None:
        lines += [f"FROM {blob}" for kind, blob in model.layers if kind == "projector"]
        lines += [f"ADAPTER {blob}" for kind, blob in model.layers if kind == "adapter"]
        for kind in ("template", "system"):
            text = model.text(kind)
            if text is not None:
                lines.append(_line(kind.upper(), text))
        lines += _parameters(model.text("params"))
    return "\n".join([*lines, f"PARAMETER num_ctx {context_length}", ""])


def _parameters(params: str | None) -> list[str]:
    try:
        values = json.loads(params or "{}")
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return ["# the parameters of the old model could not be read"]
    lines = []
    for name, value in values.items():
        if name == "num_ctx" or not name.replace("_", "").isalnum():
            continue
        for one in value if isinstance(value, list) else [value]:
            text = one if isinstance(one, str) else json.dumps(one)
            lines.append(_line(f"PARAMETER {name}", text))
    return lines


def _line(head: str, text: str) -> str:
    """One instruction; a Modelfile has no escapes, so some texts cannot be written in one."""
    if _QUOTES in text or not all(c.isprintable() or c in "\n\t" for c in text):
        return f"# {head} of the old model has characters that a Modelfile cannot hold"
    plain = text.replace(".", "").replace("-", "").isalnum()
    return f"{head} {text}" if plain else f"{head} {_QUOTES}{text}{_QUOTES}"
