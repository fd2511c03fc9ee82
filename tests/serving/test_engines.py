"""A broker that a real sshd or a real socket unit starts, on this machine only."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_credential_bbjwt.serving import client
from tests.conftest import (
    COMMAND,
    PATIENCE,
    Workspace,
    answer,
    assert_quits,
    cannot,
    free_port,
    need,
    request,
    until,
)
from tests.proxy import Proxy
from tests.serving.test_broker import Broker, asking, broker, configure_asker, given

__all__ = ["broker"]  # a fixture


@pytest.fixture
def sshd(acme: Workspace, broker: Broker) -> Iterator[tuple[str, Path]]:
    """An sshd whose one key may run one command: the ssh command line that asks it, and the public key's file."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or cannot("sshd is not installed")
    need("ssh")
    if os.geteuid() != 0:
        cannot("only root can run an sshd")
    folder = acme.machine.home.parent / "ssh"
    folder.mkdir(mode=0o700)
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "key", "another"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    command = shlex.join(broker.command())
    escaped = command.replace('"', '\\"')
    (folder / "authorized_keys").write_text(f'restrict,command="{escaped}" {(folder / "key.pub").read_text()}')
    port = free_port()
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nExposeAuthInfo yes\n"
        "AcceptEnv GIT_* BBJWT_* SSL_CERT_FILE\nPermitRootLogin yes\nLogLevel ERROR\n"
    )
    server = subprocess.Popen([program, "-D", "-e", "-f", folder / "config"], stderr=subprocess.DEVNULL)
    settings = ("StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={folder}/known", "BatchMode=yes")
    options = [word for setting in (*settings, "IdentitiesOnly=yes") for word in ("-o", setting)] + ["-F", "/dev/null"]
    ssh = shlex.join(["ssh", "-T", "-q", *options, "-p", str(port), "-i", str(folder / "key"), "127.0.0.1"])
    try:
        words = [*shlex.split(ssh)[:-1], "127.0.0.1"]
        until(lambda: subprocess.run(words, input=b"\n", capture_output=True).returncode != 255)
        broker.audit.unlink(missing_ok=True)
        yield ssh, folder / "key.pub"
    finally:
        server.terminate()
        server.wait(PATIENCE)


def test_a_job_asks_by_ssh(acme: Workspace, broker: Broker, sshd: tuple[str, Path]) -> None:
    ssh, public = sshd
    configure_asker(acme, ssh)
    acme.machine.git("clone", "-q", acme.url, "w")
    refused = acme.machine.get(acme.url.replace("widgets", "secrets"), *asking(acme, ssh), check=False)

    assert_quits(refused, "hands out no token")
    fingerprint = subprocess.run(["ssh-keygen", "-l", "-f", public], capture_output=True, text=True, check=True).stdout
    for line, outcome in zip(broker.lines(), ("granted", "refused"), strict=True):
        assert line["outcome"] == outcome
        assert line["asker"] == {"by": "ssh", "address": "127.0.0.1", "key": fingerprint.split()[1]}


def test_a_client_by_ssh_can_only_ask(acme: Workspace, sshd: tuple[str, Path]) -> None:
    ssh, _ = sshd
    with Proxy() as thief:
        variables = {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "http.proxy",
            "GIT_CONFIG_VALUE_0": f"http://{thief.address}",
            "BBJWT_TRACE": "1",
            "SSL_CERT_FILE": "/nonexistent",
        }
        send = " ".join(f"-o SendEnv={name}" for name in variables)
        commands = (f"cat {acme.installation}", f"{COMMAND} --installation={acme.installation} jwt acme", "sh")
        for command in commands:
            words = [*shlex.split(ssh.replace("ssh ", f"ssh {send} ", 1)), command]
            done = subprocess.run(
                words, input=request(acme.url) + "\n", capture_output=True, text=True, env=acme.machine.env(variables)
            )
            assert given(done)["username"] == "x-token-auth", "the one command ran, whatever the client requested"
            assert acme.app.shared_secret not in done.stdout + done.stderr

    assert thief.asked == []
    assert {frozenset(token.scopes) for token in acme.bitbucket.tokens.values()} == {frozenset({"repository"})}


def test_the_audit_of_a_certificate_has_its_key_its_id_and_its_authority(
    acme: Workspace, broker: Broker, sshd: tuple[str, Path]
) -> None:
    ssh, public = sshd
    folder = public.parent
    make = ["ssh-keygen", "-q", "-s", str(folder / "another"), "-I", "build 7", "-n", "root", "-z", "42"]
    subprocess.run([*make, public], check=True, capture_output=True)
    listed = folder / "authorized_keys"
    command = listed.read_text().partition(" ssh-ed25519 ")[0]
    listed.write_text(f"cert-authority,{command} {(folder / 'another.pub').read_text()}")
    assert "password" in answer(acme.get(*asking(acme, ssh)))

    def fingerprint(path: Path) -> str:
        shown = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True).stdout
        return shown.split()[1]

    assert broker.lines()[0]["asker"] == {
        "by": "ssh",
        "address": "127.0.0.1",
        "key": fingerprint(public),
        "key_id": "build 7",
        "serial": 42,
        "authority": fingerprint(folder / "another.pub"),
    }


POINT = bytes.fromhex(  # of the curve nistp256
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("sk-ssh-ed25519", [bytes(32), b"ssh:"]), ("sk-ecdsa-sha2-nistp256", [b"nistp256", POINT, b"ssh:"])],
)
def test_the_certificate_of_a_security_key_has_its_key(tmp_path: Path, kind: str, fields: list[bytes]) -> None:
    keygen = need("ssh-keygen")
    named = f"{kind}@openssh.com"
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in [named.encode(), *fields])
    (tmp_path / "key.pub").write_text(f"{named} {base64.b64encode(blob).decode()}\n")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "authority"], check=True)
    subprocess.run([keygen, "-q", "-s", "authority", "-I", "job", "-z", "7", "key.pub"], check=True, cwd=tmp_path)
    shown = subprocess.run([keygen, "-lf", tmp_path / "key.pub"], check=True, capture_output=True, text=True).stdout
    found = client.key_of(b"publickey " + (tmp_path / "key-cert.pub").read_bytes())

    assert (found["key"], found["key_id"], found["serial"]) == (shown.split()[1], "job", 7)


def test_file_of_another_user_does_not_name_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    told.write_text("publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==\n")
    told.chmod(0o600)
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 1 192.0.2.8 22")
    monkeypatch.setenv("SSH_USER_AUTH", str(told))
    assert "key" in client.identify_client()

    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert client.identify_client() == {"by": "ssh", "address": "192.0.2.7"}


def test_a_socket_unit_starts_a_broker_for_each_request(acme: Workspace, broker: Broker) -> None:
    program = need("systemd-socket-activate")
    place = broker.home / "s"
    listening = [program, "--accept", "--inetd", "--listen", str(place)]
    for name, value in broker.environment.items():
        listening.append(f"--setenv={name}={value}")
    with subprocess.Popen([*listening, *broker.command()], stderr=subprocess.DEVNULL, env=broker.environment) as unit:
        try:
            until(place.exists)
            where = f"unix:{place}"
            found = answer(acme.get(*asking(acme, where)))
            refused = acme.machine.get(acme.url.replace("widgets", "secrets"), *asking(acme, where), check=False)
        finally:
            unit.terminate()

    assert "password" in found
    assert_quits(refused, "hands out no token")
    for line in broker.lines():
        assert isinstance(line["asker"], dict)
        assert (line["asker"]["by"], line["asker"]["uid"]) == ("unix", os.getuid())
