"""Real servers on loopback with a model of the project, for the tests that ask them."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import pytest

from ggufext.audit.engines.connection import Connection
from ggufext.audit.request import LocalSettings, ServerSettings
from ggufext.llama.process import LlamaProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = Path(__file__).parents[2] / "models" / "passkey-Q8_0.gguf"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """Address of a server, and its process."""

    url: str
    process: subprocess.Popen[bytes]


def free_port() -> int:
    """A port of loopback that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_for(url: str, path: str) -> None:
    """Try until a server that starts answers, at longer and longer intervals."""
    settings = ServerSettings(url=url, retries=9, retry_seconds=0.1)
    with closing(Connection(settings)) as connection:
        connection.get(path)


@contextmanager
def llama_cpp_python(*arguments: str, n_ctx: int = 512) -> Iterator[RunningServer]:
    """llama-cpp-python's server with the shipped model on one thread."""
    if any(find_spec(name) is None for name in ("llama_cpp", "uvicorn", "starlette_context")):
        pytest.skip("needs llama-cpp-python[server]")
    cpu = Path("/proc/cpuinfo")
    if cpu.exists() and "amx_tile" in cpu.read_text():
        pytest.skip("llama-cpp-python's server cannot be told to avoid the crash on AMX")
    port = free_port()
    usual = ["--model", str(MODEL), "--n_ctx", str(n_ctx), "--n_threads", "1", "--port", str(port)]
    child = subprocess.Popen(
        [sys.executable, "-m", "llama_cpp.server", *usual, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, "/v1/models")
        yield RunningServer(url, child)
    finally:
        child.kill()
        child.wait()


def llama_server_command() -> list[str]:
    """llama.cpp's own server: GGUFEXT_LLAMA_SERVER names its program; else xllamacpp brings it."""
    if program := os.environ.get("GGUFEXT_LLAMA_SERVER"):
        return [program]
    if find_spec("xllamacpp") is None:
        pytest.skip("needs xllamacpp, or llama-server: GGUFEXT_LLAMA_SERVER names the program")
    return [sys.executable, str(Path(__file__).with_name("xllamacpp_server.py"))]


@contextmanager
def llama_router(preset: Path) -> Iterator[RunningServer]:
    """llama.cpp's own server as a router of the entries of a file."""
    program = os.environ.get("GGUFEXT_LLAMA_SERVER")
    if program is None:
        pytest.skip("xllamacpp brings no router: GGUFEXT_LLAMA_SERVER names a llama-server")
    port = free_port()
    arguments = ["--models-preset", str(preset), "-t", "1", "-tb", "1", "--port", str(port)]
    child = subprocess.Popen(
        [program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, "/health")
        yield RunningServer(url, child)
    finally:
        child.terminate()  # it ends its models
        child.wait()


def write_llama_server(path: Path, before: str = "") -> Path:
    """Write a program that becomes llama.cpp's own server, after some lines of shell."""
    path.write_text(f'#!/bin/sh\n{before}\nexec {shlex.join(llama_server_command())} "$@"\n')
    path.chmod(0o755)
    return path


@contextmanager
def llama_server(model: Path, *arguments: str, n_ctx: int = 512) -> Iterator[RunningServer]:
    """llama.cpp's own server with a model on one thread."""
    command = llama_server_command()
    port = free_port()
    usual = ["-m", str(model), "-c", str(n_ctx), "-t", "1", "-tb", "1", "-np", "1"]
    child = subprocess.Popen(
        [*command, *usual, "--port", str(port), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, "/health")
        yield RunningServer(url, child)
    finally:
        child.kill()
        child.wait()


@dataclass(frozen=True, slots=True)
class RpcWorker:
    """An RPC worker of llama.cpp: how to run a model on it, and its process."""

    settings: LocalSettings
    process: subprocess.Popen[bytes]


@contextmanager
def rpc_worker() -> Iterator[RpcWorker]:
    """llama.cpp's RPC worker; GGUFEXT_RPC_SERVER names its program.

    It is asked by the libllama beside the program, as in the folder of a build, else by the
    installed one.
    """
    named = os.environ.get("GGUFEXT_RPC_SERVER") or which("ggml-rpc-server")
    if named is None:
        pytest.skip("needs llama.cpp's RPC worker: GGUFEXT_RPC_SERVER names the program")
    folder = Path(named).parent
    llama_cpp = folder if list(folder.glob("libllama.*")) else None
    with LlamaProcess(llama_cpp) as process:
        if not process.hello().rpc:
            pytest.skip("this llama.cpp was built without RPC")
    port = free_port()
    child = subprocess.Popen(
        [named, "-H", "127.0.0.1", "-p", str(port), "-t", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while not _listens(port) and time.monotonic() < deadline:
            os.sched_yield()
        settings = LocalSettings(
            threads=1, flash_attention=False, rpc=(f"127.0.0.1:{port}",), llama_cpp=llama_cpp
        )
        yield RpcWorker(settings, child)
    finally:
        child.kill()
        child.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
