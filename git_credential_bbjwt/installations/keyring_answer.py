"""What the keyring's process answers: the same to the process itself and to who started it."""

from enum import Enum
from typing import NamedTuple


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


class KeyringAnswer(NamedTuple):
    """An answer: the ``secret`` that was asked for, or the ``reason`` for another `Outcome`; the ``backend``'s name."""

    outcome: Outcome
    secret: str = ""
    reason: str = ""
    backend: str = "unknown backend"

    @property
    def is_ok(self) -> bool:
        """Whether what was asked for is done."""
        return self.outcome is Outcome.OK
