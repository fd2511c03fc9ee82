"""Servers that repeat a request, or send without end: nothing secret is shown, and every call ends in time."""

from __future__ import annotations

import base64
import itertools
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from tempfile import mkdtemp
from typing import Any

import pytest

from tests.conftest import Workspace, assert_quits, ends_within
from tests.core.test_server_text import longest_in_both
from tests.mint import Mint
from tests.network.raw_server import PlainServer, RawServer, Reply
from tests.proxy import Proxy


def whole(status: str, body: str | bytes = "", *headers: str) -> bytes:
    """A response."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + data


def rest(text: str) -> str:
    """An error of the REST API."""
    return json.dumps({"type": "error", "error": {"message": text, "detail": text}})


def oauth(text: str, code: str = "invalid_grant") -> str:
    """An error of the token endpoint."""
    return json.dumps({"error": code, "error_description": text})


def token(**changes: Any) -> str:
    """A good response of the token endpoint, changed."""
    return json.dumps({"access_token": "a" * 90, "token_type": "bearer", "expires_in": 7200} | changes)


def escaped(jwt: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in jwt)


def encoded(jwt: str) -> str:
    return base64.b64encode(f"x-token-auth:{jwt}".encode()).decode()


#: Responses that repeat the JWT, by their fault.
REPEATING: dict[str, Callable[[str], bytes]] = {
    "a line that is no status line": lambda jwt: f"{jwt}\r\n\r\n".encode(),
    "a status that is no number": lambda jwt: f"HTTP/1.1 {jwt} OK\r\n\r\n".encode(),
    "another protocol": lambda jwt: f"{jwt}/1.1 200 OK\r\n\r\n".encode(),
    "a status text": lambda jwt: whole(f"500 {jwt}"),
    "a header field without a name": lambda jwt: f"HTTP/1.1 200 OK\r\n{jwt}\r\n\r\n".encode(),
    "a header field's name": lambda jwt: whole("200 OK", "{}", f"{jwt}: 1"),
    "a length": lambda jwt: f"HTTP/1.1 200 OK\r\nContent-Length: {jwt}\r\n\r\n".encode(),
    "a transfer coding": lambda jwt: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {jwt}\r\n\r\n".encode(),
    "a chunk's size": lambda jwt: f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{jwt}\r\n".encode(),
    "a time to wait": lambda jwt: whole("429 Slow", "", f"Retry-After: {jwt}"),
    "dates": lambda jwt: whole("401 No", "", f"Date: {jwt}"),
    "a redirect's host": lambda jwt: whole("302 Found", "", f"Location: https://{jwt}/"),
    "a redirect's path": lambda jwt: whole("302 Found", "", f"Location: https://host.example/{jwt}"),
    "a redirect to another workspace": lambda jwt: whole(
        "302 Found", "", f"Location: https://host.example/2.0/repositories/{jwt}/widgets"
    ),
    "a redirect's user": lambda jwt: whole("302 Found", "", f"Location: https://{jwt}:{jwt}@host.example"),
    "a redirect's text": lambda jwt: whole("302 Found", jwt),
    "plain text": lambda jwt: whole("403 No", f"You sent {jwt} to us"),
    "text of the REST API": lambda jwt: whole("403 No", rest(f"You sent {jwt}")),
    "a list of scopes": lambda jwt: whole(
        "403 No", json.dumps({"error": {"message": "no", "detail": {"required": [jwt], "granted": [f"x:{jwt}"]}}})
    ),
    "an error's code": lambda jwt: whole("400 No", oauth("no", jwt)),
    "an error's description": lambda jwt: whole("400 No", oauth(f"bad {jwt}")),
    "its end is cut": lambda jwt: whole("400 No", oauth(f"bad {jwt[:-20]}")),
    "a part of it": lambda jwt: whole("400 No", oauth(f"bad {jwt[40:80]}")),
    "in base64": lambda jwt: whole("400 No", oauth(f"bad {encoded(jwt)}")),
    "escaped": lambda jwt: whole("400 No", oauth(f"bad {escaped(jwt)}")),
    "escaped twice": lambda jwt: whole("400 No", oauth(json.dumps(escaped(jwt)))),
    "percent-encoded": lambda jwt: whole("400 No", "bad " + "".join(f"%{ord(c):02x}" for c in jwt)),
    "in pieces": lambda jwt: whole("400 No", "bad " + " ".join(jwt[at : at + 6] for at in range(0, len(jwt), 6))),
    "in quotes and commas": lambda jwt: whole("400 No", rest(f'"{jwt}","{jwt}"')),
    "after a long text": lambda jwt: whole("400 No", "ab " * 1300 + jwt),
    "across the cut": lambda jwt: whole("400 No", "ab " * 5300 + jwt),
    "an announcement's link": lambda jwt: whole(
        "410 Gone",
        json.dumps(
            {"error": {"message": "x", "data": {"announcement_url": f"https://developer.atlassian.com/?{jwt}"}}}
        ),
    ),
    "a good response's announcement": lambda jwt: whole(
        "200 OK",
        token(),
        f"Deprecation: {jwt}",
        f"Sunset: {jwt}",
        f'Link: <https://developer.atlassian.com/{jwt}>; rel="deprecation"',
    ),
    "a scope": lambda jwt: whole("200 OK", token(scope=jwt)),
    "scopes": lambda jwt: whole("200 OK", token(scopes=["repository", f"{jwt}:write"])),
    "a type of token": lambda jwt: whole("200 OK", token(token_type=jwt)),
    "a lifetime": lambda jwt: whole("200 OK", token(expires_in=jwt)),
    "a token with a blank": lambda jwt: whole("200 OK", token(access_token=f"{jwt} {jwt}")),
    "names of a repository": lambda jwt: whole("200 OK", json.dumps({"uuid": jwt, "full_name": jwt})),
    "a repository": lambda jwt: whole(
        "200 OK", json.dumps({"uuid": "{12345678-1234-1234-1234-123456789abc}", "full_name": f"acme/{jwt}"})
    ),
}


@contextmanager
def scene(acme: Workspace, kind: str, reply: Reply) -> Iterator[tuple[RawServer, str, dict[str, str]]]:
    """Use a raw server in place of one of Bitbucket's hosts.

    Yield the server, the URL of a repository there, and the environment of a separate machine.
    """
    with RawServer(acme.bitbucket._servers["base"].context, reply) as server:
        changes = {"baseApiUrl" if kind == "api" else "baseUrl": server.url}
        folder = mkdtemp(dir=acme.machine.home)
        environment = {
            "BBJWT_INSTALLATION": json.dumps(acme.bitbucket.payload(acme.app, **changes)),
            "XDG_RUNTIME_DIR": folder,
            "XDG_CACHE_HOME": folder,
        }
        yield server, acme.url if kind == "api" else f"{server.url}/acme/widgets", environment


def side_by_side(check: Callable[[str], None], names: Iterable[str]) -> None:
    """Check all cases in parallel, because most of them wait. Report a failure with its name."""

    def checked(name: str) -> str:
        try:
            check(name)
        except AssertionError as failure:
            return f"{name}: {failure}"
        return ""

    with ThreadPoolExecutor(6) as workers:
        assert list(filter(None, workers.map(checked, names))) == []


def jwt_of(request: str) -> str:
    """Return the JWT or token of a request; "none" for doctor's first request, which has neither."""
    found = re.search(r"Authorization: (?:JWT|Bearer) (\S+)", request)
    return found[1] if found else "none"


