"""Bitbucket's tokens for the installation of a Connect app: a look-up and a swap, and what earlier ones have shown."""

from git_credential_bbjwt.core.failures import (
    AnothersWorkspaceError,
    BudgetSpentError,
    ConnectionFailedError,
    RefusedError,
    UndecidedError,
)
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.catalogue import warn_of_exposed
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.system.digest import digest
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.session import Session


class Connect:
    """The vendor for one installation of a Connect app."""

    opens_workspace = False

    def __init__(self, installation: Installation, session: Session) -> None:
        self.identity = installation.identity
        self._installation = installation
        self._session = session

    def token(self, repository: Repository, scope: str, refused: list[str]) -> Token | None:  # noqa: ARG002  # a new token is never a refused one
        """Return a new token for ``repository``, None if Bitbucket says that another workspace has it.

        Raises CredentialError.
        """
        if self._installation.is_exposed:
            warn_of_exposed(self._installation.where)
        if self._installation.is_surely_for(repository):
            return self._mint(repository, scope)
        # The payload names no slug, so Bitbucket alone knows whose repository this is.
        try:
            return self._mint(repository, scope)
        except AnothersWorkspaceError:
            return None
        except RefusedError as refusal:
            if refusal.is_about_repository:
                trace(f"{refusal.what}: not of this installation")
                return None
            raise UndecidedError(refusal.what, refusal.hint) from refusal
        except (BudgetSpentError, ConnectionFailedError) as failure:
            raise UndecidedError(failure.what, failure.hint) from failure

    def _mint(self, repository: Repository, scope: str) -> Token:
        session, installation = self._session, self._installation
        keys = RefusalKeys(installation, repository, scope)
        session.failures.check(keys.all())
        remembered = None if repository.uuid is not None else session.uuids.find(repository)
        needs_api = repository.uuid is None or not installation.is_surely_for(repository)
        try:
            with session.bitbucket(installation, repository, needs_api=needs_api) as bitbucket:
                uuid, minted = bitbucket.mint(repository, scope, installation.workspace_uuid, remembered)
        except RefusedError as refusal:
            key = keys.of(refusal)
            if key:
                session.failures.note(key, refusal)
            if refusal.status == _NOT_FOUND and refusal.is_about_repository:
                session.uuids.forget(repository)
            raise
        session.failures.end(keys.all())
        if repository.uuid is None:
            session.uuids.remember(repository, uuid)
        trace(f"{repository.full_name}: a new token for {uuid}, scope {scope}, for {minted.expires - minted.minted} s")
        return Token(minted.token, expires=minted.expires, minted=minted.minted, uuid=uuid)


class RefusalKeys:
    """What a refusal of a mint is remembered for: as little as is certain, so that it stops no other clone."""

    def __init__(self, installation: Installation, repository: Repository, scope: str) -> None:
        identity = installation.identity
        about = (repository.host, repository.full_name)
        self.installation = digest(identity, "all")
        self._look_ups = digest(identity, "look-ups")
        self._swaps = digest(identity, "swaps")
        self._repository = digest(identity, "look-up", *about)
        self._scope = digest(identity, "swap", *about, scope)

    def all(self) -> list[str]:
        """Return each key that may have a refusal of this mint."""
        return [self.installation, self._look_ups, self._swaps, self._repository, self._scope]

    def of(self, refusal: RefusedError) -> str:
        """Return the key for ``refusal``; empty if it says nothing about the next call."""
        if refusal.status == _GONE or (refusal.status == _UNAUTHORIZED and not refusal.is_of_swap):
            return self.installation
        if refusal.status == _TOO_MANY and refusal.is_used_up:
            return self._swaps if refusal.is_of_swap else self._look_ups
        if refusal.is_about_repository:
            return self._repository
        if refusal.is_of_swap and refusal.status in (_BAD_REQUEST, _UNAUTHORIZED):
            return self._scope
        return ""


_BAD_REQUEST, _UNAUTHORIZED, _NOT_FOUND, _GONE, _TOO_MANY = 400, 401, 404, 410, 429


def look_up_name(repository: Repository, installation: Installation, session: Session) -> str:
    """Return ``workspace/slug`` of a repository named by UUIDs. Raises CredentialError."""
    with session.bitbucket(installation, repository, needs_api=True) as bitbucket:
        return bitbucket.full_name(repository)


def look_up_workspace(installation: Installation, session: Session) -> str:
    """Return the slug of the workspace whose UUID ``installation`` names. Raises CredentialError."""
    with session.bitbucket(installation, None, needs_api=True) as bitbucket:
        return bitbucket.workspace_slug(installation.workspace_uuid)
