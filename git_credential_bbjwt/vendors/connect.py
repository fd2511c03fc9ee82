"""Tokens from Bitbucket for an installation of a Connect app, by a look-up and a swap."""

import threading
from collections.abc import Callable

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import (
    AnothersWorkspaceError,
    BadAnswerError,
    BudgetSpentError,
    ConnectionFailedError,
    CredentialError,
    RefusedError,
    UndecidedError,
)
from git_credential_bbjwt.core.output import trace, warning
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.catalogue import warn_of_exposed
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.tokens.names import OUTAGE_LIFE
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import TokenRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.bitbucket.api import Bitbucket
    from git_credential_bbjwt.bitbucket.responses import AccessToken


class Connect:
    """The vendor for one installation of a Connect app."""

    opens_workspace = False

    def __init__(self, installation: Installation, session: Session) -> None:
        self.identity = installation.identity
        self._installation = installation
        self._session = session

    def token(self, request: TokenRequest) -> Token | None:
        """Return a new token; None if Bitbucket says that the repository belongs to another workspace.

        Raises CredentialError.
        """
        if self._installation.is_exposed:
            warn_of_exposed(self._installation.where)
        if self._installation.names(request.repository.workspace):
            return self._mint(request.repository, request.scope)
        # The payload names no slug, so only Bitbucket knows whose repository this is.
        try:
            return self._mint(request.repository, request.scope)
        except AnothersWorkspaceError as other:
            trace(other.what)
            return None
        except RefusedError as refusal:
            if refusal.is_about_repository:
                trace(f"{refusal.what}, so it does not belong to this installation")
                return None
            raise UndecidedError(refusal.what, refusal.hint) from refusal
        except (BadAnswerError, BudgetSpentError, ConnectionFailedError) as failure:
            raise UndecidedError(failure.what, failure.hint) from failure

    def _mint(self, repository: Repository, scope: str) -> Token:
        session = self._session
        keys = RefusalKeys(self._installation, repository, scope)
        mint = _Mint(self.identity, self._installation, repository, scope, session, keys)
        skipped = keys.look_ups if mint.skips_look_up else None
        session.failures.check([key for key in keys.all() if key != skipped])
        try:
            token = mint.token()
        except RefusedError as refusal:
            refusal.installation = keys.installation
            key = keys.of(refusal)
            if key:
                session.failures.note(key, refusal)
            if refusal.status == 404 and refusal.is_about_repository:
                session.uuids.forget(repository)
            raise
        session.failures.end(keys.all())
        return token


class RefusalKeys:
    """The keys under which a refusal is remembered, as narrow as possible, so that it does not stop other clones."""

    def __init__(self, installation: Installation, repository: Repository, scope: str) -> None:
        identity = installation.identity
        about = (repository.host, repository.full_name)
        self.installation = digest(identity, "all")
        self.look_ups = digest(identity, "look-ups")
        self._swaps = digest(identity, "swaps")
        self._repository = digest(identity, "look-up", *about)
        self._scope = digest(identity, "swap", *about, scope)

    def all(self) -> list[str]:
        """Return all keys of refusals that apply to this mint."""
        return [self.installation, self.look_ups, self._swaps, self._repository, self._scope]

    def of(self, refusal: RefusedError) -> str:
        """Return the key for ``refusal``; empty if the refusal does not apply to later calls."""
        if refusal.status == 410 or (refusal.status == 401 and not refusal.is_of_swap):
            return self.installation
        if refusal.status == 429 and refusal.is_used_up:
            return self._swaps if refusal.is_of_swap else self.look_ups
        if refusal.is_about_repository:
            return self._repository
        if refusal.is_of_swap and refusal.status in (400, 401):
            return self._scope
        return ""


