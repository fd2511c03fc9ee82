"""Refusals of Bitbucket's, remembered for half a minute: what was just refused is not asked again by the next process.

A wrong secret under 200 submodules would be 400 refused requests otherwise. Each is remembered as narrowly as it is
certain (README, "How it works"), in a file of its own beside the tokens; it holds no token and no secret.
"""

import json
import threading
import time

from git_credential_bbjwt.core.failures import RefusedError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.system.private_folder import PrivateFolder
from git_credential_bbjwt.tokens.cache import REFUSALS, TokenCache

#: Seconds for which a refusal counts.
LIFE = 30

#: How many are remembered at most.
MOST = 1000


class Refusals:
    """The refusals that this user's processes have met lately."""

    def __init__(self, *, ask_all_the_same: bool) -> None:
        """``ask_all_the_same`` is for a person's command: it asks anew, except what it has asked itself."""
        self._since = time.time() if ask_all_the_same else 0.0
        self._lock = threading.Lock()  # Mints side by side may meet the same refusal.

    def check(self, keys: list[str]) -> None:
        """Raise the RefusedError that is remembered under one of ``keys``, with its age, if there is one."""
        folder = TokenCache.open(create=False).folder
        if folder is None:
            return
        for key in keys:
            name = f"{REFUSALS}/{key}"
            age = folder.age(name)
            if not 0 <= age < LIFE or time.time() - age < self._since:
                continue
            try:
                found = json.loads(folder.read(name) or b"")
                refusal = RefusedError(
                    f"{found['what']} (so it was {age:.0f} s ago, and is not asked again for {LIFE} s)",
                    f"git-credential-bbjwt token URL asks at once; {found['hint']}",
                    status=int(found["status"]),
                    is_about_repository=bool(found["is_about_repository"]),
                )
            except (ValueError, KeyError, TypeError):
                continue
            refusal.is_remembered = True
            raise refusal

    def note(self, key: str, refusal: RefusedError) -> None:
        """Remember ``refusal`` under ``key``; one that was itself remembered is not prolonged."""
        cache = TokenCache.open(create=True)
        if cache.folder is None or refusal.is_remembered:
            return
        content = {
            "what": refusal.what,
            "hint": refusal.hint,
            "status": refusal.status,
            "is_about_repository": refusal.is_about_repository,
        }
        try:
            with self._lock:
                names = cache.folder.names(REFUSALS)
                if len(names) >= MOST:
                    _make_room(cache.folder, names)
                cache.write(f"{REFUSALS}/{key}", json.dumps(content).encode())
        except OSError as problem:
            trace(f"the refusal could not be remembered: {problem.strerror}")

    def end(self, keys: list[str]) -> None:
        """Forget what is remembered under ``keys``: it has just succeeded."""
        folder = TokenCache.open(create=False).folder
        if folder is None:
            return
        for key in keys:
            folder.remove(f"{REFUSALS}/{key}")


def _make_room(folder: PrivateFolder, names: list[str]) -> None:
    """Remove the older half, so that this is not to be done each time."""
    oldest_first = sorted(names, key=lambda name: -folder.age(f"{REFUSALS}/{name}"))
    for name in oldest_first[: len(names) - MOST // 2]:
        folder.remove(f"{REFUSALS}/{name}")


def forget_all() -> None:
    """Forget every refusal."""
    for cache in TokenCache.every_folder():
        if cache.folder is not None:
            for name in cache.folder.names(REFUSALS):
                cache.folder.remove(f"{REFUSALS}/{name}")
            cache.folder.remove_folder(REFUSALS)
