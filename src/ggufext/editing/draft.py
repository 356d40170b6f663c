"""A draft model beside its target: whether both can be extended, and will still agree."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.editing.rewrite import rewrite
from ggufext.errors import EditError, PlanError, of_system
from ggufext.header.vocabulary import difference, token_count
from ggufext.opened.model import open_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ggufext.opened.model import OpenModel
    from ggufext.opened.strategies import Strategy
    from ggufext.planning.request import PlanRequest


@dataclass(frozen=True, slots=True)
class DraftCheck:
    """A target and its draft, which one request extends.

    Attributes
    ----------
    tokens : int
        That both list alike.
    extended : tuple of Path or str
        Which of the two have to be written, the draft first; the other reaches the target length
        as it was trained.
    """

    tokens: int
    extended: tuple[Path | str, ...]


def check_draft(
    path: Path | str,
    draft: Path | str,
    request: PlanRequest,
    *,
    strategy: Strategy | None = None,
    follow: bool = False,
) -> DraftCheck:
    """Refuse a draft model that would not serve its extended target, and what neither file takes.

    Speculative decoding goes on with a draft that has lost its way: its tokens are rejected, and
    only speed tells. Both get the same method, since drafts of another scaling are accepted less.

    Parameters
    ----------
    path, draft : Path or str
        The files, as `rewrite` takes them. Nothing is written to them.
    request, strategy, follow
        See `rewrite`.

    Raises
    ------
    HeaderError, PlanError, EditError
        ``draft_unusable``: another vocabulary, or the same file. And what `rewrite` refuses of
        either, ``target_not_longer`` only where neither has to be extended.
    """
    with open_model(path) as target, _opened(draft) as other:
        here, there = target.header.path, other.header.path
        if here is not None and there is not None and here.samefile(there):
            raise _unusable(draft, "is the target itself")
        different = difference(target.header, other.header)
        if different is not None:
            raise _unusable(draft, f"speaks of other tokens than its target: {different}")
        tokens = min(token_count(target.header), token_count(other.header))
    # What is refused of one must not be found out when the other is written.
    reached: list[PlanError] = []
    extended: list[Path | str] = []
    for each in (draft, path):
        try:
            rewrite(each, request, strategy=strategy, follow=follow, dry_run=True)
        except PlanError as error:
            if error.code != "target_not_longer":
                raise
            reached.append(error)
        else:
            extended.append(each)
    if not extended:
        raise reached[-1]
    return DraftCheck(tokens, tuple(extended))


@contextmanager
def _opened(draft: Path | str) -> Iterator[OpenModel]:
    """The draft; what the system says of it names it."""
    try:
        with open_model(draft) as other:
            yield other
    except OSError as error:
        raise of_system(error, draft) from error


def _unusable(draft: Path | str, why: str) -> EditError:
    return EditError(
        code="draft_unusable",
        path=draft,
        message=f"{why}; name the draft model that belongs to it, or leave --also out",
    )