class _Mint:
    """One mint: a look-up of the repository's UUID, and a swap for a token limited to that UUID.

    If the UUID is remembered, both requests are sent at once, and the token is used if the look-up confirms the UUID.
    Git works during an outage of the REST API (Bitbucket's status page: January 7, 2026, 95 minutes). So a remembered
    UUID is enough then, because the token opens only the repository that an earlier token opened.
    """

    def __init__(
        self,
        identity: str,
        installation: Installation,
        repository: Repository,
        scope: str,
        session: Session,
        keys: RefusalKeys,
    ) -> None:
        self._identity = identity
        self._installation = installation
        self._repository = repository
        self._scope = scope
        self._session = session
        self._by = digest(installation.app_key, installation.client_key, installation.base_url)
        self._keys = keys
        self._outage = digest(self._by, "outage")
        # The UUID that may be used if the look-up fails.
        self._known = None
        if repository.uuid is None:
            self._known = session.uuids.find(repository, by=self._by, within=session.uuids_within)

    @property
    def skips_look_up(self) -> bool:
        """Return whether recent look-ups failed, so that a remembered UUID is used at once."""
        if self._known is None or self._session.for_person:
            return False
        failures = self._session.failures
        return failures.has_been(self._outage, OUTAGE_LIFE) or failures.find(self._keys.look_ups) is not None

    def token(self) -> Token:
        """Return a new token. Raises CredentialError."""
        repository = self._repository
        is_confirmed = repository.uuid is not None and self._installation.names(repository.workspace)
        uuid = repository.uuid if is_confirmed else None
        if self.skips_look_up:
            uuid = self._known
        with self._session.bitbucket(self._installation, repository, needs_api=uuid is None) as bitbucket:
            if uuid is None:
                return self._looked_up(bitbucket)
            found = bitbucket.swap(self._scope, uuid)
        if is_confirmed:
            return self._token(found, uuid)
        return self._unconfirmed(found, uuid, "its last look-up failed")

    def _looked_up(self, bitbucket: "Bitbucket") -> Token:
        """Look up the UUID, and return a token for it.

        ``guess`` is the UUID in the URL, or the UUID that any installation found earlier. The swap for ``guess`` is
        sent together with the look-up, and its token is used only if the look-up returns the same UUID. ``known`` is
        the UUID that this installation found earlier. If the look-up fails in an outage, a token for ``known`` is used.
        """
        repository, known = self._repository, self._known
        # The REST API may refuse a JWT that was signed elsewhere. The look-up then needs a swap of its own.
        guess = repository.uuid or self._session.uuids.find(repository) if bitbucket.signs_each else None
        early = None if guess is None else _EarlySwap(lambda: bitbucket.swap(self._scope, guess))
        limit = None if known is None else min(_PATIENCE, self._session.budget.seconds / 2)
        try:
            uuid = bitbucket.look_up(repository, self._installation.workspace_uuid, limit)
        except (RefusedError, ConnectionFailedError, BudgetSpentError) as failure:
            if known is None or not _is_outage(failure):
                raise
            self._session.failures.note_time(self._outage)
            swapped = early.result() if early is not None and guess == known else bitbucket.swap(self._scope, known)
            return self._unconfirmed(swapped, known, failure.what)
        if repository.uuid is None:
            self._session.uuids.remember(repository, uuid, by=self._by)
        if early is not None and guess == uuid:
            return self._token(early.result(), uuid)
        if early is not None:
            trace(f"{repository.full_name}: this name now belongs to another repository; dropping the old one's token")
            early.wait()  # Both swaps use the same connection.
        return self._token(bitbucket.swap(self._scope, uuid), uuid)

    def _token(self, found: "AccessToken", uuid: str, *, may_be_kept: bool = True) -> Token:
        trace(
            f"{self._repository.full_name}: a new token for {uuid}, scope {self._scope}, for "
            f"{found.expires - found.minted} s"
        )
        return Token(
            found.token,
            identity=self._identity,
            expires=found.expires,
            minted=found.minted,
            uuid=uuid,
            may_be_kept=may_be_kept,
        )

    def _unconfirmed(self, found: "AccessToken", uuid: str, why: str) -> Token:
        warning(
            f"Bitbucket does not return the UUID of {self._repository.full_name} now ({why}); the token is for the "
            "repository that had this name at the last look-up"
        )
        return self._token(found, uuid, may_be_kept=False)


def _is_outage(failure: CredentialError) -> bool:
    """Return whether a look-up failed because the REST API is out of order or has no allowance left."""
    return not isinstance(failure, RefusedError) or failure.status == 429 or failure.status >= 500


# Seconds after which a look-up is given up if the UUID is remembered.
_PATIENCE = 10.0


class _EarlySwap:
    """A swap in another thread, which is sent before the look-up has returned."""

    def __init__(self, work: "Callable[[], AccessToken]") -> None:
        self._work = work
        self._found: AccessToken | None = None
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._work()
        except BaseException as problem:  # Raised again by the thread that waits.
            self._trouble = problem

    def wait(self) -> None:
        self._thread.join()

    def result(self) -> "AccessToken":
        """Return the token. Raises its CredentialError."""
        self.wait()
        if self._trouble is not None:
            raise self._trouble
        assert self._found is not None
        return self._found


def look_up_name(repository: Repository, installation: Installation, session: Session) -> str:
    """Return ``workspace/slug`` of a repository named by UUIDs. Raises CredentialError."""
    with session.bitbucket(installation, repository, needs_api=True) as bitbucket:
        return bitbucket.full_name(repository)


def look_up_workspace(installation: Installation, session: Session) -> str:
    """Return the slug of the workspace whose UUID ``installation`` names. Raises CredentialError."""
    with session.bitbucket(installation, None, needs_api=True) as bitbucket:
        return bitbucket.workspace_slug(installation.workspace_uuid)
