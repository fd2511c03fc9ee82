"""register, list, unregister: the secret in a real keyring, the rest in the registry."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from git_credential_bbjwt.commands.registration.payload_input import split_payloads
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.installations.payload import parse_payload
from tests import desktop
from tests.conftest import (
    COMMAND,
    Machine,
    Workspace,
    answer,
    assert_quits,
    cannot,
    entries_of,
    files_holding,
    finish,
    need,
    registry_of,
    start,
)
from tests.emulator import Fault

SPOKEN = "git-credential-bbjwt: "


@pytest.fixture
def desk(unregistered: Workspace) -> Iterator[Workspace]:
    """The same on a desktop with an open keyring."""
    with desktop.session(unregistered.machine):
        yield unregistered


def test_register_clone_unregister_with_a_real_keyring(desk: Workspace) -> None:
    desk.machine.bbjwt("register", desk.installation)
    desk.installation.unlink()
    desk.machine.git("clone", "-q", desk.url, "w")

    assert files_holding(desk.machine.home.parent, desk.app.shared_secret) == []
    assert stat.S_IMODE(registry_of(desk.machine).stat().st_mode) == 0o700
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in registry_of(desk.machine).rglob("*")}
    assert modes == {(True, 0o700), (False, 0o600)}
    assert len(desk.bitbucket.helper_requests()) == 2

    desk.machine.bbjwt("unregister", "acme")
    assert not registry_of(desk.machine).exists()
    assert desk.machine.records() == []
    done = desk.get()
    assert (done.stdout, done.stderr) == ("", "")


def test_list_shows_where_the_secret_is_and_never_the_secret(desk: Workspace) -> None:
    desk.machine.bbjwt("register", desk.installation)
    plain, listed = desk.machine.bbjwt("list").stdout, desk.machine.bbjwt("list", "--json").stdout

    (one,) = json.loads(listed)
    assert (one["workspaces"], one["app"], one["base_url"], one["secret"]) == (
        ["acme"],
        desk.app.key,
        desk.bitbucket.base_url,
        "keyring",
    )
    assert plain == f"acme\t{desk.app.key}\t{desk.bitbucket.base_url}\tsecret in the keyring\n"
    assert desk.app.shared_secret not in plain + listed


def test_list_shows_injected_installations_first(unregistered: Workspace) -> None:
    machine = unregistered.machine
    machine.bbjwt("register", "--insecure-storage", unregistered.installation)
    machine.environment["BBJWT_INSTALLATION"] = str(unregistered.installation)
    plain, listed = machine.bbjwt("list").stdout, json.loads(machine.bbjwt("list", "--json").stdout)

    assert [(one["secret"], one["registry"]) for one in listed] == [("payload", None), ("file", "user")]
    assert plain.splitlines()[0].endswith(f"\tsecret in the payload, {unregistered.installation}")
    assert unregistered.app.shared_secret not in plain
    broken = machine.bbjwt("list", check=False, BBJWT_INSTALLATION="{")
    assert (broken.returncode, broken.stdout.count("\n")) == (1, 1)
    assert "BBJWT_INSTALLATION" in broken.stderr


def test_registering_again_replaces_the_secret_and_forgets_tokens(desk: Workspace) -> None:
    desk.machine.bbjwt("register", desk.installation)
    old = answer(desk.get())["password"]
    desk.app.shared_secret = "a-new-secret-for-the-same-client-key"
    desk.write_installation()
    desk.machine.bbjwt("register", desk.installation)

    assert len(json.loads(desk.machine.bbjwt("list", "--json").stdout)) == 1
    assert answer(desk.get())["password"] != old


def test_an_app_installed_anew_has_another_client_key_and_replaces_the_old_one(desk: Workspace) -> None:
    desk.machine.bbjwt("register", desk.installation)
    old_secret = desk.app.shared_secret
    desk.app = desk.bitbucket.install("acme")
    desk.write_installation()
    desk.machine.bbjwt("register", desk.installation)

    (one,) = json.loads(desk.machine.bbjwt("list", "--json").stdout)
    assert one["client_key"] == desk.app.client_key
    assert (
        old_secret not in desk.machine.run("secret-tool", "search", "--all", "service", "git-credential-bbjwt").stdout
    )


@pytest.mark.parametrize("backend", ["", "no.such.Backend", "keyring.backends.null.Keyring", "os.system"])
def test_the_backend_in_the_registry_is_only_the_first_place_to_look(desk: Workspace, backend: str) -> None:
    desk.machine.bbjwt("register", desk.installation)
    (registry,) = entries_of(desk.machine)
    known = '"keyringBackend": "keyring.backends.SecretService.Keyring"'
    assert known in registry.read_text()
    registry.write_text(registry.read_text().replace(known, f'"keyringBackend": "{backend}"'))

    assert "password" in answer(desk.get())


def test_locked_keyring_is_an_error_and_no_prompt(desk: Workspace) -> None:
    desk.machine.bbjwt("register", desk.installation)
    desktop.lock(desk.machine)
    done = desk.get(check=False)

    assert done.stdout == "quit=1\n"
    assert "locked" in done.stderr
    assert "hint: unlock it" in done.stderr


@contextmanager
def silent_bus(machine: Machine) -> Iterator[socket.socket]:
    """From now on, give ``machine`` a D-Bus session that never answers."""
    name = f"bbjwt-silent-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(f"\0{name}")
        bus.listen()
        machine.environment["DBUS_SESSION_BUS_ADDRESS"] = f"unix:abstract={name}"
        yield bus


def test_a_keyring_that_hangs_ends_with_the_call(desk: Workspace) -> None:
    desk.machine.bbjwt("register", desk.installation)
    with silent_bus(desk.machine) as bus:
        done = desk.get("--token-store=none", "--timeout=2", check=False)
        asking, _ = bus.accept()
        with asking:
            asking.settimeout(20)  # Otherwise the process ends after 60 s.
            while asking.recv(4096):
                pass  # Read the request, up to the end of the process.

    assert_quits(done, "gave up after 2 s")


def test_the_keyrings_process_is_alone(desk: Workspace) -> None:
    """A fork of its parent would keep the parent's lock and output open."""
    desk.machine.bbjwt("register", desk.installation)
    with silent_bus(desk.machine) as bus:
        asking = start(desk.machine, desk.url)
        connection, _ = bus.accept()
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _, _ = struct.unpack("3i", credentials)
        held = {fd.name: os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
        session = os.getsid(pid)
        asking.kill()
        connection.close()
        finish(asking)

    assert pid != asking.pid
    assert session == pid
    assert [path for path in held.values() if not path.startswith(("pipe:", "socket:", "/dev/null"))] == []
    assert len(held) == 5  # Standard input, output, error, the reply's descriptor and the connection.


def test_a_keyring_without_a_default_collection_is_an_error_and_no_prompt(unregistered: Workspace) -> None:
    with desktop.session(unregistered.machine, unlocked=False):
        done = unregistered.machine.bbjwt("register", unregistered.installation, check=False)

    assert done.returncode == 1
    assert "hint: " in done.stderr
    assert not registry_of(unregistered.machine).exists()


def test_no_keyring_names_the_choices_and_registers_nothing(unregistered: Workspace) -> None:
    done = unregistered.machine.bbjwt("register", unregistered.installation, check=False)

    assert done.returncode == 1
    for choice in ("BBJWT_INSTALLATION", "backend", "--insecure-storage"):
        assert choice in done.stderr
    assert files_holding(unregistered.machine.home / ".config", unregistered.app.shared_secret) == []
    assert unregistered.machine.bbjwt("list").stdout == ""


def test_the_null_backend_is_noticed_at_registration(unregistered: Workspace) -> None:
    done = unregistered.machine.bbjwt(
        "register", unregistered.installation, check=False, PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring"
    )

    assert done.returncode == 1
    assert "stores nothing" in done.stderr
    assert "PYTHON_KEYRING_BACKEND" in done.stderr


def test_insecure_storage_is_a_file_nobody_else_can_read(unregistered: Workspace) -> None:
    machine = unregistered.machine
    machine.bbjwt("register", "--insecure-storage", unregistered.installation)
    unregistered.installation.unlink()
    (secret,) = files_holding(machine.home, unregistered.app.shared_secret)

    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700
    assert "password" in answer(unregistered.get())

    machine.bbjwt("forget", "--all")
    secret.chmod(0o644)
    refused = unregistered.get(check=False)
    assert refused.stdout == "quit=1\n"
    assert "others can read" in refused.stderr

    secret.chmod(0o600)
    machine.bbjwt("unregister", "acme")
    assert not secret.exists()


def test_moving_from_file_to_keyring_removes_the_file(desk: Workspace) -> None:
    desk.machine.bbjwt("register", "--insecure-storage", desk.installation)
    desk.machine.bbjwt("register", desk.installation)
    desk.installation.unlink()

    assert files_holding(desk.machine.home.parent, desk.app.shared_secret) == []
    assert "password" in answer(desk.get())


@pytest.mark.parametrize("wrapped", [False, True])
def test_payload_from_standard_input(unregistered: Workspace, wrapped: bool) -> None:
    payload: dict[str, Any] = unregistered.bitbucket.payload(unregistered.app)
    data = json.dumps({"clientInfo": payload} if wrapped else payload)
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=data)

    assert "password" in answer(unregistered.get())


