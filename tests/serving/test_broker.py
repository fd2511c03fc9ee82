"""Brokers: a job without the secret asks, `serve` answers. Failures on either side."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from git_credential_bbjwt.core.failures import BrokerError
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.serving import audit
from git_credential_bbjwt.serving.answer import Answer
from git_credential_bbjwt.tokens.names import LOOKUPS
from git_credential_bbjwt.vendors.broker_answer import _end_of, parse_answer
from tests.conftest import (
    COMMAND,
    INSTALLED,
    PATIENCE,
    Workspace,
    answer,
    assert_quits,
    ends_within,
    finish,
    request,
    start,
    until,
)
from tests.emulator import Fault
from tests.proxy import Proxy

ALLOWED = ("--allow", "acme/widgets", "--allow", "acme/lib-*")


WIDGETS = Repository("bitbucket.org", "acme", "widgets")

# `serve` takes its home from the password database, which only root could change. This command replaces the database's
# entry.
_SCRIPT = """#!{python} -ISXutf8
import pwd, sys
sys.path.insert(0, {installed!r})
found = list(pwd.getpwuid({uid}))
found[5] = {home!r}
pwd.getpwuid = lambda uid: pwd.struct_passwd(found)
from git_credential_bbjwt.entry import main
main(sys.argv[1:])
"""


class Broker:
    """The machine that holds the secret. Its user's own git configuration names the authority."""

    def __init__(self, acme: Workspace, folder: Path) -> None:
        self.acme = acme
        self.home = folder / "broker"
        self.audit = folder / "audit.log"
        (self.home / "run").mkdir(parents=True)
        (self.home / "run").chmod(0o700)
        (self.home / ".gitconfig").write_text(f"[http]\n\tsslCAInfo = {acme.bitbucket.ca_file}\n")
        self.program = self.home / "git-credential-bbjwt"
        script = _SCRIPT.format(python=sys.executable, installed=INSTALLED, uid=os.geteuid(), home=str(self.home))
        self.program.write_text(script)
        self.program.chmod(0o755)
        self.environment = {"PATH": acme.machine.environment["PATH"], "RUNTIME_DIRECTORY": str(self.home / "run")}

    def command(self, *allowed: str, audit: str | Path | None = None, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command line of a forced command or a unit."""
        installation = f"--installation={self.acme.installation}"
        where = str(self.audit if audit is None else audit)
        return [str(self.program), installation, *options, "serve", *(allowed or ALLOWED), "--audit", where]

    def where(self, *allowed: str) -> str:
        """Return a client's WHERE: a shell's command line."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return shlex.join(["env", "-i", *variables, *self.command(*allowed)])

    def serve(
        self,
        data: str,
        *allowed: str,
        also: dict[str, str] | None = None,
        audit: str | Path | None = None,
        options: tuple[str, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run `serve` once with ``data`` as the request."""
        return subprocess.run(
            self.command(*allowed, audit=audit, options=options),
            input=data,
            capture_output=True,
            text=True,
            env={**self.environment, **(also or {})},
            timeout=PATIENCE,
        )

    def lines(self) -> list[dict[str, object]]:
        """Return the audit so far."""
        return [json.loads(line) for line in self.audit.read_text().splitlines()] if self.audit.exists() else []


@pytest.fixture
def broker(acme: Workspace, tmp_path: Path) -> Broker:
    """A broker, next to a machine that no longer knows the installation."""
    del acme.machine.environment["BBJWT_INSTALLATION"]
    del acme.machine.environment["SSL_CERT_FILE"]
    return Broker(acme, tmp_path)


def asking(acme: Workspace, where: str) -> tuple[str, ...]:
    """Return the options of a client's helper line."""
    return ("--broker", where, "--host", acme.bitbucket.host)


@contextmanager
def socket_of(folder: Path, respond: Callable[[socketserver.StreamRequestHandler], None]) -> Iterator[str]:
    """Answer a unix socket with ``respond``. Yield the socket's WHERE."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            respond(self)

    path = folder / "s"
    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"unix:{path}"
        server.shutdown()


def state(token: str) -> str:
    """Return the ``state[]`` that names a token."""
    return "bbjwt:" + hashlib.sha256(token.encode()).hexdigest()


def given(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the attributes of a broker's answer, which ends with a blank line."""
    assert done.stdout.endswith("\n\n") or done.stdout == "\n"
    return dict(line.split("=", 1) for line in done.stdout.split("\n") if line)


def spend(broker: Broker, kind: str, count: int) -> None:
    """Record ``count`` look-ups of a kind within this minute."""
    folder = broker.home / "run/git-credential-bbjwt"
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in range(count):
        place = folder / f"{kind}~{number:02}"
        place.write_text(f"{int(time.time()):>20}")
        place.chmod(0o600)


# The main job.


def configure_asker(acme: Workspace, where: str) -> None:
    helper = shlex.join([str(COMMAND), *asking(acme, where)])
    acme.machine.git("config", "--global", f"credential.{acme.bitbucket.base_url}.helper", "!" + helper)


def test_a_job_clones_without_the_secret(acme: Workspace, broker: Broker) -> None:
    configure_asker(acme, broker.where())
    acme.machine.git("clone", "-q", acme.url, "w")
    acme.machine.git("fetch", "-q", cwd=acme.machine.home / "w")
    refused = acme.machine.git("clone", "-q", acme.url.replace("widgets", "secrets"), "s", check=False)

    assert acme.bitbucket.mints() == 1
    assert "this broker hands out no token" in refused.stderr
    granted, denied = broker.lines()
    assert (granted["outcome"], granted["repository"], granted["scope"]) == ("granted", "acme/widgets", "repository")
    assert (denied["outcome"], denied["repository"]) == ("refused", "acme/secrets")
    assert granted["asker"] == {"by": "uid", "uid": os.getuid()}
    token = next(iter(acme.bitbucket.tokens))
    assert granted["digest"] == hashlib.sha256(token.encode()).hexdigest()[:12]
    text = broker.audit.read_text()
    assert token not in text
    assert acme.app.shared_secret not in text
    assert stat.S_IMODE(broker.audit.stat().st_mode) == 0o600


def test_a_job_clones_through_a_socket(acme: Workspace, broker: Broker) -> None:
    def respond(connection: socketserver.StreamRequestHandler) -> None:
        # As systemd does with Accept=yes: standard input, output and error are the connection.
        fd = connection.request.fileno()
        subprocess.run(broker.command(), stdin=fd, stdout=fd, stderr=fd, env=broker.environment, timeout=PATIENCE)

    with socket_of(broker.home, respond) as where:
        configure_asker(acme, where)
        acme.machine.git("clone", "-q", acme.url, "w")
        foreign = acme.machine.get(acme.url.replace("acme/", "beta/"), *asking(acme, where))
        refused = acme.machine.get(acme.url.replace("widgets", "secrets"), *asking(acme, where), check=False)

    assert (foreign.stdout, foreign.stderr) == ("", "")
    assert_quits(refused, "hands out no token")
    asker = broker.lines()[0]["asker"]
    assert isinstance(asker, dict)
    assert (asker["by"], asker["uid"]) == ("unix", os.getuid())


def test_behind_a_socket_a_journal_gets_the_error(acme: Workspace, broker: Broker) -> None:
    # StandardError=journal is a socket too, but a different one.
    asker, answers = socket.socketpair()
    journal, errors = socket.socketpair()
    with asker, journal:
        with answers, errors:
            asker.sendall(request(acme.url.replace("widgets", "secrets")).encode() + b"\n")
            fd = answers.fileno()
            command, environment = broker.command(), broker.environment
            subprocess.run(command, stdin=fd, stdout=fd, stderr=errors.fileno(), env=environment, timeout=PATIENCE)
        assert journal.makefile().read().startswith("git-credential-bbjwt: error: this broker hands out no token")
        assert asker.makefile().read().startswith("quit=1\nbbjwt-error=")


def test_many_clients_make_one_request(acme: Workspace, broker: Broker) -> None:
    running = [start(acme.machine, acme.url, *asking(acme, broker.where())) for _ in range(8)]
    answers = {line for one in running for line in finish(one).splitlines() if line.startswith(b"password=")}

    assert len(answers) == 1
    assert len(broker.lines()) == 1


def test_a_revoked_token_heals_within_the_command_and_does_not_come_back(acme: Workspace, broker: Broker) -> None:
    options = asking(acme, broker.where())
    first = answer(acme.get(*options))["password"]
    acme.machine.bbjwt(*options, "erase", data=request(acme.url) + f"password={first}\n\n")
    second = answer(acme.get(*options))["password"]
    assert second != first

    acme.machine.bbjwt("forget", acme.url)
    third = acme.get(*options, check=False)
    assert_quits(third, "new token", "s ago")
    assert len(acme.bitbucket.tokens) == 2


def test_tokens_of_a_broker_are_printed_by_the_commands_too(acme: Workspace, broker: Broker) -> None:
    options = asking(acme, broker.where())
    found = json.loads(acme.machine.bbjwt(*options, "token", acme.url, "--format=json").stdout)
    assert (found["username"], found["scope"], found["uuid"]) == ("x-token-auth", None, None)
    bearer = acme.machine.bbjwt(*options, "token", acme.url, "--format=bearer").stdout
    assert bearer == f"Authorization: Bearer {found['token']}\n"

    assert acme.machine.bbjwt(*options, "token", acme.url, "--scope=account", check=False).returncode == 2
    assert acme.get(*options, "--scope=repository", check=False).returncode == 2
    acme.machine.bbjwt("--host", acme.bitbucket.host, "token", acme.url, BBJWT_BROKER=broker.where())
    acme.machine.bbjwt(*options, "exec", "--", "git", "clone", "-q", acme.url, "w")
    assert "the broker returned a token" in acme.machine.bbjwt(*options, "doctor", acme.url, check=False).stdout


# A client chooses the repository and nothing else.


def test_clients_environment_is_not_used(acme: Workspace, broker: Broker) -> None:
    other = acme.bitbucket.install("beta", scopes="repository:write")
    payload = json.dumps(acme.bitbucket.payload(other))
    trace = broker.home / "trace"
    with Proxy() as thief:
        proxy = f"http://{thief.address}"
        also = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.proxy",
            "GIT_CONFIG_VALUE_0": proxy,
            "https_proxy": proxy,
            "ALL_PROXY": proxy,
            "BBJWT_INSTALLATION": payload,
            "BBJWT_TRACE": str(trace),
            "BBJWT_BROKER": "false",
            "SSL_CERT_FILE": "/nonexistent",
            "GIT_SSL_CAINFO": "/nonexistent",
            "SSH_ORIGINAL_COMMAND": "git-credential-bbjwt token https://bitbucket.org/acme/secrets",
            "PYTHONPATH": "/nonexistent",
        }
        granted = broker.serve(request(acme.url) + "scope=repository:write\n\n", also=also)
        foreign = broker.serve(request(acme.url.replace("acme/", "beta/")) + "\n", also=also)

    assert "password=" in granted.stdout
    assert (foreign.stdout, foreign.returncode) == ("\n", 0)
    assert thief.asked == []
    assert not trace.exists()
    assert [token.scopes for token in acme.bitbucket.tokens.values()] == [{"repository"}]


def test_a_clients_limits_give_no_token_without_an_audit_line(acme: Workspace, broker: Broker) -> None:
    for where in ("none", broker.audit):
        limited = shlex.join(broker.command(audit=where))
        done = subprocess.run(
            ["bash", "-c", f"ulimit -f 0; umask 0; {limited}"],
            input=request(acme.url) + "\n",
            capture_output=True,
            text=True,
            env=broker.environment,
        )
        assert "password" not in done.stdout
        assert done.stdout.startswith("quit=1\n")
        assert done.stdout.endswith("\n\n")
    assert acme.bitbucket.tokens == {}


@pytest.mark.parametrize("way", ["none kept", "folder of others", "audit cannot be written", "audit is a link"])
def test_token_that_cannot_be_limited_or_audited_is_not_given(acme: Workspace, broker: Broker, way: str) -> None:
    where, options = broker.audit, tuple[str, ...]()
    if way == "none kept":
        options = ("--token-store=none",)
    elif way == "folder of others":
        for folder in (broker.home / "run/git-credential-bbjwt", broker.home / ".cache/git-credential-bbjwt"):
            folder.mkdir(parents=True)
            folder.chmod(0o777)
    elif way == "audit cannot be written":
        where = broker.home / "no/such/folder"
    else:
        (broker.home / "link").symlink_to(broker.audit)
        where = broker.home / "link"
    done = broker.serve(request(acme.url) + "\n", audit=where, options=options)

    assert "password" not in done.stdout
    assert (done.returncode, done.stdout[:7], done.stdout[-2:]) == (1, "quit=1\n", "\n\n")


@pytest.mark.parametrize(
    "words",
    [
        ["--audit", "none"],
        ["--allow", "acme/widgets"],
        ["--allow", "*/widgets", "--audit", "none"],
        ["--allow", "acme", "--audit", "none"],
        ["--allow", "acme/widgets", "--audit", "relative"],
        ["--allow-file", "relative", "--audit", "none"],
    ],
)
def test_serve_needs_both_a_list_and_an_audit(broker: Broker, words: list[str]) -> None:
    done = subprocess.run(
        [COMMAND, "serve", *words], input=b"", capture_output=True, env=broker.environment, timeout=PATIENCE
    )

    assert (done.returncode, done.stdout) == (2, b"")


def test_a_file_of_patterns(acme: Workspace, broker: Broker) -> None:
    listed = broker.home / "builds"
    listed.write_text("# builds\n\nacme/lib-*\nACME/Widgets\n")
    assert "password" in broker.serve(request(acme.url) + "\n", "--allow-file", str(listed)).stdout
    listed.write_text("acme/lib-*\n")
    assert "password" not in broker.serve(request(acme.url) + "\n", "--allow-file", str(listed)).stdout, "a kept token"
    linked = broker.home / "linked"
    linked.symlink_to("builds")
    assert broker.serve(request(acme.url) + "\n", "--allow-file", str(linked)).returncode == 1
    listed.chmod(0o666)
    assert_not_set_up(broker, "--allow-file", str(linked))


def test_one_repository_under_its_four_names(acme: Workspace, broker: Broker) -> None:
    workspaces, slugs = ("acme", acme.app.workspace_uuid), ("widgets", acme.widgets.uuid)
    tokens = set()
    for workspace in workspaces:
        for slug in slugs:
            url = f"{acme.bitbucket.base_url}/{workspace}/{slug}"
            tokens.add(given(broker.serve(request(url) + "\n"))["password"])
    assert len(tokens) == 1

    hidden = acme.bitbucket.host_repository("acme/secrets")
    missing = "{" + "0" * 8 + "-0000-0000-0000-" + "0" * 12 + "}"
    answers = {
        broker.serve(request(f"{acme.bitbucket.base_url}/acme/{one}") + "\n").stdout for one in (hidden.uuid, missing)
    }
    acme.bitbucket.misbehave("api", Fault(status=403, body=b"no"))
    not_seen = "%7B12345678-0000-0000-0000-000000000000%7D"
    answers.add(broker.serve(request(f"{acme.bitbucket.base_url}/acme/{not_seen}") + "\n").stdout)
    assert len(answers) == 1
    assert "hands out no token" in answers.pop()


def test_repository_that_is_not_allowed_costs_as_much_as_a_missing_one(acme: Workspace, broker: Broker) -> None:
    hidden = acme.bitbucket.host_repository("acme/secrets")
    missing = "{" + "0" * 8 + "-0000-0000-0000-" + "0" * 12 + "}"
    costs = []
    for uuid in (hidden.uuid, missing):
        for _ in range(2):
            before = len(acme.bitbucket.helper_requests())
            assert given(broker.serve(request(f"{acme.bitbucket.base_url}/acme/{uuid}") + "\n"))["quit"] == "1"
            costs.append(len(acme.bitbucket.helper_requests()) - before)

    assert costs == [1, 1, 1, 1]
    assert list((broker.home / "run").rglob("*~named")) == []


def test_a_name_is_looked_up_once_in_two_hours(acme: Workspace, broker: Broker) -> None:
    asked = request(f"{acme.bitbucket.base_url}/acme/{acme.widgets.uuid}") + "\n"

    def look_ups() -> int:
        assert "password" in given(broker.serve(asked))
        return [one.origin for one in acme.bitbucket.helper_requests()].count("api")

    began = int(time.time())
    first = look_ups()
    assert look_ups() == first
    # The name, and the Unix time until which it is valid.
    (known,) = (broker.home / "run/git-credential-bbjwt").rglob("*~named")
    name, until = known.read_text().split()
    assert name == "acme/widgets"
    assert began <= int(until) - 7200 <= time.time()
    for broken in (f"{name} {int(time.time()) - 1}", name, f"{name} soon", f"{name} {until} more"):
        known.write_text(broken)
        before = look_ups()
        assert look_ups() == before
    assert look_ups() == first + 4


def test_lookups_by_uuid_are_bounded(acme: Workspace, broker: Broker) -> None:
    spend(broker, LOOKUPS, 18)
    said = ""
    for number in range(4):
        uuid = f"%7B{number:08d}-0000-0000-0000-000000000000%7D"
        said = broker.serve(request(f"{acme.bitbucket.base_url}/acme/{uuid}") + "\n").stdout

    assert "too many requests" in said
    assert len(acme.bitbucket.helper_requests()) == 2


def test_repeated_refusals_make_one_mint_a_minute(acme: Workspace, broker: Broker) -> None:
    token, outcomes = "", []
    for _ in range(5):
        known = f"state[]={state(token)}\n" if token else ""
        found = given(broker.serve(request(acme.url) + known + "\n"))
        token = found.get("password", token)
        outcomes.append("password" in found)

    assert outcomes == [True, True, False, False, False]
    assert acme.bitbucket.mints() == 2


def test_the_first_sixteen_digits_name_a_refused_token(acme: Workspace, broker: Broker) -> None:
    first = given(broker.serve(request(acme.url) + "\n"))["password"]
    digits = state(first)[: len("bbjwt:") + 16] + "0" * 48
    fifteen = digits[: len("bbjwt:") + 15]
    assert given(broker.serve(request(acme.url) + f"state[]={fifteen}\n\n"))["password"] == first
    assert given(broker.serve(request(acme.url) + f"state[]={digits}\n\n"))["password"] != first


def test_a_broker_remembers_what_was_refused(acme: Workspace, broker: Broker) -> None:
    acme.bitbucket.misbehave("api", Fault(status=403, body=b"no"))
    for _ in range(2):
        assert "403" in given(broker.serve(request(acme.url) + "\n"))["bbjwt-error"]

    assert len(acme.bitbucket.helper_requests()) == 1


@pytest.mark.parametrize("data", ["junk\n\n", "", "a=b\0\n\n", "x=" + "y" * 70_000 + "\n\n", "protocol=https\n\n"])
def test_malformed_request_is_answered(broker: Broker, data: str) -> None:
    done = broker.serve(data)

    assert (done.returncode, done.stdout[:7], done.stdout[-2:]) == (1, "quit=1\n", "\n\n")
    assert "Traceback" not in done.stderr
    assert [line["outcome"] for line in broker.lines()] == ["error"]


def test_the_end_of_the_budget_is_answered_and_audited(acme: Workspace, broker: Broker) -> None:
    acme.bitbucket.misbehave("api", *[Fault(delay=5)] * 3)
    done = broker.serve(request(acme.url) + "\n", options=("--timeout=1",))

    assert (done.stdout[:7], done.stdout[-2:]) == ("quit=1\n", "\n\n")
    assert "bbjwt-error=gave up after 1 s" in done.stdout
    assert [line["outcome"] for line in broker.lines()] == ["error"]


# The helper does not trust a broker's answer.

BAD: dict[str, tuple[str, str]] = {
    "fails": ("echo 'git-credential-bbjwt: error: no such luck' >&2; echo more >&2; exit 3", "no such luck"),
    "fails in silence": ("exit 3", "the broker failed with exit status 3"),
    "fails after its answer": ("printf 'password=abc\\n\\nquit=1\\n'; exit 3", "the broker failed with exit status 3"),
    "is about another path": ("printf 'path=acme/secrets\npassword=abc\n'", "another path"),
    "is not there": ("/no/such/broker", "not found"),
    "dies half-way": ("printf 'username=x\\npassword=abc'; kill -9 $$", "broker failed"),
    "quits with control characters": ("printf 'quit=1\\nbbjwt-error=a\\033[2Jb\\n\\n'; exit 1", "a\\x1b[2Jb"),
    "fails with a token": (
        "echo 'error: not eyJhbGciOiJIUzI1NiJ9.eyJpc3Mi at all' >&2; exit 3",
        "not [redacted] at all",
    ),
    "floods": ("yes password=abc", "65536 bytes"),
    "fails with as much as may be": ("head -c 65536 /dev/zero | tr '\\0' a; exit 3", "exit status 3"),
    "says one byte more than may be": (
        "printf 'password=abc\\nx=%065520d\\n\\n' 1",
        "65536 bytes",
    ),
}


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("name", BAD)
def test_a_broker_that_misbehaves(acme: Workspace, name: str) -> None:
    command, words = BAD[name]
    done = acme.get(*asking(acme, command), check=False)

    assert_quits(done, words)
    assert "error: the broker gives no token for acme/widgets: " in done.stderr
    assert acme.machine.records() == []


REASON = "no " * 200


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("protocol=http\npassword=abc", "about another protocol"),
        ("host=localhost\npassword=abc", "about another host"),
        ("path=acme/secrets\npassword=abc", "about another path"),
        ("path=acme\npassword=abc", "about another path"),
        ("host=a\nhost=b\npassword=abc", "two lines of host"),
        ("quit=1\nbbjwt-error=not for you", "not for you"),
        ("quit=1\nbbjwt-error=not eyJhbGciOiJI.eyJpc3Mi.c2ln at", r"not \[redacted\] at"),
        (f"quit=1\nbbjwt-error={REASON}", f"{REASON[:500].strip()}$"),
        ("hello", "format"),
        ("password=a\0b", "format"),
        ("password=a\npassword=b", "two lines of password"),
        ("username=x", "no usable password"),
        ("password=a b", "no usable password"),
        ("password=ab\r", "no usable password"),
        ("password=abc\npassword_expiry_utc=NOW", "expired already, at "),
        ("password=abc\npassword_expiry_utc=1000", "expired already, at 1970-01-01 00:16:40 UTC"),
        ("password=abc\npassword_expiry_utc=soon", "not a Unix time"),
    ],
)
def test_bad_answer_gives_no_token(said: str, words: str) -> None:
    with pytest.raises(BrokerError, match=words) as raised:
        parse_answer(f"{said}\n\n".replace("NOW", str(int(time.time()))).encode(), b"", WIDGETS, "")
    assert raised.value.what.startswith("the broker gives no token for acme/widgets: ")


