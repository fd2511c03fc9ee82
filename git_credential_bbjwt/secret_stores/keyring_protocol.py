"""What the keyring's process and who starts it both know: its command line, and what it replies.

A request is one JSON object on standard input: ``action`` (``get``, ``set``, ``delete``, ``describe``), ``service``,
``username``, ``secret``, ``backend`` (known to hold it, or empty), ``prompt`` (whether a person is there to be asked).
The reply is one on standard output: the fields of `KeyringReply`.
"""

import sys
from enum import Enum

#: The backend that is asked without looking for others.
SECRET_SERVICE = "keyring.backends.SecretService.Keyring"


class Outcome(str, Enum):
    """How a request to the keyring ended."""

    OK = "ok"
    #: There is no such secret.
    ABSENT = "absent"
    #: Somebody would have to be asked for a password.
    LOCKED = "locked"
    #: There is no backend to be used.
    NONE = "none"
    FAILED = "failed"


class KeyringReply:
    """A reply: the ``secret`` that was asked for, or the ``reason`` for another `Outcome`; the ``backend``'s name."""

    def __init__(self, outcome: Outcome, secret: str = "", reason: str = "", backend: str = "unknown backend") -> None:
        self.outcome = outcome
        self.secret = secret
        self.reason = reason
        self.backend = backend

    @property
    def is_ok(self) -> bool:
        """Whether what was asked for is done."""
        return self.outcome is Outcome.OK


def command(path: list[str], *, at_once: bool = False) -> list[str]:
    """The command line of the process, which finds its modules where its parent does: in ``path``.

    ``at_once`` is for `SECRET_SERVICE`, and leaves out `site`.
    """
    flags, main = ("-IS", "main_at_once") if at_once else ("-I", "main")
    run = f"import sys; sys.path[:] = sys.argv[1:]; from {__package__}.keyring_process import {main}; {main}()"
    return [sys.executable, flags, "-c", run, *path]
