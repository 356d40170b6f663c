"""Conditions: ways of running one model file on the same prompts, without editing it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.errors import ModelWarning, PlanError
from ggufext.header import rope_keys
from ggufext.header.frequencies import factors_in_effect
from ggufext.header.model import DEFAULT_FREQ_BASE
from ggufext.llama.expectation import SMALL_CONTEXT, Expected, of_facts, of_plan
from ggufext.llama.settings import SelfExtend
from ggufext.opened.model import open_model, read_recipe
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufext.header.header import Header
    from ggufext.header.model import ModelFacts
    from ggufext.opened.model import OpenModel
    from ggufext.planning.request import Recipe

#: Behind a planned condition's method.
_KEEP_SHORT = "+keep-short"

_SELF_EXTEND = re.compile(r"self-extend:g=(?P<group>\d+),w=(?P<window>\d+)")

Override = bool | int | float | str


@dataclass(frozen=True, slots=True)
class RewrittenCopy:
    """How to rewrite a copy of the file for a condition that metadata alone cannot give."""

    request: PlanRequest


@dataclass(frozen=True, slots=True)
class OriginalCopy:
    """A copy of the file whose edit is undone."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One way of running the file.

    Attributes
    ----------
    name : str
        As it was asked for: ``"file"``, ``"native"``, ``"planned:gamma"`` …
    kv_overrides : tuple of (str, value)
        Metadata that stands in for the file's.
    self_extend : SelfExtend or None
    expected : tuple of Expected
        Rotation of each layer in a context of `expectation.SMALL_CONTEXT`.
    expected_long : tuple of Expected or None
        The same above `short_context`; None where it is no other.
    short_context : int or None
        Up to this context, tokens, a longrope file uses other factors than above it.
    warnings : tuple of ModelWarning
    copy : RewrittenCopy, OriginalCopy or None
        The copy that stands in for the file, to be made first.
    path : Path or None
        Where it is; None: the file itself.
    """

    name: str
    kv_overrides: tuple[tuple[str, Override], ...]
    self_extend: SelfExtend | None
    expected: tuple[Expected, ...]
    expected_long: tuple[Expected, ...] | None
    short_context: int | None
    warnings: tuple[ModelWarning, ...] = ()
    copy: RewrittenCopy | OriginalCopy | None = None
    path: Path | None = None


def conditions(
    path: Path,
    names: Sequence[str],
    *,
    target_length: int,
    train_length: int | None = None,
    train_freq_base: float | None = None,
) -> tuple[Condition, ...]:
    """What each named condition means for a file.

    Parameters
    ----------
    path : Path
    names : sequence of str
        ``"file"``, ``"native"``, ``"planned:METHOD"``, ``"planned:FACTORS.json"``,
        ``"planned:METHOD+keep-short"``, ``"self-extend:g=G,w=W"``.
    target_length : int
        Tokens that a planned condition extends to.
    train_length, train_freq_base
        What the model was really trained with, where the file says something else; see
        `ggufext.header.training.trained_facts`.

    Raises
    ------
    PlanError
        ``bad_condition``, and the planning's own.
    HeaderError
    """
    request = PlanRequest(
        target_length=target_length, train_length=train_length, train_freq_base=train_freq_base
    )
    with open_model(path) as model:
        return _conditions(model, names, request)


def _conditions(
    model: OpenModel, names: Sequence[str], request: PlanRequest
) -> tuple[Condition, ...]:
    copied = model.copied is not None
    edited = model.history is not None or copied
    found, facts = model.facts, model.original_facts(request)
    undoing = _undoing(model.header, model.unextended, found, facts)

    def resolve(name: str) -> Condition:
        if name == "file":
            return _as_it_is(name, found, None)
        if name == "native":
            if copied and undoing is None:
                raise PlanError(
                    code="bad_condition",
                    message="condition 'native'; the file was extended by a tensor and then copied "
                    "by another program, so nothing takes that back exactly; leave the condition "
                    "out, or check the original file",
                )
            native = facts if edited else found
            return _native(name, native, undoing if edited else {}, edited=edited)
        if name.startswith("planned:"):
            return _planned(name, model, undoing, request)
        if match := _SELF_EXTEND.fullmatch(name):
            return _as_it_is(name, found, _self_extend(name, match))
        raise PlanError(
            code="bad_condition",
            message=f"condition {name!r}; there are file, native, planned:METHOD "
            f"({', '.join(method.value for method in Method)}) and self-extend:g=4,w=512",
        )

    return tuple(resolve(name) for name in dict.fromkeys(names))


def _as_it_is(name: str, facts: ModelFacts, self_extend: SelfExtend | None) -> Condition:
    original, values = facts.longest_short_context, dict(facts.factors)
    is_long = original < SMALL_CONTEXT
    split = factors_in_effect(values, is_long=True) != factors_in_effect(values, is_long=False)
    return Condition(
        name=name,
        kv_overrides=(),
        self_extend=self_extend,
        expected=tuple(of_facts(facts, layer, is_long=is_long) for layer in facts.layers),
        expected_long=tuple(of_facts(facts, layer, is_long=True) for layer in facts.layers)
        if split and not is_long
        else None,
        short_context=original if split and original else None,
    )


def _self_extend(name: str, match: re.Match[str]) -> SelfExtend:
    group, window = int(match["group"]), int(match["window"])
    if group < 2 or window < group or window % group:
        raise PlanError(
            code="bad_condition",
            message=f"condition {name!r}; the group must be 2 or more, and the window a multiple "
            "of it",
        )
    return SelfExtend(group=group, window=window)


def _native(
    name: str,
    facts: ModelFacts,
    undoing: dict[str, Override] | None,
    *,
    edited: bool,
) -> Condition:
    base = _as_it_is(name, facts, None)
    warnings: tuple[ModelWarning, ...] = ()
    if not edited:
        warnings = (
            ModelWarning(
                "native_is_file",
                "the file carries no edit of ours, so native is the file as it is",
            ),
        )
    return Condition(
        name=name,
        kv_overrides=tuple(undoing.items()) if undoing else (),
        self_extend=None,
        expected=base.expected,
        expected_long=base.expected_long,
        short_context=base.short_context,
        warnings=warnings,
        copy=OriginalCopy() if undoing is None else None,
    )


def _undoing(
    now: Header, original: Header, found: ModelFacts, facts: ModelFacts
) -> dict[str, Override] | None:
    """Metadata that makes an edited file behave like its original; None where none does."""
    if found.factors != facts.factors:
        return None
    overrides: dict[str, Override] = {}
    for key, _ in facts.metadata:
        present = now.value(key) if key in now.keys else None
        native = original.value(key) if key in original.keys else None
        if present == native:
            continue
        before = _meaning_of_absence(key, facts) if native is None else native
        if not isinstance(before, (bool, int, float, str)):
            return None
        overrides[key] = before
    return overrides


def _meaning_of_absence(key: str, facts: ModelFacts) -> Override | None:
    """What llama.cpp takes where a key is absent."""
    local = [layer.freq_base for layer in facts.layers if layer.window is not None]
    meanings: dict[str, Override] = {
        rope_keys.FREQ_BASE: DEFAULT_FREQ_BASE,
        rope_keys.SCALING_TYPE: "linear",
        rope_keys.SCALING_FACTOR: 1.0,
        rope_keys.ORIGINAL_LENGTH: facts.context_length,
        rope_keys.ATTN_FACTOR: 1.0,
    }
    if local:
        meanings[rope_keys.FREQ_BASE_SWA] = local[0]
    return meanings.get(key.removeprefix(f"{facts.architecture}."))


def _planned(
    name: str, model: OpenModel, undoing: dict[str, Override] | None, request: PlanRequest
) -> Condition:
    wanted = name.removeprefix("planned:")
    keep_short = wanted.endswith(_KEEP_SHORT)
    method, recipe = _wanted(name, wanted.removesuffix(_KEEP_SHORT))
    request = replace(request, method=method, recipe=recipe, keep_short=keep_short)
    facts = model.original_facts(request)
    planned = plan(facts, request)
    is_long = planned.original_length < SMALL_CONTEXT
    # llama.cpp looks at the context only where the two sets differ.
    split = planned.long_factors != planned.short_factors and not is_long
    copy: RewrittenCopy | None = None
    overrides: dict[str, Override] = {}
    if planned.tensor_edits or undoing is None:
        copy = RewrittenCopy(request)
    else:
        overrides.update(undoing)
        for edit in planned.edits:
            # Plans edit scalars; a list could not be given to llama.cpp from outside.
            assert isinstance(edit.after, (bool, int, float, str))
            overrides[edit.key] = edit.after
    return Condition(
        name=name,
        kv_overrides=tuple(overrides.items()),
        self_extend=None,
        expected=tuple(of_plan(planned, layer, is_long=is_long) for layer in facts.layers),
        expected_long=tuple(of_plan(planned, layer, is_long=True) for layer in facts.layers)
        if split
        else None,
        short_context=planned.original_length if split else None,
        copy=copy,
    )


def _wanted(name: str, wanted: str) -> tuple[Method, Recipe | None]:
    """Method of a planned condition, or of the file that holds its recipe."""
    if wanted.endswith(".json"):
        recipe = read_recipe(Path(wanted))
        return recipe.method, recipe
    try:
        return Method(wanted), None
    except ValueError:
        raise PlanError(
            code="bad_condition",
            message=f"condition {name!r}; the methods are "
            f"{', '.join(method.value for method in Method)}, or a file of factors (.json); "
            f"{_KEEP_SHORT} behind one leaves short contexts as they are",
        ) from None
