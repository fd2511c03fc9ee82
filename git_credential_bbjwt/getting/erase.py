"""What ``erase`` does: git says which token the server refused, and it is not handed out again."""

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.failures import NotARepositoryError, TooManyRefusedError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error, trace
from git_credential_bbjwt.core.repository import Repository, normal_host, parse_path
from git_credential_bbjwt.git.protocol import Request, parse_request, read_all
from git_credential_bbjwt.system.lock import WAITING, FileLock
from git_credential_bbjwt.tokens.cache import LOCK, TokenCache
from git_credential_bbjwt.tokens.record import Record, fingerprint_of


def erase(options: HelperOptions) -> int:
    """Drop the cached token the server refused; a newer one survives, and so does every registered secret."""
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
    cache: TokenCache, repository: Repository, options: HelperOptions, request: Request
) -> Record | None:
    record = cache.find(repository, options.scope, options.app)
    if record is None or (request.password is not None and fingerprint_of(request.password) != record.fingerprint):
        return None
    return record
