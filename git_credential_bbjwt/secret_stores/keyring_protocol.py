"""The protocol between the keyring's process and its parent: the command line, the request and the reply.

A request is one JSON object on standard input: ``action`` (``get``, ``set``, ``delete``, ``describe``), ``service``,
``username``, ``secret``, ``backend`` (the backend that stored the secret, or empty), ``only_there`` (ask no other
backend to delete it), ``prompt`` (a person may be asked). The reply is one JSON object on standard output, with the
fields of `KeyringReply`.
"""

import sys
from enum import Enum


class Outcome(str, Enum):
    """The outcome of a request to the keyring."""

    OK = "ok"
    #: There is no such secret.
    ABSENT = "absent"
    #: The entry exists, but it is empty.
    LOST = "lost"
    #: A person would have to enter the keyring's password.
    LOCKED = "locked"
    #: A person would have to allow that this one secret is read.
    ITEM_LOCKED = "item locked"
    #: There is no backend, or the ``backend`` cannot be used.
    UNUSABLE = "unusable"
    FAILED = "failed"


class KeyringReply:
    """The reply to a request.

    ``backend`` names the backend that was asked, and ``reason`` says why the request failed. ``in_use`` names the
    backend that keyring uses now, if that is another one. ``chosen_by`` names the variable or file that configures it,
    if there is one. ``hint`` is the next step, if it depends on the backend.
    """

    def __init__(
        self,
        outcome: Outcome,
        secret: str = "",
        reason: str = "",
        backend: str = "",
        in_use: str = "",
        chosen_by: str = "",
        hint: str = "",
    ) -> None:
        self.outcome = outcome
        self.secret = secret
        self.reason = reason
        self.backend = backend
        self.in_use = in_use
        self.chosen_by = chosen_by
        self.hint = hint

    @property
    def is_ok(self) -> bool:
        """Return whether the request succeeded."""
        return self.outcome is Outcome.OK

    def fields(self) -> dict[str, str]:
        """Return the reply as it is sent."""
        return {name: str(getattr(value, "value", value)) for name, value in vars(self).items()}


def command(path: list[str]) -> list[str]:
    """Return the command line of the process, which imports from ``path``, as its parent does."""
    # Garbage collection takes 10 % of the time and is not needed in such a short process.
    run = "import gc, sys; gc.disable(); sys.path[:] = sys.argv[1:]; "
    run += f"from {__package__}.keyring_process import main; main()"
    return [sys.executable, "-I", "-c", run, *path]