@pytest.mark.parametrize("kind", ["api", "token"])
@pytest.mark.parametrize("name", REPEATING)
def test_jwt_that_a_server_repeats_is_not_shown(
    mint: Mint, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    monkeypatch.setenv("BBJWT_TRACE", "1")
    context = mint.bitbucket._servers["base"].context
    with RawServer(context, lambda request: [REPEATING[name](jwt_of(request))]) as server:
        urls: dict[str, Any] = {"api" if kind == "api" else "base": server.url}
        if name == "a good response's announcement" and kind == "token":
            mint.token(**urls)
        else:
            mint.error(**urls)
    assert server.requests
    assert mint.lines
    assert all(line.isprintable() for line in mint.lines)
    for sent in map(jwt_of, server.requests):
        assert longest_in_both(mint.text, sent) < 10


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("token", "an error's description"),
        ("api", "a redirect's host"),
        ("api", "a status text"),
        ("token", "a scope"),
        ("api", "plain text"),
    ],
)
def test_doctor_does_not_show_a_jwt_that_a_server_repeats(acme: Workspace, kind: str, name: str) -> None:
    with scene(acme, kind, lambda request: [REPEATING[name](jwt_of(request))]) as (server, url, environment):
        words = ["--timeout=12", "doctor", url, "--json"]
        done = acme.machine.bbjwt(*words, check=False, also=environment | {"BBJWT_TRACE": "1"})
    assert json.loads(done.stdout)["checks"]
    assert server.requests
    for sent in map(jwt_of, server.requests):
        assert longest_in_both(done.stderr + done.stdout, sent) < 10


def endless(*pieces: bytes) -> Callable[[str], Iterator[bytes]]:
    return lambda _: itertools.chain(pieces[:-1], itertools.repeat(pieces[-1]))


def dripping(data: bytes, pause: float = 0.3) -> Callable[[str], Iterator[bytes]]:
    def pieces(_: str) -> Iterator[bytes]:
        for at in range(len(data)):
            time.sleep(pause)
            yield data[at : at + 1]

    return pieces


START = b"HTTP/1.1 200 OK\r\n"

