"""What a request costs that the cache cannot answer as it is: the decision whose it is, the lock, the mint."""

import contextlib
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from json import loads
from typing import TYPE_CHECKING, NamedTuple, Protocol

from git_credential_bbjwt import diagnostics
from git_credential_bbjwt.budget import Budget
from git_credential_bbjwt.diagnostics import hide, trace, warning
from git_credential_bbjwt.errors import (
    AnothersWorkspaceError,
    BrokerError,
    BudgetSpentError,
    ConnectionFailedError,
    InstallationError,
    NotARepositoryError,
    RefusedError,
    UndecidedError,
)
from git_credential_bbjwt.git.answer import QUIT, USERNAME, cached_answer, fresh_answer, refused_states
from git_credential_bbjwt.git.protocol import Request, write_answer
from git_credential_bbjwt.installations.payload import Catalogue, Installation, ToAsk
from git_credential_bbjwt.installations.sources import Sources, read_sources
from git_credential_bbjwt.options import HelperOptions, check_allowed
from git_credential_bbjwt.repository import Repository, parse_path
from git_credential_bbjwt.system.digest import digest
from git_credential_bbjwt.system.lock import WAITING, FileLock
from git_credential_bbjwt.tokens.cache import BROKERED, Record, TokenCache, token_state

if TYPE_CHECKING:
    from git_credential_bbjwt.bitbucket.api import Signer


class Grant(NamedTuple):
    """A token ready to be handed out.

    ``expires`` is a Unix time, None where a broker did not say; ``minted`` is that of the request. ``uuid`` is empty
    where a broker gave the token. ``cached`` tells that it was not got just now.
    """

    token: str
    expires: int | None
    uuid: str
    cached: bool
    minted: int
    username: str = USERNAME


class Grantor(Protocol):
    """Who may give a token for a repository. ``identity`` is the same only for the same one with the same secret."""

    identity: str

    def grant(self, repository: Repository, scope: str, refused: list[str], budget: Budget) -> Grant | None:
        """Return a new token, none of the ``refused`` ones; None for "not mine". Raises CredentialError."""


#: Called under the repository's lock, with the name of its record, before anybody is asked for a token. Raises
#: CredentialError, and then nobody is.
AboutToAsk = Callable[[TokenCache, Repository, str, Record | None, list[str]], None]


class _FromInstallation:
    def __init__(self, installation: Installation) -> None:
        self.identity = installation.identity
        self._installation = installation

    def grant(self, repository: Repository, scope: str, refused: list[str], budget: Budget) -> Grant | None:  # noqa: ARG002  # a new mint is never a refused token
        if self._installation.is_surely_for(repository):
            return _mint(repository, self._installation, scope, budget)
        # The payload names no slug: of a workspace that Bitbucket says is another, or does not show, it says nothing.
        try:
            return _mint(repository, self._installation, scope, budget)
        except AnothersWorkspaceError:
            return None
        except RefusedError as refusal:
            if refusal.is_about_repository:
                trace(f"{refusal.what}: not of this installation")
                return None
            raise UndecidedError(refusal.what, refusal.hint) from refusal
        except (BudgetSpentError, ConnectionFailedError) as failure:
            raise UndecidedError(failure.what, failure.hint) from failure


class _FromCommand:
    def __init__(self, asked: ToAsk) -> None:
        self.identity = digest("command", asked.how)
        self._asked = asked

    def grant(self, repository: Repository, scope: str, refused: list[str], budget: Budget) -> Grant | None:  # noqa: ARG002  # as above
        from git_credential_bbjwt.installations.command import ask_command

        budget.doing = f"waiting for {self._asked.where}"
        installation = ask_command(self._asked, repository)
        return None if installation is None else _mint(repository, installation, scope, budget)


class _FromBroker:
    def __init__(self, asked: ToAsk) -> None:
        self.identity = BROKERED + digest(asked.how)
        self._where = asked.how

    def grant(self, repository: Repository, scope: str, refused: list[str], budget: Budget) -> Grant | None:  # noqa: ARG002  # the broker's side has the scope
        from git_credential_bbjwt.broker.ask import ask

        asked_at = int(time.time())
        given = ask(self._where, repository, refused, budget)
        if given is None:
            return None
        return Grant(given.token, given.expires, "", cached=False, minted=asked_at, username=given.username)


def grantor(one: Installation | ToAsk) -> Grantor:
    if isinstance(one, Installation):
        return _FromInstallation(one)
    return _FromCommand(one) if one.kind == "command" else _FromBroker(one)


