"""The keyring's process, the only code that uses the ``keyring`` library.

Backends may ask for a password on the terminal, open a window, or wait forever for a D-Bus service. Git does not wait
for that, because this process has no terminal and its parent can end it. Its slow imports run while the parent opens
connections.
"""

import contextlib
import json
import os
import sys
from configparser import RawConfigParser
from subprocess import CalledProcessError
from typing import Any

from git_credential_bbjwt.secret_stores import secret_service
from git_credential_bbjwt.secret_stores.keyring_protocol import KeyringReply, Outcome
from git_credential_bbjwt.system import child_process

# errSecInteractionNotAllowed: the Keychain's error if it may not ask ("Security Framework Result Codes").
_MACOS_WOULD_ASK = "-25308"

# CRED_MAX_CREDENTIAL_BLOB_SIZE ("CREDENTIALW structure"). Bytes.
_MOST_ON_WINDOWS = 2560

# Seconds. The parent waits less.
_LONGEST_LIFE = 60


def main() -> None:
    """Answer one request."""
    replies = os.dup(1)
    if sys.platform != "win32":
        os.chdir("/")  # keyring's configuration can name code to run by a relative path.
    os.dup2(2, 1)  # A backend may print something, which is not part of the reply.
    request = json.loads(sys.stdin.buffer.readline())
    if not request["prompt"]:
        # Even if the parent is gone and a service never answers, this process must end.
        child_process.end_after(_LONGEST_LIFE)
        _forbid_windows_of_macos()
    reply = _ACTIONS[request["action"]](request)
    os.write(replies, json.dumps(reply.fields()).encode() + b"\n")
    os._exit(0)  # A D-Bus connection's thread must not keep the process.


def _forbid_windows_of_macos() -> None:
    """Have macOS's Keychain fail instead of asking (Security framework, ``SecKeychainSetUserInteractionAllowed``)."""
    if sys.platform == "darwin":
        import ctypes

        security = ctypes.CDLL("/System/Library/Frameworks/Security.framework/Security")
        security.SecKeychainSetUserInteractionAllowed(ctypes.c_ubyte(0))


def _failure(problem: Exception, backend: str) -> KeyringReply:
    """Return the reply for an exception of a backend. Backends are other people's code and can raise anything."""
    from keyring.errors import InitError, KeyringLocked, PasswordDeleteError

    reason = _reason(problem)
    if isinstance(problem, secret_service.LockedItemError):
        return KeyringReply(Outcome.ITEM_LOCKED, backend=backend)
    if isinstance(problem, EOFError):  # The backend tried to read a password.
        return KeyringReply(Outcome.LOCKED, reason="its backend asks for a password", backend=backend)
    if isinstance(problem, CalledProcessError):
        return _failure_of_program(problem, backend)
    if isinstance(problem, NotImplementedError):
        return KeyringReply(Outcome.UNUSABLE, reason="it cannot do that", backend=backend)
    if isinstance(problem, (secret_service.WouldAskError, KeyringLocked, InitError)) or _MACOS_WOULD_ASK in reason:
        return KeyringReply(Outcome.LOCKED, reason=str(problem), backend=backend)
    if isinstance(problem, PasswordDeleteError):
        return KeyringReply(Outcome.ABSENT, backend=backend)
    return KeyringReply(Outcome.FAILED, reason=reason, backend=backend)


def _failure_of_program(problem: CalledProcessError, backend: str) -> KeyringReply:
    program = os.path.basename(str(problem.cmd[0]))
    if program == "pass":
        store = os.environ.get("PASSWORD_STORE_DIR") or os.path.expanduser("~/.password-store")
        if not os.path.exists(f"{store}/.gpg-id"):
            reason, hint = f"pass has no password store in {store} yet", "run: pass init GPG-ID"
            return KeyringReply(Outcome.UNUSABLE, reason=reason, backend=backend, hint=hint)
    # gpg must not ask for a passphrase here.
    return KeyringReply(Outcome.LOCKED, reason=f"{program} ended with status {problem.returncode}", backend=backend)


def _name(backend: Any) -> str:
    return f"{type(backend).__module__}.{type(backend).__name__}"


