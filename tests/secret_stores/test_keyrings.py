"""Other keyring backends, by keyring's own configuration: pass, an encrypted file, a chain, null and fail.

One behaviour for all that keep secrets: register, clone, unregister, and an error with a hint where they are locked or
absent. The backends are installed in an environment that install.sh made ``--with`` them.
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import desktop, tally
from tests.conftest import LATE, PATIENCE, Machine, Workspace, answer, need
from tests.installations.test_registration import files_holding, registry_of


@pytest.fixture
def scene(acme: Workspace, home_with_backends: Path) -> Workspace:
    """The usual scene, not registered, with the command that has the backends first on PATH."""
    environment = acme.machine.environment
    environment["PATH"] = f"{home_with_backends}/.local/bin:{environment['PATH']}"
    del environment["BBJWT_INSTALLATION"]
    return acme


def command(scene: Workspace) -> str:
    """The installed command."""
    return shutil.which("git-credential-bbjwt", path=scene.machine.environment["PATH"]) or ""


def register(scene: Workspace, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Register the usual installation."""
    return scene.machine.run(command(scene), "register", scene.installation, check=check)


def ask(scene: Workspace) -> subprocess.CompletedProcess[str]:
    """Ask for a token as git would, with a bound a prompt would break."""
    started = time.monotonic()
    data = f"protocol=https\nhost={scene.bitbucket.host}\npath=acme/widgets\n\n"
    done = scene.machine.run(command(scene), "--token-store=none", "--timeout=20", "get", data=data, check=False)
    assert time.monotonic() - started < 20 + LATE
    return done


@contextmanager
def with_pass(scene: Workspace) -> Iterator[Callable[[], object]]:
    """A password store whose key has a passphrase that gpg-agent knows; yields what makes the agent forget it."""
    need("pass")
    need("gpg")
    # A short path: gpg-agent's socket is in there.
    gnupg = Path("/tmp") / f"bbjwt-gpg-{os.getpid()}-{time.monotonic_ns()}"
    gnupg.mkdir(mode=0o700)
    # Few rounds over the passphrase: by default each use of the key takes the agent a tenth of a second.
    (gnupg / "gpg-agent.conf").write_text("allow-preset-passphrase\nallow-loopback-pinentry\ns2k-count 65536\n")
    machine = scene.machine
    machine.environment |= {
        "GNUPGHOME": str(gnupg),
        "PASSWORD_STORE_DIR": str(machine.home / ".password-store"),
        "PYTHON_KEYRING_BACKEND": "keyring_pass.PasswordStoreBackend",
    }
    phrase = ("--batch", "--pinentry-mode=loopback", "--passphrase", "open")
    # On a busy machine an agent may take longer to start than gpg waits for it.
    for _ in range(5):
        if machine.run("gpgconf", "--launch", "gpg-agent", check=False).returncode == 0:
            break
    machine.run("gpg", *phrase, "--quick-generate-key", "builder", "future-default", "default", "never")
    machine.run("pass", "init", "builder")
    # Decrypting once has the agent keep the passphrase.
    machine.run("sh", "-c", "echo x | gpg --batch -q -e -r builder >m && gpg " + " ".join(phrase) + " -q -d m")
    try:
        yield lambda: machine.run("gpgconf", "--kill", "gpg-agent")
    finally:
        machine.run("gpgconf", "--kill", "gpg-agent", check=False)
        shutil.rmtree(gnupg, ignore_errors=True)  # The agent may still be removing its sockets.


@contextmanager
def with_encrypted_file(scene: Workspace) -> Iterator[Callable[[], object]]:
    """A file encrypted with a password from the environment; yields what takes that away."""
    scene.machine.environment |= {
        "PYTHON_KEYRING_BACKEND": "keyrings.cryptfile.cryptfile.CryptFileKeyring",
        "KEYRING_PROPERTY_KEYRING_KEY": "open",
    }
    yield lambda: scene.machine.environment.pop("KEYRING_PROPERTY_KEYRING_KEY")


@contextmanager
def with_secret_service(scene: Workspace) -> Iterator[Callable[[], object]]:
    """gnome-keyring, named by keyring's own configuration file; yields what locks it."""
    configuration = scene.machine.home / ".config/python_keyring/keyringrc.cfg"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("[backend]\ndefault-keyring=keyring.backends.SecretService.Keyring\n")
    with desktop.session(scene.machine):
        yield lambda: desktop.lock(scene.machine)


@contextmanager
def with_chain(scene: Workspace) -> Iterator[Callable[[], object]]:
    """All backends in a row, the Secret Service first; yields what locks the one that is open."""
    scene.machine.environment["PYTHON_KEYRING_BACKEND"] = "keyring.backends.chainer.ChainerBackend"
    with desktop.session(scene.machine):
        yield lambda: desktop.lock(scene.machine)


BACKENDS = {
    "pass": with_pass,
    "encrypted file": with_encrypted_file,
    "Secret Service": with_secret_service,
    "chain": with_chain,
}


@pytest.mark.parametrize("name", BACKENDS)
def test_register_clone_locked_unregister(
    scene: Workspace, name: str, record_property: Callable[[str, object], None]
) -> None:
    record_property(*tally.worked_with("keyrings:", name))
    with BACKENDS[name](scene) as lock:
        register(scene)
        assert files_holding(scene.machine.home, scene.app.shared_secret) == [scene.installation]
        scene.machine.git("clone", "-q", scene.url, "w")
        assert scene.bitbucket.mints() == 1

        environment = dict(scene.machine.environment)
        lock()
        done = ask(scene)
        assert (done.stdout, done.returncode) == ("quit=1\n", 1)
        assert "the keyring is locked" in done.stderr
        assert "hint: " in done.stderr
        if name in ("pass", "encrypted file"):
            scene.machine.environment |= environment
            phrase = "gpg --batch --pinentry-mode=loopback --passphrase open -q -d m"
            scene.machine.run("sh", "-c", f"! test -e m || {phrase}")
            assert "no shared secret" in said_after_unregister(scene)
        assert (not registry_of(scene.machine).exists()) == (name in ("pass", "encrypted file"))


