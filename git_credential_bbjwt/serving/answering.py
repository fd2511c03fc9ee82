"""A broker's work on one request: from the request to an `Answer`, whoever carries either.

Between two requests there is no state except in the broker's own folder, so an `Answering` can be used in a process for
one request and in any thread of a process for many.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from git_credential_bbjwt.core.failures import (
    AnothersWorkspaceError,
    BudgetSpentError,
    CredentialError,
    NotARepositoryError,
    RefusedError,
    WholeWorkspaceError,
)
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.core.protocol import Request, format_answer, fresh_answer, parse_request, refused_fingerprints
from git_credential_bbjwt.core.record import Record
from git_credential_bbjwt.core.repository import Repository, parse_path
from git_credential_bbjwt.core.sources import read_sources
from git_credential_bbjwt.getting.call import Call
from git_credential_bbjwt.getting.obtain import obtain
from git_credential_bbjwt.installations.catalogue import Candidate, Catalogue
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.serving.answer import (
    WAITING_FOR_REQUEST,
    Answer,
    internal_error,
    not_allowed,
    refusal,
)
from git_credential_bbjwt.serving.limits import CannotLimitError, lookup, noting_mint, with_room
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.names import LOOKUPS, MISSES, NAMED
from git_credential_bbjwt.tokens.slot import Slot
from git_credential_bbjwt.tokens.token import Token, cached_token
from git_credential_bbjwt.vendors.connect import look_up_name
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import Vendor

# Seconds for which a repository's name, looked up by its UUIDs, is valid: the longest life of a token.
_NAME_LIFE = 7200

# Characters of a token's SHA-256 in the audit.
_DIGEST = 12

# Seconds that a call may take to notice by itself that its budget is spent.
_GRACE = 0.05


class OperatorSettings(NamedTuple):
    """The settings that the broker's operator chose. ``options`` has scope, app, installation, store, hosts and budget.

    ``folder`` is the absolute path of the broker's own folder, None if the operator named none.
    """

    options: HelperOptions
    patterns: tuple[Pattern, ...]
    whole_workspace: bool
    folder: str | None


class _NothingToSayError(CredentialError):
    """The request is not for this broker. ``repository`` is empty if the request is about another host."""

    def __init__(self, what: str, repository: str = "") -> None:
        super().__init__(what)
        self.repository = repository


class Answering:
    """The work on one request, with the operator's settings and within a budget.

    ``read_settings`` is called after the request was read. It may raise CredentialError.
    """

    def __init__(self, read_settings: Callable[[], OperatorSettings], budget: Budget) -> None:
        self._read_settings = read_settings
        self._budget = budget
        self._repository = ""
        self._session: Session | None = None

    def answer(self, read: Callable[[], bytes]) -> Answer:
        """Return the answer to the request that ``read`` returns; an error if the budget is over before.

        Another thread does the work, so that nothing that it waits for can delay this answer. A token that the thread
        gets after the budget's end is not sent to anyone. Raises RuntimeError if there is no room for a thread.
        """
        found: list[Answer] = []
        work = threading.Thread(target=lambda: found.append(self._outcome(read)), daemon=True)
        work.start()
        with contextlib.suppress(BudgetSpentError):
            work.join(self._budget.remaining() + _GRACE)
        if found:
            return found[0]
        if self._session is not None:
            self._session.abort()  # A response that drips would keep the thread and its lock of the repository.
        return self._refusal(self._budget.spent())

    def _outcome(self, read: Callable[[], bytes]) -> Answer:
        try:
            self._budget.doing = WAITING_FOR_REQUEST
            request = parse_request(read())
            self._repository = _requested_name(request)  # For the audit, whatever fails next.
            token = self._token(request, self._read_settings())
            opens = [("bbjwt-opens", "workspace")] if token.opens_workspace else []
            return Answer(
                200,
                fresh_answer(token.value, token.expires, token.username) + format_answer(opens) + b"\n",
                self._repository,
                cause="the token opens every repository of the workspace" if token.opens_workspace else "",
                expires=token.expires,
                digest=token.fingerprint[:_DIGEST],
            )
        except _NothingToSayError as nothing:
            return Answer(200, b"\n", nothing.repository, cause=nothing.what)
        except CredentialError as problem:
            return self._refusal(problem)
        except Exception as problem:  # The client must get an answer, and the audit a line.
            return internal_error(problem, self._repository)

    def _refusal(self, problem: CredentialError) -> Answer:
        return refusal(problem, self._repository, self._budget.doing)

    def _token(self, request: Request, settings: OperatorSettings) -> Token:
        options = settings.options
        sources = read_sources(options)
        catalogue = Catalogue(sources)
        repository = requested = _repository_of(request, catalogue)
        self._repository = repository.full_name
        candidates = catalogue.candidates(repository, options.app)
        if not candidates:
            raise _NothingToSayError("no installation names the workspace", repository.full_name)
        cache = TokenCache.open(create=True, is_brokers=True, operators_folder=settings.folder)
        try:
            if cache.tokens is None or options.token_store == "none":
                raise CannotLimitError("this broker has no token cache, which it needs to limit requests")
            call = Call(
                options, sources, catalogue, self._budget, cache=cache, whole_workspace=settings.whole_workspace
            )
            self._session = call.session
            if repository.uuid is not None or repository.workspace.startswith("{"):
                repository = _named(repository, candidates, call)
                self._repository = repository.full_name
            if not any(pattern.allows(repository) for pattern in settings.patterns):
                raise not_allowed()
            if repository != requested:
                # Only the name of an allowed repository is remembered. Otherwise, the second request for a repository
                # that is not allowed would be faster, and so reveal that it exists.
                _remember_name(call, requested, repository)
            token = _obtain(call, repository, candidates, refused_fingerprints(request))
        finally:
            if self._session is not None:
                self._session.close()
            cache.close()
        if token is None:
            raise _NothingToSayError("no installation, command or broker serves the repository", repository.full_name)
        if token.opens_workspace and not settings.whole_workspace:  # Checked again, for every kind of vendor.
            raise WholeWorkspaceError
        return token


def _requested_name(request: Request) -> str:
    """Return ``workspace/slug`` of a request; empty if it names no repository."""
    try:
        return parse_path("", request.path or b"").full_name
    except NotARepositoryError:
        return ""


def _repository_of(request: Request, catalogue: Catalogue) -> Repository:
    """Return the repository that ``request`` is about.

    Raises _NothingToSayError, and InstallationError if a source cannot be read that might have named the host.
    """
    host = request.host
    if not catalogue.names_host(host):
        for problem in catalogue.problems():
            raise problem
        raise _NothingToSayError("no installation names the host")
    if request.protocol != b"https":
        raise _NothingToSayError("the request is not about https")
    if request.path is None:
        raise _NothingToSayError("the request names no repository")
    try:
        return parse_path(host, request.path)
    except NotARepositoryError as problem:
        raise _NothingToSayError(problem.what) from problem


def _named(repository: Repository, candidates: list[Candidate], call: Call) -> Repository:
    """Return the repository with its slugs, if it was requested by UUIDs.

    Raises DeniedError, which is the same for a repository that does not exist and one that the app may not read; and
    TooManyError for too many look-ups.
    """
    apps = [one for one in candidates if isinstance(one, Installation) and not one.is_consumer]
    if not apps:  # Only a Connect app can look up the name.
        raise not_allowed()
    full_name = _known_name(call, repository)
    if full_name is None:
        what = "too many requests by UUIDs in a minute"
        with lookup(call.cache, LOOKUPS, what, call.budget) as place:
            place.spend()
            try:
                full_name = look_up_name(repository, apps[0], call.session)
            except RefusedError as refused:
                if refused.status not in (403, 404):
                    raise
                raise not_allowed() from refused
    workspace, _, slug = full_name.partition("/")
    return Repository(repository.host, workspace, slug)


def _known_name(call: Call, requested: Repository) -> str | None:
    """Return ``workspace/slug`` of a repository named by UUIDs; None if it was not looked up within two hours."""
    known = (call.cache.read(call.slot(requested).name + NAMED) or b"").decode("ascii", "replace").split(" ")
    if len(known) == 2 and known[1].isdigit() and 0 < int(known[1]) - time.time() <= _NAME_LIFE:
        return known[0]
    return None


def _remember_name(call: Call, requested: Repository, found: Repository) -> None:
    if _known_name(call, requested) is None:
        content = f"{found.full_name} {int(time.time()) + _NAME_LIFE}".encode()
        with_room(call.cache, lambda: call.cache.write(call.slot(requested).name + NAMED, content))


def _obtain(call: Call, repository: Repository, candidates: list[Candidate], refused: list[str]) -> Token | None:
    """Return the cached token if it may be used, without waiting for the slot's lock; otherwise get a new token."""
    vendors = call.vendors(candidates)
    record = call.slot(repository).find()
    if record is not None and record.may_answer(refused, identities=tuple(one.identity for one in vendors)):
        return cached_token(record)

    def limits(slot: Slot, record: Record | None, mint: Callable[[], Token | None]) -> Token | None:
        if all(isinstance(one, Vendor) and one.opens_workspace for one in vendors):
            return mint()  # There is no look-up, and a workspace's token has its own limits.
        with noting_mint(call.cache, slot, record, refused):
            return _mint_within_limits(call, slot, mint)

    return obtain(call, repository, vendors, refused, limits=limits)


def _mint_within_limits(call: Call, slot: Slot, mint: Callable[[], Token | None]) -> Token | None:
    """Get a new token, and count a look-up that finds nothing."""
    session = call.session
    if session.uuids.find(slot.repository) is not None:
        return mint()  # It existed in the last 30 days, so requests for other names do not limit it.
    what = "too many requests for repositories that are not there in a minute"
    with lookup(call.cache, MISSES, what, call.budget) as place:
        try:
            token = mint()
        except (RefusedError, AnothersWorkspaceError) as problem:
            if session.has_asked and getattr(problem, "is_about_repository", True):
                place.spend()
            raise
        if token is None and session.has_asked:
            place.spend()
        return token
