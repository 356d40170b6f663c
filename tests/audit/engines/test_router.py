"""llama-server's router with the entries that `ggufext plan --emit llama.cpp` prints."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import real_servers
from ggufext.audit.check import measure_model
from ggufext.audit.request import CheckRequest, LocalSettings, ServerSettings
from ggufext.opened.model import facts_of
from ggufext.planning.emit import Engine, emit
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("method", [Method.GAMMA, Method.YARN], ids=lambda m: m.value)
def test_entries_answer_as_the_file_does_natively_and_by_its_plan(
    method: Method, passkey_model: Path, tmp_path: Path
) -> None:
    planned = PlanRequest(target_length=1024, method=method)
    facts = facts_of(passkey_model)
    found = emit(plan(facts, planned), facts, Engine.LLAMA_CPP, model=str(passkey_model))
    (block,) = (each for each in found.blocks if "--models-preset" in each.title)
    preset = tmp_path / "models.ini"
    preset.write_text(block.text)
    request = CheckRequest(lengths=(256, 768), depths=4, trials=1)
    # The threads of the router go for its models too.
    with real_servers.llama_router(preset) as router:
        native, extended = (
            measure_model(
                ServerSettings(url=router.url, model=f"{passkey_model.stem}{end}"), request
            )
            for end in ("", "-1024")
        )
    assert {each.length for each in native.trials if each.hit is not None} == {256}
    local = measure_model(
        passkey_model,
        replace(
            request,
            conditions=(f"planned:{method.value}",),
            target_length=1024,
            engine=LocalSettings(threads=1),
        ),
    )
    answers = [[(each.depth, each.length, each.hit) for each in run.trials]
               for run in (extended, local)]  # fmt: skip
    assert answers[0] == answers[1]
    assert any(hit for _, length, hit in answers[0] if length == 768)
