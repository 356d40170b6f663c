from __future__ import annotations

import sys

import pytest

from ggufext.audit.templates import frame_of
from ggufext.errors import EngineError

pytest.importorskip("jinja2")

CHATML = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_frame_is_what_the_template_puts_around_the_question() -> None:
    frame = frame_of(CHATML, bos="<s>", eos="</s>")
    assert frame.before == "<s><|im_start|>user\n"
    assert frame.behind == "<|im_end|>\n<|im_start|>assistant\n"
    assert frame.chat


@pytest.mark.parametrize(
    "attack",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('echo taken') }}",
        "{{ ''.__class__.__base__.__subclasses__()[0].__init__.__globals__ }}",
        "{{ messages.append(messages) }}",
        "{% include '/etc/passwd' %}",
        "{{ 'a' * 100000000000 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ raise_exception('no') }}",
        "{% broken",
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="limits need POSIX")
def test_hostile_template_is_refused(attack: str) -> None:
    with pytest.raises(EngineError, match="--template none") as refused:
        frame_of(attack + CHATML, bos="", eos="", seconds=1)
    assert refused.value.code == "template_refused"


@pytest.mark.parametrize("template", ["no question", "{{ messages[0].content * 2 }}"])
def test_template_that_loses_or_repeats_the_question_is_refused(template: str) -> None:
    with pytest.raises(EngineError, match="exactly once"):
        frame_of(template, bos="", eos="")


def test_control_characters_in_a_refusal_are_escaped() -> None:
    with pytest.raises(EngineError) as refused:
        frame_of("{{ raise_exception('\x1b[31m') }}", bos="", eos="")
    assert "\x1b" not in str(refused.value)
