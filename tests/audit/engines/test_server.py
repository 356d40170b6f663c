from __future__ import annotations

import socket
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import real_servers
from ggufext.audit.check import measure_model
from ggufext.audit.engines.server import Server
from ggufext.audit.request import CheckRequest, LocalSettings, Mode, ServerSettings, Template
from ggufext.errors import EngineError, PlanError
from made_up_servers import Asked, Reply, chatting, completion, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ggufext.audit.run.measure import Measured

REQUEST = CheckRequest(lengths=(128, 256), depths=3, trials=1)


def check(url: str, request: CheckRequest = REQUEST) -> Measured:
    return measure_model(ServerSettings(url=url, retries=0), request)


CHARACTERS = CheckRequest(lengths=(1000, 2000), depths=2, trials=1)


@pytest.fixture(scope="module")
def llama_cpp_python() -> Iterator[str]:
    """Address of llama-cpp-python's server with the shipped model."""
    with real_servers.llama_cpp_python() as server:
        yield server.url


def test_real_server_finds_every_key_up_to_the_training_length(llama_cpp_python: str) -> None:
    run = check(llama_cpp_python)
    assert [trial.hit for trial in run.trials] == [True] * 6
    assert run.run.complete


def test_real_server_and_local_engine_answer_the_same_prompts_alike(
    llama_cpp_python: str, passkey_model: Path
) -> None:
    request = replace(REQUEST, lengths=(256, 400), depths=5)
    served = check(llama_cpp_python, request)
    local = measure_model(passkey_model, replace(request, engine=LocalSettings(threads=1)))
    assert served.run.prompts_hash == local.run.prompts_hash
    assert served.trials == local.trials


def test_sweep_mode_works_through_a_real_server(llama_cpp_python: str) -> None:
    request = CheckRequest(lengths=(400,), depths=4, trials=1, mode=Mode.SWEEP)
    assert None not in [trial.hit for trial in check(llama_cpp_python, request).trials]


def test_prompts_longer_than_the_context_of_a_real_server_are_not_measured(
    llama_cpp_python: str,
) -> None:
    run = check(llama_cpp_python, replace(REQUEST, lengths=(256, 1024)))
    hits = {trial.length: trial.hit for trial in run.trials}
    assert hits == {256: True, 1024: None}
    assert "server_refused" in [warning.code for warning in run.warnings]


def test_server_that_cuts_prompts_silently_is_not_measured() -> None:
    with serving(completion(seen=lambda sent: min(sent, 1500))) as url:
        run = check(url, CHARACTERS)
    assert {trial.length: trial.hit for trial in run.trials} == {1000: False, 2000: None}
    (warning,) = run.warnings
    assert warning.code == "server_truncated"
    assert "1,500 tokens of a prompt of 1,99" in warning.message


def test_server_that_sees_more_than_was_sent_is_not_measured_either() -> None:
    with serving(completion(seen=lambda sent: 2 * sent)) as url:
        run = check(url, CHARACTERS)
    assert {trial.hit for trial in run.trials} == {None}
    assert [warning.code for warning in run.warnings] == ["server_counts_differ"]


def test_run_of_which_nothing_could_be_measured_has_failed_for_the_engines_reason() -> None:
    with serving(completion(seen=lambda sent: sent - 100)) as url:
        run = check(url, CHARACTERS)
    assert run.run.stop is not None
    assert run.run.stop.code == "server_truncated"
    assert "larger context" in run.run.stop.message


@pytest.mark.parametrize("count", [-5, 10**9, None, "many"])
def test_token_counts_that_cannot_be_right_are_refused(count: object) -> None:
    whole, asked = completion(), []

    def respond(path: str, body: dict[str, Any]) -> Reply:
        if path != "/tokenize":
            return whole(path, body)
        if "prompt" not in body:
            return 404, {}
        asked.append(body)
        return 200, {"count": len(body["prompt"]) if len(asked) <= 2 else count}

    with serving(respond) as url, pytest.raises(EngineError, match="cannot be right") as refused:
        check(url, CHARACTERS)
    assert refused.value.code == "server_not_understood"


def test_server_that_never_says_a_word_is_suspected() -> None:
    with serving(completion(text="")) as url:
        run = check(url, CHARACTERS)
    assert {trial.hit for trial in run.trials} == {False}
    assert [warning.code for warning in run.warnings] == ["answers_empty"]


def test_chat_model_that_is_asked_in_plain_text_is_named() -> None:
    with serving(completion()) as url:
        settings = ServerSettings(url=url, model="Some-7B-Instruct", retries=0)
        run = measure_model(settings, CHARACTERS)
    assert "chat_model_in_plain_text" in [warning.code for warning in run.warnings]


CHAT = replace(CHARACTERS, template=Template.CHAT)


