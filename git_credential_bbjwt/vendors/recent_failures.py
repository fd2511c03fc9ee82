"""Refusals by Bitbucket, remembered for `REFUSAL_LIFE`, so that the next process does not repeat a refused request.

Otherwise, a wrong secret in a clone with 200 submodules would lead to 400 refused requests. Each refusal is remembered
as narrowly as possible (`connect.RefusalKeys`), in its own file among the notes of the token cache. The file contains
neither a token nor a secret.
"""

import json
import threading
import time

from git_credential_bbjwt.core.failures import BroaderScopeError, RefusedError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.system.private_folder import PrivateFolder
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.names import REFUSAL_LIFE, REFUSALS

#: Limit of the remembered refusals.
MOST = 1000

# The members of a RefusedError that are remembered, besides its text and status.
_KINDS = ("is_about_repository", "is_of_swap", "is_unknown_grant")


class RecentFailures:
    """The refusals that this user's processes have received within `REFUSAL_LIFE`."""

    def __init__(self, cache: TokenCache, *, for_person: bool) -> None:
        """With ``for_person``, ignore refusals from before this call, because a person's command tries again."""
        self._cache = cache
        self._since = time.time() if for_person else 0.0
        self._lock = threading.Lock()  # Parallel mints may receive the same refusal.

    def check(self, keys: list[str]) -> None:
        """Raise the refusal that is remembered under one of ``keys``, with its age, if there is one."""
        for key in keys:
            refusal = self.find(key)
            if refusal is not None:
                raise refusal

    def find(self, key: str) -> RefusedError | BroaderScopeError | None:
        """Return the refusal that is remembered under ``key``, with its age in its text."""
        name = f"{REFUSALS}/{key}"
        age = self._cache.age(name)
        if age is None or age >= REFUSAL_LIFE or time.time() - age < self._since:
            return None
        try:
            found = json.loads(self._cache.read(name) or b"")
            left = max(1, round(REFUSAL_LIFE - age))
            what = f"{found['what']} (this was {age:.0f} s ago; the helper asks again in {left} s)"
            hint = f"git-credential-bbjwt token URL asks at once; {found['hint']}"
            if found["is_broader"]:
                return BroaderScopeError(what, hint)
            kinds = {name: bool(found[name]) for name in _KINDS}
            refusal = RefusedError(what, hint, status=int(found["status"]), **kinds)
        except (ValueError, KeyError, TypeError):
            return None
        refusal.is_remembered = True
        return refusal

    def note(self, key: str, refusal: RefusedError | BroaderScopeError) -> None:
        """Remember ``refusal`` under ``key``, unless it was itself remembered: that does not extend its time."""
        content: dict[str, object] = {"what": refusal.what, "hint": refusal.hint, "is_broader": True}
        if isinstance(refusal, RefusedError):
            if refusal.is_remembered:
                return
            content |= {"is_broader": False, "status": refusal.status}
            content |= {name: getattr(refusal, name) for name in _KINDS}
        folder = self._cache.make_notes()
        if folder is None:
            return
        try:
            with self._lock:
                names = folder.names(REFUSALS)
                if len(names) >= MOST:
                    _make_room(folder, names)
                self._cache.write(f"{REFUSALS}/{key}", json.dumps(content).encode())
        except OSError as problem:
            trace(f"the refusal could not be remembered: {problem.strerror}")

    def note_time(self, key: str) -> None:
        """Note the present time under ``key``."""
        if self._cache.make_notes() is not None:
            self._cache.note(f"{REFUSALS}/{key}", b"{}")

    def has_been(self, key: str, seconds: float) -> bool:
        """Return whether `note_time` was called for ``key`` in the last ``seconds``."""
        age = self._cache.age(f"{REFUSALS}/{key}")
        return age is not None and age < seconds

    def end(self, keys: list[str]) -> None:
        """Forget the refusals under ``keys``, because their requests have just succeeded."""
        for key in keys:
            self._cache.remove(f"{REFUSALS}/{key}")


def _make_room(folder: PrivateFolder, names: list[str]) -> None:
    """Remove the older half of the refusals, so that this is not necessary each time."""
    oldest_first = sorted(names, key=lambda name: -folder.age(f"{REFUSALS}/{name}"))
    for name in oldest_first[: len(names) - MOST // 2]:
        folder.remove(f"{REFUSALS}/{name}")
