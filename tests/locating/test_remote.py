"""The header of a remote file is read through few requests, and no lie about it is believed."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from gguf_bytes import SMALLEST_LLAMA, SMALLEST_TENSORS, U16, U32, Tensor, gguf_bytes
from ggufext.editing.rewrite import rewrite
from ggufext.errors import GgufextError, LocationError, PlanError, shown
from ggufext.header.header import parse_header, read_header
from ggufext.locating.names import local_path
from ggufext.locating.remote import RemoteModel, read_remote
from ggufext.opened import history
from ggufext.opened.inspection import inspect
from ggufext.opened.model import facts_of
from ggufext.opened.patch import HISTORY_KEY
from ggufext.planning.methods import Method
from ggufext.planning.plan import plan
from ggufext.planning.request import PlanRequest
from random_model import write_random_model
from range_server import Reply, changed, ranged, serving, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from range_server import Answer, RangeServer, Request

pytest.importorskip("fsspec", reason="needs ggufext[remote]")
pytest.importorskip("aiohttp", reason="needs ggufext[remote]")

KEYS = {
    "general.architecture": "llama",
    "llama.context_length": U32(4096),
    "llama.block_count": U32(1),
    "llama.embedding_length": U32(64),
    "llama.attention.head_count": U32(2),
}
SMALL = gguf_bytes(SMALLEST_LLAMA, SMALLEST_TENSORS)

#: A header of 6 MB, so that a second request is needed.
LARGE = gguf_bytes(
    KEYS | {"tokenizer.ggml.tokens": ["x" * 52] * 100_000},
    [Tensor("token_embd.weight", (64, 4), "Q8_0")],
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    with serving() as running:
        yield running


def read(server: RangeServer, answer: Answer, *, patience: float = 20.0) -> RemoteModel:
    server.answers["/m.gguf"] = answer
    return read_remote(f"{server.address}/m.gguf", patience=patience)


def refusal(server: RangeServer, answer: Answer, *, patience: float = 20.0) -> str:
    with pytest.raises(GgufextError) as caught:
        read(server, answer, patience=patience)
    assert caught.value.path == f"{server.address}/m.gguf"
    assert str(caught.value).isprintable()
    return caught.value.code


@pytest.fixture(scope="module")
def model_128k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a vocabulary of 128k tokens."""
    path = tmp_path_factory.mktemp("remote") / "m.gguf"
    return write_random_model(path, "llama", vocabulary=128_256)


def test_a_128k_vocabulary_takes_at_most_three_requests(
    server: RangeServer, model_128k: Path
) -> None:
    content = model_128k.read_bytes()
    remote = read(server, ranged(content))
    here = read_header(model_128k)
    assert remote.requests == len(server.requests) <= 3
    assert remote.front == content[: here.data_offset]
    assert remote.header.tensors == here.tensors
    assert {key: remote.header.value(key) for key in here.keys} == {
        key: here.value(key) for key in here.keys
    }


def test_weights_are_not_asked_for(server: RangeServer) -> None:
    weights = gguf_bytes(KEYS, [Tensor("token_embd.weight", (1024, 2048), "F32")])
    read(server, ranged(weights))
    assert [request.range for request in server.requests] == [(0, (2 << 20) - 1)]


def test_a_small_file_takes_one_request(server: RangeServer) -> None:
    assert read(server, ranged(SMALL)).header.file_size == len(SMALL)
    assert len(server.requests) == 1


