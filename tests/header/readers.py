"""Both readers of headers: the native one, and the specification that runs where that is absent."""

from __future__ import annotations

from ggufext import _core
from ggufext.header import pure

READERS = {"native": _core, "pure": pure}
