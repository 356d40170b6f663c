"""Linux: ranges that move and are shared, leases, nameless files, and what /proc and /sys say."""

from __future__ import annotations

import errno
import os
import signal
import struct
import sys
import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

assert sys.platform == "linux"

from ggufext.system.posix import Posix

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterator


#: fallocate modes (linux/falloc.h).
_COLLAPSE_RANGE = 0x08
_INSERT_RANGE = 0x20

#: ioctls: FICLONERANGE, FS_IOC_GETFLAGS; FS_IMMUTABLE_FL and FS_APPEND_FL (linux/fs.h).
_CLONE_RANGE = 0x4020940D
_GET_FLAGS = 0x80086601
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20


class Linux(Posix):
    """Linux."""

    def create_nameless(self, folder: Path) -> int:
        """Descriptor of a new file without a name, gone when it is closed."""
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)

    def insert_range(self, descriptor: int, offset: int, length: int) -> None:
        """Shift everything from `offset` on by `length` bytes, leaving a hole."""
        _fallocate(descriptor, _INSERT_RANGE, offset, length)

    def collapse_range(self, descriptor: int, offset: int, length: int) -> None:
        """Take `length` bytes at `offset` out, shifting the rest down."""
        _fallocate(descriptor, _COLLAPSE_RANGE, offset, length)

    def share_range(
        self, source: int, source_offset: int, target: int, target_offset: int, size: int
    ) -> None:
        """Let a range of `target` lie in the same blocks as one of `source`."""
        import fcntl

        request = struct.pack("=qQQQ", source, source_offset, size, target_offset)
        fcntl.ioctl(target, _CLONE_RANGE, request)

    def clone(self, source: int, target: Path) -> None:
        """Make a new file that shares all blocks of an open one."""
        descriptor = self.create(target, 0o600)
        try:
            # A size of 0 means all of the source.
            self.share_range(source, 0, descriptor, 0, 0)
        except OSError:
            target.unlink()
            raise
        finally:
            os.close(descriptor)

    @contextmanager
    def sole_use(self, descriptor: int) -> Iterator[int]:
        """Hold a write lease, which only the sole user of a file gets; see `System.sole_use`."""
        import fcntl

        # Whoever opens the file now makes the kernel send SIGIO, which ends the process unless
        # it is ignored. Only the main thread may say so.
        ignore = threading.current_thread() is threading.main_thread()
        previous = signal.signal(signal.SIGIO, signal.SIG_IGN) if ignore else None
        try:
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError as error:
                yield error.errno or errno.EINVAL
                return
            # The lease stays, its signal goes nowhere.
            fcntl.fcntl(descriptor, fcntl.F_SETOWN, 0)
            try:
                yield 0
            finally:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        finally:
            if ignore:
                signal.signal(signal.SIGIO, previous)

    def file_system_type(self, path: Path) -> str:
        """Name of the file system that holds a path."""
        # By the mount's number: files on btrfs show other device numbers than their mount.
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            about = _lines(Path(f"/proc/self/fdinfo/{descriptor}"))
        finally:
            os.close(descriptor)
        number = next((line.split()[1] for line in about if line.startswith("mnt_id:")), "")
        for line in _lines(Path("/proc/self/mountinfo")):
            left, _, right = line.partition(" - ")
            if left.split(maxsplit=1)[0] == number:
                return right.split()[0]
        return ""

    def why_unchangeable(self, path: Path) -> tuple[str, str] | None:
        """What keeps everybody, root too, from a change; see `System.why_unchangeable`."""
        if mounted := super().why_unchangeable(path):
            return mounted
        attributes = _attributes(path)
        if attributes & _IMMUTABLE:
            return "is immutable", "`chattr -i {path}` as root ends that"
        if attributes & _APPEND_ONLY:
            return "is append-only", "`chattr -a {path}` as root ends that"
        return None

    def usable_processors(self) -> int:
        """Processors that this process may use."""
        return len(os.sched_getaffinity(0))

    def processor_name(self) -> str:
        """Name of the processor, ``""`` where nothing tells."""
        return _of_processor("model name")

    def processor_features(self) -> frozenset[str]:
        """Instruction sets as Linux names them (``"avx2"``); empty where nothing tells."""
        return frozenset(_of_processor("flags", "Features").split())

    def machine_memory(self) -> tuple[int, int] | None:
        """Bytes of this machine's memory, free and in all; None where nothing tells."""
        fields = _fields(Path("/proc/meminfo"))
        if not {"MemAvailable:", "MemTotal:"} <= fields.keys():
            return None
        return fields["MemAvailable:"], fields["MemTotal:"]

    def available_memory(self) -> int:
        """Bytes that this process may still take: of the machine, its group and its limits."""
        machine = self.machine_memory()
        found = (machine and machine[0], _of_control_group(), _of_address_space())
        return min((each for each in found if each is not None), default=1 << 62)


def _fallocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2) with a mode, repeated when a signal interrupts it."""
    import ctypes

    call = _libc().fallocate
    while call(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))


@cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _attributes(path: Path) -> int:
    """Attributes as chattr(1) sets them; 0 where the file system has none."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        flags = fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return int.from_bytes(flags[:4], sys.byteorder)


def _of_processor(*names: str) -> str:
    pairs = (line.partition(":") for line in _lines(Path("/proc/cpuinfo")))
    return next((value.strip() for name, _, value in pairs if name.strip() in names), "")


def _of_control_group() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        # Page cache is given up before anything is killed.
        cached = next(
            int(line.split()[1])
            for line in (folder / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
    except (OSError, ValueError, StopIteration):
        return None
    return None if limit == "max" else max(0, int(limit) - used + cached)


def _of_address_space() -> int | None:
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    used = _fields(Path("/proc/self/status")).get("VmSize:", 0)
    return max(0, limit - used)


def _fields(path: Path) -> dict[str, int]:
    """Sizes in a file of ``Name: 123 kB`` lines, in bytes."""
    lines = [line.split() for line in _lines(path)]
    return {
        line[0]: int(line[1]) * 1024
        for line in lines
        if len(line) == 3 and line[2] == "kB" and line[1].isdigit()
    }


def _lines(path: Path) -> list[str]:
    """Lines of a file of the kernel, none where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
