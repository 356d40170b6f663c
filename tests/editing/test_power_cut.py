"""A real file system that stops in the middle of moving a file's data, then comes back.

Needs root, loop devices and mkfs. The image is as fragmented as it can be, so that moving takes
long enough to be cut off half-way; how far it came differs from run to run, what has to hold
afterwards does not.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

from editing.disk import PowerFailure, RecordingDisk
from editing.images import BLOCK, Image, mounted_image
from ggufext.editing.rewrite import recover, rewrite, undo
from ggufext.errors import GgufextError
from ggufext.header.header import read_header
from ggufext.opened import journal as journals
from ggufext.opened.files import FileSystem
from ggufext.opened.strategies import Strategy
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: The same number for ext4 (EXT4_IOC_SHUTDOWN) and xfs (XFS_IOC_GOINGDOWN).
SHUTDOWN = 0x8004587D
#: What the log holds reaches the disk, so that a move that needs many transactions is cut off.
FLUSHING_THE_LOG = struct.pack("I", 1)
#: What was not synchronized is lost.
LOSING_THE_LOG = struct.pack("I", 2)

PUNCH_HOLE_KEEP_SIZE = 0x03
TRIALS = 12


class FragileImage(Image):
    """An image whose power can be cut, and whose free space can be torn to pieces."""

    def cut_power(self, how: bytes = FLUSHING_THE_LOG) -> None:
        folder = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, how)
        finally:
            os.close(folder)

    def fragment(self, size: int) -> None:
        """Leave `size` bytes of free space in single blocks, and none beside them."""
        taken = self.mount_point / "taken"
        with taken.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2 * size)
            file.write(b"x" * (2 * size))
            file.flush()
            os.fsync(file.fileno())
            status = os.statvfs(self.mount_point)
            rest = self.mount_point / "rest"
            with rest.open("wb") as other:
                os.posix_fallocate(other.fileno(), 0, status.f_bavail * status.f_frsize - size // 8)
            libc = ctypes.CDLL(None, use_errno=True)
            for offset in range(0, 2 * size, 2 * BLOCK):
                place, length = ctypes.c_int64(offset), ctypes.c_int64(BLOCK)
                assert not libc.fallocate(file.fileno(), PUNCH_HOLE_KEEP_SIZE, place, length)
            os.fsync(file.fileno())


@pytest.fixture(scope="module", params=["ext4", "xfs without reflink"])
def image(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FragileImage]:
    made = mounted_image(tmp_path_factory.mktemp("images"), request.param, FragileImage)
    yield made
    made.unmount()


class FailingPower(FileSystem):
    """Cuts the power after a share of the time that moving the data takes.

    Parameters
    ----------
    share : float or None
        Of the spins that an uncut move took; None: cut nothing, count the spins.
    """

    def __init__(self, image: FragileImage, spins: int = 0, share: float | None = None) -> None:
        self.image = image
        self.spins = spins
        self.share = share

    def insert_range(self, descriptor: int, offset: int, length: int) -> None:
        self._cut(super().insert_range, descriptor, offset, length)

    def collapse_range(self, descriptor: int, offset: int, length: int) -> None:
        self._cut(super().collapse_range, descriptor, offset, length)

    def _cut(
        self, move: Callable[[int, int, int], None], descriptor: int, offset: int, length: int
    ) -> None:
        if self.size(descriptor) < 2**20:  # the probe's file
            move(descriptor, offset, length)
            return
        errors: list[OSError] = []

        def run() -> None:
            try:
                move(descriptor, offset, length)
            except OSError as error:
                errors.append(error)

        mover = threading.Thread(target=run)
        mover.start()
        if self.share is None:
            while mover.is_alive():
                self.spins += 1
                os.getppid()
            return
        for _ in range(int(self.spins * self.share)):
            mover.is_alive()
            os.getppid()
        self.image.cut_power()
        mover.join()
        raise errors[0] if errors else OSError("the power failed")


@pytest.mark.parametrize("method", [Method.GAMMA, Method.LLAMA3], ids=["metadata", "tensor"])
def test_a_power_cut_while_data_moves_leaves_a_recoverable_file(
    image: FragileImage, tmp_path: Path, method: Method
) -> None:
    request = PlanRequest(target_length=8192, method=method)
    source = write_random_model(tmp_path / "model.gguf", "llama", size=24 * 2**20)
    original = source.read_bytes()
    image.fragment(len(original) + 4 * 2**20)
    path = image.mount_point / "model.gguf"
    shutil.copyfile(source, path)
    os.sync()
    inserting, collapsing = FailingPower(image), FailingPower(image)
    assert rewrite(path, request, files=inserting).receipt.strategy is Strategy.INSERT
    assert undo(path, files=collapsing).strategy is Strategy.INSERT
    for trial in range(TRIALS):
        # Even trials cut an insert off, odd ones a collapse.
        undoing = trial % 2 == 1
        if undoing:
            rewrite(path, request)
            os.sync()
        spins = (collapsing if undoing else inserting).spins
        power = FailingPower(image, spins, share=(trial + 0.5) / TRIALS)
        with pytest.raises((OSError, GgufextError)):
            undo(path, files=power) if undoing else rewrite(path, request, files=power)
        image.unmount()
        image.mount()
        recover(path)
        assert not journals.path_for(path).exists()
        if path.read_bytes() != original:
            assert read_header(path).value("llama.context_length") == 8192
            undo(path)
        assert path.read_bytes() == original
    for file in image.mount_point.iterdir():
        if file.is_file():
            file.unlink()


class PowerCutAfter(RecordingDisk):
    """Cuts the power after a number of operations."""

    def __init__(self, image: FragileImage, after: int, how: bytes) -> None:
        super().__init__()
        self.image = image
        self.after = after
        self.how = how

    def _do(self, name: str, *args: Any) -> Any:
        result = super()._do(name, *args)
        if len(self.done) == self.after:
            if name == "create":
                self.close(result)
            self.image.cut_power(self.how)
            raise PowerFailure
        return result


@pytest.mark.parametrize("how", [FLUSHING_THE_LOG, LOSING_THE_LOG], ids=["log flushed", "log lost"])
@pytest.mark.parametrize("method", [Method.GAMMA, Method.LLAMA3], ids=["metadata", "tensor"])
@pytest.mark.parametrize(
    ("image", "operation"),
    [("xfs", "share_range"), ("xfs without reflink", "insert_range"), ("ext4", "insert_range")],
    ids=["reflink", "insert on xfs", "insert on ext4"],
    indirect=["image"],
)
def test_a_power_cut_after_any_operation_leaves_the_old_or_the_new_file(
    image: FragileImage, operation: str, method: Method, how: bytes
) -> None:
    request = PlanRequest(target_length=8192, method=method)
    folder = image.mount_point / "models"
    folder.mkdir()
    path = write_random_model(folder / "model.gguf", "llama")
    original = path.read_bytes()
    disk = RecordingDisk()
    rewrite(path, request, files=disk)
    assert operation in disk.done
    for stop in range(1, len(disk.done) + 1):
        undo(path)
        os.sync()
        with pytest.raises(PowerFailure):
            rewrite(path, request, files=PowerCutAfter(image, stop, how))
        image.unmount()
        image.mount()
        recover(path)
        assert list(folder.iterdir()) == [path]
        if path.read_bytes() == original:
            rewrite(path, request)
        else:
            assert read_header(path).value("llama.context_length") == 8192
    undo(path)
    assert path.read_bytes() == original
    shutil.rmtree(folder)
