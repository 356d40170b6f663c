"""The classes of other systems over doubles of their calls: none of them was run there."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib
import os
import stat
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from editing.test_promises import PRESENT, write_model
from ggufext.editing.rewrite import rewrite, undo
from ggufext.header import header as headers
from ggufext.header.header import read_header
from ggufext.opened import files, guards, history, strategies
from ggufext.opened.strategies import Strategy
from ggufext.planning.request import PlanRequest
from ggufext.system import system

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="doubles over Linux")

SOMEBODY = os.getppid()


def everywhere(monkeypatch: pytest.MonkeyPatch, other: Any) -> None:
    """Let all that edits a file work through another system."""
    for module in (files, guards, strategies, headers):
        monkeypatch.setattr(module, "system", other)


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Module of macOS, whose kernel clones by copying and names the users in `users`."""
    monkeypatch.setattr(sys, "platform", "darwin")
    module = importlib.import_module("ggufext.system.macos")
    monkeypatch.setattr(sys, "platform", "linux")
    module.users = {os.getpid()}  # type: ignore[attr-defined]
    module.synced = []  # type: ignore[attr-defined]

    def clone(source: int, folder: int, target: bytes, flags: int) -> int:
        assert (folder, flags) == (-2, 0)
        with open(target, "xb") as new:  # noqa: PTH123
            new.write(os.pread(source, os.fstat(source).st_size, 0))
        return 0

    def users(kind: int, _: int, path: bytes, flags: int, found: Any, size: int) -> int:
        assert (kind, flags, os.path.exists(path)) == (1, 2, True)  # noqa: PTH110
        for place, process in enumerate(module.users):
            found[place] = process
        return 4 * len(module.users)

    def control(descriptor: int, command: str, argument: bytes = b"") -> bytes:
        if command == "sync":
            module.synced.append(descriptor)
            return b""
        path = os.fsencode(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
        return path.ljust(len(argument), b"\0")

    library = SimpleNamespace(fclonefileat=clone, proc_listpidspath=users)
    monkeypatch.setattr(module, "_library", lambda _name: library)
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", "sync", raising=False)
    monkeypatch.setattr(fcntl, "F_GETPATH", "path", raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "chflags", lambda *_: None, raising=False)
    return module


def test_macos_names_what_its_flags_forbid(macos: ModuleType, tmp_path: Path) -> None:
    def obstacle(flags: int) -> Any:
        path = SimpleNamespace(stat=lambda: SimpleNamespace(st_flags=flags))
        return macos.MacOS().why_unchangeable(path)

    assert "nouchg" in obstacle(stat.UF_IMMUTABLE)[1]
    assert obstacle(stat.SF_APPEND)[0] == "is append-only"


def test_macos_falls_back_where_a_file_system_has_no_full_sync(
    macos: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    monkeypatch.setattr(os, "fsync", done.append)
    for code, taken in ((errno.ENOTSUP, True), (errno.EIO, False)):

        def refuse(*_: object, code: int = code) -> None:
            raise OSError(code, "no")

        monkeypatch.setattr(fcntl, "fcntl", refuse)
        if taken:
            macos.MacOS().sync(7)
        else:
            with pytest.raises(OSError, match="no"):
                macos.MacOS().sync(7)
    assert done == [7]


@pytest.fixture
def edits_on_macos(macos: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    other = macos.MacOS()
    monkeypatch.setattr(other, "why_unchangeable", system.why_unchangeable)
    everywhere(monkeypatch, other)
    return macos


def test_on_macos_values_are_overwritten_where_nobody_has_the_file(
    edits_on_macos: ModuleType, tmp_path: Path
) -> None:
    path = write_model(tmp_path / "m.gguf", PRESENT)
    original, inode = path.read_bytes(), path.stat().st_ino
    done = rewrite(path, PlanRequest(target_length=4096))
    assert done.receipt.strategy is Strategy.OVERWRITE
    assert history.sidecar(path).exists()
    assert edits_on_macos.synced
    undo(path)
    assert path.read_bytes() == original
    assert path.stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("users", [{os.getpid(), SOMEBODY}, set()])
def test_on_macos_a_file_in_use_or_of_unknown_use_is_replaced(
    edits_on_macos: ModuleType, tmp_path: Path, users: set[int]
) -> None:
    path = write_model(tmp_path / "m.gguf", PRESENT)
    original, inode = path.read_bytes(), path.stat().st_ino
    edits_on_macos.users = users  # type: ignore[attr-defined]
    done = rewrite(path, PlanRequest(target_length=4096, force=True))
    assert done.receipt.strategy is Strategy.COPY  # the record lies in the header, which grows
    assert path.stat().st_ino != inode
    # Now there is room, and a clone of the file is all that a later edit needs.
    done = rewrite(path, PlanRequest(target_length=8192, force=True))
    assert done.receipt.strategy is Strategy.REFLINK
    undo(path, force=True)
    assert path.read_bytes() == original
    assert list(tmp_path.iterdir()) == [path]


def test_on_macos_a_new_file_without_record_is_a_clone_with_other_values(
    edits_on_macos: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "m.gguf", PRESENT)
    new, copy = tmp_path / "new.gguf", tmp_path / "copy.gguf"
    request = PlanRequest(target_length=4096)
    done = rewrite(path, request, output=new, keep_history=False)
    assert done.receipt.strategy is Strategy.REFLINK
    rewrite(path, request, output=copy, keep_history=False, strategy=Strategy.COPY)
    assert new.read_bytes() == copy.read_bytes()
    with pytest.raises(Exception, match="shares whole files only"):
        rewrite(path, request, output=tmp_path / "more.gguf", strategy=Strategy.REFLINK)
    assert sorted(tmp_path.iterdir()) == [copy, path, new]


class Kernel:
    """Double of the calls of Windows: who shares what, over files of Linux."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[str, int, int]] = {}
        self.code = 0
        self.others: set[int] = set()
        self.replaces_open_files = True

    def _fail(self, code: int) -> int:
        self.code = code
        return ctypes.c_void_p(-1).value or 0

    def _still_open(self) -> list[tuple[str, int, int]]:
        for handle in list(self.open):
            try:
                os.fstat(handle)
            except OSError:
                del self.open[handle]
        return list(self.open.values())

    def CreateFileW(  # noqa: N802
        self, path: str, access: int, share: int, _: None, creation: int, __: int, ___: None
    ) -> int:
        wanted = (1 if access >> 31 & 1 else 0) | (2 if access >> 30 & 1 else 0)
        wanted |= 4 if access & 0x10000 else 0
        real = os.path.realpath(path)
        for other, held, shared in self._still_open():
            if other == real and (wanted & ~shared or held & ~share):
                return self._fail(32)
        flags = os.O_RDWR if access >> 30 & 1 else os.O_RDONLY
        try:
            handle = os.open(path, flags | (os.O_CREAT | os.O_EXCL if creation == 1 else 0), 0o600)
        except FileExistsError:
            return self._fail(80)
        except FileNotFoundError:
            return self._fail(2)
        self.open[handle] = (real, wanted, share)
        return handle

    def CloseHandle(self, handle: int) -> None:  # noqa: N802
        os.close(handle)

    def SetFileInformationByHandle(  # noqa: N802
        self, handle: int, kind: int, request: Any, size: int
    ) -> int:
        data = bytes(request._obj)[:size]
        length = int.from_bytes(data[16:20], "little")
        if not self.replaces_open_files:
            self.code = 87
            return 0
        assert (kind, data[:4], data[8:16]) == (22, b"\x03\0\0\0", bytes(8))
        target = data[20 : 20 + length].decode("utf-16-le")
        for other, _, shared in self._still_open():
            if other == target and not shared & 4:
                self.code = 5
                return 0
        os.replace(self.open[handle][0], target)  # noqa: PTH105
        return 1

    def LockFileEx(  # noqa: N802
        self, handle: int, flags: int, _: int, low: int, high: int, place: Any
    ) -> int:
        assert (flags, low, high, place._obj.offset_high) == (3, 1, 0, 0x7FFFFFFF)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.code = 33
            return 0
        return 1

    def GlobalMemoryStatusEx(self, status: Any) -> int:  # noqa: N802
        assert status._obj.length == ctypes.sizeof(status._obj) == 64
        status._obj.free, status._obj.total = 3, 5
        return 1

    def users(self, _: int, __: Any, found: Any, size: int, kind: int) -> int:
        assert (size, kind) == (8 * 4096, 47)
        if not self.others:
            return 1  # as a file system that does not tell
        for place, number in enumerate((len(self.others), *self.others)):
            found._obj[place] = number
        return 0


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    kernel = Kernel()
    kernel.others = {os.getpid()}
    msvcrt = ModuleType("msvcrt")
    msvcrt.open_osfhandle = lambda handle, _flags: handle  # type: ignore[attr-defined]
    msvcrt.get_osfhandle = lambda descriptor: descriptor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "msvcrt", msvcrt)
    for name, value in (("O_BINARY", 0), ("O_NOINHERIT", os.O_CLOEXEC)):
        monkeypatch.setattr(os, name, value, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    for name, double in (
        ("get_last_error", lambda: kernel.code),
        ("FormatError", lambda code: f"error {code}"),
    ):
        monkeypatch.setattr(ctypes, name, double, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delitem(sys.modules, "ggufext.system.windows", raising=False)
    module = importlib.import_module("ggufext.system.windows")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(module, "_kernel", lambda: kernel)

    def ask(*given: Any) -> int:  # a function takes the attributes that one of a library has
        return kernel.users(*given)

    library = SimpleNamespace(NtQueryInformationFile=ask)
    monkeypatch.setattr(ctypes, "WinDLL", lambda _name: library, raising=False)
    return SimpleNamespace(kernel=kernel, system=module.Windows())


def test_windows_reads_writes_and_locks(windows: SimpleNamespace, tmp_path: Path) -> None:
    other, path = windows.system, tmp_path / "f"
    descriptor = other.create(path, 0o600)
    assert other.write_at(descriptor, b"abcd", 2) == 4
    assert other.read_at(descriptor, 9, 1) == b"\0abcd"
    assert other.lock(descriptor)
    second = other.open_for_reading(path)
    assert not other.lock(second)
    os.close(second)
    os.close(descriptor)
    with pytest.raises(OSError, match="error 80"):
        other.create(path, 0o600)
    assert other.machine_memory() == (3, 5)
    assert other.quote(r"C:\my models\a.gguf") == r'"C:\my models\a.gguf"'


@pytest.mark.parametrize("replaces_open_files", [True, False])
def test_on_windows_values_are_overwritten_in_a_file_that_nobody_can_open_meanwhile(
    windows: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    replaces_open_files: bool,
) -> None:
    everywhere(monkeypatch, windows.system)
    windows.kernel.replaces_open_files = replaces_open_files
    path = write_model(tmp_path / "m.gguf", PRESENT)
    original = path.read_bytes()
    done = rewrite(path, PlanRequest(target_length=4096))
    assert done.receipt.strategy is Strategy.OVERWRITE
    assert history.sidecar(path).exists()
    undo(path)
    assert path.read_bytes() == original
    assert list(tmp_path.iterdir()) == [path]
    descriptor = windows.system.open_for_editing(path)
    with pytest.raises(OSError, match="error 32"):
        windows.system.open_for_reading(path)
    os.close(descriptor)


def test_on_windows_a_header_that_grows_is_copied_and_takes_the_name_of_the_open_file(
    windows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere(monkeypatch, windows.system)
    path = write_model(tmp_path / "m.gguf", {})
    original = path.read_bytes()
    done = rewrite(path, PlanRequest(target_length=4096))
    assert done.receipt.strategy is Strategy.COPY
    assert read_header(path).value("llama.context_length") == 4096
    undo(path)
    assert path.read_bytes() == original
    assert list(tmp_path.iterdir()) == [path]


def in_use(kernel: Kernel, _path: Path) -> Callable[[], None]:
    kernel.others |= {SOMEBODY}
    return lambda: None


def opened(kernel: Kernel, path: Path) -> Callable[[], None]:
    handle = kernel.CreateFileW(os.fspath(path), 1 << 31, 7, None, 3, 0, None)
    kernel.others |= {SOMEBODY}
    return lambda: os.close(handle)


@pytest.mark.parametrize("use", [in_use, opened])
def test_on_windows_a_file_in_use_is_refused_and_replaced_by_force(
    windows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Any
) -> None:
    everywhere(monkeypatch, windows.system)
    path = write_model(tmp_path / "m.gguf", PRESENT)
    end = use(windows.kernel, path)
    with pytest.raises(Exception, match="open in another program"):
        rewrite(path, PlanRequest(target_length=4096))
    done = rewrite(path, PlanRequest(target_length=4096, force=True))
    assert done.receipt.strategy is Strategy.COPY
    end()


def test_on_windows_a_file_of_which_nobody_tells_is_replaced(
    windows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere(monkeypatch, windows.system)
    windows.kernel.others = set()
    path = write_model(tmp_path / "m.gguf", PRESENT)
    done = rewrite(path, PlanRequest(target_length=4096))
    assert done.receipt.strategy is Strategy.COPY
