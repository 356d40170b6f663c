"""Edits of files: rewriting, setting keys, comparing the result, undoing, recovering."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufext.arguments import public
from ggufext.editing import draft, setting
from ggufext.editing import rewrite as rewriting
from ggufext.editing.draft import DraftCheck
from ggufext.editing.recovery import State
from ggufext.editing.rewrite import Rewritten, Undone
from ggufext.editing.setting import KeysSet
from ggufext.editing.writing import Receipt
from ggufext.locating.names import ollama_model
from ggufext.opened.strategies import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DraftCheck",
    "KeysSet",
    "Receipt",
    "Rewritten",
    "State",
    "Strategy",
    "Undone",
    "check_draft",
    "modelfile",
    "recover",
    "rewrite",
    "set_keys",
    "undo",
    "verify",
]

check_draft = public(draft.check_draft)
recover = public(rewriting.recover)
rewrite = public(rewriting.rewrite)
set_keys = public(setting.set_keys)
undo = public(rewriting.undo)


@public
def verify(
    done: Rewritten | KeysSet,
    *,
    llama_cpp: Path | None = None,
    notify: Callable[[str], None] = lambda _what: None,
) -> tuple[str, ...]:
    """Compare an edited file with what was meant through readers that are not ours.

    Parameters
    ----------
    done : Rewritten or KeysSet
        Arrays that were set are not compared.
    llama_cpp : Path, optional
        llama.cpp's library, or the folder of a build that holds it; the installed one when absent.
    notify : callable
        Hears who reads the file next.

    Returns
    -------
    tuple of str
        What was compared, a sentence each.

    Raises
    ------
    EditError
        ``not_verified``: a reader sees something else.
    EngineError
        llama.cpp is there and does not load the file; `llama_cpp` is no build that is known.
    """
    from ggufext.llama.expectation import verify_file, verify_keys  # few edits need it

    if isinstance(done, KeysSet):
        keys = [change.key for change in done.changes]
        return verify_keys(done.receipt.output, keys, llama_cpp=llama_cpp, notify=notify)
    return verify_file(done.receipt.output, done.plan, llama_cpp=llama_cpp, notify=notify)


def try_llama_cpp(llama_cpp: Path) -> None:
    """Refuse a library of llama.cpp that `verify` could not use, before anything is written.

    Raises
    ------
    EngineError
        ``engine_unknown``, ``engine_died``.
    """
    from ggufext.llama.process import LlamaProcess  # few edits need it

    with LlamaProcess(llama_cpp) as process:
        process.hello()


@public
def modelfile(path: Path | str, done: Rewritten | KeysSet) -> str | None:
    """What makes a model of Ollama of a new file that was made from one of Ollama's, else None.

    Parameters
    ----------
    path : Path or str
        What was edited.
    done : Rewritten or KeysSet
    """
    output = done.receipt.output
    if output == path or not output.exists():
        return None
    from ggufext.locating import ollama  # few edits need it

    model = ollama_model(path)
    if model is None and not ollama.is_blob(Path(path)):
        return None
    length = done.plan.target_length if isinstance(done, Rewritten) else None
    return ollama.modelfile(output, context_length=length, model=model)
