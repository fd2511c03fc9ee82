"""What a request costs that the cache cannot answer as it is: the decision whose it is, the lock, the mint."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.failures import (
    BrokerError,
    BudgetSpentError,
    InstallationError,
    NotARepositoryError,
    UndecidedError,
    UnkeptError,
)
from git_credential_bbjwt.core.options import HelperOptions, check_allowed
from git_credential_bbjwt.core.output import error, note, trace, warning
from git_credential_bbjwt.core.repository import Repository, parse_path
from git_credential_bbjwt.git.protocol import (
    QUIT,
    Request,
    cached_answer,
    fresh_answer,
    refused_fingerprints,
    write_answer,
)
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.sources import Sources, read_sources
from git_credential_bbjwt.system.lock import WAITING, FileLock
from git_credential_bbjwt.tokens.cache import ANNOUNCED, LOCK, TokenCache
from git_credential_bbjwt.tokens.record import BROKERED, Record, fingerprint_of
from git_credential_bbjwt.tokens.stores import STORES
from git_credential_bbjwt.vendors.grants import Grant, Grantor, Session, grantor

# Who waits for the network has little to do and much to wait for: the threads that do must not wait for those that
# import. Seconds.
_SWITCH_INTERVAL = 0.0005

#: Called under the repository's lock in place of what gets a token, which is its last argument. Raises CredentialError.
Supervise = Callable[[TokenCache, "Wanted", Record | None, Callable[[], Grant | None]], Grant | None]


def get(options: HelperOptions, request: Request, host: str, sources: Sources) -> int:
    """Answer a request that the cache alone could not; return the exit status.

    Raises CredentialError, after telling git to quit, where the repository is ours but no token can be had.
    """
    catalogue = Catalogue(sources)
    repository = whose(request, host, catalogue)
    if repository is None:
        return 0
    sys.setswitchinterval(_SWITCH_INTERVAL)
    budget = Budget(options.timeout)
    session = Session(budget, ask_all_the_same=False)
    try:
        asked = catalogue.answering(repository, options.app)
        if not asked:
            trace(f"no installation names the workspace {repository.workspace}: nothing to say")
            return 0
        check_allowed(options.allow, repository)
        sure = not isinstance(asked[-1], Installation) or asked[-1].is_surely_for(repository)
        budget.watch(_give_up if sure else _give_up_quietly)
        grantors = [grantor(one, session) for one in asked]
        grant = obtain(Wanted(repository, grantors, options, sources, refused_fingerprints(request)), budget)
    except UndecidedError:
        budget.finish()
        raise
    except BaseException:
        budget.finish()
        write_answer(QUIT)
        raise
    budget.finish()
    if grant is None:
        trace(f"nobody asked has anything to say about {repository.full_name}")
    elif grant.cached:
        fingerprint = fingerprint_of(grant.token.encode())
        write_answer(cached_answer(request, grant.token, grant.expires, fingerprint, grant.username))
    else:
        write_answer(fresh_answer(grant.token, grant.expires, grant.username))
        # Git has its answer.
        cache = TokenCache.open(create=False)
        if session.announcement is not None and cache.is_first_today(ANNOUNCED):
            note(str(session.announcement))
        cache.tidy()
    return 0


def whose(request: Request, host: str, catalogue: Catalogue) -> Repository | None:
    """Return the repository that ``request`` is about, if it is of a host of ours; else say why not, and return None.

    Who asks in vain for what might be ours reads one line; what is certainly not ours leaves a trace alone.
    """
    if not catalogue.names_host(host):
        unreadable = catalogue.unreadable()
        if unreadable and request.protocol == b"https":
            # Other helpers may well know the host, so git is not told to quit; but who named a source has to know.
            warning(f"{unreadable[0].what} ({unreadable[0].hint})")
        else:
            trace(f"no installation is for the host {host}: nothing to say")
        return None
    if request.protocol != b"https":
        if request.protocol == b"http":
            warning(f"no token goes over plain http: use https://{host}/ in the remote's URL")
        return None
    if request.path is None:
        note(
            f"git did not say which repository of {host} it wants: run git config --global "
            f"credential.https://{host}.useHttpPath true"
        )
        return None
    try:
        return parse_path(host, request.path)
    except NotARepositoryError as reason:
        warning(f"{reason.what} on {host}: no token")
        return None


def _give_up(spent: BudgetSpentError) -> None:
    write_answer(QUIT)
    error(spent.what, spent.hint)


def _give_up_quietly(spent: BudgetSpentError) -> None:
    """For what is only perhaps ours: other helpers are to be asked."""
    error(spent.what, spent.hint)


class Wanted:
    """One token that is wanted: for which repository, of whom, and which ones the server has refused.

    ``sources`` are those that the grantors come from; ``refused`` are fingerprints.
    """

    def __init__(
        self,
        repository: Repository,
        grantors: list[Grantor],
        options: HelperOptions,
        sources: Sources,
        refused: list[str],
    ) -> None:
        self.repository = repository
        self.grantors = grantors
        self.scope = options.scope
        self.app = options.app
        self.store = STORES[options.token_store]
        self.sources = sources
        self.refused = refused

    @property
    def key(self) -> tuple[Repository, str, str]:
        """What its record is found by."""
        return self.repository, self.scope, self.app

    def granted(self, unwanted: list[str]) -> tuple[Grant | None, str]:
        """The first grant there is, and the identity of who gave it."""
        for one in self.grantors:
            grant = one.grant(self.repository, self.scope, unwanted)
            if grant is not None:
                return grant, one.identity
        return None, ""


def obtain(wanted: Wanted, budget: Budget, *, supervise: Supervise | None = None) -> Grant | None:
    """Return the token that is ``wanted``: the kept one where that may be used, else one of the first that gives one.

    None where none of the grantors has anything to say. One process at a time asks for one repository; the others
    wait, and use what it got. With ``supervise`` a token that cannot be kept is an error. Raises CredentialError.
    """
    if not wanted.store.keeps:
        # No token is kept, but what a broker gave and the server refused must not come back.
        unwanted = [*TokenCache.open(create=False).refused(*wanted.key), *wanted.refused]
        return wanted.granted(unwanted)[0]
    cache = TokenCache.open(create=True)
    with _locked(cache, cache.name(*wanted.key), budget):
        record = cache.find(*wanted.key)
        kept = None if record is None else _kept(cache, record, wanted)
        if kept is not None:
            return kept
        if supervise is not None:
            return supervise(cache, wanted, record, lambda: _granted(cache, wanted, record, must_keep=True))
        return _granted(cache, wanted, record, must_keep=False)


def _granted(cache: TokenCache, wanted: Wanted, record: Record | None, *, must_keep: bool) -> Grant | None:
    """Get a new token, and keep it."""
    if record is not None and record.fingerprint in wanted.refused and record.may_be_in_time():
        cache.count_remint(*wanted.key)
    unwanted = cache.refused(*wanted.key)
    unwanted += [fingerprint for fingerprint in wanted.refused if fingerprint not in unwanted]
    grant, identity = wanted.granted(unwanted)
    if grant is None:
        return None
    fingerprint = fingerprint_of(grant.token.encode())
    for one in wanted.refused if identity.startswith(BROKERED) else ():
        cache.note_refused(*wanted.key, one, record.expires if record and record.fingerprint == one else None)
    if fingerprint in unwanted:
        raise BrokerError("the broker gave again a token that the server has refused", "ask who runs the broker")
    if grant.expires is not None:
        _keep(cache, grant, wanted, identity, fingerprint, must_keep=must_keep)
    return grant


def _kept(cache: TokenCache, record: Record, wanted: Wanted) -> Grant | None:
    """The grant that ``record`` holds, if it may answer."""
    identities = tuple(one.identity for one in wanted.grantors)
    if not record.may_answer(wanted.store.name, wanted.refused, identities=identities):
        return None
    token = wanted.store.token_of(record)
    if token is None:
        return None
    trace(f"{wanted.repository.full_name}: a cached token answers, Unix time {record.expires} ends it")
    stamp = wanted.sources.stamp_to_keep(wanted.repository)
    if record.stamp != stamp:
        record.stamp = stamp
        _write(cache, record)
    return Grant(token, record.expires, record.uuid, cached=True, minted=record.minted, username=record.username)


def _keep(cache: TokenCache, grant: Grant, wanted: Wanted, identity: str, fingerprint: str, *, must_keep: bool) -> None:
    assert grant.expires is not None
    record = Record(
        wanted.repository,
        wanted.scope,
        wanted.app,
        stamp=wanted.sources.stamp_to_keep(wanted.repository),
        identity=identity,
        uuid=grant.uuid,
        fingerprint=fingerprint,
        minted=grant.minted,
        expires=grant.expires,
        store=wanted.store.name,
        username=grant.username,
        token=None,
    )
    if not wanted.store.put(record, grant.token):
        return
    if must_keep:
        _write_in_any_case(cache, record)
    else:
        _write(cache, record)


def _write_in_any_case(cache: TokenCache, record: Record) -> None:
    """Write the record; where there is no room, after tidying. Raises UnkeptError."""
    try:
        cache.keep(record)
    except OSError:
        cache.tidy()
        try:
            cache.keep(record)
        except OSError as problem:
            raise UnkeptError(f"the token cannot be kept: {problem.strerror}") from problem


def _write(cache: TokenCache, record: Record) -> None:
    try:
        cache.keep(record)
    except OSError as problem:
        trace(f"the token could not be cached: {problem.strerror}")


@contextlib.contextmanager
def _locked(cache: TokenCache, name: str, budget: Budget) -> Iterator[None]:
    """Hold the repository's lock. Where no lock can be had there is nothing to share either, and the call goes on."""
    with contextlib.ExitStack() as held:
        if cache.folder is not None:
            budget.doing = WAITING
            try:
                cache.make_place_for(name)
                held.enter_context(FileLock(cache.folder, name + LOCK, may_wait=budget.remaining))
            except OSError as problem:
                trace(f"no lock in {cache.folder.path}: {problem.strerror}")
        yield


