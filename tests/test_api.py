"""The public functions with arguments that are wrong: what is raised, and what it says."""

from __future__ import annotations

import inspect
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ggufext
from ggufext import (
    CheckRequest,
    CompareRequest,
    Engine,
    LocalSettings,
    Plan,
    PlanRequest,
    Receipt,
    Rewritten,
    ServerSettings,
)
from ggufext.errors import GgufextError
from llama_here import needs_llama_cpp

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = Path(__file__).parents[1] / "models" / "passkey-Q8_0.gguf"
REQUEST = CheckRequest(lengths=(128,), depths=1, trials=1)
FACTS = ggufext.facts_of(MODEL)


def made() -> Plan:
    return ggufext.plan(MODEL, PlanRequest(target_length=1024))


def done() -> Rewritten:
    return Rewritten(made(), Receipt(None, MODEL, 0, (), 0.0, None))


#: Every public function that takes a file, called with one.
WITH_A_FILE: dict[str, Callable[[Any], object]] = {
    "read_header": ggufext.read_header,
    "inspect": ggufext.inspect,
    "plan": lambda path: ggufext.plan(path, PlanRequest(target_length=1024)),
    "emit": lambda path: ggufext.emit(path, made(), Engine.VLLM),
    "diff": lambda path: ggufext.diff(path, MODEL),
    "diff, the second": lambda path: ggufext.diff(MODEL, path),
    "rewrite": lambda path: ggufext.rewrite(path, PlanRequest(target_length=1024), dry_run=True),
    "set_keys": lambda path: ggufext.set_keys(path, {"general.name": "x"}, dry_run=True),
    "check_draft": lambda path: ggufext.check_draft(path, MODEL, PlanRequest(target_length=1024)),
    "check_draft, the second": lambda path: ggufext.check_draft(
        MODEL, path, PlanRequest(target_length=1024)
    ),
    "undo": ggufext.undo,
    "recover": ggufext.recover,
    "facts_of": ggufext.facts_of,
    "cache_fits": lambda path: ggufext.cache_fits(path, FACTS, 1024, memory=2**30),
    "check": lambda path: ggufext.check(path, REQUEST),
    "compare": lambda path: ggufext.compare(path, CompareRequest(target_length=1024)),
    "measure": lambda path: ggufext.measure(path, ggufext.MeasureRequest(length=256)),
    "tune": lambda path: ggufext.tune(path, ggufext.TuneRequest(target_length=1024, minutes=1)),
}

#: The others, called with what they take.
WITH_SOMETHING_ELSE: dict[str, Callable[[Any], object]] = {
    "bound_missed": lambda result: ggufext.bound_missed(result, 0.9),
    "bound_out_of_reach": lambda request: ggufext.bound_out_of_reach(request, 0.9),
    "decode_recipe": ggufext.decode_recipe,
    "doctor": ggufext.doctor,
    "documented_plan": ggufext.documented_plan,
    "dynamic": lambda facts: ggufext.dynamic(facts, target_length=1024),
    "find_model": ggufext.find_model,
    "first_shard": ggufext.first_shard,
    "is_name": ggufext.is_name,
    "local_path": ggufext.local_path,
    "model_facts": ggufext.model_facts,
    "modelfile": lambda path: ggufext.modelfile(path, done()),
    "place_of": ggufext.place_of,
    "plan_all_methods": lambda facts: ggufext.plan_all_methods(
        facts, PlanRequest(target_length=1024)
    ),
    "check_report_path": ggufext.check_report_path,
    "print_report": ggufext.print_report,
    "read_config": ggufext.read_config,
    "read_recipe": ggufext.read_recipe,
    "self_extend": lambda facts: ggufext.self_extend(facts, target_length=1024),
    "undo_command": ggufext.undo_command,
    "verify": ggufext.verify,
    "write_report": lambda result: ggufext.write_report(result, Path("report.json")),
}


def test_every_public_function_is_tried() -> None:
    functions = {name for name in dir(ggufext) if inspect.isfunction(getattr(ggufext, name))}
    tried = {name.partition(",")[0] for name in (*WITH_A_FILE, *WITH_SOMETHING_ELSE)}
    assert tried == functions - {"known_places"}  # takes nothing


def empty(folder: Path) -> Path:
    (folder / "empty.gguf").touch()
    return folder / "empty.gguf"


def text(folder: Path) -> Path:
    (folder / "text.gguf").write_text("hello")
    return folder / "text.gguf"


