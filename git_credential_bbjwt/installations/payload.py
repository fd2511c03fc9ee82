"""Installations of Connect apps: what a lifecycle payload or an entry of the registry says.

Source of the payload's shape: Atlassian Connect's ``installed`` lifecycle callback.
"""

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import InstallationError
from git_credential_bbjwt.core.repository import Repository, is_name, is_uuid, normal_host
from git_credential_bbjwt.installations.source import CLOUD_HOST
from git_credential_bbjwt.system.digest import digest

CLOUD_BASE_URL = "https://bitbucket.org"
CLOUD_API_URL = "https://api.bitbucket.org"

# Of a host and port (RFC 3986, section 3.2.2), brackets of an IPv6 address included; no user, no percent-encoding.
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]")


class SecretPlace(Enum):
    """Where an installation's shared secret is, by the name that ``list --json`` and the registry have for it."""

    KEYRING = "keyring"
    FILE = "file"
    PAYLOAD = "payload"
    ELSEWHERE = "jwt"

    @property
    def is_registered(self) -> bool:
        """Whether the installation is from a registry, which holds no secret itself."""
        return self in (SecretPlace.KEYRING, SecretPlace.FILE)

    @property
    def described(self) -> str:
        """The same in words."""
        return {
            SecretPlace.KEYRING: "in the keyring",
            SecretPlace.FILE: "in a file of mode 0600",
            SecretPlace.PAYLOAD: "in the payload",
            SecretPlace.ELSEWHERE: "elsewhere, with a JWT in its place",
        }[self]


class Installation(NamedTuple):
    """One app on one workspace (or several that share it).

    ``workspaces`` are slugs in lower case; empty means the payload names none and any may be served. Exactly one of
    these gives the right to a token: ``shared_secret``, ``jwt`` (signed elsewhere), or the ``secret_place`` of a
    registered one. ``registration`` changes with each registration; ``keyring_backend`` names the backend that took the
    secret then. ``is_exposed`` tells that others on the machine can read the file it stands in.
    """

    app_key: str
    client_key: str
    base_url: str
    base_api_url: str
    workspaces: tuple[str, ...]
    workspace_uuid: str
    secret_place: SecretPlace
    registration: str
    where: str
    shared_secret: str = ""
    jwt: str = ""
    keyring_backend: str = ""
    is_exposed: bool = False

    @property
    def host(self) -> str:
        """Host, and port if it is not 443, that git uses for this installation's repositories."""
        return normal_host(urlsplit(self.base_url).netloc)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The host with each name that a workspace of this installation can be asked for by."""
        uuid = [self.workspace_uuid] if self.workspace_uuid else []
        return [(self.host, workspace) for workspace in (*self.workspaces, *uuid)]

    @property
    def identity(self) -> str:
        """A digest that is the same only for the same installation with the same secret."""
        return digest(
            self.app_key,
            self.client_key,
            self.base_url,
            self.base_api_url,
            self.registration,
            self.shared_secret,
            self.jwt,
        )

    def is_surely_for(self, repository: Repository) -> bool:
        """Whether it names the workspace of ``repository``, one it `serves`; else only Bitbucket knows."""
        return repository.workspace in (*self.workspaces, self.workspace_uuid)

    def serves(self, repository: Repository) -> bool:
        """Whether a token for ``repository`` is to be asked of this installation."""
        if repository.host != self.host:
            return False
        if repository.workspace.startswith("{"):
            return repository.workspace == self.workspace_uuid or not (self.workspace_uuid or self.workspaces)
        return not self.workspaces or repository.workspace in self.workspaces


def parse_payload(data: bytes, where: str) -> Installation:
    """Return the installation that a lifecycle payload describes, bare or under ``clientInfo``.

    ``where`` names the payload in errors. Raises InstallationError, which never repeats a value of the payload.
    """
    payload = json_object(data, where)
    inner = payload.get("clientInfo")
    if isinstance(inner, dict):
        payload = inner
    for field, expected in (("productType", "bitbucket"), ("eventType", "installed")):
        if payload.get(field, expected) != expected:
            raise InstallationError(
                f"{where}: the {field} of this payload is not {expected}",
                "use the payload of the app's `installed` lifecycle callback from Bitbucket",
            )
    base_url, base_api_url = _text(payload, "baseUrl", where), _text(payload, "baseApiUrl", where)
    if not base_api_url and (not base_url or _host_of(base_url, where) == CLOUD_HOST):
        base_api_url = CLOUD_API_URL
    principal = payload.get("principal")
    return Installation(
        app_key=_text(payload, "key", where),
        client_key=_text(payload, "clientKey", where),
        base_url=_checked_base(base_url or CLOUD_BASE_URL, "baseUrl", where),
        base_api_url=_checked_base(base_api_url, "baseApiUrl", where),
        workspaces=tuple(_workspace_slugs(principal)),
        workspace_uuid=_workspace_uuid(principal) or _uuid_of_client(_text(payload, "clientKey", where)),
        secret_place=SecretPlace.PAYLOAD,
        registration="",
        where=where,
        shared_secret=_text(payload, "sharedSecret", where),
    )


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object that ``data`` is. Raises InstallationError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InstallationError(
            f"{where}: this is not a JSON object", "use the payload of the app's `installed` callback"
        )
    return found


def _text(fields: dict[str, Any], field: str, where: str) -> str:
    value = fields.get(field, "")
    if not isinstance(value, str) or not value.isprintable():
        raise InstallationError(f"{where}: {field} is not a string, or holds control characters")
    return value


def _host_of(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        # `.port` raises for a port that is not a number.
        well_formed = parts.scheme == "https" and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if not well_formed or not _HOST_CHARACTERS.issuperset(parts.netloc) or parts.query or parts.fragment:
        raise InstallationError(f"{where}: a base URL must be https://HOST and nothing more")
    return normal_host(parts.netloc)


def _checked_base(url: str, field: str, where: str) -> str:
    if not url:
        raise InstallationError(f"{where}: {field} is missing", "use the whole payload of the `installed` callback")
    host = _host_of(url, where)
    if urlsplit(url).path not in ("", "/"):
        raise InstallationError(f"{where}: {field} must be https://HOST and nothing more")
    return f"https://{host}"


def _workspace_slugs(principal: object) -> Iterator[str]:
    """The slug a payload's principal names: its user name, or in old payloads its page's address.

    A personal workspace's principal names none: its user name is gone since 2019.
    """
    if not isinstance(principal, dict):
        return
    username = principal.get("username")
    if isinstance(username, str) and is_name(username.lower()):
        yield username.lower()
        return
    links = principal.get("links")
    page = links.get("html") if isinstance(links, dict) else None
    address = page.get("href") if isinstance(page, dict) else None
    if isinstance(address, str):
        try:
            segments = urlsplit(address).path.strip("/").split("/")
        except ValueError:  # Brackets that hold no IPv6 address.
            return
        if len(segments) == 1 and is_name(segments[0].lower()):
            yield segments[0].lower()


def _uuid_of_client(client_key: str) -> str:
    """The workspace's UUID in a client key of the form ``ari:cloud:bitbucket::app/{UUID}/APP-KEY``."""
    resource, _, rest = client_key.partition("::app/")
    uuid = rest.partition("/")[0].lower()
    return uuid if resource == "ari:cloud:bitbucket" and is_uuid(uuid) else ""