def test_a_remote_model_is_inspected_and_planned_like_a_file(
    server: RangeServer, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(SMALL)
    remote = read(server, ranged(SMALL))
    assert facts_of(remote) == facts_of(path)
    here, there = inspect(path), inspect(remote)
    assert there.path == f"{server.address}/m.gguf"
    assert there.likely_strategy is None
    assert (there.rope, there.size, there.warnings) == (here.rope, here.size, here.warnings)


def test_frequency_factors_are_read_by_a_request_of_their_own(
    server: RangeServer, tmp_path: Path
) -> None:
    factors = {"rope_freqs.weight": np.linspace(1.0, 8.0, 16, dtype=np.float32)}
    path = write_random_model(tmp_path / "m.gguf", "llama", tensors=factors)
    remote = read(server, ranged(path.read_bytes()))
    assert remote.requests == 2
    assert facts_of(remote) == facts_of(path)


def test_a_server_without_ranges_gives_no_frequency_factors(
    server: RangeServer, tmp_path: Path
) -> None:
    factors = {"rope_freqs.weight": np.linspace(1.0, 8.0, 16, dtype=np.float32)}
    path = write_random_model(tmp_path / "m.gguf", "llama", tensors=factors)
    remote = read(server, whole(path.read_bytes()))
    assert remote.tensors is None
    with pytest.raises(PlanError, match="values of the tensors were not read"):
        plan(facts_of(remote), PlanRequest(target_length=8192))


def test_a_remote_model_that_was_extended_is_planned_from_its_original(
    server: RangeServer, random_models: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(random_models("llama").read_bytes())
    original = facts_of(path)
    rewrite(path, PlanRequest(target_length=8192))
    remote = read(server, ranged(path.read_bytes()))
    found = facts_of(remote)
    assert found.earlier_extension is not None
    assert replace(found, earlier_extension=None) == original
    assert inspect(remote).history is not None


@pytest.mark.parametrize(
    ("tensor", "code"),
    [
        (Tensor("rope_freqs.weight", (16,), "F16"), "tensor_type"),
        (Tensor("rope_freqs.weight", (4, 4), "F32"), "tensor_shape"),
        (Tensor("rope_freqs.weight", (16,), "F32"), "nonsense_value"),
        (Tensor("rope_freqs.weight", (40_000,), "F32"), "tensor_shape"),
    ],
)
def test_a_faulty_factor_tensor_keeps_from_planning_and_not_from_inspecting(
    server: RangeServer, tmp_path: Path, tensor: Tensor, code: str
) -> None:
    path = tmp_path / "m.gguf"
    content = gguf_bytes(SMALLEST_LLAMA, (*SMALLEST_TENSORS, tensor))
    path.write_bytes(content[: -tensor.size] + bytes(tensor.size))
    remote = read(server, ranged(path.read_bytes()))
    found = [inspect(model) for model in (path, remote)]
    assert found[0].warnings == found[1].warnings
    for model in (path, remote):
        with pytest.raises(GgufextError) as caught:
            facts_of(model)
        assert caught.value.code == code


def test_a_record_with_other_tensor_sizes_changes_no_remote_tensor(tmp_path: Path) -> None:
    path = write_random_model(tmp_path / "m.gguf", "llama")
    extended = PlanRequest(target_length=8192, method=Method.LLAMA3)
    rewrite(path, extended, keep_history=False)
    rewrite(path, replace(extended, target_length=16_384))
    content, header = path.read_bytes(), read_header(path)
    record = history.in_file(header)
    assert record is not None
    ((name, before),) = record.tensors
    assert before is not None
    entry = header.keys[HISTORY_KEY]
    forged = replace(record, tensors=((name, before[:-3]),)).entry()
    front = content[: entry.start] + forged + content[entry.end : header.infos_end]
    front += bytes(-len(front) % header.alignment)
    as_it_is = parse_header(front, file_size=len(content) + len(front) - header.data_offset)
    tensors = {name: struct.pack("<16f", *[2] * 16)}
    remote = RemoteModel("http://x/m.gguf", as_it_is, front, 1, tensors)
    assert facts_of(remote).factors == ((name, (2.0,) * 16),)


def test_a_remote_copy_of_an_extended_model_is_planned_as_the_local_one(
    server: RangeServer, tmp_path: Path
) -> None:
    factors = {"rope_freqs.weight": np.linspace(1.0, 8.0, 16, dtype=np.float32)}
    path = write_random_model(tmp_path / "m.gguf", "llama", tensors=factors)
    rewrite(path, PlanRequest(target_length=8192))
    # Another name of the same length: the record does not fit any more.
    copy = path.with_name("copy.gguf")
    content, name = path.read_bytes(), read_header(path).value("general.name")
    assert isinstance(name, str)
    copy.write_bytes(content.replace(name.encode(), b"x" * len(name), 1))
    remote = read(server, ranged(copy.read_bytes()))
    assert facts_of(remote) == facts_of(copy)
    assert inspect(remote).history is None
    assert inspect(remote).earlier_extension == inspect(copy).earlier_extension is not None


def test_a_server_without_ranges_is_read_from_the_front_only(server: RangeServer) -> None:
    remote = read(server, whole(LARGE + bytes(64 << 20)))
    assert remote.requests == 1
    assert len(remote.front) == read(server, ranged(LARGE)).header.data_offset


def test_a_server_that_sends_less_than_asked_is_asked_again(server: RangeServer) -> None:
    def at_most_1_mib(request: Request) -> Reply:
        assert request.range is not None
        start = request.range[0]
        shorter = type(request)(request.path, (start, start + (1 << 20) - 1), None)
        return ranged(LARGE)(shorter)

    assert read(server, at_most_1_mib).header.key_count == len(KEYS) + 1


def test_the_front_goes_to_the_data_wherever_a_server_cuts_it(server: RangeServer) -> None:
    content = gguf_bytes(KEYS, [Tensor("t", (64, 4), "Q8_0")], alignment=4096)
    here = parse_header(content, file_size=len(content))
    assert here.infos_end < here.data_offset

    def up_to_the_end_of_the_infos(request: Request) -> Reply:
        assert request.range is not None
        start, last = request.range
        end = here.infos_end - 1 if start < here.infos_end else last
        return ranged(content)(type(request)(request.path, (start, end), None))

    remote = read(server, up_to_the_end_of_the_infos)
    assert remote.front == content[: here.data_offset]


def test_redirects_are_followed(server: RangeServer) -> None:
    server.answers["/there"] = ranged(LARGE)
    to_there = Reply(302, {"Location": f"{server.address}/there", "Content-Length": "0"})
    assert read(server, lambda _request: to_there).header.file_size == len(LARGE)


def test_a_redirect_in_a_circle_ends(server: RangeServer) -> None:
    to_itself = Reply(302, {"Location": f"{server.address}/m.gguf", "Content-Length": "0"})
    assert refusal(server, lambda _request: to_itself) == "remote_failed"


def test_a_redirect_to_a_file_of_this_machine_is_refused(server: RangeServer) -> None:
    to_file = Reply(302, {"Location": "file:///etc/passwd", "Content-Length": "0"})
    assert refusal(server, lambda _request: to_file) == "remote_unreachable"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (404, "remote_missing"),
        (401, "remote_refused"),
        (403, "remote_refused"),
        (500, "remote_failed"),
        (503, "remote_failed"),
        (204, "remote_failed"),
    ],
)
def test_a_refusal_is_named(server: RangeServer, status: int, code: str) -> None:
    assert refusal(server, lambda _request: Reply(status, {"Content-Length": "0"})) == code


