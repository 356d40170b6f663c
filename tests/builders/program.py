"""ggufext as a user or a program meets it: a real process, its output and its status."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from schemas import check_output

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: A line that says how far a command is, which a busy machine may make of any.
_WAIT = re.compile(r"^.*: .*(?:so far| left)\n", re.MULTILINE)


def without_waits(said: str) -> str:
    """What stands on standard error but for how far the command was meanwhile."""
    return _WAIT.sub("", said)


def run(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line; standard error is given `without_waits`.

    What ``--json`` prints is compared with its schema.
    """
    done = subprocess.run(
        [sys.executable, "-m", "ggufext", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=env,
    )
    done.stderr = without_waits(done.stderr)
    if "--json" in arguments:
        check_output(str(arguments[0]), done.stdout)
    return done


def result(*arguments: object) -> Any:
    """What ``--json`` prints of a run that succeeds."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
