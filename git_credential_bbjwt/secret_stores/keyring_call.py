"""The keyring as the rest of the program has it: requests to a process of its own, and what its replies mean."""

import json
import sys

from git_credential_bbjwt.core.failures import HEADLESS_HINT, SecretError
from git_credential_bbjwt.core.output import hide
from git_credential_bbjwt.secret_stores.keyring_protocol import SECRET_SERVICE, KeyringReply, Outcome, command
from git_credential_bbjwt.system import child_process
from git_credential_bbjwt.system.places import APP_NAME

# Seconds a keyring may take when nobody is there to answer a prompt. An open one answers in a tenth of one.
_UNPROMPTED_WAIT = 20.0


class KeyringCall:
    """One request to the keyring, under way in a process of its own from the moment this is made."""

    def __init__(
        self,
        action: str,
        username: str,
        secret: str = "",
        *,
        backend: str = "",
        prompt: bool = False,
        alone: bool = False,
    ) -> None:
        """Start the request.

        ``backend`` is the one that is known to hold the secret. ``prompt`` lets the backend ask a person on the
        terminal or by a window. ``alone`` tells that no other thread of this process is at work.
        """
        self._prompt = prompt
        at_once = action == "get" and not prompt and backend == SECRET_SERVICE
        environment = child_process.for_keyring()
        if not prompt:
            # `pass` decrypts with gpg, which must fail instead of asking for a passphrase.
            options = environment.get("PASSWORD_STORE_GPG_OPTS", "")
            environment["PASSWORD_STORE_GPG_OPTS"] = f"{options} --pinentry-mode=error".strip()
            environment.pop("GPG_TTY", None)
        request = {
            "action": action,
            "service": APP_NAME,
            "username": username,
            "secret": secret,
            "backend": backend,
            "prompt": prompt,
        }
        line = json.dumps(request).encode() + b"\n"
        self._process = _begun(line, environment, prompt=prompt, at_once=at_once, alone=alone)
        self._reply: KeyringReply | None = None

    def reply(self, wait: float = _UNPROMPTED_WAIT) -> KeyringReply:
        """Return the process's reply, waiting at most ``wait`` seconds unless a person may be prompted."""
        if self._reply is None:
            self._reply = self._awaited(wait)
        return self._reply

    def _awaited(self, wait: float) -> KeyringReply:
        try:
            _, output = self._process.finish(None if self._prompt else wait)
        except TimeoutError:
            return KeyringReply(Outcome.FAILED, reason=f"the keyring gave no answer within {wait:.0f} s")
        try:
            found = {str(field): str(value) for field, value in json.loads(output).items()}
            return KeyringReply(Outcome(found.pop("outcome")), **found)
        except (ValueError, AttributeError, KeyError, TypeError):
            return KeyringReply(Outcome.FAILED, reason="the keyring's process ended without an answer")


def _begun(
    line: bytes, environment: dict[str, str], *, prompt: bool, at_once: bool, alone: bool
) -> child_process.Spawned:
    if sys.platform != "win32" and at_once and alone:
        from git_credential_bbjwt.secret_stores.keyring_process import main_at_once

        return child_process.Forked(main_at_once, environment, line)
    words = command(sys.path, at_once=at_once)
    return child_process.Spawned(words, environment, line, at_terminal=prompt)


def secret_from(reply: KeyringReply, owner: str) -> str:
    """Return the secret in a keyring's ``reply``. Raises SecretError that says why there is none."""
    if reply.is_ok:
        hide(reply.secret)
        return reply.secret
    if reply.outcome is Outcome.ABSENT:
        raise SecretError(f"the keyring holds no shared secret for {owner}", "run: git-credential-bbjwt register FILE")
    raise keyring_error(reply)


def keyring_error(reply: KeyringReply) -> SecretError:
    """The error for a keyring that could not do what it was asked."""
    if reply.outcome is Outcome.LOCKED:
        return SecretError(
            "the keyring is locked, and nobody is asked for its password here",
            "unlock it, then try again: log in to the desktop, run gnome-keyring-daemon --replace --unlock, or for "
            "pass have gpg-agent hold the passphrase",
        )
    if reply.outcome is Outcome.NONE:
        return SecretError(f"there is no usable keyring: {reply.reason}", HEADLESS_HINT)
    return SecretError(f"the keyring failed: {reply.reason}", HEADLESS_HINT)
