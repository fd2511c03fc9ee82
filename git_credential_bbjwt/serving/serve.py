"""Answering one request for somebody who must not hold the secret: what is allowed, what is written, what is said.

Whoever started this process has authenticated the asker: sshd, sudo, systemd. The asker chooses the repository, and
nothing else. Sources: git-credential(1) (the format); README, "Jobs that must not hold the secret".
"""

import os
import select
import stat
import time

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.failures import (
    AuditError,
    BrokerError,
    BudgetSpentError,
    CredentialError,
    InstallationCommandError,
    InstallationError,
    MalformedRequestError,
    RefusedError,
    SecretError,
)
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error, one_line
from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.core.repository import Repository, normal_host
from git_credential_bbjwt.getting import obtain as minting
from git_credential_bbjwt.git.protocol import USERNAME, format_answer, parse_request, refused_fingerprints, write_answer
from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.sources import read_sources
from git_credential_bbjwt.serving.audit import Audit, audit_line
from git_credential_bbjwt.serving.client import who_asks
from git_credential_bbjwt.system.lock import FileLock
from git_credential_bbjwt.tokens.cache import LOCK, LOOKUPS, MINTING, NAMED, TokenCache
from git_credential_bbjwt.tokens.record import Record, fingerprint_of
from git_credential_bbjwt.vendors import grants

#: Seconds for the whole of an answer, unless ``--timeout`` says otherwise: the asker's own budget ends after this one,
#: so that the reason reaches it.
DEFAULT_TIMEOUT = 45.0

# A request is a few hundred bytes, and git writes it at once. Bytes, seconds.
_LONGEST_REQUEST = 64 * 1024
_LONGEST_WAIT = 10.0

# Seconds between two mints for one repository that refused tokens are the reason of.
_BETWEEN_REFUSALS = 60

# Requests by UUIDs cost one look-up each, of about a thousand an hour.
_LOOKUPS = 20
_LOOKUPS_WITHIN = 60

# What of a token's SHA-256 stands in the audit. Characters.
_DIGEST = 12

_NOT_HANDED_OUT = "this broker hands out no token for this repository"


def serve(options: HelperOptions, patterns: tuple[Pattern, ...], audit: Audit, label: str) -> int:
    """Answer the request on standard input; return the exit status. Every answer ends with a blank line."""
    if "--timeout" not in options.given:
        options = options.replaced(timeout=DEFAULT_TIMEOUT)
    asker = who_asks() | ({"label": label} if label else {})
    _silence_a_shared_socket()
    budget = Budget(options.timeout)
    service = _Service(options, patterns, audit, asker, budget)
    budget.watch(service.give_up)
    return service.answer()


class _Service:
    def __init__(
        self,
        options: HelperOptions,
        patterns: tuple[Pattern, ...],
        audit: Audit,
        asker: dict[str, object],
        budget: Budget,
    ) -> None:
        self._options = options
        self._patterns = patterns
        self._audit = audit
        self._asker = asker
        self._budget = budget
        self._session = grants.Session(budget, ask_all_the_same=False)
        self._asked_for = ""

    def answer(self) -> int:
        try:
            grant = self._grant()
        except CredentialError as problem:
            outcome = "refused" if isinstance(problem, _NotAllowedError) else "error"
            return self._say_no(problem, outcome)
        if grant is None:
            return self._finish(b"", outcome="nothing to say", reason="no installation names the host and workspace")
        end = [] if grant.expires is None else [("password_expiry_utc", str(grant.expires))]
        answer = format_answer([("username", USERNAME), ("password", grant.token), *end])
        digest = fingerprint_of(grant.token.encode())[:_DIGEST]
        return self._finish(answer, outcome="granted", reason="", expires=grant.expires, digest=digest)

    def give_up(self, spent: BudgetSpentError) -> None:
        """What the budget's end is answered with."""
        self._say_no(spent, "error", alone=False)

    def _grant(self) -> grants.Grant | None:
        self._budget.doing = "waiting for the request"
        request = parse_request(_read_request())
        host = normal_host(request.host.decode("utf-8", "surrogateescape"))
        sources = read_sources(self._options)
        catalogue = Catalogue(sources)
        repository = minting.whose(request, host, catalogue)
        if repository is None:
            return None
        self._asked_for = repository.full_name
        asked = catalogue.answering(repository, self._options.app)
        if not asked:
            return None
        cache = TokenCache.open(create=True)
        if cache.folder is None or self._options.token_store == "none":
            raise BrokerError("this broker keeps no tokens, so it cannot bound what it is asked for", _NO_FOLDER)
        if repository.uuid is not None or repository.workspace.startswith("{"):
            repository = self._named(repository, asked, cache)
            self._asked_for = repository.full_name
        if not any(pattern.allows(repository) for pattern in self._patterns):
            raise _NotAllowedError(_NOT_HANDED_OUT)
        grantors = [grants.grantor(one, self._session) for one in asked]
        wanted = minting.Wanted(repository, grantors, self._options, sources, refused_fingerprints(request))
        return minting.obtain(wanted, self._budget, about_to_ask=_announce)

    def _named(self, repository: Repository, asked: list[Installation | Asked], cache: TokenCache) -> Repository:
        """The repository by its one name, looked up where it was asked for by UUIDs.

        Raises _NotAllowedError, the same whether it is not there or may not be seen.
        """
        installation = asked[-1]
        if not isinstance(installation, Installation):
            raise _NotAllowedError(_NOT_HANDED_OUT)
        assert cache.folder is not None
        name = cache.name(repository, self._options.scope, self._options.app) + NAMED
        known = (cache.folder.read(name) or b"").decode("ascii", "replace").split(" ")
        if len(known) == 2 and known[1].isdigit() and int(known[1]) > time.time():
            full_name = known[0]
        else:
            _count_lookup(cache)
            try:
                full_name = grants.look_up_name(repository, installation, self._session)
            except RefusedError as refused:
                if refused.status not in (403, 404):
                    raise
                raise _NotAllowedError(_NOT_HANDED_OUT) from refused
            cache.write(name, f"{full_name} {int(time.time()) + _NAME_LIFE}".encode())
        workspace, _, slug = full_name.partition("/")
        return Repository(repository.host, workspace, slug)

    def _say_no(self, problem: CredentialError, outcome: str, *, alone: bool = True) -> int:
        reason = one_line(problem.what)
        # Of the installation (paths, app keys, where the secret is) an asker learns nothing; the audit has it.
        told = _OWN_TROUBLE if isinstance(problem, _ABOUT_INSTALLATION) else reason
        answer = format_answer([("quit", "1")]) + f"bbjwt-error={_ascii(told)}\n".encode("ascii")
        error(problem.what, problem.hint)
        return self._finish(answer, outcome=outcome, reason=reason, status=1, alone=alone)

    def _finish(
        self,
        answer: bytes,
        *,
        outcome: str,
        reason: str,
        status: int = 0,
        expires: int | None = None,
        digest: str = "",
        alone: bool = True,
    ) -> int:
        """Write the audit's line, then the answer; without the line there is no token."""
        if alone:
            self._budget.finish()
        line = audit_line(
            self._asker,
            repository=self._asked_for,
            scope=self._options.scope,
            outcome=outcome,
            reason=reason,
            expires=expires,
            digest=digest,
        )
        try:
            self._audit.write(line)
        except AuditError as problem:
            error(problem.what, problem.hint)
            answer, status = b"quit=1\nbbjwt-error=the audit cannot be written, so there is no token\n", 1
        write_answer(answer + b"\n")
        return status


