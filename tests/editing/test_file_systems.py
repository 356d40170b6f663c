"""Real file systems: what each one does for an edit, and what stays with the file."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from editing.disk import PowerFailure, RecordingDisk, StoppingDisk
from editing.images import MAKE, Image, mounted_image
from editing.test_promises import PRESENT, write_model
from ggufext.editing.rewrite import recover, rewrite, undo, unextend
from ggufext.editing.setting import set_keys
from ggufext.errors import EditError
from ggufext.header.frequencies import ROPE_FREQS
from ggufext.header.header import read_header
from ggufext.opened import history
from ggufext.opened.inspection import inspect
from ggufext.opened.strategies import Strategy
from ggufext.planning.methods import Method
from ggufext.planning.request import PlanRequest
from ggufext.system import system
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How a first edit gets into a file, and by how many bytes it grows.
FIRST_EDIT = {
    "ext4": (Strategy.INSERT, 4096),
    "ext4 bigalloc": (Strategy.INSERT, 65536),
    "xfs": (Strategy.REFLINK, 4096),
    "xfs without reflink": (Strategy.INSERT, 4096),
    "btrfs": (Strategy.REFLINK, 4096),
}
SHARING = ["xfs", "btrfs"]
MODEL_SIZE = 24 * 2**20


@pytest.fixture(scope="module", params=list(MAKE))
def image(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Image]:
    made = mounted_image(tmp_path_factory.mktemp("image"), request.param, Image)
    yield made
    made.unmount()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "model.gguf"
    return write_random_model(path, "llama", size=MODEL_SIZE)


@pytest.fixture
def model(image: Image, source: Path) -> Iterator[Path]:
    folder = image.mount_point / "models"
    folder.mkdir()
    yield shutil.copyfile(source, folder / "model.gguf")
    shutil.rmtree(folder)


only_sharing = pytest.mark.parametrize("image", SHARING, indirect=True)


def test_a_tensor_is_appended_and_taken_back_on_every_file_system(
    image: Image, model: Path
) -> None:
    original = model.read_bytes()
    first = rewrite(model, PlanRequest(target_length=8192, method=Method.LLAMA3))
    assert first.receipt.strategy is FIRST_EDIT[image.kind][0]
    assert read_header(model).tensors[-1].name == ROPE_FREQS
    for request in ({"keep_short": True}, {"method": Method.GAMMA}, {"method": Method.LLAMA3}):
        rewrite(model, PlanRequest(target_length=8192, **request))
    undo(model)
    assert model.read_bytes() == original


def test_the_first_edit_takes_the_way_of_its_file_system(image: Image, model: Path) -> None:
    original = model.read_bytes()
    strategy, growth = FIRST_EDIT[image.kind]
    assert rewrite(model, PlanRequest(target_length=8192)).receipt.strategy is strategy
    assert model.stat().st_size == len(original) + growth
    before, after = read_header(model), model.read_bytes()
    assert after[before.data_offset :] == original[before.data_offset - growth :]
    assert rewrite(model, PlanRequest(target_length=16384)).receipt.strategy is Strategy.OVERWRITE
    assert undo(model).strategy is strategy
    assert model.read_bytes() == original
    assert list(model.parent.iterdir()) == [model]


def test_an_edit_takes_no_room_for_the_data(image: Image, model: Path) -> None:
    before = image.used()
    rewrite(model, PlanRequest(target_length=8192))
    assert image.used() - before < MODEL_SIZE // 8
    undo(model)
    assert image.used() - before < MODEL_SIZE // 8


# Whether xfs can share blocks shows only when it is tried.
@pytest.mark.parametrize("image", ["ext4", "xfs", "btrfs"], indirect=True)
def test_inspect_names_the_strategy_that_is_taken(image: Image, model: Path) -> None:
    assert inspect(model).likely_strategy is FIRST_EDIT[image.kind][0]


@only_sharing
def test_a_new_file_shares_its_data_with_the_source(image: Image, model: Path) -> None:
    original, before = model.read_bytes(), image.used()
    output = model.with_name("long.gguf")
    assert (
        rewrite(model, PlanRequest(target_length=8192), output=output).receipt.strategy
        is Strategy.REFLINK
    )
    assert image.used() - before < MODEL_SIZE // 8
    assert model.read_bytes() == original
    again = model.with_name("original.gguf")
    assert undo(output, output=again).strategy is Strategy.REFLINK
    assert image.used() - before < MODEL_SIZE // 8
    assert again.read_bytes() == original
    undo(output)
    assert output.read_bytes() == original


@only_sharing
@pytest.mark.parametrize("name", ["", "short", 9000 * "x"], ids=["as it was", "short", "long"])
def test_a_file_without_its_extension_shares_its_data_too(
    image: Image, model: Path, name: str
) -> None:
    if name:
        set_keys(model, {"general.name": name})
    rewrite(model, PlanRequest(target_length=8192, method=Method.LLAMA3))
    before, output = image.used(), model.with_name("unextended.gguf")
    assert unextend(model, output).strategy is Strategy.REFLINK
    assert image.used() - before < MODEL_SIZE // 8
    header = read_header(output)
    assert header.value("llama.context_length") == 2048
    if name:
        assert header.value("general.name") == name


@only_sharing
def test_the_source_of_a_shared_file_does_not_change_with_it(image: Image, model: Path) -> None:
    original = model.read_bytes()
    output = model.with_name("long.gguf")
    rewrite(model, PlanRequest(target_length=8192), output=output)
    with output.open("r+b") as file:
        file.seek(len(original) // 2)
        file.write(b"something else")
    assert model.read_bytes() == original


@only_sharing
def test_a_new_file_without_history_is_copied_since_nothing_fills_its_blocks(
    image: Image, model: Path
) -> None:
    write = partial(
        rewrite,
        model,
        PlanRequest(target_length=8192),
        output=model.with_name("new.gguf"),
        keep_history=False,
    )
    with pytest.raises(EditError, match="no filler") as caught:
        write(strategy=Strategy.REFLINK)
    assert caught.value.code == "strategy_unusable"
    assert write().receipt.strategy is Strategy.COPY


@pytest.mark.parametrize("image", ["ext4", "xfs without reflink"], indirect=True)
def test_reflink_is_refused_where_blocks_cannot_be_shared(image: Image, model: Path) -> None:
    with pytest.raises(EditError, match="cannot share") as caught:
        rewrite(model, PlanRequest(target_length=8192), strategy=Strategy.REFLINK)
    assert caught.value.code == "strategy_unusable"


@only_sharing
@pytest.mark.parametrize("tear", [False, True], ids=["whole writes", "torn writes"])
def test_a_reflink_stopped_anywhere_leaves_the_old_or_the_new_file(
    image: Image, model: Path, tear: bool
) -> None:
    original = model.read_bytes()
    disk = RecordingDisk()
    rewrite(model, PlanRequest(target_length=8192), files=disk)
    assert "share_range" in disk.done
    for stop in range(1, len(disk.done) + 1):
        undo(model)
        with pytest.raises(PowerFailure):
            rewrite(model, PlanRequest(target_length=8192), files=StoppingDisk(stop, tear=tear))
        recover(model)
        assert list(model.parent.iterdir()) == [model]
        if model.read_bytes() == original:
            rewrite(model, PlanRequest(target_length=8192))
        else:
            assert read_header(model).value("llama.context_length") == 8192
    undo(model)
    assert model.read_bytes() == original


def test_a_loaded_file_is_refused_or_replaced_by_force(image: Image, model: Path) -> None:
    original = model.read_bytes()
    replacing = Strategy.REFLINK if image.kind in SHARING else Strategy.COPY
    with model.open("rb") as loaded:
        with pytest.raises(EditError) as caught:
            rewrite(model, PlanRequest(target_length=8192))
        assert caught.value.code == "in_use"
        assert (
            rewrite(model, PlanRequest(target_length=8192, force=True)).receipt.strategy
            is replacing
        )
        assert loaded.read() == original
    with model.open("rb") as loaded:
        edited = model.read_bytes()
        assert undo(model, force=True).strategy is replacing
        assert loaded.read() == edited
    assert model.read_bytes() == original


@only_sharing
def test_values_change_in_a_clone_of_a_loaded_file(image: Image, model: Path) -> None:
    original = model.read_bytes()
    rewrite(model, PlanRequest(target_length=8192))
    before = image.used()
    with model.open("rb") as loaded:
        edited = model.read_bytes()
        again = rewrite(model, PlanRequest(target_length=16384, force=True)).receipt
        assert again.strategy is Strategy.REFLINK
        assert loaded.read() == edited
    assert len(edited) == model.stat().st_size  # nothing grew
    assert image.used() - before < MODEL_SIZE // 8
    undo(model)
    assert model.read_bytes() == original


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A folder in memory, where nothing can grow in place."""
    place = Path("/dev/shm")
    if not place.is_dir() or system.file_system_type(place) != "tmpfs":
        pytest.skip("no tmpfs here")
    with TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.mark.parametrize("method", [Method.GAMMA, Method.NTK])
