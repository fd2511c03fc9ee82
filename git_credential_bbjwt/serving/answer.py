"""The answer of a broker to one request, whoever carries it: a socket, sshd, or a web server.

The operator chose the `Rules`. The client chooses the repository and nothing else. Between two requests there is no
state except in the broker's own folder, so an `Answering` can be used in a process for one request and in any thread
of a process for many.

What a client reads is decided here and fails closed: only the words of errors that cannot be about the installation
reach it. The audit has the rest.
"""

import sys
import threading
import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.failures import (
    AnothersWorkspaceError,
    AuditError,
    BadAnswerError,
    BudgetSpentError,
    ConnectionFailedError,
    CredentialError,
    MalformedRequestError,
    NotARepositoryError,
    RefusedError,
    TooManyRefusedError,
    UndecidedError,
    WholeWorkspaceError,
)
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import one_line
from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.core.repository import Repository, normal_host, parse_path
from git_credential_bbjwt.getting.asking import Asking
from git_credential_bbjwt.getting.obtain import obtain
from git_credential_bbjwt.git.protocol import Request, format_answer, parse_request, refused_fingerprints
from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.sources import read_sources
from git_credential_bbjwt.serving.audit import LONGEST_VALUE, Audit, audit_line
from git_credential_bbjwt.serving.limits import (
    NO_FOLDER,
    NO_FOLDER_HINT,
    CannotLimitError,
    LimitError,
    LookupLimit,
    announce,
    end_announcement,
    with_room,
)
from git_credential_bbjwt.system.lock import WAITING
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.names import LOOKUPS, MISSES, NAMED
from git_credential_bbjwt.tokens.record import Record, fingerprint_of
from git_credential_bbjwt.tokens.slot import Slot
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.connect import look_up_name

# Seconds for which a repository's name, looked up by its UUIDs, is valid: the longest life of a token.
_NAME_LIFE = 7200

# Characters of a token's SHA-256 in the audit.
_DIGEST = 12

# Characters of a reason that a client reads.
_LONGEST_REASON = 500

# Seconds that a call may take to notice by itself that its budget is spent.
_GRACE = 0.05

NOT_ALLOWED = "this broker hands out no token for this repository"
NO_AUDIT = "the audit cannot be written, so there is no token"
NOT_SET_UP = "this broker is not set up; its log says why"

_WAITING_FOR_BITBUCKET = "waiting for Bitbucket"

#: What the budget is spent on while the request is still to come.
WAITING_FOR_REQUEST = "waiting for the request"


class Kind(Enum):
    """What a request came to."""

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
    """What a broker's operator decided: scope, app, installation, store, hosts and budget are in ``options``.

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
    """What a request came to: the ``lines`` for the client, which end with a blank line, and the audit's fields.

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
    """No pattern allows the repository, or it is not there: a client cannot tell."""


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
    except AuditError as problem:
        return no_token(Kind.NO_AUDIT, NO_AUDIT, problem.what, answer.repository)
    return answer


def in_time(budget: Budget, answering: "Answering", read: Callable[[], bytes]) -> Answer:
    """Return the answer to the request that ``read`` returns, or that there is none when the budget ends.

    The work is done by another thread, so that nothing it is stuck in can delay the end. What it comes to afterwards
    is in the token cache at the most: nobody is given it.
    """
    found: list[Answer] = []
    work = threading.Thread(target=lambda: found.append(answering.answer(read)), daemon=True)
    work.start()
    try:
        work.join(budget.remaining() + _GRACE)
    except BudgetSpentError:
        pass
    return found[0] if found else answering.too_late()


