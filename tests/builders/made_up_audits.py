"""Made-up audits for the tests of reports: trials with known answers, summarized as in a run."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ggufext.audit.findings.results import CheckResult
from ggufext.audit.findings.summary import cautions, compare_all, summarize
from ggufext.audit.request import CheckRequest, Mode
from ggufext.audit.run.measure import Run, Stop
from ggufext.audit.run.records import Trial
from ggufext.errors import ModelWarning
from ggufext.llama.memory import MemoryPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LENGTHS = (256, 512, 1024)
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)

#: Share of keys found at 256, 512 and 1,024 tokens, as the shipped model does about.
SHARES = {
    "file": (1.0, 0.66, 0.3),
    "planned:gamma": (1.0, 0.96, 0.9),
    "planned:yarn": (1.0, 1.0, 0.98),
}

#: What a stranger may write into a file's name or metadata.
HOSTILE = "<script>alert(1)</script>[red]\x1b[31m\u202e$\\frac{1}{0}$\"'&{{7*7}}"


def audit(
    shares: Mapping[str, Sequence[float | None]] = SHARES,
    *,
    lengths: tuple[int, ...] = LENGTHS,
    depths: tuple[float, ...] = DEPTHS,
    texts: int = 10,
    complete: bool = True,
    missing: tuple[tuple[int, float], ...] = (),
) -> CheckResult:
    """An audit in which each condition finds about the given share at each length.

    None for a share: that length was not measured; `missing` are single cells, by length and depth.
    """
    dice = random.Random(7)
    trials = [
        Trial(name, text, length, depth, round(length * (1 - depth)), hit, hit)
        for name, by_length in shares.items()
        for length, share in zip(lengths, by_length, strict=True)
        for depth in depths
        for text in range(texts)
        for hit in [None if share is None or (length, depth) in missing else dice.random() < share]
    ]
    stop = None if complete else Stop("interrupted", "the run was interrupted")
    conditions = tuple(
        summarize(
            name,
            trials,
            lengths=lengths,
            depths=depths,
            threshold=0.8,
            train_length=256,
            seed=1,
        )
        for name in shares
    )
    return CheckResult(
        request=CheckRequest(lengths=lengths, trials=texts, seed=1, conditions=tuple(shares)),
        run=Run(
            path="models/passkey-Q8_0.gguf",
            engine="llama-cpp-python",
            versions={"ggufext": "0.1.0", "llama-cpp-python": "0.3.36"},
            train_length=256,
            memory_plan=MemoryPlan(842_000, 393_216, 3_000_000, 64_000_000, 8 * 2**30, ()),
            prompts_hash="3f" * 32,
            tokens_evaluated=41_000,
            tokens_naive=89_600,
            seconds=12.4,
            stop=stop,
        ),
        conditions=conditions,
        comparisons=compare_all(trials, tuple(shares), mode=Mode.STANDARD),
        warnings=cautions(conditions, train_length=256, stop=stop),
    )


def with_run(result: CheckResult, **changes: Any) -> CheckResult:
    """An audit of which something else is said of the run."""
    return replace(result, run=replace(result.run, **changes))


#: Places of a result where text from outside stands.
NAMED = ("path", "engine", "prompts_hash", "versions", "warning", "condition")


def named(place: str, name: str) -> CheckResult:
    """An audit with a name from outside in one place."""
    plain = audit()
    return {
        "path": with_run(plain, path=name),
        "engine": with_run(plain, engine=name),
        "prompts_hash": with_run(plain, prompts_hash=name),
        "versions": with_run(plain, versions={name: name}),
        "warning": replace(plain, warnings=(ModelWarning(code="named", message=name),)),
        "condition": audit({name: SHARES["file"]}),
    }[place]
