"""Conditions: ways of running one model file on the same prompts, without editing it.

llama.cpp takes other metadata from outside, but no other tensors: conditions with other factor
tensors than the file run on a copy, which is gone after the run.
"""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import W_OK, access
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import MappingProxyType
from typing import TYPE_CHECKING

from ggufext.audit.request import DOCUMENTED, KEEP_SHORT, PLANNED, recipe_file
from ggufext.editing.rewrite import rewrite, unextend
from ggufext.errors import EngineError, ModelWarning, PlanError
from ggufext.header import rope_keys
from ggufext.header.facts import DEFAULT_FREQ_BASE
from ggufext.header.frequencies import factors_in_effect
from ggufext.header.header import read_header
from ggufext.header.shards import later_shards
from ggufext.llama.expectation import SMALL_CONTEXT, Expected, of_facts, of_plan
from ggufext.llama.settings import Override, SelfExtend
from ggufext.opened.files import FileSystem
from ggufext.opened.recipe import read_recipe
from ggufext.opened.strategies import Strategy
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ggufext.editing.writing import Receipt
    from ggufext.header.facts import ModelFacts
    from ggufext.header.header import Header
    from ggufext.header.published import Published
    from ggufext.opened.model import OpenModel
    from ggufext.planning.request import PlanRequest, Recipe

_DOCUMENTED = DOCUMENTED.removeprefix(PLANNED)
_GAMMA = re.compile(r"gamma=(?P<gamma>-?\d?\.?\d+)")
_SELF_EXTEND = re.compile(r"self-extend:g=(?P<group>\d+),w=(?P<window>\d+)")


@dataclass(frozen=True, slots=True)
class OriginalCopy:
    """A copy of the file without its extension, and with the keys that were set."""


