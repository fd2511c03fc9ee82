"""Who may give a token for a repository, and what each has to do for it: mint one, run a command, ask a broker."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from json import loads

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.failures import (
    AnothersWorkspaceError,
    BudgetSpentError,
    ConnectionFailedError,
    InstallationError,
    RefusedError,
    UndecidedError,
)
from git_credential_bbjwt.core.output import hide, trace
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.git.http_settings import HttpSettings
from git_credential_bbjwt.git.protocol import USERNAME
from git_credential_bbjwt.installations.asked import Asked, Command
from git_credential_bbjwt.installations.catalogue import warn_of_exposed
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.system.digest import digest
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.record import BROKERED
from git_credential_bbjwt.tokens.refusals import Refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.bitbucket.announcements import Announcement
    from git_credential_bbjwt.bitbucket.api import Bitbucket
    from git_credential_bbjwt.bitbucket.signing import Signer
    from git_credential_bbjwt.network.connections import Connections


class Grant:
    """A token ready to be handed out.

    ``expires`` is a Unix time, None where a broker did not say; ``minted`` is that of the request. ``uuid`` is empty
    where a broker gave the token. ``cached`` tells that it was not got just now.
    """

    def __init__(
        self, token: str, expires: int | None, uuid: str, *, cached: bool, minted: int, username: str = USERNAME
    ) -> None:
        self.token = token
        self.expires = expires
        self.uuid = uuid
        self.cached = cached
        self.minted = minted
        self.username = username


class Session:
    """What the mints of one call share: its budget, its refusals, its signers and connections."""

    def __init__(self, budget: Budget, *, ask_all_the_same: bool) -> None:
        """``ask_all_the_same`` is for a person's command, for which earlier refusals do not count."""
        self.budget = budget
        self.refusals = Refusals(ask_all_the_same=ask_all_the_same)
        self._signers: dict[str, Signer] = {}
        self._settings: HttpSettings | None = None
        self._connections: Connections | None = None
        #: What Bitbucket's answers announced, if anything.
        self.announcement: Announcement | None = None
        #: Whether anybody was asked: Bitbucket, a command, a broker.
        self.has_asked = False
        self._lock = threading.Lock()

    @contextmanager
    def bitbucket(
        self, installation: Installation, repository: Repository | None, *, needs_api: bool
    ) -> "Iterator[Bitbucket]":
        """Give Bitbucket as ``installation`` sees it, for one mint or look-up. Raises CredentialError.

        The way to it is the one that git would go for ``repository``.
        """
        self.has_asked = True
        with self._lock:
            if self._settings is None:
                self._settings = HttpSettings()  # Git works while the rest is imported.
            if installation.identity not in self._signers:
                self._signers[installation.identity] = _signer(installation)
            signer = self._signers[installation.identity]

            from git_credential_bbjwt.network.connections import Connections

            if self._connections is None:
                self._connections = Connections(self.budget, self._settings)
        path = "" if repository is None else f"/{repository.full_name}.git"
        base = self._connections.take(installation.base_url, path)
        api = self._connections.take(installation.base_api_url) if needs_api else None

        from git_credential_bbjwt.bitbucket.api import Bitbucket  # Both connections are being opened by now.

        bitbucket = Bitbucket(base, api, signer)
        try:
            yield bitbucket
        finally:
            self.announcement = bitbucket.announcement or self.announcement
            for origin in (base, api):
                if origin is not None and origin.is_idle:
                    self._connections.give_back(origin)


class Grantor:
    """Who may give a token for a repository. ``identity`` is the same only for the same one with the same secret."""

    identity: str

    def grant(self, repository: Repository, scope: str, refused: list[str]) -> Grant | None:
        """Return a new token, none of the ``refused`` ones; None for "not mine". Raises CredentialError."""
        raise NotImplementedError


class _FromInstallation(Grantor):
    def __init__(self, installation: Installation, session: Session) -> None:
        self.identity = installation.identity
        self._installation = installation
        self._session = session

    def grant(self, repository: Repository, scope: str, refused: list[str]) -> Grant | None:  # noqa: ARG002  # a new mint is never a refused token
        if self._installation.is_exposed:
            warn_of_exposed(self._installation.where)
        mint = _Mint(self._installation, repository, scope, self._session)
        if self._installation.is_surely_for(repository):
            return mint.grant()
        # The payload names no slug: of a workspace that Bitbucket says is another, or does not show, it says nothing.
        try:
            return mint.grant()
        except AnothersWorkspaceError:
            return None
        except RefusedError as refusal:
            if refusal.is_about_repository:
                trace(f"{refusal.what}: not of this installation")
                return None
            raise UndecidedError(refusal.what, refusal.hint) from refusal
        except (BudgetSpentError, ConnectionFailedError) as failure:
            raise UndecidedError(failure.what, failure.hint) from failure


class _FromCommand(Grantor):
    def __init__(self, asked: Asked, session: Session) -> None:
        self.identity = digest("command", asked.how)
        self._asked = asked
        self._session = session

    def grant(self, repository: Repository, scope: str, refused: list[str]) -> Grant | None:  # noqa: ARG002  # a new mint is never a refused token
        from git_credential_bbjwt.vendors.command import ask_command

        self._session.has_asked = True
        self._session.budget.doing = f"waiting for {self._asked.where}"
        installation = ask_command(self._asked, repository)
        return None if installation is None else _Mint(installation, repository, scope, self._session).grant()