def test_payload_without_a_slug_needs_workspace(unregistered: Workspace) -> None:
    unregistered.write_installation(principal={"type": "user", "uuid": unregistered.app.workspace_uuid})
    machine = unregistered.machine
    unregistered.bitbucket.misbehave("api", Fault(status=404, body=b"no"))
    refused = machine.bbjwt("register", "--insecure-storage", unregistered.installation, check=False)
    assert refused.returncode == 1
    assert "--workspace" in refused.stderr

    machine.bbjwt("register", "--insecure-storage", unregistered.installation, "--workspace", "Acme")
    assert "password" in answer(unregistered.get())
    # The option is needed only once.
    machine.bbjwt("register", "--insecure-storage", unregistered.installation)
    assert json.loads(machine.bbjwt("list", "--json").stdout)[0]["workspaces"] == ["acme"]


def test_slug_from_the_principals_page(unregistered: Workspace) -> None:
    page = {"html": {"href": f"{unregistered.bitbucket.base_url}/acme/"}}
    unregistered.write_installation(principal={"type": "user", "uuid": "{x}", "links": page})
    unregistered.machine.bbjwt("register", "--insecure-storage", unregistered.installation)

    assert "password" in answer(unregistered.get())


BROKEN_PAYLOADS: dict[str, object] = {
    "no JSON": "{",
    "no object": [1],
    "deep": "[" * 100_000,
    "deep, in lines": '{"a":1}\n' + '{"a":' * 100_000,
    "deep, in the first line": "[" * 100_000 + "\n{}",
    "deep array of objects": '[{"a":' + "[" * 100_000,
    "deep value": '{"key": ' + "[" * 2_000 + "]" * 2_000 + "}",
    "deep values in an array": "[" * 900 + "{}" + "]" * 900,
    "another product": {"productType": "jira"},
    "another event": {"eventType": "uninstalled"},
    "no key": {"key": ""},
    "no client key": {"clientKey": None},
    "no secret": {"sharedSecret": ""},
    "secret is a number": {"sharedSecret": 5},
    "control characters": {"key": "a\nb"},
    "http": {"baseUrl": "http://bitbucket.org"},
    "user in the URL": {"baseUrl": "https://a@bitbucket.org"},
    "path in the URL": {"baseUrl": "https://bitbucket.org/x"},
    "query in the URL": {"baseApiUrl": "https://api.bitbucket.org?x"},
    "port is not a number": {"baseUrl": "https://bitbucket.org:x"},
    "look-alike": {"baseUrl": "https://bitbucкet.org"},
    "no API": {"baseApiUrl": ""},
}


