"""Fixtures that several folders of tests share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ggufext.opened.files import FileSystem
from ggufext.opened.strategies import insert_block
from llama_here import needs_llama_cpp
from random_model import write_random_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Two workers with two threads each on two processors wait for each other; one thread each does not.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[int(worker.removeprefix("gw")) % len(processors)]})

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _shipped_models_are_left_alone() -> Iterator[None]:
    models = sorted((REPOSITORY / "models").glob("*.gguf"))
    before = [model.read_bytes() for model in models]
    yield
    assert [model.read_bytes() for model in models] == before, "a test changed a shipped model"


@pytest.fixture(scope="session")
def real_headers() -> Path:
    """Folder of real vocabulary-only headers, which is no part of the project."""
    shared = Path(os.environ.get("GGUFEXT_SHARED", REPOSITORY.parent / "shared"))
    folder = shared / "data" / "vocab"
    if not folder.is_dir():
        pytest.skip("no real headers here; GGUFEXT_SHARED names the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A random two-layer model of an architecture, made once and not to be changed."""
    folder = tmp_path_factory.mktemp("models")

    def model(architecture: str) -> Path:
        path = folder / f"{architecture}.gguf"
        return path if path.exists() else write_random_model(path, architecture)

    return model


@pytest.fixture
def llama(random_models: Callable[[str], Path], tmp_path: Path) -> Path:
    """A random llama model of the test's own."""
    path = tmp_path / "model.gguf"
    path.write_bytes(random_models("llama").read_bytes())
    return path


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a dask scheduler with two workers: real processes on this machine."""
    needs_llama_cpp()
    dask, distributed = (pytest.importorskip(name) for name in ("dask", "distributed"))
    # Their start on a busy machine takes longer than dask's 30 seconds.
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300s"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
    ):
        yield cluster.scheduler_address


@pytest.fixture
def without_llama_cpp(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No package that brings llama.cpp, as if none were installed."""
    folder = tmp_path_factory.mktemp("without")
    for module in ("llama_cpp", "xllamacpp"):
        (folder / f"{module}.py").write_text("raise ImportError('not installed')\n")
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def inserting(tmp_path: Path) -> int:
    """Bytes of a block in a folder whose file system can insert ranges."""
    block = insert_block(FileSystem(), tmp_path)
    if block is None:
        pytest.skip("the file system of the temporary folder cannot insert ranges (ext4, xfs can)")
    return block


@pytest.fixture(scope="session")
def passkey_model() -> Path:
    """The shipped model; not to be changed."""
    needs_llama_cpp()
    return REPOSITORY / "models" / "passkey-Q8_0.gguf"


@pytest.fixture
def passkey_copy(passkey_model: Path, tmp_path: Path) -> Path:
    """A copy of the shipped model to edit."""
    return Path(shutil.copy(passkey_model, tmp_path / "passkey.gguf"))
