"""What `ggufext plan` and the page that plans show of a model and a target."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.api import emissions, plans
from ggufext.errors import PlanError
from ggufext.presenting.documents import PlannedModel, PlannedModels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ggufext.api.emissions import Emission, Engine, HfConfig
    from ggufext.api.headers import RemoteModel
    from ggufext.api.plans import CacheFit, Method, ModelFacts, Plan, PlanRequest
    from ggufext.errors import ModelWarning


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Plans for a model, and what goes with them.

    Attributes
    ----------
    path : Path or str
        As the model was named.
    facts : ModelFacts
    plans : tuple of Plan
        The one that was named, or every method's.
    one_named : bool
    documented : Plan or None
        The extension that the publisher documents.
    emitted : mapping of Method to tuple of Emission
    fits : tuple of CacheFit
        Empty where no memory was given.
    warnings : tuple of ModelWarning
        Each once.
    """

    path: Path | str
    facts: ModelFacts
    plans: tuple[Plan, ...]
    one_named: bool
    documented: Plan | None
    emitted: Mapping[Method, tuple[Emission, ...]]
    fits: tuple[CacheFit, ...]
    warnings: tuple[ModelWarning, ...]

    def document(self) -> PlannedModel | PlannedModels:
        """What ``ggufext plan --json`` prints."""
        name = str(self.path)
        made = tuple(
            PlannedModel(name, each, self.emitted[each.method], self.fits) for each in self.plans
        )
        if self.one_named:
            return made[0]
        known = self.documented
        return PlannedModels(made, PlannedModel(name, known) if known else None)


def overview(
    model: Path | RemoteModel,
    request: PlanRequest,
    *,
    config: HfConfig | None,
    method: Method | None = None,
    engines: Sequence[Engine] = (),
    memory: int | None = None,
) -> Overview:
    """Plan one method or all of them; nothing is written.

    Parameters
    ----------
    model : Path or RemoteModel
    request : PlanRequest
    config : HfConfig or None
        What `emissions.read_config` read of the model.
    method : Method, optional
        That of `request`, where it was named; every method without.
    engines : sequence of Engine
        In whose words every plan is said.
    memory : int, optional
        Bytes that must hold everything; for a GGUF file.

    Raises
    ------
    HeaderError, PlanError, LocationError
    """
    path = model if isinstance(model, Path) else model.name
    facts = config.facts if config else plans.facts_of(model, request)
    with naming(path):
        documented = None
        if method is None:
            documented = plans.documented_plan(facts, force=request.force)
            made = plans.plan_all_methods(facts, request)
        else:
            made = (plans.plan(facts, request),)
    emitted = {
        each.method: tuple(
            emissions.emit(path, each, engine, known=config or facts) for engine in engines
        )
        for each in made
    }
    fits: tuple[CacheFit, ...] = ()
    if memory is not None:
        fits = plans.cache_fits(model, facts, request.target_length, memory=memory)
    warnings = [warning for each in made for warning in each.warnings]
    return Overview(
        path=path,
        facts=facts,
        plans=made,
        one_named=method is not None,
        documented=documented,
        emitted=emitted,
        fits=fits,
        warnings=tuple(dict.fromkeys([*warnings, *(config.warnings if config else ())])),
    )


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Name the file in a refusal: planning knows no files."""
    try:
        yield
    except PlanError as error:
        error.path = error.path or path
        raise
