"""The only code that touches the ``keyring`` library; it runs as a process of its own, spawned or forked.

Backends may ask for a password on the terminal, open a window, or wait for a D-Bus service for ever. In a process
without a terminal, that its parent can end, none of that holds git up; and its heavy imports run while the parent
opens its connections.
"""

import gc
import importlib
import json
import os
import sys
from typing import Any, NoReturn

from git_credential_bbjwt.secret_stores.keyring_protocol import SECRET_SERVICE, Outcome, command
from git_credential_bbjwt.system import child_process
from git_credential_bbjwt.system.light_imports import all_of_keyring, of_python, secret_service

# errSecInteractionNotAllowed: what the Keychain says then ("Security Framework Result Codes").
_MACOS_WOULD_ASK = "-25308"

# CRED_MAX_CREDENTIAL_BLOB_SIZE ("CREDENTIALW structure"). Bytes.
_MOST_ON_WINDOWS = 2560

# Seconds; well over what the parent waits.
_LONGEST_LIFE = 60


def main() -> None:
    """Answer one request."""
    replies = _replies_alone()
    request = json.loads(sys.stdin.buffer.readline())
    _end_in_time(request)
    try:
        reply = _reply(request)
    except Exception as problem:  # A backend is anybody's code: whatever it raises becomes an outcome.
        locked = _MACOS_WOULD_ASK in str(problem)
        outcome = Outcome.LOCKED if locked else Outcome.FAILED
        reply = {"outcome": outcome, "reason": f"{type(problem).__name__}: {problem}"}
    _write(replies, reply)


def main_at_once() -> NoReturn:
    """Answer a request for a secret that the Secret Service is known to hold.

    To find a backend loads all there are, which takes as long as the rest of a mint. What is not certain, or not to be
    had at once, is left to `main` in a new process in the place of this one, for this one has but half of keyring.
    """
    gc.disable()  # All that is loaded stays.
    replies = _replies_alone()
    with open(0, "rb", closefd=False) as given:  # In a copy `sys.stdin` may be at the end of what its parent was given.
        line = given.readline()
    request = json.loads(line)
    _end_in_time(request)
    secret = None
    try:
        if not _is_configured():
            of_python()
            secret = _secret_at_once(request["service"], request["username"])
    except Exception:  # Whatever is wrong, the long way finds it too, and has words for it.
        secret = None
    if isinstance(secret, str):
        _write(replies, {"outcome": Outcome.OK, "secret": secret, "backend": request["backend"]})
    again, writing = os.pipe()
    os.write(writing, line)
    os.close(writing)
    os.dup2(again, 0)
    os.dup2(replies, 1)
    words = command(sys.path)
    os.execv(words[0], words)


def _secret_at_once(service: str, username: str) -> str | None:
    """What the Secret Service holds; None where it is locked, or has no such. Raises whatever it is that fails."""
    backend = secret_service()
    with _bus() as bus:
        collection = _collection(bus, backend)
        if collection.is_locked():
            return None
        # Its own way would connect once more, and unlock, which prompts.
        backend.get_preferred_collection = lambda: collection
        secret: str | None = backend.get_password(service, username)
        return secret


def _bus() -> Any:
    import contextlib

    import secretstorage

    return contextlib.closing(secretstorage.dbus_init())


def _collection(bus: Any, backend: Any) -> Any:
    """The collection that keyring's Secret Service backend would use."""
    import secretstorage

    path = getattr(backend, "preferred_collection", None)
    return secretstorage.Collection(bus, path) if path else secretstorage.Collection(bus)


def _replies_alone() -> int:
    """Have what a backend prints not end up in the reply; return where that goes."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


def _end_in_time(request: dict[str, Any]) -> None:
    if not request["prompt"]:
        # Should the parent be gone, a service that never answers must not keep this process for ever.
        child_process.end_after(_LONGEST_LIFE)
        _forbid_windows()


def _write(replies: int, reply: dict[str, str]) -> NoReturn:
    os.write(replies, json.dumps(reply).encode() + b"\n")
    os._exit(0)  # A D-Bus connection's thread must not keep the process.


def _is_configured() -> bool:
    """Whether keyring has a configuration of its own, which comes before what is known (its documentation,
    "Configuring").
    """
    home = os.path.expanduser("~")
    bases = [os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"]
    bases += [
        os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    ]  # Where it once was; older ones refuse to go on then.
    files = [f"{base}/python_keyring/keyringrc.cfg" for base in bases]
    return bool(os.environ.get("PYTHON_KEYRING_BACKEND")) or any(map(os.path.lexists, files))


def _forbid_windows() -> None:
    """Have macOS's Keychain fail instead of asking (Security framework, ``SecKeychainSetUserInteractionAllowed``)."""
    if sys.platform == "darwin":
        import ctypes

        security = ctypes.CDLL("/System/Library/Frameworks/Security.framework/Security")
        security.SecKeychainSetUserInteractionAllowed(ctypes.c_ubyte(0))


