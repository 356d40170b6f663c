"""A llama-server that the audit starts: what is another program, dies, hangs or says nothing."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ggufext.audit.check import check
from ggufext.audit.engines import llama_server
from ggufext.audit.request import CheckRequest, LocalSettings
from ggufext.errors import EngineError, GgufextError, PlanError
from made_up_programs import HANG, ends, write_program
from made_up_servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.audit.findings.results import CheckResult

REQUEST = CheckRequest(lengths=(256, 768), depths=1, trials=1)

needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="waits for a process as Linux can"
)


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    return partial(write_program, tmp_path)


def run(
    model: Path, program: Path, request: CheckRequest = REQUEST, **settings: Any
) -> CheckResult:
    return check(model, replace(request, engine=LocalSettings(llama_server=program, **settings)))


def refusal(model: Path, program: Path) -> GgufextError:
    with pytest.raises(GgufextError) as refused:
        run(model, program)
    return refused.value


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/bin/true", "--override-kv"),
        ("/bin/cat", "--ctx-size"),
        ("/bin/false", "--help"),
        ("/", "no program"),
        ("no-such-program", "no program"),
    ],
)
def test_another_program_is_named(passkey_model: Path, name: str, words: str) -> None:
    refused = refusal(passkey_model, Path(name))
    assert refused.code == "not_llama_server"
    assert words in refused.message


def test_a_file_that_no_system_runs_is_named(passkey_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    path.write_bytes(b"\x7fELF nothing")
    path.chmod(0o755)
    refused = refusal(passkey_model, path)
    assert refused.code == "not_llama_server"
    assert "Exec format error" in refused.message
    assert "File" not in refused.message


def test_an_older_version_is_named_by_what_it_does_not_know(
    passkey_model: Path, program: Callable[..., Path]
) -> None:
    path = program("", at_help="grep -v override help; exit")
    refused = refusal(passkey_model, path)
    assert refused.code == "not_llama_server"
    assert "does not name --override-kv;" in refused.message


@needs_pidfd
def test_a_program_that_hangs_at_its_help_is_ended(
    passkey_model: Path,
    program: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # The time counts from the start of Python, which the script may not have reached then.
    monkeypatch.setattr(llama_server, "_HELP", 2.0)
    refused = refusal(passkey_model, program("", at_help=HANG))
    assert refused.code == "not_llama_server"
    assert "--help does not end" in refused.message
    assert ends(int((tmp_path / "pid").read_text()))


@needs_pidfd
@pytest.mark.parametrize("at_help", [True, False])
def test_one_that_writes_without_end_is_ended_long_before_the_disk_is_full(
    at_help: bool,
    passkey_model: Path,
    program: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(llama_server, "_LONGEST_LOG", 1 << 20)
    flood = "echo $$ > pid; exec yes words without end"
    path = program("", at_help=flood) if at_help else program(flood)
    refused = refusal(passkey_model, path)
    assert refused.code == ("not_llama_server" if at_help else "engine_unreachable")
    assert "1.00 MiB" in refused.message
    assert "words without end" in refused.message
    assert len(refused.message) < 1000
    assert ends(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("echo error: invalid argument: --new >&2; exit 1", "engine_died", "argument: --new"),
        ("exit 0", "engine_died", "status 0; its log, last line first: empty"),
        ("kill -SEGV $$", "engine_died", "SIGSEGV"),
        ("kill -KILL $$", "engine_died", "memory runs out"),
        ("echo failed to allocate 9 GB; exit 1", "out_of_memory", "9 GB"),
        ("echo one; echo two; echo three; echo four; exit 7", "engine_died", "four | three | two"),
        (
            "echo 0.00.01 E srv load: no; echo 0.00.02 E srv load: no; exit 1",
            "engine_died",
            "first: srv load: no",
        ),
        (r"printf '\033[2J\n'; exit 1", "engine_died", r"\x1b[2J"),
    ],
)
def test_how_it_died_at_its_start_is_said(
    passkey_model: Path, program: Callable[..., Path], body: str, code: str, words: str
) -> None:
    died = refusal(passkey_model, program(body))
    assert died.code == code
    assert words in died.message


@needs_pidfd
@pytest.mark.parametrize("body", [HANG, "tail -f /dev/null & echo $! > pid; echo waits; wait"])
def test_one_that_never_listens_is_ended_with_all_that_it_started(
    passkey_model: Path,
    program: Callable[..., Path],
    body: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(llama_server, "_START", 2.0)
    hanging = refusal(passkey_model, program(body))
    assert hanging.code == "engine_unreachable"
    assert "does not answer within" in hanging.message
    assert ("waits" in hanging.message) is ("waits" in body)
    assert ends(int((tmp_path / "pid").read_text()))


def test_another_program_on_its_port_is_not_taken_for_it(
    passkey_model: Path, program: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(path: str, _: object) -> tuple[int, dict[str, object]]:
        return 200, {"status": "ok"} if path == "/health" else {"model_path": "another.gguf"}

    with serving(respond) as url:
        monkeypatch.setattr(llama_server, "_free_port", lambda: int(url.rpartition(":")[2]))
        path = program("echo could not bind the socket >&2; exit 1")
        died = refusal(passkey_model, path)
        monkeypatch.setattr(llama_server, "_END", 0.1)
        foreign = refusal(passkey_model, program(HANG))
    assert died.code == "engine_died"
    assert "could not bind the socket" in died.message
    assert foreign.code == "server_not_understood"
    assert "another program answers" in foreign.message


def test_it_gets_what_the_condition_means_and_nothing_of_the_environment(
    passkey_model: Path,
    program: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "17")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    path = program('printf "%s\\n" "$@" > arguments; env > environment; exit 1')
    request = CheckRequest(lengths=(700,), depths=1, trials=1, conditions=("planned:gamma",))
    with pytest.raises(EngineError):
        run(passkey_model, path, request, gpu_layers=5, threads=3, flash_attention=True)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    said = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert said.pop("--port").isdecimal()
    overrides = said.pop("--override-kv").split(",")
    assert "llama.context_length=int:768" in overrides
    assert any(each.startswith("llama.rope.freq_base=float:") for each in overrides)
    assert said == {
        "--model": str(passkey_model),
        "--host": "127.0.0.1",
        "--ctx-size": "768",
        "--parallel": "1",
        "--cache-type-k": "f16",
        "--cache-type-v": "f16",
        "--threads": "3",
        "--n-gpu-layers": "5",
        "--flash-attn": "on",
    }
    environment = (tmp_path / "environment").read_text()
    assert "LLAMA_ARG" not in environment
    assert "CUDA_VISIBLE_DEVICES=3" in environment


def test_older_versions_get_an_option_for_every_override_and_known_switches_only(
    passkey_model: Path, program: Callable[..., Path], tmp_path: Path
) -> None:
    path = program('printf "%s\\n" "$@" > arguments; exit 1', options="KEY=TYPE:VALUE --no-webui")
    request = CheckRequest(lengths=(700,), depths=1, trials=1, conditions=("planned:yarn",))
    with pytest.raises(EngineError):
        run(passkey_model, path, request)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments.count("--override-kv") > 1
    assert not any("," in each for each in arguments)
    assert "--no-webui" in arguments
    assert "--swa-full" not in arguments


def test_a_context_beyond_that_of_the_file_is_allowed_without_another_rotation(
    passkey_model: Path, program: Callable[..., Path], tmp_path: Path
) -> None:
    path = program('printf "%s\\n" "$@" > arguments; exit 1')
    with pytest.raises(EngineError):
        run(passkey_model, path)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[arguments.index("--override-kv") + 1].split(",") == [
        "llama.rope.scaling.original_context_length=int:256",
        "llama.context_length=int:768",
    ]


def test_self_extend_is_refused_by_name(passkey_model: Path, program: Callable[..., Path]) -> None:
    request = CheckRequest(lengths=(256,), conditions=("self-extend:g=2,w=64",))
    with pytest.raises(PlanError, match="self-extend:g=2,w=64") as refused:
        run(passkey_model, program("exit 1"), request)
    assert refused.value.code == "bad_condition"


@pytest.mark.parametrize("other", [{"rpc": ("h:1",)}, {"dask": "tcp://h:1"}, {"audit": True}])
def test_what_belongs_to_the_engine_here_is_refused_by_name(other: dict[str, object]) -> None:
    (name,) = other
    with pytest.raises(PlanError, match=f"--{name} ") as refused:
        LocalSettings(llama_server=Path("llama-server"), **other)  # type: ignore[arg-type]
    assert refused.value.code == "request_absurd"
