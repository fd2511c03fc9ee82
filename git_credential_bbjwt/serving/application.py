"""The https broker: a WSGI application that answers jobs which prove their identity with an ID token.

A worker lives long: each request closes its files, nothing ends the process, and every record of requests is
bounded. Sources: PEP 3333 (WSGI); RFC 6750 (``Bearer``); README.md in this folder, "Answers".
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

from git_credential_bbjwt.core.failures import AuditError, CredentialError
from git_credential_bbjwt.core.output import error, warning
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.sources import read_sources
from git_credential_bbjwt.serving.answer import (
    NOT_ALLOWED,
    NOT_SET_UP,
    Answer,
    Kind,
    Rules,
    no_token,
)
from git_credential_bbjwt.serving.answering import Answering, in_time
from git_credential_bbjwt.serving.id_token import NotAcceptedError
from git_credential_bbjwt.serving.identities import Identity, RequestLimit, checked, matching_rules
from git_credential_bbjwt.serving.isolation import OPERATORS_FOLDERS, check_own_file, operators_folder
from git_credential_bbjwt.serving.issuer_keys import KeysNotAvailableError
from git_credential_bbjwt.serving.limits import tidy_folder
from git_credential_bbjwt.serving.policy import Policy
from git_credential_bbjwt.serving.policy_in_force import PolicyInForce, State
from git_credential_bbjwt.serving.request_body import BodyError, read_body
from git_credential_bbjwt.system.budget import Budget

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

_PATH, _HEALTH_PATH = "/git-credentials", "/healthz"

# The variables by which the operator names the broker's own folder.
_FOLDERS = (*OPERATORS_FOLDERS, "XDG_RUNTIME_DIR", "XDG_CACHE_HOME")

# Seconds between two times that a worker removes what is past its end in that folder, which takes some milliseconds.
_BETWEEN_TIDYING = 10

# Seconds after which keys that are not available now may be.
_KEYS_RETRY = 10

_STATUS = {
    Kind.TOKEN: 200,
    Kind.NOTHING: 200,
    Kind.MALFORMED: 400,
    Kind.NOT_ALLOWED: 403,
    Kind.TOO_MANY: 429,
    Kind.INTERNAL: 500,
    Kind.BITBUCKET: 502,
    Kind.WHOLE_WORKSPACE: 502,
    Kind.NOT_SET_UP: 502,
    Kind.NO_AUDIT: 503,
    Kind.TIMEOUT: 504,
}


# The kinds of answers that are given before the request was read, for the audit.
_KINDS = {401: Kind.NOT_ALLOWED, 403: Kind.NOT_ALLOWED, 429: Kind.TOO_MANY, 503: Kind.NOT_SET_UP}


class _Refusal(Exception):  # noqa: N818  # it never leaves this module: an answer before the request was read
    """An answer that is given before the request is handed on. ``anonymous``: no identity was proved."""

    def __init__(self, status: int, reason: str, *headers: tuple[str, str], anonymous: bool = False) -> None:
        super().__init__(reason)
        answer = no_token(_KINDS.get(status, Kind.MALFORMED), reason)
        self.response = _Response(status, answer, headers, anonymous)


class _Response(NamedTuple):
    """A response; ``answer`` has its body and the fields of the audit."""

    status: int
    answer: Answer
    headers: tuple[tuple[str, str], ...] = ()
    anonymous: bool = False


class Application:
    """The application. One object serves all threads of a worker."""

    def __init__(self, path: str) -> None:
        """Read the configuration in the file ``path``, and fetch the keys that it needs. Raises PolicyError."""
        self._in_force = PolicyInForce(path)
        self._limit = RequestLimit()
        self._next_tidying = 0.0
        self._begun = threading.Lock()
        self._process = 0
        self._begin()

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        """Answer one request (PEP 3333)."""
        if self._process != os.getpid():  # The server loaded this before it made its workers.
            self._begin()
        method, path = environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", "")
        if path == _HEALTH_PATH and method in ("GET", "HEAD"):
            healthy = self._is_healthy()
            body = b"" if method == "HEAD" or not healthy else b"ok\n"
            return _respond(start_response, 200 if healthy else 503, body)
        if path not in (_PATH, _HEALTH_PATH):
            return _respond(start_response, 404, b"")
        if path == _HEALTH_PATH or method != "POST":
            return _respond(start_response, 405, b"", [("Allow", "POST" if path == _PATH else "GET, HEAD")])
        try:
            return self._answer(environ, start_response)
        except Exception as problem:  # The server would print a traceback.
            error(f"internal error: {type(problem).__name__}", "set BBJWT_TRACE=1 to see where")
            return _respond(start_response, 500, b"")

    def _begin(self) -> None:
        with self._begun:
            if self._process != os.getpid():
                self._in_force.begin()
                self._process = os.getpid()

    def _is_healthy(self) -> bool:
        problems = _problems(self._in_force.current().policy)
        for problem in problems:
            warning(f"not healthy: {problem.what} ({problem.hint})")
        return not problems

    def _answer(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        state = self._in_force.current()
        asker: dict[str, object] = {"by": "oidc", "address": environ.get("REMOTE_ADDR", "")}
        if environ.get("HTTP_X_FORWARDED_FOR"):
            asker["claimed"] = environ["HTTP_X_FORWARDED_FOR"]
        try:
            identity = self._identity(environ, state, asker)
            response = _answered(environ, state.policy, identity)
        except _Refusal as refusal:
            response = refusal.response
        answer = response.answer
        try:
            state.log.write(
                asker,
                anonymous=response.anonymous,
                repository=answer.repository,
                scope=state.policy.scope,
                outcome=answer.kind.outcome,
                reason=answer.cause or answer.reason,
                expires=answer.expires,
                digest=answer.digest,
                status=response.status,
            )
        except AuditError as problem:
            error(problem.what, problem.hint)
            refused = no_token(Kind.NO_AUDIT, "the audit cannot be written, so there is no token")
            return _respond(start_response, 503, refused.lines)
        if answer.kind is Kind.TOKEN and time.monotonic() >= self._next_tidying:
            self._next_tidying = time.monotonic() + _BETWEEN_TIDYING
            tidy_folder(operators_folder(_FOLDERS))
        if response.status == 500:
            error(answer.cause)
            return _respond(start_response, 500, b"")
        return _respond(start_response, response.status, answer.lines, response.headers)

    def _identity(self, environ: Environ, state: State, asker: dict[str, object]) -> Identity:
        """Return who asks, and write it into ``asker``. Raises _Refusal."""
        scheme, _, text = environ.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise _Refusal(401, "the request has no ID token", ("WWW-Authenticate", "Bearer"), anonymous=True)
        try:
            token = checked(text.strip(), state.policy, state.keys)
        except NotAcceptedError as problem:
            challenge = ("WWW-Authenticate", 'Bearer error="invalid_token"')
            raise _Refusal(401, problem.what, challenge, anonymous=True) from problem
        except KeysNotAvailableError as problem:
            raise _Refusal(503, problem.what, ("Retry-After", str(_KEYS_RETRY)), anonymous=True) from problem
        identity = Identity(token, matching_rules(token, state.policy))
        asker |= identity.described()
        wait = self._limit.seconds_to_wait(token, state.policy.per_minute)
        if wait:
            raise _Refusal(429, f"too many requests; ask again in {wait} s", ("Retry-After", str(wait)))
        if not identity.rules:
            raise _Refusal(403, NOT_ALLOWED)
        return identity


def _answered(environ: Environ, policy: Policy, identity: Identity) -> _Response:
    """Answer a request of a known identity. Raises _Refusal."""
    budget = Budget(policy.timeout)
    try:
        body = read_body(environ)
    except BodyError as problem:
        raise _Refusal(problem.status, problem.reason, anonymous=problem.status != 408) from problem
    try:
        _check_installation(policy)
    except CredentialError as problem:
        return _Response(502, no_token(Kind.NOT_SET_UP, NOT_SET_UP, problem.what))
    rules = Rules(policy.options, identity.patterns, policy.whole_workspace, operators_folder(_FOLDERS))
    answer = in_time(budget, Answering(lambda: rules, budget), lambda: body)
    headers = () if answer.retry_after is None else (("Retry-After", str(max(1, answer.retry_after))),)
    return _Response(_STATUS[answer.kind], answer, headers, anonymous=answer.kind is Kind.MALFORMED)


def _problems(policy: Policy) -> list[CredentialError]:
    """Return what is wrong with the installations that are there."""
    try:
        _check_installation(policy)
        return list(Catalogue(read_sources(policy.options)).problems())
    except CredentialError as problem:
        return [problem]


def _check_installation(policy: Policy) -> None:
    """Raise CredentialError for an installation's file that others could have written."""
    if policy.installation is not None:
        check_own_file(policy.installation, "installation")


def _respond(
    start_response: StartResponse, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()
) -> list[bytes]:
    start_response(
        f"{status} {HTTPStatus(status).phrase}",
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Cache-Control", "no-store"),
            ("Content-Length", str(len(body))),
            *headers,
        ],
    )
    return [body] if body else []
