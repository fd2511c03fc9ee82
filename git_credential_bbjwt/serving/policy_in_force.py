"""The https broker's configuration as it is in force: read again when its file changes, with the keys it needs."""

import os
import threading
import time
from typing import NamedTuple

from git_credential_bbjwt.core.output import error
from git_credential_bbjwt.serving.https_audit import Log
from git_credential_bbjwt.serving.identities import Keys
from git_credential_bbjwt.serving.issuer_keys import PATIENCE, IssuerKeys, IssuerKeysInFile, fetcher
from git_credential_bbjwt.serving.policy import Policy, PolicyError, read_policy

# Seconds between two looks at the file.
_BETWEEN_LOOKS = 1.0


class State(NamedTuple):
    """One configuration, with what belongs to it."""

    policy: Policy
    keys: dict[str, Keys]
    log: Log


class PolicyInForce:
    """The configuration in a file, for all threads of a process. A broken change leaves the one before in force."""

    def __init__(self, path: str) -> None:
        """Read it. Raises PolicyError."""
        self._path = path
        self._seen = self._stamp()
        self._state = _state_of(read_policy(path), None)
        self._lock = threading.Lock()
        self._next_look = 0.0
        self._complaint = ""

    def begin(self) -> None:
        """Fetch the keys of all issuers, side by side, and wait for them for a while. Once in each process."""
        self._lock = threading.Lock()
        self._state = _state_of(self._state.policy, None)
        end = time.monotonic() + PATIENCE
        for event in [keys.begin() for keys in self._state.keys.values()]:
            if event is not None:
                event.wait(max(0.0, end - time.monotonic()))

    def current(self) -> State:
        """Return what is in force, after a look at the file if the last one was a second ago."""
        if time.monotonic() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._look()
                self._next_look = time.monotonic() + _BETWEEN_LOOKS
            finally:
                self._lock.release()
        return self._state

    def _look(self) -> None:
        stamp = self._stamp()
        if stamp == self._seen and not self._complaint:
            return
        try:
            state = _state_of(read_policy(self._path), self._state)
        except PolicyError as problem:
            if problem.what != self._complaint:
                error(f"{problem.what}; the configuration before stays in force", problem.hint)
            self._complaint = problem.what
            return
        for issuer, keys in state.keys.items():
            if keys is not self._state.keys.get(issuer):
                keys.begin()
        self._state, self._seen, self._complaint = state, stamp, ""

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _state_of(policy: Policy, before: State | None) -> State:
    """Return the state for a configuration; keys of the same issuer from the same place are those from before."""
    keys: dict[str, Keys] = {}
    for issuer in policy.issuers:
        source = policy.keys.get(issuer, "")
        if before is not None and issuer in before.keys and before.policy.keys.get(issuer, "") == source:
            keys[issuer] = before.keys[issuer]
        elif source.startswith("/"):
            keys[issuer] = IssuerKeysInFile(issuer, source)
        else:
            keys[issuer] = IssuerKeys(issuer, fetcher(issuer, source))
    log = before.log if before is not None and before.policy.audit == policy.audit else Log(policy.audit)
    return State(policy, keys, log)
