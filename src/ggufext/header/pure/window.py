"""A position in the bytes of a file."""

from __future__ import annotations

from ggufext.errors import HeaderError
from ggufext.system import system

#: Bytes of a file that are read, and of strings that are walked, in one go.
WINDOW = 2**16


class Bytes:
    """A position in bytes that lie in memory or behind a descriptor.

    A descriptor is read through a window, so memory does not depend on what the bytes claim.
    Memory may hold the front of a file only; `remaining` counts to the end of the file.
    """

    def __init__(self, end: int, *, front: bytes = b"", fd: int | None = None) -> None:
        self.end = end
        self.position = 0
        self.window = front
        self.window_start = 0
        self._fd = fd

    @property
    def remaining(self) -> int:
        """Bytes from the position to the end of the file."""
        return self.end - self.position

    def need(self, size: int) -> int:
        """Where in the window the position is, from which `size` bytes can be read there."""
        at = self.position - self.window_start
        if at < 0 or at + size > len(self.window):
            self._refill(size)
            at = 0
        return at

    def take(self, size: int) -> bytes:
        """Bytes at the position, which moves on behind them."""
        at = self.need(size)
        self.position += size
        return self.window[at : at + size]

    def _refill(self, size: int) -> None:
        if self._fd is None:
            raise HeaderError(
                code="front_too_short",
                message=f"found the first {len(self.window):,} of {self.end:,} bytes, expected the "
                "whole header: read more of the file",
                offset=len(self.window),
            )
        wanted = max(size, min(WINDOW, self.remaining))
        self.window, self.window_start = b"", self.position
        while len(self.window) < wanted:
            end = self.window_start + len(self.window)
            try:
                piece = system.read_at(self._fd, wanted - len(self.window), end)
            except OSError as error:
                raise HeaderError(
                    code="unreadable",
                    message=f"the system could not read here: {error.strerror}; check the disk or "
                    "the network mount and try again",
                    offset=end,
                ) from error
            if not piece:
                break
            self.window += piece
        if len(self.window) < size:
            raise HeaderError(
                code="changed_meanwhile",
                message=f"the file had {self.end:,} bytes and became shorter while it was read: "
                "try again when nothing writes to it",
                offset=self.window_start + len(self.window),
            )