def _reply(request: dict[str, Any]) -> dict[str, str]:
    from subprocess import CalledProcessError

    backend = all_of_keyring().get_keyring()
    from keyring.errors import InitError, KeyringLocked, NoKeyringError, PasswordDeleteError

    described = {"backend": _name(backend)}
    try:
        return described | _act(backend, request)
    except NoKeyringError as problem:
        return {"outcome": Outcome.NONE, "reason": str(problem) or "no keyring backend is usable here"} | described
    except EOFError:  # It read a password from where nobody is.
        return {"outcome": Outcome.LOCKED, "reason": "its backend asks for a password"} | described
    except CalledProcessError as problem:  # `pass`, whose gpg may not ask for a passphrase here.
        program = os.path.basename(str(problem.cmd[0]))
        return {"outcome": Outcome.LOCKED, "reason": f"{program} ended with status {problem.returncode}"} | described
    except (KeyringLocked, InitError) as problem:
        return {"outcome": Outcome.LOCKED, "reason": str(problem)} | described
    except PasswordDeleteError:
        return {"outcome": Outcome.ABSENT, "reason": ""} | described


def _name(backend: Any) -> str:
    return f"{type(backend).__module__}.{type(backend).__name__}"


def _act(backend: Any, request: dict[str, Any]) -> dict[str, str]:
    from keyring.backends import fail, null
    from keyring.errors import KeyringLocked, NoKeyringError

    if isinstance(backend, fail.Keyring):
        raise NoKeyringError
    links = _links(backend)
    if not links:
        raise NoKeyringError("the only keyring backend here keeps secrets in a plain file, and nobody chose it")
    backend = links[0] if len(links) == 1 else backend
    for link in links:
        # KEYRING_PROPERTY_*: keyring's own way, which the constructors of some file backends forget.
        link.set_properties_from_env()
    service, username = request["service"], request["username"]
    # A locked backend would prompt. In a chain the ones that are open are still asked.
    usable = [link for link in links if request["prompt"] or not _is_locked(link)]
    if request["action"] == "describe":
        if isinstance(backend, null.Keyring):
            return {"outcome": Outcome.NONE, "reason": "the null backend keeps nothing"}
        return {"outcome": Outcome.OK if len(usable) == len(links) else Outcome.LOCKED, "reason": ""}
    if not usable:
        raise KeyringLocked("the keyring is locked")
    if request["action"] == "get":
        for link in usable:
            secret = link.get_password(service, username)
            if secret is not None:
                return {"outcome": Outcome.OK, "secret": secret, "backend": _name(link)}
        if len(usable) < len(links):
            raise KeyringLocked("the keyring is locked")
        return {"outcome": Outcome.ABSENT, "reason": ""}
    if len(usable) < len(links):
        backend = usable[0]
    if request["action"] == "set":
        kept = len(request["secret"].encode("utf-16-le"))
        if "Windows" in type(backend).__module__ and kept > _MOST_ON_WINDOWS:
            reason = f"Windows' Credential Manager keeps at most {_MOST_ON_WINDOWS} bytes, and this would be {kept}"
            return {"outcome": Outcome.FAILED, "reason": reason}
        backend.set_password(service, username, request["secret"])
    else:
        backend.delete_password(service, username)
    return {"outcome": Outcome.OK}


def _links(backend: Any) -> list[Any]:
    """The backends behind ``backend``: those of a chain, else itself alone.

    One that keeps secrets in a plain file counts only where somebody chose it by keyring's own configuration.
    """
    from keyring import core
    from keyring.backends.chainer import ChainerBackend

    links = list(backend.backends) if isinstance(backend, ChainerBackend) else [backend]
    if core.load_env() or core.load_config():
        return links
    return [link for link in links if "Plaintext" not in type(link).__name__]


def _is_locked(backend: Any) -> bool:
    """Whether asking ``backend`` would make its service show a prompt.

    keyring's own Secret Service backend unlocks, which prompts, before it looks anything up; so it is asked first.
    """
    module = type(backend).__module__
    if module == SECRET_SERVICE.rpartition(".")[0]:
        import secretstorage

        with _bus() as bus:
            try:
                return bool(_collection(bus, backend).is_locked())
            except secretstorage.ItemNotFoundException:
                return True  # No default collection yet: making one prompts for its password.
    if module == "keyring.backends.kwallet":
        dbus = importlib.import_module("dbus")  # keyring's own requirement for this backend

        service = dbus.SessionBus().get_object(backend.bus_name, backend.object_path)
        wallet = dbus.Interface(service, "org.kde.KWallet")
        return not wallet.isOpen(wallet.networkWallet())
    return False