def test_a_server_that_does_not_answer_is_given_up(server: RangeServer) -> None:
    assert refusal(server, lambda _r: Reply(200, hangs=True), patience=0.2) == "remote_failed"


def test_a_server_that_stops_in_the_middle_is_given_up(server: RangeServer) -> None:
    stops = changed(ranged(LARGE[:100_000]), Content_Range=f"bytes 0-2097151/{len(LARGE)}")
    longer = changed(stops, Content_Length="2097152")
    assert refusal(server, longer, patience=20.0) == "remote_failed"


@pytest.mark.parametrize(
    "told",
    [
        "bytes 1-2097152/7000000",
        "bytes 0-9999999/20000000",
        "bytes 0-2097151/1000",
        "bytes 5-4/7000000",
        "bytes 0-2097151/*",
        "bytes 0-2097151",
        "bytes 0-99999999999999999999/99999999999999999999",
        "octets 0-2097151/7000000",
        "\x1b[2J",
        "",
    ],
)
def test_a_false_content_range_is_refused(server: RangeServer, told: str) -> None:
    assert refusal(server, changed(ranged(LARGE), Content_Range=told)) == "remote_unusable"


def test_fewer_bytes_than_the_range_promises_are_noticed(server: RangeServer) -> None:
    short = changed(ranged(LARGE[:1000]), Content_Range=f"bytes 0-2097151/{len(LARGE)}")
    assert refusal(server, short) == "remote_failed"


def test_more_bytes_than_were_asked_for_are_not_read(server: RangeServer) -> None:
    longer = changed(whole(LARGE + bytes(64 << 20)), Content_Range=f"bytes 0-2097151/{len(LARGE)}")

    def answer(request: Request) -> Reply:
        if request.range is not None and request.range[0] == 0:
            reply = longer(request)
            reply.status = 206
            return reply
        return changed(ranged(LARGE), ETag=None)(request)

    assert read(server, answer).header.file_size == len(LARGE)


def test_a_file_that_is_shorter_than_promised_is_refused_as_a_short_file_is(
    server: RangeServer,
) -> None:
    cut = ranged(SMALL[:-1000] if len(SMALL) > 2000 else SMALL[:-40])
    assert refusal(server, cut) in {"truncated", "data_past_end"}


