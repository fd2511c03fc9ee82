"""What a request costs that the cache cannot answer as it is: the decision whose it is, the lock, the mint."""

import contextlib
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from json import loads
from typing import TYPE_CHECKING, NamedTuple

from git_credential_bbjwt import diagnostics
from git_credential_bbjwt.budget import Budget
from git_credential_bbjwt.diagnostics import hide, trace, warning
from git_credential_bbjwt.errors import BudgetSpentError, InstallationError, NotARepositoryError
from git_credential_bbjwt.git.answer import QUIT, cached_answer, fresh_answer, refused_states
from git_credential_bbjwt.git.protocol import Request, write_answer
from git_credential_bbjwt.installations.payload import Catalogue, Installation
from git_credential_bbjwt.installations.sources import Sources, read_sources
from git_credential_bbjwt.options import HelperOptions, check_allowed
from git_credential_bbjwt.repository import Repository, parse_path
from git_credential_bbjwt.system.lock import WAITING, FileLock
from git_credential_bbjwt.tokens.cache import Record, TokenCache, token_state

if TYPE_CHECKING:
    from git_credential_bbjwt.bitbucket.api import Signer


class Grant(NamedTuple):
    """A token ready to be handed out. ``expires`` is a Unix time; ``cached`` tells that it was not minted just now."""

    token: str
    expires: int
    uuid: str
    cached: bool


def get(options: HelperOptions, request: Request, host: str, sources: Sources) -> int:
    """Answer a request that the cache alone could not; return the exit status.

    Raises CredentialError, after telling git to quit, where the repository is ours but no token can be had; and where a
    source cannot be read that might have made it ours.
    """
    catalogue = Catalogue(sources)
    if not catalogue.names_host(host):
        unreadable = catalogue.unreadable()
        if unreadable and request.protocol == b"https":
            # Other helpers may well know the host, so git is not told to quit; but who named a source has to know.
            raise unreadable[0]
        trace(f"no installation names the host {host}: nothing to say")
        return 0
    if request.protocol != b"https":
        if request.protocol == b"http":
            warning(f"no token goes over plain http: use https://{host}/ in the remote's URL")
        return 0
    if request.path is None:
        diagnostics.note(
            f"git did not say which repository of {host} it wants: run git config --global "
            f"credential.https://{host}.useHttpPath true"
        )
        return 0
    try:
        repository = parse_path(host, request.path)
    except NotARepositoryError as reason:
        warning(f"{reason.what} on {host}: no token")
        return 0
    budget = Budget(options.timeout)
    try:
        installation = catalogue.choose(repository, options.app)
        if installation is None:
            trace(f"no installation names the workspace {repository.workspace}: nothing to say")
            return 0
        check_allowed(options.allow, repository)
        budget.watch(_give_up)
        grant = obtain(repository, installation, options, sources.digest, budget, refused_states(request))
    except BaseException:
        budget.finish()
        write_answer(QUIT)
        raise
    budget.finish()
    if grant.cached:
        write_answer(cached_answer(request, grant.token, grant.expires))
    else:
        write_answer(fresh_answer(grant.token, grant.expires))
    return 0


def _give_up(spent: BudgetSpentError) -> None:
    write_answer(QUIT)
    diagnostics.error(spent.what, spent.hint)


def obtain(
    repository: Repository,
    installation: Installation,
    options: HelperOptions,
    digest: str,
    budget: Budget,
    refused: list[str],
) -> Grant:
    """Return a token for ``repository``: the cached one where that may be used, else a new one.

    ``digest`` is that of the sources ``installation`` was chosen from; ``refused`` are the `token_state`\\ s of tokens
    that must not be handed out again. One process at a time mints for one repository; the others wait, and use what
    it got. Raises CredentialError.
    """
    if options.token_store == "none":
        return _mint(repository, installation, options.scope, budget)[1]
    cache = TokenCache.open(create=True)
    with _locked(cache, cache.name(repository, options.scope, options.app), budget):
        record = cache.find(repository, options.scope, options.app)
        if (
            record is not None
            and record.identity == installation.identity
            and record.may_answer(options.token_store, refused)
        ):
            token = record.token if record.token is not None else _token_from_keyring(record)
            if token is not None:
                trace(f"{repository.full_name}: a cached token answers, Unix time {record.expires} ends it")
                if record.sources != digest:
                    record.sources = digest
                    _keep(cache, record)
                return Grant(token, record.expires, record.uuid, cached=True)
        minted, grant = _mint(repository, installation, options.scope, budget)
        record = Record(
            repository,
            options.scope,
            options.app,
            sources=digest,
            identity=installation.identity,
            uuid=grant.uuid,
            state=token_state(grant.token.encode()),
            minted=minted,
            expires=grant.expires,
            token=grant.token,
        )
        if options.token_store == "keyring":
            record.token = None
            if not _token_to_keyring(record, grant.token):
                return grant
        _keep(cache, record)
        cache.drop_expired()
    return grant


def get_for_person(repository: Repository, options: HelperOptions) -> tuple[Installation, Grant]:
    """Return a token for ``repository``, and the installation it was asked of, for a command a person runs.

    Raises CredentialError; InstallationError where no installation serves the repository.
    """
    sources = read_sources(options.installation)
    installation = Catalogue(sources).choose(repository, options.app)
    if installation is None:
        raise InstallationError(
            f"no installation serves {repository.full_name} on {repository.host}",
            "git-credential-bbjwt list shows the registered ones; register adds one",
        )
    budget = Budget(options.timeout)
    budget.watch(lambda spent: diagnostics.error(spent.what, spent.hint))
    try:
        return installation, obtain(repository, installation, options, sources.digest, budget, [])
    finally:
        budget.finish()


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


def _mint(repository: Repository, installation: Installation, scope: str, budget: Budget) -> tuple[int, Grant]:
    """Return the Unix time of the mint, and a new token."""
    signer = _signer(installation)

    from git_credential_bbjwt.bitbucket.api import Bitbucket

    bitbucket = Bitbucket(
        installation.base_url,
        installation.base_api_url,
        signer,
        budget,
        needs_api=repository.uuid is None,
    )
    uuid, minted = bitbucket.mint(repository, scope)
    trace(f"{repository.full_name}: a new token for {uuid}, scope {scope}, Unix time {minted.expires} ends it")
    return minted.minted, Grant(minted.token, minted.expires, uuid, cached=False)


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
                dropped += 1
    return dropped
