"""macOS: syncs that reach the disk, clones on APFS, and who has a file open."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

assert sys.platform == "darwin"

from ggufext.system.posix import Posix

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterator
    from pathlib import Path


#: The folder of a relative name is the current one (sys/fcntl.h).
_AT_FDCWD = -2

#: proc_listpidspath: of all processes, those that only wait for events left out (libproc.h).
_ALL_PROCESSES = 1
_WITHOUT_WATCHERS = 2

#: What fcntl says where a file system has no F_FULLFSYNC.
_NO_FULL_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOTTY})


class MacOS(Posix):
    """macOS."""

    def sync(self, descriptor: int) -> None:
        """Force a file's data and size to the disk: fsync leaves them in the drive's own cache."""
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
            os.fsync(descriptor)

    def clone(self, source: int, target: Path) -> None:
        """Make a new file that shares all blocks of an open one (APFS)."""
        import ctypes

        if _library(None).fclonefileat(source, _AT_FDCWD, os.fsencode(target), 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        # It has the flags and the mode of its source, which may forbid to write it.
        os.chflags(target, 0)
        target.chmod(0o600)

    @contextmanager
    def sole_use(self, descriptor: int) -> Iterator[int]:
        """See who has a file open or mapped; see `System.sole_use`.

        Processes of other users are seen by root only, and whoever opens the file later is not kept
        waiting.
        """
        import fcntl

        path = fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0")
        users = _users(path)
        if users is None:
            yield errno.EINVAL
        else:
            yield errno.EAGAIN if users - {os.getpid()} else 0

    def why_unchangeable(self, path: Path) -> tuple[str, str] | None:
        """What keeps everybody from a change; see `System.why_unchangeable`."""
        flags = path.stat().st_flags
        if flags & (stat.UF_IMMUTABLE | stat.SF_IMMUTABLE):
            return "is immutable", "`chflags nouchg,noschg {path}` ends that"
        if flags & (stat.UF_APPEND | stat.SF_APPEND):
            return "is append-only", "`chflags nouappnd,nosappnd {path}` ends that"
        return super().why_unchangeable(path)

    def limit_process(self, seconds: int, memory: int) -> None:
        """As `Posix.limit_process`; memory only where the system does that."""
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        self.forbid_core_dump()


def _users(path: bytes) -> set[int] | None:
    """Numbers of the processes that use a file; None where the system does not tell."""
    import ctypes

    ask = _library("/usr/lib/libproc.dylib").proc_listpidspath
    found = (ctypes.c_int32 * 4096)()
    size = ctypes.sizeof(found)
    taken = ask(_ALL_PROCESSES, 0, path, _WITHOUT_WATCHERS, found, size)
    if not 0 < taken < size:
        return None
    return set(found[: taken // ctypes.sizeof(ctypes.c_int32)])


@cache
def _library(name: str | None) -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(name, use_errno=True)