def test_chat_prompts_leave_room_for_what_the_server_adds() -> None:
    with serving(chatting()) as url:
        run = check(url, CHAT)
    assert run.run.complete
    assert [warning.code for warning in run.warnings] == ["template_of_the_server"]
    assert "adds 40 tokens" in run.warnings[0].message
    # A prompt of 1,000 characters holds the template and the longest answer.
    assert run.run.tokens_naive <= 2 * 1000 + 2 * 2000


def test_reasoning_of_a_chat_that_did_not_end_is_not_measured() -> None:
    message = {"content": None, "reasoning_content": "The user asks for 12345"}
    with serving(chatting(message=message)) as url:
        run = check(url, CHAT)
    assert {trial.hit for trial in run.trials} == {None}
    assert run.run.stop is not None
    assert run.run.stop.code == "nothing_measured"


def test_server_without_a_chat_endpoint_is_refused_before_the_run() -> None:
    with serving(completion()) as url, pytest.raises(EngineError, match="chat/completions"):
        check(url, CHAT)


def test_server_that_cuts_a_few_tokens_is_caught_too() -> None:
    with serving(completion(seen=lambda sent: sent - 8)) as url:
        assert {trial.hit for trial in check(url, CHARACTERS).trials} == {None}


def test_server_that_does_not_report_prompt_tokens_is_measured_with_a_warning() -> None:
    with serving(completion(seen=lambda _: None)) as url:
        run = check(url, CHARACTERS)
    assert {trial.hit for trial in run.trials} == {False}
    assert [warning.code for warning in run.warnings] == ["truncation_unknown"]