def get(options: HelperOptions, request: Request, host: str, sources: Sources) -> int:
    """Answer a request that the cache alone could not; return the exit status.

    Raises CredentialError, after telling git to quit, where the repository is ours but no token can be had.
    """
    catalogue = Catalogue(sources)
    repository = whose(request, host, catalogue)
    if repository is None:
        return 0
    budget = Budget(options.timeout)
    try:
        asked = catalogue.answering(repository, options.app)
        if not asked:
            trace(f"no installation names the workspace {repository.workspace}: nothing to say")
            return 0
        check_allowed(options.allow, repository)
        sure = not isinstance(asked[-1], Installation) or asked[-1].is_surely_for(repository)
        budget.watch(_give_up if sure else _give_up_quietly)
        grantors = [grantor(one) for one in asked]
        grant = obtain(repository, grantors, options, sources.digest, budget, refused_states(request))
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
        state = token_state(grant.token.encode())
        write_answer(cached_answer(request, grant.token, grant.expires, state, grant.username))
    else:
        write_answer(fresh_answer(grant.token, grant.expires, grant.username))
        TokenCache.open(create=False).tidy()  # Git has its answer.
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
        diagnostics.note(
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
    diagnostics.error(spent.what, spent.hint)


def _give_up_quietly(spent: BudgetSpentError) -> None:
    """For what is only perhaps ours: other helpers are to be asked."""
    diagnostics.error(spent.what, spent.hint)


def obtain(
    repository: Repository,
    grantors: list[Grantor],
    options: HelperOptions,
    sources_digest: str,
    budget: Budget,
    refused: list[str],
    *,
    about_to_ask: AboutToAsk | None = None,
) -> Grant | None:
    """Return a token for ``repository``: the cached one where that may be used, else one of the first that gives one.

    None where none of ``grantors`` has anything to say. ``sources_digest`` is that of the sources they come from;
    ``refused`` are the `token_state`\\ s of tokens that must not be handed out again. One process at a time asks for
    one repository; the others wait, and use what it got. Raises CredentialError.
    """
    if options.token_store == "none":
        if options.broker is not None:  # No token is kept, but a refused one must not come back.
            refused = [*TokenCache.open(create=False).refused(repository, options.scope, options.app), *refused]
        return _first_grant(repository, grantors, options.scope, refused, budget)[0]
    cache = TokenCache.open(create=True)
    with _locked(cache, cache.name(repository, options.scope, options.app), budget):
        record = cache.find(repository, options.scope, options.app)
        if (
            record is not None
            and record.identity in [grantor.identity for grantor in grantors]
            and record.may_answer(options.token_store, refused)
        ):
            token = record.token if record.token is not None else _token_from_keyring(record)
            if token is not None:
                trace(f"{repository.full_name}: a cached token answers, Unix time {record.expires} ends it")
                if record.sources != sources_digest:
                    record.sources = sources_digest
                    _keep(cache, record)
                return Grant(token, record.expires, record.uuid, True, record.minted, record.username)
        unwanted = cache.refused(repository, options.scope, options.app)
        unwanted += [state for state in refused if state not in unwanted]
        if about_to_ask is not None:
            name = cache.name(repository, options.scope, options.app)
            about_to_ask(cache, repository, name, record, refused)
        grant, identity = _first_grant(repository, grantors, options.scope, unwanted, budget)
        if grant is None:
            return None
        state = token_state(grant.token.encode())
        for one in refused if identity.startswith(BROKERED) else ():
            known = record is not None and record.state == one
            cache.note_refused(
                repository, options.scope, options.app, one, record.expires if known and record else None
            )
        if state in unwanted:
            raise BrokerError("the broker gave again a token that the server has refused", "ask who runs the broker")
        if grant.expires is None:
            return grant
        record = Record(
            repository,
            options.scope,
            options.app,
            sources=sources_digest,
            identity=identity,
            uuid=grant.uuid,
            state=state,
            minted=grant.minted,
            expires=grant.expires,
            store=options.token_store,
            username=grant.username,
            token=grant.token,
        )
        if options.token_store == "keyring":
            record.token = None
            if not _token_to_keyring(record, grant.token):
                return grant
        _keep(cache, record)
    return grant


def _first_grant(
    repository: Repository, grantors: list[Grantor], scope: str, refused: list[str], budget: Budget
) -> tuple[Grant | None, str]:
    """The first grant there is, and the identity of who gave it."""
    for grantor in grantors:
        grant = grantor.grant(repository, scope, refused, budget)
        if grant is not None:
            return grant, grantor.identity
    return None, ""


def get_for_person(repository: Repository, options: HelperOptions) -> Grant:
    """Return a token for ``repository``, for a command a person runs.

    Raises CredentialError; InstallationError where nobody gives one.
    """
    sources = read_sources(options)
    asked = Catalogue(sources).answering(repository, options.app)
    check_allowed(options.allow, repository)
    budget = Budget(options.timeout)
    budget.watch(_give_up_quietly)
    try:
        grantors = [grantor(one) for one in asked]
        grant = obtain(repository, grantors, options, sources.digest, budget, []) if asked else None
    finally:
        budget.finish()
    if grant is None:
        raise InstallationError(
            f"no installation serves {repository.full_name} on {repository.host}",
            "git-credential-bbjwt list shows the registered ones; register adds one",
        )
    return grant


@contextlib.contextmanager
def _locked(cache: TokenCache, name: str, budget: Budget) -> Iterator[None]:
    """Hold the repository's lock. Where no lock can be had there is nothing to share either, and the call goes on."""
    with contextlib.ExitStack() as held:
        if cache.folder is not None:
            budget.doing = WAITING
            try:
                held.enter_context(FileLock(cache.folder, name))
            except OSError as problem:
                trace(f"no lock in {cache.folder.path}: {problem.strerror}")
        yield


def _keep(cache: TokenCache, record: Record) -> None:
    try:
        cache.keep(record)
    except OSError as problem:
        trace(f"the token could not be cached: {problem.strerror}")


def _mint(repository: Repository, installation: Installation, scope: str, budget: Budget) -> Grant:
    """Return a new token of the installation."""
    signer = _signer(installation)

    from git_credential_bbjwt.bitbucket.api import Bitbucket

    bitbucket = Bitbucket(
        installation.base_url,
        installation.base_api_url,
        signer,
        budget,
        needs_api=repository.uuid is None or not installation.is_surely_for(repository),
    )
    uuid, minted = bitbucket.mint(repository, scope, installation.workspace_uuid)
    trace(f"{repository.full_name}: a new token for {uuid}, scope {scope}, Unix time {minted.expires} ends it")
    return Grant(minted.token, minted.expires, uuid, cached=False, minted=minted.minted)


def look_up_name(repository: Repository, installation: Installation, budget: Budget) -> str:
    """Return ``workspace/slug`` of a repository named by UUIDs. Raises CredentialError."""
    from git_credential_bbjwt.bitbucket.api import Bitbucket

    signer = _signer(installation)
    bitbucket = Bitbucket(installation.base_url, installation.base_api_url, signer, budget, needs_api=True)
    return bitbucket.full_name(repository)


def _signer(installation: Installation) -> "Signer":
    if installation.jwt:
        check_jwt_not_expired(installation)

        from git_credential_bbjwt.bitbucket.api import Signer

        return Signer(installation.jwt)

    from git_credential_bbjwt.installations.secret_store import shared_secret_of

    # First of all the keyring, the slowest of those who work at the same time: it goes on during the next import.
    shared_secret = shared_secret_of(installation)

    from git_credential_bbjwt.bitbucket.api import SecretSigner

    return SecretSigner(installation.app_key, installation.client_key, shared_secret)


def check_jwt_not_expired(installation: Installation) -> None:
    """Raise InstallationError for a JWT that has expired, or is none. Its signature is Bitbucket's to check."""
    hint = "get a new one where the secret is: git-credential-bbjwt jwt WORKSPACE"
    hide(installation.jwt)
    try:
        claims = installation.jwt.split(".")[1]
        expires = float(loads(urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expires))
    except (ValueError, LookupError, TypeError, OverflowError, OSError) as problem:
        raise InstallationError(f"{installation.where} holds no JWT", hint) from problem
    if expires <= time.time():
        raise InstallationError(f"the JWT in {installation.where} expired at {when}", hint)


def _keyring_name(record: Record) -> str:
    return "token:" + TokenCache.name(record.repository, record.scope, record.app)


def _token_from_keyring(record: Record) -> str | None:
    from git_credential_bbjwt.installations.secret_store import KeyringCall

    answer = KeyringCall("get", _keyring_name(record)).answer()
    token = answer.get("secret")
    if token is None or token_state(token.encode()) != record.state:
        trace(f"the cached token is not in the keyring: {answer['outcome']}")
        return None
    hide(token)
    return token


def _token_to_keyring(record: Record, token: str) -> bool:
    from git_credential_bbjwt.installations.secret_store import KeyringCall

    answer = KeyringCall("set", _keyring_name(record), token).answer()
    if answer["outcome"] != "ok":
        warning(f"the token could not be kept in the keyring: {answer.get('reason') or answer['outcome']}")
    return answer["outcome"] == "ok"


def forget(concerns: Callable[[Record], bool]) -> int:
    """Drop the cached tokens it ``concerns``, wherever they are kept; return how many."""
    dropped = 0
    for cache in TokenCache.every_folder():
        for record in cache.records():
            if concerns(record):
                if record.token is None:
                    from git_credential_bbjwt.installations.secret_store import KeyringCall

                    KeyringCall("delete", _keyring_name(record)).answer()
                cache.drop(record)
                if record.is_brokered:
                    cache.note_refused(record.repository, record.scope, record.app, record.state, record.expires)
                dropped += 1
    return dropped
