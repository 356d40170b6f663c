"""Requests to a server: whom the credentials reach, and what messages say of them."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import real_servers
from ggufext.audit.engines.connection import Connection
from ggufext.audit.request import ServerSettings
from ggufext.errors import EngineError
from made_up_servers import Asked, Reply, serving

if TYPE_CHECKING:
    from pathlib import Path

KEY, PASSWORD = "sk-very-secret", "hunter2"


def kind(path: str, body: dict[str, Any]) -> Reply:
    return 200, {"data": []}


def ask(url: str, *, post: bool = False, api_key: str | None = KEY, retries: int = 0) -> None:
    settings = ServerSettings(url=url, api_key=api_key, retries=retries, retry_seconds=0.01)
    with closing(Connection(settings)) as connection:
        if post:
            connection.post("/v1/completions", {"prompt": "Hello"})
        else:
            connection.get("/v1/models")


def seen(heard: list[Asked], header: str = "Authorization") -> set[str | None]:
    return {asked.headers[header] for asked in heard}


def test_api_key_is_sent_as_a_bearer_token_without_the_blanks_around_it() -> None:
    heard: list[Asked] = []
    with serving(kind, heard=heard) as url:
        ask(url, api_key=f" {KEY}\n")
    assert seen(heard) == {f"Bearer {KEY}"}


def test_user_and_password_of_the_address_are_sent_as_basic_authorization() -> None:
    heard: list[Asked] = []
    with serving(kind, heard=heard) as url:
        ask(url.replace("//", "//user:h%C3%BCnter@"), api_key=None)
    # base64 of user:hünter in UTF-8
    assert seen(heard) == {"Basic dXNlcjpow7xudGVy"}


@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_do_not_follow_to_another_port(status: int, post: bool) -> None:
    first: list[Asked] = []
    second: list[Asked] = []
    with serving(kind, heard=second) as there:

        def away(path: str, body: dict[str, Any]) -> Reply:
            return status, there + path

        with serving(away, heard=first) as here:
            ask(here, post=post)
            ask(here.replace("//", f"//user:{PASSWORD}@"), post=post, api_key=None)
    assert None not in seen(first)
    assert seen(second) == {None}
    assert len(second) == 2


def test_credentials_do_not_follow_to_another_host_and_back() -> None:
    heard: list[Asked] = []

    def back(path: str, body: dict[str, Any]) -> Reply:
        return (200, {}) if path == "/last" else (307, f"{here}/last")

    with serving(back, heard=heard) as here:
        other = here.replace("127.0.0.1", "localhost")

        def away(path: str, body: dict[str, Any]) -> Reply:
            return 307, f"{other}/next"

        with serving(away) as start:
            ask(start)
    assert [asked.path for asked in heard] == ["/next", "/last"]
    assert seen(heard) == {None}


def test_credentials_follow_within_the_server() -> None:
    heard: list[Asked] = []

    def moved(path: str, body: dict[str, Any]) -> Reply:
        return (200, {}) if path == "/new" else (308, "/new")

    with serving(moved, heard=heard) as url:
        ask(url)
    assert [asked.headers["Authorization"] for asked in heard] == [f"Bearer {KEY}"] * 2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of 127.0.0.1 in one file."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl to make a certificate")
    path: Path = tmp_path_factory.mktemp("tls") / "both.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    kind_of_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run(
        [program, "req", "-x509", *kind_of_key, *name, *made], check=True, capture_output=True
    )
    with path.open("a") as file:
        file.write(path.with_suffix(".crt").read_text())
    return path


def test_credentials_do_not_follow_to_another_scheme(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    heard: list[Asked] = []
    with serving(kind, heard=heard, tls=tls) as there:
        with serving(lambda path, _: (307, there + path)) as here:
            ask(here)
        ask(there)
    assert [asked.headers["Authorization"] for asked in heard] == [None, f"Bearer {KEY}"]


def test_certificate_of_somebody_else_is_refused(certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    heard: list[Asked] = []
    with (
        serving(kind, heard=heard, tls=tls) as url,
        pytest.raises(EngineError, match="certificate"),
    ):
        ask(url)
    assert not heard


def test_refusal_behind_a_redirect_names_where_it_comes_from() -> None:
    with (
        serving(lambda *_: (401, b"no key")) as there,
        serving(lambda path, _: (307, there.replace("//", f"//x:{PASSWORD}@") + path)) as here,
        pytest.raises(EngineError) as refused,
    ):
        ask(here)
    assert f"answers 401 no key (after a redirect to {there}/v1/models: name" in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_redirects_that_never_end_are_given_up() -> None:
    with serving(lambda path, _: (302, path)) as url, pytest.raises(EngineError) as refused:
        ask(url)
    assert "too many redirects" in str(refused.value)


@pytest.mark.parametrize(
    "form",
    [
        "ftp://user:hunter2@127.0.0.1",
        "user:hunter2@127.0.0.1:1",
        "user:hunter2@x://127.0.0.1:1",
        "http://user:hun@ter2@[::1",
        "http://user:hunter2@127.0.0.1:1",
        "http://user:hunter2@nowhere.invalid",
        "http://127.0.0.1/v1?password=hunter2",
        "http://127.0.0.1/v1#hunter2",
    ],
)
def test_password_in_an_address_is_not_repeated(form: str) -> None:
    with pytest.raises(EngineError) as refused:
        ask(form)
    said = f"{refused.value} {refused.value!r} {ServerSettings(url=form, api_key=KEY)!r}"
    assert "hun" not in said
    assert KEY not in said


@pytest.mark.parametrize("key", ["sk-very\nsecret", "sk-véry-secret", "sk\x00secret"])
def test_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(EngineError, match="GGUFEXT_API_KEY") as refused:
        ask("http://127.0.0.1:1", api_key=key)
    assert "secret" not in repr(refused.value)


@pytest.mark.parametrize("status", [401, 503])
def test_server_that_repeats_the_key_does_not_show_it(status: int) -> None:
    reply = f"the key {KEY} of {PASSWORD} is wrong".encode()
    with serving(lambda *_: (status, reply)) as url, pytest.raises(EngineError) as refused:
        ask(url.replace("//", f"//user:{PASSWORD}@"))
    assert "the key … of … is wrong" in str(refused.value)


def test_one_connection_serves_all_requests() -> None:
    heard: list[Asked] = []
    settings = []
    with serving(kind, heard=heard) as url:
        settings.append(ServerSettings(url=url))
        with closing(Connection(settings[0])) as connection:
            for _ in range(20):
                connection.get("/v1/models")
                connection.post("/v1/completions", {})
    assert len(heard) == 40
    assert len({asked.port for asked in heard}) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_answers_that_may_change_are_tried_again(status: int) -> None:
    heard: list[Asked] = []

    def respond(path: str, body: dict[str, Any]) -> Reply:
        return (status, b"busy") if len(heard) < 3 else (200, {})

    with serving(respond, heard=heard) as url:
        ask(url, post=True, retries=2)
    assert len(heard) == 3


def test_answer_that_stays_is_not_tried_again() -> None:
    heard: list[Asked] = []
    with (
        serving(lambda *_: (400, b"too long"), heard=heard) as url,
        pytest.raises(EngineError, match="400 too long") as refused,
    ):
        ask(url, retries=5)
    assert refused.value.code == "server_refused"
    assert len(heard) == 1


def test_path_before_v1_belongs_to_the_address() -> None:
    heard: list[Asked] = []
    with serving(lambda *_: (404, b""), heard=heard) as url, pytest.raises(EngineError) as refused:
        ask(f"{url}/api/v1/")
    assert [asked.path for asked in heard] == ["/api/v1/models"]
    assert f"{url}/api/v1/models answers 404" in str(refused.value)


def test_reply_without_an_end_is_not_kept_in_memory() -> None:
    with (
        serving(lambda *_: (200, b"[" * (17 << 20))) as url,
        pytest.raises(EngineError) as refused,
    ):
        ask(url)
    assert refused.value.code == "server_not_understood"


def test_proxy_of_the_environment_is_asked_with_its_own_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    heard: list[Asked] = []
    with serving(kind, heard=heard) as proxy:
        monkeypatch.setenv("http_proxy", proxy.replace("http://", "user:hunter2@"))
        ask("http://nowhere.invalid/v1")
    (asked,) = heard
    assert asked.path == "http://nowhere.invalid/v1/models"
    assert asked.headers["Proxy-Authorization"] == "Basic dXNlcjpodW50ZXIy"


@pytest.mark.parametrize(
    "proxy", ["http://user:hunter2@127.0.0.1:{}", "ftp://x:hunter2@y", "http://x:hunter2@[::1"]
)
def test_password_of_a_proxy_is_not_repeated(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", proxy.format(real_servers.free_port()))
    with pytest.raises(EngineError) as refused:
        ask("http://nowhere.invalid/v1")
    assert refused.value.code == "engine_unreachable"
    assert PASSWORD not in repr(refused.value)
