"""The files and the folder that a broker's operator gave it, and that nobody else may have written."""

import os
import threading
import time
from collections.abc import Callable

from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.files import APP_NAME, read_file, why_not_trusted
from git_credential_bbjwt.core.output import error

#: Variables that name the folder that an operator gave a broker, the first one first (systemd.exec(5)).
OPERATORS_FOLDERS = ("RUNTIME_DIRECTORY", "CACHE_DIRECTORY")

# Characters of a reason that are shown.
_LONGEST_REASON = 300


def operators_folder(variables: tuple[str, ...] = OPERATORS_FOLDERS) -> str | None:
    """Return the broker's folder, below the first of ``variables`` that is set; None if none is."""
    for name in variables:
        path = os.environ.get(name, "").split(":")[0]
        if os.path.isabs(path):
            return f"{path.rstrip('/')}/{APP_NAME}"
    return None


def check_own_file(path: str, what: str) -> None:
    """Check that nobody but root and this user can have chosen the content of ``path``; ``what`` names the file.

    Links are followed, because Kubernetes mounts secrets by them. Raises CredentialError.
    """
    try:
        why_not = why_not_trusted(path, strict=True)
    except OSError as problem:
        # A word that is no path may be a secret by mistake; a path in a folder that is there is not.
        shown = f"{path}: " if os.path.dirname(path) != "/" and os.path.isdir(os.path.dirname(path)) else ""
        raise CredentialError(f"{what} cannot be read: {shown}{problem.strerror}") from problem
    if why_not is not None:
        reason, remedy = why_not
        raise CredentialError(f"{what} is not used: {path}: {reason}", f"run: {remedy}")


def read_own_file(path: str, what: str, longest: int) -> bytes:
    """Return the content of a file that `check_own_file` accepts. Raises CredentialError, also if it is longer."""
    check_own_file(path, what)
    try:
        data = read_file(path, longest + 1)
    except OSError as problem:
        raise CredentialError(f"{what} cannot be read: {path}: {problem.strerror}") from problem
    if len(data) > longest:
        raise CredentialError(f"{what} is over {longest} bytes long: {path}")
    return data


class ChangingFile:
    """A file that a long-lived process reads again when it changes, without a signal.

    If a change cannot be used, the content from before stays in force.
    """

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
