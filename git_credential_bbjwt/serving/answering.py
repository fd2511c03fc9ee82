"""A broker's work on one request: from the request to an `Answer`, whoever carries either.

Between two requests there is no state except in the broker's own folder, so an `Answering` can be used in a process for
one request and in any thread of a process for many.
"""

import threading
import time
from collections.abc import Callable

from git_credential_bbjwt.core.failures import (
    AnothersWorkspaceError,
    BudgetSpentError,
    CredentialError,
    NotARepositoryError,
    RefusedError,
    WholeWorkspaceError,
)
from git_credential_bbjwt.core.protocol import Request, format_answer, parse_request, refused_fingerprints
from git_credential_bbjwt.core.repository import Repository, normal_host, parse_path
from git_credential_bbjwt.getting.asking import Asking
from git_credential_bbjwt.getting.obtain import obtain
from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.sources import read_sources
from git_credential_bbjwt.serving.answer import (
    NOT_ALLOWED,
    NOT_SET_UP,
    WAITING_FOR_REQUEST,
    Answer,
    Kind,
    NotAllowedError,
    Rules,
    described_bug,
    no_token,
    refusal,
)
from git_credential_bbjwt.serving.limits import (
    NO_FOLDER,
    NO_FOLDER_HINT,
    CannotLimitError,
    LookupLimit,
    announce,
    end_announcement,
    with_room,
)
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.names import LOOKUPS, MISSES, NAMED
from git_credential_bbjwt.tokens.record import Record
from git_credential_bbjwt.tokens.slot import Slot
from git_credential_bbjwt.tokens.token import Token, cached_token, fingerprint_of
from git_credential_bbjwt.vendors.connect import look_up_name
from git_credential_bbjwt.vendors.vendor import Vendor

# Seconds for which a repository's name, looked up by its UUIDs, is valid: the longest life of a token.
_NAME_LIFE = 7200

# Characters of a token's SHA-256 in the audit.
_DIGEST = 12

# Seconds that a call may take to notice by itself that its budget is spent.
_GRACE = 0.05


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
    """The answer to one request, by `Rules` and within a budget.

    ``rules`` is called when the request has arrived, and may raise CredentialError.
    """

    def __init__(self, rules: Callable[[], Rules], budget: Budget) -> None:
        self._find_rules = rules
        self._budget = budget
        self._repository = ""

    def answer(self, read: Callable[[], bytes]) -> Answer:
        """Return the answer to the request that ``read`` returns. Raises nothing."""
        try:
            self._budget.doing = WAITING_FOR_REQUEST
            request = parse_request(read())
            self._repository = _requested_name(request)  # For the audit, whatever fails next.
            self._rules = self._find_rules()
            self._options = self._rules.options
            return self._answer(request)
        except CredentialError as problem:
            return refusal(problem, self._repository, self._budget)
        except Exception as problem:  # Whatever it is: the client gets an answer, and the audit its line.
            return no_token(Kind.INTERNAL, NOT_SET_UP, described_bug(problem), self._repository)

    def too_late(self) -> Answer:
        """Return the answer for a budget that is spent."""
        return refusal(self._budget.spent(), self._repository, self._budget)

    def _answer(self, request: Request) -> Answer:
        sources = read_sources(self._options)
        catalogue = Catalogue(sources)
        repository, why_not = _repository_of(request, catalogue)
        if repository is None:
            self._repository = ""  # It is another host's, or none.
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
            requested = repository
            if repository.uuid is not None or repository.workspace.startswith("{"):
                repository = self._named(repository, asked, asking)
                self._repository = repository.full_name
            if not self._rules.allow(repository):
                raise NotAllowedError(NOT_ALLOWED)
            if repository != requested:
                # Only now: what is not allowed must take as long as what is not there, the second time too.
                _remember_name(asking, requested, repository)
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
            return cached_token(record)

        def supervise(slot: Slot, record: Record | None, mint: Callable[[], Token | None]) -> Token | None:
            if all(isinstance(one, Vendor) and one.opens_workspace for one in vendors):
                return mint()  # Nothing is looked up, and a workspace's token has limits of its own.
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
        full_name = _known_name(asking, repository)
        if full_name is None:
            limit = LookupLimit(cache, LOOKUPS, "too many requests by UUIDs in a minute")
            with limit.one(self._budget) as place:
                place.spend()
                try:
                    full_name = look_up_name(repository, apps[0], asking.session)
                except RefusedError as refused:
                    if refused.status not in (403, 404):
                        raise
                    raise NotAllowedError(NOT_ALLOWED) from refused
        workspace, _, slug = full_name.partition("/")
        return Repository(repository.host, workspace, slug)


def _known_name(asking: Asking, requested: Repository) -> str | None:
    """``workspace/slug`` of a repository named by UUIDs, if it was looked up within the last two hours."""
    known = (asking.cache.read(asking.slot(requested).name + NAMED) or b"").decode("ascii", "replace").split(" ")
    if len(known) == 2 and known[1].isdigit() and 0 < int(known[1]) - time.time() <= _NAME_LIFE:
        return known[0]
    return None


def _remember_name(asking: Asking, requested: Repository, found: Repository) -> None:
    if _known_name(asking, requested) is None:
        content = f"{found.full_name} {int(time.time()) + _NAME_LIFE}".encode()
        with_room(asking.cache, lambda: asking.cache.write(asking.slot(requested).name + NAMED, content))


def _requested_name(request: Request) -> str:
    """``workspace/slug`` of a request, empty if it names no repository."""
    try:
        return parse_path("", request.path or b"").full_name
    except NotARepositoryError:
        return ""


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