class Answering:
    """The answer to one request, by `Rules` and within a budget."""

    def __init__(self, rules: Rules, budget: Budget) -> None:
        self._rules = rules
        self._options = rules.options
        self._budget = budget
        self._repository = ""

    def answer(self, read: Callable[[], bytes]) -> Answer:
        """Return the answer to the request that ``read`` returns. Raises nothing."""
        try:
            self._budget.doing = WAITING_FOR_REQUEST
            return self._answer(parse_request(read()))
        except CredentialError as problem:
            return self._refusal(problem)
        except Exception as problem:  # Whatever it is: the client gets an answer, and the audit its line.
            return no_token(Kind.INTERNAL, NOT_SET_UP, described_bug(problem), self._repository)

    def too_late(self) -> Answer:
        """Return the answer for a budget that is spent."""
        return self._refusal(self._budget.spent())

    def _answer(self, request: Request) -> Answer:
        sources = read_sources(self._options)
        catalogue = Catalogue(sources)
        repository, why_not = _repository_of(request, catalogue)
        if repository is None:
            return self._nothing(why_not)
        self._repository = repository.full_name
        asked = catalogue.answering(repository, self._options.app)
        if not asked:
            return self._nothing("no installation names the workspace")
        cache = TokenCache.open(create=True, is_brokers=True, operators_folder=self._rules.folder)
        if cache.tokens is None or self._options.token_store == "none":
            raise CannotLimitError(NO_FOLDER, NO_FOLDER_HINT)
        asking = Asking(
            self._options, sources, catalogue, self._budget, cache=cache, whole_workspace=self._rules.whole_workspace
        )
        try:
            if repository.uuid is not None or repository.workspace.startswith("{"):
                repository = self._named(repository, asked, asking)
                self._repository = repository.full_name
            if not self._rules.allow(repository):
                raise NotAllowedError(NOT_ALLOWED)
            token = self._token(asking, repository, asked, refused_fingerprints(request))
        finally:
            cache.close()
        if token is None:
            return self._nothing("nobody asked has anything to say")
        if token.opens_workspace and not self._rules.whole_workspace:  # Another broker's.
            raise WholeWorkspaceError
        end = [] if token.expires is None else [("password_expiry_utc", str(token.expires))]
        opens = [("bbjwt-opens", "workspace")] if token.opens_workspace else []
        return Answer(
            Kind.TOKEN,
            format_answer([("username", token.username), ("password", token.value), *end, *opens]) + b"\n",
            self._repository,
            cause="the token opens every repository of the workspace" if token.opens_workspace else "",
            expires=token.expires,
            digest=fingerprint_of(token.value.encode())[:_DIGEST],
        )

    def _nothing(self, why: str) -> Answer:
        return Answer(Kind.NOTHING, b"\n", self._repository, cause=why)

    def _token(
        self, asking: Asking, repository: Repository, asked: list[Installation | Asked], refused: list[str]
    ) -> Token | None:
        """The cached token, found without the lock that a mint holds for seconds; else a new one."""
        vendors = asking.vendors(asked)
        record = asking.slot(repository).find()
        identities = tuple(one.identity for one in vendors)
        if record is not None and record.may_answer(refused, identities=identities):
            return record.to_token()

        def supervise(slot: Slot, record: Record | None, mint: Callable[[], Token | None]) -> Token | None:
            return _supervised(asking, slot, record, refused, mint)

        return obtain(asking, repository, vendors, refused, supervise=supervise)

    def _named(self, repository: Repository, asked: list[Installation | Asked], asking: Asking) -> Repository:
        """The repository by its one name, looked up if it was asked for by UUIDs.

        Raises NotAllowedError, the same whether it is not there or may not be seen; LimitError.
        """
        apps = [one for one in asked if isinstance(one, Installation) and not one.is_consumer]
        if not apps:  # Nobody else can look it up.
            raise NotAllowedError(NOT_ALLOWED)
        cache = asking.cache
        assert cache.notes is not None
        name = asking.slot(repository).name + NAMED
        known = (cache.read(name) or b"").decode("ascii", "replace").split(" ")
        if len(known) == 2 and known[1].isdigit() and int(known[1]) > time.time():
            full_name = known[0]
        else:
            limit = LookupLimit(cache, LOOKUPS, "too many requests by UUIDs in a minute")
            with limit.one(self._budget) as place:
                place.spend()
                try:
                    full_name = look_up_name(repository, apps[0], asking.session)
                except RefusedError as refused:
                    if refused.status not in (403, 404):
                        raise
                    raise NotAllowedError(NOT_ALLOWED) from refused
            with_room(cache, lambda: cache.write(name, f"{full_name} {int(time.time()) + _NAME_LIFE}".encode()))
        workspace, _, slug = full_name.partition("/")
        return Repository(repository.host, workspace, slug)

    def _refusal(self, problem: CredentialError) -> Answer:
        """The answer for an error: what the client may read of it, and what the audit has."""
        kind, reason, retry_after = Kind.NOT_SET_UP, NOT_SET_UP, None
        if isinstance(problem, NotAllowedError):
            kind, reason = Kind.NOT_ALLOWED, problem.what
        elif isinstance(problem, MalformedRequestError):
            kind, reason = Kind.MALFORMED, problem.what
        elif isinstance(problem, LimitError):
            kind, reason, retry_after = Kind.TOO_MANY, f"{problem.what}; {problem.hint}", problem.seconds
        elif isinstance(problem, TooManyRefusedError):
            kind, reason, retry_after = Kind.TOO_MANY, problem.what, 60
        elif isinstance(problem, WholeWorkspaceError):
            kind, reason = Kind.WHOLE_WORKSPACE, problem.what
        elif isinstance(problem, CannotLimitError):
            reason = problem.what
        elif isinstance(problem, BudgetSpentError):
            doing = self._budget.doing
            doing = doing if doing in (WAITING_FOR_REQUEST, WAITING) else _WAITING_FOR_BITBUCKET
            kind, reason = Kind.TIMEOUT, f"gave up after {self._budget.seconds:g} s: {doing}"
        elif isinstance(problem, (RefusedError, BadAnswerError, AnothersWorkspaceError)):
            # What follows may be the server's words, and those may name the installation.
            kind, reason = Kind.BITBUCKET, problem.what.partition(": ")[0]
        elif isinstance(problem, (ConnectionFailedError, UndecidedError)):
            kind, reason = Kind.BITBUCKET, "this broker got no answer from Bitbucket; its log says why"
        cause = f"{problem.what} ({problem.hint})" if problem.hint else problem.what
        return no_token(kind, reason, cause, self._repository, retry_after)


