"""Whether a tuned scaling is kept in place of the best closed form; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufext.audit.findings.statistics import SIGNIFICANT

if TYPE_CHECKING:
    from ggufext.comparison.results import CompareResult


def verdict(decision: CompareResult, closed: str, tuned: str) -> tuple[bool, str]:
    """Compare both on held-out texts.

    The tuned scaling is kept where its loss beyond the training length is lower beyond the
    interval and it is not measured to find fewer keys; or where it is measured to find more and
    its loss is not measured to be higher. Keys count where native finds them as trained. Nothing is
    kept where the decision recommends no extension, because none is needed or nothing was told.

    Parameters
    ----------
    decision : CompareResult
        Of native and both.
    closed, tuned : str
        Conditions.

    Returns
    -------
    bool
        Whether it is kept.
    str
        One sentence with the figures.
    """
    loss = next(each.difference for each in decision.losses if (each.a, each.b) == (closed, tuned))
    low, high = loss.interval or (-float("inf"), float("inf"))
    control = decision.conditions[0].keys[0].accuracy or 0.0
    keys = next((x for x in decision.keys if (x.a, x.b) == (closed, tuned)), None)
    told = keys is not None and control >= decision.request.threshold and keys.p < SIGNIFICANT
    fewer = told and keys is not None and keys.only_a > keys.only_b
    more = told and not fewer
    needed = decision.recommendation.condition is not None
    kept = needed and not fewer and (low > 0 or (more and high >= 0))
    found = (
        f"; of the keys {keys.only_b} were found by it alone and {keys.only_a} by {closed} alone "
        f"(p = {keys.p:.2g})"
        if keys is not None
        else ""
    )
    texts = len(decision.texts)
    sentence = (
        f"on {texts} held-out text{'s' if texts > 1 else ''} the loss of {tuned} beyond the "
        f"training length is {-loss.mean:+.3f} nats a token against {closed}"
        + (f" (95 %: {-high:+.3f} to {-low:+.3f})" if loss.interval else "")
        + found
    )
    if not needed:
        return False, f"{decision.recommendation.reason}; {sentence}"
    return kept, sentence
