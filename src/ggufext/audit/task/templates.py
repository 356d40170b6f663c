"""Chat templates: code from a stranger, rendered where it can do nothing and not for long.

jinja2's immutable sandbox keeps a template away from Python; a child process with limits on
processor time, memory and output keeps it from running on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufext.errors import EngineError, printable

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a prompt: the chat template's text, or nothing.

    Attributes
    ----------
    before, behind : str
        Text that may hold special tokens.
    chat : bool
        Whether the answer is a turn of its own.
    """

    before: str = ""
    behind: str = ""
    chat: bool = False


#: Where the prompt goes; a text that no template contains.
_MARK = "GGUFEXT-PROMPT-7f3a"

_SECONDS = 5
_LONGEST_TEMPLATE = 1 << 20
_LONGEST_FRAME = 1 << 16


def frame_of(
    template: str, *, bos: str, eos: str, path: Path | None = None, seconds: int = _SECONDS
) -> Frame:
    """What a chat template puts around one question of the user.

    Parameters
    ----------
    template : str
        jinja2 source, as in ``tokenizer.chat_template``.
    bos, eos : str
        Text of the tokens that templates name.
    seconds : int
        Processor time it may take.

    Raises
    ------
    EngineError
        ``no_chat_template`` when it is too long, fails, runs on, or loses the question.
    """

    def refused(why: str) -> EngineError:
        return EngineError(
            code="no_chat_template",
            path=path,
            field="tokenizer.chat_template",
            message=f"{why}; `--template none` asks in plain text",
        )

    if len(template) > _LONGEST_TEMPLATE:
        raise refused(f"has {len(template):,} characters, more than {_LONGEST_TEMPLATE:,}")
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from ggufext.audit.task.rendering import main; main()"
    )
    request = {
        "template": template,
        "prompt": _MARK,
        "bos": bos,
        "eos": eos,
        "longest": 2 * _LONGEST_FRAME,
        "seconds": seconds,
    }
    try:
        child = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(request).encode(),
            capture_output=True,
            check=False,
            timeout=4 * seconds,
        )
    except subprocess.TimeoutExpired:
        raise refused(f"did not end within {4 * seconds} seconds") from None
    if child.returncode:
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        why = printable(lines[-1], 200) if lines else f"ended with status {child.returncode}"
        raise refused(f"cannot be rendered within its limits ({why})")
    before, mark, behind = child.stdout.decode(errors="replace").partition(_MARK)
    if not mark or _MARK in behind:
        raise refused("does not show the question exactly once")
    if len(before) + len(behind) > _LONGEST_FRAME:
        raise refused(f"puts {len(before) + len(behind):,} characters around the question")
    return Frame(before=before, behind=behind, chat=True)
