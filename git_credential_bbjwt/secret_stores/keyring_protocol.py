"""The protocol between the keyring's process and its parent: the command line, the request and the reply.

A request is one JSON object on standard input: ``action`` (``get``, ``set``, ``delete``, ``describe``), ``service``,
``username``, ``secret``, ``backend`` (the one that stored the secret, or empty), ``only_there`` (whether no other
backend is asked to delete it), ``prompt`` (whether a person is there to be asked). The reply is one on standard output:
the fields of `KeyringReply`.
"""

import sys
from enum import Enum


class Outcome(str, Enum):
    """How a request to the keyring ended."""

    OK = "ok"
    #: There is no such secret.
    ABSENT = "absent"
    #: The entry is there, and it is empty.
    LOST = "lost"
    #: Somebody would have to be asked for the keyring's password.
    LOCKED = "locked"
    #: Somebody would have to be asked whether this one secret may be read.
    ITEM_LOCKED = "item locked"
    #: There is no backend, or the ``backend`` cannot be used.
    UNUSABLE = "unusable"
    FAILED = "failed"


class KeyringReply:
    """The reply to a request.

    ``backend`` is the name of the one that was asked, ``reason`` why it did not do what was asked. ``in_use`` names
    the backend that keyring chose, if that is another one, and ``chosen_by`` the variable or file that chose it, if it
    was one. ``hint`` is the next step, if the backend has one of its own.
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
        """Whether what was asked for is done."""
        return self.outcome is Outcome.OK

    def fields(self) -> dict[str, str]:
        """Return the reply as it is sent."""
        return {name: str(getattr(value, "value", value)) for name, value in vars(self).items()}


def command(path: list[str]) -> list[str]:
    """Return the command line of the process, which finds its modules where its parent does: in ``path``."""
    # It ends too soon for garbage to matter; collecting it takes a tenth of the time.
    run = "import gc, sys; gc.disable(); sys.path[:] = sys.argv[1:]; "
    run += f"from {__package__}.keyring_process import main; main()"
    return [sys.executable, "-I", "-c", run, *path]
