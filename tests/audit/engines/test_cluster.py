"""Questions on dask workers: real processes on this machine."""

from __future__ import annotations

import os
import re
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import real_servers
from ggufext.audit.check import measure_model
from ggufext.audit.engines import cluster, worker
from ggufext.audit.engines.cluster import Cluster
from ggufext.audit.request import CheckRequest, LocalSettings, Mode
from ggufext.audit.task import Question
from ggufext.errors import EngineError
from ggufext.planning.footprint import CacheType
from made_up_servers import completion, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.audit.run.measure import Computing, Measured, Preparing, Progress, RunNotes

REQUEST = CheckRequest(lengths=(128, 512), depths=3, trials=4, conditions=("file", "planned:yarn"))


def check(
    path: Path,
    request: CheckRequest = REQUEST,
    *,
    dask: str | None = None,
    notify: Callable[[Preparing | RunNotes | Computing | Progress], None] = lambda _: None,
) -> Measured:
    settings = LocalSettings(threads=1, dask=dask, flash_attention=False)
    return measure_model(path, replace(request, engine=settings), notify=notify)


@pytest.mark.parametrize("mode", list(Mode))
def test_workers_give_the_trials_of_this_machine(
    mode: Mode, scheduler: str, passkey_model: Path
) -> None:
    request = replace(REQUEST, mode=mode, lengths=(400, 700))
    spread, here = check(passkey_model, request, dask=scheduler), check(passkey_model, request)
    assert spread.run.complete
    assert spread.run.prompts_hash == here.run.prompts_hash
    assert spread.trials == here.trials


def test_a_run_goes_on_where_it_was_cut_off_on_the_cluster(
    scheduler: str, passkey_model: Path, tmp_path: Path
) -> None:
    heard: list[Preparing | RunNotes | Computing | Progress] = []

    def interrupt(event: Preparing | RunNotes | Computing | Progress) -> None:
        heard.append(event)
        if len(heard) == 8:
            raise KeyboardInterrupt

    kept = replace(REQUEST, resume=tmp_path / "run.jsonl")
    begun = check(passkey_model, kept, dask=scheduler, notify=interrupt)
    assert begun.run.stop is not None
    assert begun.run.stop.code == "interrupted"
    resumed = check(passkey_model, kept, dask=scheduler)
    assert resumed.trials == check(passkey_model).trials


def test_memory_of_a_machine_is_shared_by_its_workers(scheduler: str, passkey_model: Path) -> None:
    plan = check(passkey_model, dask=scheduler).run.memory_plan
    here = check(passkey_model).run.memory_plan
    assert plan is not None
    assert here is not None
    assert plan.available < 0.75 * here.available


def test_an_error_of_a_worker_ends_the_run_with_its_own_words(
    scheduler: str, passkey_model: Path
) -> None:
    impossible = LocalSettings(
        threads=1, dask=scheduler, cache_type=CacheType.Q8_0, flash_attention=False
    )
    stop = measure_model(passkey_model, replace(REQUEST, engine=impossible)).run.stop
    assert stop is not None
    assert stop.code == "context_not_created"
    assert "flash_attn" in stop.message


def test_a_worker_that_cannot_do_its_task_is_named_as_lost(
    scheduler: str, passkey_model: Path
) -> None:
    question = Question(0, 256, 0.5, 100, "12345", (" 1",), 1, 0, "")
    of_another_version: Any = {"path": passkey_model}
    with (
        closing(Cluster(passkey_model, scheduler)) as spread,
        pytest.raises(EngineError, match=r"ggufext\[check,cluster\]") as lost,
    ):
        list(spread.answers(of_another_version, [question], tokens=1))
    assert lost.value.code == "worker_lost"


def test_a_scheduler_that_is_not_there_is_named(passkey_model: Path) -> None:
    address = f"tcp://127.0.0.1:{real_servers.free_port()}"
    with pytest.raises(EngineError, match=address) as refused:
        check(passkey_model, dask=address)
    assert refused.value.code == "engine_unreachable"


def test_what_listens_and_is_no_scheduler_is_named(
    passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dask itself waits forever for the first word of one that says none."""
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, serving(completion()) as web:
        for port in (silent.getsockname()[1], web.rpartition(":")[2]):
            address = f"tcp://127.0.0.1:{port}"
            with pytest.raises(EngineError, match=address) as refused:
                check(passkey_model, dask=address)
            assert refused.value.code == "engine_unreachable"


@pytest.mark.parametrize("name", ["ggufext", "model file", "llama.cpp"])
def test_workers_that_differ_from_this_machine_are_refused_before_the_first_question(
    name: str, scheduler: str, passkey_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in ("installation", "release_of"):
        known: Callable[[Any], dict[str, str]] = getattr(worker, function)

        def other(what: Any, known: Callable[[Any], dict[str, str]] = known) -> dict[str, str]:
            found = known(what)
            return found | {name: "another"} if name in found else found

        monkeypatch.setattr(worker, function, other)  # here alone, not in the workers
    with pytest.raises(EngineError, match=f"has another {re.escape(name)}") as refused:
        check(passkey_model, dask=scheduler)
    assert refused.value.code == "worker_differs"


def test_missing_dask_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('not installed')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "distributed", raising=False)
    with pytest.raises(EngineError, match=r"ggufext\[cluster\]") as refused:
        Cluster(tmp_path, "tcp://127.0.0.1:8786")
    assert refused.value.code == "extra_missing"


def test_engines_do_not_outlive_the_run(scheduler: str, passkey_model: Path) -> None:
    check(passkey_model, dask=scheduler)
    from distributed import Client

    with Client(scheduler, set_as_default=False) as client:
        pids = client.run(os.getpid)
    children = [
        Path(f"/proc/{pid}/task/{pid}/children").read_text().split() for pid in pids.values()
    ]
    assert children == [[], []]
