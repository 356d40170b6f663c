"""A library of llama.cpp is used only where its build is a known one."""

from __future__ import annotations

import ctypes
import math
import platform
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ggufext.errors import EngineError
from ggufext.llama import binding
from ggufext.llama.process import LlamaProcess
from ggufext.system import system
from llama_here import needs_llama_cpp

CALL = re.compile(r"(?:api|library)\.(llama_\w+)\(")

#: A package that is to be installed in one version.
PIN = re.compile(r"(llama-cpp-python|xllamacpp)==([\d.]+)")

RELEASES = [f"\0{each}-dev\0".encode() for each in binding._CONTEXT_PARAMS]


@pytest.fixture
def library() -> Path:
    """The library that is used."""
    return needs_llama_cpp().path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the libraries of an installed llama-cpp-python, still empty; nothing else is."""
    folder = tmp_path / "llama_cpp" / "lib"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "xllamacpp.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("llama_cpp", "xllamacpp"):  # other tests import them
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def refusal() -> EngineError:
    with LlamaProcess() as process, pytest.raises(EngineError) as refused:
        process.hello()
    return refused.value


def test_nothing_but_the_library_is_loaded(library: Path, package: Path) -> None:
    for file in library.parent.iterdir():
        (package / file.name).symlink_to(file)
    (package / "libllama.so").unlink(missing_ok=True)
    (package / "libllama.so").symlink_to(library)
    with LlamaProcess() as process:
        hello = process.hello()
    assert hello.package == "llama-cpp-python"
    assert "CPU" in hello.system
    assert hello.devices


def test_a_file_that_is_no_library_is_refused(package: Path) -> None:
    (package / "libllama.so").write_text("no library")
    refused = refusal()
    assert refused.code == "engine_unknown"
    assert "libllama.so" in refused.message
    assert "cannot be loaded" in refused.message


def test_another_library_is_refused(package: Path) -> None:
    other = find_spec("_ctypes")
    assert other is not None
    assert other.origin is not None
    (package / "libllama.so").symlink_to(other.origin)
    refused = refusal()
    assert refused.code == "engine_unknown"
    assert "has no llama_" in refused.message


def test_another_release_is_refused(library: Path, package: Path) -> None:
    for file in library.parent.iterdir():
        if file.name != library.name:
            (package / file.name).symlink_to(file)
    release = next(each for each in RELEASES if each in library.read_bytes())
    other = b"\x000.0.9-dev\x00"
    (package / "libllama.so").write_bytes(library.read_bytes().replace(release, other))
    refused = refusal()
    assert refused.code == "engine_unknown"
    assert "is llama.cpp 0.0.9-dev; known is 0.5.0 and 0.6.0" in refused.message


def test_an_installed_package_without_a_library_is_missing(package: Path) -> None:
    assert refusal().code == "extra_missing"


@pytest.fixture
def prebuilt(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Library of an installed xllamacpp, on a processor that nothing is known of."""
    folder = tmp_path / "xllamacpp"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "xllamacpp.abi3.so").touch()
    monkeypatch.setattr(system, "processor_features", frozenset)
    return folder / "xllamacpp.abi3.so"


def installs(folder: Path, version: str) -> None:
    """Say that llama-cpp-python is installed in this version."""
    metadata = folder / f"llama_cpp_python-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: {version}\n")


def test_llama_cpp_python_is_used_where_both_are_there(
    package: Path, prebuilt: Path, tmp_path: Path
) -> None:
    installs(tmp_path, "0.3.36")
    assert binding.installed().path == prebuilt
    (package / "libllama.so").touch()
    place = binding.installed()
    assert (place.package, place.version) == ("llama-cpp-python", "0.3.36")
    assert place.path == package / "libllama.so"


def test_another_version_of_it_is_used_only_where_it_is_alone(
    package: Path, prebuilt: Path, tmp_path: Path
) -> None:
    installs(tmp_path, "0.3.20")
    (package / "libllama.so").touch()
    assert binding.installed().path == prebuilt
    prebuilt.unlink()
    assert binding.installed().path == package / "libllama.so"