class _InUse:
    """The backends that keyring uses now: the configured backend, those of a chain, or the best that it finds.

    ``name`` is the name of the backend or of the chain. ``chosen_by`` names the variable or file that configures it, if
    there is one. ``problem`` says why ``links`` is empty.
    """

    def __init__(self) -> None:
        self.name = self.chosen_by = ""
        self.links: list[Any] = []
        self.problem: KeyringReply | None = None
        try:
            self._find()
        except Exception as problem:  # The configured backend cannot be loaded.
            self.problem = _unusable(problem, self.name)
        if self.problem is not None:
            self.problem.chosen_by = self.chosen_by

    def _find(self) -> None:
        from keyring import core
        from keyring.backends import fail, null
        from keyring.backends.chainer import ChainerBackend
        from keyring.util import platform_

        variable, file = "PYTHON_KEYRING_BACKEND", os.path.join(platform_.config_root(), "keyringrc.cfg")
        configuration = RawConfigParser()
        configuration.read(file, encoding="utf-8")
        if variable in os.environ:
            self.name, self.chosen_by = os.environ[variable], variable
        elif configuration.has_option("backend", "default-keyring"):
            self.name, self.chosen_by = configuration.get("backend", "default-keyring"), file
        backend = core.load_env() or core.load_config()
        if backend is None:
            backend = core.get_keyring()
        self.name = _name(backend)
        links = list(backend.backends) if isinstance(backend, ChainerBackend) else [backend]
        if not self.chosen_by:  # A backend that stores plain text is used only if the user chose it.
            links = [link for link in links if "Plaintext" not in type(link).__name__]
        reason = "" if links else "the only keyring backend here stores secrets in a plain file and is not configured"
        if isinstance(backend, fail.Keyring):
            reason = "no keyring backend is usable here"
        if isinstance(backend, null.Keyring):
            reason = "the null backend stores nothing"
        if reason:
            self.problem = KeyringReply(Outcome.UNUSABLE, reason=reason, backend=self.chosen_by and self.name)
        else:
            self.links = links


def _unusable(problem: Exception, name: str) -> KeyringReply:
    """Return the reply for a backend that could not be loaded."""
    if isinstance(problem, CalledProcessError):
        return _failure_of_program(problem, name)
    return KeyringReply(Outcome.UNUSABLE, reason=_reason(problem), backend=name)


def _reason(problem: Exception) -> str:
    """Return what ``problem`` says. Long names of classes would be taken for tokens and not be shown."""
    return str(problem) or type(problem).__name__


def _attempt_by_name(name: str, request: dict[str, Any]) -> KeyringReply:
    """Send the request to the backend ``name``, without searching for others."""
    from keyring import core

    try:
        backend = core.load_keyring(name)
    except Exception:
        with contextlib.suppress(Exception):
            core.load_config()  # It can name a folder with backends.
        try:
            backend = core.load_keyring(name)
        except Exception as problem:
            return _unusable(problem, name)
    return _attempt(backend, request)


def _attempt(backend: Any, request: dict[str, Any]) -> KeyringReply:
    """Send the request to one backend."""
    name = _name(backend)
    try:
        # Apply the variables KEYRING_PROPERTY_*, because the constructors of some file backends do not.
        backend.set_properties_from_env()
        _forbid_windows_of(backend, is_person_there=request["prompt"])
        return _asked(backend, request)
    except Exception as problem:
        return _failure(problem, name)


def _forbid_windows_of(backend: Any, *, is_person_there: bool) -> None:
    """Have ``backend`` fail instead of opening a window. Raises KeyringLocked if it would open one now."""
    from keyring.errors import KeyringLocked

    module = type(backend).__module__
    if module == secret_service.MODULE:
        secret_service.forbid_windows(is_person_there=is_person_there)
    closed = {
        "keyring.backends.kwallet": secret_service.is_wallet_closed,
        "keyring.backends.libsecret": secret_service.is_locked,
    }
    if module in closed and closed[module](backend):
        raise KeyringLocked("the keyring is locked")


