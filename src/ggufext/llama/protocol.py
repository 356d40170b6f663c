"""What this program and its child process that runs llama.cpp say to each other.

A message in either direction is a line of JSON, whose `payload` is the number of bytes that follow
it. A request names an operation of `ggufext.llama.child` with its fields; its reply holds the
result, or an `error` with code and message.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ggufext.llama.settings import ContextSettings, LoadRequest, SelfExtend


def send(stream: IO[bytes], message: dict[str, Any], payload: bytes) -> None:
    """Write a message; a `LoadRequest` in it goes by its fields."""
    line = json.dumps({**message, "payload": len(payload)}, default=_fields)
    stream.write(line.encode() + b"\n" + payload)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read a message and its payload; None where the other side ended before it was whole."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    message: dict[str, Any] = json.loads(line)
    size = message.pop("payload")
    payload = stream.read(size)
    return (message, payload) if len(payload) == size else None


def _fields(request: LoadRequest) -> dict[str, Any]:
    return {**asdict(request), "path": str(request.path)}


def load_request(fields: dict[str, Any]) -> LoadRequest:
    """The request whose fields a message holds."""
    extend = fields["self_extend"]
    return LoadRequest(
        **{
            **fields,
            "path": Path(fields["path"]),
            "context": ContextSettings(**fields["context"]),
            "self_extend": SelfExtend(**extend) if extend else None,
        }
    )
