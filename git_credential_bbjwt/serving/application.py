"""The https broker: a WSGI application that answers jobs which prove their identity with an ID token.

A worker lives long: each request closes its files, nothing ends the process, and every record of requests is bounded.
Sources: PEP 3333 (WSGI); README.md in this folder, "Watch it".
"""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.output import error, warning
from git_credential_bbjwt.core.sources import read_sources
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.serving.answer import (
    Answer,
    Headers,
    TooManyError,
    internal_error,
    not_allowed,
    refusal,
)
from git_credential_bbjwt.serving.answering import Answering, OperatorSettings
from git_credential_bbjwt.serving.identities import identify
from git_credential_bbjwt.serving.limits import MinuteCounter, tidy_folder
from git_credential_bbjwt.serving.operators_files import OPERATORS_FOLDERS, check_own_file, operators_folder
from git_credential_bbjwt.serving.policy import Policy
from git_credential_bbjwt.serving.policy_in_force import PolicyInForce, State
from git_credential_bbjwt.serving.request_body import read_body
from git_credential_bbjwt.system.budget import Budget

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

_PATH, _HEALTH_PATH = "/git-credentials", "/healthz"

# The variables by which the operator names the broker's own folder.
_FOLDERS = (*OPERATORS_FOLDERS, "XDG_RUNTIME_DIR", "XDG_CACHE_HOME")

# Seconds between two times that a worker removes what is past its end in a part of that folder.
_BETWEEN_TIDYING = 1


class Application:
    """The application. One object serves all threads of a worker."""

    def __init__(self, path: str) -> None:
        """Read the configuration in the file ``path``, and fetch the keys that it needs. Raises PolicyError."""
        self._in_force = PolicyInForce(path)
        self._requests = MinuteCounter()
        self._next_tidying = 0.0

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        """Answer one request (PEP 3333)."""
        try:
            status, body, headers = self._respond(environ)
        except Exception as problem:  # The server would print a traceback.
            error(internal_error(problem).cause)
            status, body, headers = 500, b"", ()
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

    def _respond(self, environ: Environ) -> tuple[int, bytes, Headers]:
        method, path = environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", "")
        methods = {_PATH: ("POST",), _HEALTH_PATH: ("GET", "HEAD")}.get(path)
        if methods is None:
            return 404, b"", ()
        if method not in methods:
            return 405, b"", (("Allow", ", ".join(methods)),)
        if path == _PATH:
            answer = self._answer(environ)
            is_internal = answer.status == 500
            return answer.status, b"" if is_internal else answer.lines, answer.headers
        if not _is_healthy(self._in_force.current().policy):
            return 503, b"", ()
        return 200, b"ok\n" if method == "GET" else b"", ()

    def _answer(self, environ: Environ) -> Answer:
        state = self._in_force.current()
        client: dict[str, object] = {"by": "oidc", "address": environ.get("REMOTE_ADDR", "")}
        if environ.get("HTTP_X_FORWARDED_FOR"):
            client["claimed"] = environ["HTTP_X_FORWARDED_FOR"]
        try:
            answer = self._answer_to_identity(environ, state, client)
        except CredentialError as problem:
            answer = refusal(problem)
        except Exception as problem:
            answer = internal_error(problem)
        if answer.status == 500:
            error(answer.cause)
        answer = state.audit.record(answer, client, state.policy.options.scope, status=answer.status)
        if answer.digest and time.monotonic() >= self._next_tidying:
            self._next_tidying = time.monotonic() + _BETWEEN_TIDYING
            tidy_folder(operators_folder(_FOLDERS))
        return answer

    def _answer_to_identity(self, environ: Environ, state: State, client: dict[str, object]) -> Answer:
        """Return the answer to the identity in the ID token, and add the identity to ``client``. Raises DeniedError."""
        policy = state.policy
        identity = identify(environ.get("HTTP_AUTHORIZATION", ""), policy, state.keys)
        client.update(identity.described())
        if self._requests.count(hash((identity.token.issuer, identity.token.subject))) > policy.per_minute:
            raise TooManyError("too many requests", self._requests.seconds_left())
        if not identity.rules:
            raise not_allowed()
        budget = Budget(policy.options.timeout)
        body = read_body(environ)

        def read_settings() -> OperatorSettings:
            _check_installation(policy)
            return OperatorSettings(
                policy.options, identity.patterns, policy.whole_workspace, operators_folder(_FOLDERS)
            )

        return Answering(read_settings, budget).answer(lambda: body)


def _is_healthy(policy: Policy) -> bool:
    """Return whether each installation that is named can be read; if not, say why on standard error."""
    try:
        _check_installation(policy)
        problems: list[CredentialError] = [*Catalogue(read_sources(policy.options)).problems()]
    except CredentialError as problem:
        problems = [problem]
    for one in problems:
        warning(f"not healthy: {one.what}" + (f" ({one.hint})" if one.hint else ""))
    return not problems


def _check_installation(policy: Policy) -> None:
    """Raise CredentialError for an installation's file that others could have written."""
    if policy.options.installation is not None:
        check_own_file(policy.options.installation, "installation")