def _asked(backend: Any, request: dict[str, Any]) -> KeyringReply:
    name, service, username = _name(backend), request["service"], request["username"]
    if request["action"] == "get":
        secret = backend.get_password(service, username)
        if secret is None:
            return KeyringReply(Outcome.ABSENT, backend=name)
        return KeyringReply(Outcome.OK if secret else Outcome.LOST, secret=secret, backend=name)
    if request["action"] == "describe":
        is_locked = type(backend).__module__ == secret_service.MODULE and secret_service.is_locked(backend)
        return KeyringReply(Outcome.LOCKED if is_locked else Outcome.OK, backend=name)
    if request["action"] == "delete":
        backend.delete_password(service, username)
        return KeyringReply(Outcome.OK, backend=name)
    size = len(request["secret"].encode("utf-16-le"))
    if "Windows" in type(backend).__module__ and size > _MOST_ON_WINDOWS:
        reason = f"Windows' Credential Manager stores at most {_MOST_ON_WINDOWS} bytes, and this would be {size}"
        return KeyringReply(Outcome.FAILED, reason=reason, backend=name)
    backend.set_password(service, username, request["secret"])
    return KeyringReply(Outcome.OK, backend=name)


# The outcomes of a request to several backends, the most important first.
_GRAVITY = (
    Outcome.LOCKED,
    Outcome.ITEM_LOCKED,
    Outcome.FAILED,
    Outcome.LOST,
    Outcome.OK,
    Outcome.ABSENT,
    Outcome.UNUSABLE,
)


def _gravest(replies: list[KeyringReply], in_use: _InUse) -> KeyringReply:
    if not replies:
        return in_use.problem or KeyringReply(Outcome.UNUSABLE, reason="no other keyring backend is usable here")
    return min(replies, key=lambda reply: _GRAVITY.index(reply.outcome))


# The actions


def _get(request: dict[str, Any]) -> KeyringReply:
    """Ask the backend that stored the secret; if it cannot be used or has no secret, ask the backends in use."""
    noted = request["backend"]
    first = _attempt_by_name(noted, request) if noted else None
    if first is not None and first.outcome not in (Outcome.ABSENT, Outcome.UNUSABLE):
        return first
    in_use = _InUse()
    other = _in_turn(in_use, request, apart_from=noted)
    if first is None or other.outcome in (Outcome.OK, Outcome.LOST):
        return other
    if first.outcome is Outcome.ABSENT and other.outcome in (Outcome.LOCKED, Outcome.ITEM_LOCKED):
        return other
    return _beside(first, in_use)


def _set(request: dict[str, Any]) -> KeyringReply:
    """Store the secret in the first backend that accepts it."""
    return _in_turn(_InUse(), request)


def _in_turn(in_use: _InUse, request: dict[str, Any], *, apart_from: str = "") -> KeyringReply:
    """Ask the backends in use, except ``apart_from``, until one has the secret or stores it.

    If none does, return the gravest reply.
    """
    replies = []
    for backend in in_use.links:
        if _name(backend) != apart_from:
            replies.append(_attempt(backend, request))
            if replies[-1].outcome in (Outcome.OK, Outcome.LOST):
                return replies[-1]
    return _gravest(replies, in_use)


def _delete(request: dict[str, Any]) -> KeyringReply:
    """Delete the secret in the backend that stored it and, unless ``only_there``, in all backends in use."""
    noted = request["backend"]
    first = _attempt_by_name(noted, request) if noted else None
    if request["only_there"]:
        return first or KeyringReply(Outcome.ABSENT)
    in_use = _InUse()
    gravest = _gravest([_attempt(backend, request) for backend in in_use.links if _name(backend) != noted], in_use)
    if first is None or (first.outcome is Outcome.ABSENT and gravest.outcome is not Outcome.UNUSABLE):
        return gravest
    return _beside(first, in_use)


def _beside(reply: KeyringReply, in_use: _InUse) -> KeyringReply:
    """Return the reply of the backend that stored the secret; if another is in use or configured, with its name."""
    if in_use.name != reply.backend and (in_use.links or in_use.chosen_by):
        reply.in_use, reply.chosen_by = in_use.name, in_use.chosen_by
    return reply


def _describe(request: dict[str, Any]) -> KeyringReply:
    """Reply whether the backend that stored the secrets is unlocked; without one, whether the backend in use is."""
    in_use = _InUse()
    if request["backend"]:
        return _beside(_attempt_by_name(request["backend"], request), in_use)
    reply = _gravest([_attempt(backend, request) for backend in in_use.links], in_use)
    if reply.is_ok:
        reply.backend = in_use.name
    return reply


_ACTIONS = {"get": _get, "set": _set, "delete": _delete, "describe": _describe}
