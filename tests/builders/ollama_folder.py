"""A folder of Ollama models, made as Ollama lays it out."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def add_model(
    folder: Path,
    content: bytes,
    *,
    manifest: str = "registry.ollama.ai/library/tiny/latest",
    others: Mapping[str, bytes] | None = None,
) -> Path:
    """Add a model with its layers; returns the blob that is its GGUF file."""
    layers = {"model": content, **(others or {})}
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    listed = []
    for kind, data in layers.items():
        digest = hashlib.sha256(data).hexdigest()
        (folder / "blobs" / f"sha256-{digest}").write_bytes(data)
        listed.append(
            {
                "mediaType": f"application/vnd.ollama.image.{kind}",
                "digest": f"sha256:{digest}",
                "size": len(data),
            }
        )
    place = folder / "manifests" / manifest
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"schemaVersion": 2, "layers": listed}))
    return folder / "blobs" / f"sha256-{hashlib.sha256(content).hexdigest()}"
