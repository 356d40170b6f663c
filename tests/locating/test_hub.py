"""``hf://`` names are files of the hub that HF_ENDPOINT names."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

import program
from gguf_bytes import SMALLEST_LLAMA, SMALLEST_TENSORS, gguf_bytes
from ggufext.locating.remote import direct_address
from range_server import Reply, ranged, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from range_server import RangeServer

pytest.importorskip("huggingface_hub", reason="needs ggufext[remote]")

MODEL = gguf_bytes(SMALLEST_LLAMA, SMALLEST_TENSORS)


@pytest.fixture
def storage() -> Iterator[RangeServer]:
    """The host on which the hub's files lie."""
    with serving() as running:
        running.answers["/blob"] = ranged(MODEL)
        yield running


@pytest.fixture
def hub(storage: RangeServer) -> Iterator[RangeServer]:
    """A hub with one repository, whose files lie on another host."""
    with serving() as running:
        running.answers["/owner/repo/resolve/main/m.gguf"] = redirect(f"{storage.address}/blob")
        yield running


def redirect(to: str) -> Any:
    return lambda _request: Reply(302, {"Location": to, "Content-Length": "0"})


def list_files(hub: RangeServer, *names: str, revision: str = "") -> None:
    files = [{"rfilename": name} for name in names]
    listed = json.dumps({"id": "owner/repo", "siblings": files}).encode()
    headers = {"Content-Length": str(len(listed)), "Content-Type": "application/json"}
    path = "/api/models/owner/repo" + (f"/revision/{revision}" if revision else "")
    hub.answers[path] = lambda _request: Reply(200, headers, listed)


def run(hub: RangeServer, tmp_path: Path, *arguments: str, **variables: str) -> Any:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path),
        "NO_PROXY": "*",
        **variables,
    }
    done = program.run(*arguments, "--json", env=environment)
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def test_a_file_is_inspected_with_one_request_to_the_hub(hub: RangeServer, tmp_path: Path) -> None:
    found = run(hub, tmp_path, "inspect", "hf://owner/repo/m.gguf")
    assert found["path"] == "hf://owner/repo/m.gguf"
    assert (found["architecture"], found["size"]) == ("llama", len(MODEL))
    assert len(hub.requests) == 1


def test_a_file_is_planned(hub: RangeServer, tmp_path: Path) -> None:
    plans = run(hub, tmp_path, "plan", "hf://owner/repo/m.gguf", "--target", "16k")["plans"]
    assert plans[0]["train_length"]["value"] == 2048


def test_the_only_model_of_a_repository_needs_no_file_name(
    hub: RangeServer, tmp_path: Path
) -> None:
    list_files(hub, "README.md", "m.gguf", "mmproj-m.gguf")
    assert run(hub, tmp_path, "inspect", "hf://owner/repo")["architecture"] == "llama"


def test_of_several_models_one_has_to_be_named(hub: RangeServer, tmp_path: Path) -> None:
    list_files(hub, "m-Q4_0.gguf", "m-Q8_0.gguf", "x-00001-of-00002.gguf", "x-00002-of-00002.gguf")
    error = run(hub, tmp_path, "inspect", "hf://owner/repo")["error"]
    assert error["code"] == "remote_several_files"
    assert "m-Q4_0.gguf, m-Q8_0.gguf, x-00001-of-00002.gguf" in error["message"]
    assert "x-00002" not in error["message"]


def test_a_revision_stands_behind_the_repository(hub: RangeServer, tmp_path: Path) -> None:
    hub.answers["/owner/repo/resolve/v1/m.gguf"] = ranged(MODEL)
    found = run(hub, tmp_path, "inspect", "hf://owner/repo@v1/m.gguf")
    assert found["path"] == "hf://owner/repo@v1/m.gguf"
    list_files(hub, "m.gguf", revision="v1")
    assert run(hub, tmp_path, "inspect", "hf://owner/repo@v1")["size"] == len(MODEL)


def test_a_slash_in_a_revision_stays_one_part_of_the_address(
    hub: RangeServer, tmp_path: Path
) -> None:
    hub.answers["/owner/repo/resolve/refs%2Fpr%2F1/a%20b.gguf"] = ranged(MODEL)
    found = run(hub, tmp_path, "inspect", "hf://owner/repo@refs%2Fpr%2F1/a b.gguf")
    assert found["architecture"] == "llama"


def test_a_token_goes_to_the_hub_and_to_no_other_host(
    hub: RangeServer, storage: RangeServer, tmp_path: Path
) -> None:
    run(hub, tmp_path, "inspect", "hf://owner/repo/m.gguf", HF_TOKEN="hf_made_up")
    assert [request.authorization for request in hub.requests] == ["Bearer hf_made_up"]
    assert [request.authorization for request in storage.requests] == [None]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("hf://owner/repo/absent.gguf", "remote_missing"),
        ("hf://owner/absent", "remote_missing"),
        ("hf://owner", "remote_name"),
        ("hf://owner/repo@/m.gguf", "remote_name"),
        ("hf://../repo/m.gguf", "remote_name"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(
    hub: RangeServer, tmp_path: Path, name: str, code: str
) -> None:
    assert run(hub, tmp_path, "inspect", name)["error"]["code"] == code


def test_a_gated_repository_is_refused_with_what_to_do(hub: RangeServer, tmp_path: Path) -> None:
    gated = Reply(403, {"Content-Length": "0", "X-Error-Code": "GatedRepo"})
    hub.answers["/owner/repo/resolve/main/m.gguf"] = lambda _request: gated
    hub.answers["/api/models/owner/repo"] = lambda _request: gated
    for name in ("hf://owner/repo/m.gguf", "hf://owner/repo"):
        error = run(hub, tmp_path, "inspect", name)["error"]
        assert error["code"] == "remote_refused"
        assert "HF_TOKEN" in error["message"]


def test_a_hub_that_is_away_is_given_up_at_once(hub: RangeServer, tmp_path: Path) -> None:
    closed = "http://127.0.0.1:9"
    error = run(hub, tmp_path, "inspect", "hf://owner/repo", HF_ENDPOINT=closed)["error"]
    assert error["code"] == "remote_unreachable"


def test_offline_means_offline(hub: RangeServer, tmp_path: Path) -> None:
    error = run(hub, tmp_path, "inspect", "hf://owner/repo/m.gguf", HF_HUB_OFFLINE="1")["error"]
    assert error["code"] == "remote_unreachable"
    assert hub.requests == []


@pytest.mark.parametrize(
    "command", [("rewrite", "--target", "8k"), ("undo",), ("recover",), ("check",)]
)
def test_commands_that_need_the_file_refuse_by_name(
    hub: RangeServer, tmp_path: Path, command: tuple[str, ...]
) -> None:
    error = run(hub, tmp_path, command[0], "hf://owner/repo/m.gguf", *command[1:])["error"]
    assert error["code"] == "remote_model"


def test_the_address_of_a_page_becomes_that_of_the_file() -> None:
    page = "https://huggingface.co/owner/repo/blob/main/m.gguf"
    assert direct_address(page) == "https://huggingface.co/owner/repo/resolve/main/m.gguf"
    assert direct_address("https://host/blob/m.gguf") == "https://host/blob/m.gguf"