def _repository_of(request: Request, catalogue: Catalogue) -> tuple[Repository | None, str]:
    """The repository that ``request`` is about; None, and why, if this broker has nothing to say.

    Raises InstallationError if a source cannot be read that might have named the host.
    """
    host = normal_host(request.host.decode("utf-8", "surrogateescape"))
    if not catalogue.names_host(host):
        for problem in catalogue.problems():
            raise problem
        return None, "no installation names the host"
    if request.protocol != b"https":
        return None, "the request is not about https"
    if request.path is None:
        return None, "the request names no repository"
    try:
        return parse_path(host, request.path), ""
    except NotARepositoryError as problem:
        return None, problem.what


def _supervised(
    asking: Asking, slot: Slot, record: Record | None, refused: list[str], mint: Callable[[], Token | None]
) -> Token | None:
    """Mint within the limits: what finds nothing is counted, and a mint because of a refused token is rare."""
    cache, session = asking.cache, asking.session
    assert cache.notes is not None
    announce(cache, slot, record, refused)
    try:
        if session.uuids.find(slot.repository) is not None:
            return mint()  # It was there lately: whoever floods the broker with other names does not stop it.
        limit = LookupLimit(cache, MISSES, "too many requests for repositories that are not there in a minute")
        with limit.one(asking.budget) as place:
            try:
                token = mint()
            except (RefusedError, AnothersWorkspaceError) as problem:
                if session.has_asked and getattr(problem, "is_about_repository", True):
                    place.spend()
                raise
            if token is None and session.has_asked:
                place.spend()
            return token
    finally:
        end_announcement(cache, slot)


def described_bug(problem: BaseException) -> str:
    """What the audit has of an exception: its type and where it was raised, but none of its words."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" in {trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
    errno = f" {problem.strerror}" if isinstance(problem, OSError) and problem.strerror else ""
    return f"internal error: {type(problem).__name__}{errno}{where}, Python {sys.version.split()[0]}"


def _ascii(text: str) -> str:
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text)[:_LONGEST_REASON]
