"""The answer of a broker, whoever carries it: a socket, sshd, or a web server.

A client reads only words that cannot be about the installation. This fails closed: of an error that is not listed here
it reads nothing. The audit has the cause.
"""

import sys
from typing import NamedTuple

from git_credential_bbjwt.core.failures import (
    AnothersWorkspaceError,
    BadAnswerError,
    BudgetSpentError,
    ConnectionFailedError,
    CredentialError,
    MalformedRequestError,
    RefusedError,
    TooManyRefusedError,
    UndecidedError,
    WholeWorkspaceError,
)
from git_credential_bbjwt.core.output import one_line
from git_credential_bbjwt.core.protocol import format_answer
from git_credential_bbjwt.system.lock import WAITING

Headers = tuple[tuple[str, str], ...]

# Characters of a reason that a client reads.
_LONGEST_REASON = 500

_NOT_SET_UP = "this broker is not set up; its log says why"

#: The budget's word for the time before the request has arrived.
WAITING_FOR_REQUEST = "waiting for the request"


class DeniedError(CredentialError):
    """There is no token, for a ``reason`` that the client may read; by default that is the error's sentence.

    ``status`` and ``headers`` are those of an HTTP response.
    """

    status = 403

    def __init__(
        self,
        what: str,
        hint: str = "",
        *,
        reason: str = "",
        status: int | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(what, hint)
        self.reason = reason or what
        self.status = status or self.status
        self.headers = headers


class TooManyError(DeniedError):
    """A client has asked as often as it may. ``seconds`` says when to ask again."""

    status = 429

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what}; ask again in {seconds:.0f} s", headers=_retry_after(seconds))


class Answer(NamedTuple):
    """The outcome of a request: the ``lines`` for the client, which end with a blank line, and the audit's fields.

    ``reason`` is what the client reads, ``cause`` the audit's text. ``expires`` is a Unix time; ``digest`` begins the
    token's SHA-256.
    """

    status: int
    lines: bytes
    repository: str = ""
    reason: str = ""
    cause: str = ""
    expires: int | None = None
    digest: str = ""
    headers: Headers = ()

    @property
    def outcome(self) -> str:
        """The audit's ``outcome``."""
        if self.status == 200:
            return "granted" if self.digest else "nothing to say"
        return "refused" if self.status in (401, 403) else "error"


def not_allowed() -> DeniedError:
    """Return the error for a repository that no pattern allows, or that is not there: a client cannot see which."""
    return DeniedError("this broker hands out no token for this repository")


def refusal(problem: CredentialError, repository: str = "", doing: str = "") -> Answer:
    """Return the answer for an error. ``doing`` is what the budget was spent for."""
    status, reason, headers = _for_client(problem, doing)
    cause = f"{problem.what} ({problem.hint})" if problem.hint else problem.what
    return _without_token(status, reason, cause, repository, headers)


def internal_error(problem: Exception, repository: str = "") -> Answer:
    """Return the answer for an exception. The audit has its type and where it was raised, but none of its words."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
    errno = f" {problem.strerror}" if isinstance(problem, OSError) and problem.strerror else ""
    cause = f"internal error: {type(problem).__name__}{errno}{where}, Python {sys.version.split()[0]}"
    return _without_token(500, _NOT_SET_UP, cause, repository)


def _for_client(problem: CredentialError, doing: str) -> tuple[int, str, Headers]:
    match problem:
        case DeniedError():
            return problem.status, problem.reason, problem.headers
        case MalformedRequestError():
            return 400, problem.what, ()
        case TooManyRefusedError():
            return 429, problem.what, _retry_after(problem.seconds)
        case WholeWorkspaceError():
            return 502, problem.what, ()
        case BudgetSpentError():
            what, _, _ = problem.what.partition(": ")
            shown = doing if doing in (WAITING_FOR_REQUEST, WAITING) else "waiting for Bitbucket"
            return 504, f"{what}: {shown}", ()
        case RefusedError():
            return 502, f"Bitbucket refuses this broker's request ({problem.status}); its log says why", ()
        case BadAnswerError() | AnothersWorkspaceError():
            return 502, "this broker cannot use Bitbucket's response; its log says why", ()
        case ConnectionFailedError() | UndecidedError():
            return 502, "this broker got no answer from Bitbucket; its log says why", ()
        case _:
            return 502, _NOT_SET_UP, ()


def _without_token(status: int, reason: str, cause: str, repository: str, headers: Headers = ()) -> Answer:
    reason = _ascii(one_line(reason))
    lines = format_answer([("quit", "1"), ("bbjwt-error", reason)]) + b"\n"
    return Answer(status, lines, repository, reason, one_line(cause), headers=headers)


def _ascii(text: str) -> str:
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text)[:_LONGEST_REASON]


def _retry_after(seconds: float) -> Headers:
    return (("Retry-After", str(max(1, round(seconds)))),)