def test_where_nothing_grows_values_are_overwritten_and_the_record_lies_beside(
    tmpfs: Path, method: Method
) -> None:
    path = write_model(tmpfs / "m.gguf", PRESENT)
    original, inode = path.read_bytes(), path.stat().st_ino
    for target in (4096, 8192):
        done = rewrite(path, PlanRequest(target_length=target, method=method))
        assert done.receipt.strategy is Strategy.OVERWRITE
        assert (path.stat().st_ino, path.stat().st_size) == (inode, len(original))
        assert history.sidecar(path).exists()
    undo(path)
    assert path.read_bytes() == original
    assert list(tmpfs.iterdir()) == [path]
    grows = rewrite(path, PlanRequest(target_length=4096, method=Method.YARN)).receipt
    assert grows.strategy is Strategy.COPY
    undo(path)
    assert path.read_bytes() == original


def strategies_of(kind: str) -> list[Strategy]:
    return [Strategy.COPY] + [Strategy.REFLINK] * (kind in SHARING)


def test_replacing_a_file_keeps_what_belongs_to_it(image: Image, model: Path) -> None:
    os.chown(model, 12345, 23456)
    model.chmod(0o2640)
    os.setxattr(model, "user.origin", b"here")
    for strategy in strategies_of(image.kind):
        os.utime(model, (1e9, 1e9))
        inode, started = model.stat().st_ino, time.time()
        rewrite(model, PlanRequest(target_length=8192), strategy=strategy)
        found = model.stat()
        assert found.st_ino != inode
        assert (found.st_uid, found.st_gid) == (12345, 23456)
        assert stat.S_IMODE(found.st_mode) == 0o2640
        assert os.getxattr(model, "user.origin") == b"here"
        assert found.st_mtime > started - 1
        undo(model)


def test_replacing_a_file_keeps_its_access_list(image: Image, model: Path) -> None:
    if shutil.which("setfacl") is None:
        pytest.skip("needs setfacl")
    subprocess.run(["setfacl", "-m", "u:12345:rw,g:23456:r", model], check=True)

    def access() -> str:
        done = subprocess.run(
            ["getfacl", "-c", "-n", model], check=True, capture_output=True, text=True
        )
        return done.stdout

    before = access()
    assert "user:12345:rw-" in before
    for strategy in strategies_of(image.kind):
        rewrite(model, PlanRequest(target_length=8192), strategy=strategy)
        assert access() == before
        undo(model)
    output = model.with_name("new.gguf")
    rewrite(model, PlanRequest(target_length=8192), output=output)
    assert os.getxattr(output, "system.posix_acl_access") == os.getxattr(
        model, "system.posix_acl_access"
    )