def broken_payload(scene: Workspace, name: str) -> str:
    """The text of a broken payload of acme's."""
    broken, payload = BROKEN_PAYLOADS[name], scene.bitbucket.payload(scene.app)
    return broken if isinstance(broken, str) else json.dumps(payload | broken if isinstance(broken, dict) else broken)


#: Payloads that only `register` refuses, because BBJWT_JWT can complete them.
INCOMPLETE = ("no key", "no secret")


@pytest.mark.parametrize("name", [name for name in BROKEN_PAYLOADS if name not in INCOMPLETE])
def test_broken_payload_is_an_error_without_the_secret(acme: Workspace, name: str) -> None:
    payloads = split_payloads(broken_payload(acme, name).encode())
    with pytest.raises(CredentialError) as raised:
        list(map(parse_payload, payloads, "h" * len(payloads)))
    assert acme.app.shared_secret not in raised.value.what + raised.value.hint


@pytest.mark.parametrize("name", [*INCOMPLETE, "no JSON", "deep, in lines", "deep array of objects", "http"])
def test_a_broken_payload_is_one_error_and_registers_nothing(unregistered: Workspace, name: str) -> None:
    text = broken_payload(unregistered, name)
    done = unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=text, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith(f"{SPOKEN}error: ")
    assert done.stderr.count("\n") <= (4 if name == "deep, in lines" else 2)
    assert unregistered.app.shared_secret not in done.stderr
    assert not registry_of(unregistered.machine).exists()


