"""What a comparison measured of a condition that is going to be written; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.comparison.recommendation import turned
from ggufext.comparison.request import NATIVE
from ggufext.planning.evidence import Evidence, Measurement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ggufext.audit.run.measure import Run
    from ggufext.comparison.results import ComparedCondition, Estimate, LossComparison


def evidence(
    command: str,
    condition: str | None,
    reason: str,
    conditions: Sequence[ComparedCondition],
    losses: Sequence[LossComparison],
    run: Run,
    *,
    train_length: int,
) -> Evidence | None:
    """What speaks for a condition; None where it is none of those that were measured.

    Parameters
    ----------
    command : str
        That measured, as ``"compare"``.
    condition : str or None
    reason : str
        One sentence.
    conditions : sequence of ComparedCondition
    losses : sequence of LossComparison
        Every two, beyond the training length.
    run : Run
    train_length : int
        Tokens.
    """
    found = next((each for each in conditions if each.name == condition), None)
    if found is None:
        return None
    return Evidence(
        tool=f"ggufext {command} {run.versions['ggufext']}",
        llama_cpp=run.versions["llama_cpp"],
        condition=found.name,
        reason=reason,
        texts=found.texts,
        measurements=tuple(_measurements(found, losses, train_length)),
    )


def _measurements(
    found: ComparedCondition, losses: Sequence[LossComparison], train_length: int
) -> Iterator[Measurement]:
    within = sum(each.tokens for each in found.losses if each.end <= train_length)
    beyond = sum(each.tokens for each in found.losses) - within
    for each in losses:
        if found.name == each.a:
            yield _measurement("loss_beyond", each.b, each.difference, beyond)
        elif found.name == each.b:
            yield _measurement("loss_beyond", each.a, turned(each.difference), beyond)
    if (cost := found.short_cost) is not None:
        yield _measurement("loss_within", NATIVE, cost.loss, within)
        yield _measurement("divergence", NATIVE, cost.divergence, cost.positions)
        yield _measurement("same_top", NATIVE, cost.same_top, cost.positions)
    if found.keys and (last := found.keys[-1]).accuracy is not None:
        yield Measurement("keys_at_target", None, last.accuracy, last.interval, last.trials)


def _measurement(measure: str, against: str, found: Estimate, n: int) -> Measurement:
    return Measurement(measure, against, found.mean, found.interval, n)
