"""Installations of Connect apps: what a lifecycle payload or the registry says, and which one serves a repository.

Source of the payload's shape: Atlassian Connect's ``installed`` lifecycle callback.
"""

import json
import string
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from git_credential_bbjwt.diagnostics import warning
from git_credential_bbjwt.errors import InstallationError
from git_credential_bbjwt.installations.sources import CLOUD_HOST, Source, Sources
from git_credential_bbjwt.repository import Repository, is_name, is_uuid, normal_host
from git_credential_bbjwt.system.digest import digest

CLOUD_BASE_URL = "https://bitbucket.org"
CLOUD_API_URL = "https://api.bitbucket.org"

# Of a host and port (RFC 3986, section 3.2.2), brackets of an IPv6 address included; no user, no percent-encoding.
_HOST_CHARACTERS = frozenset(string.ascii_letters + string.digits + "-._:[]")

#: Version of the registry's format.
REGISTRY_VERSION = 1


class Installation(NamedTuple):
    """One app on one workspace (or several that share it).

    ``workspaces`` are slugs in lower case; empty means the payload names none and any may be served. Exactly one of
    these gives the right to a token: ``shared_secret``, ``jwt`` (signed elsewhere), or ``secret_place`` ``keyring`` or
    ``file`` for a registered one. ``registration`` changes with each registration; ``keyring_backend`` names the
    backend that took the secret then.
    """

    app_key: str
    client_key: str
    base_url: str
    base_api_url: str
    workspaces: tuple[str, ...]
    workspace_uuid: str
    secret_place: str
    registration: str
    where: str
    shared_secret: str = ""
    jwt: str = ""
    keyring_backend: str = ""

    @property
    def host(self) -> str:
        """Host, and port if it is not 443, that git uses for this installation's repositories."""
        return normal_host(urlsplit(self.base_url).netloc)

    @property
    def is_registered(self) -> bool:
        """Whether it comes from a registry and was not injected."""
        return self.secret_place in ("keyring", "file")

    @property
    def secret_described(self) -> str:
        """Where the shared secret is, in words."""
        return {
            "keyring": "in the keyring",
            "file": "in a file of mode 0600",
            "payload": "in the payload",
            "jwt": "elsewhere, with a JWT in its place",
        }.get(self.secret_place, "nowhere known")

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
    payload = _object(data, where)
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
        secret_place="payload",
        registration="",
        where=where,
        shared_secret=_text(payload, "sharedSecret", where),
    )


def _object(data: bytes, where: str) -> dict[str, Any]:
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
        # `.port` raises for a port that is no number.
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


def parse_registry(data: bytes, where: str) -> list[Installation]:
    """Return the registered installations of a registry file. Raises InstallationError for a broken one."""
    hint = "move the file away and register again"
    found = _object(data, where)
    entries = found.get("installations")
    if found.get("version") != REGISTRY_VERSION or not isinstance(entries, list):
        raise InstallationError(f"{where}: this is not a registry of this version", hint)
    installations = []
    for entry in entries:
        workspaces = entry.get("workspaces") if isinstance(entry, dict) else None
        if not isinstance(workspaces, list) or not all(isinstance(w, str) and is_name(w) for w in workspaces):
            raise InstallationError(f"{where}: an entry is broken", hint)
        installations.append(
            Installation(
                app_key=_text(entry, "key", where),
                client_key=_text(entry, "clientKey", where),
                base_url=_checked_base(_text(entry, "baseUrl", where), "baseUrl", where),
                base_api_url=_checked_base(_text(entry, "baseApiUrl", where), "baseApiUrl", where),
                workspaces=tuple(workspaces),
                workspace_uuid=_text(entry, "workspaceUuid", where),
                secret_place=_text(entry, "secretPlace", where),
                registration=_text(entry, "registration", where),
                where=where,
                keyring_backend=_text(entry, "keyringBackend", where),
            )
        )
    return installations


def registry_entry(installation: Installation) -> dict[str, object]:
    """Return what the registry holds of ``installation``: everything but its secret."""
    return {
        "key": installation.app_key,
        "clientKey": installation.client_key,
        "baseUrl": installation.base_url,
        "baseApiUrl": installation.base_api_url,
        "workspaces": list(installation.workspaces),
        "workspaceUuid": installation.workspace_uuid,
        "secretPlace": installation.secret_place,
        "registration": installation.registration,
        "keyringBackend": installation.keyring_backend,
    }


class ToAsk(NamedTuple):
    """A command or a broker (``kind``) that is asked, when a token is needed, about repositories of ``hosts``."""

    kind: str
    where: str
    how: str
    hosts: tuple[str, ...]


#: What one source gives: its installations, whom to ask, or why it gives none.
_Level = list[Installation] | ToAsk | InstallationError


def _hosts(levels: list[_Level]) -> set[str]:
    named = {one.host for level in levels if isinstance(level, list) for one in level}
    return named.union(*(level.hosts for level in levels if isinstance(level, ToAsk)))


def _unreadable(source: Source) -> InstallationError:
    hint = "correct the path or the file's owner and mode"
    if source.kind == "payload":
        hint = "name a file that only you or root can write (chmod go-w FILE), or give the content itself: "
        hint += 'BBJWT_INSTALLATION="$(cat FILE)"'
    return InstallationError(f"cannot use the installation in {source.where}: {source.problem}", hint)


def installations_of(source: Source) -> list[Installation]:
    """Return what one source other than a JWT gives. Raises InstallationError where it cannot be read or is broken."""
    if source.problem is not None:
        raise _unreadable(source)
    if source.data is None:
        return []
    if source.kind == "registry":
        return parse_registry(source.data, source.where)
    return [parse_payload(source.data, source.where)]