def loop(folder: Path) -> Path:
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


NO_MODEL: dict[str, Callable[[Path], Path | str]] = {
    "missing": lambda folder: folder / "none.gguf",
    "missing, as text": lambda folder: str(folder / "none.gguf"),
    "folder": lambda folder: folder,
    "this folder": lambda _: ".",
    "root": lambda _: Path("/"),
    "no name": lambda _: "",
    "below a file": lambda folder: text(folder) / "model.gguf",
    "empty": empty,
    "text": text,
    "link to itself": loop,
    "pipe": pipe,
    "name too long": lambda folder: folder / ("x" * 300),
    "zero byte": lambda folder: folder / "a\0b",
    "half a character": lambda folder: str(folder / "a\ud800b"),
    "no UTF-8": lambda folder: folder / os.fsdecode(b"caf\xe9.gguf"),
    "device": lambda _: "/dev/null",
}


@pytest.mark.parametrize("function", WITH_A_FILE)
@pytest.mark.parametrize("kind", NO_MODEL)
def test_what_is_no_model_is_an_error_of_ours(function: str, kind: str, tmp_path: Path) -> None:
    path = NO_MODEL[kind](tmp_path)
    with pytest.raises(GgufextError) as refused:
        WITH_A_FILE[function](path)
    assert refused.value.path is not None
    assert Path(refused.value.path) == Path(path)
    assert len(refused.value.message) > 10
    if kind.startswith("missing"):
        assert refused.value.code == "unreadable"
        assert "No such file" in refused.value.message
        assert "check the name" in refused.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("function", WITH_A_FILE)
def test_file_that_may_not_be_read_is_an_error_of_ours(function: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.touch(0o000)
    with pytest.raises(GgufextError, match="permissions"):
        WITH_A_FILE[function](path)


@pytest.mark.parametrize("wrong", [None, 5, b"model.gguf", ["model.gguf"], object()])
@pytest.mark.parametrize("function", [*WITH_A_FILE, *WITH_SOMETHING_ELSE])
def test_argument_of_another_type_is_a_type_error(function: str, wrong: object) -> None:
    call = (WITH_A_FILE | WITH_SOMETHING_ELSE)[function]
    with pytest.raises(TypeError, match=f": is {type(wrong).__name__}, expected "):
        call(wrong)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("target_length", "32k"), ("target_length", 1024.0), ("target_length", True),
        ("target_length", None), ("method", "yarn"), ("method", "nonsense"), ("method", None),
        ("gamma", "0.5"), ("train_freq_base", "1e6"), ("recipe", 5), ("recipe", (1.0, 2.0)),
        ("train_length", 1.5), ("train_length", "2k"), ("keep_short", 1), ("force", "no"),
    ],
)  # fmt: skip
def test_option_of_another_type_is_never_planned_with(option: str, wrong: object) -> None:
    options: dict[str, Any] = {"target_length": 1024, option: wrong}
    with pytest.raises(TypeError, match=f"{option}: is {type(wrong).__name__}, expected "):
        ggufext.plan(MODEL, PlanRequest(**options))


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("train_length", 0), ("train_length", -5), ("train_length", 2**31), ("gamma", 10**400),
        ("gamma", math.nan), ("train_freq_base", math.inf),
    ],
)  # fmt: skip
def test_number_outside_its_range_is_a_value_error(option: str, wrong: float) -> None:
    options: dict[str, Any] = {"target_length": 1024, option: wrong}
    with pytest.raises(ValueError, match=rf"{option}: is .*, expected .* to ") as refused:
        ggufext.plan(MODEL, PlanRequest(**options))
    assert not isinstance(refused.value, GgufextError)


@pytest.mark.parametrize("target_length", [0, -1, 2**31, 2**70])
def test_absurd_target_is_refused_like_on_the_command_line(target_length: int) -> None:
    with pytest.raises(GgufextError) as refused:
        ggufext.plan(MODEL, PlanRequest(target_length=target_length))
    assert refused.value.code == "target_absurd"


def request(**changed: Any) -> CheckRequest:
    return CheckRequest(**{"lengths": (128,), "depths": 1, "trials": 1, **changed})


