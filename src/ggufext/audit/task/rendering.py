"""The child process that renders a chat template: jinja2 as Hugging Face Transformers sets it up.

Templates are written for `apply_chat_template`, so they may use what its environment has
(transformers 5, utils/chat_template_utils.py): blocks trimmed, `break` and `continue`, the tag
`generation`, and a `tojson` that takes options and escapes no HTML.
"""

from __future__ import annotations

import json
import sys
from datetime import date
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ggufext.system import system

if TYPE_CHECKING:
    from jinja2.parser import Parser

#: What a template that asks for the date gets: prompts must not change from day to day.
_TODAY = date(2025, 1, 1)

_MEMORY = 1 << 30


class _Generation(Extension):
    """``{% generation %}`` … ``{% endgeneration %}``, which marks answers for training."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 wants a set)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def render(template: str, *, prompt: str, bos: str, eos: str, longest: int) -> str:
    """Render a chat of one question.

    Parameters
    ----------
    template : str
        jinja2 source.
    prompt : str
        What the user says.
    bos, eos : str
        Text of the tokens that templates name.
    longest : int
        Characters after which it is stopped.

    Raises
    ------
    Exception
        Whatever a template raises.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _TODAY.strftime
    text = ""
    for chunk in environment.from_string(template).generate(
        messages=[{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        bos_token=bos,
        eos_token=eos,
        # Qwen's way of asking for an answer without reasoning; others ignore it.
        enable_thinking=False,
    ):
        text += chunk
        if len(text) > longest:
            _raise_exception("its output is too long")
    return text


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def main() -> None:
    """Render the request on standard input within its limits."""
    request = json.load(sys.stdin)
    system.limit_process(request.pop("seconds"), _MEMORY)
    try:
        text = render(**request)
    except Exception as error:  # whatever a template raises is a refusal
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(text.encode(errors="replace"))
