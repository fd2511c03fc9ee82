"""Bitbucket Cloud on loopback, as strict as its documentation: for the tests and for ``install.sh --demo``.

Two TLS origins stand for bitbucket.org (git, the token endpoint) and api.bitbucket.org (the REST API), with a
certificate authority of their own. JWTs are checked here by code that shares nothing with the helper's. Each rule names
its source; a rule marked "inferred" has a switch in `Rules`.

Sources, by the titles of Atlassian's pages: "Exchange a Connect JWT for an OAuth access token" (swap), "Understanding
JWT for apps" (JWT), "Scopes for the Bitbucket Cloud REST API" (scopes), "Use OAuth on Bitbucket Cloud" (git),
"Repositories" and "REST API introduction" (REST), RFC 6749 (errors of the swap), Git LFS API specification (LFS).
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import json
import os
import secrets
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import trustme

GRANT_TYPE = "urn:bitbucket:oauth2:jwt"
TOKEN_PATH = "/site/oauth2/access_token"


@dataclass
class App:
    """One installation of a Connect app on a workspace: what Bitbucket knows of it."""

    key: str
    client_key: str
    shared_secret: str
    workspace: str
    workspace_uuid: str
    scopes: set[str]
    uninstalled: bool = False


@dataclass
class HostedRepository:
    """A repository; ``path`` is the bare repository that git's own http-backend serves."""

    workspace: str
    workspace_uuid: str
    slug: str
    uuid: str
    path: Path
    old_slugs: set[str] = field(default_factory=set)

    @property
    def full_name(self) -> str:
        return f"{self.workspace}/{self.slug}"


@dataclass
class IssuedToken:
    """An access token. ``repository`` is the UUID it is limited to, None for the whole workspace."""

    workspace: str
    scopes: set[str]
    repository: str | None
    expires: float
    revoked: bool = False


@dataclass
class Seen:
    """One request, and what was answered."""

    origin: str  # "base" or "api"
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Message[str, str]
    form: dict[str, str] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    jwt: str = ""
    status: int = 0
    reason: str = ""

    @property
    def is_helper(self) -> bool:
        """Whether the helper sent it, and not git."""
        return self.origin == "api" or (self.origin == "base" and self.path == TOKEN_PATH)


