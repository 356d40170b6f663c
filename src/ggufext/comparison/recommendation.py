"""Which condition a comparison recommends, and the sentence that says why; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.findings.statistics import SIGNIFICANT
from ggufext.audit.request import PLANNED
from ggufext.comparison.results import Estimate, Finding, Recommendation
from ggufext.text import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.audit.findings.results import Comparison
    from ggufext.comparison.results import ComparedCondition, LossComparison

#: What is written where nothing else is asked for.
_DEFAULT = f"{PLANNED}gamma"


def recommendation(
    conditions: Sequence[ComparedCondition],
    losses: Sequence[LossComparison],
    keys: Sequence[Comparison],
    *,
    within: Sequence[LossComparison],
    threshold: float,
    knows_text: bool,
) -> Recommendation:
    """The extension with the lowest loss beyond the training length that finds the keys there.

    Parameters
    ----------
    conditions : sequence of ComparedCondition
        Native first.
    losses, within : sequence of LossComparison
        Every two, beyond the training length and within it.
    keys : sequence of Comparison
        Every two, beyond it. They count where native finds keys within its training length.
    threshold : float
        Share of keys that says so.
    knows_text : bool
        Whether the losses are those of a text that the model knows something of.
    """
    native, *others = conditions
    extensions = [x for x in others if x.name.startswith(PLANNED) and x.beyond and x.texts]
    beyond = _Pairs(losses)
    extensions = [x for x in extensions if beyond.difference(x.name, native.name)]
    if native.beyond is None or not extensions:
        return Recommendation(
            Finding.NOTHING_MEASURED,
            None,
            "nothing was measured beyond the training length under native and an extension",
        )
    counts = bool(native.keys) and (native.keys[0].accuracy or 0.0) >= threshold
    if not (counts or knows_text):
        return Recommendation(
            Finding.NOTHING_MEASURED,
            None,
            "neither the losses nor the keys say anything of this model: it does not know the "
            "text, and does not find keys within its training length",
        )
    fewer = _fewer(keys) if counts else set()
    most = max(extensions, key=_found)
    candidates = [x for x in extensions if (x.name, most.name) not in fewer]
    best = min(candidates, key=lambda x: beyond.mean(x.name, native.name))
    trained, target = native.keys[0].length, native.keys[-1].length
    still_finds = not counts or (
        (native.keys[-1].accuracy or 0.0) >= threshold
        and not {(native.name, x.name) for x in extensions} & fewer
    )
    if still_finds and not beyond.is_above(native.name, best.name):
        found = (
            f"native still finds {percent(native.keys[-1].accuracy or 0.0)} of the keys at "
            f"{target:,} tokens, and its"
            if counts
            else "native's"
        )
        return Recommendation(
            Finding.NO_EXTENSION_NEEDED,
            None,
            f"no extension needed: {found} loss beyond {trained:,} is not measured to be above "
            f"that of {best.name} ({_text(beyond.difference(native.name, best.name))})",
        )
    equal = [x for x in candidates if not beyond.is_above(x.name, best.name)]
    place = f"beyond {trained:,} tokens"
    keys_text = f", and finds {percent(_found(best))} of the keys there" if counts else ""
    if len(equal) > 1:
        short = _Pairs(within)
        cheapest = min(equal, key=lambda x: short.mean(x.name, native.name))
        default = [x for x in equal if x.name == _DEFAULT]
        chosen = cheapest
        if default and not short.is_above(_DEFAULT, cheapest.name):
            chosen = default[0]
        why = (
            "the default, costs no more within them than another of these"
            if chosen.name == _DEFAULT
            else "costs least within them"
        )
        names = ", ".join(x.name for x in equal)
        return Recommendation(
            Finding.NO_DIFFERENCE,
            chosen.name,
            f"no difference measured between {names} {place}; {chosen.name}, {why} "
            f"({_text(short.difference(chosen.name, native.name))} against native)",
        )
    rest = [x for x in candidates if x is not best]
    if not rest:
        reason = (
            f"{best.name} {place}: loss {_text(beyond.difference(best.name, native.name))} against "
            "native"
        )
        if counts:
            reason += f", {percent(_found(best))} of the keys found"
        if fewer_found := ", ".join(x.name for x in extensions if x is not best):
            reason += f", which is more than with {fewer_found}"
        return Recommendation(Finding.BEST, best.name, reason)
    second = min(rest, key=lambda x: beyond.mean(x.name, best.name))
    return Recommendation(
        Finding.BEST,
        best.name,
        f"{best.name} has the lowest loss {place}: that of {second.name}, the next, is higher by "
        f"{_text(beyond.difference(second.name, best.name))}{keys_text}",
    )


def turned(found: Estimate) -> Estimate:
    """A difference taken the other way round."""
    ends = found.interval
    return Estimate(-found.mean, None if ends is None else (-ends[1], -ends[0]))


class _Pairs:
    """Differences of losses by the names of two conditions, in either order."""

    def __init__(self, losses: Sequence[LossComparison]) -> None:
        self._known = {(each.a, each.b): each.difference for each in losses}

    def difference(self, a: str, b: str) -> Estimate | None:
        """Loss of a minus that of b."""
        if (known := self._known.get((a, b))) is not None:
            return known
        other = self._known.get((b, a))
        return None if other is None else turned(other)

    def mean(self, a: str, b: str) -> float:
        """Its mean; infinite where it was not measured."""
        found = self.difference(a, b)
        return float("inf") if found is None else found.mean

    def is_above(self, a: str, b: str) -> bool:
        """Whether the loss of a is above that of b beyond its interval."""
        found = self.difference(a, b)
        return found is not None and found.interval is not None and found.interval[0] > 0


def _fewer(keys: Sequence[Comparison]) -> set[tuple[str, str]]:
    """Pairs of which the first is measured to find fewer keys."""
    return {
        (each.a, each.b) if each.only_a < each.only_b else (each.b, each.a)
        for each in keys
        if each.p < SIGNIFICANT
    }


def _found(condition: ComparedCondition) -> float:
    """Share of the keys found at all lengths beyond the training length."""
    beyond = condition.keys[1:]
    trials = sum(each.trials for each in beyond)
    found = sum((each.accuracy or 0.0) * each.trials for each in beyond)
    return found / trials if trials else 0.0


def _text(found: Estimate | None) -> str:
    if found is None:
        return "not measured"
    if found.interval is None:
        return f"{found.mean:+.3f} nats a token"
    low, high = found.interval
    return f"{found.mean:+.3f} nats a token (95 %: {low:+.3f} to {high:+.3f})"
