"""Several Secret Services, and the choice among keyring backends: tested with the real gnome-keyring, and with
a small service that plays KeePassXC and KDE's wallet (`tests.secret_stores.service`).
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import desktop
from tests.conftest import COMMAND, PATIENCE, Workspace, answer, entries_of, registry_of

SECRET_SERVICE = "keyring.backends.SecretService.Keyring"
NULL = "keyring.backends.null.Keyring"


@pytest.fixture
def scene(acme: Workspace) -> Workspace:
    """The usual scene, on a machine without a registered installation."""
    del acme.machine.environment["BBJWT_INSTALLATION"]
    return acme


@contextmanager
def played(scene: Workspace, kind: str) -> Iterator[Path]:
    """Provide a session with the small service; yield the path of its record."""
    record = scene.machine.home.parent / "record"
    with desktop.service(scene.machine, kind, record):
        yield record


# KeePassXC


def test_item_that_is_locked_is_an_error_without_a_window_for_register_and_get(scene: Workspace) -> None:
    with played(scene, "keepassxc") as record:
        done = scene.machine.bbjwt("register", scene.installation, check=False)
        assert done.returncode == 1
        assert "Confirm when passwords are retrieved" in done.stderr
        assert not registry_of(scene.machine).exists()
        assert record.read_text() == "ready\nstored\n"
        again = scene.machine.bbjwt("register", scene.installation, check=False)
        assert "Confirm when passwords are retrieved" in again.stderr
        assert "window" not in record.read_text()


def test_items_that_are_locked_later_open_no_window(scene: Workspace) -> None:
    with played(scene, "keepassxc-trusting"):
        scene.machine.bbjwt("register", scene.installation)
    scene.machine.environment["BBJWT_TRACE"] = "1"
    with played(scene, "keepassxc") as record:
        # The same entry, made by another client than the helper's next process.
        scene.machine.bbjwt("register", scene.installation, check=False)
        for _ in range(3):
            done = scene.get("--token-store=none", check=False)
            assert done.stdout == "quit=1\n"
            assert "Secret Service Integration" in done.stderr
        gone = scene.machine.bbjwt("unregister", "acme", check=False)
        assert gone.returncode == 1
        assert registry_of(scene.machine).exists()
        assert "window" not in record.read_text()


def test_register_get_and_unregister_with_a_trusting_keepassxc(scene: Workspace) -> None:
    with played(scene, "keepassxc-trusting") as record:
        scene.machine.bbjwt("register", scene.installation)
        assert "password" in answer(scene.get("--token-store=none"))
        scene.machine.bbjwt("register", scene.installation)
        assert "password" in answer(scene.get("--token-store=none"))
        assert record.read_text() == "ready\nstored\nstored\n"


# KDE's wallet


def test_open_wallet_that_the_secret_service_reports_as_locked_is_asked(scene: Workspace) -> None:
    with played(scene, "kwalletd5") as record:
        assert "✓" in keyring_line(scene)
        scene.machine.bbjwt("register", scene.installation)
        assert "password" in answer(scene.get("--token-store=none"))
        assert "window" not in record.read_text()


def test_closed_wallet_is_an_error_without_a_window(scene: Workspace) -> None:
    with played(scene, "kwalletd5-closed") as record:
        assert "locked" in keyring_line(scene)
        done = scene.machine.bbjwt("register", scene.installation, check=False)
        assert done.returncode == 1
        assert "the keyring is locked" in done.stderr
        assert "window" not in record.read_text()


def keyring_line(scene: Workspace) -> str:
    """Return the doctor's line about the keyring."""
    lines = scene.machine.bbjwt("doctor", check=False).stdout.splitlines()
    return next(line for line in lines if "keyring" in line)


def test_error_for_a_lost_secret_names_the_wallet(scene: Workspace) -> None:
    with played(scene, "forgetful"):
        done = scene.machine.bbjwt("register", scene.installation, check=False)

    assert done.returncode == 1
    assert "the wallet has lost it" in done.stderr


# The backend that stored the secret


@pytest.mark.parametrize("how", ["variable", "file"])
@pytest.mark.parametrize("backend", [NULL, "keyring.backends.fail.Keyring", "no.such.Backend"])
def test_backend_that_stored_the_secret_is_asked_whatever_another_program_configured(
    scene: Workspace, how: str, backend: str
) -> None:
    with desktop.session(scene.machine):
        scene.machine.bbjwt("register", scene.installation)
        assert json.loads(entries_of(scene.machine)[0].read_text())["keyringBackend"] == SECRET_SERVICE
        chosen_by = configure(scene, how, backend)
        assert "password" in answer(scene.get("--token-store=none"))
        line = keyring_line(scene)
        assert "✓" in line
        assert SECRET_SERVICE in line
    # Now the first backend cannot be used. The error names both, and what configures the second.
    done = scene.get("--token-store=none", check=False)

    assert done.stdout == "quit=1\n"
    for word in (SECRET_SERVICE, backend, chosen_by):
        assert word in done.stderr


