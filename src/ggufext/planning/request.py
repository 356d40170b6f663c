"""What is asked of a plan, and the recipe that may be a part of it.

A recipe is a plan as JSON that other runs read: factors from a paper, results of compare and tune.
One schema for all of them: ``plan`` says what to write, ``model`` which model it was made for,
``evidence`` what was measured of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import NoReturn

from ggufext.errors import PlanError
from ggufext.planning.evidence import Evidence, decode_evidence
from ggufext.planning.methods import Method


@dataclass(frozen=True, slots=True)
class Factors:
    """Frequency factors from outside.

    Attributes
    ----------
    long : tuple of float
        What each pair's angle is divided by in contexts above the original length; > 0.
    short : tuple of float or None
        The same up to the original length; None: as trained.
    attention_factor : float or None
        Acts at every length; None: √(1 + ln f / ln T).
    """

    long: tuple[float, ...]
    short: tuple[float, ...] | None = None
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no file can hold: ``bad_recipe``."""
        for name, values in (("long", self.long), ("short", self.short or ())):
            for value in values:
                _positive(value, name)
        _check_positive(self, "attention_factor")


@dataclass(frozen=True, slots=True)
class YarnRecipe:
    """What is to be other than usual in YaRN.

    Attributes
    ----------
    beta_fast, beta_slow : float or None
        Turns within the original length above which a pair stays as it is, and below which it is
        divided by the whole factor; None: the model's, which are 32 and 1 where it says nothing.
    attention_factor : float or None
        What queries and keys are multiplied by, > 0; None: YaRN's 1 + 0.1 ln f.
    """

    beta_fast: float | None = None
    beta_slow: float | None = None
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no file can hold: ``bad_recipe``."""
        _check_positive(self, "beta_fast", "beta_slow", "attention_factor")


#: Longest recipe taken for real, characters.
LONGEST_RECIPE = 16 * 1024 * 1024

_SMALLEST, _LARGEST = 1e-30, 1e30


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to write into a model.

    Attributes
    ----------
    method : Method
    target_length : int or None
        Tokens; None: for any length.
    freq_base : float or None
        Base that method gamma or ntk writes; None: the method's own.
    factors : Factors or None
        Of method longrope.
    yarn : YarnRecipe or None
        Of method yarn.
    facts_hash : str or None
        `ggufext.header.facts.facts_hash` of the model it was made for; None: for any.
    keep_short, train_length, train_freq_base
        As of `PlanRequest`, when it was made.
    evidence : Evidence or None
        What was measured of it.
    """

    method: Method
    target_length: int | None = None
    freq_base: float | None = None
    factors: Factors | None = None
    yarn: YarnRecipe | None = None
    facts_hash: str | None = None
    keep_short: bool = False
    train_length: int | None = None
    train_freq_base: float | None = None
    evidence: Evidence | None = None

    def encode(self) -> str:
        """The recipe as JSON text."""
        factors, yarn = self.factors, self.yarn
        attention = factors or yarn
        return json.dumps(
            {
                "plan": {
                    "method": self.method.value,
                    "target_length": self.target_length,
                    "freq_base": self.freq_base,
                    "short": factors.short if factors else None,
                    "long": factors.long if factors else None,
                    "beta_fast": yarn.beta_fast if yarn else None,
                    "beta_slow": yarn.beta_slow if yarn else None,
                    "attention_factor": attention.attention_factor if attention else None,
                    "keep_short": self.keep_short,
                    "train_length": self.train_length,
                    "train_freq_base": self.train_freq_base,
                },
                "model": {"facts_hash": self.facts_hash},
                "evidence": asdict(self.evidence) if self.evidence else None,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What is asked for: the command line, Python and the audit hand it on as it is.

    Attributes
    ----------
    target_length : int
        Context length wanted, tokens, 1 … 2³¹ − 1.
    method : Method
    gamma : float or None
        Decay exponent wanted at the target, in (−1, 1); only with `Method.GAMMA`. Without it the
        model keeps its native γ, which gives the base θ·L/T.
    recipe : Recipe or None
        The base that `Method.GAMMA` or `Method.NTK` writes, the factors of `Method.LONGROPE`, or
        betas and attention factor of `Method.YARN`.
        Its method must be this one; all else that it says is the caller's to take over.
    keep_short : bool
        Write the method as long factors, so that contexts up to the training length stay as they
        are.
    train_length, train_freq_base : int or None, float or None
        What the model was really trained with, where its file says something else; see
        `ggufext.header.training.trained_facts`.
    allow_lower_base : bool
        Accept a `gamma` or a recipe that lowers the base.
    force : bool
        Accept an architecture that llama.cpp does not know or that is not verified, a factor above
        1024, a method that changes sliding-window layers, and a recipe of another model; of a
        rewrite also a file that is in use, which a new one replaces, and an existing output.

    Raises
    ------
    PlanError
        ``bad_recipe``: the recipe is for another method.
    """

    target_length: int
    method: Method = Method.GAMMA
    gamma: float | None = None
    recipe: Recipe | None = None
    keep_short: bool = False
    train_length: int | None = None
    train_freq_base: float | None = None
    allow_lower_base: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse a contradiction."""
        # What is no recipe is refused where the request is taken.
        if isinstance(self.recipe, Recipe) and self.recipe.method is not self.method:
            raise PlanError(
                code="bad_recipe",
                field="plan.method",
                message=f"is {self.recipe.method.value}, and {self.method.value} is asked for: "
                "leave the method out",
            )

    @property
    def freq_base(self) -> float | None:
        """Base that the recipe says."""
        return self.recipe.freq_base if self.recipe else None

    @property
    def factors(self) -> Factors | None:
        """Factors that the recipe says."""
        return self.recipe.factors if self.recipe else None

    @property
    def yarn(self) -> YarnRecipe | None:
        """What the recipe says of YaRN."""
        return self.recipe.yarn if self.recipe else None

    @property
    def evidence(self) -> Evidence | None:
        """What was measured of just this; None where something else is asked for than measured."""
        recipe = self.recipe
        if recipe is None or (
            (self.target_length, self.keep_short, self.train_length, self.train_freq_base)
            != (
                recipe.target_length,
                recipe.keep_short,
                recipe.train_length,
                recipe.train_freq_base,
            )
        ):
            return None
        return recipe.evidence


def decode_recipe(text: str) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    text : str
        JSON. Of ``plan``, ``method`` may be absent beside ``long`` (then it is longrope), and
        everything else may be absent or null; ``model`` and ``evidence`` too.

    Raises
    ------
    PlanError
        ``bad_recipe``, with the field that is wrong; ``nothing_recommended``: compare or tune
        recommends no extension.
    """
    try:
        document = json.loads(text) if len(text) <= LONGEST_RECIPE else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        _bad(None, "is no JSON object")
    fields = document.get("plan")
    if not isinstance(fields, dict):
        compared = document.get("recommendation")
        found = compared if isinstance(compared, dict) else document
        if isinstance(reason := found.get("reason"), str):
            raise PlanError(
                code="nothing_recommended",
                field="plan",
                message=f"what was measured recommends nothing to write: {reason}; to extend all "
                "the same, name a --method",
            )
        _bad("plan", "is missing; expected an object with method or long")
    long = _numbers(fields, "long")
    short = _numbers(fields, "short")
    attention = _number(fields, "attention_factor")
    of_yarn = fields.get("method") == Method.YARN.value
    if long is None and (short is not None or (attention is not None and not of_yarn)):
        _bad("plan.long", "is missing beside short or attention_factor")
    betas = _number(fields, "beta_fast"), _number(fields, "beta_slow")
    model = document.get("model")
    facts_hash = model.get("facts_hash") if isinstance(model, dict) else None
    if facts_hash is not None and not isinstance(facts_hash, str):
        _bad("model.facts_hash", "is no text")
    return Recipe(
        method=_method(fields, has_factors=long is not None),
        target_length=_tokens(fields, "target_length"),
        freq_base=_number(fields, "freq_base") if long is None else None,
        factors=Factors(long, short, attention) if long is not None else None,
        yarn=_yarn(*betas, attention) if long is None else None,
        facts_hash=facts_hash,
        keep_short=_flag(fields, "keep_short"),
        train_length=_tokens(fields, "train_length"),
        train_freq_base=_number(fields, "train_freq_base"),
        evidence=decode_evidence(document.get("evidence")),
    )


def _yarn(fast: float | None, slow: float | None, attention: float | None) -> YarnRecipe | None:
    found = YarnRecipe(fast, slow, attention)
    return None if found == YarnRecipe() else found


def check_model(recipe: Recipe, facts_hash: str) -> None:
    """Refuse a recipe that was made for another model.

    Raises
    ------
    PlanError
        ``other_model``.
    """
    if recipe.facts_hash not in {None, facts_hash}:
        raise PlanError(
            code="other_model",
            message="the plan was made for a model with other RoPE facts or tensors; make one for "
            "this model, or --force",
        )


def _method(fields: dict[str, object], *, has_factors: bool) -> Method:
    if has_factors:
        # Whatever frequencies the factors came from, they are written as longrope.
        return Method.LONGROPE
    try:
        return Method(fields.get("method"))
    except ValueError:
        names = ", ".join(method.value for method in Method)
        _bad("plan.method", f"is {fields.get('method')!r}; expected one of {names}")


def _tokens(fields: dict[str, object], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        _bad(f"plan.{name}", f"is {value!r}; expected tokens, a whole number above 0")
    return value


def _flag(fields: dict[str, object], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        _bad(f"plan.{name}", f"is {value!r:.40}; expected true or false")
    return bool(value)


def _number(fields: dict[str, object], name: str) -> float | None:
    value = fields.get(name)
    return None if value is None else _positive(value, name)


def _numbers(fields: dict[str, object], name: str) -> tuple[float, ...] | None:
    values = fields.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or not values:
        _bad(f"plan.{name}", "is no list of numbers, one a pair")
    return tuple(_positive(value, name) for value in values)


def _positive(value: object, name: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Within what 32 bits hold, with room for a division.
    if not (is_number and _SMALLEST < value < _LARGEST):  # type: ignore[operator]
        _bad(f"plan.{name}", f"holds {value!r:.40}; expected numbers above 0")
    assert isinstance(value, (int, float))
    return float(value)


def _check_positive(said: Factors | YarnRecipe, *names: str) -> None:
    for name in names:
        value = getattr(said, name)
        if value is not None:
            _positive(value, name)


def _bad(field: str | None, what: str) -> NoReturn:
    raise PlanError(
        code="bad_recipe",
        field=field,
        message=f"{what}; docs/methods.md shows what such a file holds",
    )