@dataclass(frozen=True, slots=True)
class ResolvedCondition:
    """One way of running a file, as its name means it for that file.

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
    copy : PlanRequest, OriginalCopy or None
        How the copy that stands in for the file is rewritten, to be made first.
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
    copy: PlanRequest | OriginalCopy | None = None
    path: Path | None = None


def conditions(
    model: OpenModel,
    names: Sequence[str],
    request: PlanRequest,
    recipes: Mapping[str, Recipe] = MappingProxyType({}),
) -> tuple[ResolvedCondition, ...]:
    """What each named condition means for a file.

    Parameters
    ----------
    model : OpenModel
    names : sequence of str
        ``"file"``, ``"native"``, what `planned_request` takes, ``"self-extend:g=G,w=W"``.
    request : PlanRequest
        Of a planned condition, but for its method, recipe and `keep_short`, which the name says.
    recipes : mapping
        See `planned_request`.

    Raises
    ------
    PlanError
        ``bad_condition``, and the planning's own.
    HeaderError
    """
    copied = model.copied is not None
    edited = model.is_extended
    found, facts = model.facts, model.original_facts(request)
    undoing = _undoing(model.header, model.unextended, found, facts)

    def resolve(name: str) -> ResolvedCondition:
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
        if name.startswith(PLANNED):
            asked = planned_request(name, request, facts.published, recipes)
            return _planned(name, model, undoing, asked)
        if match := _SELF_EXTEND.fullmatch(name):
            return _as_it_is(name, found, _self_extend(name, match))
        raise PlanError(
            code="bad_condition",
            message=f"condition {name!r}; there are file, native, planned:METHOD "
            f"({', '.join(method.value for method in Method)}) and self-extend:g=4,w=512",
        )

    return tuple(resolve(name) for name in dict.fromkeys(names))


def _as_it_is(name: str, facts: ModelFacts, self_extend: SelfExtend | None) -> ResolvedCondition:
    original, values = facts.longest_short_context, dict(facts.factors)
    is_long = original < SMALL_CONTEXT
    split = factors_in_effect(values, is_long=True) != factors_in_effect(values, is_long=False)
    return ResolvedCondition(
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
) -> ResolvedCondition:
    base = _as_it_is(name, facts, None)
    warnings: tuple[ModelWarning, ...] = ()
    if not edited:
        warnings = (
            ModelWarning(
                "native_is_file",
                "the file carries no edit of ours, so native is the file as it is",
            ),
        )
    return ResolvedCondition(
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
        rope_keys.YARN_BETA_FAST: facts.scaling.yarn.beta_fast,
        rope_keys.YARN_BETA_SLOW: facts.scaling.yarn.beta_slow,
    }
    if local:
        meanings[rope_keys.FREQ_BASE_SWA] = local[0]
    return meanings.get(key.removeprefix(f"{facts.architecture}."))


def _planned(
    name: str, model: OpenModel, undoing: dict[str, Override] | None, request: PlanRequest
) -> ResolvedCondition:
    facts = model.original_facts(request)
    planned = plan(facts, request)
    is_long = planned.original_length < SMALL_CONTEXT
    # llama.cpp looks at the context only where the two sets differ.
    split = planned.long_factors != planned.short_factors and not is_long
    copy: PlanRequest | None = None
    overrides: dict[str, Override] = {}
    if planned.tensor_edits or undoing is None:
        copy = request
    else:
        overrides.update(undoing)
        for edit in planned.edits:
            # Plans edit scalars; a list could not be given to llama.cpp from outside.
            assert isinstance(edit.after, (bool, int, float, str))
            overrides[edit.key] = edit.after
    return ResolvedCondition(
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


def planned_request(
    name: str,
    request: PlanRequest,
    published: Published | None = None,
    recipes: Mapping[str, Recipe] = MappingProxyType({}),
) -> PlanRequest:
    """What a planned condition asks for.

    Parameters
    ----------
    name : str
        ``"planned:METHOD"``, ``"planned:gamma=0.5"`` for a γ at the target,
        ``"planned:documented"`` for what the publisher documents, whose target is its own, or
        ``"planned:FACTORS.json"``; each with ``+keep-short``.
    request : PlanRequest
        All else.
    published : Published or None
        What is documented of the model.
    recipes : mapping
        By name, what other planned conditions are.

    Raises
    ------
    PlanError
        ``bad_condition``, ``bad_recipe``.
    """
    request = replace(request, keep_short=name.endswith(KEEP_SHORT))
    file, recipe = recipe_file(name), recipes.get(name)
    if file is not None:
        recipe = read_recipe(file)
    if recipe is not None:
        keep_short = request.keep_short or recipe.keep_short
        return replace(request, method=recipe.method, recipe=recipe, keep_short=keep_short)
    method = name.removeprefix(PLANNED).removesuffix(KEEP_SHORT)
    if match := _GAMMA.fullmatch(method):
        # Asked for by its value, whatever that does to the base.
        gamma = float(match["gamma"])
        return replace(request, method=Method.GAMMA, gamma=gamma, allow_lower_base=True)
    if method == _DOCUMENTED:
        if published is None or published.yarn_length is None:
            raise PlanError(
                code="bad_condition",
                message=f"condition {name!r}; no scaling is known that the publisher of this model "
                "documents: name a method",
            )
        return replace(request, method=Method.YARN, target_length=published.yarn_length)
    try:
        return replace(request, method=Method(method))
    except ValueError:
        raise PlanError(
            code="bad_condition",
            message=f"condition {name!r}; the methods are "
            f"{', '.join(method.value for method in Method)}, gamma=0.5 for a γ at the target, "
            f"{_DOCUMENTED} for the publisher's, or a file of factors (.json); {KEEP_SHORT} behind "
            "one leaves short contexts as they are",
        ) from None


@dataclass(frozen=True, slots=True)
class CopyNeeded:
    """What a condition's copy costs.

    Attributes
    ----------
    condition : str
    folder : Path
        Where it goes: that of the file where it takes new files, else the system's.
    size, free : int
        Bytes of the copy and of free space there.
    """

    condition: str
    folder: Path
    size: int
    free: int


def refuse_copies(_: CopyNeeded) -> bool:
    """Allow no copy: what a run does that nobody watches."""
    return False


def permission(
    allow_copy: bool | Callable[[CopyNeeded], bool],
) -> Callable[[CopyNeeded], bool]:
    """What is asked before a copy, of what a user allows: all, none, or each when asked."""
    if callable(allow_copy):
        return allow_copy
    return lambda _: allow_copy


@contextmanager
def with_copies(
    path: Path,
    chosen: tuple[ResolvedCondition, ...],
    allow: Callable[[CopyNeeded], bool],
    *,
    progress: Callable[[str, int, int], None] = lambda _condition, _done, _total: None,
    files: FileSystem | None = None,
) -> Iterator[tuple[ResolvedCondition, ...]]:
    """Give every condition that needs one a copy of its own, until the context is left.

    A copy that shares its blocks with the file costs nothing and is made without asking.

    Parameters
    ----------
    path : Path
        The model file; of a split model all parts are copied.
    allow : callable
        Asked before a copy that takes space.
    progress : callable
        Called during a copy with the name of its condition, bytes done and bytes in all.
    files : FileSystem, optional
        The operations to use; for tests.

    Raises
    ------
    EngineError
        ``copy_not_allowed``, ``no_space``.
    PlanError, EditError
        See `ggufext.editing.rewrite.rewrite` and `unextend`.
    """
    if all(condition.copy is None for condition in chosen):
        yield chosen
        return
    files = files or FileSystem()
    path = path.absolute()
    beside = path.parent if access(path.parent, W_OK) else Path(gettempdir())
    with TemporaryDirectory(prefix=".ggufext-check-", dir=beside) as name:
        folder = Path(name)
        yield tuple(
            condition
            if condition.copy is None
            else replace(
                condition,
                path=_copy(
                    path,
                    condition,
                    folder / f"{index}",
                    allow,
                    progress=partial(progress, condition.name),
                    files=files,
                ),
            )
            for index, condition in enumerate(chosen)
        )


def _copy(
    path: Path,
    condition: ResolvedCondition,
    folder: Path,
    allow: Callable[[CopyNeeded], bool],
    *,
    progress: Callable[[int, int], None],
    files: FileSystem,
) -> Path:
    order = condition.copy
    assert order is not None
    folder.mkdir()
    # By the same name, so that llama.cpp finds the other parts of a split model.
    target = folder / path.name

    def write(*, dry_run: bool) -> Receipt:
        if isinstance(order, OriginalCopy):
            return unextend(path, target, dry_run=dry_run, progress=progress, files=files)
        return rewrite(
            path, order, output=target, dry_run=dry_run, progress=progress, files=files
        ).receipt

    if write(dry_run=True).strategy is not Strategy.REFLINK:
        _refuse_or_ask(path, condition, folder, allow)
    write(dry_run=False)
    return target


def _refuse_or_ask(
    path: Path, condition: ResolvedCondition, folder: Path, allow: Callable[[CopyNeeded], bool]
) -> None:
    header = read_header(path)
    size = sum(part.file_size for part in (header, *later_shards(header)))
    free = shutil.disk_usage(folder).free
    needed = CopyNeeded(condition.name, folder.parent.parent, size, free)
    if size > free:
        raise EngineError(
            code="no_space",
            path=path,
            message=f"condition {condition.name!r} needs a copy of {size:,} bytes in "
            f"{needed.folder}, which has {free:,} free; make room, or put the file where there is "
            "some",
        )
    if not allow(needed):
        raise EngineError(
            code="copy_not_allowed",
            path=path,
            message=f"condition {condition.name!r} has other factor tensors than the file, which "
            f"llama.cpp takes from a file only: it needs a temporary copy of {size:,} bytes in "
            f"{needed.folder}, which has {free:,} free; --yes allows it",
        )
