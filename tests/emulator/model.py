"""What the emulated Bitbucket consists of, what is switchable about it, and how it says no."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

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
    #: Answers have a `Date`, as RFC 9110, section 6.6.1, wants it of a server that has a clock.
    dates: bool = True
    #: Lifetime of tokens in seconds; documentation of different years says 3600 and 7200.
    lifetime: int = 7200


# "Scopes for the Bitbucket Cloud REST API".
IMPLIES = {
    "repository:write": {"repository"},
    "pullrequest": {"repository"},
    "pullrequest:write": {"pullrequest", "repository:write", "repository"},
}


def with_implied(scopes: set[str]) -> set[str]:
    """All that ``scopes`` allow."""
    return scopes.union(*(IMPLIES.get(scope, set()) for scope in scopes))


class RefusalError(Exception):
    """An answer that is a no."""

    def __init__(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body
        self.headers = headers or {}


def rest_error(status: int, message: str, detail: object = None) -> RefusalError:
    error = {"message": message} | ({"detail": detail} if detail is not None else {})
    return RefusalError(status, {"type": "error", "error": error})


def gone(change: str) -> RefusalError:
    """What has ended, or is in a brown-out, answers this (community threads and blogs of 2026)."""
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
    """The credentials of an Authorization header of exactly this scheme; it must stand there once."""
    values = seen.headers.get_all("Authorization") or []
    if len(values) == 1 and values[0].startswith(scheme + " "):
        return values[0].removeprefix(scheme + " ")
    return None


def braced_uuid() -> str:
    return f"{{{uuid.uuid4()}}}"