_ABOUT_INSTALLATION = (InstallationError, InstallationCommandError, SecretError)
_OWN_TROUBLE = "this broker cannot use its installation; its audit says why"


class _NotAllowedError(CredentialError):
    """No pattern allows it, or it is not there: who asks cannot tell."""

    usual_hint = "whoever runs the broker decides what it hands out: serve --allow WORKSPACE/SLUG"


# Seconds for which a look-up counts: the longest life of the token it leads to.
_NAME_LIFE = 7200

_NO_FOLDER = "its user needs a runtime or cache folder of mode 0700 with room in it, and no --token-store none"


def _announce(cache: TokenCache, repository: Repository, name: str, record: Record | None, refused: list[str]) -> None:
    """Write down that a token is about to be asked for, and see that refusals lead to one mint a minute.

    Raises BrokerError where it comes too soon, and where it cannot be written: then nothing would bound the asker.
    """
    assert cache.folder is not None
    now = int(time.time())
    told = (cache.folder.read(name + MINTING) or b"0").decode("ascii", "replace")
    last = int(told) if told.isdigit() else 0
    if record is not None and record.fingerprint in refused and record.may_be_in_time():
        if 0 <= now - last < _BETWEEN_REFUSALS:
            raise BrokerError(
                f"a new token for {repository.full_name} was made {now - last} s ago because one was refused",
                f"ask again in {_BETWEEN_REFUSALS - (now - last)} s; if each is refused, see what the server says",
            )
        last = now
    try:
        cache.write(name + MINTING, str(last).encode())
    except OSError as problem:
        raise BrokerError(f"this broker cannot write to its own folder: {problem.strerror}", _NO_FOLDER) from problem


def _count_lookup(cache: TokenCache) -> None:
    """Raise BrokerError for one look-up too many, and where it cannot be counted."""
    assert cache.folder is not None
    try:
        with FileLock(cache.folder, LOOKUPS + LOCK):
            told = (cache.folder.read(LOOKUPS) or b"").decode("ascii", "replace").split()
            recent = [one for one in told if one.isdigit() and 0 <= time.time() - int(one) < _LOOKUPS_WITHIN]
            if len(recent) >= _LOOKUPS:
                raise BrokerError("too many requests by UUIDs", "ask by workspace and slug, or in a minute")
            cache.write(LOOKUPS, " ".join([*recent, str(int(time.time()))]).encode())
    except OSError as problem:
        raise BrokerError(f"this broker cannot write to its own folder: {problem.strerror}", _NO_FOLDER) from problem


def _ascii(text: str) -> str:
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode("ascii") for c in text)[:500]


def _read_request() -> bytes:
    """The request on standard input, which is a stranger's. Raises MalformedRequestError."""
    end = time.monotonic() + _LONGEST_WAIT
    data = b""
    while not (data.startswith(b"\n") or b"\n\n" in data):
        left = end - time.monotonic()
        if left <= 0 or not select.select([0], [], [], left)[0]:
            raise MalformedRequestError(f"no complete request came within {_LONGEST_WAIT:.0f} s")
        piece = os.read(0, 65_536)
        if not piece:
            break
        data += piece
        if len(data) > _LONGEST_REQUEST:
            raise MalformedRequestError(f"the request is over {_LONGEST_REQUEST} bytes long")
    return data


def _silence_a_shared_socket() -> None:
    """Say nothing on a standard error that is the very socket of the answers."""
    answers, errors = os.fstat(1), os.fstat(2)
    if stat.S_ISSOCK(answers.st_mode) and os.path.samestat(answers, errors):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
