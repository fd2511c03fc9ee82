"""Jobs that ask an https broker with their platform's ID token: real git, real gunicorn, real nginx."""

from __future__ import annotations

import http.server
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.on_demand import BrokerSource
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.broker import Broker as Vendor
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import TokenRequest
from tests.conftest import PATIENCE, Machine, answer, assert_quits, ends_within, free_port, need, takes_long
from tests.emulator import SILENCE
from tests.https_broker import HttpsBroker
from tests.issuer import Issuer
from tests.mint import be_the_helper
from tests.proxy import Proxy
from tests.serving.test_operators_page import block

Respond = Callable[["FakeBroker", http.server.BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]


class FakeBroker:
    """A server that gives the answers of a test and records the requests."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        self.ca_file = folder / "fake.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.respond: Respond = lambda *_: (200, {"Content-Type": "text/plain"}, b"\n")
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.seen.append((self.command, self.path, dict(self.headers), body))
                status, headers, content = outer.respond(outer, self)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's signature
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Print nothing: a client that disconnects early is expected."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeBroker]:
    found = FakeBroker(tmp_path)
    yield found
    found.close()


@pytest.fixture
def job(machine: Machine, fake: FakeBroker) -> Machine:
    """A job whose platform gave it an ID token for the fake broker."""
    machine.environment |= {"SSL_CERT_FILE": str(fake.ca_file), "BBJWT_ID_TOKEN": Issuer().token(aud=fake.url)}
    return machine


URL = "https://bitbucket.org/acme/widgets"
TOKEN = b"username=x-token-auth\npassword=a-token-of-bitbucket\npassword_expiry_utc=%d\n\n"


WIDGETS = Repository("bitbucket.org", "acme", "widgets")


class Client:
    """The helper in this process, with the environment of a job without an ID token."""

    def __init__(self, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
        self._fake = fake
        self._monkeypatch = monkeypatch

    def token(self, **variables: str) -> Token | None:
        """Ask the broker for acme/widgets, with these variables. Raises CredentialError."""
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)
        session = Session(Budget(20), TokenCache(None, None, None), for_person=False)
        vendor = Vendor(BrokerSource("the broker", self._fake.url, (), None, None), session)
        try:
            return vendor.token(TokenRequest(WIDGETS, "repository", []))
        finally:
            session.close()

    def error(self, words: str, **variables: str) -> CredentialError:
        """Return the error of a request that fails with ``words`` in its text."""
        with pytest.raises(CredentialError) as raised:
            self.token(**variables)
        assert words in raised.value.what
        return raised.value


@pytest.fixture
def client(machine: Machine, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch) -> Client:
    be_the_helper(monkeypatch, machine.env(GIT_SSL_CAINFO=str(fake.ca_file)), [])
    return Client(fake, monkeypatch)


def token_answer() -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "text/plain; charset=utf-8"}, TOKEN % (time.time() + 3600)


def refusal(status: int, reason: str = "because") -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "text/plain; charset=utf-8"}, f"quit=1\nbbjwt-error={reason}\n\n".encode()


def test_one_request_is_sent(job: Machine, fake: FakeBroker) -> None:
    fake.respond = lambda *_: token_answer()
    token = Issuer().token(aud=f"{fake.url}/ci")
    done = job.get(URL, "--broker", fake.url.upper() + "/ci/", BBJWT_ID_TOKEN=token)

    ((method, path, headers, body),) = fake.seen
    assert (method, path) == ("POST", "/ci/git-credentials")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Accept"] == "text/plain"
    assert headers["Authorization"] == f"Bearer {token}"
    assert body == b"capability[]=state\nprotocol=https\nhost=bitbucket.org\npath=acme/widgets\n\n"
    assert answer(done)["password"] == "a-token-of-bitbucket"


def test_cached_token_needs_neither_request_nor_id_token(job: Machine, fake: FakeBroker) -> None:
    fake.respond = lambda *_: token_answer()
    first = job.get(URL, "--broker", fake.url)
    assert answer(job.get(URL, "--broker", fake.url, BBJWT_ID_TOKEN=None)) | {"continue": ""} == answer(first) | {
        "continue": ""
    }
    assert len(fake.seen) == 1
    loaded = job.imports_of("get", URL)
    assert not {name for name in loaded if name.endswith(("id_token", "https_broker"))}


def sources(fake: FakeBroker, folder: Path) -> list[tuple[tuple[str, ...], dict[str, str], str]]:
    """Return each source of a token, in order: options, variables, the token that is sent."""
    tokens = [Issuer().token(aud=fake.url, n=n) for n in range(6)]
    for n in (2, 3):
        (folder / f"token-{n}").write_text(tokens[n] + "\n")
    return [
        (("--id-token-command", f"printf %s {tokens[0]}"), {"BBJWT_ID_TOKEN_COMMAND": "exit 1"}, tokens[0]),
        ((), {"BBJWT_ID_TOKEN_COMMAND": f'test "$BBJWT_AUDIENCE" = {fake.url} && echo {tokens[0]}'}, tokens[0]),
        ((), {"BBJWT_ID_TOKEN": tokens[1]}, tokens[1]),
        (("--id-token-file", str(folder / "token-2")), {"BBJWT_ID_TOKEN_FILE": "/not/there"}, tokens[2]),
        ((), {"BBJWT_ID_TOKEN_FILE": f"{folder / 'token-3'}\n"}, tokens[3]),
        (
            (),
            {
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"{fake.url}/request?v=1",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret",
            },
            tokens[4],
        ),
        ((), {"BITBUCKET_STEP_OIDC_TOKEN": tokens[5]}, tokens[5]),
    ]


def test_sources_of_the_id_token_in_their_order(machine: Machine, fake: FakeBroker, tmp_path: Path) -> None:
    machine.environment |= {"SSL_CERT_FILE": str(fake.ca_file)}
    every = sources(fake, tmp_path)
    github = every[5][2]

    def respond(_: FakeBroker, handler: http.server.BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if handler.path.startswith("/request"):
            return 200, {"Content-Type": "application/json"}, json.dumps({"count": 1, "value": github}).encode()
        return refusal(500)

    fake.respond = respond
    for number, (options, _, token) in enumerate(every):
        variables: dict[str, str] = {}
        for _, later, _ in reversed(every[number:]):
            variables |= later
        fake.seen.clear()
        machine.get(URL, "--broker", fake.url, *options, check=False, also=variables)
        assert fake.seen[-1][2]["Authorization"] == f"Bearer {token}", number


def test_request_to_githubs_service(machine: Machine, fake: FakeBroker) -> None:
    token = Issuer().token(aud="https://broker.example/x")
    fake.respond = lambda *_: (200, {}, json.dumps({"value": token}).encode())
    machine.environment |= {
        "SSL_CERT_FILE": str(fake.ca_file),
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret",
        "BBJWT_AUDIENCE": "https://broker.example/x",
    }
    for url, path in (
        (f"{fake.url}/request?v=1", "/request?v=1&audience=https%3A%2F%2Fbroker.example%2Fx"),
        (f"{fake.url}/request", "/request?audience=https%3A%2F%2Fbroker.example%2Fx"),
    ):
        fake.seen.clear()
        machine.get(URL, "--broker", fake.url, check=False, ACTIONS_ID_TOKEN_REQUEST_URL=url)
        assert fake.seen[0][:2] == ("GET", path)
        assert fake.seen[0][2]["Authorization"] == "Bearer request-secret"
        assert fake.seen[1][2]["Authorization"] == f"Bearer {token}"


def test_audience_that_is_not_utf8_is_requested_unchanged(machine: Machine, fake: FakeBroker) -> None:
    variables = {
        "SSL_CERT_FILE": str(fake.ca_file),
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{fake.url}/request",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret",
        "BBJWT_AUDIENCE": os.fsdecode(b"a\xff"),
    }
    fake.respond = lambda *_: (404, {}, b"")
    done = machine.get(URL, "--broker", fake.url, check=False, also=variables)
    assert_quits(done, "GitHub answered 404")
    assert fake.seen[0][1] == "/request?audience=a%FF"


@pytest.mark.parametrize(
    "url", ["http://localhost/x", "https://user:p@localhost/x", "https:///x", "file:///etc/passwd", "https://a b/"]
)
def test_request_token_is_sent_to_https_urls_only(client: Client, url: str) -> None:
    variables = {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret"}
    error = client.error("ACTIONS_ID_TOKEN_REQUEST_URL is not an https URL", **variables)
    assert "request-secret" not in error.what + error.hint


@pytest.mark.parametrize("status", [301, 307, 401, 403, 500, 200])
def test_github_without_a_token_is_an_error(client: Client, fake: FakeBroker, status: int) -> None:
    fake.respond = lambda *_: (status, {"Location": "/elsewhere"}, b'{"message": "request-secret is wrong"}')
    variables = {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{fake.url}/request",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret",
    }
    error = client.error("GitHub", **variables)
    assert {path.partition("?")[0] for _, path, _, _ in fake.seen} == {"/request"}
    assert "request-secret" not in error.what + error.hint


def test_token_for_another_service_is_not_sent(job: Machine, fake: FakeBroker) -> None:
    token = Issuer().token(aud=["https://a.example", "sts.example"])
    done = job.get(URL, "--broker", fake.url, check=False, BBJWT_ID_TOKEN=token)

    assert_quits(done, f"is for https://a.example, sts.example, and the broker's audience is {fake.url}")
    assert fake.seen == []
    assert token not in done.stderr


def test_audience_comes_from_a_variable(job: Machine, fake: FakeBroker) -> None:
    fake.respond = lambda *_: token_answer()
    token = Issuer().token(aud=["x", "ari:cloud:bitbucket::workspace/1"])
    job.get(URL, "--broker", fake.url, BBJWT_ID_TOKEN=token, BBJWT_AUDIENCE="ari:cloud:bitbucket::workspace/1\n")
    assert len(fake.seen) == 1


def test_expired_token_is_not_sent(job: Machine, fake: FakeBroker) -> None:
    now = int(time.time())
    token = Issuer().token(aud=fake.url, exp=now - 100, iat=now - 400)
    done = job.get(URL, "--broker", fake.url, check=False, BBJWT_ID_TOKEN=token)
    assert_quits(done, "expired 10")
    assert fake.seen == []

    fake.respond = lambda *_: token_answer()
    job.get(URL, "--broker", fake.url, BBJWT_ID_TOKEN=Issuer().token(aud=fake.url, exp=now - 30, iat=now - 400))
    assert len(fake.seen) == 1


def test_times_beyond_the_calendar(job: Machine, fake: FakeBroker) -> None:
    fake.respond = lambda *_: token_answer()
    for expires in (10**400, 1e300):
        token = Issuer().token(aud=fake.url, exp=expires)
        job.get(URL, "--broker", fake.url, "--token-store", "none", BBJWT_ID_TOKEN=token)
    assert len(fake.seen) == 2

    for expires in (-(10**400), -1e300):
        token = Issuer().token(aud=fake.url, exp=expires)
        done = job.get(URL, "--broker", fake.url, "--token-store", "none", check=False, BBJWT_ID_TOKEN=token)
        assert_quits(done, "the ID token from BBJWT_ID_TOKEN expired ")
    assert len(fake.seen) == 2


@pytest.mark.parametrize("text", ["not-a-token-at-all", "a.b", "a.b.c.d", "a.b!.c", "e30.W10.x", "a.b." + "c" * 17_000])
def test_text_that_is_not_a_token_is_neither_sent_nor_repeated(client: Client, fake: FakeBroker, text: str) -> None:
    error = client.error("BBJWT_ID_TOKEN is ", BBJWT_ID_TOKEN=text)
    assert text not in error.what + error.hint
    assert fake.seen == []


PLATFORMS = {
    "GITHUB_ACTIONS": "permissions: id-token: write",
    "GITLAB_CI": 'id_tokens: BBJWT_ID_TOKEN: aud: "AUDIENCE"',
    "BITBUCKET_BUILD_NUMBER": 'oidc: audiences: ["AUDIENCE"]',
    "CIRCLECI": "circleci run oidc get --claims",
    "BUILDKITE": "buildkite-agent oidc request-token",
    "": "BBJWT_ID_TOKEN, BBJWT_ID_TOKEN_FILE or BBJWT_ID_TOKEN_COMMAND",
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_error_without_a_token_names_the_platforms_setting(
    client: Client, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    for name in filter(None, PLATFORMS):  # The tests may run in a job of one of these platforms.
        monkeypatch.delenv(name, raising=False)
    error = client.error("the broker needs an ID token", **{platform: "true"} if platform else {})
    assert PLATFORMS[platform].replace("AUDIENCE", fake.url) in error.hint


def test_source_that_fails_is_an_error(machine: Machine, fake: FakeBroker, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    os.mkfifo(tmp_path / "pipe")
    token = Issuer().token(aud=fake.url)
    for options, words in (
        (("--id-token-command", "echo secret-output; exit 3"), "failed with exit status 3"),
        (("--id-token-command", "true"), "printed nothing"),
        (("--id-token-file", "/not/there"), "cannot be read from /not/there: No such file"),
        (("--id-token-file", str(tmp_path)), "cannot be read from"),
        (("--id-token-file", str(tmp_path / "pipe")), "it is not a regular file"),
        (("--id-token-file", str(tmp_path / "empty")), "is empty"),
    ):
        done = machine.get(URL, "--broker", fake.url, *options, check=False, BITBUCKET_STEP_OIDC_TOKEN=token)
        assert_quits(done, words)
        assert "secret-output" not in done.stderr
    assert fake.seen == []


def test_id_token_command_that_hangs_ends_with_the_budget(machine: Machine, fake: FakeBroker) -> None:
    with ends_within(2):
        done = machine.get(URL, "--timeout=2", "--broker", fake.url, "--id-token-command", "sleep 300", check=False)
    assert_quits(done, "gave up after 2 s")


BAD: dict[str, tuple[int, dict[str, str], bytes]] = {
    "another type": (200, {"Content-Type": "application/json"}, b"username=x\npassword=y\n\n"),
    "no type": (200, {}, b"username=x\npassword=y\n\n"),
    "a page": (200, {"Content-Type": "text/html"}, b"<html>Log in</html>"),
    "a redirect": (302, {"Content-Type": "text/plain", "Location": "https://localhost/x"}, b"quit\n"),
    "201": (201, {"Content-Type": "text/plain"}, b"username=x\npassword=y\n\n"),
    "204": (204, {"Content-Type": "text/plain"}, b""),
    "no blank line": (200, {"Content-Type": "text/plain"}, b"username=x\npassword=y\n"),
    "nothing": (200, {"Content-Type": "text/plain"}, b""),
    "too long": (200, {"Content-Type": "text/plain"}, b"a=b\n" * 17_000 + b"\n"),
    "no password": (200, {"Content-Type": "text/plain"}, b"username=x\n\n"),
    "another repository": (200, {"Content-Type": "text/plain"}, b"path=acme/other\npassword=y\n\n"),
    "404 of a page": (404, {"Content-Type": "text/html"}, b"quit=1\n"),
    "500 without a reason": (500, {"Content-Type": "text/plain"}, b""),
    "quit is not first": (400, {"Content-Type": "text/plain"}, b"a=b\nquit=1\n\n"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_answers(client: Client, fake: FakeBroker, what: str) -> None:
    fake.respond = lambda *_: BAD[what]

    error = client.error("the broker gives no token for acme/widgets: ", BBJWT_ID_TOKEN=Issuer().token(aud=fake.url))
    assert "it gave no reason" not in error.what  # As if a broker had refused.
    assert len(fake.seen) == 1


def test_bad_answer_makes_git_quit(job: Machine, fake: FakeBroker) -> None:
    fake.respond = lambda *_: BAD["a page"]
    assert_quits(job.get(URL, "--broker", fake.url, check=False), "the broker gives no token for acme/widgets: ")


def test_incomplete_body(client: Client, fake: FakeBroker) -> None:
    headers = {"Content-Type": "text/plain", "Content-Length": "500", "Connection": "close"}
    fake.respond = lambda *_: (200, headers, b"x")
    client.error("no response from localhost", BBJWT_ID_TOKEN=Issuer().token(aud=fake.url))


def test_empty_answer_leaves_the_request_to_git(job: Machine, fake: FakeBroker) -> None:
    done = job.get(URL, "--broker", fake.url)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503, 504])
def test_refusal_is_not_repeated(client: Client, fake: FakeBroker, status: int) -> None:
    fake.respond = lambda *_: refusal(status, f"status {status} because")

    words = f"the broker gives no token for acme/widgets: status {status} because"
    client.error(words, BBJWT_ID_TOKEN=Issuer().token(aud=fake.url))
    assert len(fake.seen) == 1


def test_proxy_whose_broker_restarts_is_asked_again(client: Client, fake: FakeBroker) -> None:
    answers = [(502, {"Content-Type": "text/html"}, b"<html>"), (503, {}, b""), token_answer()]
    fake.respond = lambda *_: answers.pop(0)
    token = client.token(BBJWT_ID_TOKEN=Issuer().token(aud=fake.url))
    assert token is not None
    assert token.value == "a-token-of-bitbucket"
    assert len(fake.seen) == 3


def test_proxy_without_a_broker_is_asked_five_times(client: Client, fake: FakeBroker) -> None:
    fake.respond = lambda *_: (503, {"Content-Type": "text/html"}, b"<html>")
    client.error("answered 503", BBJWT_ID_TOKEN=Issuer().token(aud=fake.url))
    assert len(fake.seen) == 5


def test_broker_that_is_away(client: Client, fake: FakeBroker) -> None:
    fake.url = f"https://localhost:{free_port()}"
    client.error("Connection refused", BBJWT_ID_TOKEN=Issuer().token(aud=fake.url))


def test_reason_that_repeats_the_token_is_redacted(job: Machine, fake: FakeBroker) -> None:
    token = job.environment["BBJWT_ID_TOKEN"]
    fake.respond = lambda *_: refusal(401, f"{token} and \x1b[31m{token[:40]}")
    done = job.get(URL, "--verbose", "--broker", fake.url, check=False)
    assert token not in done.stderr
    assert token[:40] not in done.stderr
    assert "\x1b" not in done.stderr


def test_refusals_are_remembered_per_identity(job: Machine, fake: FakeBroker, tmp_path: Path) -> None:
    fake.respond = lambda *_: refusal(403)
    job.get(URL, "--broker", fake.url, check=False)
    done = job.get(URL, "--broker", fake.url, check=False)
    assert_quits(done, "because (this was ")
    assert len(fake.seen) == 1
    job.get(URL + "-2", "--broker", fake.url, check=False)
    assert len(fake.seen) == 2
    other = {"BBJWT_ID_TOKEN": Issuer().token(aud=fake.url)}
    job.get(URL, "--broker", fake.url, check=False, also=other)
    assert len(fake.seen) == 3
    job.bbjwt("--broker", fake.url, "token", URL, check=False)
    assert len(fake.seen) == 4
    job.bbjwt("forget", "--all")
    job.get(URL, "--broker", fake.url, check=False)
    assert len(fake.seen) == 5

    fake.respond = lambda *_: refusal(401)
    job.get(URL + "-3", "--broker", fake.url, check=False)
    job.get(URL + "-4", "--broker", fake.url, check=False)
    assert len(fake.seen) == 6
    path = tmp_path / "token"
    path.write_text(Issuer().token(aud=fake.url))
    for seconds in (1, 2):
        os.utime(path, (seconds, seconds))
        for _ in range(2):
            job.get(URL, "--broker", fake.url, "--id-token-file", str(path), check=False, BBJWT_ID_TOKEN=None)
    assert len(fake.seen) == 8


@pytest.mark.parametrize("name", ["BBJWT_ID_TOKEN", "BITBUCKET_STEP_OIDC_TOKEN", "CIRCLE_OIDC_TOKEN_V2"])
def test_no_child_process_gets_the_id_token(machine: Machine, fake: FakeBroker, tmp_path: Path, name: str) -> None:
    token = Issuer().token(aud=fake.url)
    seen = tmp_path / "seen"
    machine.get(URL, "--broker", f"env > {seen}; echo", check=False, also={name: token})
    assert token not in seen.read_text()
    machine.get(URL, "--installation-command", f"env > {seen}", check=False, also={name: token})
    assert token not in seen.read_text()
    machine.get(URL, "--broker", fake.url, "--id-token-command", f"env > {seen}", check=False, also={name: token})
    assert token in seen.read_text()
    machine.bbjwt("--broker", fake.url, "exec", "--", "sh", "-c", f"env > {seen}", also={name: token})
    assert token in seen.read_text()


def test_request_takes_the_route_of_gits_settings(job: Machine, fake: FakeBroker) -> None:
    fake.respond = lambda *_: token_answer()
    del job.environment["SSL_CERT_FILE"]
    with Proxy() as proxy:
        job.git("config", "--global", f"http.{fake.url}/ci.proxy", f"http://{proxy.address}")
        job.git("config", "--global", f"http.{fake.url}.sslCAInfo", str(fake.ca_file))
        token = Issuer().token(aud=f"{fake.url}/ci")
        job.get(URL, "--broker", f"{fake.url}/ci", BBJWT_ID_TOKEN=token)
        assert proxy.asked == [fake.url.removeprefix("https://")]


def test_certificate_of_another_authority_is_refused(job: Machine, fake: FakeBroker, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    job.git("config", "--global", "http.sslVerify", "false")
    done = job.get(URL, "--broker", fake.url, check=False, SSL_CERT_FILE=str(tmp_path / "other.pem"))
    assert done.stdout == "quit=1\n"
    assert "cannot be verified" in done.stderr
    assert fake.seen == []


def test_repository_does_not_choose_the_broker(job: Machine, fake: FakeBroker, tmp_path: Path) -> None:
    fake.respond = lambda *_: token_answer()
    repository = tmp_path / "repository"
    job.git("init", "-q", str(repository))
    job.git("config", "credential.helper", f"bbjwt --broker {fake.url}", cwd=repository)
    done = job.run("git-credential-bbjwt", "token", URL, cwd=repository, check=False, env=job.env(BBJWT_ID_TOKEN="x"))
    assert done.returncode != 0
    assert fake.seen == []


def test_doctor_shows_what_the_id_token_says(job: Machine, fake: FakeBroker) -> None:
    fake.respond = lambda *_: token_answer()
    done = job.bbjwt("--broker", fake.url, "doctor", URL, check=False)
    (line,) = [line for line in done.stdout.splitlines() if "ID token" in line]

    assert line.startswith("✓ ID token: ")
    for words in ("BBJWT_ID_TOKEN", fake.url, "https://issuer.example", "repo:acme/deploy:ref:refs/heads/main", " UTC"):
        assert words in line
    assert job.environment["BBJWT_ID_TOKEN"] not in done.stdout + done.stderr

    done = job.bbjwt("--broker", fake.url, "doctor", URL, check=False, BBJWT_ID_TOKEN=None)
    assert "✗ ID token: the broker needs an ID token" in done.stdout


def serving(broker: HttpsBroker, job: Machine, url: str) -> None:
    """Have the job's git ask the broker at ``url``."""
    broker.write(audience=url)
    (job.home / ".gitconfig").write_text(
        f'[credential "{broker.scene.bitbucket.base_url}"]\n\tuseHttpPath = true\n'
        f'\thelper = "bbjwt --broker {url} --host {broker.scene.bitbucket.host}"\n'
    )
    job.environment |= {
        "SSL_CERT_FILE": str(broker.authorities),
        "GIT_SSL_CAINFO": str(broker.authorities),
        "BBJWT_ID_TOKEN": broker.issuer.token(aud=url),
    }


def test_git_clones_with_a_jobs_identity(broker: HttpsBroker, machine: Machine) -> None:
    serving(broker, machine, f"https://localhost:{broker.port}")
    broker.start(tls=True)
    machine.git("clone", "-q", broker.scene.url, "clone")
    machine.git("fetch", cwd=machine.home / "clone", BBJWT_ID_TOKEN=None)
    assert broker.scene.bitbucket.mints() == 1

    done = machine.git("clone", "-q", f"{broker.scene.bitbucket.base_url}/acme/secrets", check=False)
    assert (
        "the broker gives no token for acme/secrets: this broker hands out no token for this repository" in done.stderr
    )


def test_configure_and_exec_pass_the_broker_on(broker: HttpsBroker, machine: Machine) -> None:
    url = f"https://localhost:{broker.port}"
    serving(broker, machine, url)
    broker.start(tls=True)
    host = broker.scene.bitbucket.host
    (machine.home / ".gitconfig").unlink()
    machine.bbjwt(
        "--host", host, "exec", "--", "git", "clone", "-q", broker.scene.url, "one", also={"BBJWT_BROKER": url}
    )
    (machine.home / "token").write_text(machine.environment.pop("BBJWT_ID_TOKEN"))
    machine.bbjwt(
        "configure", "--broker", url.upper().replace("HTTPS", "https"), "--host", host,
        "--id-token-file", machine.home / "token",
    )  # fmt: skip
    machine.bbjwt("forget", "--all")
    machine.git("clone", "-q", broker.scene.url, "two")
    assert f"--id-token-file={machine.home / 'token'}" in (machine.home / ".gitconfig").read_text()


NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""


@pytest.fixture
def nginx(broker: HttpsBroker) -> Iterator[str]:
    """The URL of the broker behind nginx, with the settings of the operators' page."""
    program = need("nginx")
    folder = broker.folder / "nginx"
    folder.mkdir()
    port = free_port()
    server = block("client_body_timeout")
    for written, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/broker.pem", str(broker.certificate)),
        ("/etc/ssl/broker.key", str(broker.key)),
        ("location / {", "location /ci/ {"),
        ("http://127.0.0.1:8080", f"http://127.0.0.1:{broker.port}/"),
    ):
        assert written in server
        server = server.replace(written, here)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, server=server))
    process = subprocess.Popen([program, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
    yield f"https://localhost:{port}/ci"
    process.terminate()
    process.wait(PATIENCE)


def test_git_clones_through_nginx(broker: HttpsBroker, machine: Machine, nginx: str) -> None:
    serving(broker, machine, nginx)
    broker.start()
    machine.git("clone", "-q", broker.scene.url, "clone")
    assert broker.audit()[-1]["asker"]["claimed"] == "127.0.0.1"

    # The token of a user in many groups has about 12 KB.
    long = broker.issuer.token(aud=nginx, groups=["a-group-with-a-long-name"] * 300)
    assert 10_000 < len(long) < 16_384
    machine.bbjwt("forget", "--all")
    machine.git("clone", "-q", broker.scene.url, "another", BBJWT_ID_TOKEN=long)


def test_broker_that_restarts_behind_nginx_is_waited_for(broker: HttpsBroker, machine: Machine, nginx: str) -> None:
    takes_long("a broker that restarts")
    serving(broker, machine, nginx)
    broker.start()
    broker.stop()
    starting = threading.Thread(target=broker.start)
    starting.start()
    machine.git("clone", "-q", broker.scene.url, "clone")
    starting.join()


def test_silence_of_bitbucket_ends_with_the_brokers_budget(job: Machine, broker: HttpsBroker) -> None:
    url = f"https://localhost:{broker.port}"
    serving(broker, job, url)
    broker.write(audience=url, timeout=2)
    broker.start(tls=True)
    broker.scene.bitbucket.misbehave("api", *[SILENCE] * 10)
    done = job.git("clone", "-q", broker.scene.url, "clone", check=False)
    assert "gave up after 2 s" in done.stderr
