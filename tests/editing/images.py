"""File systems in loop images: they need root, loop devices and mkfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4096
IMAGE_SIZE = 320 * 2**20

#: Commands that make a file system, by what the tests call it.
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-b", str(BLOCK)),
    "ext4 bigalloc": ("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-O", "bigalloc", "-C", "65536"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-b", f"size={BLOCK}", "-m", "reflink=1"),
    "xfs without reflink": ("mkfs.xfs", "-q", "-f", "-b", f"size={BLOCK}", "-m", "reflink=0"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}


class Image:
    """A mounted loop image."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.file = folder / "image"
        self.mount_point = folder / "mounted"
        self.mount_point.mkdir()
        with self.file.open("wb") as image:
            image.truncate(IMAGE_SIZE)
        subprocess.run([*MAKE[kind], str(self.file)], check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        subprocess.run(
            ["mount", "-o", "loop", self.file, self.mount_point], check=True, capture_output=True
        )

    def unmount(self) -> None:
        subprocess.run(["umount", self.mount_point], check=True)

    def used(self) -> int:
        """Bytes in use, with everything on the disk."""
        os.sync()
        status = os.statvfs(self.mount_point)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


Made = TypeVar("Made", bound=Image)


def mounted_image(folder: Path, kind: str, image: type[Made]) -> Made:
    """A fresh image; the test is skipped where it cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a loop image")
    if shutil.which(MAKE[kind][0]) is None:
        pytest.skip(f"needs {MAKE[kind][0]}")
    try:
        return image(folder, kind)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop image of {kind} here: {error}: {error.stderr!r}")