@pytest.mark.usefixtures("broker")
def test_longest_answer_is_accepted(acme: Workspace) -> None:
    # 17 bytes and the digits make 65,536.
    printed = "printf 'password=abc\\nx=%065519d\\n' 1; echo"
    assert answer(acme.get(*asking(acme, printed)))["password"] == "abc"


@pytest.mark.usefixtures("broker")
def test_a_broker_that_hangs_ends_with_the_call(acme: Workspace) -> None:
    told = acme.machine.home / "pid"
    with ends_within(3):
        done = acme.get(*asking(acme, f"echo $$ >{told}; sleep 301 & sleep 301"), "--timeout=3", check=False)

    assert_quits(done, "gave up", "the broker")
    assert_group_gone(int(told.read_text()))


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_broker_ends_with_a_helper_that_is_killed(acme: Workspace, number: signal.Signals) -> None:
    told = acme.machine.home / "pid"
    helper = start(acme.machine, acme.url, *asking(acme, f"echo $$ >{told}; exec sleep 301"))
    until(lambda: told.exists() and bool(told.read_text()))
    helper.send_signal(number)
    finish(helper)

    assert_group_gone(int(told.read_text()))


def assert_group_gone(group: int) -> None:
    """Wait until no process of a group runs. A busy machine may need a moment to remove one that has ended."""

    def is_gone() -> bool:
        found = [stat_of(path) for path in Path("/proc").glob("[0-9]*/stat")]
        return not any(fields[2:3] == [str(group)] and fields[0] != "Z" for fields in found)

    until(is_gone)


