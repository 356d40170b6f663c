"""A search on dask workers: real processes on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.request import LocalSettings
from ggufext.tuning.request import TuneRequest
from ggufext.tuning.tune import tune

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext.tuning.results import TuneResult


def found_by(path: Path, dask: str | None) -> TuneResult:
    settings = LocalSettings(threads=1, dask=dask, flash_attention=False)
    request = TuneRequest(
        target_length=768, minutes=60, search_texts=2, trials=2, depths=2, engine=settings
    )
    return tune(path, request, allow_copy=lambda _: True)


def test_workers_find_what_this_machine_finds(scheduler: str, passkey_model: Path) -> None:
    here, there = (found_by(passkey_model, dask) for dask in (None, scheduler))
    assert here.run.complete
    assert there.run.complete, there.run.stop
    assert there.decision is not None
    assert here.decision is not None
    assert there.decision.conditions == here.decision.conditions
    for name in ("plan", "tuned", "kept", "reason", "searched"):
        assert getattr(there, name) == getattr(here, name)
