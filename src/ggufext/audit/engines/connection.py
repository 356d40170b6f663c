"""JSON over HTTP with a server that may be slow, busy, gone or something else altogether."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, NoReturn
from urllib.parse import urlsplit

from ggufext.errors import EngineError, printable

#: Largest answer of a server that is read, bytes.
_LARGEST_REPLY = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where and how to ask.

    Attributes
    ----------
    url : str
        ``http://host:port``, with or without ``/v1``.
    model : str or None
        Name of the model; the server's first one when absent.
    api_key : str or None
    timeout : float
        Seconds for one answer.
    retries : int
        Further tries after a failure of the network or the server.
    retry_seconds : float
        Wait before the first of them; it doubles.
    """

    url: str
    model: str | None = None
    api_key: str | None = None
    timeout: float = 600.0
    retries: int = 3
    retry_seconds: float = 1.0


class Connection:
    """Requests to one server, each a connection of its own.

    Attributes
    ----------
    address : str
        Of the server, without a password.

    Raises
    ------
    EngineError
        Of every method: ``server_unreachable``, ``server_refused``, ``server_not_understood``.
    """

    def __init__(self, settings: ServerSettings) -> None:
        try:
            parts = urlsplit(settings.url)
        except ValueError:  # an IPv6 address that does not end
            parts = urlsplit("")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise EngineError(
                code="server_unreachable",
                message=f"{settings.url!r} is no address of a server; it looks like "
                "http://localhost:8080",
            )
        self._settings = settings
        self._base = settings.url.rstrip("/").removesuffix("/v1")
        self.address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def get(self, path: str) -> dict[str, Any]:
        """The object at a path."""
        return self._request(path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The object that a path answers to another."""
        return self._request(path, json.dumps(body).encode())

    def _request(self, path: str, data: bytes | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._settings.api_key:
            headers["Authorization"] = f"Bearer {self._settings.api_key}"
        request = urllib.request.Request(self._base + path, data=data, headers=headers)
        wait, why = self._settings.retry_seconds, ""
        for attempt in range(self._settings.retries + 1):
            if attempt:
                time.sleep(wait)
                wait *= 2
            try:
                with urllib.request.urlopen(request, timeout=self._settings.timeout) as answer:
                    return self._parsed(path, answer.read(_LARGEST_REPLY + 1))
            except urllib.error.HTTPError as error:
                with error:
                    why = f"{error.code} {_reason(error)}"
                    if error.code < 500 and error.code != 429:
                        raise EngineError(
                            code="server_refused",
                            message=f"{self.address}{path} answers {why}",
                        ) from None
            except (OSError, HTTPException) as error:
                why = printable(str(getattr(error, "reason", None) or error), 200)
        raise EngineError(
            code="server_unreachable",
            message=f"{self.address}{path}: {why or 'no answer'}; tried "
            f"{self._settings.retries + 1} times; is the server running, and is the address right?",
        )

    def _parsed(self, path: str, body: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(body)
        except (ValueError, RecursionError):
            self.not_understood(path)
        if not isinstance(reply, dict) or len(body) > _LARGEST_REPLY:
            self.not_understood(path)
        return reply

    def not_understood(self, path: str) -> NoReturn:
        """Say that a path answers something else than was asked for."""
        raise EngineError(
            code="server_not_understood",
            message=f"{self.address}{path} gives no answer of an OpenAI-compatible server; check "
            "the address",
        )


def _reason(error: urllib.error.HTTPError) -> str:
    """What a server says of its refusal, made safe to print."""
    try:
        return printable(error.read(2000).decode(errors="replace"), 200)
    except OSError:
        return ""
