"""The https broker's configuration as it is in force: read again when its file changes, with the keys it needs."""

import functools
import os
import threading
import time
from typing import NamedTuple

from git_credential_bbjwt.serving.audit import LONGEST_VALUE_BY_HTTPS, Audit, audit_to, to_standard_output
from git_credential_bbjwt.serving.issuer_keys import PATIENCE, FetchedKeys, IssuerKeys, KeysInFile, fetch_keys
from git_credential_bbjwt.serving.operators_files import ChangingFile
from git_credential_bbjwt.serving.policy import Policy, read_policy

# Seconds between two looks at the file.
_BETWEEN_LOOKS = 1.0


class State(NamedTuple):
    """One configuration, with what belongs to it."""

    policy: Policy
    keys: dict[str, IssuerKeys]
    audit: Audit


class PolicyInForce:
    """The configuration in a file, for all threads of a process. A broken change leaves the one before in force."""

    def __init__(self, path: str) -> None:
        """Read it, and fetch the keys that it needs. Raises PolicyError."""
        self._state: State | None = None
        self._file = ChangingFile(path, self._take, "the configuration before stays in force", _BETWEEN_LOOKS)
        self._file.read()
        self._lock = threading.Lock()
        self._process = 0
        self._begin()

    def _take(self, path: str) -> None:
        before = self._state
        self._state = _state_of(read_policy(path), before)
        for issuer, keys in self._state.keys.items():
            if before is not None and keys is not before.keys.get(issuer):
                keys.begin()

    def _begin(self) -> None:
        """Fetch the keys of all issuers, side by side, and wait for them for a while. Once in each process.

        uWSGI makes its workers right after this, and a worker hangs if another thread is running then. So this waits
        for the end of the threads, not only for the keys.
        """
        with self._lock:
            if self._process == os.getpid():
                return
            assert self._state is not None
            self._state = _state_of(self._state.policy, None)
            end = time.monotonic() + PATIENCE
            for fetching in [keys.begin() for keys in self._state.keys.values()]:
                if fetching is not None:
                    fetching.join(max(0.0, end - time.monotonic()))
            self._process = os.getpid()

    def current(self) -> State:
        """Return what is in force, after a look at the file if the last one was a second ago."""
        if self._process != os.getpid():  # The server loaded this before it made its workers.
            self._begin()
        self._file.look()
        assert self._state is not None
        return self._state


def _state_of(policy: Policy, before: State | None) -> State:
    """Return the state for a configuration; keys of the same issuer from the same place are those from before."""
    keys: dict[str, IssuerKeys] = {}
    for issuer in policy.issuers:
        source = policy.keys.get(issuer, "")
        if before is not None and issuer in before.keys and before.policy.keys.get(issuer, "") == source:
            keys[issuer] = before.keys[issuer]
        elif source.startswith("/"):
            keys[issuer] = KeysInFile(issuer, source)
        else:
            keys[issuer] = FetchedKeys(issuer, functools.partial(fetch_keys, issuer, source))
    if before is not None and before.policy.audit == policy.audit:
        return State(policy, keys, before.audit)
    write = to_standard_output if policy.audit == "-" else audit_to(policy.audit)
    return State(policy, keys, Audit(write, LONGEST_VALUE_BY_HTTPS))
