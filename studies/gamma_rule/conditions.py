"""The study's conditions, and what `ggufext check`, `compare` and `measure` call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ggufext
from ggufext.planning.gamma import gamma_pade

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


def program_name(condition: str, facts: ModelFacts, target_length: int, folder: Path) -> str:
    """What the program calls a condition.

    Parameters
    ----------
    condition : str
        NATIVE, one of CLOSED_FORMS, YARN_PLAIN, or a name that `gamma_target` or `base_multiple`
        made.
    facts : ModelFacts
        Of the model, unscaled.
    target_length : int
        Tokens.
    folder : Path
        YARN_PLAIN is a recipe, which is written there.

    Raises
    ------
    ValueError
        For another name.
    """
    if condition == NATIVE:
        return condition
    if condition == YARN_PLAIN:
        path = folder / f"{condition}-{target_length}.json"
        path.write_text(plain_yarn(facts, target_length).encode())
        return f"planned:{path}"
    kind, _, multiple = condition.partition("*")
    if kind == "base" and multiple:
        base = facts.freq_base * target_length / facts.train_length * float(multiple)
        # Digits enough for a γ close to 1, which says a base by its distance from there.
        return f"planned:gamma={gamma_pade(base, target_length):.15f}"
    if condition in CLOSED_FORMS or condition in map(gamma_target, GAMMA_TARGETS):
        return f"planned:{condition}"
    raise ValueError(f"{condition!r} is no condition of the study")


def plain_yarn(facts: ModelFacts, target_length: int) -> Recipe:
    """YaRN's frequencies as factors that act at every length, without its attention factor."""
    request = ggufext.PlanRequest(target_length=target_length, method=ggufext.Method.YARN)
    inv_freq = ggufext.plan(facts, request).inv_freq
    factors = tuple(w / v for w, v in zip(facts.inv_freq, inv_freq, strict=True))
    return ggufext.Recipe(
        ggufext.Method.LONGROPE,
        target_length,
        factors=ggufext.Factors(long=factors, short=factors, attention_factor=1.0),
    )
