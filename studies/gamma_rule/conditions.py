"""The study's conditions, as `ggufext check` and `compare` name them.

Closed forms have names of their own there. Every other condition is a recipe: a base that the
rule would not write, or YaRN's frequencies without its attention factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ggufext

if TYPE_CHECKING:
    from pathlib import Path

    from ggufext import ModelFacts, Recipe

NATIVE = "native"
CLOSED_FORMS = ("gamma", "ntk", "yarn", "linear")
YARN_PLAIN = "yarn-plain"
TUNED = "tuned"
#: γ at the target, in place of the model's own.
GAMMA_TARGETS = (0.3, 0.5, 0.7, 0.85)
#: Multiples of the base that the γ rule writes.
BASE_MULTIPLES = (0.25, 0.5, 2.0, 4.0)


def gamma_target(gamma: float) -> str:
    """Name of the condition whose base gives a γ at the target."""
    return f"gamma={gamma:g}"


def base_multiple(multiple: float) -> str:
    """Name of the condition whose base is a multiple of the rule's."""
    return f"base*{multiple:g}"


def recipe(condition: str, facts: ModelFacts, target_length: int) -> Recipe | None:
    """What a condition writes; None where the program has a name for it.

    Parameters
    ----------
    condition : str
        NATIVE, one of CLOSED_FORMS, YARN_PLAIN, or a name that `gamma_target` or `base_multiple`
        made.
    facts : ModelFacts
        Of the model, unscaled.
    target_length : int
        Tokens.

    Raises
    ------
    ValueError
        For another name.
    """
    if condition == NATIVE or condition in CLOSED_FORMS:
        return None
    if condition == YARN_PLAIN:
        request = ggufext.PlanRequest(target_length=target_length, method=ggufext.Method.YARN)
        return _factors(facts, request)
    kind, _, number = condition.partition("=" if "=" in condition else "*")
    if kind == "gamma" and number:
        asked = ggufext.PlanRequest(
            target_length=target_length, gamma=float(number), allow_lower_base=True
        )
        base = ggufext.plan(facts, asked).freq_base.after
    elif kind == "base" and number:
        base = facts.freq_base * target_length / facts.train_length * float(number)
    else:
        raise ValueError(f"{condition!r} is no condition of the study")
    made = ggufext.Recipe(ggufext.Method.GAMMA, target_length, freq_base=base)
    if base >= facts.freq_base:
        return made
    # A base that falls is refused as a condition; factors say the same.
    request = ggufext.PlanRequest(target_length=target_length, recipe=made, allow_lower_base=True)
    return _factors(facts, request)


def write(condition: str, facts: ModelFacts, target_length: int, folder: Path) -> str:
    """Name of a condition for `check` and `compare`; a recipe is written into a folder."""
    made = recipe(condition, facts, target_length)
    if made is None:
        return condition if condition == NATIVE else f"planned:{condition}"
    path = folder / f"{condition.replace('*', 'x')}-{target_length}.json"
    path.write_text(made.encode())
    return f"planned:{path}"


def _factors(facts: ModelFacts, request: ggufext.PlanRequest) -> Recipe:
    """The frequencies of a plan as factors that act at every length, without attention factor."""
    inv_freq = ggufext.plan(facts, request).inv_freq
    factors = tuple(w / v for w, v in zip(facts.inv_freq, inv_freq, strict=True))
    return ggufext.Recipe(
        ggufext.Method.LONGROPE,
        request.target_length,
        factors=ggufext.Factors(long=factors, short=factors, attention_factor=1.0),
    )
