"""llama.cpp's RPC workers, where there is one and llama.cpp was built for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import real_servers
from ggufext.audit.check import measure_model
from ggufext.audit.engines.llama_cpp import LlamaCpp
from ggufext.audit.request import CheckRequest, LocalSettings
from ggufext.errors import EngineError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from ggufext.audit.run.measure import Computing, Preparing, Progress, RunNotes

REQUEST = CheckRequest(lengths=(128, 256), depths=3, trials=1)

Worker = tuple[str, "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    llama_cpp = pytest.importorskip("llama_cpp")
    if not llama_cpp.llama_supports_rpc():
        pytest.skip("this llama.cpp was built without RPC")
    with real_servers.rpc_worker() as running:
        yield running


def test_a_worker_gives_the_trials_of_this_machine(worker: Worker, passkey_model: Path) -> None:
    remote = LocalSettings(threads=1, rpc=(worker[0],))
    there = measure_model(passkey_model, replace(REQUEST, engine=remote))
    here = measure_model(passkey_model, replace(REQUEST, engine=LocalSettings(threads=1)))
    assert there.trials == here.trials
    assert "rpc_not_authenticated" in [warning.code for warning in there.warnings]


def test_a_workers_memory_counts_as_a_devices(worker: Worker, passkey_model: Path) -> None:
    engine = LlamaCpp(passkey_model, rpc=(worker[0],))
    engine.close()
    assert engine.hello.gpu
    assert engine.hello.device_memory > 0


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nobody", "127.0.0.1:many", "127.0.0.1:99999"])
@pytest.mark.usefixtures("worker")
def test_worker_that_is_not_there_is_named(address: str, passkey_model: Path) -> None:
    with pytest.raises(EngineError, match=address) as refused:
        LlamaCpp(passkey_model, rpc=(address,))
    assert refused.value.code == "engine_unreachable"


def test_worker_that_dies_ends_the_run_with_what_was_measured(passkey_model: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    if not llama_cpp.llama_supports_rpc():
        pytest.skip("this llama.cpp was built without RPC")
    heard: list[Preparing | RunNotes | Computing | Progress] = []
    with real_servers.rpc_worker() as (address, process):

        def notify(event: Preparing | RunNotes | Computing | Progress) -> None:
            heard.append(event)
            if len(heard) == 3:
                process.kill()
                process.wait()

        settings = LocalSettings(threads=1, rpc=(address,))
        request = replace(REQUEST, trials=5, engine=settings)
        run = measure_model(passkey_model, request, notify=notify)
    assert run.run.stop is not None
    assert "RPC" in run.run.stop.message
    assert len(run.trials) == 2
