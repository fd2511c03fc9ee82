"""Bitbucket Cloud on loopback, as strict as its documentation: for the tests and for ``install.sh --demo``.

Two TLS origins stand for bitbucket.org (git, the token endpoint) and api.bitbucket.org (the REST API), with a
certificate authority of their own. JWTs are checked here by code that shares nothing with the helper's. Each rule names
its source; a rule marked "inferred" has a switch in `Rules`.

Sources, by the titles of Atlassian's pages: "Exchange a Connect JWT for an OAuth access token" (swap), "Understanding
JWT for apps" (JWT), "Scopes for the Bitbucket Cloud REST API" (scopes), "Use OAuth on Bitbucket Cloud" (git),
"Repositories" and "REST API introduction" (REST), RFC 6749 (errors of the swap), Git LFS API specification (LFS).
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
from tests.emulator.model import TOKEN_PATH, App, Fault, HostedRepository, IssuedToken, Rules, Seen, braced_uuid
from tests.emulator.repositories import make_bare_repository
from tests.emulator.server import Server, authority_for

__all__ = [
    "App",
    "Emulator",
    "Fault",
    "HostedRepository",
    "IssuedToken",
    "Rules",
    "Seen",
    "make_bare_repository",
]


class Emulator(Answers):
    """The whole of it. Use as a context manager; ``base_url`` and ``base_api_url`` are known from the start.

    ``name`` is the host in its certificate. Where ``clients`` is an authority, it serves only who shows a certificate
    of that one.
    """

    def __init__(self, folder: Path, *, name: str = "localhost", clients: trustme.CA | None = None) -> None:
        self.folder = folder
        self.rules = Rules()
        self.apps: dict[str, App] = {}
        self.repositories: list[HostedRepository] = []
        self.tokens: dict[str, IssuedToken] = {}
        self.seen: list[Seen] = []
        #: Seconds that this server's clock is ahead of the machine's.
        self.clock_offset = 0.0
        self._faults: dict[str, list[Fault]] = {}
        self.faults_met = 0
        #: How many connections were made.
        self.connections = 0
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        certificate, context = authority_for(name, clients)
        self.ca_file = folder / "authority.pem"
        self.ca_file.write_bytes(certificate)
        self._servers = {origin: Server(self, origin, context) for origin in ("base", "api", "storage")}
        #: Where LFS objects are: another host, which git's own credentials are not for.
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

    # What a test sets up.

    @property
    def host(self) -> str:
        """Host and port of the base URL, as git names it."""
        return urlsplit(self.base_url).netloc

    def install(self, workspace: str = "acme", *, key: str = "acme-builds", scopes: str = "repository") -> App:
        """Install an app on a workspace."""
        known = [app.workspace_uuid for app in self.apps.values() if app.workspace == workspace]
        named = [one.workspace_uuid for one in self.repositories if one.workspace == workspace]
        workspace_uuid = [*known, *named, braced_uuid()][0]
        client_key = f"ari:cloud:bitbucket::app/{workspace_uuid}/{key}"
        if client_key in self.apps:
            client_key = f"connection:{secrets.randbelow(10**9)}"
        app = App(
            key=key,
            # One app is installed once on a workspace; here also again, with a client key of the old form.
            client_key=client_key,
            shared_secret=secrets.token_urlsafe(48),
            workspace=workspace,
            workspace_uuid=workspace_uuid,
            scopes=set(scopes.split()),
        )
        self.apps[app.client_key] = app
        return app

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
        """Create a private repository with one commit; or serve the one at ``path`` by this name too."""
        workspace, slug = full_name.split("/")
        uuids = [r.workspace_uuid for r in self.repositories if r.workspace == workspace]
        uuids += [app.workspace_uuid for app in self.apps.values() if app.workspace == workspace]
        if path is None:
            path = self.folder / "repositories" / f"{workspace}-{slug}.git"
            make_bare_repository(path, files or {"README.md": f"# {slug}\n"})
        repository = HostedRepository(workspace, uuids[0] if uuids else braced_uuid(), slug, braced_uuid(), path)
        self.repositories.append(repository)
        return repository

    def url(self, repository: HostedRepository) -> str:
        """The clone URL without a user name."""
        return f"{self.base_url}/{repository.full_name}.git"

    def rename(self, repository: HostedRepository, slug: str) -> None:
        """Give a repository another slug; what its old one answers is a rule."""
        repository.old_slugs.add(repository.slug)
        repository.slug = slug

    def revoke_tokens(self) -> None:
        """Make every token issued so far worthless."""
        for token in self.tokens.values():
            token.revoked = True

    def misbehave(self, kind: str, *faults: Fault) -> None:
        """Let the next requests of ``kind`` ("token", "api", "git") meet these faults, one each."""
        self._faults.setdefault(kind, []).extend(faults)

    def helper_requests(self) -> list[Seen]:
        """What the helper sent, in order."""
        return [one for one in self.seen if one.is_helper]

    def mints(self) -> int:
        """How many tokens were issued."""
        return sum(1 for one in self.seen if one.path == TOKEN_PATH and one.status == 200)

    def now(self) -> float:
        """Unix time by this server's clock."""
        return time.time() + self.clock_offset

    # What the servers ask.

    def take_fault(self, kind: str) -> Fault | None:
        with self._lock:
            waiting = self._faults.get(kind)
            if not waiting:
                return None
            self.faults_met += 1
            return waiting.pop(0)

    def count_connection(self) -> None:
        with self._lock:
            self.connections += 1

    def record(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)
