"""llama.cpp's RPC workers, where there is one and llama.cpp was built for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import real_servers
from ggufext.audit.check import measure_model
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.request import CheckRequest
from ggufext.audit.run.measure import Progress
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from real_servers import RpcWorker

REQUEST = CheckRequest(lengths=(128, 256), depths=3, trials=1)


@pytest.fixture(scope="module")
def worker() -> Iterator[RpcWorker]:
    with real_servers.rpc_worker() as running:
        yield running


def test_a_worker_gives_the_trials_of_this_machine(worker: RpcWorker, passkey_model: Path) -> None:
    there = measure_model(passkey_model, replace(REQUEST, engine=worker.settings))
    local = replace(worker.settings, rpc=())
    here = measure_model(passkey_model, replace(REQUEST, engine=local))
    assert there.trials == here.trials
    assert "rpc_not_authenticated" in [warning.code for warning in there.warnings]


def test_a_workers_memory_counts_as_a_devices(worker: RpcWorker, passkey_model: Path) -> None:
    settings = worker.settings
    engine = LlamaCpp(passkey_model, rpc=settings.rpc, llama_cpp=settings.llama_cpp)
    engine.close()
    assert engine.hello.gpu
    assert engine.hello.device_memory > 0


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nobody", "127.0.0.1:many", "127.0.0.1:99999"])
def test_worker_that_is_not_there_is_named(
    address: str, worker: RpcWorker, passkey_model: Path
) -> None:
    with pytest.raises(EngineError, match=address) as refused:
        LlamaCpp(passkey_model, rpc=(address,), llama_cpp=worker.settings.llama_cpp)
    assert refused.value.code == "engine_unreachable"


def test_worker_that_dies_ends_the_run_with_what_was_measured(passkey_model: Path) -> None:
    answers: list[Progress] = []
    with real_servers.rpc_worker() as worker:

        def notify(event: object) -> None:
            if isinstance(event, Progress):
                answers.append(event)
                if len(answers) == 2:
                    worker.process.kill()
                    worker.process.wait()

        request = replace(REQUEST, trials=5, engine=worker.settings)
        run = measure_model(passkey_model, request, notify=notify)
    assert run.run.stop is not None
    assert "RPC" in run.run.stop.message
    assert len(run.trials) == 2
