"""A web server for tests: files with ranges, and every way of answering them wrongly."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """An answer; what is left out of `headers` is not sent."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    hangs: bool = False


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    path: str
    range: tuple[int, int] | None
    authorization: str | None


Answer = Callable[[Request], Reply]


@dataclass
class RangeServer:
    """A running server: its address, its answers by path, and what it was asked."""

    address: str
    answers: dict[str, Answer]
    requests: list[Request]
    done: threading.Event


def ranged(content: bytes, *, etag: str = '"one"') -> Answer:
    """Answers with ranges, as it should be."""

    def answer(request: Request) -> Reply:
        if request.range is None:
            return whole(content)(request)
        start, end = request.range[0], min(request.range[1] + 1, len(content))
        if start >= len(content):
            return Reply(416, {"Content-Length": "0", "Content-Range": f"bytes */{len(content)}"})
        headers = {
            "Content-Range": f"bytes {start}-{end - 1}/{len(content)}",
            "Content-Length": str(end - start),
            "ETag": etag,
        }
        return Reply(206, headers, content[start:end])

    return answer


def whole(content: bytes) -> Answer:
    """Answers that ignore ranges."""
    return lambda _request: Reply(200, {"Content-Length": str(len(content))}, content)


def changed(answer: Answer, **headers: str | None) -> Answer:
    """The same answers with other headers (underscores for hyphens); None leaves one out."""

    def changed_answer(request: Request) -> Reply:
        reply = answer(request)
        for name, value in headers.items():
            reply.headers.pop(name.replace("_", "-"), None)
            if value is not None:
                reply.headers[name.replace("_", "-")] = value
        return reply

    return changed_answer


@contextlib.contextmanager
def serving() -> Iterator[RangeServer]:
    """A server on this machine, gone at the end."""
    answers: dict[str, Answer] = {}
    requests: list[Request] = []
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            asked = Request(
                path,
                (int(match[1]), int(match[2])) if match else None,
                self.headers.get("Authorization"),
            )
            requests.append(asked)
            answer = answers.get(path)
            reply = answer(asked) if answer else Reply(404, {"Content-Length": "0"})
            if reply.hangs:
                done.wait()
            self.close_connection = True
            with contextlib.suppress(OSError):  # the client may have closed
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield RangeServer(f"http://127.0.0.1:{server.server_port}", answers, requests, done)
    finally:
        done.set()
        server.shutdown()
        server.server_close()
        thread.join()
