"""What differs between operating systems: nothing else in this package asks which one runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if sys.platform == "win32":
    from ggufext.system.windows import Windows as _Here
elif sys.platform == "darwin":
    from ggufext.system.macos import MacOS as _Here
elif sys.platform == "linux":
    from ggufext.system.linux import Linux as _Here
else:
    from ggufext.system.posix import Posix as _Here

if TYPE_CHECKING:
    from ggufext.system.base import System

#: The system of this process.
system: System = _Here()
