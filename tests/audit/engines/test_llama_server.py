"""llama.cpp's own server, where there is one."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import real_servers
from ggufext import rewrite
from ggufext.audit.check import measure_model
from ggufext.audit.engines.server import Server
from ggufext.audit.request import CheckRequest, LocalSettings, Mode, ServerSettings, Template
from ggufext.audit.run.measure import Progress
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from split_model import split_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ggufext.audit.run.measure import Measured

REQUEST = CheckRequest(lengths=(256, 768), depths=3, trials=2)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("llama-server") / "extended.gguf"
    rewrite(real_servers.MODEL, PlanRequest(target_length=1024, method=Method.YARN), output=path)
    return path


@pytest.fixture(scope="module")
def server(extended: Path) -> Iterator[str]:
    with real_servers.llama_server(extended, n_ctx=1024) as running:
        yield running.url


def check(url: str, request: CheckRequest = REQUEST) -> Measured:
    return measure_model(ServerSettings(url=url, retries=0), request)


def test_it_answers_the_same_prompts_as_the_local_engine_alike(server: str, extended: Path) -> None:
    served = check(server)
    local = measure_model(extended, replace(REQUEST, engine=LocalSettings(threads=1)))
    assert served.run.prompts_hash == local.run.prompts_hash
    assert served.trials == local.trials


def test_its_cache_is_counted(server: str) -> None:
    run = check(server, replace(REQUEST, depths=10))
    assert run.run.tokens_evaluated < run.run.tokens_naive


def test_it_counts_tokens_and_says_its_context(server: str) -> None:
    engine = Server(ServerSettings(url=server))
    assert engine.counts_tokens
    assert engine.context == 1024


def test_longer_prompts_than_its_context_are_not_sent(server: str) -> None:
    run = check(server, replace(REQUEST, lengths=(256, 2048)))
    hits = {trial.length: trial.hit for trial in run.trials}
    assert hits[256] is not None
    assert hits[2048] is None
    assert "server_context_too_short" in [warning.code for warning in run.warnings]


@pytest.mark.parametrize("shift", [False, True])
def test_a_prompt_that_is_too_long_is_refused_and_never_cut(shift: bool, extended: Path) -> None:
    options = ["--context-shift"] if shift else []
    with (
        real_servers.llama_server(extended, *options, n_ctx=256) as running,
        closing(Server(ServerSettings(url=running.url, retries=0))) as engine,
    ):
        assert engine.context == 256
        engine.context = None  # as if it had not said
        answer = engine.ask([" the"] * 300, tokens=4)
    assert not answer.measured
    assert "server_refused" in [warning.code for warning in engine.warnings()]


def test_sweep_mode(server: str) -> None:
    run = check(server, CheckRequest(lengths=(400, 800), depths=4, trials=1, mode=Mode.SWEEP))
    assert None not in {trial.hit for trial in run.trials}


def test_the_template_that_it_falls_back_on_makes_no_chat_model(server: str) -> None:
    assert "chat_model_in_plain_text" not in [w.code for w in check(server).warnings]


def test_chat_prompts_have_the_wanted_length_with_its_template(server: str) -> None:
    request = CheckRequest(lengths=(700,), depths=2, trials=1, template=Template.CHAT)
    run = check(server, request)
    assert None not in {trial.hit for trial in run.trials}
    assert [warning.code for warning in run.warnings] == ["template_of_the_server"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("program")
    return real_servers.write_llama_server(folder / "llama-server")


def run_both(model: Path, program: Path, request: CheckRequest) -> tuple[Measured, Measured]:
    """The same request of the program, started for it, and of llama.cpp here."""
    local = LocalSettings(threads=1, flash_attention=False)
    started = replace(local, llama_server=program)
    return (
        measure_model(model, replace(request, engine=started), allow_copy=lambda _: True),
        measure_model(model, replace(request, engine=local), allow_copy=lambda _: True),
    )


CONDITIONS = ("file", "native", "planned:gamma", "planned:yarn", "planned:llama3")


@pytest.mark.parametrize("edited", [False, True])
def test_started_for_every_condition_it_answers_like_llama_cpp_here(
    edited: bool, extended: Path, program: Path
) -> None:
    request = replace(REQUEST, conditions=CONDITIONS)
    model = extended if edited else real_servers.MODEL
    served, local = run_both(model, program, request)
    assert served.run.stop is local.run.stop is None
    assert served.run.prompts_hash == local.run.prompts_hash
    assert served.trials == local.trials
    assert len({trial.hit for trial in served.trials}) == 2
    assert served.run.tokens_evaluated < served.run.tokens_naive
    assert not list(model.parent.glob(".ggufext-check-*"))


def test_it_is_started_once_for_every_condition_and_context(tmp_path: Path) -> None:
    wrapper = real_servers.write_llama_server(
        tmp_path / "llama-server", f'echo "$1" >> {tmp_path}/starts'
    )
    # Short and long factors: a context for each.
    conditions = ("file", "planned:gamma", "planned:ntk+keep-short")
    served, local = run_both(real_servers.MODEL, wrapper, replace(REQUEST, conditions=conditions))
    assert served.trials == local.trials
    starts = (tmp_path / "starts").read_text().split()
    assert starts == ["--help", *["--model"] * 4]


def test_a_split_model_is_started_by_its_first_part(program: Path, tmp_path: Path) -> None:
    first, *_ = split_model(real_servers.MODEL, tmp_path / "split", parts=3)
    conditions = ("planned:gamma", "planned:llama3")
    served, local = run_both(first, program, replace(REQUEST, conditions=conditions))
    assert served.run.stop is None
    assert served.trials == local.trials


def test_a_started_one_that_is_killed_ends_the_run_with_what_it_has(tmp_path: Path) -> None:
    wrapper = real_servers.write_llama_server(
        tmp_path / "llama-server", f"echo $$ > {tmp_path}/pid"
    )
    killed = False

    def notify(event: object) -> None:
        nonlocal killed
        if isinstance(event, Progress) and not killed:
            killed = True
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGSEGV)

    request = replace(REQUEST, engine=LocalSettings(threads=1, llama_server=wrapper))
    run = measure_model(real_servers.MODEL, request, notify=notify)
    assert run.run.stop is not None
    assert run.run.stop.code == "engine_died"
    assert "SIGSEGV" in run.run.stop.message
    assert 1 <= len(run.trials) < 12
