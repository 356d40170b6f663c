"""Servers on loopback that answer as a test says: slow, lying, or something else altogether."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What a server answers to a path: status and JSON, or bytes as they are.
Reply = tuple[int, "dict[str, Any] | bytes"]


@contextmanager
def serving(respond: Callable[[str, dict[str, Any]], Reply]) -> Iterator[str]:
    """A real HTTP server on loopback that answers as a function says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            status, reply = respond(self.path, body)
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def completion(
    *, seen: Callable[[int], int | None] = lambda sent: sent, text: str = " 12345"
) -> Callable[[str, dict[str, Any]], Reply]:
    """A server like llama-server that takes a character for a token."""

    def respond(path: str, body: dict[str, Any]) -> Reply:
        if path == "/tokenize":
            return 200, {"tokens": list(range(len(body["content"])))}
        if path == "/v1/completions":
            usage = {"prompt_tokens": seen(len(body["prompt"])), "completion_tokens": 6}
            return 200, {"choices": [{"text": text}], "usage": usage}
        return 404, {}

    return respond


def chatting(
    *, around: int = 40, message: dict[str, Any] | None = None
) -> Callable[[str, dict[str, Any]], Reply]:
    """A chat server whose template adds tokens, a character each."""
    whole = completion()

    def respond(path: str, body: dict[str, Any]) -> Reply:
        if path != "/v1/chat/completions":
            return whole(path, body)
        (question,) = body["messages"]
        usage = {"prompt_tokens": len(question["content"]) + around, "completion_tokens": 6}
        said = message or {"content": "It is 12345."}
        return 200, {"choices": [{"message": said}], "usage": usage}

    return respond
