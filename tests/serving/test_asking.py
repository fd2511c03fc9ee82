"""Requests to a broker that is missing, still starting, overloaded, or closed to this user."""

from __future__ import annotations

import errno
import grp
import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from git_credential_bbjwt.core.where import Where
from git_credential_bbjwt.system import shell
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.vendors import broker as broker_of_client
from tests.conftest import (
    COMMAND,
    PATIENCE,
    Workspace,
    answer,
    assert_quits,
    ends_within,
    finish,
    need,
    request,
    start,
    until,
)
from tests.serving.test_broker import Broker, asking, broker

__all__ = ["broker"]  # a fixture

TOKEN = b"username=x-token-auth\npassword=abcdef\n\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The path of a test's socket, short enough for one."""
    folder = tmp_path / "s"
    folder.mkdir()
    return folder / "socket"


def where(place: Path) -> str:
    return f"unix:{place}"


@contextmanager
def listening(place: Path, respond: Callable[[int, socket.socket], None], *, backlog: int = 100) -> Iterator[None]:
    """Listen at ``place``. Each connection is passed to ``respond`` with its number."""
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen(backlog)
        server.settimeout(0.05)

        def accept() -> None:
            number = 0
            while not done.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    respond(number, connection)
                number += 1

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(PATIENCE)