def stat_of(path: Path) -> list[str]:
    """Return the fields of proc(5)'s "stat", from the state on: the state, the parent, the group."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


#: The longest answer.
_LONG = pytest.param(b"password=abc\nx=".ljust(65_535, b"1") + b"\n", id="long")


@pytest.mark.parametrize("reply", [b"password=abcdef\n", b"password=abc", b"username=x\npass", _LONG])
def test_a_sockets_incomplete_answer_is_no_token(acme: Workspace, broker: Broker, reply: bytes) -> None:
    def respond(connection: socketserver.StreamRequestHandler) -> None:
        connection.rfile.readline()
        connection.wfile.write(reply)

    with socket_of(broker.home, respond) as where:
        assert_quits(acme.get(*asking(acme, where), check=False), "incomplete")


@pytest.mark.usefixtures("broker")
def test_a_missing_socket_is_named(acme: Workspace) -> None:
    assert_quits(acme.get(*asking(acme, "unix:/no/such/socket"), check=False), "/no/such/socket")


def jwt_ending(at: object) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": at}).encode()).decode().rstrip("=")
    return f"e30.{claims}.c2ln"


@pytest.mark.usefixtures("broker")
def test_expiry_comes_from_the_answer_or_the_jwt_and_is_within_a_day(acme: Workspace) -> None:
    now = int(time.time())
    for printed, expected in (
        (f"password=abc\\npassword_expiry_utc={now + 4000}", now + 4000),
        (f"password={jwt_ending(now + 5000)}", now + 5000),
        (f"password=abc\\npassword_expiry_utc={now + 10**7}", now + 86_400),
    ):
        found = answer(acme.get(*asking(acme, f"printf '{printed}\\n'; : {printed[-6:]}")))
        assert abs(int(found["password_expiry_utc"]) - expected) < 10
    kept = len(acme.machine.records())
    acme.machine.bbjwt("forget", "--all")
    found = answer(acme.get(*asking(acme, "echo password=without-an-end; echo username=somebody")))
    assert found == {"username": "somebody", "password": "without-an-end"}
    assert (kept, acme.machine.records()) == (1, [])


def test_jwt_without_a_usable_exp_has_no_expiry() -> None:
    for odd in ("soon", -1, 0, 1e300, True, None, [2 * 10**9]):
        assert _end_of(None, jwt_ending(odd), WIDGETS) is None
    with pytest.raises(BrokerError, match="expired already"):
        _end_of(None, jwt_ending(1), WIDGETS)


@pytest.mark.usefixtures("broker")
def test_a_broker_gets_no_secret_and_no_way_to_prompt(acme: Workspace) -> None:
    told = acme.machine.home / "env"
    also = {"SSH_ASKPASS": "/bin/x", "GIT_ASKPASS": "/bin/x", "GIT_TRACE": "/tmp/x"}
    acme.get(
        *asking(acme, f"env >{told}; tty >>{told}; echo password=abc"),
        also={k: v for k, v in also.items() if k != "BBJWT_JWT"},
    )
    text = told.read_text()

    assert "SSH_ASKPASS_REQUIRE=never" in text
    assert "not a tty" in text
    for name in ("SSH_ASKPASS=", "GIT_ASKPASS=", "GIT_TRACE="):
        assert name not in text


# The order of the sources. Sources that are not asked.


@pytest.mark.usefixtures("broker")
def test_a_broker_is_asked_about_its_hosts_only(acme: Workspace) -> None:
    told = acme.machine.home / "asked"
    where = f"echo x >>{told}; exit 1"
    for url, options in (
        ("https://github.com/acme/widgets", ()),
        (acme.url, ()),
        (acme.url.replace("https", "http"), ("--host", acme.bitbucket.host)),
        (acme.bitbucket.base_url, ("--host", acme.bitbucket.host)),
    ):
        assert acme.machine.get(url, "--broker", where, *options).stdout == ""

    assert not told.exists()


@pytest.mark.usefixtures("broker")
def test_a_payload_comes_before_the_broker_and_the_registry_after_it(acme: Workspace) -> None:
    told = acme.machine.home / "asked"
    silent = f"echo x >>{told}"
    trust = {"SSL_CERT_FILE": str(acme.bitbucket.ca_file)}
    assert acme.get(*asking(acme, silent), also=trust).stdout == ""
    assert told.read_text() == "x\n"

    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    assert "password" in answer(acme.get(*asking(acme, silent), also=trust))
    assert told.read_text() == "x\nx\n"
    acme.machine.bbjwt("forget", "--all")
    injected = {**trust, "BBJWT_INSTALLATION": str(acme.installation)}
    assert "password" in answer(acme.get(*asking(acme, silent), also=injected))
    assert told.read_text() == "x\nx\n"


# An installation command.


def commanded(acme: Workspace, command: str) -> tuple[str, ...]:
    return ("--installation-command", command, "--host", acme.bitbucket.host)


def test_the_command_for_the_payload_runs_for_a_mint_only(unregistered: Workspace) -> None:
    told = unregistered.machine.home / "asked"
    store = f'echo "$BBJWT_HOST $BBJWT_WORKSPACE $BBJWT_REPOSITORY" >>{told}; cat {unregistered.installation}'
    running = [start(unregistered.machine, unregistered.url, *commanded(unregistered, store)) for _ in range(8)]
    assert all(b"password=" in finish(one) for one in running)
    unregistered.get(*commanded(unregistered, store))

    assert told.read_text() == f"{unregistered.bitbucket.host} acme widgets\n"
    assert unregistered.bitbucket.mints() == 1
    secret = unregistered.app.shared_secret.encode()
    home = unregistered.machine.home.parent
    assert [path for path in home.rglob("*") if path.is_file() and secret in path.read_bytes()] == [
        unregistered.installation
    ]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("exit 4", ["exit status 4"]),
        ("echo oops >&2; exit 4", ["oops", "exit status 4"]),
        ("echo '[]'", ["not a JSON object"]),
        ("head -c 2000000 /dev/zero | tr '\\0' x", ["1048576 bytes"]),
        ("cat ANOTHER", ["another workspace"]),
        ("cat THIS >&2; cat THIS; exit 5", ["exit status 5"]),
    ],
)
def test_an_installation_command_that_misbehaves(unregistered: Workspace, command: str, words: list[str]) -> None:
    other = unregistered.machine.home / "other"
    other.write_text(json.dumps(unregistered.bitbucket.payload(unregistered.bitbucket.install("beta"))))
    command = command.replace("ANOTHER", str(other)).replace("THIS", str(unregistered.installation))
    done = unregistered.get(*commanded(unregistered, command), check=False)

    assert_quits(done, *words)


def test_standard_error_of_an_installation_command_is_redacted(unregistered: Workspace) -> None:
    store = f"echo the secret is {unregistered.app.shared_secret} >&2; cat {unregistered.installation}"
    done = unregistered.get(*commanded(unregistered, store))

    assert "the secret is [redacted]" in done.stderr
    assert unregistered.app.shared_secret not in done.stderr


def test_a_command_that_prints_nothing_leaves_the_request_to_git(unregistered: Workspace) -> None:
    done = unregistered.get(*commanded(unregistered, "true"))

    assert (done.stdout, done.stderr) == ("", "")


def test_configure_writes_the_broker(acme: Workspace, broker: Broker) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    acme.machine.bbjwt("configure", "--broker", broker.where(), "--host", acme.bitbucket.host)
    acme.machine.git("clone", "-q", acme.url, "w", GIT_SSL_CAINFO=str(acme.bitbucket.ca_file))
    acme.machine.bbjwt("unconfigure")

    assert [line["outcome"] for line in broker.lines()] == ["granted"]
    assert "helper" not in (acme.machine.home / ".gitconfig").read_text()


def test_the_commands_find_the_broker_in_gits_configuration(acme: Workspace, broker: Broker) -> None:
    configure_asker(acme, broker.where())
    token = acme.machine.bbjwt("token", acme.url).stdout.strip()
    assert token in acme.bitbucket.tokens
    assert "the broker returned a token" in acme.machine.bbjwt("doctor", acme.url, check=False).stdout
    listed = json.loads(acme.machine.bbjwt("--broker", broker.where(), "list", "--json").stdout)
    assert [one["secret"] for one in listed] == ["broker"]


@pytest.mark.usefixtures("broker")
def test_a_repositorys_own_broker_is_not_asked(acme: Workspace) -> None:
    acme.machine.git("config", "--global", "--unset-all", f"credential.{acme.bitbucket.base_url}.helper")
    told = acme.machine.home / "asked"
    folder = acme.machine.home / "theirs"
    acme.machine.git("init", "-q", folder)
    helper = "!" + shlex.join([str(COMMAND), *asking(acme, f"echo x >{told}")])
    acme.machine.git("config", f"credential.{acme.bitbucket.base_url}.helper", helper, cwd=folder)
    done = acme.machine.run(COMMAND, "token", acme.url, cwd=folder, check=False)

    assert done.returncode == 1
    assert not told.exists()


def test_a_refused_token_that_is_not_stored_does_not_come_back(acme: Workspace, broker: Broker) -> None:
    told = acme.machine.home / "asked"
    options = asking(acme, f"cat >>{told}; echo password=abcdef")
    acme.get(*options, "--token-store=none")
    acme.machine.bbjwt(*options, "--token-store=none", "erase", data=request(acme.url) + "password=abcdef\n\n")
    acme.get(*options, "--token-store=none")

    assert told.read_text().count("state[]=") == 1
    assert state("abcdef")[: len("bbjwt:") + 16] in told.read_text()
    assert broker.lines() == []


@pytest.mark.usefixtures("broker")
def test_tokens_that_the_server_refused_are_named_from_then_on_and_not_accepted_again(acme: Workspace) -> None:
    token, told = acme.machine.home / "token", acme.machine.home / "asked"
    options = asking(acme, f"cat >{told}; echo password=$(cat {token}); echo password_expiry_utc=9999999999")

    def get(refused: str, returned: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        token.write_text(returned)
        return acme.get(*options, extra=f"capability[]=state\nstate[]={state(refused)}\n", check=check)

    assert answer(get("none", "first"))["password"] == "first"
    assert_quits(get("first", "first", check=False), "a token that the server has already refused")
    assert answer(get("first", "second"))["password"] == "second"
    assert answer(get("second", "third"))["password"] == "third"
    assert state("first")[: len("bbjwt:") + 16] in told.read_text()


@pytest.mark.parametrize("token", ["!~", "a!", "~"])
def test_every_visible_character_may_be_in_a_token(token: str) -> None:
    found = parse_answer(f"password={token}\n\n".encode(), b"", WIDGETS, "broker-x")

    assert found is not None
    assert found.value == token


@pytest.mark.usefixtures("broker")
def test_the_newest_sixteen_refused_tokens_are_named(acme: Workspace) -> None:
    told = acme.machine.home / "asked"
    options = asking(acme, f"cat >{told}; echo password=abcdef")
    refused = [f"token-{number}" for number in range(18)]
    for token in refused:
        data = request(acme.url) + f"password={token}\n\n"
        acme.machine.bbjwt(*options, "--token-store=none", "erase", data=data)
    acme.get(*options, "--token-store=none")

    named = [line for line in told.read_text().splitlines() if line.startswith("state[]=")]
    assert named == [f"state[]={state(token)[: len('bbjwt:') + 16]}" for token in refused[-16:]]


def test_a_request_is_read_up_to_64_kib(broker: Broker) -> None:
    data = request(broker.acme.url) + "wwwauth[]="
    longest = data + "x" * (64 * 1024 - len(data) - 2) + "\n\n"

    assert "password=" in broker.serve(longest).stdout
    done = broker.serve(longest[:-2] + "x\n\n")
    assert "password=" not in done.stdout
    assert "over 65536 bytes" in done.stdout + done.stderr


@pytest.mark.parametrize(("stated", "kept"), [(86_399, 86_399), (86_400, 86_400), (86_401, 86_400), (10**12, 86_400)])
def test_expiry_over_a_day_away_becomes_a_day(monkeypatch: pytest.MonkeyPatch, stated: int, kept: int) -> None:
    now = 1_800_000_000
    monkeypatch.setattr("time.time", lambda: float(now))

    assert _end_of(str(now + stated), "abc", WIDGETS) == now + kept


def test_expiry_of_19_digits_is_not_a_time() -> None:
    assert _end_of("9" * 18, "abc", WIDGETS) is not None
    with pytest.raises(BrokerError, match="not a Unix time"):
        _end_of("9" * 19, "abc", WIDGETS)


def test_a_client_learns_nothing_about_the_installation(acme: Workspace, broker: Broker) -> None:
    acme.write_installation(sharedSecret="")
    assert str(acme.installation) in assert_not_set_up(broker)


NOT_SET_UP = "this broker is not set up; its log says why"


def assert_not_set_up(broker: Broker, *allowed: str, repository: str = "acme/widgets") -> str:
    """Check that the answer to a request does not tell the cause. Return the reason in the audit."""
    done = broker.serve(request(broker.acme.url) + "\n", *allowed)

    assert done.stdout == f"quit=1\nbbjwt-error={NOT_SET_UP}\n\n"
    assert (done.stderr, done.returncode) == (f"git-credential-bbjwt: error: {NOT_SET_UP}\n", 1)
    line = broker.lines()[-1]
    assert line["outcome"] == "error"
    assert line["repository"] == repository
    return str(line["reason"])


@pytest.mark.parametrize("content", ["\ufeffacme/widgets\r\n", "ACME/WIDGETS.git", "# x\n\n  acme/w*s  \n"])
def test_an_allow_file_may_come_from_any_editor(broker: Broker, content: str) -> None:
    listed = broker.home / "builds"
    listed.write_bytes(content.encode())

    assert "password" in given(broker.serve(request(broker.acme.url) + "\n", "--allow-file", str(listed)))


@pytest.mark.parametrize("content", [None, "", "# nothing\n", "*/widgets\n", "acme\n", "\xff\n"])
def test_an_allow_file_that_cannot_be_used_is_answered(broker: Broker, content: str | None) -> None:
    listed = broker.home / "builds"
    if content is not None:
        listed.write_text(content, encoding="latin-1")

    assert str(listed) in assert_not_set_up(broker, "--allow-file", str(listed))


@pytest.mark.parametrize("content", [None, "", "{", "[5]"])
def test_an_installation_that_cannot_be_used_is_answered(acme: Workspace, broker: Broker, content: str | None) -> None:
    acme.installation.unlink()
    if content is not None:
        acme.installation.write_text(content)

    assert str(acme.installation) in assert_not_set_up(broker)


def test_an_exception_is_answered_and_audited(acme: Workspace, broker: Broker) -> None:
    text = broker.program.read_text()
    fault = f"import base64, json\ndef fault(*_, **__): raise KeyError({acme.app.shared_secret!r})\n"
    fault += "from git_credential_bbjwt.serving import answering\nanswering.parse_request = fault\n"
    broker.program.write_text(text.replace("main(sys", fault + "main(sys"))
    cause = assert_not_set_up(broker, repository="")

    assert cause.startswith("internal error: KeyError in ")
    assert acme.app.shared_secret not in cause


def test_thread_that_cannot_start_is_answered_and_audited(broker: Broker) -> None:
    text = broker.program.read_text()
    fault = 'import threading\ndef start(self): raise RuntimeError("can\'t start new thread")\n'
    broker.program.write_text(text.replace("main(sys", fault + "threading.Thread.start = start\nmain(sys"))

    assert assert_not_set_up(broker, repository="").startswith("internal error: RuntimeError in ")


@pytest.mark.parametrize("variable", ["SUDO_UID", "DOAS_USER", "PKEXEC_UID"])
def test_a_broker_behind_sudo_refuses_and_names_the_socket(acme: Workspace, broker: Broker, variable: str) -> None:
    done = broker.serve(request(acme.url) + "\n", also={variable: "1000"})

    assert (done.returncode, done.stdout) == (2, "")
    assert "behind sudo or doas" in done.stderr
    assert "unix:/run/bbjwt/socket" in done.stderr
    assert broker.lines() == []
    assert acme.bitbucket.seen == []


def answer_to_a_client_that_waits(broker: Broker, data: str, *options: str) -> str:
    """Return the answer to a client that leaves its side of the connection open."""
    command = broker.command(options=options)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=broker.environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(data.encode())
        process.stdin.flush()
        too_long = threading.Timer(PATIENCE, process.kill)
        too_long.start()
        said = process.stdout.read().decode()
        too_long.cancel()
        return said


def test_a_client_that_hangs_is_told_that_the_budget_ended(broker: Broker) -> None:
    with ends_within(3):
        said = answer_to_a_client_that_waits(broker, "protocol=https\n", "--timeout=3")

    assert said == "quit=1\nbbjwt-error=gave up after 3 s: waiting for the request\n\n"
    assert [line["outcome"] for line in broker.lines()] == ["error"]


def test_a_request_ends_with_its_blank_line(acme: Workspace, broker: Broker) -> None:
    assert "password=" in answer_to_a_client_that_waits(broker, request(acme.url) + "\n")
    # An empty request is complete, too.
    assert "no complete request" not in answer_to_a_client_that_waits(broker, "\n")


def test_the_audit_goes_to_the_system_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "log")
    monkeypatch.setattr(audit, "_SYSLOG", place)
    with pytest.raises(audit.AuditError, match="no syslog"):
        audit.audit_to("syslog")(b"{}")
    long = Answer(200, b"", cause="x" * 10_000)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(place)
        audit.audit_to("syslog")(audit.audit_line(long, {"by": "uid"}, "repository", audit.LONGEST_VALUE))
        line = log.recv(65_536)

    assert line.startswith(f"<86>git-credential-bbjwt[{os.getpid()}]: ".encode())
    assert len(json.loads(line.partition(b": ")[2])["reason"]) == 512