def _workspace_uuid(principal: object) -> str:
    uuid = principal.get("uuid") if isinstance(principal, dict) else None
    return uuid.lower() if isinstance(uuid, str) and is_uuid(uuid.lower()) else ""


def parse_entry(entry: object, where: str) -> Installation:
    """Return the installation of one entry of the registry, as `entry_of` has it. Raises InstallationError."""
    workspaces = entry.get("workspaces") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(workspaces, list) or not all(map(_is_slug, workspaces)):
        raise InstallationError(f"{where}: an entry is broken", BROKEN_ENTRY_HINT)
    try:
        place = SecretPlace(entry.get("secretPlace"))
    except ValueError as unknown:
        raise InstallationError(f"{where}: an entry is broken", BROKEN_ENTRY_HINT) from unknown
    return Installation(
        app_key=_text(entry, "key", where),
        client_key=_text(entry, "clientKey", where),
        base_url=_checked_base(_text(entry, "baseUrl", where), "baseUrl", where),
        base_api_url=_checked_base(_text(entry, "baseApiUrl", where), "baseApiUrl", where),
        workspaces=tuple(workspaces),
        workspace_uuid=_text(entry, "workspaceUuid", where),
        secret_place=place,
        registration=_text(entry, "registration", where),
        where=where,
        keyring_backend=_text(entry, "keyringBackend", where),
    )


BROKEN_ENTRY_HINT = "move the file away and register again"


def _is_slug(text: object) -> bool:
    return isinstance(text, str) and is_name(text)


def entry_of(installation: Installation) -> dict[str, object]:
    """Return what the registry holds of ``installation``: everything but its secret."""
    return {
        "key": installation.app_key,
        "clientKey": installation.client_key,
        "baseUrl": installation.base_url,
        "baseApiUrl": installation.base_api_url,
        "workspaces": list(installation.workspaces),
        "workspaceUuid": installation.workspace_uuid,
        "secretPlace": installation.secret_place.value,
        "registration": installation.registration,
        "keyringBackend": installation.keyring_backend,
    }