def configure(scene: Workspace, how: str, backend: str) -> str:
    """Configure a keyring backend as for another program; return the variable or file."""
    if how == "variable":
        scene.machine.environment["PYTHON_KEYRING_BACKEND"] = backend
        return "PYTHON_KEYRING_BACKEND"
    file = scene.machine.home / ".config/python_keyring/keyringrc.cfg"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"[backend]\ndefault-keyring={backend}\n")
    return str(file)


def test_backend_that_cannot_be_reached_is_named_if_no_other_is_configured(scene: Workspace) -> None:
    with desktop.session(scene.machine):
        scene.machine.bbjwt("register", scene.installation)
    for address in (None, "unix:path=/nonexistent", "garbage"):
        done = scene.get(check=False, DBUS_SESSION_BUS_ADDRESS=address)

        assert done.stdout == "quit=1\n"
        assert f"the keyring backend {SECRET_SERVICE} cannot be used: " in done.stderr
        assert "[redacted]" not in done.stderr
        assert "fail.Keyring" not in done.stderr
        assert "hint: without a keyring, inject the installation" in done.stderr


def test_error_for_a_missing_secret_names_the_backend(scene: Workspace) -> None:
    with desktop.session(scene.machine):
        scene.machine.bbjwt("register", scene.installation)
        scene.machine.run("secret-tool", "clear", "service", "git-credential-bbjwt")
        done = scene.get(check=False)

    assert f"the keyring backend {SECRET_SERVICE} has no shared secret" in done.stderr


def test_unregister_keeps_the_entry_if_the_keyring_cannot_be_reached(scene: Workspace) -> None:
    with desktop.session(scene.machine):
        scene.machine.bbjwt("register", scene.installation)
    done = scene.machine.bbjwt("unregister", "acme", check=False)

    assert done.returncode == 1
    assert SECRET_SERVICE in done.stderr
    assert registry_of(scene.machine).exists()


def test_locked_keyring_is_an_error_for_register_and_unregister(scene: Workspace) -> None:
    with desktop.session(scene.machine):
        scene.machine.bbjwt("register", scene.installation)
        desktop.lock(scene.machine)
        for command in (("register", str(scene.installation)), ("unregister", "acme")):
            done = scene.machine.bbjwt(*command, check=False)
            assert done.returncode == 1
            assert "the keyring is locked" in done.stderr
        assert registry_of(scene.machine).exists()


@pytest.mark.parametrize("kind", ["keepassxc", "kwalletd5-closed"])
def test_no_window_is_opened_at_a_terminal_either(scene: Workspace, kind: str) -> None:
    with played(scene, kind) as record:
        terminal, keyboard = pty.openpty()
        done = subprocess.run(
            [COMMAND, "register", scene.installation],
            stdin=keyboard,
            capture_output=True,
            env=scene.machine.env(),
            timeout=PATIENCE,
            check=False,
        )
        os.close(keyboard)
        os.close(terminal)
        assert done.returncode == 1
        assert b"locked" in done.stderr
        assert "window" not in record.read_text()


def test_keyrings_code_is_not_loaded_from_the_current_folder(scene: Workspace) -> None:
    file = scene.machine.home / ".config/python_keyring/keyringrc.cfg"
    file.parent.mkdir(parents=True)
    file.write_text("[backend]\ndefault-keyring=evil.Keyring\nkeyring-path=.\n")
    (scene.machine.home / "evil.py").write_text("open('ran', 'w')\n")
    with desktop.session(scene.machine):
        scene.machine.bbjwt("register", scene.installation, check=False)

    assert not (scene.machine.home / "ran").exists()


def test_bus_in_the_runtime_folder_is_used_without_the_variable(scene: Workspace) -> None:
    address = f"--address=unix:path={scene.machine.runtime}/bus"
    with desktop.session(scene.machine, address):
        del scene.machine.environment["DBUS_SESSION_BUS_ADDRESS"]
        scene.machine.bbjwt("register", scene.installation)
        assert "password" in answer(scene.get("--token-store=none", DBUS_SESSION_BUS_ADDRESS=""))


def test_keyring_that_vanishes_in_the_middle_is_an_error(scene: Workspace) -> None:
    with played(scene, "vanishing"):
        done = scene.machine.bbjwt("register", scene.installation, check=False)

    assert done.returncode == 1
    assert "the keyring backend keyring.backends.SecretService.Keyring" in done.stderr
    assert "hint: " in done.stderr
    assert "did not answer" not in done.stderr
