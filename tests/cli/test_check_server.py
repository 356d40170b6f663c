"""``ggufext check --server``, the whole program against real servers on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import real_servers
from made_up_servers import Reply, completion, serving
from program import without_waits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = [sys.executable, "-c", "from ggufext.cli import main; main()", "check", "--server"]
SMALL = ("--lengths", "128,256", "--depths", "3", "--trials", "2")


#: llama-server gives no more than the file declares.
LONGER = ("--override-kv", "llama.context_length=int:2048")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with real_servers.llama_server(real_servers.MODEL, *LONGER, n_ctx=2048) as running:
        yield running.url


def ran(url: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, url, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def begun(url: str, kept: Path) -> subprocess.Popen[str]:
    """A long run that has answered a few questions."""
    running = subprocess.Popen(
        [*PROGRAM, url, "--lengths", "256,1k", "--trials", "50", "--resume", str(kept)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while running.poll() is None and not (kept.exists() and kept.stat().st_size > 1000):
        os.sched_yield()
    return running


def test_table_shows_the_address_and_the_keys_that_were_found(server: str) -> None:
    done = ran(server, *SMALL)
    assert done.returncode == 0, done.stderr
    assert server in done.stdout
    assert "100 %" in done.stdout


def test_json_has_no_memory_plan_and_no_training_length(server: str) -> None:
    read = json.loads(ran(server, *SMALL, "--json").stdout)
    run = read["run"]
    assert (run["path"], run["memory_plan"], run["train_length"]) == (server, None, None)
    assert [x["accuracy"] for x in read["conditions"][0]["lengths"]] == [1.0, 1.0]


def test_json_names_depths_as_shares_however_they_were_asked_for(server: str) -> None:
    read = json.loads(
        ran(server, "--lengths", "256", "--depths", "0,50,100", "--trials", "1", "--json").stdout
    )
    assert [cell["depth"] for cell in read["conditions"][0]["cells"]] == [0.0, 0.5, 1.0]


def test_html_report_is_written(server: str, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    assert ran(server, *SMALL, "--report", report).returncode == 0
    assert server in report.read_text()


def test_training_length_that_is_told_gives_a_native_control(server: str) -> None:
    read = json.loads(ran(server, *SMALL, "--train-length", "256", "--json").stdout)
    assert read["conditions"][0]["native_control"] is True


def test_required_bound_is_met_within_training_and_missed_far_beyond(server: str) -> None:
    many = ("--depths", "4", "--trials", "10", "--require", "0.9")
    assert ran(server, "--lengths", "128", *many).returncode == 0
    missed = ran(server, "--lengths", "128,2048", *many)
    assert missed.returncode == 3
    assert "required bound missed: file at 2,048 tokens" in missed.stderr


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(server: str, tmp_path: Path) -> None:
    kept = tmp_path / "run.jsonl"
    whole = json.loads(ran(server, *SMALL, "--resume", kept, "--json").stdout)
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:5]))
    again = json.loads(ran(server, *SMALL, "--resume", kept, "--json").stdout)
    assert again["conditions"] == whole["conditions"]
    assert len(kept.read_text().splitlines()) == len(lines)


def test_another_template_does_not_go_on_with_the_same_run(server: str, tmp_path: Path) -> None:
    kept = tmp_path / "run.jsonl"
    assert ran(server, *SMALL, "--resume", kept).returncode == 0
    refused = ran(server, "--lengths", "512", "--resume", kept, "--template", "chat", "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["code"] == "resume_mismatch"


def test_ctrl_c_prints_what_is_done_and_ends_with_130(server: str, tmp_path: Path) -> None:
    running = begun(server, tmp_path / "run.jsonl")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "cut short" in out


def test_a_server_that_is_killed_ends_the_run_with_what_is_done(tmp_path: Path) -> None:
    with real_servers.llama_server(real_servers.MODEL, *LONGER, n_ctx=1024) as dying:
        running = begun(dying.url, tmp_path / "run.jsonl")
        dying.process.kill()
        out, err = running.communicate(timeout=120)
    assert running.returncode == 1, err
    assert "cut short" in out
    assert "is the server running" in err


def test_a_smaller_context_than_the_length_is_not_measured(server: str) -> None:
    done = ran(server, "--lengths", "256,4k", "--depths", "2", "--trials", "1", "--json")
    assert done.returncode == 0, done.stderr
    lengths = {x["length"]: x for x in json.loads(done.stdout)["conditions"][0]["lengths"]}
    assert lengths[256]["accuracy"] is not None
    assert lengths[4096]["accuracy"] is None


def test_a_context_that_holds_no_length_is_an_error(server: str) -> None:
    done = ran(server, "--lengths", "4k", "--depths", "2", "--trials", "1")
    assert done.returncode == 1
    assert "no question could be measured" in done.stderr


def chatted(*options: str) -> Any:
    """What a run in chat through llama-server with some options prints as JSON."""
    with real_servers.llama_server(real_servers.MODEL, *LONGER, *options, n_ctx=2048) as chatting:
        done = ran(
            chatting.url,
            *("--lengths", "1k", "--depths", "2", "--trials", "1", "--template", "chat", "--json"),
        )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "options", [("--chat-template", "chatml"), ("--no-jinja", "--chat-template", "llama2")]
)
def test_chat_goes_through_the_template_of_the_server(options: tuple[str, ...]) -> None:
    read = chatted(*options)
    assert "template_of_the_server" in [warning["code"] for warning in read["warnings"]]
    # Every prompt had the tokens that were planned for it, the template's included.
    assert None not in [cell["hits"] for cell in read["conditions"][0]["cells"]]


def test_a_template_that_leaves_the_question_out_is_noticed() -> None:
    # With Jinja it is the template itself, not its name.
    read = chatted("--jinja", "--chat-template", "llama2")
    assert "server_truncated" in [warning["code"] for warning in read["warnings"]]


def test_an_address_where_nobody_is_ends_with_one_line() -> None:
    done = ran(f"http://127.0.0.1:{real_servers.free_port()}", *SMALL, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "engine_unreachable"
    assert "preparing: " in done.stderr  # it is tried again for six seconds
    (error,) = without_waits(done.stderr).splitlines()
    assert error.startswith("error: ")


def not_a_model(path: str, body: dict[str, Any]) -> Reply:
    return 200, b"<html>Welcome</html>"


def test_a_web_page_instead_of_a_model_ends_with_one_line() -> None:
    with serving(not_a_model) as url:
        done = ran(url, *SMALL, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "server_not_understood"
    assert len(without_waits(done.stderr).splitlines()) == 1


def test_a_server_that_counts_wrongly_is_not_believed() -> None:
    with serving(completion(seen=lambda sent: sent // 2)) as url:
        done = ran(url, "--lengths", "1000", "--depths", "2", "--trials", "1")
    assert done.returncode == 1
    assert "cuts prompts without a word" in done.stderr


def test_api_takes_a_server() -> None:
    from ggufext import CheckRequest, ServerSettings, check

    with serving(completion(text=" 1")) as url:
        request = CheckRequest(lengths=(1000,), depths=2, trials=1)
        result = check(ServerSettings(url=url), request)
    assert result.run.complete
    assert result.conditions[0].effective_length == 0