#: Responses that take a careless client a long time.
SLOW: dict[str, Callable[[str], Iterable[bytes]]] = {
    "interim responses without end": endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints without end": endless(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"),
    "header fields without end": endless(START, b"A: b\r\n"),
    "a header field without end": endless(START, b"A: b" * 1000),
    "a continued header field without end": endless(START + b"A: b\r\n", b" c\r\n"),
    "a first line without end": endless(b"x" * 1000),
    "a body without end": endless(START + b"\r\n", b"x" * 1000),
    "chunks of a byte": endless(START + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 1000),
    "a chunk's size without end": endless(START + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 1000),
    "trailers without end": endless(START + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    "a head that drips": dripping(START + b"A: " + b"b" * 100),
    "a body that drips": dripping(whole("200 OK", "x" * 100)),
    "an announcement of 60 KB": lambda _: [whole("200 OK", token(), "Sunset: x", "Link: " + "<a" * 30_000)],
    "a date of 60 KB": lambda _: [whole("403 No", "no", "Date: " + "Mon, 1 " * 8_000)],
    "a redirect to 60 KB": lambda _: [whole("302 Found", "", "Location: https://" + "a.%2f@[" * 8_000)],
    "a number of a million digits": lambda _: [whole("200 OK", token(expires_in=0).replace("0", "9" * 900_000))],
    "deep JSON": lambda _: [whole("200 OK", "[" * 900_000)],
}


def test_a_call_ends_in_time_whatever_a_server_sends(acme: Workspace) -> None:
    def check(name: str) -> None:
        with scene(acme, "token", SLOW[name]) as (_, url, environment), ends_within(2):
            done = acme.machine.get(url, "--timeout=2", check=False, also=environment)
        if name != "an announcement of 60 KB":
            assert_quits(done)

    side_by_side(check, SLOW)


@pytest.mark.parametrize("status", [403, 407, 429, 503])
def test_password_that_a_proxy_repeats_is_not_shown(acme: Workspace, status: int) -> None:
    """The proxy repeats its own password. A refusal that may be temporary is retried."""
    said: list[str] = []

    def reply(head: str) -> Iterator[bytes]:
        said.append(head.partition("Proxy-Authorization: Basic ")[2])
        yield f"HTTP/1.1 {status} No {said[-1]} some:where-else\r\n\r\n".encode()

    with PlainServer(reply) as proxy:
        place = proxy.url.removeprefix("https://")
        done = acme.get("--timeout=20", check=False, https_proxy=f"http://somebody:where-else@{place}", BBJWT_TRACE="1")

    assert_quits(done, str(status), place)
    assert "where-else" not in done.stderr
    assert all(said)
    assert not any(one in done.stderr for one in said)
    # A refusal ends the process, perhaps before its other connection has reached the proxy.
    assert len(said) in (1, 2) if status in (403, 407) else len(said) > 2


def test_a_proxy_that_cannot_reach_the_server_at_first_is_asked_again(
    mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = iter([b"HTTP/1.1 503 Busy\r\n\r\n"] * 2)

    class Sometimes(Proxy):
        def serve(self, connection: socket.socket) -> None:
            refusal = next(refusals, None)
            if refusal is None:
                super().serve(connection)
                return
            with connection:
                connection.recv(65_536)
                connection.sendall(refusal)

    with Sometimes() as proxy:
        monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
        assert mint.token().token

    assert len(proxy.asked) == 2


@pytest.mark.parametrize("status", [100, 102, 103])
def test_interim_response_is_not_treated_as_the_response(mint: Mint, status: int) -> None:
    repository = {"uuid": mint.widgets.uuid, "full_name": "acme/widgets"}
    interim = f"HTTP/1.1 {status} Hints\r\nLink: </x>; rel=preload\r\n\r\n".encode()
    pieces = [interim, interim + whole("200 OK", json.dumps(repository))]
    with RawServer(mint.bitbucket._servers["base"].context, lambda _: pieces) as server:
        assert mint.token(api=server.url).token


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n%s\r\n3\r\n%s\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n%s%s",
        b"HTTP/1.1 200\r\ncontent-length: 8\r\nCONTENT-LENGTH: 8\r\n\r\n%s%s",
        b"HTTP/1.1 200 OK\nContent-Length: 8\nX: a\n b\n\n%s%s",
    ],
)
def test_each_form_of_a_body_is_read(mint: Mint, response: bytes) -> None:
    body = json.dumps({"uuid": mint.widgets.uuid}).encode()
    data = response.replace(b"5;x=y", b"%x;x=y" % (len(body) - 3)).replace(b": 8", b": %d" % len(body))
    data = data.replace(b"%s", body[:-3], 1).replace(b"%s", body[-3:], 1)
    with RawServer(mint.bitbucket._servers["base"].context, lambda _: [data]) as server:
        assert mint.token(api=server.url).token
