"""Several servers that share the texts of one run."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

import real_servers
from ggufext.audit.check import measure_model
from ggufext.audit.engines.server import Server
from ggufext.audit.request import CheckRequest, ServerSettings, Template
from ggufext.errors import EngineError
from made_up_servers import Asked, Reply, chatting, completion, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ggufext.audit.run.measure import Measured

    Respond = Callable[[str, dict[str, Any]], Reply]

CHARACTERS = CheckRequest(lengths=(1000, 2000), depths=2, trials=4)


def check(*urls: str, request: CheckRequest = CHARACTERS) -> Measured:
    url, *others = urls
    settings = ServerSettings(url=url, others=tuple(others), retries=0)
    return measure_model(settings, request)


def checked(*responds: Respond, request: CheckRequest = CHARACTERS) -> Measured:
    with ExitStack() as held:
        urls = [held.enter_context(serving(respond)) for respond in responds]
        return check(*urls, request=request)


def dying(after: int) -> Respond:
    """A server that fails from one of its answers on."""
    whole, asked = completion(), []

    def respond(path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/completions":
            asked.append(body)
        return (500, {}) if len(asked) > after else whole(path, body)

    return respond


def saying(path: str, said: dict[str, Any]) -> Respond:
    """A server that answers one path in its own way."""
    whole = completion()
    return lambda asked, body: (200, said) if urlsplit(asked).path == path else whole(asked, body)


def counting_bytes(path: str, body: dict[str, Any]) -> Reply:
    """A server that takes a byte for a token."""
    if path == "/tokenize":
        return 200, {"tokens": [1] * len(body["content"].encode())}
    return completion()(path, body)


def codes(run: Measured) -> list[str]:
    return [warning.code for warning in run.warnings]


def test_two_real_servers_find_what_one_finds() -> None:
    longer = ("--override-kv", "llama.context_length=int:2048")
    request = CheckRequest(lengths=(128, 400, 600), depths=3, trials=6)
    with (
        real_servers.llama_server(real_servers.MODEL, *longer, n_ctx=1024) as first,
        real_servers.llama_server(real_servers.MODEL, *longer, n_ctx=1024) as second,
    ):
        one = check(first.url, request=request)
        both = check(first.url, second.url, request=request)
    assert both.trials == one.trials
    assert {trial.hit for trial in one.trials} == {True, False}
    assert both.run.prompts_hash == one.run.prompts_hash
    assert both.run.path == f"{first.url}, {second.url}"


def test_each_server_is_asked_for_whole_texts_of_its_own() -> None:
    """One that does not answer before the other has begun proves that both work at once."""
    whole, begun = completion(), {"first": Event(), "second": Event()}
    texts: dict[str, set[str]] = {"first": set(), "second": set()}

    def named(name: str, other: str) -> Respond:
        def respond(path: str, body: dict[str, Any]) -> Reply:
            if path == "/v1/completions":
                begun[name].set()
                assert begun[other].wait(60)
                texts[name].add(body["prompt"][:300])
            return whole(path, body)

        return respond

    run = checked(named("first", "second"), named("second", "first"))
    assert run.run.complete
    assert texts["first"]
    assert texts["second"]
    assert not texts["first"] & texts["second"]


@pytest.mark.parametrize("after", [0, 1, 5])
def test_what_a_dead_server_had_left_is_asked_of_the_others(after: int) -> None:
    one = checked(completion())
    for responds in ((dying(after), completion()), (completion(), dying(after))):
        run = checked(*responds)
        assert run.run.complete
        assert run.trials == one.trials
        assert codes(run) in (["server_lost"], [])  # the other may be through before it is asked
    assert codes(checked(dying(0), completion())) == ["server_lost"]


def test_run_ends_with_what_it_has_when_the_last_server_dies(tmp_path: Path) -> None:
    kept = replace(CHARACTERS, resume=tmp_path / "answers.jsonl")
    with serving(dying(3)) as first, serving(dying(2)) as second:
        run = check(first, second, request=kept)
    assert run.run.stop is not None
    assert run.run.stop.code == "engine_unreachable"
    assert len(run.trials) == 5


def test_answers_of_one_server_are_kept_for_a_run_on_two(tmp_path: Path) -> None:
    kept = replace(CHARACTERS, resume=tmp_path / "answers.jsonl")
    heard: list[Asked] = []
    now = [dying(3)]

    def respond(path: str, body: dict[str, Any]) -> Reply:
        return now[0](path, body)

    with serving(respond, heard=heard) as first:
        assert not check(first, request=kept).run.complete
        now[0] = completion()
        heard.clear()
        with serving(completion(), heard=heard) as second:
            run = check(first, second, request=kept)
    assert run.run.complete
    assert len(run.trials) == 16
    assert sum(asked.path == "/v1/completions" for asked in heard) == 13


def n_ctx(length: int) -> dict[str, Any]:
    return {"default_generation_settings": {"n_ctx": length}}


def listed(**meta: object) -> dict[str, Any]:
    return {"data": [{"id": "m", "meta": meta}]}


@pytest.mark.parametrize(
    ("responds", "said"),
    [
        ((completion(), counting_bytes), "number of tokens for the same text"),
        ((saying("/props", n_ctx(4096)), saying("/props", n_ctx(8192))), "context length (8192)"),
        (
            (
                saying("/v1/models", listed(n_vocab=9, size=100)),
                saying("/v1/models", listed(n_vocab=9, size=200)),
            ),
            "model, by size (200)",
        ),
    ],
)
def test_servers_of_which_one_would_answer_otherwise_are_refused(
    responds: tuple[Respond, Respond], said: str
) -> None:
    with pytest.raises(EngineError) as refused:
        checked(*responds)
    assert refused.value.code == "servers_differ"
    assert said in str(refused.value)


def test_servers_with_other_chat_templates_are_refused() -> None:
    request = replace(CHARACTERS, template=Template.CHAT)
    with pytest.raises(EngineError, match="around a prompt") as refused:
        checked(chatting(around=40), chatting(around=41), request=request)
    assert refused.value.code == "servers_differ"


def test_what_only_one_server_tells_is_no_difference() -> None:
    assert checked(saying("/props", n_ctx(4096)), completion()).run.complete
    assert checked(saying("/v1/models", listed(size=1)), completion()).run.complete


def test_fault_of_the_program_is_not_taken_for_a_dead_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Server, "ask", broken)
    with pytest.raises(ZeroDivisionError):
        checked(completion(), completion())