def served(connection: socket.socket) -> None:
    data = b""
    while b"\n\n" not in data:
        data += connection.recv(65_536)
    connection.sendall(TOKEN)


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("way", ["standard error", "a refusal", "a socket"])
def test_a_token_in_a_brokers_error_is_not_shown(acme: Workspace, place: Path, way: str) -> None:
    token = "ATCTT3xFfGN0Qw8Zk1pLmN0pQrStUvWxYz0123456789"  # The helper does not know this token.
    words = f"error: 403 for Bearer {token}"
    refusal = f"quit=1\nbbjwt-error={words}\n\n"
    commands = {
        "standard error": f"echo '{words}' >&2; exit 3",
        "a refusal": f"printf '{refusal}'",
        "a socket": where(place),
    }

    def respond(_: int, connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(refusal.encode())

    with listening(place, respond):
        done = acme.get(*asking(acme, commands[way]), check=False)

    assert_quits(done, "the broker gives no token for acme/widgets: error: 403 for Bearer [redacted]")
    assert token not in done.stderr


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("way", ["closes at once", "resets", "reads and closes"])
def test_a_socket_that_closes_before_its_first_byte_is_asked_again(acme: Workspace, place: Path, way: str) -> None:
    def respond(number: int, connection: socket.socket) -> None:
        if number >= 3:
            served(connection)
        elif way == "resets":
            connection.recv(1)  # The system resets a connection whose data nobody read.
        elif way == "reads and closes":
            connection.recv(65_536)

    with listening(place, respond):
        assert answer(acme.get(*asking(acme, where(place))))["password"] == "abcdef"


@pytest.mark.usefixtures("broker")
def test_a_socket_that_restarts_is_waited_for(acme: Workspace, place: Path) -> None:
    trace = acme.machine.home / "trace"
    acme.machine.environment["BBJWT_TRACE"] = str(trace)

    def until_traced(problem: int) -> None:
        until(lambda: trace.exists() and os.strerror(problem) in trace.read_text())

    helper = start(acme.machine, acme.url, *asking(acme, where(place)))
    until_traced(errno.ENOENT)
    with socket.socket(socket.AF_UNIX) as gone:  # A broker that has ended left this socket, which refuses connections.
        gone.bind(str(place))
    until_traced(errno.ECONNREFUSED)
    trace.unlink()
    place.unlink()
    until_traced(errno.ENOENT)
    with listening(place, lambda _, connection: served(connection)):
        assert b"password=abcdef" in finish(helper)


@pytest.mark.usefixtures("broker")
def test_many_clients_at_a_short_queue_are_all_served(acme: Workspace, place: Path) -> None:
    urls = [f"{acme.bitbucket.base_url}/acme/lib-{number}" for number in range(24)]

    def respond(number: int, connection: socket.socket) -> None:
        if number % 3:
            served(connection)

    with listening(place, respond, backlog=1):
        helpers = [start(acme.machine, url, *asking(acme, where(place))) for url in urls]
        answers = [finish(one) for one in helpers]

    assert all(b"password=abcdef" in one for one in answers)


@pytest.mark.usefixtures("broker")
def test_a_socket_that_never_answers_is_given_up_after_the_budget(acme: Workspace, place: Path) -> None:
    ended = threading.Event()

    def respond(_: int, connection: socket.socket) -> None:  # noqa: ARG001  # it stays open
        ended.wait(PATIENCE)

    with listening(place, respond), ends_within(2):
        done = acme.get(*asking(acme, where(place)), "--timeout=2", check=False)
        ended.set()

    assert_quits(done, "gave up after 2 s: waiting for the broker")


def test_a_socket_that_always_closes_is_asked_for_a_while(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_of_client, "_FOR_BROKER", 1.0)
    asked: list[int] = []
    is_closed = pytest.raises(broker_of_client._FailedError, match="closed without an answer")
    with listening(place, lambda number, _: asked.append(number)), is_closed:
        broker_of_client._ask(Where.parse(where(place)), b"\n", Budget(3600))

    assert len(asked) > 1


@pytest.mark.usefixtures("broker")
def test_a_broken_off_answer_is_final(acme: Workspace, place: Path) -> None:
    numbers = []

    def respond(number: int, connection: socket.socket) -> None:
        numbers.append(number)
        connection.recv(65_536)
        connection.sendall(b"password=abc")

    with listening(place, respond):
        assert_quits(acme.get(*asking(acme, where(place)), check=False), "its answer is incomplete")
    assert numbers == [0]


@pytest.mark.usefixtures("broker")
def test_an_answer_ends_with_its_blank_line_even_if_the_connection_stays_open(acme: Workspace, place: Path) -> None:
    def respond(_: int, connection: socket.socket) -> None:
        served(connection)
        connection.settimeout(PATIENCE)
        assert connection.recv(1) == b""  # This waits until the client has closed the connection.

    with listening(place, respond):
        assert answer(acme.get(*asking(acme, where(place))))["password"] == "abcdef"


@pytest.mark.usefixtures("broker")
def test_a_socket_whose_folder_is_missing_is_not_waited_for(acme: Workspace, place: Path) -> None:
    missing = place.parent / "no" / "socket"
    done = acme.get(*asking(acme, where(missing)), check=False, also={"BBJWT_TRACE": "1"})

    assert_quits(done, f"cannot connect to the socket {missing}: No such file or directory")
    assert "next attempt" not in done.stderr
    assert "hint: on the broker's machine, run: systemctl enable --now bbjwt.socket" in done.stderr


@pytest.mark.usefixtures("broker")
def test_path_that_is_not_a_socket_is_final(acme: Workspace, place: Path) -> None:
    place.write_text("")
    done = acme.get(*asking(acme, where(place)), check=False, also={"BBJWT_TRACE": "1"})

    assert_quits(done, "Connection refused")
    assert "next attempt" not in done.stderr


@pytest.mark.usefixtures("broker")
def test_a_socket_of_another_group_names_the_group(acme: Workspace, place: Path) -> None:
    # Root may connect to any socket unless it drops its capabilities.
    powerless = [need("setpriv"), "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    with listening(place, lambda _, connection: served(connection)):
        place.chmod(0)
        group = grp.getgrgid(place.stat().st_gid).gr_name
        data = request(acme.url) + "\n"
        done = acme.machine.run(*powerless, COMMAND, *asking(acme, where(place)), "get", data=data, check=False)

    assert_quits(done, "Permission denied")
    assert f"hint: add this user to the socket's group {group}: usermod -aG {group} USER" in done.stderr


# Failures of ssh.


def failing(folder: Path, times: int, words: str, status: int = 255, output: str = "") -> str:
    """A command that fails ``times`` times, then prints a token. It appends one byte to a file in each run."""
    counter = folder / "runs"
    script = folder / "ssh"
    script.write_text(
        f"#!/bin/sh\nprintf x >>{counter}\n[ $(wc -c <{counter}) -le {times} ] || exec printf 'password=abcdef\\n\\n'\n"
        f"printf '%s' {shlex.quote(output)}\nprintf '%s\\n' {shlex.quote(words)} >&2\nexit {status}\n"
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    "words",
    [
        "kex_exchange_identification: Connection closed by remote host",
        "ssh: connect to host broker port 22: Connection refused",
        "",
    ],
)
def test_ssh_whose_connection_is_refused_is_run_again(acme: Workspace, tmp_path: Path, words: str) -> None:
    assert answer(acme.get(*asking(acme, failing(tmp_path, 2, words))))["password"] == "abcdef"
    assert (tmp_path / "runs").read_text() == "xxx"


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    ("words", "status", "output", "hint"),
    [
        ("builds@broker: Permission denied (publickey).", 255, "", "authorized_keys"),
        ("Host key verification failed.", 255, "", "run it once yourself"),
        ("error: out of order", 1, "", "ask whoever runs the broker"),
        ("error: out of order", 254, "", "ask whoever runs the broker"),
        ("Connection closed", 255, "password=", "ask whoever runs the broker"),
        ("sh: 1: ssh: not found", 127, "", "the shell does not find it"),
    ],
)
def test_any_other_failure_of_a_command_is_final(
    acme: Workspace, tmp_path: Path, words: str, status: int, output: str, hint: str
) -> None:
    done = acme.get(*asking(acme, failing(tmp_path, 9, words, status, output)), check=False)

    assert_quits(done, "the broker gives no token for acme/widgets: ", words.rpartition("error: ")[2])
    assert hint in done.stderr
    assert (tmp_path / "runs").read_text() == "x"


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("ssh -T broker", "run it once yourself: ssh -T broker\n"),
        ("ssh -o ProxyCommand='nc -X pass-word' broker", "run it once yourself: the ssh command of --broker\n"),
    ],
)
def test_an_unknown_host_key_is_reported_with_the_command_if_that_is_plain(
    acme: Workspace, tmp_path: Path, command: str, shown: str
) -> None:
    failing(tmp_path, 9, "Host key verification failed.")
    path = f"{tmp_path}:{acme.machine.environment['PATH']}"
    done = acme.get(*asking(acme, command), check=False, also={"PATH": path})

    assert_quits(done, "Host key verification failed.")
    assert shown in done.stderr
    assert "pass-word" not in done.stderr


