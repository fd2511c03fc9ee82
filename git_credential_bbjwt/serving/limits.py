"""What one client can cost a broker: look-ups that find nothing, and mints because a token was refused.

All of it is in the broker's own folder, so that it holds for every process and every thread that answers. A limit that
cannot be written down is a refusal: nothing would bound the client.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.private_folder import PrivateFolder
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.names import MINTING, MOST_LOOKUPS
from git_credential_bbjwt.tokens.record import Record
from git_credential_bbjwt.tokens.slot import Slot
from git_credential_bbjwt.tokens.tidying import tidy

_Result = TypeVar("_Result")

# Seconds between two mints for one repository that refused tokens are the reason of.
_BETWEEN_REFUSALS = 60

# Seconds for which a look-up is counted.
_LOOKUPS_WITHIN = 60

# Characters of the time in a slot's file.
_LENGTH = 20

# Seconds between two looks for a free slot.
_PAUSE = 0.05

NO_FOLDER = "this broker has no token cache, which it needs to limit requests"

NO_FOLDER_HINT = (
    "give the broker's user a folder: RuntimeDirectory= or CacheDirectory= in the unit, or a runtime folder of mode "
    "0700 with room in it; --token-store none cannot be used"
)


class LimitError(CredentialError):
    """The broker has done as much as it does in a minute. ``seconds`` says when to ask again."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(what, f"ask again in {seconds:.0f} s")
        self.seconds = max(1, round(seconds))


class CannotLimitError(CredentialError):
    """The broker cannot write to its own folder, so nothing would bound the client."""

    usual_hint = NO_FOLDER_HINT


class LookupLimit:
    """At most `MOST_LOOKUPS` look-ups per minute, however many processes make them at the same time.

    Each look-up holds one of as many files locked while it is under way, and spends it for a minute if it is to be
    counted. So a burst of honest requests only waits for its turn, a killed process gives its place back, and no two
    processes can count at once.
    """

    def __init__(self, cache: TokenCache, name: str, what: str) -> None:
        """``name`` begins the files' names; ``what`` is the error for a client that finds every place spent."""
        self._cache = cache
        self._name = name
        self._what = what

    @contextmanager
    def one(self, budget: Budget) -> Iterator["Place"]:
        """Hold a place. Raises LimitError if all are spent, BudgetSpentError, CannotLimitError."""
        place = self._taken()
        while place is None:
            budget.remaining()
            time.sleep(_PAUSE)
            place = self._taken()
        try:
            yield place
        finally:
            place.close()

    def _taken(self) -> "Place | None":
        """A place that is neither spent nor held; None if one that is held may become free."""
        first_free: float | None = None
        for number in range(MOST_LOOKUPS):
            try:
                place = self._place(number)
            except BlockingIOError:
                first_free = 0.0
                continue
            left = place.seconds_spent()
            if left <= 0:
                return place
            place.close()
            first_free = left if first_free is None else min(first_free, left)
        if first_free:
            raise LimitError(self._what, first_free)
        return None

    def _place(self, number: int) -> "Place":
        folder = self._cache.notes
        assert folder is not None
        return with_room(self._cache, lambda: Place(folder, f"{self._name}~{number:02}"))


class Place:
    """One look-up's place, held until it is closed."""

    def __init__(self, folder: PrivateFolder, name: str) -> None:
        """Raise BlockingIOError for one that is held, OSError where it cannot be opened."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(name, flags, 0o600, dir_fd=folder.fd)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(self._fd).st_size:  # A look-up that cannot be counted must not be made: take the room now.
                os.pwrite(self._fd, b"0" * _LENGTH, 0)
        except BaseException:
            os.close(self._fd)
            raise

    def seconds_spent(self) -> float:
        """Return the seconds until the place can be used again; 0 if it can be used now."""
        spent = _seconds(os.pread(self._fd, _LENGTH, 0))
        age = time.time() - spent
        return _LOOKUPS_WITHIN - age if 0 <= age < _LOOKUPS_WITHIN else 0.0

    def spend(self) -> None:
        """Count the look-up. Raises CannotLimitError."""
        try:
            os.pwrite(self._fd, f"{int(time.time()):0{_LENGTH}}".encode(), 0)
        except OSError as problem:
            raise CannotLimitError(f"this broker cannot write to its own folder: {problem.strerror}") from problem

    def close(self) -> None:
        """Give the place back."""
        os.close(self._fd)


def tidy_folder(path: str | None) -> None:
    """Remove what is past its end in the broker's folder, `Rules.folder`; after an answer, a part at a time."""
    cache = TokenCache.open(create=False, is_brokers=True, operators_folder=path)
    try:
        tidy(cache)
    finally:
        cache.close()


def announce(cache: TokenCache, slot: Slot, record: Record | None, refused: list[str]) -> None:
    """Note that a token is about to be requested, and hold refused tokens to one mint a minute.

    ``refused`` are fingerprints. Raises LimitError, CannotLimitError.
    """
    now = int(time.time())
    last = int(_seconds(cache.read(slot.name + MINTING) or b""))
    if record is not None and record.fingerprint in refused and record.is_in_time():
        if 0 <= now - last < _BETWEEN_REFUSALS:
            raise LimitError(
                f"a new token for {slot.repository.full_name} was made {now - last} s ago because one was refused",
                _BETWEEN_REFUSALS - (now - last),
            )
        last = now
    with_room(cache, lambda: cache.write(slot.name + MINTING, str(last).encode()))


def with_room(cache: TokenCache, write: Callable[[], _Result]) -> _Result:
    """Write to the broker's folder; if that fails, remove all that is past its end and try once more.

    Raises BlockingIOError for a lock that is held, CannotLimitError.
    """
    try:
        return write()
    except BlockingIOError:
        raise
    except OSError:
        tidy(cache, everything=True)
    try:
        return write()
    except BlockingIOError:
        raise
    except OSError as problem:
        raise CannotLimitError(f"this broker cannot write to its own folder: {problem.strerror}") from problem


def end_announcement(cache: TokenCache, slot: Slot) -> None:
    """Remove the note of `announce`, unless it has to hold refused tokens to one mint a minute."""
    if not 0 <= time.time() - _seconds(cache.read(slot.name + MINTING) or b"") < _BETWEEN_REFUSALS:
        cache.remove(slot.name + MINTING)


def _seconds(content: bytes) -> float:
    """The Unix time in a file of the broker's; 0 where there is none."""
    text = content.decode("ascii", "replace").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) <= _LENGTH else 0.0
