"""The emulated Bitbucket's parts, its switches, and its refusals."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from tests.emulator.repositories import make_bare_repository

GRANT_TYPE = "urn:bitbucket:oauth2:jwt"
CONSUMER_GRANT_TYPE = "client_credentials"
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
class Consumer:
    """An OAuth consumer of a workspace, with the scopes that its permissions give ("Use OAuth on Bitbucket Cloud")."""

    key: str
    secret: str
    workspace: str
    workspace_uuid: str
    scopes: set[str]
    #: Marked *This is a private consumer*; others may not use the client credentials grant.
    private: bool = True
    deleted: bool = False


@dataclass
class HostedRepository:
    """A repository. ``files`` are those of its one commit, or None for a ``folder`` that is made already."""

    workspace: str
    workspace_uuid: str
    slug: str
    uuid: str
    folder: Path
    files: dict[str, str] | None
    old_slugs: set[str] = field(default_factory=set)
    #: Git may read it without a password, but a wrong password is refused.
    is_public: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.workspace}/{self.slug}"

    @property
    def path(self) -> Path:
        """The bare repository for git's http-backend, made when it is first needed, because most tests need none."""
        with _MAKING:
            if self.files is not None:
                make_bare_repository(self.folder, self.files)
                self.files = None
        return self.folder


# Two requests may need a repository at once.
_MAKING = threading.Lock()


@dataclass
class IssuedToken:
    """An access token. ``repository`` is the UUID that it is limited to; None for the whole workspace."""

    workspace: str
    scopes: set[str]
    repository: str | None
    expires: float
    revoked: bool = False
    #: The consumer's key; empty for a Connect app's token.
    consumer: str = ""


@dataclass
class Seen:
    """One request and its answer."""

    origin: str  # "base" or "api"
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Message[str, str]
    form: dict[str, str] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    jwt: str = ""
    status: int = 0
    #: When the request was received, and when its answer was begun: seconds of this machine's monotonic clock.
    received: float = 0.0
    answered: float = 0.0
    #: Headers that a good answer has beside the usual ones.
    answer_headers: dict[str, str] = field(default_factory=dict)

    @property
    def is_helper(self) -> bool:
        """Return whether the helper sent it, and not git."""
        return self.origin == "api" or (self.origin == "base" and self.path == TOKEN_PATH)


