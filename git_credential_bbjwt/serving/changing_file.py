"""Files that a long-lived process reads again when they change: its configuration, an issuer's keys."""

import os
import threading
import time
from collections.abc import Callable

from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.output import error

# Characters of a reason that are shown.
_LONGEST_REASON = 300


class ChangingFile:
    """A file with what its content is for. If a change cannot be used, the content from before stays in force."""

    def __init__(self, path: str, take: Callable[[str], None], trouble: str, pause: float = 0.0) -> None:
        """``take`` reads the file and keeps its content; raises CredentialError, OSError, ValueError.

        ``trouble`` begins the error of a file that cannot be used. ``pause`` are seconds between two looks at it.
        """
        self._path = path
        self._take = take
        self._trouble = trouble
        self._pause = pause
        self._lock = threading.Lock()
        self._next_look = 0.0
        self._seen: tuple[int, ...] | None = None
        self._reason = ""

    def read(self) -> None:
        """Read the file. Raises as ``take`` does."""
        stamp = self._stamp()
        self._take(self._path)
        self._seen = stamp

    def look(self) -> None:
        """Read the file if it has changed, or could not be used the last time. Each new reason is printed once."""
        # While one thread reads, the others go on with the content from before, if there is one.
        if time.monotonic() < self._next_look or not self._lock.acquire(blocking=self._seen is None):
            return
        try:
            if self._reason or self._stamp() != self._seen:
                self.read()
            self._reason = ""
        except (CredentialError, OSError, ValueError) as problem:
            reason = reason_of(problem)
            if reason != self._reason:
                error(f"{self._trouble}: {reason}", getattr(problem, "hint", ""))
            self._reason = reason
        finally:
            self._next_look = time.monotonic() + self._pause
            self._lock.release()

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def reason_of(problem: Exception) -> str:
    """Return why something could not be read, for a person."""
    if isinstance(problem, CredentialError):
        return problem.what
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return (str(problem) or type(problem).__name__)[:_LONGEST_REASON]