def test_messages_and_extras_name_the_versions_that_were_tried() -> None:
    root = Path(__file__).parents[2]
    sources = [root / "pyproject.toml", *(root / "src").rglob("*.py")]
    named = {pin for file in sources for pin in PIN.findall(file.read_text(encoding="utf-8"))}
    assert named == {(package, version) for package, version, *_ in binding._PACKAGES}


@pytest.mark.parametrize("lacking", ["avx2", "fma", "f16c", "bmi2"])
def test_a_processor_without_what_the_prebuilt_one_needs_is_named_before_loading(
    lacking: str, package: Path, prebuilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = {"sse2", "avx2", "fma", "f16c", "bmi2"}
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(system, "processor_features", lambda: frozenset(features))
    assert binding.installed().path == prebuilt
    features.remove(lacking)
    with pytest.raises(EngineError, match=f"lacks {lacking}, which xllamacpp") as refused:
        binding.installed()
    assert refused.value.code == "extra_missing"
    assert "pip install llama-cpp-python==" in refused.value.message
    installs(tmp_path, "0.3.36")
    (package / "libllama.so").touch()
    assert binding.installed().package == "llama-cpp-python"


def test_every_function_that_is_called_is_declared() -> None:
    declared = {*binding._FUNCTIONS, "llama_context_default_params", "llama_model_default_params"}
    declared |= {"llama_init_from_model", "llama_model_load_from_file"}
    sources = Path(binding.__file__).parent.glob("*.py")
    called = {name for file in sources for name in CALL.findall(file.read_text())}
    assert len(called) > 30
    assert called == declared


class Parameters(ctypes.Structure):
    """What a made-up function returns."""

    _fields_ = (("count", ctypes.c_int32), ("scale", ctypes.c_double), ("flag", ctypes.c_bool))


class Longer(ctypes.Structure):
    """The same with one pointer more."""

    _fields_ = (*Parameters._fields_, ("pointer", ctypes.c_void_p))


def returning(value: ctypes.Structure) -> Any:
    """A library whose function ``make`` fills the place it is given."""

    class Library:
        @staticmethod
        def make(place: Any) -> None:
            ctypes.memmove(place, ctypes.byref(value), ctypes.sizeof(value))

    return Library


def check(value: ctypes.Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    defaults = {"count": 3, "scale": 0.5, "flag": 1}
    binding._check(returning(value), Path("made up"), "make", Parameters, defaults)


def test_parameters_as_described_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    check(Parameters(3, 0.5, True), monkeypatch)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Longer(3, 0.5, True), "fills 32 bytes, not 24"),
        (Parameters(4, 0.5, True), "gives count 4, not 3"),
        (Parameters(3, math.nan, True), "gives scale nan, not 0.5"),
        (Parameters(3, 0.5, False), "gives flag False, not 1"),
    ],
)
def test_parameters_of_another_layout_are_refused(
    value: ctypes.Structure, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=words) as refused:
        check(value, monkeypatch)
    assert refused.value.code == "engine_unknown"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_known_build_passes_where_sizes_can_be_seen_and_where_not(
    library: Path, machine: str
) -> None:
    program = (
        "import platform\n"
        f"platform.machine = lambda: {machine!r}\n"
        "from pathlib import Path\n"
        "from ggufext.llama.binding import load\n"
        f"parameters = load(Path({str(library)!r})).llama_context_default_params()\n"
        "print(parameters.n_ctx, parameters.swa_full)\n"
    )
    if machine == "x86_64" and platform.machine() not in binding._X86_64:
        pytest.skip("results are returned otherwise on this machine")
    search_path = f"import sys; sys.path[:] = {sys.path!r}\n"
    said = subprocess.run(
        [sys.executable, "-c", search_path + program], capture_output=True, text=True, check=True
    )
    assert said.stdout == "512 True\n"
