"""The answer of a broker, whoever carries it: a socket, sshd, or a web server.

What a client reads is decided here and fails closed: only the words of errors that cannot be about the installation
reach it. The audit has the rest.
"""

import sys
from enum import Enum
from typing import NamedTuple

from git_credential_bbjwt.core.failures import (
    AnothersWorkspaceError,
    AuditError,
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
from git_credential_bbjwt.core.lock import WAITING
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import one_line
from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.core.protocol import format_answer
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.serving.audit import LONGEST_VALUE, Audit, NoSyslogError, audit_line
from git_credential_bbjwt.serving.limits import (
    CannotLimitError,
    LimitError,
)
from git_credential_bbjwt.system.budget import Budget

# Characters of a reason that a client reads.
_LONGEST_REASON = 500

NOT_ALLOWED = "this broker hands out no token for this repository"
NO_AUDIT = "the audit cannot be written, so there is no token"
NOT_SET_UP = "this broker is not set up; its log says why"

_WAITING_FOR_BITBUCKET = "waiting for Bitbucket"

#: The budget's word for the time before the request has arrived.
WAITING_FOR_REQUEST = "waiting for the request"


class Kind(Enum):
    """The outcome of a request."""

    TOKEN = "token"
    #: No installation names the host or workspace.
    NOTHING = "nothing"
    #: The request is not in git's format.
    MALFORMED = "malformed"
    #: No pattern allows the repository, or it is not there.
    NOT_ALLOWED = "not allowed"
    #: A limit is reached; ``retry_after`` says when to ask again.
    TOO_MANY = "too many"
    #: Bitbucket gives no token, or cannot be reached.
    BITBUCKET = "bitbucket"
    #: The token would open the whole workspace.
    WHOLE_WORKSPACE = "whole workspace"
    #: The installation, the allow-list or the broker's folder cannot be used.
    NOT_SET_UP = "not set up"
    #: The budget is spent.
    TIMEOUT = "timeout"
    #: The audit cannot be written.
    NO_AUDIT = "no audit"
    #: A fault of the helper.
    INTERNAL = "internal"

    @property
    def outcome(self) -> str:
        """The audit's ``outcome``."""
        return _OUTCOMES.get(self, "error")


_OUTCOMES = {Kind.TOKEN: "granted", Kind.NOTHING: "nothing to say", Kind.NOT_ALLOWED: "refused"}


class Rules(NamedTuple):
    """The operator's decisions. ``options`` has scope, app, installation, store, hosts and budget.

    ``folder`` is the absolute path of the broker's own folder, None if the operator named none.
    """

    options: HelperOptions
    patterns: tuple[Pattern, ...]
    whole_workspace: bool = False
    folder: str | None = None

    def allow(self, repository: Repository) -> bool:
        """Whether a client may have a token for ``repository``, named by its slugs."""
        return any(pattern.allows(repository) for pattern in self.patterns)


class Answer(NamedTuple):
    """The outcome of a request: the ``lines`` for the client, which end with a blank line, and the audit's fields.

    ``reason`` is what the client reads, ``cause`` what the audit has in its place. ``expires`` is a Unix time;
    ``digest`` begins the token's SHA-256; ``retry_after`` are seconds.
    """

    kind: Kind
    lines: bytes
    repository: str = ""
    reason: str = ""
    cause: str = ""
    expires: int | None = None
    digest: str = ""
    retry_after: int | None = None

    @property
    def status(self) -> int:
        """The exit status of a process that answers so."""
        return 0 if self.kind in (Kind.TOKEN, Kind.NOTHING) else 1


class NotAllowedError(CredentialError):
    """No pattern allows the repository, or it is not there. A client cannot see which."""


def no_token(kind: Kind, reason: str, cause: str = "", repository: str = "", retry_after: int | None = None) -> Answer:
    """Return an answer without a token. The client reads ``reason``, the audit has ``cause`` if there is one."""
    reason = _ascii(one_line(reason))
    lines = format_answer([("quit", "1"), ("bbjwt-error", reason)]) + b"\n"
    return Answer(kind, lines, repository, reason, one_line(cause) or reason, retry_after=retry_after)


def audited(
    answer: Answer,
    audit: Audit,
    asker: dict[str, object],
    scope: str,
    *,
    longest: int = LONGEST_VALUE,
    **also: object,
) -> Answer:
    """Write the audit's line and return ``answer``; without the line there is no token.

    ``also`` are further fields; each value has at most ``longest`` characters.
    """
    line = audit_line(
        asker,
        longest=longest,
        repository=answer.repository,
        scope=scope,
        outcome=answer.kind.outcome,
        reason=answer.cause,
        expires=answer.expires,
        digest=answer.digest,
        **also,
    )
    try:
        audit.write(line)
    except NoSyslogError as problem:
        return no_token(Kind.NO_AUDIT, f"{NO_AUDIT}: there is no syslog here", problem.what, answer.repository)
    except AuditError as problem:
        return no_token(Kind.NO_AUDIT, NO_AUDIT, problem.what, answer.repository)
    return answer


def refusal(problem: CredentialError, repository: str, budget: Budget) -> Answer:
    """Return the answer for an error: what the client may read of it, and what the audit has."""
    kind, reason, retry_after = Kind.NOT_SET_UP, NOT_SET_UP, None
    if isinstance(problem, NotAllowedError):
        kind, reason = Kind.NOT_ALLOWED, problem.what
    elif isinstance(problem, MalformedRequestError):
        kind, reason = Kind.MALFORMED, problem.what
    elif isinstance(problem, LimitError):
        kind, reason, retry_after = Kind.TOO_MANY, f"{problem.what}; {problem.hint}", problem.seconds
    elif isinstance(problem, TooManyRefusedError):
        kind, reason, retry_after = Kind.TOO_MANY, problem.what, problem.seconds
    elif isinstance(problem, WholeWorkspaceError):
        kind, reason = Kind.WHOLE_WORKSPACE, problem.what
    elif isinstance(problem, CannotLimitError):
        reason = problem.what
    elif isinstance(problem, BudgetSpentError):
        doing = budget.doing if budget.doing in (WAITING_FOR_REQUEST, WAITING) else _WAITING_FOR_BITBUCKET
        kind, reason = Kind.TIMEOUT, f"gave up after {budget.seconds:g} s: {doing}"
    elif isinstance(problem, (RefusedError, BadAnswerError, AnothersWorkspaceError)):
        # The text after the colon may be the server's, and may name the installation.
        kind, reason = Kind.BITBUCKET, problem.what.partition(": ")[0]
    elif isinstance(problem, (ConnectionFailedError, UndecidedError)):
        kind, reason = Kind.BITBUCKET, "this broker got no answer from Bitbucket; its log says why"
    cause = f"{problem.what} ({problem.hint})" if problem.hint else problem.what
    return no_token(kind, reason, cause, repository, retry_after)


def described_bug(problem: BaseException) -> str:
    """Return the audit's text for an exception: its type and where it was raised, but none of its words."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
    errno = f" {problem.strerror}" if isinstance(problem, OSError) and problem.strerror else ""
    return f"internal error: {type(problem).__name__}{errno}{where}, Python {sys.version.split()[0]}"


def _ascii(text: str) -> str:
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text)[:_LONGEST_REASON]
