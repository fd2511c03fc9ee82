"""The keys of issuers: fetched, kept, fetched again. Slow, broken and hostile issuers. Key files."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from git_credential_bbjwt.core.failures import BudgetSpentError, ConnectionFailedError
from git_credential_bbjwt.serving import issuer_keys
from git_credential_bbjwt.serving.id_token import IdToken, parse_token
from git_credential_bbjwt.serving.issuer_keys import (
    Fetched,
    FetchedKeys,
    KeysInFile,
    KeysNotAvailableError,
    fetch_keys,
    keys_in,
)
from tests.conftest import ends_within, until
from tests.issuer import Issuer, IssuerServer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IssuerServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "GIT_SSL_CAINFO"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir("/")
    issuer = IssuerServer(context, "P-256")
    yield issuer
    issuer.close()


def token(issuer: Issuer) -> IdToken:
    return parse_token(issuer.token())


class Clock:
    """The monotonic clock, which a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        real = time.monotonic
        monkeypatch.setattr("git_credential_bbjwt.serving.issuer_keys.time.monotonic", lambda: real() + self._ahead)

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Source:
    """Fetches from an issuer in memory. ``fails`` makes a fetch fail, and ``gate`` makes it wait."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.fetches = 0
        self.fails = False
        self.life = 300
        self.gate = threading.Event()
        self.gate.set()
        self.keys = FetchedKeys(issuer.url, self.fetch)

    def fetch(self) -> Fetched:
        self.fetches += 1
        assert self.gate.wait(30)
        if self.fails:
            raise ConnectionFailedError("no answer")
        return Fetched(keys_in(json.dumps(self.issuer.jwks()).encode()), self.life)


@pytest.fixture
def source() -> Source:
    return Source(Issuer(kind="P-256"))


def test_keys_are_fetched_once(source: Source) -> None:
    for _ in range(5):
        assert source.keys.for_token(token(source.issuer))
    assert source.fetches == 1


def test_rotated_key_is_fetched_at_its_first_token(source: Source) -> None:
    source.keys.for_token(token(source.issuer))
    source.issuer.rotate("P-256")

    found = source.keys.for_token(token(source.issuer))

    assert [key.kid for key in found] == [source.issuer.kid]
    assert source.fetches == 2


def test_flood_of_unknown_keys_makes_one_fetch_a_minute(source: Source, clock: Clock) -> None:
    known = token(source.issuer)
    source.keys.for_token(known)
    stranger = Issuer(kind="P-256")
    for _ in range(20):
        source.keys.for_token(token(stranger))
    assert source.fetches == 2

    clock.advance(61)
    for _ in range(20):
        source.keys.for_token(token(stranger))
        assert source.keys.for_token(known)
    assert source.fetches == 3


@pytest.mark.parametrize("life", [300, 86_400])
def test_old_keys_are_used_for_another_day_during_an_outage(source: Source, clock: Clock, life: int) -> None:
    source.life = life
    known = token(source.issuer)
    source.keys.for_token(known)
    source.fails = True
    clock.advance(life)
    for _ in range(10):
        clock.advance(8000)
        assert source.keys.for_token(known)
        until(lambda: source.keys._under_way is None)
    assert source.fetches == 11

    clock.advance(8000)
    with pytest.raises(KeysNotAvailableError):
        source.keys.for_token(known)


def test_outdated_keys_are_used_while_new_ones_are_fetched(source: Source, clock: Clock) -> None:
    known = token(source.issuer)
    source.keys.for_token(known)
    clock.advance(301)
    source.gate.clear()

    assert source.keys.for_token(known)

    source.gate.set()
    until(lambda: source.fetches == 2 and source.keys._under_way is None)
    source.keys.for_token(known)
    assert source.fetches == 2


def test_three_requests_wait_for_a_slow_issuer_and_the_rest_do_not(source: Source) -> None:
    source.gate.clear()
    waiting, refused = [], []

    def ask() -> None:
        try:
            waiting.append(source.keys.for_token(token(source.issuer)))
        except KeysNotAvailableError:
            refused.append(True)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    until(lambda: len(refused) == 9)
    assert not waiting

    source.gate.set()
    for thread in threads:
        thread.join(30)
    assert len(waiting) == 3
    assert source.fetches == 1


def test_fetch_whose_thread_cannot_start_is_tried_again(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError):
            source.keys.for_token(token(source.issuer))

    assert source.keys.for_token(token(source.issuer))


def test_failure_is_not_repeated_for_ten_seconds(source: Source, clock: Clock) -> None:
    source.fails = True
    for _ in range(5):
        with pytest.raises(KeysNotAvailableError):
            source.keys.for_token(token(source.issuer))
    assert source.fetches == 1

    clock.advance(11)
    source.fails = False
    assert source.keys.for_token(token(source.issuer))


def test_unknown_key_during_an_outage_is_not_called_wrong(source: Source) -> None:
    source.keys.for_token(token(source.issuer))
    source.fails = True
    source.issuer.rotate("P-256")

    with pytest.raises(KeysNotAvailableError):
        source.keys.for_token(token(source.issuer))


def test_keys_by_discovery(server: IssuerServer) -> None:
    fetched = fetch_keys(server.url, "")

    assert [key.kid for key in fetched.keys] == [server.kid]
    assert fetched.life == 600
    assert server.seen == ["/.well-known/openid-configuration", "/keys"]


def test_keys_from_a_url(server: IssuerServer) -> None:
    assert fetch_keys("https://issuer.example", f"{server.url}/keys").keys
    assert server.seen == ["/keys"]


def test_issuer_with_a_path_and_a_slash_at_its_end(server: IssuerServer) -> None:
    place, server.url = server.url, server.url + "/tenant/"
    documents = {
        "/tenant/.well-known/openid-configuration": {"issuer": server.url, "jwks_uri": f"{place}/keys?a=b"},
        "/keys?a=b": server.jwks(),
    }
    server.answer = lambda path: (200, {}, json.dumps(documents[path]).encode())

    assert fetch_keys(server.url, "").keys


@pytest.mark.parametrize(
    ("cache_control", "life"),
    [
        ("max-age=600", 600),
        ("public, Max-Age = 900, must-revalidate", 900),
        ("max-age=1", 300),
        ("max-age=99999999", 86_400),
        ("s-maxage=9999", 300),
        ("no-store", 300),
        ("max-age=-5", 300),
        ("max-age=" + "9" * 5000, 300),
    ],
)
def test_life_of_keys_comes_from_max_age(server: IssuerServer, cache_control: str, life: int) -> None:
    server.cache_control = cache_control

    assert fetch_keys(server.url, "").life == life


def test_issuer_whose_response_drips_is_given_up_after_the_patience(
    server: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "PATIENCE", 1.0)
    ends = threading.Event()

    def drip() -> None:
        with socket.create_server(("localhost", 0)) as listening:
            place.append(f"https://localhost:{listening.getsockname()[1]}")
            connection, _ = listening.accept()
            with contextlib.suppress(OSError), server.context.wrap_socket(connection, server_side=True) as stream:
                stream.recv(65_536)
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(200):
                    stream.sendall(b" ")
                    if ends.wait(0.1):
                        break

    place: list[str] = []
    thread = threading.Thread(target=drip)
    thread.start()
    until(lambda: bool(place))
    try:
        with ends_within(1), pytest.raises(BudgetSpentError):
            fetch_keys(place[0], "")
    finally:
        ends.set()
        thread.join()


HOSTILE: dict[str, Callable[[IssuerServer, str], tuple[int, dict[str, str], bytes] | None]] = {
    "another issuer": lambda _, _path: (200, {}, b'{"issuer": "https://x.example", "jwks_uri": "https://x.example/k"}'),
    "keys by http": lambda issuer, _path: (
        200,
        {},
        json.dumps({"issuer": issuer.url, "jwks_uri": "http://localhost/keys"}).encode(),
    ),
    "keys in a file": lambda issuer, _path: (
        200,
        {},
        json.dumps({"issuer": issuer.url, "jwks_uri": "file:///etc/passwd"}).encode(),
    ),
    "keys with a user": lambda issuer, _path: (
        200,
        {},
        json.dumps({"issuer": issuer.url, "jwks_uri": issuer.url.replace("//", "//u:p@")}).encode(),
    ),
    "keys with a line break": lambda issuer, _path: (
        200,
        {},
        json.dumps({"issuer": issuer.url, "jwks_uri": issuer.url + "/keys\r\nX: y"}).encode(),
    ),
    "keys that are no string": lambda issuer, _path: (
        200,
        {},
        json.dumps({"issuer": issuer.url, "jwks_uri": 1}).encode(),
    ),
    "no keys": lambda _, path: (200, {}, b'{"keys": []}') if path == "/keys" else None,
    "a list": lambda _, _path: (200, {}, b"[]"),
    "not JSON": lambda _, _path: (200, {}, b"<html>"),
    "deep": lambda _, _path: (200, {}, b"[" * 500_000),
    "not UTF-8": lambda _, _path: (200, {}, b"\xff\xfe"),
    "over a mebibyte": lambda _, _path: (200, {}, b" " * (1024 * 1024 + 1)),
    "a redirect": lambda issuer, _path: (302, {"Location": f"{issuer.url}/keys"}, b""),
    "not found": lambda _, _path: (404, {}, b""),
    "no content": lambda _, _path: (204, {}, b""),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_answers_give_no_keys(server: IssuerServer, what: str, capfd: pytest.CaptureFixture[str]) -> None:
    server.answer = lambda path: HOSTILE[what](server, path)
    keys = FetchedKeys(server.url, lambda: fetch_keys(server.url, ""))

    with pytest.raises(KeysNotAvailableError):
        keys.for_token(token(server))
    shown = capfd.readouterr().err
    assert f"the keys of {server.url} cannot be fetched: " in shown
    assert "Traceback" not in shown


def test_certificate_of_another_authority_gives_no_keys(
    server: IssuerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))

    with pytest.raises(ConnectionFailedError, match="cannot be verified"):
        fetch_keys(server.url, "")
    assert server.seen == []


def test_key_file_is_read_again_when_it_changes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    issuer = Issuer(kind="P-521")
    path = tmp_path / "keys.json"
    keys = KeysInFile(issuer.url, str(path))
    with pytest.raises(KeysNotAvailableError):
        keys.for_token(token(issuer))
    assert "No such file" in capfd.readouterr().err

    path.write_text(json.dumps(issuer.jwks()))
    assert [key.kid for key in keys.for_token(token(issuer))] == [issuer.kid]

    issuer.rotate("P-521")
    path.write_text(json.dumps(issuer.jwks()))
    assert [key.kid for key in keys.for_token(token(issuer))] == [issuer.kid]
    assert capfd.readouterr().err == ""


def test_broken_key_file_leaves_the_old_keys_in_force(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    issuer = Issuer(kind="P-521")
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(issuer.jwks()))
    keys = KeysInFile(issuer.url, str(path))
    keys.for_token(token(issuer))

    for text in ('{"keys": ', '{"keys": []}', ""):
        path.write_text(text)
        for _ in range(3):
            assert keys.for_token(token(issuer))
        assert capfd.readouterr().err.count("error:") == 1
    path.unlink()
    assert keys.for_token(token(issuer))


def test_folder_in_the_place_of_a_key_file_leaves_no_descriptor_open(tmp_path: Path) -> None:
    issuer = Issuer()
    keys = KeysInFile(issuer.url, str(tmp_path))
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with pytest.raises(KeysNotAvailableError):
            keys.for_token(token(issuer))

    assert len(os.listdir("/dev/fd")) == before


def test_key_file_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    issuer = Issuer(kind="P-256")
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(issuer.jwks()))
    path.chmod(0o666)

    with pytest.raises(KeysNotAvailableError):
        KeysInFile(issuer.url, str(path)).for_token(token(issuer))