class _FromBroker(Grantor):
    def __init__(self, asked: Asked, session: Session) -> None:
        self.identity = BROKERED + digest(asked.how)
        self._where = asked.how
        self._session = session

    def grant(self, repository: Repository, scope: str, refused: list[str]) -> Grant | None:  # noqa: ARG002  # the broker's side has the scope
        from git_credential_bbjwt.vendors.broker import ask

        asked_at = int(time.time())
        given = ask(self._where, repository, refused, self._session.budget)
        if given is None:
            return None
        return Grant(given.token, given.expires, "", cached=False, minted=asked_at, username=given.username)


def grantor(one: Installation | Asked, session: Session) -> Grantor:
    """Who gives a token, by what it is that answers."""
    if isinstance(one, Installation):
        return _FromInstallation(one, session)
    return _FromCommand(one, session) if isinstance(one, Command) else _FromBroker(one, session)


class _Mint:
    """One mint of an installation's, with what earlier ones learned: refusals, and the repository's UUID."""

    def __init__(self, installation: Installation, repository: Repository, scope: str, session: Session) -> None:
        self._installation = installation
        self._repository = repository
        self._scope = scope
        self._session = session
        self._refusals = session.refusals

    def grant(self) -> Grant:
        """Return a new token. Raises CredentialError."""
        repository, installation = self._repository, self._installation
        self._refusals.check(self._keys())
        cache = TokenCache.open(create=False)
        remembered = None if repository.uuid is not None else cache.remembered_uuid(repository)
        needs_api = repository.uuid is None or not installation.is_surely_for(repository)
        try:
            with self._session.bitbucket(installation, repository, needs_api=needs_api) as bitbucket:
                uuid, minted = bitbucket.mint(repository, self._scope, installation.workspace_uuid, remembered)
        except RefusedError as refusal:
            key = self._key_of(refusal)
            if key:
                self._refusals.note(key, refusal)
            if refusal.status == _NOT_FOUND and refusal.is_about_repository:
                cache.forget_uuid(repository)
            raise
        self._refusals.end(self._keys())
        if repository.uuid is None and uuid != remembered:
            cache.remember_uuid(repository, uuid)
        trace(
            f"{repository.full_name}: a new token for {uuid}, scope {self._scope}, Unix time {minted.expires} ends it"
        )
        return Grant(minted.token, minted.expires, uuid, cached=False, minted=minted.minted)

    def _keys(self) -> list[str]:
        return [self._key(*about) for about in (_ALL, _LOOK_UPS, _SWAPS, self._this_look_up(), self._this_swap())]

    def _key(self, *about: str) -> str:
        return digest(self._installation.identity, *about)

    def _this_look_up(self) -> tuple[str, ...]:
        return ("look-up", self._repository.host, self._repository.full_name)

    def _this_swap(self) -> tuple[str, ...]:
        return ("swap", self._repository.host, self._repository.full_name, self._scope)

    def _key_of(self, refusal: RefusedError) -> str:
        """What ``refusal`` is certain of, no more; empty where that is nothing for the next call."""
        if refusal.status == _GONE or (refusal.status == _UNAUTHORIZED and not refusal.is_of_swap):
            return self._key(*_ALL)
        if refusal.status == _TOO_MANY and refusal.is_used_up:
            return self._key(*(_SWAPS if refusal.is_of_swap else _LOOK_UPS))
        if refusal.is_about_repository:
            return self._key(*self._this_look_up())
        if refusal.is_of_swap and refusal.status in (_BAD_REQUEST, _UNAUTHORIZED):
            return self._key(*self._this_swap())
        return ""


# What a refusal may be about beside one repository: the whole installation, or one kind of its requests.
_ALL, _LOOK_UPS, _SWAPS = ("all",), ("look-ups",), ("swaps",)

_BAD_REQUEST, _UNAUTHORIZED, _NOT_FOUND, _GONE, _TOO_MANY = 400, 401, 404, 410, 429


def look_up_name(repository: Repository, installation: Installation, session: Session) -> str:
    """Return ``workspace/slug`` of a repository named by UUIDs. Raises CredentialError."""
    with session.bitbucket(installation, repository, needs_api=True) as bitbucket:
        return bitbucket.full_name(repository)


def look_up_workspace(installation: Installation, session: Session) -> str:
    """Return the slug of the workspace whose UUID ``installation`` names. Raises CredentialError."""
    with session.bitbucket(installation, None, needs_api=True) as bitbucket:
        return bitbucket.workspace_slug(installation.workspace_uuid)


def _signer(installation: Installation) -> "Signer":
    if installation.jwt:
        check_jwt_not_expired(installation)

        from git_credential_bbjwt.bitbucket.signing import PresignedJwt

        return PresignedJwt(installation.jwt)

    from git_credential_bbjwt.secret_stores.secret_store import shared_secret_of

    # First of all the keyring, the slowest of those who work at the same time: it goes on during the next import.
    shared_secret = shared_secret_of(installation)

    from git_credential_bbjwt.bitbucket.signing import SecretSigner

    return SecretSigner(installation.app_key, installation.client_key, shared_secret)


def check_jwt_not_expired(installation: Installation) -> None:
    """Raise InstallationError for a JWT that has expired, or is none. Its signature is Bitbucket's to check."""
    from base64 import urlsafe_b64decode

    hint = "get a new one where the secret is: git-credential-bbjwt jwt WORKSPACE"
    hide(installation.jwt)
    try:
        claims = installation.jwt.split(".")[1]
        expires = float(loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expires))
    except (ValueError, LookupError, TypeError, OverflowError, OSError) as problem:
        raise InstallationError(f"{installation.where} does not contain a JWT", hint) from problem
    if expires <= time.time():
        raise InstallationError(f"the JWT in {installation.where} expired at {when}", hint)
