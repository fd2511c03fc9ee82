"""The recipes of the operators' page, run as they are written, under systemd and sshd on a separate machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import (
    COMMAND,
    EVERYTHING,
    PATIENCE,
    PROJECT,
    Workspace,
    answer,
    assert_quits,
    free_port,
    need,
    request,
    start,
    until,
)
from tests.serving.apart import GROUP, HOME, USER, Apart, ssh_daemon
from tests.serving.test_broker import asking

PAGE = (PROJECT / "git_credential_bbjwt/serving/README.md").read_text(encoding="utf-8")

BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)


def block(words: str) -> str:
    """Return the one block that contains these words."""
    (found,) = [text for _, text in BLOCKS if words in text]
    return found


#: A mark, because it skips before the fixtures start a daemon.
under_load = pytest.mark.skipif(not EVERYTHING, reason="much load for a minute: tests/run --all does that")


@pytest.fixture
def apart(acme: Workspace, tmp_path: Path) -> Iterator[Apart]:
    """A separate machine with the page's user, group and allow-list. Its Bitbucket is the emulator."""
    del acme.machine.environment["BBJWT_INSTALLATION"]
    machine = Apart(tmp_path / "given")
    shutil.copy(acme.bitbucket.ca_file, machine.given / "home/authority.pem")
    (machine.given / "home/.gitconfig").write_text(f"[http]\n\tsslCAInfo = {HOME}/authority.pem\n")
    shutil.copy(acme.installation, machine.given / "home/installed.json")
    listed = machine.given / "etc/git-credential-bbjwt/builds"
    listed.write_text(block("# what the builds may read"))
    try:
        yield machine
    finally:
        machine.stop()


def register(apart: Apart) -> None:
    """Do what the page says for the broker's user. The machine already has the user and the command."""
    lines = block("useradd").splitlines()
    assert lines[0] == f"useradd --system --create-home --home-dir {HOME} --shell /bin/sh {USER}"
    (line,) = [one for one in lines if "register" in one]
    words = shlex.split(line.removeprefix(f"sudo -u {USER} -H "))
    done = apart.run(*words[:-1], f"{HOME}/{words[-1]}", user=True)
    assert done.returncode == 0, done.stderr
    assert apart.run("rm", f"{HOME}/installed.json").returncode == 0


@pytest.fixture
def unit(apart: Apart) -> Apart:
    """The page's socket unit, listening."""
    assert f"`groupadd --system {GROUP}`" in PAGE
    folder = apart.given / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "bbjwt.socket").write_text(block("[Socket]"))
    (folder / "bbjwt@.service").write_text(block("StandardInput=socket"))
    apart.start_systemd("bbjwt.socket")
    register(apart)
    return apart


def where(unit: Apart) -> str:
    (line,) = [text for _, text in BLOCKS if "--broker unix:" in text]
    return "unix:" + unit.path(shlex.split(line)[-1].removeprefix("unix:"))


def audited(apart: Apart) -> list[dict[str, object]]:
    """Return the lines of the audit in the journal."""
    done = apart.run("journalctl", "--no-pager", "--output=json", "SYSLOG_FACILITY=10")
    found = [json.loads(line)["MESSAGE"] for line in done.stdout.splitlines()]
    return [json.loads(one) for one in found if one.startswith("{")]


def said(process: subprocess.Popen[bytes]) -> bytes:
    """Return the output of a helper, with its errors."""
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        return process.stdout.read() + process.stderr.read()


def is_well(unit: Apart) -> bool:
    """Return whether the socket listens and no unit has failed."""
    failed = unit.run("systemctl", "--no-legend", "--plain", "list-units", "--failed", "bbjwt*").stdout
    return unit.run("systemctl", "is-active", "bbjwt.socket").stdout == "active\n" and not failed.strip()


def test_socket_unit_answers_and_audits(acme: Workspace, unit: Apart) -> None:
    found = answer(acme.get(*asking(acme, where(unit))))
    refused = acme.machine.get(acme.url.replace("widgets", "secrets"), *asking(acme, where(unit)), check=False)

    assert found["password"] in acme.bitbucket.tokens
    assert_quits(refused, "the broker gives no token for acme/secrets: this broker hands out no token")
    until(lambda: len(audited(unit)) == 2)
    granted, denied = audited(unit)
    assert (granted["outcome"], denied["outcome"]) == ("granted", "refused")
    assert isinstance(granted["asker"], dict)
    assert (granted["asker"]["by"], granted["asker"]["uid"]) == ("unix", os.getuid())
    place = Path(unit.path("/run/bbjwt/socket")).stat()
    assert (place.st_mode & 0o777, place.st_uid) == (0o660, 0)
    until(lambda: is_well(unit))
    # The tokens are in memory and outlive the request that caused them.
    acme.machine.bbjwt("forget", "--all")
    kept = Path(unit.path("/run/bbjwt-tokens/git-credential-bbjwt"))
    assert [path for path in kept.rglob("*,acme,widgets,*") if "~" not in path.name]


@under_load
def test_260_connections_in_two_seconds_stop_no_unit(acme: Workspace, unit: Apart) -> None:
    path = where(unit).removeprefix("unix:")
    data = request(acme.url.replace("widgets", "secrets")).encode() + b"\n"
    for _ in range(3):
        began = time.monotonic()
        for number in range(260):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(path)
                if number % 2:
                    connection.sendall(data)
        if time.monotonic() - began < 2:
            break  # A busy machine needs longer and is not under this load.

    assert "password" in answer(acme.get(*asking(acme, where(unit))))
    until(lambda: is_well(unit))


