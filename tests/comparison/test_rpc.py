"""Cells on llama.cpp's RPC workers, where there is one; one of them killed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import real_servers
from ggufext.comparison.compare import compare
from ggufext.comparison.measure import CompareProgress
from ggufext.comparison.request import CompareRequest

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.audit.request import LocalSettings
    from ggufext.comparison.compare import Notify
    from ggufext.comparison.results import CompareResult

REQUEST = CompareRequest(target_length=768, conditions=("planned:yarn",), trials=2, depths=2)


def compared(
    path: Path, settings: LocalSettings, resume: Path, notify: Notify = lambda _: None
) -> CompareResult:
    return compare(path, replace(REQUEST, engine=settings, resume=resume), notify=notify)


def test_cells_are_kept_when_a_worker_dies_and_are_those_of_this_machine(
    passkey_model: Path, tmp_path: Path
) -> None:
    finished: list[int] = []
    with real_servers.rpc_worker() as worker:

        def kill(event: object) -> None:
            if isinstance(event, CompareProgress):
                finished.append(event.finished)
                if event.finished == 2:
                    worker.process.kill()
                    worker.process.wait()

        dead = compared(passkey_model, worker.settings, tmp_path / "run.jsonl", kill)
    assert dead.run.stop is not None
    assert dead.run.stop.code == "engine_died"
    assert finished[-1] == 2
    with real_servers.rpc_worker() as worker:
        there = compared(passkey_model, worker.settings, tmp_path / "run.jsonl")
        here = compared(passkey_model, replace(worker.settings, rpc=()), tmp_path / "here.jsonl")
    assert there.run.complete
    assert (there.conditions, there.losses, there.keys) == (here.conditions, here.losses, here.keys)
    assert "rpc_not_authenticated" in [warning.code for warning in there.warnings]