@dataclass
class Fault:
    """A misbehaviour for the next request of its kind. The fields that are set replace or change the answer."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    #: Seconds before anything is sent.
    delay: float = 0.0
    #: Seconds between the bytes of the body.
    drip: float = 0.0
    #: Send nothing, until the client goes away.
    silent: bool = False
    #: Close with a TCP reset, nothing sent.
    reset: bool = False
    #: Close in the middle of the body.
    truncate: bool = False
    #: Change the JSON of a good answer.
    change: Callable[[dict[str, Any]], Any] | None = None


#: An outage of the REST API (Bitbucket's status page: January 7, 2026, for 95 minutes while git worked).
OUTAGE = Fault(status=503, body=b"<html><body>Bitbucket is unavailable</body></html>")

#: The hour's allowance is used up: plain text of 46 bytes, no `Retry-After` (SharpBucket #108, Jenkins #414).
RATE_LIMITED = Fault(
    status=429, headers={"Content-Type": "text/plain"}, body=b"Rate limit for this resource has been exceeded"
)

#: A host that takes connections and never answers.
SILENCE = Fault(silent=True)

#: The texts of git's 403 ("Error 403 when performing Git operations").
IP_ALLOW_LIST = "To access this repository, an admin must whitelist your IP."
TWO_STEP_VERIFICATION = "To access this repository, enable two-step authentication."


@dataclass
class End:
    """The end of Connect, or its rehearsal. Nobody knows a swap's answer then, so each possibility is a switch.

    `how` is "gone" (410: ends of endpoints, community threads of 2026), "unauthorized" (401 like a bad JWT: ends of
    credentials, community article 3237429), "unsupported" (400 "Unsupported grant type": what the endpoint says about a
    grant that it does not know) or "forbidden" (403, inferred).
    """

    how: str
    #: Unix time by the server's clock when everything works again; None: never.
    until: float | None = None
    #: The REST API refuses JWTs too.
    look_ups: bool = True
    #: Tokens that Connect apps got before are refused as well, by git too (as app passwords were).
    tokens: bool = False


@dataclass
class Rules:
    """Switches for facts about Bitbucket that are only inferred. The helper must work either way."""

    #: The REST API checks the `qsh` of a JWT.
    rest_checks_qsh: bool = True
    #: A renamed repository's old name redirects (else 404).
    rename_redirects: bool = False
    #: Answers name scopes by their new names (`read:repository:bitbucket`), which Bitbucket's pages show today.
    new_scope_names: bool = False
    #: The swap takes a scope by its new name.
    takes_new_scope_names: bool = False
    #: Tokens have some 90 characters, as before May 2026 (CHANGE-3052); since then they are JWTs of about 1,900.
    short_tokens: bool = False
    #: The REST API accepts JWTs (otherwise only tokens).
    rest_takes_jwt: bool = True
    #: The swap checks the `qsh` of a JWT (PR-Agent and others send none, and are served).
    swap_checks_qsh: bool = True
    #: A scope may be requested that the app has only because another scope includes it.
    implied_scope_may_be_asked: bool = True
    #: The answer of a grant names the scope (for the swap, only the page says so).
    echoes_scope: bool = True
    #: Key and secret of a consumer are form-encoded within HTTP Basic (RFC 6749, section 2.3.1; Go's oauth2 does so);
    #: otherwise they are unchanged (Atlassian's examples: `curl -u`).
    consumer_form_encoded: bool = False
    #: Status for a consumer with a wrong key or secret: 400 was seen (SonarQube's tests), RFC 6749 says 401.
    wrong_consumer_status: int = 400
    #: Status for git with a good token of another repository: no source says.
    another_repositorys_token: int = 403
    #: Ended, or rehearsing the end: every request is answered with 410 (community threads of 2026).
    gone: bool = False
    #: Connect has ended, or rehearses it (see `Emulator.end_connect`); OAuth consumers go on.
    connect_end: End | None = None
    #: A fault for every request to the REST API, until it is None again: `OUTAGE`, `RATE_LIMITED`, `SILENCE`.
    rest_fault: Fault | None = None
    #: Nobody may see a repository from here: `IP_ALLOW_LIST` or `TWO_STEP_VERIFICATION`. Git gets it as text (A), the
    #: REST API as its error's message (inferred).
    refuses: str = ""
    #: `refuses` applies to git alone.
    refuses_git_alone: bool = False
    #: Seconds for which a refused swap makes the endpoint refuse good ones (one report of August 2026).
    refusal_lasts: float = 0.0
    #: LFS answers 401 to every token. Nobody has seen this at Bitbucket. git-lfs 3.3 to 3.6 then asks forever.
    lfs_refuses: bool = False
    #: Headers of every good answer: `Deprecation`, `Sunset`, `Link` (renovate issue 45461).
    announces: dict[str, str] = field(default_factory=dict)
    #: Connections stay open after an answer (HTTP/1.1), or each is closed (HTTP/1.0).
    keep_alive: bool = True
    #: Lifetime of tokens in seconds; documentation of different years says 3600 and 7200.
    lifetime: int = 7200


# "Scopes for the Bitbucket Cloud REST API".
IMPLIES = {
    "repository:write": {"repository"},
    "pullrequest": {"repository"},
    "pullrequest:write": {"pullrequest", "repository:write", "repository"},
}

#: The new names of scopes (Forge pages; sourcegraph/docs #1768).
NEW_NAMES = {
    "repository": "read:repository:bitbucket",
    "repository:write": "write:repository:bitbucket",
    "repository:admin": "admin:repository:bitbucket",
    "repository:delete": "delete:repository:bitbucket",
    "pullrequest": "read:pullrequest:bitbucket",
    "pullrequest:write": "write:pullrequest:bitbucket",
}
_OLD_NAMES = {new: old for old, new in NEW_NAMES.items()}


def with_implied(scopes: set[str]) -> set[str]:
    """Return all scopes that ``scopes`` include, by old names. New names imply no others (two projects' READMEs)."""
    allowed = scopes.union(*(IMPLIES.get(scope, set()) for scope in scopes))
    return allowed | old_names(scopes)


def old_names(scopes: set[str]) -> set[str]:
    """The scopes by their old names."""
    return {_OLD_NAMES.get(scope, scope) for scope in scopes}


def token_of(claims: dict[str, Any], *, short: bool) -> str:
    """A new access token: a JWT of about 1,900 characters (aws-amplify/amplify-hosting #4105), or a short one."""
    if short:
        return secrets.token_urlsafe(60) + "="
    # The claims of Bitbucket's tokens are not known.
    parts = [{"alg": "RS256", "typ": "JWT"}, claims | {"jti": secrets.token_hex(16), "context": secrets.token_hex(470)}]
    head = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
    return f"{head}.{_base64url(secrets.token_bytes(256))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class RefusalError(Exception):
    """A refusal."""

    def __init__(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body
        self.headers = headers or {}


def rest_error(status: int, message: str, detail: object = None) -> RefusalError:
    error = {"message": message} | ({"detail": detail} if detail is not None else {})
    return RefusalError(status, {"type": "error", "error": error})


def gone(change: str) -> RefusalError:
    """Return the answer of a function that has ended or rehearses its end (community threads and blogs of 2026)."""
    error = {
        "message": f"{change} - Functionality has been deprecated",
        "detail": "See the announcement for what takes its place.",
        "data": {"announcement_url": f"https://developer.atlassian.com/cloud/bitbucket/changelog/#{change}"},
    }
    return RefusalError(410, {"type": "error", "error": error})


NOT_SEEN = (
    "You may not have access to this repository or it no longer exists in this workspace. If you think this repository "
    "exists and you have access, make sure you are authenticated."
)


CHALLENGE = {"WWW-Authenticate": 'Basic realm="Bitbucket.org HTTP"'}


def oauth_error(status: int, error: str, description: str) -> RefusalError:
    return RefusalError(status, {"error": error, "error_description": description})


def scheme_of(seen: Seen, scheme: str) -> str | None:
    """Return the credentials of an Authorization header of exactly this scheme, if there is one such header."""
    values = seen.headers.get_all("Authorization") or []
    if len(values) == 1 and values[0].startswith(scheme + " "):
        return values[0].removeprefix(scheme + " ")
    return None


def braced_uuid() -> str:
    return f"{{{uuid.uuid4()}}}"