@under_load
def test_a_hundred_clients_at_once_are_all_served(acme: Workspace, unit: Apart) -> None:
    urls = []
    for number in range(20):
        repository = acme.bitbucket.host_repository(f"acme/lib-{number}")
        urls.append(acme.bitbucket.url(repository))
    acme.machine.environment["XDG_RUNTIME_DIR"] = "/nonexistent"  # No client uses the token of another.
    options = (*asking(acme, where(unit)), "--token-store=none")
    running = [start(acme.machine, urls[number % 20], *options) for number in range(100)]

    assert [one for one in map(said, running) if b"password=" not in one] == []
    assert acme.bitbucket.mints() == 20
    until(lambda: is_well(unit))


@under_load
def test_clients_wait_for_a_socket_that_restarts(acme: Workspace, unit: Apart) -> None:
    options = (*asking(acme, where(unit)), "--token-store=none")
    stop = threading.Event()

    def restart() -> None:
        while not stop.is_set():
            unit.run("systemctl", "restart", "bbjwt.socket")
            time.sleep(2.5)  # systemd lets a unit start five times in ten seconds.

    restarting = threading.Thread(target=restart, daemon=True)
    restarting.start()
    try:
        for _ in range(4):
            running = [start(acme.machine, acme.url, *options) for _ in range(4)]
            assert [one for one in map(said, running) if b"password=" not in one] == []
    finally:
        stop.set()
        restarting.join(PATIENCE)


# sshd.


@pytest.fixture
def sshd(apart: Apart, tmp_path: Path) -> str:
    """The page's sshd: the command line that asks it, with a key that the page's line allows."""
    need("ssh")
    program = ssh_daemon()
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    line = block("restrict,").strip()
    assert line.endswith(" ssh-ed25519 AAAA… builds")
    # The only change to the page's line: nothing receives syslog on this machine.
    line = line.replace("--audit syslog", f"--audit {HOME}/audit")
    (apart.given / "home/.ssh").mkdir(mode=0o700)
    (apart.given / "home/.ssh/authorized_keys").write_text(
        line.replace("ssh-ed25519 AAAA… builds", (folder / "key.pub").read_text())
    )
    port = free_port()
    listed = apart.given / "etc/git-credential-bbjwt"
    shutil.copy(folder / "host", listed / "host")
    (listed / "host").chmod(0o600)
    (listed / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey /etc/git-credential-bbjwt/host\nPidFile none\n"
        "AcceptEnv *\nUsePAM no\nPasswordAuthentication no\nLogLevel ERROR\n" + block("ExposeAuthInfo yes")
    )
    apart.start(f"{program} -D -e -f /etc/git-credential-bbjwt/sshd_config")
    register(apart)
    settings = (f"UserKnownHostsFile={folder}/known", "StrictHostKeyChecking=accept-new", "IdentitiesOnly=yes")
    options = [word for setting in settings for word in ("-o", setting)]
    words = ["ssh", "-T", "-F", "/dev/null", *options, "-p", str(port), "-i", str(folder / "key"), f"{USER}@127.0.0.1"]
    until(lambda: subprocess.run(words, input=b"\n", capture_output=True).returncode != 255)
    apart.run("rm", f"{HOME}/audit")
    return shlex.join(words)


def test_ssh_answers_and_audits_and_takes_nothing_from_the_client(
    acme: Workspace, apart: Apart, sshd: str, tmp_path: Path
) -> None:
    variables = {
        "HOME": "/tmp",
        "PATH": "/tmp",
        "XDG_RUNTIME_DIR": "/tmp",
        "XDG_CONFIG_HOME": "/tmp",
        "RUNTIME_DIRECTORY": "/tmp",
        "CREDENTIALS_DIRECTORY": "/tmp",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.proxy",
        "GIT_CONFIG_VALUE_0": "http://127.0.0.1:1",
        "BBJWT_TRACE": "1",
        "SSL_CERT_FILE": "/nonexistent",
    }
    # With SetEnv, a client can send any variable.
    given = " ".join(shlex.quote(f"{name}={value}") for name, value in variables.items())
    line = sshd.replace(" -T ", f" -T -o SetEnv={shlex.quote(given)} ", 1)
    found = answer(acme.get(*asking(acme, line)))
    refused = acme.machine.get(acme.url.replace("widgets", "secrets"), *asking(acme, sshd), check=False)

    assert found["password"] in acme.bitbucket.tokens
    assert_quits(refused, "this broker hands out no token")
    public = tmp_path / "ssh/key.pub"
    shown = subprocess.run(["ssh-keygen", "-l", "-f", public], capture_output=True, text=True, check=True).stdout
    lines = [json.loads(one) for one in apart.run("cat", f"{HOME}/audit").stdout.splitlines()]
    assert [one["outcome"] for one in lines] == ["granted", "refused"]
    assert lines[0]["asker"] == {"by": "ssh", "address": "127.0.0.1", "key": shown.split()[1]}
    assert apart.run("ls", "/tmp").stdout == ""


@under_load
def test_sixty_clients_at_once_are_served_by_ssh(acme: Workspace, sshd: str) -> None:
    options = (*asking(acme, sshd), "--token-store=none")
    running = [start(acme.machine, acme.url, *options) for _ in range(60)]

    assert [one for one in map(said, running) if b"password=" not in one] == []
    assert acme.bitbucket.mints() == 1


# The jobs.


@pytest.mark.parametrize("broker", ["unix:", "'ssh"])
def test_jobs_git_is_configured_once(acme: Workspace, broker: str) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    words = shlex.split(block(f"configure --broker {broker}"))
    acme.machine.run(COMMAND, *words[1:])

    helper = acme.machine.git("config", "credential.https://bitbucket.org.helper").stdout
    assert words[-1].split()[0] in helper