def get_for_person(repository: Repository, options: HelperOptions) -> Grant:
    """Return a token for ``repository``, for a command a person runs.

    Raises CredentialError; InstallationError where nobody gives one.
    """
    with ForPerson(options) as person:
        return person.get(repository)


class ForPerson:
    """Tokens for a command that a person runs, one or many: they share a budget, connections, and what is refused."""

    def __init__(self, options: HelperOptions) -> None:
        self._options = options
        self._sources = read_sources(options)
        self._catalogue = Catalogue(self._sources)
        self.budget = Budget(options.timeout)
        self.session = Session(self.budget, ask_all_the_same=True)

    def __enter__(self) -> "ForPerson":
        self.budget.watch(_give_up_quietly)
        return self

    def __exit__(self, *exc: object) -> None:
        self.budget.finish()

    def get(self, repository: Repository) -> Grant:
        """Return a token for ``repository``. Raises as `get_for_person` does."""
        options = self._options
        asked = self._catalogue.answering(repository, options.app)
        check_allowed(options.allow, repository)
        grantors = [grantor(one, self.session) for one in asked]
        wanted = Wanted(repository, grantors, options, self._sources, [])
        grant = obtain(wanted, self.budget) if asked else None
        if grant is None:
            raise InstallationError(
                f"no installation serves {repository.full_name} on {repository.host}",
                "git-credential-bbjwt list shows the registered ones; register adds one",
            )
        return grant
