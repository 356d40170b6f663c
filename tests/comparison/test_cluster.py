"""Cells on dask workers: real processes on this machine, one of them killed."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import real_servers
from ggufext.audit.request import LocalSettings
from ggufext.comparison.compare import compare
from ggufext.comparison.measure import CompareProgress
from ggufext.comparison.request import CompareRequest
from ggufext.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.comparison.compare import Notify
    from ggufext.comparison.results import CompareResult

REQUEST = CompareRequest(
    target_length=768, conditions=("planned:gamma", "planned:yarn"), trials=3, depths=2
)


def compared(
    path: Path,
    *,
    dask: str | None = None,
    request: CompareRequest = REQUEST,
    notify: Notify = lambda _: None,
) -> CompareResult:
    settings = LocalSettings(threads=1, dask=dask, flash_attention=False)
    return compare(path, replace(request, engine=settings), notify=notify)


def found(result: CompareResult) -> object:
    assert result.run.complete, result.run.stop
    return result.conditions, result.losses, result.keys, result.recommendation


@pytest.fixture(scope="module")
def here(passkey_model: Path) -> CompareResult:
    return compared(passkey_model)


def test_workers_measure_what_this_machine_measures(
    scheduler: str, here: CompareResult, passkey_model: Path
) -> None:
    assert found(compared(passkey_model, dask=scheduler)) == found(here)


def test_cells_of_a_worker_that_is_killed_are_measured_again(
    scheduler: str, here: CompareResult, passkey_model: Path
) -> None:
    from distributed import Client

    with Client(scheduler, set_as_default=False) as client:
        workers = list(client.run(os.getpid).values())
    killed: list[int] = []

    def kill(event: object) -> None:
        if isinstance(event, CompareProgress) and not killed:
            killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    result = compared(passkey_model, dask=scheduler, notify=kill)
    assert killed
    assert found(result) == found(here)


def test_a_run_of_this_machine_goes_on_on_the_cluster(
    scheduler: str, here: CompareResult, passkey_model: Path, tmp_path: Path
) -> None:
    kept = replace(REQUEST, resume=tmp_path / "run.jsonl")

    def interrupt(event: object) -> None:
        if isinstance(event, CompareProgress) and event.finished == 4:
            raise KeyboardInterrupt

    assert not compared(passkey_model, request=kept, notify=interrupt).run.complete
    resumed = compared(passkey_model, dask=scheduler, request=kept)
    assert found(resumed) == found(here)


def test_a_scheduler_that_is_not_there_is_named(passkey_model: Path) -> None:
    address = f"tcp://127.0.0.1:{real_servers.free_port()}"
    with pytest.raises(EngineError, match=address) as refused:
        compared(passkey_model, dask=address)
    assert refused.value.code == "engine_unreachable"
