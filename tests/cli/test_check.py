"""``ggufext check``: its options, what it prints, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from gguf_bytes import gguf_bytes
from ggufext import rewrite
from ggufext.audit import check as auditing
from ggufext.audit.conditions import CopyNeeded
from ggufext.audit.engines import Answer
from ggufext.audit.request import CheckRequest, LocalSettings, Mode, ServerSettings
from ggufext.audit.run import file_run, server_run
from ggufext.audit.run.duration import Estimate
from ggufext.audit.run.measure import Computing, Preparing, Progress, RunNotes
from ggufext.audit.run.records import Trial
from ggufext.cli import check as check_progress
from ggufext.cli.check import check
from ggufext.cli.waiting import Told, Wait
from ggufext.errors import EngineError, GgufextError
from ggufext.llama.process import Hello
from ggufext.planning.footprint import CacheType
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ggufext.audit.run.measure import Measured
    from ggufext.audit.task import Question
    from ggufext.audit.task.templates import Frame

MODEL = Path(__file__).parents[2] / "models" / "passkey-Q8_0.gguf"


class MadeUpEngine:
    """Stands in for llama.cpp and for servers: right up to a length, and what it was asked for.

    Everything between the command line and the engine is the program's own.
    """

    def __init__(self) -> None:
        self.right_up_to = 10**9
        self.measured_up_to = 10**9
        #: Raised in the place of the first answer that is not measured.
        self.ends_with: BaseException | None = None
        self.before: Callable[[], object] = lambda: None
        self.path = ""
        self.request = CheckRequest()
        self.allows_copy: bool | None = None
        self.local: LocalSettings | None = None
        self.server: ServerSettings | None = None
        self.hello = Hello(
            "libllama.so",
            "llama.cpp",
            "0",
            "0",
            "CPU",
            ["CPU"],
            gpu=False,
            rpc=False,
            device_memory=0,
            available=1 << 40,
        )
        self.n_vocab, self.bos, self.eos = 260, "", ""
        self.addresses, self.model, self.around = ("",), "made up", 1

    def measure_model(
        self, model: Any, request: CheckRequest, *, allow_copy: Any, **rest: Any
    ) -> Any:
        self.path, self.request, self.local = str(model), request, request.engine
        self.allows_copy = allow_copy(CopyNeeded("planned:llama3", Path(), 1, 2))
        if isinstance(model, ServerSettings):
            self.server, self.addresses = model, (model.url,)
        return _measure_model(model, request, allow_copy=allow_copy, **rest)

    def frame(self, frame: Frame) -> tuple[int, int]:
        return 1, 0

    def counts(self, parts: Sequence[str]) -> list[int]:
        return [len(pieces) for pieces in self.pieces(parts)]

    def pieces(self, texts: Sequence[str]) -> list[list[bytes]]:
        return [[x.encode() for x in re.findall(r" ?[A-Za-z]+| ?\d|[^\w ]", t)] for t in texts]

    def answers(
        self, _: object, questions: Sequence[Question], *, tokens: int
    ) -> Iterator[tuple[Question, Answer]]:
        self.before()
        for question in sorted(questions, key=lambda question: question.length):
            is_measured = question.length <= self.measured_up_to
            if self.ends_with is not None and not is_measured:
                raise self.ends_with
            said = question.key if question.length <= self.right_up_to else "no idea"
            yield question, Answer(f" {said}.", 10, 20, measured=is_measured)

    def warnings(self) -> tuple[()]:
        return ()

    def close(self) -> None:
        pass


_measure_model: Callable[..., Measured] = auditing.measure_model


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> MadeUpEngine:
    made_up = MadeUpEngine()
    monkeypatch.setattr(auditing, "measure_model", made_up.measure_model)
    for module, name in ((file_run, "LlamaCpp"), (file_run, "Cluster"), (server_run, "Servers")):
        monkeypatch.setattr(module, name, lambda *_, **__: made_up)
    monkeypatch.setattr(file_run, "measure_speed", lambda *_, **__: {})
    return made_up


def ran(*arguments: str | Path) -> Result:
    return CliRunner().invoke(check, [str(argument) for argument in arguments])


def refusal(result: Result) -> GgufextError:
    assert isinstance(result.exception, GgufextError)
    return result.exception


def test_a_passing_check_prints_the_heatmap_and_exits_0(engine: MadeUpEngine) -> None:
    result = ran(MODEL, "--lengths", "256,512")
    assert result.exit_code == 0
    assert "passkey-Q8_0.gguf" in result.stdout
    assert "100 %" in result.stdout


def test_lengths_take_binary_multiples_rise_and_count_once(engine: MadeUpEngine) -> None:
    ran(MODEL, "--lengths", "1k, 512,256,1024")
    assert engine.request.lengths == (256, 512, 1024)


@pytest.mark.parametrize("lengths", ["32q", "-1", "0", "1e3k", "4k,,8k", "", "4k;8k"])
def test_lengths_that_are_none_are_usage_errors(engine: MadeUpEngine, lengths: str) -> None:
    assert ran(MODEL, f"--lengths={lengths}").exit_code == 2


def asked_lengths(result: Result) -> object:
    return json.loads(result.stdout)["request"]["lengths"]


def test_without_lengths_the_file_is_asked_up_to_its_context_length(engine: MadeUpEngine) -> None:
    assert asked_lengths(ran(MODEL, "--json")) == [256]


def test_without_lengths_an_extended_file_is_asked_at_up_to_four_doublings(
    engine: MadeUpEngine, tmp_path: Path
) -> None:
    extended = tmp_path / "extended.gguf"
    rewrite(MODEL, PlanRequest(target_length=4096), output=extended)
    assert asked_lengths(ran(extended, "--json")) == [512, 1024, 2048, 4096]


def test_options_arrive_at_the_engine(
    engine: MadeUpEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "run.jsonl"
    monkeypatch.setattr(file_run, "_audit", lambda *_: "compared")
    result = ran(
        *(MODEL, "--lengths", "512", "--depths", "4", "--trials", "3", "--mode", "sweep"),
        *("--condition", "native", "--condition", "planned:yarn", "--condition", "native"),
        *("--seed", "7", "--template", "none", "--train-length", "200", "--resume", kept),
        *("--gpu-layers", "5", "--threads", "2", "--kv-type", "q8_0", "--flash-attention", "on"),
        *("--rpc", "127.0.0.1:50052", "--audit"),
    )
    assert result.exit_code == 0, result.output
    asked, local = engine.request, engine.local
    assert (asked.depths, asked.trials, asked.mode, asked.seed) == (4, 3, Mode.SWEEP, 7)
    assert asked.conditions == ("native", "planned:yarn", "native")
    assert (asked.template.value, asked.train_length) == ("none", 200)
    assert asked.resume == kept
    assert local is not None
    assert (local.gpu_layers, local.threads, local.cache_type) == (5, 2, CacheType.Q8_0)
    assert (local.flash_attention, local.rpc, local.audit) == (True, ("127.0.0.1:50052",), True)


def test_the_address_of_a_cluster_arrives_at_the_engine(engine: MadeUpEngine) -> None:
    ran(MODEL, "--dask", "tcp://127.0.0.1:8786")
    assert engine.local is not None
    assert engine.local.dask == "tcp://127.0.0.1:8786"


def test_devices_take_as_many_layers_as_fit_by_default(engine: MadeUpEngine) -> None:
    ran(MODEL)
    assert engine.local is not None
    assert engine.local.gpu_layers is None


@pytest.mark.parametrize("layers", ["many", "-1", "1.5"])
def test_layers_that_are_no_number_are_usage_errors(engine: MadeUpEngine, layers: str) -> None:
    assert ran(MODEL, f"--gpu-layers={layers}").exit_code == 2


@pytest.mark.parametrize(
    ("given", "depths"),
    [
        ("1", 1),
        ("100", 100),
        ("0,25,50,75,100", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("0.1,0.5", (0.1, 0.5)),
        ("12.5, 50", (0.125, 0.5)),
        ("50%", (0.5,)),
        ("1%,0%", (0.0, 0.01)),
        ("0,1", (0.0, 1.0)),
    ],
)
def test_depths_are_a_number_of_bins_or_the_depths_themselves(
    engine: MadeUpEngine, given: str, depths: object
) -> None:
    result = ran(MODEL, "--lengths", "512", "--depths", given, "--json")
    assert engine.request.depths == depths
    cells = json.loads(result.stdout)["conditions"][0]["cells"]
    assert all(0 <= cell["depth"] <= 1 for cell in cells)


@pytest.mark.parametrize("given", ["0", "101", "-5", "0.5,50", "101%", "5;6", "a", "", "0,,1"])
def test_depths_that_are_none_are_usage_errors(engine: MadeUpEngine, given: str) -> None:
    assert ran(MODEL, f"--depths={given}").exit_code == 2


def test_a_copy_is_made_without_a_terminal_only_with_yes(engine: MadeUpEngine) -> None:
    ran(MODEL)
    assert engine.allows_copy is False
    ran(MODEL, "--yes")
    assert engine.allows_copy is True


def test_a_server_is_asked_instead_of_a_file(
    engine: MadeUpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GGUFEXT_API_KEY", "key")
    result = ran("--server", "http://127.0.0.1:8080", "--model", "m", "--lengths", "512")
    assert result.exit_code == 0, result.output
    assert engine.server is not None
    assert (engine.server.url, engine.server.model) == ("http://127.0.0.1:8080", "m")
    assert engine.server.api_key == "key"
    assert "http://127.0.0.1:8080" in result.stdout


def test_server_may_be_given_several_times(engine: MadeUpEngine) -> None:
    ran("--server", "http://a:1", "--server", "http://b:2", "--lengths", "512")
    assert engine.server is not None
    assert (engine.server.url, engine.server.others) == ("http://a:1", ("http://b:2",))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--lengths", "512"),
        (MODEL, "--server", "http://127.0.0.1:8080", "--lengths", "512"),
        ("--server", "http://127.0.0.1:8080"),
        ("--server", "http://127.0.0.1:8080", "--lengths", "512", "--audit"),
        ("--server", "http://127.0.0.1:8080", "--lengths", "512", "--kv-type", "f16"),
        ("--server", "http://127.0.0.1:8080", "--lengths", "512", "--yes"),
        (MODEL, "--model", "m"),
        (MODEL, "--dask", "tcp://127.0.0.1:8786", "--rpc", "127.0.0.1:50052"),
    ],
    ids=["neither", "both", "no lengths", "audit", "kv-type", "yes", "model", "dask and rpc"],
)
def test_options_that_do_not_go_together_are_usage_errors(
    engine: MadeUpEngine, arguments: tuple[str | Path, ...]
) -> None:
    assert ran(*arguments).exit_code == 2


def test_a_bound_that_no_outcome_reaches_is_refused_before_the_run(engine: MadeUpEngine) -> None:
    engine.ends_with, engine.measured_up_to = KeyboardInterrupt(), 0  # a run would end with 130
    result = ran(MODEL, "--lengths", "512", "--depths", "10", "--trials", "2", "--require", "0.9")
    assert result.exit_code == 2
    assert "0.839" in result.stderr
    assert "at least 35" in result.stderr


def test_a_bound_that_is_reached_exits_0(engine: MadeUpEngine) -> None:
    assert ran(MODEL, "--lengths", "256,512", "--require", "0.9").exit_code == 0


def test_a_bound_that_is_missed_at_the_longest_length_exits_3(engine: MadeUpEngine) -> None:
    engine.right_up_to = 256
    result = ran(MODEL, "--lengths", "256,512", "--require", "0.9")
    assert result.exit_code == 3
    assert "file at 512 tokens: the lower bound is 0.000, 0.9 is required" in result.stderr
    assert "100 %" in result.stdout


def test_a_longest_length_that_was_not_measured_misses_the_bound(engine: MadeUpEngine) -> None:
    engine.measured_up_to = 256
    result = ran(MODEL, "--lengths", "256,512", "--require", "0.5")
    assert result.exit_code == 3
    assert "it was not measured" in result.stderr


def test_the_bound_is_asked_of_the_file_where_it_is_among_the_conditions(
    engine: MadeUpEngine,
) -> None:
    engine.right_up_to = 256
    conditions = ("--condition", "native", "--condition", "file")
    result = ran(MODEL, "--lengths", "512", *conditions, "--require", "0.5")
    assert "missed: file at" in result.stderr


def test_ctrl_c_prints_what_is_done_and_exits_130(engine: MadeUpEngine, tmp_path: Path) -> None:
    engine.ends_with, engine.measured_up_to = KeyboardInterrupt(), 256
    result = ran(MODEL, "--lengths", "256,512", "--require", "0.5", "--report", tmp_path / "r.json")
    assert result.exit_code == 130
    assert "not measured" in result.stdout
    assert "cut short" in result.stdout
    run = json.loads((tmp_path / "r.json").read_text())["run"]
    assert run["stop"] == {"code": "interrupted", "message": "the run was interrupted"}


def test_a_dead_engine_prints_what_is_done_says_why_and_exits_1(engine: MadeUpEngine) -> None:
    engine.ends_with = EngineError(code="engine_died", message="killed by SIGSEGV")
    engine.measured_up_to = 256
    result = ran(MODEL, "--lengths", "256,512")
    assert result.exit_code == 1
    assert "100 %" in result.stdout
    assert "killed by SIGSEGV" in result.stderr


def test_json_is_one_document_with_the_fields_of_the_result(engine: MadeUpEngine) -> None:
    result = ran(MODEL, "--lengths", "256,512", "--json")
    read = json.loads(result.stdout)
    assert read["run"]["path"] == str(MODEL)
    assert {"request", "run", "conditions", "comparisons", "warnings"} == read.keys()
    assert {"prompts_hash", "tokens_evaluated", "memory_plan", "stop"} <= read["run"].keys()
    assert read["conditions"][0]["effective_length"] == 512


def test_json_repeats_what_was_asked_but_no_key_of_a_server(
    engine: MadeUpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = json.loads(ran(MODEL, "--lengths", "256,512", "--kv-type", "q8_0", "--json").stdout)
    assert local["request"]["lengths"] == [256, 512]
    assert local["request"]["engine"]["cache_type"] == "q8_0"
    assert local["request"]["engine"]["flash_attention"] is None  # as it was asked for: auto
    assert local["run"]["flash_attention"] is True
    monkeypatch.setenv("GGUFEXT_API_KEY", "very secret")
    there = ran("--server", "http://127.0.0.1:8080", "--lengths", "512", "--json")
    assert "very secret" not in there.output
    assert json.loads(there.stdout)["request"]["engine"] is None


def test_json_of_a_dead_engine_stays_one_document(engine: MadeUpEngine) -> None:
    engine.ends_with = EngineError(code="engine_died", message="killed")
    engine.measured_up_to = 0
    result = ran(MODEL, "--lengths", "256", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["run"]["stop"]["code"] == "engine_died"


def test_several_reports_are_written(engine: MadeUpEngine, tmp_path: Path) -> None:
    reports = [tmp_path / name for name in ("a.html", "b.png", "c.json")]
    assert ran(MODEL, *(part for path in reports for part in ("--report", path))).exit_code == 0
    assert all(path.stat().st_size > 1000 for path in reports)


def test_a_report_that_cannot_be_written_is_refused_before_the_run(
    engine: MadeUpEngine, tmp_path: Path
) -> None:
    engine.path = "not asked"
    error = refusal(ran(MODEL, "--report", tmp_path / "a.pdf"))
    assert error.code == "report_path"
    assert engine.path == "not asked"


def test_a_report_onto_the_kept_answers_is_refused_before_the_run(
    engine: MadeUpEngine, tmp_path: Path
) -> None:
    engine.path = "not asked"
    kept = tmp_path / "run.json"
    error = refusal(ran(MODEL, "--resume", kept, "--report", kept))
    assert error.code == "report_path"
    assert engine.path == "not asked"


def test_a_report_onto_the_factors_of_a_condition_is_refused(
    engine: MadeUpEngine, tmp_path: Path
) -> None:
    recipe = tmp_path / "factors.json"
    condition = f"planned:{recipe}+keep-short"
    error = refusal(ran(MODEL, "--condition", condition, "--report", recipe))
    assert error.code == "report_path"


def test_a_report_that_fails_takes_no_other_with_it(engine: MadeUpEngine, tmp_path: Path) -> None:
    lost, written = tmp_path / "gone" / "a.json", tmp_path / "b.json"
    lost.parent.mkdir()
    engine.before = lost.parent.rmdir
    result = ran(MODEL, "--report", lost, "--report", written)
    assert result.exit_code == 1
    assert "100 %" in result.stdout
    assert str(lost) in result.stderr
    assert json.loads(written.read_text())["run"]["stop"] is None


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({}, "missing_key"),
        ({"general.architecture": 7}, "wrong_type"),
        ({"general.architecture": "llama"}, "missing_key"),
        ({"general.architecture": "llama", "llama.context_length": "long"}, "wrong_type"),
        ({"general.architecture": "llama", "llama.context_length": 0}, "nonsense_value"),
    ],
)
def test_a_file_that_does_not_say_its_lengths_is_named(
    engine: MadeUpEngine, tmp_path: Path, keys: dict[str, object], code: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(keys=keys))
    assert refusal(ran(path)).code == code


def test_trials_have_a_bound(engine: MadeUpEngine) -> None:
    assert ran(MODEL, "--trials", "1000", "--depths", "1").exit_code == 0
    assert refusal(ran(MODEL, "--trials", "1001")).code == "request_absurd"


def test_what_the_rope_audit_compared_is_said(
    engine: MadeUpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_run, "_audit", lambda *_: "file: 3 of 3 layers")
    assert "audited: file: 3 of 3 layers" in ran(MODEL, "--audit").stdout


def test_the_threshold_reaches_the_effective_length(engine: MadeUpEngine) -> None:
    assert "at least 95 % of the keys" in ran(MODEL, "--threshold", "0.95").stdout


def test_a_run_begins_with_what_it_asks(engine: MadeUpEngine) -> None:
    assert re.fullmatch(r"asking 50 questions, [\d,]+ tokens\n", ran(MODEL, "--json").stderr)


def test_a_run_begins_with_how_long_it_takes_and_what_would_take_less() -> None:
    def said(estimate: Estimate) -> str:
        return check_progress.beginning(RunNotes(50, 0, 5000, estimate))

    assert said(Estimate(50_000, 1000, 18_000)) == (
        "asking 50 questions, 5,000 tokens: about 14 h, measured on the first tokens of this "
        "model; --mode sweep would take about 17 min, without the longest of --lengths about 5 h"
    )
    assert said(Estimate(90, 12, 30)).endswith(
        "about 90 s, measured on the first tokens of this model; --mode sweep would take about 12 s"
    )


def test_every_answer_tells_questions_and_tokens(
    engine: MadeUpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Told] = []
    monkeypatch.setattr(Wait, "tell", lambda _wait, told: heard.append(told))
    ran(MODEL)
    asking = [told for told in heard if told.what == "asking"]
    assert [told.done for told in asking] == sorted({told.done for told in asking})
    assert asking[-1].done == asking[-1].total
    assert asking[3].detail == "file, 3 of 50 questions"
    assert len(asking) == 51


def test_tokens_of_a_prompt_count_before_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Told] = []
    monkeypatch.setattr(Wait, "tell", lambda _wait, told: heard.append(told))
    listener = check_progress.listener(Wait(""))
    listener(Preparing("copying the file for native", 5, 9))
    listener(RunNotes(50, 0, 5000, Estimate(50, None, None)))
    listener(Computing(512))
    listener(Progress(Trial("file", 0, 512, 0.5, 9, hit=True, substring=True), 1, 600))
    listener(Computing(64))
    assert heard == [
        Told("copying the file for native", 5, 9, "bytes"),
        Told("asking", 0, 5000, "tokens", expected=50),
        Told("asking", 512, 5000, "tokens", expected=50),
        Told("asking", 600, 5000, "tokens", "file, 1 of 50 questions", 50),
        Told("asking", 664, 5000, "tokens", "file, 1 of 50 questions", 50),
    ]
