"""Limits of a broker's clients: on look-ups that find nothing, and on mints because a token was refused.

The counts are in the broker's own folder, so that all processes and threads of the broker share them. If a count cannot
be written, the request is refused, because the client could otherwise make any number of requests.
"""

import fcntl
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from git_credential_bbjwt.core.record import Record
from git_credential_bbjwt.serving.answer import DeniedError, TooManyError
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.system.private_folder import PrivateFolder
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.names import MINTING, MOST_LOOKUPS
from git_credential_bbjwt.tokens.rate_limit import RateLimit
from git_credential_bbjwt.tokens.slot import Slot
from git_credential_bbjwt.tokens.tidying import tidy

_Result = TypeVar("_Result")

# Seconds between two mints for one repository because a token was refused.
_BETWEEN_REFUSALS = 60

# Seconds for which a look-up is counted.
_LOOKUPS_WITHIN = 60

# Characters of the time in a place's file.
_LENGTH = 20

# Seconds between two looks for a free place.
_PAUSE = 0.05


class CannotLimitError(DeniedError):
    """The broker cannot write to its own folder, so it cannot limit its clients."""

    status = 502
    usual_hint = (
        "give the broker's user a folder: RuntimeDirectory= or CacheDirectory= in the unit, or a runtime folder of "
        "mode 0700 with room in it; --token-store none cannot be used"
    )


class MinuteCounter:
    """Counts this process's events of each kind, minute by minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute = 0
        self._counts: dict[object, int] = {}

    def count(self, kind: object) -> int:
        """Count an event; return how many there were in this minute."""
        with self._lock:
            minute = int(time.monotonic() // 60)
            if minute != self._minute:
                self._minute = minute
                self._counts.clear()
            self._counts[kind] = self._counts.get(kind, 0) + 1
            return self._counts[kind]

    def seconds_left(self) -> int:
        """Return the seconds until the next minute begins."""
        return 60 - int(time.monotonic() % 60)


@contextmanager
def lookup(cache: TokenCache, name: str, what: str, budget: Budget) -> Iterator["Place"]:
    """Hold one of `MOST_LOOKUPS` places for a look-up, whose files' names begin with ``name``.

    Each look-up holds a file locked while it is under way, and spends it for a minute if it is to be counted. So a
    burst of honest requests only waits for its turn, a killed process gives its place back, and no two processes can
    count at once. Raises TooManyError with the sentence ``what`` if all places are spent; BudgetSpentError,
    CannotLimitError.
    """
    budget.doing = "waiting for other look-ups of this broker"
    while (place := _free_place(cache, name, what)) is None:
        budget.remaining()
        time.sleep(_PAUSE)
    try:
        yield place
    finally:
        place.close()


def _free_place(cache: TokenCache, name: str, what: str) -> "Place | None":
    """Return a place that is neither spent nor held; None if a place that is held may become free."""
    folder = cache.notes
    assert folder is not None
    waits = []
    for number in range(MOST_LOOKUPS):
        try:
            place = with_room(cache, functools.partial(Place, folder, f"{name}~{number:02}"))
        except BlockingIOError:
            waits.append(0.0)
            continue
        left = place.seconds_spent()
        if left <= 0:
            return place
        place.close()
        waits.append(left)
    if min(waits) > 0:
        raise TooManyError(what, min(waits))
    return None


class Place:
    """One look-up's place, held until it is closed."""

    def __init__(self, folder: PrivateFolder, name: str) -> None:
        """Raise BlockingIOError for a place that is held, OSError if it cannot be opened."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(name, flags, 0o600, dir_fd=folder.fd)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(self._fd).st_size:  # If there is no room to count the look-up, it must not be made.
                os.pwrite(self._fd, b"0" * _LENGTH, 0)
        except BaseException:
            os.close(self._fd)
            raise

    def seconds_spent(self) -> float:
        """Return the seconds until the place can be used again; 0 if it can be used now."""
        text = os.pread(self._fd, _LENGTH, 0).strip()
        age = time.time() - (int(text) if text.isdigit() else 0)
        return _LOOKUPS_WITHIN - age if 0 <= age < _LOOKUPS_WITHIN else 0.0

    def spend(self) -> None:
        """Count the look-up. Raises CannotLimitError."""
        try:
            os.pwrite(self._fd, f"{int(time.time()):0{_LENGTH}}".encode(), 0)
        except OSError as problem:
            raise _cannot_write(problem) from problem

    def close(self) -> None:
        """Give the place back."""
        os.close(self._fd)


@contextmanager
def noting_mint(cache: TokenCache, slot: Slot, record: Record | None, refused: list[str]) -> Iterator[None]:
    """Note that a token is being requested, and limit mints because of refused tokens to one a minute.

    ``refused`` are fingerprints. Raises TooManyError, CannotLimitError.
    """
    limit = RateLimit(cache, slot.name + MINTING, most=1, seconds=_BETWEEN_REFUSALS)
    is_refused = record is not None and record.fingerprint in refused and record.is_in_time()
    wait = limit.wait()
    if is_refused and wait:
        ago = _BETWEEN_REFUSALS - wait
        raise TooManyError(
            f"a new token for {slot.repository.full_name} was made {ago} s ago because one was refused", wait
        )
    with_room(cache, limit.count if is_refused else limit.touch)
    try:
        yield
    finally:
        if not limit.wait():
            cache.remove(slot.name + MINTING)


def with_room(cache: TokenCache, write: Callable[[], _Result], *, may_tidy: bool = True) -> _Result:
    """Write to the broker's folder; if that fails, remove all that is past its end and try once more.

    Raises BlockingIOError for a lock that is held, CannotLimitError.
    """
    try:
        return write()
    except BlockingIOError:
        raise
    except OSError as problem:
        if not may_tidy:
            raise _cannot_write(problem) from problem
    tidy(cache, everything=True)
    return with_room(cache, write, may_tidy=False)


def tidy_folder(path: str | None) -> None:
    """Remove expired files from the broker's folder ``path``, a part at a time. Call this after the answer."""
    cache = TokenCache.open(create=False, is_brokers=True, operators_folder=path)
    try:
        tidy(cache)
    finally:
        cache.close()


def _cannot_write(problem: OSError) -> CannotLimitError:
    return CannotLimitError(f"this broker cannot write to its own folder: {problem.strerror}")
