"""Scripts in the place of llama-server, and whether what they started has ended."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from ggufext.audit.engines import llama_server

if TYPE_CHECKING:
    from pathlib import Path

#: Waits for ever, and writes down who does.
HANG = "echo $$ > begun; mv begun pid; exec tail -f /dev/null"


def write_program(
    folder: Path,
    body: str,
    *,
    options: str = "KEY=TYPE:VALUE,...",
    at_help: str = "cat help; exit",
) -> Path:
    """Write a script that runs in its folder and knows the options of llama-server."""
    path = folder / "llama-server"
    (folder / "help").write_text("\n".join((*llama_server.NEEDED, options)))
    path.write_text(f"#!/bin/sh\ncd '{folder}'\nif [ $1 = --help ]; then {at_help}; fi\n{body}\n")
    path.chmod(0o755)
    return path


def ends(process: int) -> bool:
    """Whether a process has ended or is about to: whoever inherits it may not have noticed."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 30)[0])
    finally:
        os.close(handle)