def test_a_broker_and_a_client_of_one_user_do_not_wait_for_each_other(acme: Workspace, broker: Broker) -> None:
    runtime = acme.machine.environment["XDG_RUNTIME_DIR"]
    shared = {**broker.environment, "RUNTIME_DIRECTORY": runtime}
    line = shlex.join(["env", "-i", *[f"{name}={value}" for name, value in shared.items()], *broker.command()])
    running = [start(acme.machine, acme.url, *asking(acme, line)) for _ in range(4)]
    answers = {finish(one) for one in running}

    assert all(b"password=" in one for one in answers)
    assert [one["outcome"] for one in broker.lines()] == ["granted"]
    assert len(acme.bitbucket.tokens) == 1


@pytest.mark.parametrize("late", [0.0, 0.4])
def test_all_output_of_a_command_is_read_even_if_this_process_is_slow(
    monkeypatch: pytest.MonkeyPatch, late: float
) -> None:
    def slow(fd: int, most: int) -> bytes:
        time.sleep(late)
        return read(fd, most)

    read = os.read
    monkeypatch.setattr("git_credential_bbjwt.system.shell.os.read", slow)
    # A process that the command started holds the pipes. Nobody waits for that process.
    with ends_within(0):
        done = shell.run("sleep 60 & printf abc; printf def >&2", b"", most=100, env=dict(os.environ))

    assert (done.status, done.output, done.errors) == (0, b"abc", b"def")
