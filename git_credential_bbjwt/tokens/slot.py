"""A slot of the token cache: the place of one token, with its lock and its refused tokens."""

import contextlib
import time
from collections.abc import Iterator

from git_credential_bbjwt.core.failures import TooManyRefusedError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.core.record import CLOSED, Record, read_record, slot_name
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.system.lock import WAITING, FileLock
from git_credential_bbjwt.tokens.cache import TokenCache, write
from git_credential_bbjwt.tokens.names import CONNECT_WORKS, LOCK, REFUSED, REMINTS
from git_credential_bbjwt.tokens.rate_limit import RateLimit

#: Limit of replacements for refused tokens, and its period in seconds. If the server refuses each token, more tokens do
#: not help.
MOST_REMINTS = 5
REMINTS_WITHIN = 300

#: Seconds for which a repository gets no token after its newest one was refused, too.
CLOSED_FOR = 30

# Seconds. A workspace's token is replaced after a refusal only if it is older. A younger token has hardly been revoked,
# so the repository does not exist or is closed to the token.
_OLD_ENOUGH = 60

# Seconds for which a refused token is named to a broker if its end is not known.
_A_DAY = 86_400

# How many refused tokens of a slot are remembered; a request to a broker names fewer.
_MOST_REFUSED = 32


class Slot:
    """The place of the token for one repository, scope and app. A workspace's token has a repository without a name.

    If there is no folder for tokens, `find` returns None and `keep` does nothing.
    """

    def __init__(self, cache: TokenCache, repository: Repository, scope: str, app: str) -> None:
        self._cache = cache
        self.repository = repository
        self.scope = scope
        self.app = app
        self.name = slot_name(repository, scope, app, is_brokers=cache.is_brokers)

    def find(self) -> Record | None:
        """Return the slot's record, whatever its age; None if there is none."""
        if self._cache.tokens is None:
            return None
        return read_record(self._cache.tokens, self.name, self.repository, self.scope, self.app)

    def can_keep(self, *, opens_workspace: bool) -> bool:
        """Return whether a token may be kept here."""
        return self._cache.tokens is not None and (not opens_workspace or self._cache.keeps_workspace_tokens)

    def keep(self, record: Record) -> None:
        """Put ``record`` in place of its predecessor. Raises OSError; the predecessor is then unchanged."""
        if self._cache.tokens is not None:
            write(self._cache.tokens, self.name, record.to_bytes(), until=record.expires)

    def drop(self) -> None:
        """Remove the slot's record, if there is one."""
        if self._cache.tokens is not None:
            self._cache.tokens.remove(self.name)

    def forget(self, record: Record) -> None:
        """Remove ``record``, the slot's. If its token came from a broker, the broker must not return it again."""
        self.drop()
        self.reopen()
        if record.is_brokered:
            self.refuse(record.fingerprint, record.expires)

    @contextlib.contextmanager
    def lock(self, budget: Budget, of: str = "") -> Iterator[None]:
        """Hold the slot's lock, so that one process at a time gets a token for it; ``of`` names another lock.

        If no lock can be made, no token can be shared either, so the call continues without a lock.
        """
        with contextlib.ExitStack() as held:
            if self._cache.notes is not None:
                budget.doing = WAITING
                try:
                    self._cache.notes.make_folders(self.name.rpartition("/")[0])
                    held.enter_context(FileLock(self._cache.notes, self.name + (of or LOCK), may_wait=budget.remaining))
                except OSError as problem:
                    trace(f"no lock in {self._cache.notes.path}: {problem.strerror}")
            yield

    def count_remint(self) -> None:
        """Count a token that is minted because the server refused the previous one.

        Raises TooManyRefusedError if that has happened too often.
        """
        limit = RateLimit(self._cache, self.name + REMINTS, most=MOST_REMINTS, seconds=REMINTS_WITHIN)
        seconds = limit.wait()
        if seconds > 0:
            raise TooManyRefusedError(
                f"the server has refused {MOST_REMINTS} tokens for {self._described} within "
                f"{REMINTS_WITHIN // 60} minutes, so no more are requested",
                "read the server's message to git, then run: git-credential-bbjwt doctor URL",
                seconds,
            )
        limit.try_to_count()

    @property
    def _described(self) -> str:
        return self.repository.full_name if self.repository.name else f"the workspace {self.repository.workspace}"

    def close(self, record: Record | None) -> None:
        """Note that the newest token was refused, too, so that the repository gets none for `CLOSED_FOR` seconds.

        ``record`` is the slot's record; None if the refused token is the workspace's.
        """
        try:
            self._cache.write(self.name + CLOSED, b"\n")
            if record is not None:
                record.stamp = ""  # Without a stamp, it is not returned before the note is read.
                self.keep(record)
        except OSError as problem:
            trace(f"the refusal could not be noted: {problem.strerror}")

    def closed_for(self) -> int:
        """Return the seconds for which the repository still gets no token; 0 if the slot is not closed."""
        age = self._cache.age(self.name + CLOSED)
        return 0 if age is None or age >= CLOSED_FOR else max(1, round(CLOSED_FOR - age))

    def reopen(self) -> None:
        """Remove the note that `close` wrote."""
        self._cache.remove(self.name + CLOSED)

    def note_connect_works(self) -> None:
        """Note that a Connect app of the workspace has just received a token from Bitbucket."""
        self._cache.note(self.name + CONNECT_WORKS)

    def connect_works_since(self, when: float) -> bool:
        """Return whether a Connect app of the workspace has received a token since ``when`` (Unix time)."""
        age = self._cache.age(self.name + CONNECT_WORKS)
        return age is not None and time.time() - age > when

    def refused(self) -> list[str]:
        """Return the fingerprints of tokens that the server refused or that were forgotten, the newest last."""
        return [fingerprint for fingerprint, expires in self._refusals() if expires > time.time()]

    def refuse(self, fingerprint: str, expires: int | None) -> None:
        """Remember a token as refused until ``expires`` (Unix time), or for a day if ``expires`` is None."""
        until = int(time.time()) + _A_DAY if expires is None else expires
        others = [one for one in self._refusals() if one[0] != fingerprint and one[1] > time.time()]
        lines = [f"{one} {end}\n" for one, end in [*others, (fingerprint, until)][-_MOST_REFUSED:]]
        self._cache.note(self.name + REFUSED, "".join(lines).encode())

    def _refusals(self) -> list[tuple[str, int]]:
        found = []
        for line in (self._cache.read(self.name + REFUSED) or b"").decode("ascii", "replace").splitlines():
            fingerprint, _, expires = line.partition(" ")
            if expires.isdigit():
                found.append((fingerprint, int(expires)))
        return found


def may_be_replaced(slot: Slot, record: Record) -> bool:
    """Return whether a workspace's refused token may be replaced, and count the replacement.

    If it may not, it stays in use for other repositories.
    """
    if time.time() - record.minted < _OLD_ENOUGH:
        return False
    try:
        slot.count_remint()
    except TooManyRefusedError as too_many:
        trace(too_many.what)
        return False
    return True


def workspace_slot(cache: TokenCache, host: str, workspace: str, app: str) -> Slot:
    """Return the slot of a token that serves a whole workspace. It is the same for every requested scope."""
    return Slot(cache, Repository(host, workspace, ""), "", app)
