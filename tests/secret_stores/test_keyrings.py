"""Other keyring backends, by keyring's own configuration: pass, an encrypted file, a chain, null and fail.

All backends that store secrets behave alike: register, clone, unregister, and an error with a hint if they are locked
or missing. The backends are in an environment that install.sh made ``--with`` them.
"""

from __future__ import annotations

import json
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
from tests.conftest import PATIENCE, Machine, Workspace, answer, ends_within, files_holding, need, registry_of
from tests.installations.test_unregister import with_keyring

__all__ = ["with_keyring"]  # a fixture


@pytest.fixture
def scene(acme: Workspace, home_with_backends: Path) -> Workspace:
    """The usual scene without a registration. The command that has the backends is first on PATH."""
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
    """Ask for a token as git does, with a time limit that a prompt would exceed."""
    data = f"protocol=https\nhost={scene.bitbucket.host}\npath=acme/widgets\n\n"
    with ends_within(20):
        return scene.machine.run(command(scene), "--token-store=none", "--timeout=20", "get", data=data, check=False)


@contextmanager
def with_pass(scene: Workspace) -> Iterator[Callable[[], object]]:
    """Provide a password store whose passphrase gpg-agent knows; yield a function that makes the agent forget it."""
    need("pass")
    need("gpg")
    # A short path, because it contains gpg-agent's socket.
    gnupg = Path("/tmp") / f"bbjwt-gpg-{os.getpid()}-{time.monotonic_ns()}"
    gnupg.mkdir(mode=0o700)
    # Few rounds over the passphrase, because with the default, each use of the key takes 0.1 s.
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
    # After decrypting once, the agent remembers the passphrase.
    machine.run("sh", "-c", "echo x | gpg --batch -q -e -r builder >m && gpg " + " ".join(phrase) + " -q -d m")
    try:
        yield lambda: machine.run("gpgconf", "--kill", "gpg-agent")
    finally:
        machine.run("gpgconf", "--kill", "gpg-agent", check=False)
        shutil.rmtree(gnupg, ignore_errors=True)  # The agent may still be removing its sockets.


@contextmanager
def with_encrypted_file(scene: Workspace) -> Iterator[Callable[[], object]]:
    """Provide a file encrypted with a password from the environment; yield a function that removes the password."""
    scene.machine.environment |= {
        "PYTHON_KEYRING_BACKEND": "keyrings.cryptfile.cryptfile.CryptFileKeyring",
        "KEYRING_PROPERTY_KEYRING_KEY": "open",
    }
    yield lambda: scene.machine.environment.pop("KEYRING_PROPERTY_KEYRING_KEY")


@contextmanager
def with_secret_service(scene: Workspace) -> Iterator[Callable[[], object]]:
    """Provide gnome-keyring, named by keyring's own configuration file; yield a function that locks it."""
    configuration = scene.machine.home / ".config/python_keyring/keyringrc.cfg"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("[backend]\ndefault-keyring=keyring.backends.SecretService.Keyring\n")
    with desktop.session(scene.machine):
        yield lambda: desktop.lock(scene.machine)


@contextmanager
def with_chain(scene: Workspace) -> Iterator[Callable[[], object]]:
    """Provide a chain of all backends, the Secret Service first; yield a function that locks the open one."""
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
    """Unregister, and put the registry's entry back by hand; return the helper's error about the missing secret."""
    kept = shutil.copytree(registry_of(scene.machine), scene.machine.home / "kept")
    scene.machine.run(command(scene), "unregister", "acme")
    assert not registry_of(scene.machine).exists()
    shutil.copytree(kept, registry_of(scene.machine))
    said = ask(scene).stderr
    shutil.rmtree(registry_of(scene.machine))
    return said


@pytest.mark.parametrize("backend", ["keyring.backends.null.Keyring", "keyring.backends.fail.Keyring"])
def test_backends_that_store_nothing_are_an_error(
    scene: Workspace, backend: str, record_property: Callable[[str, object], None]
) -> None:
    record_property(*tally.worked_with("keyrings, refused with the choices:", backend.split(".")[2]))
    scene.machine.environment["PYTHON_KEYRING_BACKEND"] = backend
    done = register(scene, check=False)

    assert done.returncode == 1
    assert "--insecure-storage" in done.stderr
    assert not registry_of(scene.machine).exists()


def test_pass_without_its_store_is_an_error_with_the_command_that_makes_it(scene: Workspace) -> None:
    need("pass")
    scene.machine.environment |= {
        "PYTHON_KEYRING_BACKEND": "keyring_pass.PasswordStoreBackend",
        "PASSWORD_STORE_DIR": str(scene.machine.home / "store"),
    }
    done = register(scene, check=False)

    assert done.returncode == 1
    assert "pass has no password store" in done.stderr
    assert "pass init" in done.stderr


def test_secret_in_several_backends_of_a_chain_is_deleted_in_each(scene: Workspace) -> None:
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


def test_plain_file_backend_is_not_used_unless_it_is_configured(scene: Workspace) -> None:
    # Without a Secret Service and pass, only backends for plain and encrypted files are left.
    done = register(scene, check=False)
    assert done.returncode == 1
    assert files_holding(scene.machine.home, scene.app.shared_secret) == [scene.installation]

    scene.machine.environment["PYTHON_KEYRING_BACKEND"] = "keyrings.alt.file.PlaintextKeyring"
    register(scene)
    assert "password" in answer(ask(scene))


def test_backend_that_asks_on_the_terminal_asks_only_a_person(scene: Workspace) -> None:
    scene.machine.environment["PYTHON_KEYRING_BACKEND"] = "keyrings.alt.file.EncryptedKeyring"
    at_a_terminal(scene.machine, [command(scene), "register", str(scene.installation)], "open")
    assert registry_of(scene.machine).exists()
    done = ask(scene)

    assert done.stdout == "quit=1\n"
    assert "the keyring is locked" in done.stderr


def test_many_tokens_of_a_consumer_ask_the_keyring_once(with_keyring: Workspace) -> None:  # the fixture
    bitbucket, machine = with_keyring.bitbucket, with_keyring.machine
    consumer = bitbucket.consumer_json(bitbucket.add_consumer("acme"))
    machine.bbjwt("register", "-", data=json.dumps(consumer))
    urls = [f"{bitbucket.base_url}/acme/repository-{number}" for number in range(20)]

    assert len(machine.bbjwt("--token-store=none", "token", *urls).stdout.split()) == 20


def at_a_terminal(machine: Machine, arguments: list[str], typed: str) -> None:
    """Run a command at a terminal, and answer each question for a password with ``typed``."""
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
