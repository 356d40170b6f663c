"""Windows: files that nobody else may open meanwhile, and names that change hands at once."""

from __future__ import annotations

import ctypes
import errno
import msvcrt
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from ggufext.system.base import System

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Access, sharing and creation of CreateFile (winnt.h, fileapi.h).
_DELETE, _READ, _WRITE = 0x00010000, 0x80000000, 0x40000000
_SHARE_READ, _SHARE_WRITE, _SHARE_DELETE = 1, 2, 4
_SHARE_ALL = _SHARE_READ | _SHARE_WRITE | _SHARE_DELETE
_CREATE_NEW, _OPEN_EXISTING = 1, 3
_INVALID_HANDLE = ctypes.c_void_p(-1).value

#: Errors of the system (winerror.h).
_SHARING_VIOLATION, _LOCK_VIOLATION = 32, 33

#: LockFileEx: for oneself, and without waiting (minwinbase.h).
_LOCK = 0x1 | 0x2

#: SetFileInformationByHandle: FileRenameInfoEx, which replaces a file that is open (winbase.h).
_RENAME = 22
_REPLACE_AT_ONCE = 0x1 | 0x2

#: NtQueryInformationFile: FileProcessIdsUsingFileInformation (ntifs.h).
_USERS = 47

#: A place that no file reaches: a byte that is locked there keeps nobody from reading.
_LOCK_OFFSET = 2**63 - 2

#: The position of a descriptor belongs to all threads.
_position = threading.Lock()


class Windows(System):
    """Windows."""

    make_writable = "attrib -r {path}"
    apart: ClassVar = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}

    def quote(self, text: str) -> str:
        """A text as one word of the shell."""
        return subprocess.list2cmdline([text])

    def open_for_reading(self, path: Path) -> int:
        """Descriptor of a file, which others may rename and remove meanwhile."""
        return _descriptor(path, _READ, _SHARE_ALL, _OPEN_EXISTING)

    def open_for_editing(self, path: Path) -> int:
        """Descriptor of a file for reading and writing; nobody can open it, unless somebody has."""
        try:
            return _descriptor(path, _READ | _WRITE, _SHARE_DELETE, _OPEN_EXISTING)
        except OSError:
            if ctypes.get_last_error() != _SHARING_VIOLATION:
                raise
        return _descriptor(path, _READ | _WRITE, _SHARE_ALL, _OPEN_EXISTING)

    def open_for_appending(self, path: Path) -> int:
        """Descriptor of a file that grows at its end, made where there is none."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_BINARY | os.O_NOINHERIT)

    def create(self, path: Path, mode: int) -> int:
        """Descriptor of a new file; its folder says who else may read it."""
        return _descriptor(path, _READ | _WRITE, _SHARE_ALL, _CREATE_NEW)

    def read_at(self, descriptor: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes at `offset`; the position stays."""
        with _position:
            before = os.lseek(descriptor, 0, os.SEEK_CUR)
            try:
                os.lseek(descriptor, offset, os.SEEK_SET)
                return os.read(descriptor, size)
            finally:
                os.lseek(descriptor, before, os.SEEK_SET)

    def write_at(self, descriptor: int, data: bytes | memoryview, offset: int) -> int:
        """Write at `offset`; how many bytes were written."""
        with _position:
            before = os.lseek(descriptor, 0, os.SEEK_CUR)
            try:
                os.lseek(descriptor, offset, os.SEEK_SET)
                return os.write(descriptor, data)
            finally:
                os.lseek(descriptor, before, os.SEEK_SET)

    def replace(self, source: Path, target: Path) -> None:
        """Give `source` the name `target` at once, although this process has both open."""
        name = os.path.abspath(target).encode("utf-16-le")  # noqa: PTH100

        class Rename(ctypes.Structure):
            _fields_ = (
                ("flags", ctypes.c_uint32),
                ("folder", ctypes.c_void_p),
                ("size", ctypes.c_uint32),
                ("name", ctypes.c_uint8 * (len(name) + 2)),
            )

        request = Rename(flags=_REPLACE_AT_ONCE, size=len(name))
        request.name[: len(name)] = name
        handle = _handle(source, _DELETE, _SHARE_ALL, _OPEN_EXISTING)
        try:
            wanted, size = ctypes.byref(request), ctypes.sizeof(request)
            if _kernel().SetFileInformationByHandle(handle, _RENAME, wanted, size):
                return
        finally:
            _kernel().CloseHandle(handle)
        # A file system without such a rename has another for targets that nobody has open.
        source.replace(target)

    def lock(self, descriptor: int) -> bool:
        """Take the lock that two runs of ggufext compete for; False when it is taken."""
        place = _Overlapped(offset=_LOCK_OFFSET & 0xFFFFFFFF, offset_high=_LOCK_OFFSET >> 32)
        handle = msvcrt.get_osfhandle(descriptor)
        if _kernel().LockFileEx(handle, _LOCK, 0, 1, 0, ctypes.byref(place)):
            return True
        code = ctypes.get_last_error()
        if code != _LOCK_VIOLATION:
            raise OSError(None, ctypes.FormatError(code), None, code)
        return False

    @contextmanager
    def sole_use(self, descriptor: int) -> Iterator[int]:
        """See who has a file open or mapped; nobody can open it later, see `open_for_editing`."""
        users = _users(msvcrt.get_osfhandle(descriptor))
        if users is None:
            yield errno.EINVAL
        else:
            yield errno.EAGAIN if users - {os.getpid()} else 0

    def end_with_children(self, process: int) -> None:
        """End at once a program that `start_apart` started, and what it started."""
        command = ["taskkill", "/F", "/T", "/PID", str(process)]
        subprocess.run(command, capture_output=True, check=False)

    def processor_name(self) -> str:
        """Name of the processor, ``""`` where nothing tells."""
        return os.environ.get("PROCESSOR_IDENTIFIER", "")

    def machine_memory(self) -> tuple[int, int] | None:
        """Bytes of this machine's memory, free and in all; None where nothing tells."""
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        if not _kernel().GlobalMemoryStatusEx(ctypes.byref(status)):
            return None
        return int(status.free), int(status.total)


