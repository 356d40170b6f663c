"""Requests to a server: kept open, tried again, and without saying a secret."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, unquote_to_bytes, urljoin

from ggufext.errors import EngineError, printable

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager
    from urllib3.util import Url

    from ggufext.audit.request import ServerSettings

#: Largest answer of a server that is read, bytes.
_LARGEST_REPLY = 16 << 20

#: Redirects that are followed; one to another host gets no credentials (urllib3).
_REDIRECTS = 5

#: Answers of a server that may be another one later: too many requests, and its own failures.
_TRIED_AGAIN = frozenset({429, *range(500, 600)})


class Connection:
    """Requests to one server over connections that are kept open.

    Parameters
    ----------
    settings : ServerSettings
    proxies : bool
        Through those of the environment (``http_proxy``, ``no_proxy`` …).

    Attributes
    ----------
    address : str
        Of the server, without a password.

    Raises
    ------
    EngineError
        Of every method: ``engine_unreachable``, ``server_refused``, ``server_not_understood``.
    """

    def __init__(self, settings: ServerSettings, *, proxies: bool = True) -> None:
        from urllib3 import PoolManager, Retry

        url = _parsed(settings.url)
        key = (settings.api_key or "").strip()
        if not key.isascii() or not key.isprintable():
            raise EngineError(
                code="server_refused",
                message="the API key has characters that no key has: is there more than the key "
                "in GGUFEXT_API_KEY?",
            )
        self.address = url._replace(auth=None, path=_path(url)).url
        self._settings = settings
        self._secrets = [x for x in (key, *(unquote(url.auth or "").partition(":")[2:])) if x]
        headers = {"Content-Type": "application/json"}
        if key or url.auth:
            headers["Authorization"] = f"Bearer {key}" if key else _basic(url.auth)
        self._pool = _pool(url, headers) if proxies else PoolManager(headers=headers)
        self._options: dict[str, Any] = {
            "preload_content": False,
            "timeout": settings.timeout,
            "retries": Retry(
                total=None,
                connect=settings.retries,
                read=settings.retries,
                status=settings.retries,
                other=settings.retries,
                redirect=_REDIRECTS,
                allowed_methods=None,
                status_forcelist=_TRIED_AGAIN,
                raise_on_status=False,
                backoff_factor=settings.retry_seconds,
                retry_after_max=int(settings.timeout),
            ),
        }

    def get(self, path: str) -> dict[str, Any]:
        """The object at a path."""
        return self._request("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The object that a path answers to another."""
        return self._request("POST", path, json.dumps(body).encode())

    def close(self) -> None:
        """Close the connections; the next request opens another."""
        self._pool.clear()

    def _request(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        from urllib3.exceptions import HTTPError

        try:
            with self._pool.request(
                method, self.address + path, body=body, **self._options
            ) as answer:
                reply = answer.read(_LARGEST_REPLY + 1)
        except HTTPError as error:
            self._unreachable(path, self._safe(str(_root(error))))
        if answer.status in _TRIED_AGAIN:
            self._unreachable(path, self._reason(answer, reply))
        if answer.status >= 400:
            raise EngineError(
                code="server_refused",
                message=f"{self.address}{path} answers {self._reason(answer, reply)}",
            )
        return self._understood(path, reply)

    def _understood(self, path: str, body: bytes) -> dict[str, Any]:
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

    def _unreachable(self, path: str, why: str) -> NoReturn:
        raise EngineError(
            code="engine_unreachable",
            message=f"{self.address}{path}: {why or 'no answer'}; tried "
            f"{self._settings.retries + 1} times; is the server running, and is the address right?",
        )

    def _reason(self, answer: BaseHTTPResponse, reply: bytes) -> str:
        """What a server says of its refusal, and who said it if it is another one."""
        said = f"{answer.status} {self._safe(reply[:2000].decode(errors='replace'))}".rstrip()
        history = answer.retries.history if answer.retries else ()
        places = [each.redirect_location for each in history if each.redirect_location]
        if not places:
            return said
        place = _without_secrets(urljoin(self.address, places[-1]))
        return f"{said} (after a redirect to {printable(place, 200)}: name the server itself)"

    def _safe(self, text: str) -> str:
        """Text of a server, printable and without a key that it repeats."""
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return printable(text, 200)


def _parsed(address: str) -> Url:
    """The parts of an address.

    Raises
    ------
    EngineError
        ``engine_unreachable``: it is none of a server.
    """
    from urllib3.exceptions import LocationParseError
    from urllib3.util import Url, parse_url

    try:
        url = parse_url(address)
    except LocationParseError:
        url = Url()
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise EngineError(
            code="engine_unreachable",
            message=f"{_without_secrets(address)!r} is no address of a server; it looks like "
            "http://localhost:8080",
        )
    return url


def _path(url: Url) -> str | None:
    return (url.path or "").rstrip("/").removesuffix("/v1").rstrip("/") or None


def _without_secrets(address: str) -> str:
    """An address, well formed or not, without user, password, query and fragment."""
    scheme, separator, rest = address.rpartition("://")
    kept = rest.rpartition("@")[2].partition("?")[0].partition("#")[0]
    return f"{scheme}://{kept}" if separator and scheme.isalnum() else kept


def _basic(auth: str | None) -> str:
    """``user:password`` of an address as the header that says it."""
    return f"Basic {b64encode(unquote_to_bytes(auth or '')).decode()}"


def _pool(url: Url, headers: dict[str, str]) -> PoolManager:
    """Connections to a server, through the proxy that the environment names for it."""
    from urllib.request import getproxies, proxy_bypass

    from urllib3 import PoolManager, ProxyManager
    from urllib3.exceptions import HTTPError
    from urllib3.util import parse_url

    assert url.host is not None
    proxy = getproxies().get(url.scheme or "")
    if not proxy or proxy_bypass(url.host):
        return PoolManager(headers=headers)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        auth = parse_url(proxy).auth
        shown = {"Proxy-Authorization": _basic(auth)} if auth else None
        return ProxyManager(proxy, headers=headers, proxy_headers=shown)
    except HTTPError:
        raise EngineError(
            code="engine_unreachable",
            message=f"the environment's {url.scheme}_proxy is no address of a proxy; it looks like "
            "http://proxy:3128",
        ) from None


def _root(error: BaseException) -> BaseException:
    """What the network said: urllib3 wraps it in what it was doing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
