"""Any server with an OpenAI-compatible completion endpoint.

llama-server, llama-cpp-python's server, KoboldCpp, vLLM, LM Studio and Ollama differ in whether
they count tokens for us, and in what they do with a prompt that is too long: some cut it without a
word, so the prompt tokens that they report are compared with those that were sent.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ggufext.audit.engines import Answer
from ggufext.audit.engines.connection import Connection
from ggufext.errors import EngineError, ModelWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ggufext.audit.request import ServerSettings
    from ggufext.audit.task import Question
    from ggufext.llama.settings import LoadRequest


#: Prompt tokens may differ by BOS, EOS and the like; estimated ones by a share.
_TOLERANCE, _ESTIMATED_TOLERANCE = 4, 0.1

_UNIT = re.compile(r" ?[^ ]+")
_DIGIT = re.compile(r"\d")

#: What the tokens of a text are estimated from where a server does not count them.
_SAMPLE = (
    " One pass key is hidden here. Remember it. The old fox slept near the river. Every quiet "
    "farmer walked slowly behind that red cart. This tired sailor sang outside."
) * 4

#: What hardly two tokenizers take for as many tokens.
_ODD_TEXT = (
    'Straße 1234567, naïveté;\t\tif (x != 0x7F) { return "…"; }   '
    "Привет, мир. 你好，世界。 नमस्ते 🙂 antidisestablishmentarianism"
) * 4

#: How models that were trained to chat are named.
_CHAT_NAME = re.compile(r"(?i)(?<![a-z])(instruct|chat|it|assistant|thinking)(?![a-z])")

#: What llama-server shows where a model brings no chat template (common/chat.cpp).
_FALLBACK_TEMPLATE = "{%- for message in messages -%}\n  {{- '<|im_start|>' + message.role"


class Server:
    """A model behind a server; see `ggufext.audit.engines.AuditEngine`.

    Parameters
    ----------
    settings : ServerSettings
    chat : bool
        Ask as a user of a chat, through the server's own template.
    proxies : bool
        See `Connection`.

    Raises
    ------
    EngineError
        Of every method: ``engine_unreachable``, ``server_refused``, ``server_not_understood``.
    """

    def __init__(
        self, settings: ServerSettings, *, chat: bool = False, proxies: bool = True
    ) -> None:
        self._connection = Connection(settings, proxies=proxies)
        self.address = self._connection.address
        self._notes: dict[str, ModelWarning] = {}
        listed = self._listed(settings.model)
        self.model = settings.model or str(listed.get("id", "default"))
        self._meta = listed.get("meta")
        properties = self._properties()
        self.context = _context(listed, properties) or self._koboldcpp_context()
        self._count = self._find_tokenizer()
        self._counts: dict[str, int] = {}
        self._stop: int | None = None
        self._reports: bool | None = None
        self._per_character = 0.0
        self._chat = chat
        #: Tokens that stand around a prompt: BOS, and the template of a chat.
        self.around = 1
        if self._count is None:
            self._estimate()
        if chat:
            self._measure_template()
        elif _brings_template(properties) or _CHAT_NAME.search(self.model):
            self._note(
                "chat_model_in_plain_text",
                "the model looks like one that chats and is asked in plain text: it may do better "
                "with --template chat",
            )

    @property
    def counts_tokens(self) -> bool:
        """Whether the server tells the number of tokens of a text."""
        return self._count is not None

    def traits(self) -> dict[str, object]:
        """What servers that answer alike have alike, by its name, as far as this one tells."""
        known: dict[str, object] = {
            "number of tokens for the same text": self._tokens(_ODD_TEXT),
            "number of tokens around a prompt": self.around,
        }
        if self.context is not None:
            known["context length"] = self.context
        if isinstance(self._meta, dict):  # llama-server's, of the file
            known |= {f"model, by {name}": value for name, value in self._meta.items()}
        return known

    def warnings(self) -> tuple[ModelWarning, ...]:
        """What was noticed so far."""
        return tuple(self._notes.values())

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Tokens of texts, each as it stands behind a full stop.

        Words are counted once each: few tokenizers look beyond a space.
        """
        units = [_UNIT.findall(part) for part in parts]
        self._count_numbers({unit for found in units for unit in found})
        return [sum(map(self._unit, found)) for found in units]

    def answers(
        self,
        load: LoadRequest | None,  # noqa: ARG002 (a server runs what it has loaded)
        questions: Sequence[Question],
        *,
        tokens: int,
    ) -> Iterator[tuple[Question, Answer]]:
        """See `ggufext.audit.engines.AuditEngine`."""
        for question in questions:
            yield question, self.ask(question.parts, tokens=tokens)

    def ask(self, parts: Sequence[str], *, tokens: int) -> Answer:
        """Continue a prompt greedily by up to `tokens` tokens."""
        prompt = "".join(parts)
        around = self.around if self._chat else 0
        words = sum(self.counts(parts)) if self.counts_tokens else self._tokens(prompt)
        sent = words + around
        if self.context is not None and sent + tokens > self.context:
            self._note(
                "server_context_too_short",
                f"the server's context holds {self.context:,} tokens; longer prompts are not "
                "measured; start it with a larger context",
            )
            return Answer("", 0, 0, measured=False)
        try:
            text, usage = self._completion(prompt, tokens)
        except EngineError as error:
            if error.code != "server_refused":
                raise
            self._note(
                "server_refused", f"prompts that the server refuses are not measured: {error}"
            )
            return Answer("", 0, 0, measured=False)
        seen = usage.get("prompt_tokens")
        if self.counts_tokens and isinstance(seen, int) and abs(seen - sent) > _TOLERANCE:
            # The words do not add up to it: only now the whole prompt is counted.
            sent = self._tokens(prompt) + around
            differs = abs(seen - sent) > _TOLERANCE
            # Of a chat, a template that leaves the question out would look the same.
            if differs and not self._chat and not self._reports_tokens():
                usage, seen = {}, None
        said, cached = _number(usage, "completion_tokens"), 0
        if isinstance(details := usage.get("prompt_tokens_details"), dict):
            cached = min(_number(details, "cached_tokens"), sent)
        naive = sent + max(said - 1, 0)
        return Answer(text, naive - cached, naive, self._saw_everything(sent, seen))

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _completion(self, prompt: str, tokens: int) -> tuple[str, dict[str, Any]]:
        """What the server says to a prompt, and the tokens that it counted."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": tokens,
            "temperature": 0,
            "seed": 0,
            "cache_prompt": True,
        }
        if self._chat:
            path = "/v1/chat/completions"
            body["messages"] = [{"role": "user", "content": prompt}]
            # Qwen's way of asking for an answer without reasoning; others ignore it.
            body["chat_template_kwargs"] = {"enable_thinking": False}
        else:
            path = "/v1/completions"
            body["prompt"] = prompt
        reply = self._connection.post(path, body)
        try:
            (choice, *_) = reply["choices"]
            text = _said(choice["message"]) if self._chat else choice["text"]
        except (KeyError, TypeError, ValueError):
            self._connection.not_understood(path)
        if not isinstance(text, str):
            self._connection.not_understood(path)
        usage = reply.get("usage")
        return text, usage if isinstance(usage, dict) else {}

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
        if seen < sent:
            self._note(
                "server_truncated",
                f"the server saw {seen:,} tokens of a prompt of {sent:,}: it cuts prompts without "
                "a word; such questions are not measured; start it with a larger context",
            )
        else:
            self._note(
                "server_counts_differ",
                f"the server saw {seen:,} tokens where {sent:,} were sent: it adds to prompts, or "
                "counts tokens with another tokenizer than its model's; such questions are not "
                "measured",
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
                self._counts[unit] = self._behind_a_stop(unit)
        return self._counts[unit]

    def _behind_a_stop(self, text: str) -> int:
        """Tokens of a text behind another word, as it stands in a prompt."""
        if self._stop is None:
            self._stop = self._tokens(".")
        return max(1, self._tokens("." + text) - self._stop)

    def _count_numbers(self, units: set[str]) -> None:
        """Count words that are alike but for their digits in one request, where it tells.

        Every key is another number. Most tokenizers give all numbers of five digits as many
        tokens; where the sum says so, none of them is asked for alone.
        """
        if self._count is None:
            return
        alike: dict[str, list[str]] = defaultdict(list)
        for unit in sorted(units - self._counts.keys()):
            if _DIGIT.search(unit):
                alike[_DIGIT.sub("0", unit)].append(unit)
        for numbers in alike.values():
            each = self._unit(numbers[0])
            if self._behind_a_stop("".join(numbers)) == each * len(numbers):
                self._counts.update(dict.fromkeys(numbers, each))

    def _tokens(self, text: str) -> int:
        if self._count is None:
            return round(len(text) * self._per_character)
        try:
            found = self._count(text)
        except (KeyError, TypeError, ValueError):
            found = -1
        # No token is shorter than a byte; a few may stand before the text.
        if not 0 <= found <= len(text.encode()) + _TOLERANCE:
            raise EngineError(
                code="server_not_understood",
                message=f"{self.address} counts tokens in a way that cannot be right: {found:,} "
                f"for a text of {len(text):,} characters; check the address, and what stands "
                "between",
            )
        return found

    def _listed(self, wanted: str | None) -> dict[str, Any]:
        """The server's entry of the model that will be asked."""
        try:
            reply = self._connection.get("/v1/models")
        except EngineError as error:
            if error.code == "engine_unreachable":
                raise
            return {}
        found = reply.get("data")
        entries = [x for x in found if isinstance(x, dict)] if isinstance(found, list) else []
        return next((x for x in entries if wanted in {None, x.get("id")}), {})

    def _properties(self) -> dict[str, Any]:
        """What llama-server says of itself; other servers do not.

        With a name, by which its router knows whom to ask.
        """
        try:
            return self._connection.get(f"/props?{urlencode({'model': self.model})}")
        except EngineError:
            return {}

    def _koboldcpp_context(self) -> int | None:
        """Context of KoboldCpp, which cuts longer prompts without a word."""
        try:
            return (
                _number(self._connection.get("/api/extra/true_max_context_length"), "value") or None
            )
        except EngineError:
            return None

    def _find_tokenizer(self) -> Callable[[str], int] | None:
        """How this server counts tokens, if it does."""

        def llama_server(text: str) -> int:
            body = {"model": self.model, "content": text}
            return len(self._connection.post("/tokenize", body)["tokens"])

        def vllm(text: str) -> int:
            body = {"model": self.model, "prompt": text, "add_special_tokens": False}
            return int(self._connection.post("/tokenize", body)["count"])

        def llama_cpp_python(text: str) -> int:
            reply = self._connection.post("/extras/tokenize/count", {"input": text})
            return int(reply["count"])

        def koboldcpp(text: str) -> int:
            return int(self._connection.post("/api/extra/tokencount", {"prompt": text})["value"])

        for candidate in (llama_server, vllm, llama_cpp_python, koboldcpp):
            try:
                if candidate("one two three") > candidate("one"):
                    return candidate
            except (EngineError, KeyError, TypeError, ValueError):
                continue
        return None

    def _reports_tokens(self) -> bool:
        """Whether what it reports of a prompt depends on the prompt at all.

        KoboldCpp 1.76 reports 100 tokens for any.
        """
        if self._reports is None:
            one, two = (
                self._completion(text, 1)[1].get("prompt_tokens") for text in (_SAMPLE, _SAMPLE * 2)
            )
            self._reports = one != two
        return self._reports

    def _estimate(self) -> None:
        body = {"model": self.model, "prompt": _SAMPLE, "max_tokens": 1, "temperature": 0}
        usage = self._connection.post("/v1/completions", body).get("usage")
        seen = _number(usage, "prompt_tokens") if isinstance(usage, dict) else 0
        if not seen:
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

    def _measure_template(self) -> None:
        """Tokens that the server's chat template puts around a prompt, from one short chat."""
        _, usage = self._completion(_SAMPLE, 1)
        seen = usage.get("prompt_tokens")
        self.around = max(0, seen - self._tokens(_SAMPLE)) if isinstance(seen, int) else 0
        self._note(
            "template_of_the_server",
            f"asked through the server's chat template, which adds {self.around} tokens to a short "
            "prompt: what it adds, how the answer begins and the exact length are the server's",
        )


def _brings_template(properties: dict[str, Any]) -> bool:
    """Whether llama-server shows a template of the model's, not the one it falls back on."""
    template = properties.get("chat_template")
    return isinstance(template, str) and not template.startswith(_FALLBACK_TEMPLATE)


def _said(message: dict[str, Any]) -> str | None:
    """The content of a chat's answer, behind what some servers give as its reasoning."""
    said = message.get("content") or ""
    reasoning = message.get("reasoning_content")
    if not reasoning or not isinstance(said, str):
        return said
    return f"<think>{reasoning}</think>{said}" if said else f"<think>{reasoning}"


def _number(fields: dict[str, Any], name: str) -> int:
    """A count that a server may leave out, or give as nonsense."""
    value = fields.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _context(listed: dict[str, Any], properties: dict[str, Any]) -> int | None:
    """Context of the server where it says: vLLM in its list, llama-server in its settings."""
    length = listed.get("max_model_len")
    settings = properties.get("default_generation_settings")
    if not isinstance(length, int) and isinstance(settings, dict):
        length = settings.get("n_ctx")
    return length if isinstance(length, int) and length > 0 else None