class Catalogue:
    """All installations of `Sources`, in their order of precedence.

    A source that cannot be read or parsed is an error only for requests it might have answered (Bitbucket Cloud's, and
    those for a host that its text names), and only where no source before it answers.
    """

    def __init__(self, sources: Sources) -> None:
        self._levels: list[_Level] = []
        #: Where the files are that hold a secret or a JWT and that others can read.
        self.exposed = {
            source.where
            for source in (*sources.sources, *([sources.jwt] if sources.jwt else []))
            if source.exposed and source.kind != "registry"
        }
        self._broken: list[Source] = []
        self._certain = sources.hosts
        for source in sources.sources:
            if source.hosts is not None:
                how = (source.data or b"").decode("utf-8", "surrogateescape")
                self._levels.append(ToAsk(source.kind, source.where, how, source.hosts))
                continue
            try:
                self._levels.append(installations_of(source))
            except InstallationError as problem:
                self._levels.append(problem)
                self._broken.append(source)
        self._hosts = _hosts(self._levels)
        if sources.jwt is not None:
            self._levels = self._with_jwt(sources.jwt)

    def _with_jwt(self, source: Source) -> list[_Level]:
        """Every injected installation with the JWT in place of a secret; Bitbucket Cloud's where there is none."""
        cloud = Installation("", "", CLOUD_BASE_URL, CLOUD_API_URL, (), "", "jwt", "", source.where)
        given: list[_Level] = [
            level
            for level in self._levels
            if isinstance(level, InstallationError)
            or (isinstance(level, list) and any(one.secret_place == "payload" for one in level))
        ] or [[cloud]]
        self._hosts = _hosts(given)
        if source.problem is not None:
            return [InstallationError(f"no JWT in {source.where}: {source.problem}", "check BBJWT_JWT_FILE")]
        jwt = (source.data or b"").decode("utf-8", "replace").strip().removeprefix("\ufeff").strip()
        if not jwt.isascii() or not jwt.isprintable():
            jwt = ""
        if not jwt:
            return [InstallationError(f"{source.where} holds no JWT", "git-credential-bbjwt jwt WORKSPACE prints one")]
        return [
            [one._replace(jwt=jwt, shared_secret="", secret_place="jwt", where=source.where) for one in level]
            if isinstance(level, list)
            else level
            for level in given
        ]

    def __iter__(self) -> Iterator[Installation]:
        for level in self._levels:
            if isinstance(level, list):
                yield from level

    def to_ask(self) -> list[ToAsk]:
        """The commands and brokers there are."""
        return [level for level in self._levels if isinstance(level, ToAsk)]

    def problems(self) -> list[InstallationError]:
        """What is wrong with the sources that could not be used."""
        return [level for level in self._levels if isinstance(level, InstallationError)]

    def names_host(self, host: str) -> bool:
        """Whether ``host`` is one of ours."""
        broken = self._broken
        return host in self._hosts or any(host in self._certain or source.may_hold(host) for source in broken)

    def unreadable(self) -> list[InstallationError]:
        """What is wrong with the sources of which nothing is known at all, not even the hosts they are for."""
        return [_unreadable(source) for source in self._broken if source.problem is not None]

    def choose(self, repository: Repository, app: str) -> Installation | None:
        """Return the installation that serves ``repository``, by app key ``app`` unless that is empty.

        None where no installation names the workspace. Raises InstallationError where a source that comes first is
        broken, and where two apps could serve and none was chosen.
        """
        return self._first(lambda one: one.serves(repository), repository.workspace, app)

    def answering(self, repository: Repository, app: str) -> "list[Installation | ToAsk]":
        """Who is to be asked about ``repository``, in this order: the first that has something to say counts.

        After the first installation that serves it nobody is asked. Raises InstallationError as `choose` does.
        """
        asked: list[Installation | ToAsk] = []
        for level in self._levels:
            if isinstance(level, ToAsk):
                if repository.host in level.hosts:
                    asked.append(level)
                continue
            if isinstance(level, InstallationError) and asked:
                continue  # Who comes before it may well answer.
            found = self._first(lambda one: one.serves(repository), repository.workspace, app, [level])
            if found is not None:
                return [*asked, found]
        return asked

    def choose_for_workspace(self, host: str, workspace: str, app: str) -> Installation | None:
        """The same for a workspace's slug, where no repository is known."""
        return self._first(
            lambda one: one.host == host and (not one.workspaces or workspace in one.workspaces), workspace, app
        )

    def _first(
        self,
        serves: Callable[[Installation], bool],
        workspace: str,
        app: str,
        levels: "list[_Level] | None" = None,
    ) -> Installation | None:
        for level in self._levels if levels is None else levels:
            if isinstance(level, InstallationError):
                raise level
            if isinstance(level, ToAsk):
                continue
            serving = [one for one in level if serves(one) and app in ("", one.app_key)]
            if len(serving) > 1:
                keys = ", ".join(sorted(one.app_key for one in serving))
                raise InstallationError(
                    f"several apps are registered for the workspace {workspace}: {keys}",
                    "name one on the credential.helper line: bbjwt --app KEY",
                )
            if serving:
                self._warn_of_exposed(serving[0])
                return serving[0]
        return None

    def warn_of_exposed(self) -> None:
        """Warn of each file with a secret or a JWT that others can read: who only names them on is told, too."""
        for one in self:
            self._warn_of_exposed(one)

    def _warn_of_exposed(self, installation: Installation) -> None:
        if installation.where in self.exposed:
            warning(
                f"others on this machine can read {installation.where}: run chmod 600 on it, or mount it with mode 0400"
            )