def test_lengths_are_estimated_where_the_server_does_not_count_tokens() -> None:
    whole = completion(seen=lambda sent: sent // 3)

    def respond(path: str, body: dict[str, Any]) -> Reply:
        return (404, {}) if path == "/tokenize" else whole(path, body)

    with serving(respond) as url:
        run = check(url, CHARACTERS)
    assert {trial.hit for trial in run.trials} == {False}
    assert [warning.code for warning in run.warnings] == ["lengths_estimated"]


def test_context_that_a_server_declares_spares_the_longer_prompts() -> None:
    whole, longest = completion(), []

    def respond(path: str, body: dict[str, Any]) -> Reply:
        if urlsplit(path).path == "/props":
            return 200, {"default_generation_settings": {"n_ctx": 1500}}
        longest.append(len(body.get("prompt", "")))
        return whole(path, body)

    with serving(respond) as url:
        run = check(url, CHARACTERS)
    assert {trial.length: trial.hit for trial in run.trials} == {1000: False, 2000: None}
    assert max(longest) <= 1500
    assert [warning.code for warning in run.warnings] == ["server_context_too_short"]


def test_koboldcpp_counts_tokens_in_its_own_way_and_may_report_a_made_up_number() -> None:
    whole = completion(seen=lambda _: 100)

    def respond(path: str, body: dict[str, Any]) -> Reply:
        if path == "/api/extra/tokencount":
            return 200, {"value": 1 + len(body["prompt"])}  # BOS
        if path == "/api/extra/true_max_context_length":
            return 200, {"value": 1500}
        return (404, {}) if path == "/tokenize" else whole(path, body)

    with serving(respond) as url:
        run = check(url, CHARACTERS)
    assert {trial.length: trial.hit for trial in run.trials} == {1000: False, 2000: None}
    assert {warning.code for warning in run.warnings} == {
        "truncation_unknown",
        "server_context_too_short",
    }


def test_a_router_is_told_each_time_which_of_its_models_is_asked() -> None:
    whole = completion()

    def respond(path: str, body: dict[str, Any]) -> Reply:
        address = urlsplit(path)
        if address.path == "/v1/models":
            return 200, {"data": [{"id": "short"}, {"id": "long one"}]}
        asked = body or dict(parse_qsl(address.query))
        if asked.get("model") != "long one":
            return 400, {"error": {"message": "model name is missing from the request"}}
        if address.path == "/props":
            return 200, {"default_generation_settings": {"n_ctx": 1500}}
        if address.path == "/tokenize":
            return 200, {"tokens": [1] * len(body["content"])}
        return whole(path, body)

    with serving(respond) as url:
        asked = ServerSettings(url=url, model="long one", retries=0)
        run = measure_model(asked, CHARACTERS)
    assert {trial.length: trial.hit for trial in run.trials} == {1000: False, 2000: None}
    assert [warning.code for warning in run.warnings] == ["server_context_too_short"]


def test_tokens_that_the_server_had_in_its_cache_are_not_counted_as_evaluated() -> None:
    whole = completion()

    def respond(path: str, body: dict[str, Any]) -> Reply:
        status, reply = whole(path, body)
        if path == "/v1/completions" and isinstance(reply, dict):
            reply["usage"]["prompt_tokens_details"] = {"cached_tokens": 700}
        return status, reply

    with serving(respond) as url:
        run = check(url, CHARACTERS)
    assert run.run.tokens_naive - run.run.tokens_evaluated == 700 * len(run.trials)


def requests_to(path: str, heard: list[Asked]) -> int:
    return sum(asked.path == path for asked in heard)


@pytest.mark.parametrize("template", [Template.NONE, Template.CHAT])
def test_tokens_are_not_counted_again_for_every_question(template: Template) -> None:
    """More depths in the same texts ask no more than one question more of the tokenizer."""
    counted = []
    for depths in (5, 50):
        heard: list[Asked] = []
        with serving(chatting(), heard=heard) as url:
            run = check(url, replace(CHARACTERS, depths=depths, template=template))
        assert len(run.trials) == 2 * depths
        counted.append(requests_to("/tokenize", heard))
    assert counted[0] == counted[1]


def test_numbers_that_differ_in_their_tokens_are_counted_one_by_one() -> None:
    whole = completion()

    def tokens(text: str) -> int:
        # A number that holds a 7 is a token longer.
        return len(text) + sum("7" in word for word in text.split())

    def respond(path: str, body: dict[str, Any]) -> Reply:
        if path == "/tokenize":
            return 200, {"tokens": list(range(tokens(body["content"])))}
        status, reply = whole(path, body)
        if path == "/v1/completions" and isinstance(reply, dict):
            reply["usage"]["prompt_tokens"] = tokens(body["prompt"])
        return status, reply

    with serving(respond) as url, closing(Server(ServerSettings(url=url))) as server:
        found = server.counts([" The key is 10234. 10234.", " The key is 70707.", " 777 10234."])
    assert found == [25, 19, 12]


def test_whole_prompts_are_counted_only_where_words_do_not_add_up() -> None:
    whole, counted = completion(), []

    def respond(path: str, body: dict[str, Any]) -> Reply:
        if path == "/tokenize":
            # Every hundred characters melt into one token less: no sum of words knows it.
            counted.append(len(body["content"]))
            return 200, {"tokens": list(range(counted[-1] - counted[-1] // 100))}
        status, reply = whole(path, body)
        if path == "/v1/completions" and isinstance(reply, dict):
            length = len(body["prompt"])
            reply["usage"]["prompt_tokens"] = length - length // 100
        return status, reply

    with serving(respond) as url:
        run = check(url, CHARACTERS)
    assert {trial.hit for trial in run.trials} == {False}
    assert not run.warnings
    assert len([length for length in counted if length > 900]) == len(run.trials)


def test_failure_of_the_server_is_tried_again() -> None:
    whole, calls = completion(), []

    def respond(path: str, body: dict[str, Any]) -> Reply:
        calls.append(path)
        return (503, {}) if calls.count(path) == 1 else whole(path, body)

    with serving(respond) as url:
        settings = ServerSettings(url=url, retries=1, retry_seconds=0.01)
        run = measure_model(settings, CHARACTERS)
    assert run.run.complete


def test_server_that_dies_keeps_the_finished_trials(tmp_path: Path) -> None:
    whole, asked = completion(), []

    def respond(path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/completions":
            asked.append(body)
        return (500, {}) if len(asked) > 2 else whole(path, body)

    request = replace(CHARACTERS, resume=tmp_path / "trials.jsonl")
    with serving(respond) as url:
        run = check(url, request)
    assert run.run.stop is not None
    assert run.run.stop.code == "engine_unreachable"
    assert len(run.trials) == 2


def test_unreachable_server_is_said_with_its_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EngineError, match=f"{url}.*is the server running") as refused:
        check(url)
    assert refused.value.code == "engine_unreachable"


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080", "file:///etc/passwd", "http://", "http://[::1", "", "http://a b",
        "http://host:99999", "http://host?key=1",
    ],
)  # fmt: skip
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(EngineError, match="no address"):
        check(url)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"choices": [{"text": 5}]}'])
def test_server_that_speaks_something_else_is_refused(answer: bytes) -> None:
    whole = completion()

    def respond(path: str, body: dict[str, Any]) -> Reply:
        return (200, answer) if path == "/v1/completions" else whole(path, body)

    with serving(respond) as url:
        run = check(url, CHARACTERS)
    assert run.run.stop is not None
    assert run.run.stop.code == "server_not_understood"


def test_conditions_other_than_file_need_a_file() -> None:
    with pytest.raises(PlanError, match="native") as refused:
        check("http://127.0.0.1:1", replace(REQUEST, conditions=("file", "native")))
    assert refused.value.code == "bad_condition"
