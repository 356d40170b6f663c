"""``ggufext check``: its options, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from gguf_bytes import gguf_bytes
from ggufext import rewrite
from ggufext.audit import passkey_file, passkey_server
from ggufext.audit.conditions.copies import CopyNeeded
from ggufext.audit.request import Mode, depth_bins
from ggufext.audit.run.asking import Progress
from ggufext.audit.run.duration import Estimate
from ggufext.audit.run.measure import PasskeyRequest, PasskeyRun, RunNotes, Stop
from ggufext.audit.run.records import Trial
from ggufext.cli.check import check
from ggufext.errors import EngineError, GgufextError
from ggufext.planning.footprint import CacheType
from ggufext.planning.request import PlanRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.audit.engines.connection import ServerSettings
    from ggufext.audit.passkey_file import LocalSettings

MODEL = Path(__file__).parents[2] / "models" / "passkey-Q8_0.gguf"


class MadeUpEngine:
    """Stands in for llama.cpp: right up to a length, and what it was asked for."""

    def __init__(self) -> None:
        self.right_up_to = 10**9
        self.measured_up_to = 10**9
        self.stop: Stop | None = None
        self.failure: EngineError | None = None
        self.audited: tuple[str, ...] = ()
        self.estimate: Estimate | None = None
        self.before: Callable[[], object] = lambda: None
        self.path = ""
        self.request = PasskeyRequest(lengths=(256,))
        self.allows_copy: bool | None = None
        self.local: LocalSettings | None = None
        self.server: ServerSettings | None = None

    def check_file(
        self,
        path: Path,
        request: PasskeyRequest,
        settings: LocalSettings,
        notify: Callable[[Progress | RunNotes], None],
        *,
        allow_copy: Callable[[CopyNeeded], bool],
    ) -> PasskeyRun:
        self.allows_copy = allow_copy(CopyNeeded("planned:llama3", Path(), 1, 2))
        self.path, self.local = str(path), settings
        return self._run(request, notify)

    def check_server(
        self,
        settings: ServerSettings,
        request: PasskeyRequest,
        notify: Callable[[Progress | RunNotes], None],
    ) -> PasskeyRun:
        self.path, self.server = settings.url, settings
        return self._run(request, notify)

    def _run(
        self, request: PasskeyRequest, notify: Callable[[Progress | RunNotes], None]
    ) -> PasskeyRun:
        self.request = request
        self.before()
        trials = tuple(
            Trial(name, text, length, bin_.depth, 100 + index, hit, hit)
            for name in request.conditions
            for text in range(request.trials)
            for length in request.lengths
            if length <= self.measured_up_to
            for index, bin_ in enumerate(depth_bins(request.depths))
            for hit in [length <= self.right_up_to]
        )
        notify(RunNotes(len(trials), 0, 100 * len(trials), self.estimate, None, ()))
        for index, trial in enumerate(trials, 1):
            notify(Progress(trial, index, 100 * index))
        return PasskeyRun(
            path=self.path,
            engine="made up",
            mode=request.mode,
            seed=request.seed,
            train_length=256,
            trials=trials,
            prompts_hash="ab" * 32,
            tokens_evaluated=100,
            tokens_naive=200,
            memory_plan=None,
            versions={},
            flash_attention=None if self.server else True,
            seconds=1.0,
            complete=self.stop is None,
            stop=self.stop,
            failure=self.failure,
            audited=self.audited,
            warnings=(),
        )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> MadeUpEngine:
    made_up = MadeUpEngine()
    monkeypatch.setattr(passkey_file, "check_file", made_up.check_file)
    monkeypatch.setattr(passkey_server, "check_server", made_up.check_server)
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


def test_without_lengths_the_file_is_asked_up_to_its_context_length(engine: MadeUpEngine) -> None:
    assert ran(MODEL).exit_code == 0
    assert engine.request.lengths == (256,)


def test_without_lengths_an_extended_file_is_asked_at_up_to_four_doublings(
    engine: MadeUpEngine, tmp_path: Path
) -> None:
    extended = tmp_path / "extended.gguf"
    rewrite(MODEL, PlanRequest(target_length=4096), output=extended)
    ran(extended)
    assert engine.request.lengths == (512, 1024, 2048, 4096)


def test_options_arrive_at_the_engine(engine: MadeUpEngine, tmp_path: Path) -> None:
    kept = tmp_path / "run.jsonl"
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
    assert asked.conditions == ("native", "planned:yarn")
    assert (asked.template.value, asked.train_length) == ("none", 200)
    assert (asked.records, asked.resume) == (kept, True)
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
    engine.stop = Stop.INTERRUPTED  # a run would end with 130
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
    engine.stop, engine.measured_up_to = Stop.INTERRUPTED, 256
    result = ran(MODEL, "--lengths", "256,512", "--require", "0.5", "--report", tmp_path / "r.json")
    assert result.exit_code == 130
    assert "not measured" in result.stdout
    assert "cut short" in result.stdout
    assert json.loads((tmp_path / "r.json").read_text())["complete"] is False


def test_a_dead_engine_prints_what_is_done_says_why_and_exits_1(engine: MadeUpEngine) -> None:
    engine.stop, engine.measured_up_to = Stop.FAILED, 256
    engine.failure = EngineError(code="engine_died", message="killed by SIGSEGV")
    result = ran(MODEL, "--lengths", "256,512")
    assert result.exit_code == 1
    assert "100 %" in result.stdout
    assert "killed by SIGSEGV" in result.stderr


def test_json_is_one_document_with_the_fields_of_the_result(engine: MadeUpEngine) -> None:
    result = ran(MODEL, "--lengths", "256,512", "--json")
    read = json.loads(result.stdout)
    assert read["path"] == str(MODEL)
    assert {"conditions", "comparisons", "prompts_hash", "tokens_evaluated"} <= read.keys()
    assert read["conditions"][0]["effective_length"] == 512


def test_json_repeats_what_was_asked_but_no_key_of_a_server(
    engine: MadeUpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = json.loads(ran(MODEL, "--lengths", "256,512", "--kv-type", "q8_0", "--json").stdout)
    assert local["settings"]["lengths"] == "256,512"
    assert local["settings"]["cache_type"] == "q8_0"
    assert local["settings"]["flash_attention"] == "on"  # as it was used, not "auto"
    monkeypatch.setenv("GGUFEXT_API_KEY", "very secret")
    there = ran("--server", "http://127.0.0.1:8080", "--lengths", "512", "--json")
    assert "very secret" not in there.output


def test_json_of_a_dead_engine_stays_one_document(engine: MadeUpEngine) -> None:
    engine.stop, engine.failure = Stop.FAILED, EngineError(code="engine_died", message="killed")
    result = ran(MODEL, "--lengths", "256", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["complete"] is False


def test_several_reports_are_written(engine: MadeUpEngine, tmp_path: Path) -> None:
    reports = [tmp_path / name for name in ("a.html", "b.png", "c.json")]
    assert ran(MODEL, *(part for path in reports for part in ("--report", path))).exit_code == 0
    assert all(path.stat().st_size > 1000 for path in reports)


def test_a_report_that_cannot_be_written_is_refused_before_the_run(
    engine: MadeUpEngine, tmp_path: Path
) -> None:
    engine.path = "not asked"
    error = refusal(ran(MODEL, "--report", tmp_path / "a.pdf"))
    assert error.code == "report_format"
    assert engine.path == "not asked"


def test_a_report_onto_the_kept_answers_is_refused_before_the_run(
    engine: MadeUpEngine, tmp_path: Path
) -> None:
    engine.path = "not asked"
    kept = tmp_path / "run.json"
    error = refusal(ran(MODEL, "--resume", kept, "--report", kept))
    assert error.code == "report_replaces_input"
    assert engine.path == "not asked"


def test_a_report_onto_the_factors_of_a_condition_is_refused(
    engine: MadeUpEngine, tmp_path: Path
) -> None:
    recipe = tmp_path / "factors.json"
    condition = f"planned:{recipe}+keep-short"
    error = refusal(ran(MODEL, "--condition", condition, "--report", recipe))
    assert error.code == "report_replaces_input"


def test_a_report_that_fails_takes_no_other_with_it(engine: MadeUpEngine, tmp_path: Path) -> None:
    lost, written = tmp_path / "gone" / "a.json", tmp_path / "b.json"
    lost.parent.mkdir()
    engine.before = lost.parent.rmdir
    result = ran(MODEL, "--report", lost, "--report", written)
    assert result.exit_code == 1
    assert "100 %" in result.stdout
    assert str(lost) in result.stderr
    assert json.loads(written.read_text())["complete"] is True


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
    assert ran(MODEL, "--trials", "1000").exit_code == 0
    assert refusal(ran(MODEL, "--trials", "1001")).code == "trials_absurd"


def test_what_the_rope_audit_compared_is_said(engine: MadeUpEngine) -> None:
    engine.audited = ("file: 3 of 3 layers",)
    assert "audited: file: 3 of 3 layers" in ran(MODEL, "--audit").stdout


def test_the_threshold_reaches_the_effective_length(engine: MadeUpEngine) -> None:
    assert "at least 95 % of the keys" in ran(MODEL, "--threshold", "0.95").stdout


def test_a_run_begins_with_what_it_asks(engine: MadeUpEngine) -> None:
    assert ran(MODEL, "--json").stderr == "asking 50 questions, 5,000 tokens\n"


def test_a_run_begins_with_how_long_it_takes_and_what_would_take_less(
    engine: MadeUpEngine,
) -> None:
    engine.estimate = Estimate(50_000, 1000, 18_000)
    assert ran(MODEL).stderr == (
        "asking 50 questions, 5,000 tokens: about 14 h, measured on the first tokens of this "
        "model; --mode sweep would take about 17 min, without the longest of --lengths about 5 h\n"
    )
    engine.estimate = Estimate(90, 12, 30)
    assert ran(MODEL).stderr.endswith(
        "about 90 s, measured on the first tokens of this model; --mode sweep would take about "
        "12 s\n"
    )


def test_progress_is_lines_now_and_then_without_a_terminal(
    engine: MadeUpEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 1000, 4))
    monkeypatch.setattr("ggufext.cli.check_progress.time.monotonic", lambda: float(next(seconds)))
    _, *lines = ran(MODEL).stderr.splitlines()
    assert len(lines) == 50 // 3  # every 12 s
    assert lines[0] == "file: 3 of 50 questions, 300 of 5,000 tokens, about 3 min left"
