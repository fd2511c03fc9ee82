"""Limits on how often something may happen, counted in a file that all processes of the user share."""

import time

from git_credential_bbjwt.tokens.cache import TokenCache


class RateLimit:
    """At most ``most`` events within ``seconds``, counted in the cache's file ``name``.

    The caller must hold a lock on the file.
    """

    def __init__(self, cache: TokenCache, name: str, *, most: int, seconds: int) -> None:
        self._cache = cache
        self._name = name
        self._most = most
        self._seconds = seconds

    def wait(self) -> int:
        """Return the seconds until the next event is allowed; 0 if one is allowed now."""
        recent = self._recent()
        if len(recent) < self._most:
            return 0
        return recent[-self._most] + self._seconds - int(time.time())

    def count(self) -> None:
        """Count an event that happens now. Raises OSError."""
        self._cache.write(self._name, self._counted())

    def touch(self) -> None:
        """Write the file without an event, to find out whether it can be written. Raises OSError."""
        # Not empty, because a full disk still has room for an empty file.
        self._cache.write(self._name, _text(self._recent() or [0]))

    def try_to_count(self) -> None:
        """Count an event that happens now, if that can be written."""
        self._cache.note(self._name, self._counted())

    def _counted(self) -> bytes:
        return _text([*self._recent(), int(time.time())][-self._most :])

    def _recent(self) -> list[int]:
        """Return the Unix times of the events that still count, the newest last. Future times are ignored."""
        now = int(time.time())
        text = (self._cache.read(self._name) or b"").decode("ascii", "replace")
        times = [int(word) for word in text.split() if word.isascii() and word.isdigit() and len(word) < 18]
        return sorted(one for one in times if 0 <= now - one < self._seconds)


def _text(times: list[int]) -> bytes:
    return " ".join(map(str, times)).encode()
