"""The helper as git calls it: ``get`` and ``erase`` (gitcredentials(7), "CUSTOM HELPERS").

The story of a ``get``: the request is parsed, a foreign host ends it, a cached token answers it; everything else is
`minting`'s. Nothing heavier than the modules named here is imported up to that point.
"""

from git_credential_bbjwt.diagnostics import error, trace
from git_credential_bbjwt.errors import NotARepositoryError
from git_credential_bbjwt.git import Request, cached_answer, parse_request, read_all, refused_fingerprints, write_answer
from git_credential_bbjwt.installations import Sources, read_sources
from git_credential_bbjwt.options import HelperOptions
from git_credential_bbjwt.repository import Repository, normal_host, parse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.tokens import Record
    from git_credential_bbjwt.tokens.cache import TokenCache


def get(options: HelperOptions) -> int:
    """Answer a credential request; return the exit status.

    Raises MalformedRequestError. Every other trouble with a repository that is ours is answered with ``quit=1``.
    """
    request = parse_request(read_all(0))
    host = normal_host(request.host.decode("utf-8", "surrogateescape"))
    sources = read_sources(options)
    if not sources.may_name(host):
        trace(f"no installation names the host {host}: nothing to say")
        return 0
    record = _cached(request, host, options, sources)
    if record is not None and record.token is not None:  # One in the keyring is `minting`'s.
        trace(f"{record.workspace}/{record.name}: a cached token answers, Unix time {record.expires} ends it")
        write_answer(cached_answer(request, record.token, record.expires, record.fingerprint, record.username))
        return 0

    from git_credential_bbjwt.system import core_dumps, site_packages

    core_dumps.forbid()
    site_packages.load()
    from git_credential_bbjwt import minting

    return minting.get(options, request, host, sources)


def _cached(request: Request, host: str, options: HelperOptions, sources: Sources) -> "Record | None":
    """Return the record that may answer just as things are, else None."""
    if request.protocol != b"https" or request.path is None or options.token_store == "none":
        return None
    try:
        repository = parse_path(host, request.path)
    except NotARepositoryError:
        return None
    if options.allow and not any(pattern.allows(repository) for pattern in options.allow):
        return None  # `minting` has words for it.

    from git_credential_bbjwt.tokens import Records

    record = Records.open(create=False).find(repository, options.scope, options.app)
    if record is None:
        return None
    refused = refused_fingerprints(request)
    may_answer = record.may_answer(options.token_store, refused, sources=sources.stamp(repository))
    return record if may_answer else None


def erase(options: HelperOptions) -> int:
    """Drop the cached token the server refused; a newer one survives, and so does every registered secret."""
    from git_credential_bbjwt.tokens import fingerprint_of
    from git_credential_bbjwt.tokens.cache import LOCK, TokenCache

    request = parse_request(read_all(0))
    if request.protocol != b"https":
        return 0
    host = normal_host(request.host.decode("utf-8", "surrogateescape"))
    if not request.path:
        # git-credential(1): what is not named matches everything. Which of them all the password was is not known.
        from git_credential_bbjwt.system import site_packages

        site_packages.load()
        from git_credential_bbjwt.tokens.stores import forget

        refused = None if request.password is None else fingerprint_of(request.password)
        forget(lambda one: one.host == host and refused in (None, one.fingerprint))
        return 0
    try:
        repository = parse_path(host, request.path)
    except NotARepositoryError:
        return 0
    # What a broker gave may be kept nowhere, and is noted as refused all the same.
    cache = TokenCache.open(create=options.broker is not None)
    if cache.folder is None:
        return 0
    if _refused_record(cache, repository, options, request) is None:
        if options.broker and request.password:
            # It was not kept, for the broker did not say when it ends; it must not come back all the same.
            cache.note_refused(repository, options.scope, options.app, fingerprint_of(request.password), None)
        return 0
    from git_credential_bbjwt.budget import Budget
    from git_credential_bbjwt.failures import TooManyRefusedError
    from git_credential_bbjwt.system.lock import WAITING, FileLock

    budget = Budget(options.timeout)
    budget.doing = WAITING
    budget.watch(lambda spent: error(spent.what, spent.hint))
    # Once more under the lock: the token of another process that minted in between must survive.
    with FileLock(cache.folder, cache.name(repository, options.scope, options.app) + LOCK):
        record = _refused_record(cache, repository, options, request)
        if record is not None:
            if request.password is not None:
                try:
                    cache.count_remint(repository, options.scope, options.app)
                except TooManyRefusedError as often:
                    trace(f"{often.what}: the newest one stays")
                    return 0
            cache.drop(record)
            if record.is_brokered:
                cache.note_refused(repository, options.scope, options.app, record.fingerprint, record.expires)
            trace(f"{repository.full_name}: dropped the cached token")
    return 0


def _refused_record(
    cache: "TokenCache", repository: Repository, options: HelperOptions, request: Request
) -> "Record | None":
    from git_credential_bbjwt.tokens import fingerprint_of

    record = cache.find(repository, options.scope, options.app)
    if record is None or (request.password is not None and fingerprint_of(request.password) != record.fingerprint):
        return None
    return record
