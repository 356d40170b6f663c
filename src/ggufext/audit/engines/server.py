"""Any server with an OpenAI-compatible completion endpoint.

llama-server, llama-cpp-python's server, vLLM, LM Studio and Ollama differ in whether they count
tokens for us, and in what they do with a prompt that is too long: some cut it without a word, so
the prompt tokens that they report are compared with those that were sent.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from ggufext.audit.engines import Answer
from ggufext.errors import EngineError, ModelWarning, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Prompt tokens may differ by BOS, EOS and the like; estimated ones by a share.
_TOLERANCE, _ESTIMATED_TOLERANCE = 4, 0.1

#: Largest answer of a server that is read, bytes.
_LARGEST_REPLY = 16 << 20

_UNIT = re.compile(r" ?[^ ]+")

#: What the tokens of a text are estimated from where a server does not count them.
_SAMPLE = (
    " One pass key is hidden here. Remember it. The old fox slept near the river. Every quiet "
    "farmer walked slowly behind that red cart. This tired sailor sang outside."
) * 4


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


class Server:
    """A model behind a server; see `ggufext.audit.engines.Engine`.

    Raises
    ------
    EngineError
        Of every method: ``server_unreachable``, ``server_refused``, ``server_not_understood``.
    """

    def __init__(self, settings: ServerSettings) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise EngineError(
                code="server_unreachable",
                message=f"{settings.url!r} is no address of a server; it looks like "
                "http://localhost:8080",
            )
        self._settings = settings
        self._base = settings.url.rstrip("/").removesuffix("/v1")
        self.address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._notes: dict[str, ModelWarning] = {}
        listed = self._models()
        self.model = settings.model or str(listed.get("id", "default"))
        self.context = self._context(listed)
        self._count = self._find_tokenizer()
        self._counts: dict[str, int] = {}
        self._per_character = 0.0
        if self._count is None:
            self._estimate()

    @property
    def counts_tokens(self) -> bool:
        """Whether the server tells the number of tokens of a text."""
        return self._count is not None

    def warnings(self) -> tuple[ModelWarning, ...]:
        """What was noticed so far."""
        return tuple(self._notes.values())

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Tokens of texts, each as it stands behind a full stop.

        Words are counted once each: few tokenizers look beyond a space.
        """
        return [sum(self._unit(unit) for unit in _UNIT.findall(part)) for part in parts]

    def ask(self, parts: Sequence[str], *, key: str, tokens: int) -> Answer:  # noqa: ARG002
        """Continue the prompt greedily."""
        prompt = "".join(parts)
        sent = self._tokens(prompt)
        if self.context is not None and sent + tokens > self.context:
            self._note(
                "server_context_too_short",
                f"the server's context holds {self.context:,} tokens; longer prompts are not "
                "measured; start it with a larger context",
            )
            return Answer("", 0, 0, measured=False)
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "seed": 0,
            "cache_prompt": True,
        }
        try:
            reply = self._post("/v1/completions", body)
        except EngineError as error:
            if error.code != "server_refused":
                raise
            self._note(
                "server_refused", f"prompts that the server refuses are not measured: {error}"
            )
            return Answer("", 0, 0, measured=False)
        try:
            text = reply["choices"][0]["text"]
            usage = reply.get("usage") or {}
            seen = usage.get("prompt_tokens")
            said = int(usage.get("completion_tokens") or 0)
            cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            self._not_understood("/v1/completions")
        if not isinstance(text, str):
            self._not_understood("/v1/completions")
        measured = self._saw_everything(sent, seen)
        naive = sent + max(said - 1, 0)
        return Answer(text, naive - min(cached, sent), naive, measured)

    def close(self) -> None:
        """Nothing to give back: every request is a connection of its own."""

    def _saw_everything(self, sent: int, seen: object) -> bool:
        if not isinstance(seen, int):
            self._note(
                "truncation_unknown",
                "the server does not report prompt tokens, so a prompt that it cuts short would "
                "go unnoticed",
            )
            return True
        tolerance = _TOLERANCE if self._count else sent * _ESTIMATED_TOLERANCE + _TOLERANCE
        if abs(seen - sent) <= tolerance:
            return True
        self._note(
            "server_truncated",
            f"the server saw {seen:,} tokens of a prompt of {sent:,}: it cuts prompts without a "
            "word; such questions are not measured; start it with a larger context",
        )
        return False

    def _note(self, code: str, message: str) -> None:
        self._notes.setdefault(code, ModelWarning(code, message))

    def _unit(self, unit: str) -> int:
        if unit not in self._counts:
            if self._count is None:
                # Rounded up, so that a prompt is rather too short than too long.
                self._counts[unit] = max(1, round(len(unit) * self._per_character + 0.2))
            else:
                # Behind another word, as it stands in a prompt.
                self._counts[unit] = self._count("." + unit) - self._count(".")
        return self._counts[unit]

    def _tokens(self, text: str) -> int:
        if self._count is None:
            return round(len(text) * self._per_character)
        return self._count(text)

    def _models(self) -> dict[str, Any]:
        """The server's entry of the model that will be asked."""
        try:
            reply = self._get("/v1/models")
        except EngineError as error:
            if error.code == "server_unreachable":
                raise
            return {}
        found = reply.get("data")
        entries = [each for each in found if isinstance(each, dict)] if found else []
        wanted = self._settings.model
        return next((each for each in entries if wanted in {None, each.get("id")}), {})

    def _context(self, listed: dict[str, Any]) -> int | None:
        """Context of the server where it says: vLLM in its list, llama-server in its settings."""
        length = listed.get("max_model_len")
        if not isinstance(length, int):
            try:
                properties = self._get("/props")
            except EngineError:
                return None
            length = (properties.get("default_generation_settings") or {}).get("n_ctx")
        return length if isinstance(length, int) and length > 0 else None

    def _find_tokenizer(self) -> Callable[[str], int] | None:
        """How this server counts tokens, if it does."""

        def llama_server(text: str) -> int:
            return len(self._post("/tokenize", {"content": text})["tokens"])

        def vllm(text: str) -> int:
            body = {"model": self.model, "prompt": text, "add_special_tokens": False}
            return int(self._post("/tokenize", body)["count"])

        def llama_cpp_python(text: str) -> int:
            return int(self._post("/extras/tokenize/count", {"input": text})["count"])

        for candidate in (llama_server, vllm, llama_cpp_python):
            try:
                if candidate("one two three") > candidate("one"):
                    return candidate
            except (EngineError, KeyError, TypeError, ValueError):
                continue
        return None

    def _estimate(self) -> None:
        body = {"model": self.model, "prompt": _SAMPLE, "max_tokens": 1, "temperature": 0}
        usage = self._post("/v1/completions", body).get("usage") or {}
        seen = usage.get("prompt_tokens")
        if not isinstance(seen, int) or seen <= 0:
            raise EngineError(
                code="server_not_understood",
                message=f"{self.address} neither counts tokens nor reports those of a prompt, so "
                "no prompt of a known length can be made for it",
            )
        self._per_character = seen / len(_SAMPLE)
        self._note(
            "lengths_estimated",
            f"the server does not count tokens; lengths are estimated from "
            f"{self._per_character:.3f} tokens a character",
        )

    def _get(self, path: str) -> dict[str, Any]:
        return self._request(path, None)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
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
            self._not_understood(path)
        if not isinstance(reply, dict) or len(body) > _LARGEST_REPLY:
            self._not_understood(path)
        return reply

    def _not_understood(self, path: str) -> NoReturn:
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