class _Overlapped(ctypes.Structure):
    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", ctypes.c_uint32),
        ("offset_high", ctypes.c_uint32),
        ("event", ctypes.c_void_p),
    )


class _MemoryStatus(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("free", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 5),
    )


@cache
def _kernel() -> ctypes.WinDLL:
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateFileW.restype = ctypes.c_void_p
    kernel.CreateFileW.argtypes = (
        *(ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
        *(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
    )
    number, pointer = ctypes.c_uint32, ctypes.c_void_p
    kernel.LockFileEx.argtypes = (pointer, number, number, number, number, pointer)
    kernel.SetFileInformationByHandle.argtypes = (pointer, number, pointer, number)
    kernel.CloseHandle.argtypes = (pointer,)
    return kernel


def _handle(path: Path, access: int, share: int, creation: int) -> int:
    handle = _kernel().CreateFileW(os.fspath(path), access, share, None, creation, 0, None)
    if handle is None or handle == _INVALID_HANDLE:
        code = ctypes.get_last_error()
        raise OSError(None, ctypes.FormatError(code), os.fspath(path), code)
    return int(handle)


def _descriptor(path: Path, access: int, share: int, creation: int) -> int:
    flags = os.O_BINARY | os.O_NOINHERIT | (os.O_RDWR if access & _WRITE else os.O_RDONLY)
    return msvcrt.open_osfhandle(_handle(path, access, share, creation), flags)


def _users(handle: int) -> set[int] | None:
    """Numbers of the processes that have a file open or mapped; None where nobody tells."""
    ask = ctypes.WinDLL("ntdll").NtQueryInformationFile
    ask.argtypes = (
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_uint32, ctypes.c_uint32),
    )
    outcome = (ctypes.c_void_p * 2)()
    # A count, then the numbers, each as wide as a pointer.
    found = (ctypes.c_size_t * 4096)()
    if ask(handle, ctypes.byref(outcome), ctypes.byref(found), ctypes.sizeof(found), _USERS) != 0:
        return None
    return set(found[1 : 1 + (found[0] & 0xFFFFFFFF)])