def test_register_without_a_file_names_file_and_dash(machine: Machine) -> None:
    done = machine.bbjwt("register", check=False)

    assert done.returncode == 2
    assert "FILE" in done.stderr
    assert "FILE|-" in done.stderr


def test_registering_can_try_a_mint(unregistered: Workspace) -> None:
    register = ("register", "--insecure-storage", unregistered.installation, "--repository")
    done = unregistered.machine.bbjwt(*register, unregistered.url)
    assert "all is well" in done.stderr
    refused = unregistered.machine.bbjwt(*register, unregistered.url.replace("widgets", "nothing-here"), check=False)
    assert refused.returncode == 1
    assert "404" in refused.stderr


def test_two_apps_on_one_workspace_need_a_choice(unregistered: Workspace) -> None:
    machine = unregistered.machine
    second = unregistered.bitbucket.install("acme", key="acme-deploys", scopes="repository:write")
    machine.bbjwt("register", "--insecure-storage", unregistered.installation)
    machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(unregistered.bitbucket.payload(second)))

    undecided = unregistered.get(check=False)
    assert undecided.stdout == "quit=1\n"
    assert "choose one by --app KEY" in undecided.stderr
    unregistered.get("--app", "acme-deploys")
    assert unregistered.bitbucket.helper_requests()[-1].claims["iss"] == "acme-deploys"
    assert machine.bbjwt("unregister", "acme", check=False).returncode == 1
    machine.bbjwt("unregister", "acme", "--app", "acme-deploys")
    assert "password" in answer(unregistered.get())


def test_one_app_on_two_workspaces(unregistered: Workspace) -> None:
    second = unregistered.bitbucket.install("beta")
    tools = unregistered.bitbucket.host_repository("beta/tools")
    for app in (unregistered.app, second):
        data = json.dumps(unregistered.bitbucket.payload(app))
        unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=data)

    unregistered.get()
    unregistered.machine.get(unregistered.bitbucket.url(tools))
    subjects = [seen.claims["sub"] for seen in unregistered.bitbucket.helper_requests()]
    assert subjects == [unregistered.app.client_key] * 2 + [second.client_key] * 2


def test_system_registry_is_read_after_the_users(unregistered: Workspace) -> None:
    machine = unregistered.machine
    machine.bbjwt("register", "--system", "--insecure-storage", unregistered.installation)
    registry = Path(machine.environment["XDG_CONFIG_DIRS"]) / "git-credential-bbjwt/installations"

    assert stat.S_IMODE(registry.stat().st_mode) == 0o755
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in registry.rglob("*")}
    assert modes == {(True, 0o755), (False, 0o644)}
    assert json.loads(machine.bbjwt("list", "--json").stdout)[0]["registry"] == "system"
    assert "password" in answer(unregistered.get())
    machine.bbjwt("unregister", "--system", "acme")
    assert unregistered.get().stdout == ""


@pytest.mark.parametrize("umask", [0o077, 0o777, 0])
def test_system_registry_is_readable_for_everybody_whatever_the_umask(unregistered: Workspace, umask: int) -> None:
    machine = unregistered.machine
    before = os.umask(umask)
    try:
        machine.bbjwt("register", "--system", "--insecure-storage", unregistered.installation)
    finally:
        os.umask(before)
    registry = Path(machine.environment["XDG_CONFIG_DIRS"]) / "git-credential-bbjwt/installations"
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (registry, *registry.rglob("*"))}

    assert modes == {(True, 0o755), (False, 0o644)}
    secrets = registry.parent / "shared-secrets"
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o600}
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700