def said_after_unregister(scene: Workspace) -> str:
    """Unregister, and put the registry's entry back by hand; what the helper says then of the secret."""
    kept = shutil.copytree(registry_of(scene.machine), scene.machine.home / "kept")
    scene.machine.run(command(scene), "unregister", "acme")
    assert not registry_of(scene.machine).exists()
    shutil.copytree(kept, registry_of(scene.machine))
    said = ask(scene).stderr
    shutil.rmtree(registry_of(scene.machine))
    return said


@pytest.mark.parametrize("backend", ["keyring.backends.null.Keyring", "keyring.backends.fail.Keyring"])
def test_backends_that_keep_nothing(
    scene: Workspace, backend: str, record_property: Callable[[str, object], None]
) -> None:
    record_property(*tally.worked_with("keyrings, refused with the choices:", backend.split(".")[2]))
    scene.machine.environment["PYTHON_KEYRING_BACKEND"] = backend
    done = register(scene, check=False)

    assert done.returncode == 1
    assert "--insecure-storage" in done.stderr
    assert not registry_of(scene.machine).exists()


def test_pass_before_its_store_is_made_is_named_with_the_command_that_makes_it(scene: Workspace) -> None:
    need("pass")
    scene.machine.environment |= {
        "PYTHON_KEYRING_BACKEND": "keyring_pass.PasswordStoreBackend",
        "PASSWORD_STORE_DIR": str(scene.machine.home / "store"),
    }
    done = register(scene, check=False)

    assert done.returncode == 1
    assert "pass has no password store" in done.stderr
    assert "pass init" in done.stderr


def test_secret_that_several_backends_of_a_chain_hold_is_deleted_in_each(scene: Workspace) -> None:
    file = "keyrings.cryptfile.cryptfile.CryptFileKeyring"
    with with_secret_service(scene):
        scene.machine.environment["KEYRING_PROPERTY_KEYRING_KEY"] = "open"
        scene.machine.environment["PYTHON_KEYRING_BACKEND"] = file
        register(scene)
        copy = shutil.copytree(registry_of(scene.machine), scene.machine.home / "kept")
        scene.machine.environment["PYTHON_KEYRING_BACKEND"] = "keyring.backends.chainer.ChainerBackend"
        register(scene)
        assert "SecretService" in entry_text(scene)
        scene.machine.run(command(scene), "unregister", "acme")
        scene.machine.environment["PYTHON_KEYRING_BACKEND"] = file
        shutil.copytree(copy, registry_of(scene.machine))
        assert "has no shared secret" in ask(scene).stderr


def test_secret_that_moves_to_another_backend_is_removed_from_the_first(scene: Workspace) -> None:
    with with_secret_service(scene):
        register(scene)
        scene.machine.environment["KEYRING_PROPERTY_KEYRING_KEY"] = "open"
        scene.machine.environment["PYTHON_KEYRING_BACKEND"] = "keyrings.cryptfile.cryptfile.CryptFileKeyring"
        register(scene)
        assert "cryptfile" in entry_text(scene)
        assert "password" in answer(ask(scene))
        found = scene.machine.run("secret-tool", "search", "--all", "service", "git-credential-bbjwt", check=False)
        assert scene.app.shared_secret not in found.stdout


def entry_text(scene: Workspace) -> str:
    """The registry's entry of the installation."""
    return "".join(path.read_text() for path in registry_of(scene.machine).rglob("*") if path.is_file())


def test_a_plain_file_backend_is_not_fallen_back_to(scene: Workspace) -> None:
    # No Secret Service, no pass: of the backends installed here only plain and encrypted files are left.
    done = register(scene, check=False)
    assert done.returncode == 1
    assert files_holding(scene.machine.home, scene.app.shared_secret) == [scene.installation]

    scene.machine.environment["PYTHON_KEYRING_BACKEND"] = "keyrings.alt.file.PlaintextKeyring"
    register(scene)
    assert "password" in answer(ask(scene))


def test_a_backend_that_asks_on_the_terminal_asks_a_person_and_nobody_else(scene: Workspace) -> None:
    scene.machine.environment["PYTHON_KEYRING_BACKEND"] = "keyrings.alt.file.EncryptedKeyring"
    at_a_terminal(scene.machine, [command(scene), "register", str(scene.installation)], "open")
    assert registry_of(scene.machine).exists()
    done = ask(scene)

    assert done.stdout == "quit=1\n"
    assert "the keyring is locked" in done.stderr


def at_a_terminal(machine: Machine, arguments: list[str], typed: str) -> None:
    """Run a command at a terminal where ``typed`` answers whatever asks for a password."""
    terminal, keyboard = pty.openpty()
    running = subprocess.Popen(
        arguments,
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
        env=machine.env(),
        start_new_session=True,
        # The first terminal that a session's leader opens is its controlling one.
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )
    os.close(keyboard)
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
        if b"assword" in piece and piece.rstrip().endswith(b":"):
            os.write(terminal, typed.encode() + b"\n")
    os.close(terminal)
    assert running.wait(PATIENCE) == 0, shown.decode()
