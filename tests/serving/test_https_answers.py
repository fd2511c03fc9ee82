"""The https broker under gunicorn: each row of the table of its answers, its audit, health and isolation."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ends_within, takes_long, until
from tests.emulator import OUTAGE, SILENCE, Emulator, Fault
from tests.https_broker import HttpsBroker, scene
from tests.issuer import Issuer

NOT_ALLOWED = "quit=1\nbbjwt-error=this broker hands out no token for this repository\n\n"
NO_AUDIT = "quit=1\nbbjwt-error=the audit cannot be written, so there is no token\n\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsBroker]:
    """A broker for tests that do not change it."""
    folder = tmp_path_factory.mktemp("shared")
    with Emulator(folder / "bitbucket") as bitbucket:
        broker = HttpsBroker(scene(folder, bitbucket), folder / "broker").start()
        yield broker
        broker.close()


def test_token(shared: HttpsBroker) -> None:
    reply = shared.ask()

    assert reply.status == 200
    assert reply.body.endswith("\n\n")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.lines["username"] == "x-token-auth"
    assert shared.scene.bitbucket.tokens[reply.lines["password"]].repository == shared.scene.widgets.uuid
    assert int(reply.lines["password_expiry_utc"]) > time.time() + 600
    assert shared.ask().lines == reply.lines


@pytest.mark.parametrize("body", [b"protocol=https\nhost=github.com\npath=acme/widgets\n\n", b""])
def test_request_for_another_host_gets_an_empty_answer(shared: HttpsBroker, body: bytes) -> None:
    host = shared.scene.bitbucket.host.encode()
    reply = shared.ask(body=body or b"protocol=https\nhost=%s\npath=others/widgets\n\n" % host)

    assert (reply.status, reply.body) == (200, "\n")


@pytest.mark.parametrize(
    "body",
    [b"", b"protocol=https\nhost=localhost\n", b"junk\n\n", b"\n\n", b"a=b\0\n\n", b"host=x\n\n"[2:], b"x" * 65_536],
)
def test_request_that_is_not_in_gits_format(shared: HttpsBroker, body: bytes) -> None:
    reply = shared.ask(body=body)

    assert reply.status == 400
    assert reply.body.startswith("quit=1\nbbjwt-error=")


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer ", "Basic dTpw", "Token x", "bearerx y"])
def test_request_without_an_id_token(shared: HttpsBroker, value: str | None) -> None:
    reply = shared.ask(also={"Authorization": value})

    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.body == "quit=1\nbbjwt-error=the request has no ID token\n\n"


def test_id_token_that_is_not_accepted(shared: HttpsBroker) -> None:
    now = int(time.time())
    stranger = Issuer(shared.issuer.url, "P-256")
    reasons = {
        "x.y.z": "the ID token's header is not a JSON object, or has a name twice",
        "a, b": "the ID token is not a JWT of three base64url parts",
        shared.issuer.token(exp=now - 61, iat=now - 400): "the ID token has expired",
        shared.issuer.token(aud="https://other.example"): "the ID token is for another audience",
        shared.issuer.token(iss="https://other.example"): "the ID token's issuer is not trusted here",
        stranger.token(headers={"kid": shared.issuer.kid}): "the ID token's signature does not belong to its issuer",
    }
    for token, reason in reasons.items():
        reply = shared.ask(token)
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert reply.body == f"quit=1\nbbjwt-error={reason}\n\n"


def test_scheme_of_the_authorization_in_any_case(shared: HttpsBroker) -> None:
    assert shared.ask(also={"Authorization": f"bEARER  {shared.issuer.token()} "}).status == 200


def test_refusals_do_not_tell_which_repositories_exist(shared: HttpsBroker) -> None:
    requests = len(shared.scene.bitbucket.seen)
    for name in ("acme/secrets", "acme/not-there", "acme/secrets.git"):
        assert shared.ask(name=name).body == NOT_ALLOWED
    unknown = shared.issuer.token(repository_id="75")
    for name in ("acme/widgets", "acme/secrets", "others/widgets"):
        reply = shared.ask(unknown, name=name)
        assert (reply.status, reply.body) == (403, NOT_ALLOWED)
    assert shared.ask(unknown, body=b"junk").status == 403
    assert len(shared.scene.bitbucket.seen) == requests


def test_request_by_uuids_is_held_to_the_patterns(shared: HttpsBroker) -> None:
    bitbucket = shared.scene.bitbucket
    by_name = {one.slug: f"{one.workspace_uuid}/{one.uuid}" for one in bitbucket.repositories}

    assert shared.ask(name=by_name["widgets"]).status == 200
    assert shared.ask(name=by_name["secrets"]).body == NOT_ALLOWED
    assert shared.ask(name=by_name["widgets"][:-3] + "00}").body == NOT_ALLOWED


def test_other_paths_and_methods(shared: HttpsBroker) -> None:
    for path in ("/", "/git-credentials/", "/git-credentials/x", "/GIT-CREDENTIALS", "/metrics", "/healthz/"):
        reply = shared.send("POST", path, b"", {"Authorization": "Bearer x"})
        assert (reply.status, reply.body) == (404, "")
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        reply = shared.send(method, "/git-credentials")
        assert (reply.status, reply.body, reply.headers["allow"]) == (405, "", "POST")
    assert shared.send("POST", "/healthz", b"").status == 405


def test_other_types_and_lengths_of_a_request(shared: HttpsBroker) -> None:
    for kind in ("application/json", "", "text/html", "application/x-www-form-urlencoded", None):
        assert shared.ask(also={"Content-Type": kind}).status == 415
    assert shared.ask(also={"Content-Type": "Text/Plain"}).status == 200
    assert shared.ask(body=b"x" * 65_537).status == 413
    assert shared.ask(body=b"x" * 65_537, token="x").status == 401


def test_request_in_chunks(shared: HttpsBroker) -> None:
    connection = shared.connect()
    host = shared.scene.bitbucket.host
    headers = {"Content-Type": "text/plain", "Authorization": f"Bearer {shared.issuer.token()}"}
    parts = [b"protocol=https\n", f"host={host}\npath=acme/widgets\n\n".encode()]
    connection.request("POST", "/git-credentials", iter(parts), headers, encode_chunked=True)
    assert connection.getresponse().status == 200
    connection.close()

    connection = shared.connect()
    connection.request("POST", "/git-credentials", iter([b"x" * 30_000] * 3), headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_client_that_goes_away_early(shared: HttpsBroker) -> None:
    for sent in (b"", b"protocol=https\n"):
        with socket.create_connection(("127.0.0.1", shared.port)) as connection:
            connection.sendall(
                b"POST /git-credentials HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n"
                + f"Authorization: Bearer {shared.issuer.token()}\r\n\r\n".encode()
                + sent
            )
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")
    assert shared.ask().status == 200


def test_slow_bodies_end_and_delay_nobody(shared: HttpsBroker) -> None:
    takes_long("a body that does not arrive is waited for 10 s")
    token = shared.issuer.token()

    def drip(_: int) -> bytes:
        with socket.create_connection(("127.0.0.1", shared.port)) as connection:
            connection.sendall(
                b"POST /git-credentials HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 60000\r\n"
                + f"Authorization: Bearer {token}\r\n\r\n".encode()
            )
            connection.settimeout(1)
            for _ in range(60):
                try:
                    if answer := connection.recv(65_536):
                        return answer
                except TimeoutError:
                    connection.sendall(b"x")
        return b""

    with ThreadPoolExecutor(12) as pool:
        dripping = [pool.submit(drip, number) for number in range(12)]
        for _ in range(20):
            assert shared.ask().status == 200
        assert all(one.result().startswith(b"HTTP/1.1 408 ") for one in dripping)
    assert shared.audit()[-1]["status"] == 408


def test_slow_body_ends_under_tls_too(broker: HttpsBroker) -> None:
    takes_long("a body that does not arrive is waited for 10 s")
    broker.start(tls=True)
    context = ssl.create_default_context(cafile=broker.authorities)
    with (
        socket.create_connection(("127.0.0.1", broker.port)) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        connection.settimeout(30)
        connection.sendall(
            b"POST /git-credentials HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 600\r\n"
            + f"Authorization: Bearer {broker.issuer.token()}\r\n\r\nprotocol=https\n".encode()
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 408 ")
    assert broker.ask().status == 200


def test_too_many_requests_of_one_identity(broker: HttpsBroker) -> None:
    broker.write(per_minute=3)
    broker.start()
    replies = [broker.ask() for _ in range(8)]

    refused = next(reply for reply in replies if reply.status != 200)
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert refused.body.startswith("quit=1\nbbjwt-error=too many requests")
    assert broker.ask(broker.issuer.token(sub="another job")).status == 200


def test_too_many_look_ups(broker: HttpsBroker) -> None:
    broker.start()
    workspace = broker.scene.widgets.workspace_uuid
    replies = [broker.ask(name=f"{workspace}/{{00000000-0000-4000-8000-0000000000{n:02}}}") for n in range(21)]

    assert {reply.status for reply in replies[:20]} == {403}
    assert replies[-1].status == 429
    assert int(replies[-1].headers["retry-after"]) >= 1
    assert broker.ask().status == 200


def test_refused_token_is_replaced_once_a_minute(broker: HttpsBroker) -> None:
    broker.start()
    first = broker.ask().lines["password"]
    state = f"state[]=bbjwt:{hash_of(first)}\n"
    second = broker.ask(extra=state)
    assert second.status == 200
    assert second.lines["password"] != first

    third = broker.ask(extra=f"state[]=bbjwt:{hash_of(second.lines['password'])}\n")
    assert third.status == 429
    assert 1 <= int(third.headers["retry-after"]) <= 60


def hash_of(token: str) -> str:
    import hashlib

    return hashlib.sha256(token.encode()).hexdigest()


def test_bitbucket_refuses(broker: HttpsBroker) -> None:
    broker.start()
    broker.scene.bitbucket.misbehave("token", Fault(status=400, body=b'{"error": "invalid_grant"}'))
    reply = broker.ask()

    assert reply.status == 502
    assert reply.body.startswith("quit=1\nbbjwt-error=")
    assert broker.scene.app.shared_secret not in broker.log() + reply.body


def test_installation_that_cannot_be_used(broker: HttpsBroker) -> None:
    broker.start()
    broker.scene.installation.write_text("{")
    reply = broker.ask()

    assert reply.status == 502
    assert reply.body == "quit=1\nbbjwt-error=this broker is not set up; its log says why\n\n"
    health = broker.send("GET", "/healthz")
    assert (health.status, health.body) == (503, "")
    assert str(broker.scene.installation) in broker.audit()[-1]["reason"]

    broker.scene.write_installation()
    assert broker.ask().status == 200
    assert broker.send("GET", "/healthz").body == "ok\n"
    assert broker.send("HEAD", "/healthz").status == 200
    broker.scene.installation.rename(broker.scene.installation.with_suffix(".away"))
    assert broker.send("GET", "/healthz").status == 503
    assert f"{broker.scene.installation}: No such file or directory\n" in broker.log()

    broker.scene.write_installation()
    broker.scene.installation.chmod(0o666)
    assert broker.ask().status == 502


def test_keys_that_are_not_available(broker: HttpsBroker) -> None:
    broker.issuer.answer = lambda _: (500, {}, b"")
    broker.start()
    reply = broker.ask()

    assert reply.status == 503
    assert reply.headers["retry-after"] == "10"
    assert reply.body == "quit=1\nbbjwt-error=the keys of the ID token's issuer are not available now\n\n"
    assert "answered 500" in broker.log()


def test_audit_that_cannot_be_written(broker: HttpsBroker) -> None:
    broker.write(audit=str(broker.folder / "not there" / "audit"))
    broker.start()
    reply = broker.ask()

    assert reply.status == 503
    assert reply.body == NO_AUDIT


@pytest.mark.parametrize(
    ("function", "status"), [("application.identify", 500), ("answering.parse_request", 500), ("audit.audit_line", 503)]
)
def test_internal_error_is_an_answer_and_a_line_without_a_value(
    broker: HttpsBroker, function: str, status: int
) -> None:
    module, _, name = function.partition(".")
    (broker.folder / "faulty.py").write_text(
        f"import git_credential_bbjwt.serving.{module} as module\n"
        "from git_credential_bbjwt.serving.wsgi import application\n"
        "def fault(*_, **__): raise KeyError('a value that no log may contain')\n"
        f"module.{name} = fault\n"
    )
    broker.start(
        str(Path(sys.executable).with_name("gunicorn")), "--bind", f"127.0.0.1:{broker.port}",
        "--pythonpath", str(broker.folder), "--worker-class", "gthread", "--no-control-socket", "faulty:application",
    )  # fmt: skip
    reply = broker.ask()

    assert reply.status == status
    assert reply.body == ("" if status == 500 else NO_AUDIT)
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert broker.log().count("git-credential-bbjwt: error: ") == 1
    assert "KeyError" in broker.log()
    assert "a value" not in broker.log()
    lines = broker.audit()
    assert [(line["status"], line["outcome"]) for line in lines] == ([(500, "error")] if status == 500 else [])
    assert "a value" not in str(lines)
    assert broker.send("GET", "/healthz").status == 200


def test_bitbucket_that_does_not_answer_in_time(broker: HttpsBroker) -> None:
    broker.write(timeout=2)
    broker.start()
    broker.scene.bitbucket.misbehave("api", *[SILENCE] * 20)
    with ends_within(2), ThreadPoolExecutor(4) as pool:
        slow = pool.submit(broker.ask)
        others = [pool.submit(broker.ask, name="acme/lib-a") for _ in range(2)]
        reply = slow.result()

    assert reply.status == 504
    assert all(one.result().status in (200, 504) for one in others)
    assert broker.send("GET", "/healthz").status == 200


def test_response_that_drips_leaves_no_lock_behind(broker: HttpsBroker) -> None:
    broker.write(timeout=2)
    broker.start()
    broker.scene.bitbucket.misbehave("token", Fault(drip=0.3))

    assert broker.ask().status == 504
    assert broker.ask().status == 200


def test_outage_of_bitbucket(broker: HttpsBroker) -> None:
    broker.write(timeout=3)
    broker.start()
    broker.scene.bitbucket.misbehave("api", *[OUTAGE] * 50)

    assert broker.ask().status in (502, 504)


def test_token_that_would_open_the_workspace(broker: HttpsBroker) -> None:
    bitbucket = broker.scene.bitbucket
    consumer = bitbucket.add_consumer("acme")
    broker.scene.installation.write_text(json.dumps(bitbucket.consumer_json(consumer)))
    broker.start()
    reply = broker.ask()
    assert reply.status == 502
    assert "whole workspace" in reply.body

    broker.write(whole_workspace=True)
    time.sleep(1.1)
    until(lambda: "bbjwt-opens=workspace\n" in broker.ask().body)


def test_each_answer_leaves_a_line(broker: HttpsBroker) -> None:
    broker.start()
    token = broker.ask().lines["password"]
    broker.ask(name="acme/secrets", also={"X-Forwarded-For": "203.0.113.7, 198.51.100.1"})
    broker.ask("x.y.z")
    granted, refused, anonymous = broker.audit()

    assert granted["asker"] | {"jti": ""} == {
        "by": "oidc",
        "address": "127.0.0.1",
        "issuer": broker.issuer.url,
        "subject": "repo:acme/deploy:ref:refs/heads/main",
        "claims": {"repository_id": "74"},
        "rules": ["rule 1"],
        "jti": "",
    }
    assert (granted["repository"], granted["scope"], granted["outcome"]) == ("acme/widgets", "repository", "granted")
    assert (granted["status"], granted["digest"]) == (200, hash_of(token)[:12])
    assert (refused["status"], refused["outcome"], refused["repository"]) == (403, "refused", "acme/secrets")
    assert refused["asker"]["claimed"] == "203.0.113.7, 198.51.100.1"
    assert (anonymous["status"], anonymous["asker"]) == (401, {"by": "oidc", "address": "127.0.0.1"})
    assert token not in broker.log() + (broker.folder / "audit").read_text()


def test_claims_do_not_forge_or_stretch_lines(broker: HttpsBroker) -> None:
    broker.write(broker.rule(claims={"repository_id": "74", "ref": "**x", "groups": "x", "big": [1, "x"]}))
    broker.start()
    names: dict[str, Any] = {
        "ref": '"}\n{"outcome": "granted"}\r\n\x00\u2028' + "é😀" * 200 + "x",
        "groups": ["x", *["y" * 300] * 8],
        "big": "x",
        "jti": "j" * 300,
        "sub": "s" * 300,
    }
    assert broker.ask(broker.issuer.token(**names), also={"X-Forwarded-For": "f" * 5000}).status == 200
    data = (broker.folder / "audit").read_bytes()

    assert len(data) < 4096
    assert data.count(b"\n") == 1
    found = json.loads(data)
    assert (found["outcome"], found["status"]) == ("granted", 200)
    assert len(found["asker"]["subject"]) <= 200


def test_lines_without_an_identity_are_bounded(broker: HttpsBroker) -> None:
    broker.start()
    with ThreadPoolExecutor(4) as pool:
        assert {reply.status for reply in pool.map(lambda _: broker.ask("x"), range(150))} == {401}
    anonymous = broker.audit()
    assert 60 <= len(anonymous) <= 120  # The requests may have been in two minutes.

    for _ in range(20):
        broker.ask()
    granted = broker.audit()[len(anonymous) :]
    assert len(granted) == 20
    assert len(anonymous) + sum(line.get("left_out", 0) for line in broker.audit()) == 150


def test_folder_that_cannot_be_written_gives_no_token(broker: HttpsBroker) -> None:
    broker.start()
    assert broker.ask().status == 200
    shutil.rmtree(broker.cache)
    broker.cache.write_text("")
    reply = broker.ask(name="acme/lib-a")

    assert reply.status == 502
    assert reply.body.startswith("quit=1\n")


def test_nothing_in_a_request_chooses_scope_or_route(shared: HttpsBroker) -> None:
    extra = "username=admin\npassword=x\nscope=repository:admin\ncapability[]=authtype\n"
    reply = shared.ask(extra=extra)

    assert reply.status == 200
    assert shared.scene.bitbucket.tokens[reply.lines["password"]].scopes == {"repository"}
    also = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Proxy": "http://127.0.0.1:9"}
    assert shared.ask(also=also).lines == reply.lines


def test_token_is_not_in_the_log_of_gunicorn(shared: HttpsBroker) -> None:
    token = shared.issuer.token()
    shared.ask(token)
    shared.send("POST", "/git-credentials", b"x", {"Authorization": f"Bearer {token}", "Content-Length": "1"})

    assert token not in shared.log() + json.dumps(shared.audit())
    assert base64.b64encode(token.encode()).decode() not in shared.log()