def test_unregistering_an_unknown_workspace_is_an_error(machine: Machine) -> None:
    done = machine.bbjwt("unregister", "acme", check=False)

    assert done.returncode == 1
    assert "git-credential-bbjwt list" in done.stderr


def test_many_registrations_at_once_lose_none(unregistered: Workspace) -> None:
    payloads = [unregistered.bitbucket.payload(unregistered.bitbucket.install(f"team{n}")) for n in range(6)]
    running = [
        subprocess.Popen(
            [COMMAND, "register", "--insecure-storage", "-"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=unregistered.machine.env(),
        )
        for _ in payloads
    ]
    for process, payload in zip(running, payloads, strict=True):
        process.communicate(json.dumps(payload).encode())

    assert len(json.loads(unregistered.machine.bbjwt("list", "--json").stdout)) == 6


def test_kills_while_registering_lose_none(unregistered: Workspace) -> None:
    machine, bitbucket = unregistered.machine, unregistered.bitbucket
    chance = random.Random(7)  # noqa: S311  # moments, not keys
    machine.bbjwt("register", "--insecure-storage", unregistered.installation)
    for number in range(4):
        payload = bitbucket.payload(bitbucket.install(f"team{number}"))
        with subprocess.Popen(
            [COMMAND, "register", "--insecure-storage", "-"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=machine.env(),
        ) as process:
            assert process.stdin is not None
            process.stdin.write(json.dumps(payload).encode())
            process.stdin.close()
            time.sleep(chance.uniform(0.05, 0.3))
            process.kill()
        known = json.loads(machine.bbjwt("list", "--json").stdout)
        assert ["acme"] in [one["workspaces"] for one in known]
        assert "password" in answer(unregistered.get("--token-store=none"))


def test_secret_does_not_stay_if_its_entry_cannot_be_written(unregistered: Workspace) -> None:
    registry = registry_of(unregistered.machine)
    registry.mkdir(parents=True, mode=0o700)
    registry.parent.chmod(0o700)
    (registry / unregistered.bitbucket.host.replace(":", "=")).write_text("in the way")
    register = ("register", "--insecure-storage", unregistered.installation)
    done = unregistered.machine.bbjwt(*register, check=False)

    assert done.returncode == 1
    assert str(registry) in done.stderr
    assert files_holding(unregistered.machine.home / ".config", unregistered.app.shared_secret) == []


def test_foreign_files_in_the_registry_are_ignored(unregistered: Workspace) -> None:
    registry = registry_of(unregistered.machine)
    registry.mkdir(parents=True, mode=0o700)
    registry.parent.chmod(0o700)
    for name in ("notes", "README.md", ".directory", "a-folder"):
        (registry / name).mkdir() if name == "a-folder" else (registry / name).write_text("by a person")
    (registry / "a-folder").chmod(0o700)
    unregistered.machine.bbjwt("register", "--insecure-storage", unregistered.installation)

    assert "password" in answer(unregistered.get())
    assert len(json.loads(unregistered.machine.bbjwt("list", "--json").stdout)) == 1
    unregistered.machine.bbjwt("unregister", "--all")
    assert (registry / "notes").read_text() == "by a person"


def test_full_disk_says_so(unregistered: Workspace, tmp_path: Path) -> None:
    unshare = need("unshare")
    small = tmp_path / "small"
    small.mkdir()
    register = f"mount -t tmpfs -o size=64k,nr_inodes=6,mode=700 small {small} && cd / && "
    register += f"exec {COMMAND} register --insecure-storage {unregistered.installation}"
    unregistered.machine.environment["XDG_CONFIG_HOME"] = str(small)
    words = (unshare, "--user", "--map-root-user", "--mount", "sh", "-c", register)
    done = unregistered.machine.run(*words, check=False)
    if "permitted" in done.stderr or "denied" in done.stderr:
        cannot("nothing can be mounted here")

    assert done.returncode == 1
    assert os.strerror(errno.ENOSPC) in done.stderr
    assert unregistered.app.shared_secret not in done.stderr
