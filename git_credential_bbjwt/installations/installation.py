"""An installation: one Connect app or one OAuth consumer on one workspace, from any source."""

from enum import Enum
from typing import NamedTuple
from urllib.parse import urlsplit

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import NEW_JWT, InstallationError
from git_credential_bbjwt.core.repository import Repository, normal_host

CLOUD_BASE_URL = "https://bitbucket.org"
CLOUD_API_URL = "https://api.bitbucket.org"


class Kind(Enum):
    """The kind of an installation, by its name in ``list --json`` and the registry."""

    CONNECT = "connect"
    OAUTH_CONSUMER = "oauth-consumer"


class SecretPlace(Enum):
    """The place of an installation's secret, by its name in ``list --json`` and the registry."""

    KEYRING = "keyring"
    FILE = "file"
    PAYLOAD = "payload"
    ELSEWHERE = "jwt"

    @property
    def is_registered(self) -> bool:
        """Return whether the installation is from a registry, which holds no secret itself."""
        return self in (SecretPlace.KEYRING, SecretPlace.FILE)

    @property
    def described(self) -> str:
        """The place in words."""
        return {
            SecretPlace.KEYRING: "in the keyring",
            SecretPlace.FILE: "in a file of mode 0600",
            SecretPlace.PAYLOAD: "in the payload",
            SecretPlace.ELSEWHERE: "elsewhere, with a JWT in its place",
        }[self]


class Installation(NamedTuple):
    """One Connect app on one workspace, or one OAuth consumer of a workspace.

    ``app_key`` is the app's key or the consumer's; ``client_key`` is empty for a consumer. ``workspaces`` are slugs in
    lower case. If there are none, the payload names no slug, and only Bitbucket knows the workspace. A registered
    installation's secret is in its ``secret_place``. An injected installation has the secret as ``shared_secret`` (also
    a consumer's), or a ``jwt`` that was signed elsewhere. ``registration`` changes with each registration;
    ``keyring_backend`` is the keyring backend that stored the secret. ``is_exposed`` means that other users of the
    machine can read the secret's file. ``after_connect`` marks a consumer that is used when Connect has ended.
    """

    app_key: str
    base_url: str
    base_api_url: str
    where: str
    client_key: str = ""
    workspaces: tuple[str, ...] = ()
    workspace_uuid: str = ""
    secret_place: SecretPlace = SecretPlace.PAYLOAD
    registration: str = ""
    shared_secret: str = ""
    jwt: str = ""
    keyring_backend: str = ""
    is_exposed: bool = False
    kind: Kind = Kind.CONNECT
    after_connect: bool = False

    @property
    def host(self) -> str:
        """Host, and port if it is not 443, that git uses for this installation's repositories."""
        return normal_host(urlsplit(self.base_url).netloc)

    @property
    def is_consumer(self) -> bool:
        """Return whether this is an OAuth consumer, whose tokens open every repository of the workspace."""
        return self.kind is Kind.OAUTH_CONSUMER

    @property
    def keyring_user(self) -> str:
        """The user name under which its secret is stored."""
        return f"{self.kind.value}:{self.app_key}" if self.is_consumer else self.client_key

    @property
    def name(self) -> str:
        """Its name in errors and lists."""
        return f"{'OAuth consumer' if self.is_consumer else 'app'} {self.app_key}"

    @property
    def remedy(self) -> str:
        """The next step to correct its secret, or a consumer's key and secret, with the options of its registration."""
        if self.jwt:
            return NEW_JWT
        options = " --insecure-storage" if self.secret_place is SecretPlace.FILE else ""
        if not self.is_consumer:
            if self.secret_place.is_registered:
                return f"register the app's newest `installed` payload: git-credential-bbjwt register{options} FILE"
            return (
                f"replace the payload in {self.where} with the app's newest `installed` payload; one that you register "
                "comes after it"
            )
        if not self.secret_place.is_registered:
            return f"correct them in {self.where}"
        options = (" --after-connect" if self.after_connect else "") + options
        return f"run: git-credential-bbjwt register --oauth-consumer{options} --workspace {self.workspaces[0]}"

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Pairs of the host and each name that requests can use for a workspace of this installation."""
        uuid = [self.workspace_uuid] if self.workspace_uuid else []
        return [(self.host, workspace) for workspace in (*self.workspaces, *uuid)]

    @property
    def identity(self) -> str:
        """A digest that is the same only for the same installation with the same secret."""
        return digest(
            self.kind.value,
            self.app_key,
            self.client_key,
            self.base_url,
            self.base_api_url,
            self.registration,
            self.shared_secret,
            self.jwt,
        )

    def check_keys(self) -> None:
        """Raise InstallationError if a key is missing, without which the secret cannot be stored or used."""
        for field, value in (("key", self.app_key), ("clientKey", self.keyring_user)):
            if not value:
                raise InstallationError(f"{self.where}: {field} is missing")

    def names(self, workspace: str) -> bool:
        """Return whether it names ``workspace`` (a slug or a UUID); otherwise only Bitbucket can decide."""
        return workspace in (*self.workspaces, self.workspace_uuid)

    def serves(self, repository: Repository) -> bool:
        """Return whether this installation may be used for ``repository``."""
        if repository.host != self.host:
            return False
        if repository.workspace.startswith("{"):
            return repository.workspace == self.workspace_uuid or not (self.workspace_uuid or self.workspaces)
        return not self.workspaces or repository.workspace in self.workspaces