@dataclass
class Fault:
    """A misbehaviour for the next request of its kind: what is set happens instead of, or on top of, the answer."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    #: Seconds before anything is sent.
    delay: float = 0.0
    #: Seconds between the bytes of the body.
    drip: float = 0.0
    #: Close with a TCP reset, nothing sent.
    reset: bool = False
    #: Close in the middle of the body.
    truncate: bool = False
    #: Change the JSON of a good answer.
    change: Callable[[dict[str, Any]], Any] | None = None


@dataclass
class Rules:
    """What is only inferred about Bitbucket, switchable: the helper has to be right either way."""

    #: The REST API checks the `qsh` of a JWT.
    rest_checks_qsh: bool = True
    #: A renamed repository's old name redirects (else 404).
    rename_redirects: bool = False
    #: The swap's answer names scopes as `scopes`, as until May 2026 (CHANGE-3052); now it is `scope`.
    scopes_plural: bool = False
    #: The REST API takes a JWT at all (else only a token).
    rest_takes_jwt: bool = True
    #: The swap checks the `qsh` of a JWT (PR-Agent and others send none, and are served).
    swap_checks_qsh: bool = True
    #: A scope may be asked for that the app has only because another brings it along.
    implied_scope_may_be_asked: bool = True
    #: The swap's answer names the scope (that this grant does rests on the page alone).
    echoes_scope: bool = True
    #: What git gets with a good token of another repository: nothing was found on it.
    another_repositorys_token: int = 403
    #: Ended, or rehearsing the end: every request is answered with 410 (community threads of 2026).
    gone: bool = False
    #: Headers of every good answer: `Deprecation`, `Sunset`, `Link` (renovate issue 45461).
    announces: dict[str, str] = field(default_factory=dict)
    #: Connections stay open after an answer (HTTP/1.1), or each is closed (HTTP/1.0).
    keep_alive: bool = True
    #: Lifetime of tokens in seconds; documentation of different years says 3600 and 7200.
    lifetime: int = 7200


# "Scopes for the Bitbucket Cloud REST API".
_IMPLIES = {
    "repository:write": {"repository"},
    "pullrequest": {"repository"},
    "pullrequest:write": {"pullrequest", "repository:write", "repository"},
}


def with_implied(scopes: set[str]) -> set[str]:
    """All that ``scopes`` allow."""
    return scopes.union(*(_IMPLIES.get(scope, set()) for scope in scopes))


class RefusalError(Exception):
    """An answer that is a no."""

    def __init__(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body
        self.headers = headers or {}


def _rest_error(status: int, message: str, detail: object = None) -> RefusalError:
    error = {"message": message} | ({"detail": detail} if detail is not None else {})
    return RefusalError(status, {"type": "error", "error": error})


class Emulator:
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
        certificate, context = _authority(name, clients)
        self.ca_file = folder / "authority.pem"
        self.ca_file.write_bytes(certificate)
        self._servers = {origin: _Server(self, origin, context) for origin in ("base", "api", "storage")}
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
        workspace_uuid = [*known, *named, _braced_uuid()][0]
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
        repository = HostedRepository(workspace, uuids[0] if uuids else _braced_uuid(), slug, _braced_uuid(), path)
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

    def check_jwt(self, seen: Seen, *, check_qsh: bool) -> App:
        """Return the app that an ``Authorization: JWT`` header proves. Raises RefusalError.

        Source of all rules: "Understanding JWT for apps"; scheme and its case: the swap page.
        """
        jwt = _scheme(seen, "JWT")
        if jwt is None:
            raise RefusalError(401, b"Login failed due to incorrect login credentials or method.")
        seen.jwt = jwt
        try:
            app, claims = self._verified(jwt)
        except _BadJwtError as bad:
            seen.reason = str(bad)
            raise _rest_error(401, f"Token is invalid, expired, or not supported for this endpoint. ({bad})") from bad
        seen.claims = claims
        if check_qsh and claims.get("qsh") != query_string_hash(seen.method, seen.path, seen.query):
            seen.reason = "qsh is of another request"
            raise _rest_error(401, "Token is invalid, expired, or not supported for this endpoint. (qsh)")
        return app

    def _verified(self, jwt: str) -> tuple[App, dict[str, Any]]:
        parts = jwt.split(".")
        if len(parts) != 3:
            raise _BadJwtError("not three segments")
        header, claims = (_decoded_json(part) for part in parts[:2])
        if header != {"alg": "HS256", "typ": "JWT"}:
            raise _BadJwtError("header is not HS256 JWT")
        app = self.apps.get(str(claims.get("sub")))
        if app is None or app.uninstalled:
            raise _BadJwtError("sub is no client key")
        expected = hmac.new(app.shared_secret.encode(), f"{parts[0]}.{parts[1]}".encode(), hashlib.sha256).digest()
        if not hmac.compare_digest(expected, _decoded(parts[2])):
            raise _BadJwtError("signature")
        if claims.get("iss") != app.key:
            raise _BadJwtError("iss is not the app key")
        issued, expires = claims.get("iat"), claims.get("exp")
        if type(issued) is not int or type(expires) is not int:
            raise _BadJwtError("iat or exp is no whole number")
        if issued > self.now():
            raise _BadJwtError("iat is in the future")
        if expires <= self.now():
            raise _BadJwtError("exp has passed")
        return app, claims

    def check_token(self, token: str) -> IssuedToken | None:
        """Return what is known of an access token that still counts."""
        issued = self.tokens.get(token)
        return issued if issued and not issued.revoked and issued.expires > self.now() else None

    def find(self, workspace: str, slug: str) -> HostedRepository | None:
        """Find a repository; each part may be a name in any case or a UUID in braces ("Repositories")."""
        for one in self.repositories:
            if workspace.lower() in (one.workspace, one.workspace_uuid) and slug.lower() in (one.slug, one.uuid):
                return one
        return None

    def find_renamed(self, workspace: str, slug: str) -> HostedRepository | None:
        """Find a repository by a slug it used to have."""
        for one in self.repositories:
            if workspace.lower() == one.workspace and slug.lower() in one.old_slugs:
                return one
        return None

    def swap(self, seen: Seen) -> dict[str, Any]:
        """The token endpoint ("Exchange a Connect JWT for an OAuth access token"). Raises RefusalError."""
        if seen.query:
            raise _oauth_error(400, "invalid_request", "parameters belong in the form")
        content_type = seen.headers.get("Content-Type", "")
        if content_type != "application/x-www-form-urlencoded":
            raise _oauth_error(400, "invalid_grant", "Unsupported grant type: None")
        app = self.check_jwt(seen, check_qsh=self.rules.swap_checks_qsh)
        if seen.form.get("grant_type") != GRANT_TYPE:
            raise _oauth_error(400, "invalid_grant", f"Unsupported grant type: {seen.form.get('grant_type')}")
        if set(seen.form) - {"grant_type", "scope", "bitbucket_repository"}:
            raise _oauth_error(400, "invalid_request", "unknown field")
        asked = set(seen.form["scope"].split()) if "scope" in seen.form else app.scopes
        if not asked or not asked <= (
            with_implied(app.scopes) if self.rules.implied_scope_may_be_asked else app.scopes
        ):
            raise _oauth_error(400, "invalid_scope", "The app does not have this scope.")
        limit = seen.form.get("bitbucket_repository")
        if limit is not None and not any(
            one.uuid == limit and one.workspace == app.workspace for one in self.repositories
        ):
            raise _oauth_error(400, "invalid_request", "bitbucket_repository")
        token = secrets.token_urlsafe(60) + "="
        self.tokens[token] = IssuedToken(app.workspace, asked, limit, self.now() + self.rules.lifetime)
        answer = {"access_token": token, "expires_in": self.rules.lifetime, "token_type": "bearer"}
        if self.rules.echoes_scope:
            answer["scopes" if self.rules.scopes_plural else "scope"] = " ".join(sorted(_least(asked)))
        return answer

    def rest(self, seen: Seen) -> dict[str, Any]:
        """One repository or one workspace ("Repositories", "Workspaces" of the REST API). Raises RefusalError."""
        parts = seen.path.split("/")
        if parts[1:3] == ["2.0", "workspaces"]:
            return self._workspace(seen, parts[3:])
        if seen.method != "GET" or len(parts) != 5 or parts[1:3] != ["2.0", "repositories"]:
            raise _rest_error(404, "Resource not found")
        workspace, slug = unquote(parts[3]), unquote(parts[4])
        limit: str | None = None
        bearer = _scheme(seen, "Bearer")
        if bearer is not None:
            issued = self.check_token(bearer)
            if issued is None:
                raise _rest_error(401, "Access token expired. Use your refresh token to obtain a new access token.")
            if "repository" not in with_implied(issued.scopes):
                detail = {"required": ["repository"], "granted": sorted(issued.scopes)}
                raise _rest_error(403, "Your credentials lack one or more required privilege scopes.", detail)
            allowed, limit = issued.workspace, issued.repository
        else:
            if not self.rules.rest_takes_jwt:
                raise _rest_error(401, "Token is invalid, expired, or not supported for this endpoint.")
            app = self.check_jwt(seen, check_qsh=self.rules.rest_checks_qsh)
            if "repository" not in with_implied(app.scopes):
                detail = {"required": ["repository"], "granted": sorted(app.scopes)}
                raise _rest_error(403, "Your credentials lack one or more required privilege scopes.", detail)
            allowed = app.workspace
        repository = self.find(workspace, slug)
        if repository is None:
            renamed = self.find_renamed(workspace, slug)
            if renamed is not None and self.rules.rename_redirects:
                location = f"{self.base_api_url}/2.0/repositories/{renamed.full_name}"
                raise RefusalError(301, {"type": "error"}, {"Location": location})
            raise _rest_error(404, _NOT_SEEN)
        if repository.workspace != allowed or (limit is not None and limit != repository.uuid):
            # The same for what may not be seen: seen in the tests of eight programs.
            raise _rest_error(404, _NOT_SEEN)
        whole: dict[str, Any] = {
            "type": "repository",
            "uuid": repository.uuid,
            "full_name": repository.full_name,
            "slug": repository.slug,
            "is_private": True,
            "workspace": {"type": "workspace", "slug": repository.workspace, "uuid": repository.workspace_uuid},
        }
        wanted = dict(seen.query).get("fields")
        # "REST API introduction", partial responses.
        return _partial(whole, wanted.split(",")) if wanted else whole

    def _workspace(self, seen: Seen, names: list[str]) -> dict[str, Any]:
        """``GET /2.0/workspaces/{slug or UUID}``; the list is gone since 14 April 2026 (CHANGE-2770)."""
        if not names:
            raise gone("CHANGE-2770")
        app = self.check_jwt(seen, check_qsh=self.rules.rest_checks_qsh)
        name = unquote(names[0]).lower()
        if len(names) != 1 or name not in (app.workspace, app.workspace_uuid):
            raise _rest_error(404, f"No workspace with identifier '{name}'.")
        whole = {"type": "workspace", "uuid": app.workspace_uuid, "slug": app.workspace, "is_private": True}
        wanted = dict(seen.query).get("fields")
        return _partial(whole, wanted.split(",")) if wanted else whole


def gone(change: str) -> RefusalError:
    """What has ended, or is in a brown-out, answers this (community threads and blogs of 2026)."""
    error = {
        "message": f"{change} - Functionality has been deprecated",
        "detail": "See the announcement for what takes its place.",
        "data": {"announcement_url": f"https://developer.atlassian.com/cloud/bitbucket/changelog/#{change}"},
    }
    return RefusalError(410, {"type": "error", "error": error})


def _least(scopes: set[str]) -> set[str]:
    """The smallest set that stands for ``scopes``: what another of them brings along is left out."""
    return {one for one in scopes if not any(one in _IMPLIES.get(other, ()) for other in scopes)}


_NOT_SEEN = (
    "You may not have access to this repository or it no longer exists in this workspace. If you think this repository "
    "exists and you have access, make sure you are authenticated."
)


def _partial(whole: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """Just the fields asked for; ``a.b`` is the field b of a."""
    found: dict[str, Any] = {}
    for name in fields:
        outer, _, inner = name.partition(".")
        if outer in whole and not inner:
            found[outer] = whole[outer]
        elif outer in whole and inner in whole[outer]:
            found.setdefault(outer, {})[inner] = whole[outer][inner]
    return found


_CHALLENGE = {"WWW-Authenticate": 'Basic realm="Bitbucket.org HTTP"'}


class _BadJwtError(Exception):
    pass


def _decoded(segment: str) -> bytes:
    if "=" in segment or not segment.isascii():
        raise _BadJwtError("not base64url without padding")
    try:
        return base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except ValueError as bad:
        raise _BadJwtError("not base64url") from bad


def _decoded_json(segment: str) -> dict[str, Any]:
    try:
        found = json.loads(_decoded(segment))
    except ValueError as bad:
        raise _BadJwtError("not JSON") from bad
    if not isinstance(found, dict):
        raise _BadJwtError("no object")
    return found


def query_string_hash(method: str, path: str, query: list[tuple[str, str]]) -> str:
    """The hash a JWT must carry for a request ("Understanding JWT for apps", "Creating a query string hash")."""
    path = path if path == "/" else path.rstrip("/")
    by_key: dict[str, list[str]] = {}
    for key, value in query:
        if key != "jwt":
            by_key.setdefault(quote(key, safe="~"), []).append(quote(value, safe="~"))
    canonical = "&".join(f"{key}={','.join(sorted(by_key[key]))}" for key in sorted(by_key))
    text = f"{method}&{path.replace('&', '%26')}&{canonical}"
    return hashlib.sha256(text.encode()).hexdigest()


def _oauth_error(status: int, error: str, description: str) -> RefusalError:
    return RefusalError(status, {"error": error, "error_description": description})


def _scheme(seen: Seen, scheme: str) -> str | None:
    """The credentials of an Authorization header of exactly this scheme; it must stand there once."""
    values = seen.headers.get_all("Authorization") or []
    if len(values) == 1 and values[0].startswith(scheme + " "):
        return values[0].removeprefix(scheme + " ")
    return None


def _braced_uuid() -> str:
    return f"{{{uuid.uuid4()}}}"


@functools.cache
def _authority(name: str, clients: trustme.CA | None) -> tuple[bytes, ssl.SSLContext]:
    """The certificate of an authority, and the TLS of a server that has its name from it; one for all emulators."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return authority.cert_pem.bytes(), context


