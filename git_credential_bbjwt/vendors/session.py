"""The budget, connections, signers, earlier refusals and UUIDs that the vendors of a call share."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from git_credential_bbjwt.core.failures import NEW_JWT, InstallationError
from git_credential_bbjwt.core.output import hide
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.git.http_settings import HttpSettings
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.uuids import UUID_LIFE, KnownUuids
from git_credential_bbjwt.vendors.recent_failures import RecentFailures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.bitbucket.announcements import Announcement
    from git_credential_bbjwt.bitbucket.api import Bitbucket
    from git_credential_bbjwt.bitbucket.responses import AccessToken
    from git_credential_bbjwt.bitbucket.signing import Signer
    from git_credential_bbjwt.network.connections import Connections


class Session:
    """The budget, connections, signers, earlier refusals and UUIDs that the vendors of a call share.

    ``for_person`` marks a command that a person runs. It ignores refusals from before the call.
    """

    def __init__(self, budget: Budget, cache: TokenCache, *, for_person: bool, uuids_within: float = UUID_LIFE) -> None:
        self.budget = budget
        self.cache = cache
        self.for_person = for_person
        #: Seconds for which a remembered UUID may replace a failed look-up.
        self.uuids_within = uuids_within
        self.failures = RecentFailures(cache, for_person=for_person)
        self.uuids = KnownUuids(cache)
        #: The last announcement in Bitbucket's responses.
        self.announcement: Announcement | None = None
        #: Whether a Connect app has received a token in this call.
        self.connect_works = False
        #: Whether Bitbucket, a command or a broker was asked.
        self.has_asked = False
        self._signers: dict[str, Signer] = {}
        self._proofs: dict[str, Callable[[], str]] = {}
        self._settings: HttpSettings | None = None
        self._connections: Connections | None = None
        self._lock = threading.Lock()

    @contextmanager
    def bitbucket(
        self, installation: Installation, repository: Repository | None, *, needs_api: bool
    ) -> "Iterator[Bitbucket]":
        """Provide Bitbucket for ``installation``, for one mint or look-up. Raises CredentialError.

        The route is git's route for ``repository``.
        """
        proof, connections = self._begin(installation)
        base = connections.take(installation.base_url, _path_of(repository))
        api = connections.take(installation.base_api_url) if needs_api else None
        base.prepare_tls()  # Meanwhile, TCP waits for both servers.

        from git_credential_bbjwt.bitbucket.api import Bitbucket

        bitbucket = Bitbucket(base, api, self._signer(installation, proof), installation.remedy)
        try:
            yield bitbucket
        finally:
            self.announcement = bitbucket.announcement or self.announcement
            connections.give_back(base)
            if api is not None:
                connections.give_back(api)

    def consumer_token(self, consumer: Installation, repository: Repository | None) -> "AccessToken":
        """Return a new token of an OAuth ``consumer``. The route is as for `bitbucket`. Raises CredentialError."""
        secret, connections = self._begin(consumer)
        base = connections.take(consumer.base_url, _path_of(repository))
        base.prepare_tls()

        from git_credential_bbjwt.bitbucket.consumer import consumer_token

        try:
            token, announcement = consumer_token(base, consumer.app_key, secret, consumer.remedy)
        finally:
            connections.give_back(base)
        self.announcement = announcement or self.announcement
        return token

    def _begin(self, installation: Installation) -> "tuple[Callable[[], str], Connections]":
        """Return a function for the installation's JWT or secret, its proof, which is fetched once; and connections."""
        self.has_asked = True
        with self._lock:
            if self._settings is None:
                self._settings = HttpSettings()  # Git runs while the rest is imported.
            if installation.identity not in self._proofs:
                self._proofs[installation.identity] = _proof_of(installation)
        return self._proofs[installation.identity], self.connections()

    def _signer(self, installation: Installation, proof: Callable[[], str]) -> "Signer":
        """Return the installation's signer, one per call, because it learns the difference of the clocks."""
        from git_credential_bbjwt.bitbucket.signing import PresignedJwt, SecretSigner

        with self._lock:
            if installation.identity not in self._signers:
                self._signers[installation.identity] = (
                    PresignedJwt(proof())
                    if installation.jwt
                    else SecretSigner(installation.app_key, installation.client_key, proof)
                )
            return self._signers[installation.identity]

    def connections(self) -> "Connections":
        """Return the connections of this call, which take git's routes."""
        with self._lock:
            if self._settings is None:
                self._settings = HttpSettings()

            from git_credential_bbjwt.network.connections import Connections

            if self._connections is None:
                self._connections = Connections(self.budget, self._settings)
            return self._connections

    def close(self) -> None:
        """Close the idle connections, in a process that goes on."""
        if self._connections is not None:
            self._connections.close()

    def abort(self) -> None:
        """End all exchanges that are under way, because nobody waits for them any longer."""
        if self._connections is not None:
            self._connections.abort()


def _path_of(repository: Repository | None) -> str:
    return "" if repository is None else f"/{repository.full_name}.git"


def _proof_of(installation: Installation) -> Callable[[], str]:
    """Return a function for the installation's JWT or secret; a keyring is asked now. Raises InstallationError."""
    if installation.jwt:
        check_jwt_not_expired(installation)
        return lambda: installation.jwt

    from git_credential_bbjwt.secret_stores.secret_store import shared_secret_of

    return shared_secret_of(installation)


def check_jwt_not_expired(installation: Installation) -> None:
    """Raise InstallationError for an expired JWT, and for anything that is not a JWT.

    Only Bitbucket checks the signature.
    """
    from git_credential_bbjwt.vendors.broker_answer import claims_in  # Slow to load, and seldom needed.

    hide(installation.jwt)
    try:
        expires = float(str(claims_in(installation.jwt)["exp"]))
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expires))
    except (ValueError, LookupError, OverflowError, OSError) as problem:
        raise InstallationError(f"{installation.where} does not contain a JWT", NEW_JWT) from problem
    if expires <= time.time():
        raise InstallationError(f"the JWT in {installation.where} expired at {when}", NEW_JWT)
