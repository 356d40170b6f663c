from __future__ import annotations

import sys

import pytest

from ggufext.audit.task.templates import frame_of
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
        "{% generation %}",
        "{% break %}",
        "{% generation %}{{ messages.append(messages) }}{% endgeneration %}",
        "{% for i in range(9999999) %}{% continue %}{% endfor %}" * 40,
        "{{ cycler | tojson }}",
        "{{ {'a': [1] * 99} | tojson(indent=99999999) }}",
        "{{ ''.__class__ | tojson }}",
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="limits need POSIX")
def test_hostile_template_is_refused(attack: str) -> None:
    with pytest.raises(EngineError, match="--template none") as refused:
        frame_of(attack + CHATML, bos="", eos="", seconds=1)
    assert refused.value.code == "no_chat_template"


TURNS = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "before", "behind"),
    [
        pytest.param(
            "{% for m in messages %}{% if m.role == 'user' %}<u>{{ m.content }}{% else %}\n"
            "  {% generation %}\n<a>{{ m.content }}</a>\n  {% endgeneration %}\n"
            "{% endif %}{% endfor %}<a>",
            "<u>",
            "<a>",
            id="generation around what is not there",
        ),
        pytest.param(
            "{%- generation -%}\n  <a> {{ messages[0].content }} {%- endgeneration %}\n</a>",
            "<a> ",
            "</a>",
            id="generation around the question",
        ),
        pytest.param(
            "{% set shown = 1 %}{% generation %}{% set shown = 2 %}{{ shown }}{% endgeneration %}"
            "{{ shown }}" + TURNS,
            "21",
            "",
            id="generation keeps its variables to itself",
        ),
        pytest.param(
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
            "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}" + TURNS,
            "02",
            "",
            id="break and continue",
        ),
        pytest.param(
            "{% for i in range(9) %}{% generation %}{% if i == 2 %}{% break %}{% endif %}{{ i }}"
            "{% endgeneration %}{% endfor %}" + TURNS,
            "01",
            "",
            id="break inside generation",
        ),
        pytest.param(
            "{{ {'b': [1, none, true], 'a': 'é<&>'} | tojson }}" + TURNS,
            '{"b": [1, null, true], "a": "é<&>"}',
            "",
            id="tojson escapes neither HTML nor letters",
        ),
        pytest.param(
            "{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=true, indent=1, sort_keys=true) }}"
            + TURNS
            + "{{ [1, 2] | tojson(separators=(',', ':')) }}{{ 'é' | tojson(ensure_ascii=False) }}",
            '{\n "a": 1,\n "b": "\\u00e9"\n}',
            '[1,2]"é"',
            id="tojson with options",
        ),
        pytest.param(
            "{{ strftime_now('%d %B %Y') }}" + TURNS, "01 January 2025", "", id="a date that stays"
        ),
        pytest.param(
            "{% for tool in tools %}{{ tool }}{% endfor %}{% if tools is defined %}T{% endif %}"
            + TURNS,
            "",
            "",
            id="no tools",
        ),
    ],
)
def test_what_templates_of_transformers_may_use_renders(
    template: str, before: str, behind: str
) -> None:
    # The texts are those that transformers 5.24 renders, except break inside generation and the
    # tools that are not there, which it refuses and llama.cpp takes.
    frame = frame_of(template, bos="", eos="")
    assert (frame.before, frame.behind) == (before, behind)


@pytest.mark.parametrize("template", ["no question", "{{ messages[0].content * 2 }}"])
def test_template_that_loses_or_repeats_the_question_is_refused(template: str) -> None:
    with pytest.raises(EngineError, match="exactly once"):
        frame_of(template, bos="", eos="")


def test_control_characters_in_a_refusal_are_escaped() -> None:
    with pytest.raises(EngineError) as refused:
        frame_of("{{ raise_exception('\x1b[31m') }}", bos="", eos="")
    assert "\x1b" not in str(refused.value)