def server(**changed: Any) -> ServerSettings:
    return ServerSettings(**{"url": "http://127.0.0.1:1", "retries": 0, **changed})


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ggufext.check(MODEL, request(mode="sweep")),
        lambda: ggufext.check(MODEL, request(template="chat")),
        lambda: ggufext.check(MODEL, request(conditions="file")),
        lambda: ggufext.check(MODEL, request(seed=None)),
        lambda: ggufext.check(MODEL, request(trials=1.5)),
        lambda: ggufext.check(MODEL, request(resume="trials.jsonl")),
        lambda: ggufext.check(MODEL, request(threshold="0.8")),
        lambda: ggufext.check(MODEL, request(engine=LocalSettings(threads="2"))),  # type: ignore[arg-type]
        lambda: ggufext.check(MODEL, request(engine=LocalSettings(rpc="host:1"))),  # type: ignore[arg-type]
        lambda: ggufext.check(MODEL, request(engine=server())),
        lambda: ggufext.check(server(url=None), REQUEST),
        lambda: ggufext.check(server(api_key=b"key"), REQUEST),
        lambda: ggufext.check(server(retries="3"), REQUEST),
        lambda: ggufext.emit(MODEL, made(), "vllm"),  # type: ignore[arg-type]
    ],
)
def test_settings_of_another_type_are_named(ask: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=r"^\w+(\.\w+)*: is \w+, expected "):
        ask()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ggufext.check(MODEL, request(train_length=-1)),
        lambda: ggufext.check(MODEL, request(target_length=0)),
        lambda: ggufext.check(MODEL, request(answer_tokens=0)),
        lambda: ggufext.check(MODEL, request(seed=-1)),
        lambda: ggufext.check(MODEL, request(threshold=0.0)),
        lambda: ggufext.check(MODEL, request(threshold=1.5)),
        lambda: ggufext.check(MODEL, request(threshold=math.nan)),
        lambda: ggufext.check(MODEL, request(engine=LocalSettings(threads=0))),
        lambda: ggufext.check(MODEL, request(engine=LocalSettings(gpu_layers=-1))),
        lambda: ggufext.check(server(timeout=0.0), REQUEST),
        lambda: ggufext.check(server(timeout=math.inf), REQUEST),
        lambda: ggufext.check(server(retries=-1), REQUEST),
        lambda: ggufext.check(server(retry_seconds=-1.0), REQUEST),
        lambda: ggufext.check(server(), request(engine=LocalSettings())),
    ],
)
def test_settings_outside_their_range_are_named(ask: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"^\w+(\.\w+)*: (is .*, expected |a server runs)"):
        ask()


def test_records_that_cannot_be_written_are_an_error_of_ours(tmp_path: Path) -> None:
    needs_llama_cpp()
    records = tmp_path / "no folder" / "trials.jsonl"
    with pytest.raises(GgufextError) as refused:
        ggufext.check(MODEL, request(resume=records))
    assert refused.value.path == records


def test_public_functions_keep_their_signature_and_words() -> None:
    from ggufext.editing.rewrite import rewrite

    assert inspect.signature(ggufext.rewrite) == inspect.signature(rewrite)
    assert ggufext.rewrite.__doc__ == rewrite.__doc__


@pytest.mark.parametrize("function", [ggufext.inspect, ggufext.plan, ggufext.rewrite])
def test_public_functions_go_to_other_processes(function: object) -> None:
    assert pickle.loads(pickle.dumps(function)) is function


def test_every_name_is_listed_once_and_there() -> None:
    names = dir(ggufext)
    assert len(names) == len(set(names))
    assert all(hasattr(ggufext, name) for name in names)


def test_a_name_that_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = ggufext.nonsense


@pytest.mark.parametrize("name", [name for name in dir(ggufext) if name != "__version__"])
def test_what_public_functions_take_and_return_is_public(name: str) -> None:
    function = getattr(ggufext, name)
    if not inspect.isfunction(function):
        return
    annotations = " ".join(map(str, inspect.unwrap(function).__annotations__.values()))
    others = {"Callable", "FileSystem", "Mapping", "None", "Path"}
    types = set(re.findall(r"[A-Z]\w+", annotations)) - others
    assert types <= set(dir(ggufext))


@pytest.mark.parametrize(
    "program",
    [
        "import ggufext; print(ggufext.errors.GgufextError.__name__)",
        "import ggufext.errors; print(ggufext.errors.GgufextError.__name__)",
        "from ggufext import errors; print(errors.GgufextError.__name__)",
        "import ggufext; ggufext.rope.rotate; print('GgufextError')",
        "from ggufext import *; rewrite, PlanRequest, check; print('GgufextError')",
    ],
)
def test_modules_that_the_readme_names_are_there(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "GgufextError\n", done.stderr