def make_bare_repository(path: Path, files: dict[str, str]) -> None:
    """Make a bare repository with one commit, on main, that holds ``files``."""
    template = Path(_template(tuple(files.items())).name) / "template"
    shutil.copytree(template, path)


@functools.cache
def _template(files: tuple[tuple[str, str], ...]) -> tempfile.TemporaryDirectory[str]:
    """A folder with the repository ``template``, to be copied: three times as fast as running git each time."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "template"
    environment = {"PATH": os.environ["PATH"], "HOME": str(path.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", "--bare", "--template=", path], check=True, env=environment)
    (path / "HEAD").write_text("ref: refs/heads/main\n")
    with (path / "config").open("a") as config:
        # Who may push is decided by the emulator, before http-backend sees the request.
        config.write("[http]\n\treceivepack = true\n[uploadpack]\n\tallowFilter = true\n\tallowAnySHA1InWant = true\n")
        # 'Command "git archive" failure due to "operation not supported by protocol" error': not over https.
        config.write("[http]\n\tuploadarchive = false\n")
    commit = "commit refs/heads/main\ncommitter Emulator <emulator@example.invalid> 1700000000 +0000\ndata 5\nFirst\n"
    for name, text in files:
        commit += f"M 100644 inline {name}\ndata {len(text.encode())}\n{text}\n"
    importing = ["git", "-C", str(path), "fast-import", "--quiet"]
    subprocess.run(importing, input=commit.encode(), check=True, env=environment)
    return folder


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, emulator: Emulator, origin: str, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.emulator = emulator
        self.origin = origin
        self.context = context

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or never speaks TLS, is no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed names a narrower type


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60

    def setup(self) -> None:
        # In the connection's own thread: a slow handshake must not keep others from being accepted.
        self.server.emulator.count_connection()
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        # The server closes the plain socket it accepted; this one wraps it.
        self.request.close()

    def log_message(self, *arguments: object) -> None:
        """Everything is in `Emulator.seen`."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.server.emulator.now() if timestamp is None else timestamp, usegmt=True)

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        emulator = self.server.emulator
        if not emulator.rules.keep_alive:
            self.protocol_version, self.close_connection = "HTTP/1.0", True
        parts = urlsplit(self.path)
        query = parse_qsl(parts.query, keep_blank_values=True)
        seen = Seen(self.server.origin, self.command, parts.path, query, self.headers)
        body = self._body()
        emulator.record(seen)
        if seen.origin == "storage":
            self._storage(seen, body)
            return
        kind = "api" if seen.origin == "api" else "token" if seen.path == TOKEN_PATH else "git"
        fault = emulator.take_fault(kind)
        if fault and self._misbehaves_at_once(seen, fault):
            return
        try:
            if emulator.rules.gone:
                # To git in plain text.
                plain = RefusalError(410, b"CHANGE-9999 - Functionality has been deprecated")
                raise plain if kind == "git" else gone("CHANGE-9999")
            if kind == "git":
                self._git(seen, body, parts.query)
                return
            if kind == "token":
                if self.command != "POST":
                    raise _oauth_error(405, "invalid_request", "POST only")
                fields = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
                seen.form = dict(fields)
                if len(fields) != len(seen.form):
                    raise _oauth_error(400, "invalid_request", "a field stands there twice")
                answer: object = emulator.swap(seen)
            else:
                answer = emulator.rest(seen)
            if fault and fault.change:
                answer = fault.change(answer) if isinstance(answer, dict) else answer
            self._answer(seen, 200, answer, emulator.rules.announces, fault)
        except RefusalError as refusal:
            self._answer(seen, refusal.status, refusal.body, refusal.headers, fault)

    def _misbehaves_at_once(self, seen: Seen, fault: Fault) -> bool:
        if fault.delay:
            time.sleep(fault.delay)
        if fault.reset:
            # RST instead of FIN: zero linger.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.close()
            return True
        if fault.status is not None:
            self._answer(seen, fault.status, fault.body or b"", fault.headers, fault)
            return True
        return False

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().strip() or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(
        self, seen: Seen, status: int, body: object, headers: dict[str, str], fault: Fault | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if fault and fault.body is not None:
            data = fault.body
        seen.status = status
        self.send_response(status)
        kind = "text/plain" if isinstance(body, bytes) else "application/json; charset=utf-8"
        for name, value in ({"Content-Type": kind} | headers | (fault.headers if fault else {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) + (100 if fault and fault.truncate else 0)))
        self.end_headers()
        with contextlib.suppress(OSError):
            if fault and fault.drip:
                self.wfile.flush()
                for position in range(len(data)):
                    self.wfile.write(data[position : position + 1])
                    self.wfile.flush()
                    time.sleep(fault.drip)
            else:
                self.wfile.write(data)
            self.wfile.flush()
        if fault and fault.truncate:
            self.close_connection = True

    # Git over HTTPS ("Use OAuth on Bitbucket Cloud"), LFS.

    def _git(self, seen: Seen, body: bytes, query: str) -> None:
        emulator = self.server.emulator
        segments = [unquote(segment) for segment in seen.path.strip("/").split("/")]
        if len(segments) < 3:
            raise RefusalError(404, b"not found")
        workspace, slug, rest = segments[0], segments[1].removesuffix(".git"), segments[2:]
        repository = emulator.find(workspace, slug)
        issued = self._basic_token(seen)
        if issued is None:
            # Whether the repository exists is not told either.
            raise RefusalError(401, _NOT_SEEN.encode(), _CHALLENGE)
        if repository is None or rest[0] == "wiki":  # Wikis were removed on 20 August 2026.
            raise RefusalError(404, _NOT_SEEN.encode())
        pushes = "git-receive-pack" in (rest[-1], dict(seen.query).get("service"))
        uploads = rest[:2] == ["info", "lfs"] and (self.command == "PUT" or b'"upload"' in body)
        needed = "repository:write" if pushes or uploads else "repository"
        if issued.workspace != repository.workspace or issued.repository not in (None, repository.uuid):
            status = emulator.rules.another_repositorys_token
            raise RefusalError(status, _NOT_SEEN.encode(), _CHALLENGE if status == 401 else {})
        if needed not in with_implied(issued.scopes):
            raise RefusalError(403, b"Your credentials lack one or more required privilege scopes.")
        path = repository.path
        if rest[:2] == ["info", "lfs"]:
            self._lfs(seen, repository, rest[2:], body)
        else:
            self._http_backend(seen, path, "/".join(rest), query, body)

    def _basic_token(self, seen: Seen) -> IssuedToken | None:
        encoded = _scheme(seen, "Basic")
        if encoded is None:
            return None
        try:
            user, _, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError:
            return None
        return self.server.emulator.check_token(password) if user == "x-token-auth" else None

    def _lfs(self, seen: Seen, repository: HostedRepository, rest: list[str], body: bytes) -> None:
        """The basic transfer of the Git LFS API specification."""
        store = repository.path / "lfs-objects"
        if rest == ["objects", "batch"]:
            asked = json.loads(body)
            emulator = self.server.emulator
            # "Git LFS API", actions: a header of their own, for a host that git-lfs then asks no helper for.
            place = f"{emulator.storage_url}/{quote(repository.uuid)}"
            header = {"Authorization": f"Storage {emulator.storage_key}"}
            objects = []
            for one in asked["objects"]:
                known = (store / one["oid"]).exists()
                actions = {}
                if asked["operation"] == "upload" and not known:
                    actions["upload"] = {"href": f"{place}/{one['oid']}", "header": header}
                elif asked["operation"] == "download" and known:
                    actions["download"] = {"href": f"{place}/{one['oid']}", "header": header}
                objects.append({**one, "actions": actions, "authenticated": True})
            answer = json.dumps({"transfer": "basic", "objects": objects}).encode()
            self._answer(seen, 200, answer, {"Content-Type": "application/vnd.git-lfs+json"})
        else:
            raise RefusalError(404, b"not found")

    def _storage(self, seen: Seen, body: bytes) -> None:
        """The storage host of LFS: it knows its own key alone."""
        emulator = self.server.emulator
        uuid_of, _, oid = unquote(seen.path).strip("/").partition("/")
        stores = [one.path / "lfs-objects" for one in emulator.repositories if one.uuid == uuid_of]
        if _scheme(seen, "Storage") != emulator.storage_key or not stores or not oid.isalnum():
            self._answer(seen, 403, b"", {})
        elif self.command == "PUT":
            stores[0].mkdir(exist_ok=True)
            (stores[0] / oid).write_bytes(body)
            self._answer(seen, 200, b"", {})
        else:
            self._answer(seen, 200, (stores[0] / oid).read_bytes(), {})

    def _http_backend(self, seen: Seen, path: Path, rest: str, query: str, body: bytes) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(path),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            # The repository may belong to another user than the one who runs the tests.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": f"/{rest}",
            "REQUEST_METHOD": self.command,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "x-token-auth",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self._answer(seen, status, content, headers)


def main() -> None:
    """Serve one private repository until standard input ends; print as JSON what a client needs to know."""
    with Emulator(Path(sys.argv[1])) as emulator:
        app = emulator.install("acme")
        repositories = [emulator.host_repository(f"acme/{name}") for name in sys.argv[2:] or ["widgets"]]
        known = {
            "base_url": emulator.base_url,
            "base_api_url": emulator.base_api_url,
            "ca_file": str(emulator.ca_file),
            "payload": emulator.payload(app),
            "uuids": {one.full_name: one.uuid for one in repositories},
        }
        print(json.dumps(known), flush=True)
        for line in sys.stdin:
            if line.strip() == "mints":
                print(emulator.mints(), flush=True)


if __name__ == "__main__":
    main()
