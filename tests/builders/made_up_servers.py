"""Servers on loopback that answer as a test says: slow, lying, or something else altogether."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from email.message import Message

#: What a server answers to a path: status and JSON, bytes as they are, or where to go instead.
Reply = tuple[int, "dict[str, Any] | bytes | str"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that a server heard: its path, its headers, and the port it came from."""

    path: str
    headers: Message
    port: int


@contextmanager
def serving(
    respond: Callable[[str, dict[str, Any]], Reply],
    *,
    heard: list[Asked] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """A real HTTP server on loopback that answers as a function says; `heard` takes requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body leave apart: without this the second waits for the first's receipt.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            if heard is not None:
                heard.append(Asked(self.path, self.headers, self.client_address[1]))
            status, reply = respond(self.path, body)
            data = json.dumps(reply).encode() if isinstance(reply, dict) else b""
            data = reply if isinstance(reply, bytes) else data
            self.send_response(status)
            if isinstance(reply, str):
                self.send_header("Location", reply)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    # It looks that often whether it should end.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
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
