"""Requests to the keyring, which runs in a separate process, and errors for its replies."""

import json
import os
import stat
import sys
import threading

from git_credential_bbjwt.core.failures import HEADLESS_HINT, NEWEST_PAYLOAD, SecretError
from git_credential_bbjwt.core.files import APP_NAME, user_runtime_base
from git_credential_bbjwt.core.output import hide
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.secret_stores.keyring_protocol import KeyringReply, Outcome, command
from git_credential_bbjwt.system import child_process

# Seconds that a keyring may take if nobody can answer a prompt. An unlocked keyring answers within 0.1 s.
_UNPROMPTED_WAIT = 20.0


class KeyringCall:
    """One request to the keyring, in a separate process that the constructor starts."""

    def __init__(
        self,
        action: str,
        username: str,
        secret: str = "",
        *,
        backend: str = "",
        only_there: bool = False,
        prompt: bool = False,
    ) -> None:
        """Start the request.

        ``backend`` is the backend that stored the secret. With ``only_there``, no other backend is asked to delete it.
        With ``prompt``, the backend may ask a person on the terminal or in a window.
        """
        self._prompt = prompt
        request = {
            "action": action,
            "service": APP_NAME,
            "username": username,
            "secret": secret,
            "backend": backend,
            "only_there": only_there,
            "prompt": prompt,
        }
        self._reply: KeyringReply | None = None
        self._lock = threading.Lock()  # Several tokens may need the same secret.
        line = json.dumps(request).encode() + b"\n"
        try:
            self._process = child_process.Spawned(
                command(sys.path), _environment(prompt=prompt), line, at_terminal=prompt
            )
        except OSError as problem:
            reason = f"its process could not be started: {problem.strerror}"
            self._reply = KeyringReply(Outcome.FAILED, reason=reason)

    def reply(self) -> KeyringReply:
        """Return the process's reply. Unless a person may be prompted, wait at most 20 s."""
        with self._lock:
            if self._reply is None:
                self._reply = self._awaited()
            return self._reply

    def _awaited(self) -> KeyringReply:
        try:
            _, output = self._process.finish(None if self._prompt else _UNPROMPTED_WAIT)
        except TimeoutError:
            reason = f"the keyring did not answer within {_UNPROMPTED_WAIT:.0f} s"
            return KeyringReply(Outcome.FAILED, reason=reason)
        try:
            found = {str(field): str(value) for field, value in json.loads(output).items()}
            # A backend's message can contain anything, even a secret.
            return KeyringReply(Outcome(found.pop("outcome")), **{**found, "reason": safe_text(found["reason"])})
        except (ValueError, AttributeError, KeyError, TypeError):
            return KeyringReply(Outcome.FAILED, reason="the keyring's process ended without an answer")


def _environment(*, prompt: bool) -> dict[str, str]:
    environment = child_process.for_keyring()
    bus = None if environment.get("DBUS_SESSION_BUS_ADDRESS") else _bus_in_runtime_folder()
    if bus is not None:
        environment["DBUS_SESSION_BUS_ADDRESS"] = bus
    if not prompt:
        # `pass` decrypts with gpg, which must fail instead of asking for a passphrase.
        options = environment.get("PASSWORD_STORE_GPG_OPTS", "")
        environment["PASSWORD_STORE_GPG_OPTS"] = f"{options} --pinentry-mode=error".strip()
        environment.pop("GPG_TTY", None)
    return environment


def _bus_in_runtime_folder() -> str | None:
    """Return the address of the user's D-Bus in systemd's place (sd_bus_default_user(3)); None if it is missing.

    A login by ssh or a cron job may have the bus, but not the variable that names it.
    """
    folder = user_runtime_base()
    if sys.platform == "win32" or folder is None:
        return None
    path = f"{folder}/bus"
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        return None
    from urllib.parse import quote

    return f"unix:path={quote(path, safe='/-_.*')}"  # D-Bus Specification, "Server Addresses".


def secret_from(reply: KeyringReply, owner: str) -> str:
    """Return the secret in a keyring's ``reply``. Raises SecretError if there is none."""
    if reply.is_ok:
        hide(reply.secret)
        return reply.secret
    if reply.outcome is Outcome.ABSENT:
        beside = f", nor does {_in_use(reply)}" if reply.in_use else ""
        raise SecretError(
            f"the keyring backend {reply.backend} has no shared secret for {owner}{beside}",
            "run: git-credential-bbjwt register FILE",
        )
    if reply.outcome is Outcome.LOST:
        raise SecretError(
            f"the entry of {owner} in the keyring backend {reply.backend} is empty: the wallet has lost it",
            NEWEST_PAYLOAD,
        )
    raise keyring_error(reply)


def _in_use(reply: KeyringReply) -> str:
    return f"{reply.in_use}, which {reply.chosen_by or 'keyring'} chooses"


def keyring_error(reply: KeyringReply) -> SecretError:
    """Return the error for a request that the keyring could not fulfil."""
    backend = f" {reply.backend}" if reply.backend else ""
    if reply.outcome is Outcome.LOCKED:
        return SecretError(
            f"the keyring is locked, and this command does not ask for its password (backend{backend})",
            reply.hint
            or "unlock it, then try again: log in to the desktop, run gnome-keyring-daemon --replace --unlock, or with "
            "pass, enter the passphrase once for gpg-agent to remember",
        )
    if reply.outcome is Outcome.ITEM_LOCKED:
        return SecretError(
            "the keyring is unlocked, but it has locked this secret and wants to ask a person before it returns it",
            "in KeePassXC, open Settings > Secret Service Integration and untick 'Confirm when passwords are retrieved "
            "by clients'; or choose another keyring backend (PYTHON_KEYRING_BACKEND) and register again",
        )
    if reply.outcome is Outcome.UNUSABLE and reply.in_use:
        return SecretError(
            f"the keyring backend{backend}, which stored the shared secret, cannot be used here ({reply.reason}), and "
            f"{_in_use(reply)}, does not have it",
            f"make{backend} usable, or register again with {reply.in_use}",
        )
    if reply.outcome is Outcome.UNUSABLE:
        chosen = f", which {reply.chosen_by} chooses," if reply.chosen_by else ""
        what = f"the keyring backend{backend}{chosen} cannot be used" if backend else "there is no usable keyring"
        return SecretError(f"{what}: {reply.reason}", reply.hint or HEADLESS_HINT)
    return SecretError(f"the keyring backend{backend} failed: {reply.reason}", HEADLESS_HINT)
