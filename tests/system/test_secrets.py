"""Secrets are only in the places that need them: the tests watch processes and then read files."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import desktop
from tests.conftest import COMMAND, PATIENCE, Workspace, cannot, finish, request, start, until_asked
from tests.emulator import Fault


class Watch:
    """The arguments and the environment of each process that was seen on the machine."""

    def __init__(self) -> None:
        self.arguments: dict[int, bytes] = {}
        self.environments: dict[int, bytes] = {}

    def look(self) -> None:
        """Look at all processes once."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            number = int(entry.name)
            try:
                # Both are kept with earlier values, because a process that runs another program changes them.
                arguments, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if arguments not in self.arguments.get(number, b""):
                self.arguments[number] = self.arguments.get(number, b"") + arguments
            if environment not in self.environments.get(number, b""):
                self.environments[number] = self.environments.get(number, b"") + environment

    def named(self, text: bytes) -> list[int]:
        """Return the processes with ``text`` in their arguments."""
        return [number for number, arguments in self.arguments.items() if text in arguments]


@contextmanager
def watching() -> Iterator[Watch]:
    """Watch all processes, as often as can be, until the block ends."""
    watch, done = Watch(), threading.Event()

    def run() -> None:
        while not done.is_set():
            watch.look()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def secrets_of(acme: Workspace) -> list[bytes]:
    """Return the shared secret, every JWT and every token."""
    jwts = [seen.jwt for seen in acme.bitbucket.helper_requests() if seen.jwt]
    return [text.encode() for text in (acme.app.shared_secret, *jwts, *acme.bitbucket.tokens)]


def slow(acme: Workspace) -> None:
    """Make the next mint slow enough to be watched."""
    acme.bitbucket.misbehave("api", Fault(delay=0.5))
    acme.bitbucket.misbehave("token", Fault(delay=0.5))


def test_no_secret_in_any_argument_or_child_with_a_keyring(acme: Workspace) -> None:
    payload = acme.installation.read_bytes()
    acme.installation.unlink()
    del acme.machine.environment["BBJWT_INSTALLATION"]
    with desktop.session(acme.machine), watching() as watch:
        acme.machine.bbjwt("register", "-", data=payload)
        slow(acme)
        acme.machine.git("clone", "-q", acme.url, "w")
        acme.machine.bbjwt("token", acme.url, "--format=url")

    assert watch.named(b"keyring_process")
    for secret in secrets_of(acme):
        assert watch.named(secret) == []
        assert not any(secret in environment for environment in watch.environments.values())


def test_children_get_no_secret_variables(acme: Workspace, tmp_path: Path) -> None:
    # A git that logs its environment and arguments and then runs the real git.
    real = acme.machine.run("sh", "-c", "command -v git").stdout.strip()
    log = tmp_path / "log"
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin/git"
    fake.write_text(f'#!/bin/sh\n{{ env; echo "$@"; }} >>"{log}"\nexec "{real}" "$@"\n')
    fake.chmod(0o755)
    jwt = acme.machine.bbjwt("jwt", "acme").stdout.strip()
    variables = {
        "BBJWT_INSTALLATION": acme.installation.read_text(),
        "PATH": f"{tmp_path}/bin:{acme.machine.environment['PATH']}",
        "no_proxy": "*",
        "https_proxy": "http://user:a-proxys-password@localhost:1",
        "KEYRING_CRYPTFILE_PASSWORD": "a-keyrings-password",
    }
    acme.get("--token-store=none", also=variables)
    acme.get("--token-store=none", also=variables | {"BBJWT_JWT": jwt})
    acme.machine.bbjwt("doctor", check=False, also=variables)
    given = log.read_text()

    assert "--get-regexp" in given
    for secret in (acme.app.shared_secret, jwt, "a-proxys-password", "a-keyrings-password"):
        assert secret not in given


def test_no_file_contains_a_secret_except_the_tokens_record(acme: Workspace, tmp_path: Path) -> None:
    payload = acme.installation.read_text()
    acme.installation.unlink()
    everything = {"BBJWT_INSTALLATION": payload, "BBJWT_TRACE": str(tmp_path / "trace")}
    acme.machine.git("clone", "-q", acme.url, "w", also=everything)
    acme.app.shared_secret += "x"
    acme.machine.git("fetch", "-q", cwd=acme.machine.home / "w", also=everything)
    acme.machine.bbjwt("forget", "--all")
    acme.machine.git("fetch", "-q", cwd=acme.machine.home / "w", check=False, also=everything)
    acme.app.shared_secret = acme.app.shared_secret[:-1]
    token = acme.machine.bbjwt("token", acme.url, also=everything).stdout.strip()

    (record,) = acme.machine.records()
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_relative_to(tmp_path / "bitbucket"):
            content = path.read_bytes()
            assert not [s for s in secrets_of(acme) if s in content and (path, s) != (record, token.encode())], path


@pytest.mark.parametrize("kind", ["api", "token"])
def test_secrets_that_a_server_repeats_are_not_shown(acme: Workspace, kind: str) -> None:
    def repeat(acme: Workspace) -> bytes:
        return json.dumps({"error": "invalid_grant", "error_description": acme.app.shared_secret}).encode()

    acme.bitbucket.misbehave(kind, Fault(status=400, body=repeat(acme)))
    done = acme.get("--verbose", check=False, BBJWT_TRACE="1")

    assert acme.app.shared_secret not in done.stderr
    assert "[redacted]" in done.stderr


def test_no_core_dump(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=3))
    running = start(acme.machine, acme.url)
    until_asked(acme.bitbucket)
    soft, _ = resource.prlimit(running.pid, resource.RLIMIT_CORE)
    running.kill()
    finish(running)

    assert soft in (0, 1)  # core(5): 1 means none at all, even where a program takes the dumps.


@pytest.mark.parametrize("limit", [0, resource.RLIM_INFINITY])
def test_process_that_holds_a_cached_token_dumps_no_core(acme: Workspace, tmp_path: Path, limit: int) -> None:
    acme.get()
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if limit and not hard:
        cannot("the hard limit for core dumps is 0")
    full, filling = os.pipe()
    os.set_blocking(filling, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(filling, bytes(4096)):
            pass
    os.set_blocking(filling, True)  # The helper waits here with its answer.
    running = subprocess.Popen(
        [COMMAND, "get"],
        stdin=subprocess.PIPE,
        stdout=filling,
        env=acme.machine.env(),
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (limit and hard, hard)),
    )
    assert running.stdin is not None
    running.stdin.write(request(acme.url).encode() + b"\n")
    running.stdin.close()
    asleep, deadline = 0, time.monotonic() + PATIENCE
    while asleep < 20 and time.monotonic() < deadline:
        state = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.01)
    soft, _ = resource.prlimit(running.pid, resource.RLIMIT_CORE)
    memory = Path(f"/proc/{running.pid}/coredump_filter").read_text()
    os.kill(running.pid, signal.SIGABRT)
    status = os.waitpid(running.pid, 0)[1]
    running.returncode = os.waitstatus_to_exitcode(status)
    os.close(full)
    os.close(filling)

    assert running.returncode == -signal.SIGABRT
    assert not os.WCOREDUMP(status)
    assert soft == 1 or (soft == 0 and int(memory, 16) == 0)
