"""Bitbucket Cloud on loopback, as strict as its documentation: for the tests and for ``install.sh --demo``.

Two TLS origins stand for bitbucket.org (git, the token endpoint) and api.bitbucket.org (the REST API), with a
certificate authority of their own. JWTs are checked here by code that shares nothing with the helper's. Each rule names
its source; a rule marked "inferred" has a switch in `Rules`.

Sources, by the titles of Atlassian's pages: "Exchange a Connect JWT for an OAuth access token" (swap), "Understanding
JWT for apps" (JWT), "Scopes for the Bitbucket Cloud REST API" (scopes), "Use OAuth on Bitbucket Cloud" (git),
"Repositories" and "REST API introduction" (REST), RFC 6749 (errors of the token endpoint, client credentials), Git LFS
API specification (LFS).
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import trustme

from tests.emulator.answers import Answers
from tests.emulator.model import (
    IP_ALLOW_LIST,
    OUTAGE,
    RATE_LIMITED,
    SILENCE,
    TOKEN_PATH,
    TWO_STEP_VERIFICATION,
    App,
    Consumer,
    End,
    Fault,
    HostedRepository,
    IssuedToken,
    Rules,
    Seen,
    braced_uuid,
    token_of,
)
from tests.emulator.repositories import make_bare_repository
from tests.emulator.server import Server, authority_for

__all__ = [
    "IP_ALLOW_LIST",
    "OUTAGE",
    "RATE_LIMITED",
    "SILENCE",
    "TWO_STEP_VERIFICATION",
    "App",
    "Consumer",
    "Emulator",
    "End",
    "Fault",
    "HostedRepository",
    "IssuedToken",
    "Rules",
    "Seen",
    "make_bare_repository",
]


class Emulator(Answers):
    """The emulated Bitbucket. Use it as a context manager; ``base_url`` and ``base_api_url`` are known from the start.

    ``name`` is the host in its certificate. With the authority ``clients``, it serves only clients with a certificate
    of that authority.
    """

    def __init__(self, folder: Path, *, name: str = "localhost", clients: trustme.CA | None = None) -> None:
        self.folder = folder
        self.rules = Rules()
        self.apps: dict[str, App] = {}
        #: OAuth consumers by their keys.
        self.consumers: dict[str, Consumer] = {}
        self.repositories: list[HostedRepository] = []
        self.tokens: dict[str, IssuedToken] = {}
        self.seen: list[Seen] = []
        #: Seconds that this server's clock is ahead of the machine's.
        self.clock_offset = 0.0
        self._faults: dict[str, list[Fault]] = {}
        #: Number of connections that were made.
        self.connections = 0
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        certificate, context = authority_for(name, clients)
        self.ca_file = folder / "authority.pem"
        self.ca_file.write_bytes(certificate)
        self._servers = {origin: Server(self, origin, context) for origin in ("base", "api", "storage")}
        #: The host of LFS objects, which git's own credentials are not for.
        self.storage_url = f"https://localhost:{self._servers['storage'].server_port}"
        self.storage_key = secrets.token_hex(16)
        self.base_url = f"https://localhost:{self._servers['base'].server_port}"
        self.base_api_url = f"https://localhost:{self._servers['api'].server_port}"

    def __enter__(self) -> Emulator:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    # Set-up by tests.

    @property
    def host(self) -> str:
        """Host and port of the base URL, as git names it."""
        return urlsplit(self.base_url).netloc

    def install(self, workspace: str = "acme", *, key: str = "acme-builds", scopes: str = "repository") -> App:
        """Install an app on a workspace."""
        workspace_uuid = self._uuid_of(workspace)
        client_key = f"ari:cloud:bitbucket::app/{workspace_uuid}/{key}"
        if client_key in self.apps:
            client_key = f"connection:{secrets.randbelow(10**9)}"
        app = App(
            key=key,
            # Bitbucket installs an app once on a workspace. Here it can be installed again, with an old client key.
            client_key=client_key,
            shared_secret=secrets.token_urlsafe(48),
            workspace=workspace,
            workspace_uuid=workspace_uuid,
            scopes=set(scopes.split()),
        )
        self.apps[app.client_key] = app
        return app

    def add_consumer(self, workspace: str = "acme") -> Consumer:
        """Add an OAuth consumer to a workspace: a key of 32 and a secret of 76 characters (CHANGE-3052)."""
        consumer = Consumer(
            key=secrets.token_hex(16),
            secret=secrets.token_hex(38),
            workspace=workspace,
            workspace_uuid=self._uuid_of(workspace),
            scopes={"repository"},
        )
        self.consumers[consumer.key] = consumer
        return consumer

    def consumer_json(self, consumer: Consumer, **changes: Any) -> dict[str, Any]:
        """Return the JSON with which an OAuth consumer of this Bitbucket is registered or injected."""
        known = {
            "key": consumer.key,
            "secret": consumer.secret,
            "workspace": consumer.workspace,
            "baseUrl": self.base_url,
            "baseApiUrl": self.base_api_url,
        }
        return {"oauthConsumer": known | changes}

    def _uuid_of(self, workspace: str) -> str:
        everything: list[App | Consumer | HostedRepository]
        everything = [*self.apps.values(), *self.consumers.values(), *self.repositories]
        known = (one.workspace_uuid for one in everything if one.workspace == workspace)
        return next(known, None) or braced_uuid()

    def payload(self, app: App, **changes: Any) -> dict[str, Any]:
        """The payload of the `installed` lifecycle callback, as recorded (toolchain-oss, ``app_install_team.json``)."""
        principal = {
            "type": "team",
            "uuid": app.workspace_uuid,
            "username": app.workspace,
            "display_name": app.workspace.title(),
            "links": {"html": {"href": f"{self.base_url}/{quote(app.workspace_uuid)}/"}},
            "is_active": True,
            "created_on": "2019-01-01T00:00:00.000000+00:00",
            "properties": {},
            "has_2fa_enabled": None,
        }
        return {
            "principal": principal,
            "eventType": "installed",
            "baseUrl": self.base_url,
            "publicKey": "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQ",
            "baseApiUrl": self.base_api_url,
            "productType": "bitbucket",
            "key": app.key,
            "clientKey": app.client_key,
            "sharedSecret": app.shared_secret,
            "user": principal,
            "actor": {"type": "user", "uuid": str(uuid.uuid4()), "account_id": "1:2", "display_name": "Æ Person"},
        } | changes

    def host_repository(
        self, full_name: str, files: dict[str, str] | None = None, *, path: Path | None = None
    ) -> HostedRepository:
        """Create a private repository with one commit; or serve the repository at ``path`` by this name, too."""
        workspace, slug = full_name.split("/")
        new = None if path else files or {"README.md": f"# {slug}\n"}
        folder = path or self.folder / "repositories" / f"{workspace}-{slug}.git"
        repository = HostedRepository(workspace, self._uuid_of(workspace), slug, braced_uuid(), folder, new)
        self.repositories.append(repository)
        return repository

    def url(self, repository: HostedRepository) -> str:
        """The clone URL without a user name."""
        return f"{self.base_url}/{repository.full_name}.git"

    def rename(self, repository: HostedRepository, slug: str) -> None:
        """Give a repository another slug. A rule decides how the old slug is answered."""
        repository.old_slugs.add(repository.slug)
        repository.slug = slug

    def rename_workspace(self, workspace: str, name: str) -> None:
        """Give a workspace another slug; nothing is found by the old one ("Change a workspace ID")."""
        everything: list[App | Consumer | HostedRepository | IssuedToken]
        everything = [*self.apps.values(), *self.consumers.values(), *self.repositories, *self.tokens.values()]
        for one in everything:
            if one.workspace == workspace:
                one.workspace = name

    def end_connect(
        self, how: str = "gone", *, seconds: float | None = None, look_ups: bool | None = None, tokens: bool = False
    ) -> None:
        """End Connect as `End` says, permanently or for ``seconds`` (a rehearsal).

        Nobody knows whether look-ups still work if swaps are not supported. Here they do, unless ``look_ups`` is true.
        """
        if look_ups is None:
            look_ups = how in ("gone", "unauthorized")
        self.rules.connect_end = End(how, None if seconds is None else self.now() + seconds, look_ups, tokens)

    def restore_connect(self) -> None:
        """Let Connect work again, as after a rehearsal."""
        self.rules.connect_end = None

    def forge_token(self, workspace: str) -> str:
        """The token that Forge hands to a remote, a JWT with its end ("Bitbucket git operations from a remote")."""
        scopes = {"read:app-system-token", "read:repository:bitbucket"}
        expires = self.now() + 4 * 3600
        token = token_of({"iat": int(self.now()), "exp": int(expires)}, short=False)
        self.tokens[token] = IssuedToken(workspace, scopes, None, expires, consumer="forge")
        return token

    def revoke_tokens(self) -> None:
        """Make every token issued so far worthless."""
        for token in list(self.tokens.values()):
            token.revoked = True

    def misbehave(self, kind: str, *faults: Fault) -> None:
        """Let the next requests of ``kind`` ("token", "api", "git") have these faults, one each."""
        self._faults.setdefault(kind, []).extend(faults)

    def helper_requests(self) -> list[Seen]:
        """Return the helper's requests, in order."""
        return [one for one in self.seen if one.is_helper]

    def mints(self) -> int:
        """Return the number of tokens that were issued to apps and consumers."""
        return sum(1 for one in self.seen if one.path == TOKEN_PATH and one.status == 200)

    def grants(self, grant_type: str) -> list[Seen]:
        """Return the requests for a grant, including refused requests."""
        return [one for one in self.seen if one.form.get("grant_type") == grant_type]

    def now(self) -> float:
        """Unix time by this server's clock."""
        return time.time() + self.clock_offset

    # For the servers.

    def take_fault(self, kind: str) -> Fault | None:
        with self._lock:
            waiting = self._faults.get(kind)
            if not waiting:
                return None
            return waiting.pop(0)

    def count_connection(self) -> None:
        with self._lock:
            self.connections += 1

    def record(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)