@pytest.mark.parametrize("second", [{"etag": '"two"'}, {"longer": 1}])
def test_a_file_that_changes_between_requests_is_refused(
    server: RangeServer, second: dict[str, object]
) -> None:
    other = ranged(
        LARGE + bytes(1 if "longer" in second else 0), etag=str(second.get("etag", '"one"'))
    )

    def answer(request: Request) -> Reply:
        assert request.range is not None
        return (ranged(LARGE) if request.range[0] == 0 else other)(request)

    assert refusal(server, answer) == "remote_unusable"


def test_a_server_that_forgets_ranges_is_refused(server: RangeServer) -> None:
    def answer(request: Request) -> Reply:
        assert request.range is not None
        first = request.range[0] == 0
        return (changed(ranged(LARGE), ETag=None) if first else whole(LARGE))(request)

    assert refusal(server, answer) == "remote_unusable"


def test_a_compressed_answer_is_refused(server: RangeServer) -> None:
    import gzip

    squeezed = gzip.compress(SMALL)
    answer = changed(whole(squeezed), Content_Encoding="gzip")
    assert refusal(server, answer) == "remote_unusable"


def test_a_file_of_unknown_length_is_refused(server: RangeServer) -> None:
    answer = changed(whole(SMALL), Content_Length=None)
    assert refusal(server, answer) == "remote_unusable"


def test_an_absurd_length_is_refused(server: RangeServer) -> None:
    answer = changed(whole(SMALL), Content_Length="9" * 40)
    assert refusal(server, answer) in {"remote_failed", "remote_unreachable"}


def test_a_page_in_place_of_a_file_is_named_as_such(server: RangeServer) -> None:
    assert refusal(server, whole(b"<!DOCTYPE html><html>log in</html>")) == "not_gguf"


def test_an_endless_header_is_not_followed(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ggufext.locating.remote._ENDS", (1 << 16, 1 << 18, 1 << 19))
    huge = LARGE[: 4 << 20] + bytes(1 << 20)
    told = changed(whole(huge), Content_Length=str(1 << 40))

    def answer(request: Request) -> Reply:
        assert request.range is not None
        start, last = request.range
        headers = {"Content-Range": f"bytes {start}-{last}/{1 << 40}"}
        return Reply(206, headers, huge[start : last + 1])

    assert refusal(server, answer) == "remote_unusable"
    assert refusal(server, told) == "remote_unusable"


def test_a_host_that_is_not_there_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(LocationError) as caught:
        read_remote(f"http://127.0.0.1:{port}/m.gguf", patience=5.0)
    assert caught.value.code == "remote_unreachable"


@pytest.mark.parametrize("url", ["http://", "http://[::1/x", "https://:0/x", "http://a b/c"])
def test_a_malformed_address_is_named(url: str) -> None:
    with pytest.raises(LocationError) as caught:
        read_remote(url, patience=5.0)
    assert caught.value.code in {"remote_name", "remote_unreachable"}


def test_a_password_in_an_address_is_never_shown(server: RangeServer) -> None:
    url = server.address.replace("://", "://me:secret@") + "/absent"
    with pytest.raises(LocationError) as caught:
        read_remote(url)
    assert "secret" not in str(caught.value)
    assert shown("hf://owner/repo@main/x.gguf") == "hf://owner/repo@main/x.gguf"


@pytest.mark.parametrize("name", ["https://host/m.gguf", "HTTP://host/m.gguf", "hf://o/r"])
def test_a_remote_model_is_not_edited(name: str) -> None:
    with pytest.raises(LocationError, match="download") as caught:
        rewrite(name, PlanRequest(target_length=8192))
    assert caught.value.code == "remote_model"


def test_progress_is_told_in_bytes_up_to_the_end_of_the_header(server: RangeServer) -> None:
    told: list[int] = []
    server.answers["/m.gguf"] = ranged(LARGE)
    remote = read_remote(f"{server.address}/m.gguf", progress=told.append)
    assert told == sorted(told)
    assert len(remote.front) <= told[-1] <= len(LARGE)


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    for name in ("https://host/m.gguf", "hf://owner/repo/m.gguf"):
        with pytest.raises(LocationError, match=r"ggufext\[remote\]") as caught:
            read_remote(name)
        assert caught.value.code == "extra_missing"


def test_a_part_of_a_split_model_says_that_it_is_one(server: RangeServer) -> None:
    first = gguf_bytes(KEYS | {"split.no": U16(0), "split.count": U16(3)})
    found = inspect(read(server, ranged(first)))
    assert "parts_not_read" in [warning.code for warning in found.warnings]


def test_a_path_stays_a_path(tmp_path: Path) -> None:
    assert local_path(tmp_path) == tmp_path
