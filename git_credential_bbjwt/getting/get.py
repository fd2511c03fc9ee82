"""The story of a ``get`` (gitcredentials(7), "CUSTOM HELPERS").

Git asks twice per fetch, so a foreign host and a cached token are answered with next to no imports. Everything else is
imported when it is needed.
"""

import os

from git_credential_bbjwt.core.options import HelperOptions, check_allowed
from git_credential_bbjwt.core.repository import normal_host, parse_path
from git_credential_bbjwt.git.protocol import (
    QUIT,
    cached_answer,
    fresh_answer,
    parse_request,
    read_all,
    refused_fingerprints,
    write_answer,
)
from git_credential_bbjwt.installations.source import CLOUD_HOST
from git_credential_bbjwt.installations.sources import read_sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.core.failures import BudgetSpentError
    from git_credential_bbjwt.core.repository import Repository
    from git_credential_bbjwt.git.protocol import Request
    from git_credential_bbjwt.installations.catalogue import Catalogue
    from git_credential_bbjwt.installations.sources import Sources
    from git_credential_bbjwt.tokens.record import Record

# A thread that waits for the network has little to do: the threads that have more must not wait for one that imports.
# Seconds.
_SWITCH_INTERVAL = 0.0005


def get(options: HelperOptions) -> int:
    """Answer a credential request on standard input: nothing for a foreign host, a cached token, or a new one.

    Return the exit status. Raises CredentialError; if a token was due, git has been told to quit by then.
    """
    request = parse_request(read_all(0))
    host = normal_host(request.host.decode("utf-8", "surrogateescape"))
    sources = read_sources(options)
    if not sources.may_name(host):
        if request.protocol == b"https" and host in (CLOUD_HOST, *options.hosts) and sources.is_empty():
            from git_credential_bbjwt.core.output import note

            note(
                f"there is no token for {host}, because this machine has no installation: set BBJWT_INSTALLATION, or "
                "run git-credential-bbjwt register FILE"
            )
        else:
            _trace(options, f"no installation names the host {host}")
        return 0
    record = _cached(request, host, options, sources)
    if record is not None:
        _trace(
            options, f"{record.workspace}/{record.name or '*'}: using the cached token, which expires at {record.end}"
        )
        write_answer(cached_answer(request, record.token, record.expires, record.fingerprint, record.username))
        return 0
    return _get_new(request, host, options, sources)


def _trace(options: HelperOptions, decision: str) -> None:
    """Trace a decision, if anybody asks for a trace: the module that can is not loaded otherwise."""
    if options.verbose or os.environ.get("BBJWT_TRACE"):
        from git_credential_bbjwt.core.output import trace

        trace(decision)


def _cached(request: "Request", host: str, options: HelperOptions, sources: "Sources") -> "Record | None":
    """Return the record that may answer after a look at the sources' stamp alone, else None."""
    if request.protocol != b"https" or request.path is None or options.token_store == "none":
        return None
    try:
        repository = parse_path(host, request.path)
        check_allowed(options.allow, repository)
    except Exception as problem:  # The two errors are imported only after one was raised; any other is raised again.
        from git_credential_bbjwt.core.failures import NotAllowedError, NotARepositoryError

        if not isinstance(problem, (NotARepositoryError, NotAllowedError)):
            raise
        return None  # `_get_new` tells the user.

    from git_credential_bbjwt.tokens.record import cached_record

    record = cached_record(repository, options.scope, options.app)
    if record is None:
        return None
    may_answer = record.may_answer(refused_fingerprints(request), stamp=sources.stamp(repository))
    return record if may_answer else None


def _get_new(request: "Request", host: str, options: HelperOptions, sources: "Sources") -> int:
    """Answer a request that needs more than a look at the token cache; return the exit status."""
    import sys

    from git_credential_bbjwt.system import core_dumps, site_packages

    core_dumps.forbid()
    site_packages.load()
    from git_credential_bbjwt.core.budget import Budget, say_that_time_is_up
    from git_credential_bbjwt.core.failures import CredentialError, UndecidedError
    from git_credential_bbjwt.getting.asking import Asking
    from git_credential_bbjwt.getting.obtain import obtain
    from git_credential_bbjwt.installations.catalogue import Catalogue
    from git_credential_bbjwt.tokens.tidying import tidy

    catalogue = Catalogue(sources)
    repository = requested_repository(request, host, catalogue)
    if repository is None:
        return 0
    sys.setswitchinterval(_SWITCH_INTERVAL)
    budget = Budget(options.timeout)
    try:
        answering = catalogue.answering(repository, options.app)
        if not answering:
            _trace(options, f"no installation names the workspace {repository.workspace}")
            return 0
        check_allowed(options.allow, repository)
        is_certain = catalogue.is_certain(answering, repository)
        budget.watch(_quit_because_time_is_up if is_certain else say_that_time_is_up)
        asking = Asking(options, sources, catalogue, budget)
        token = obtain(asking, repository, asking.vendors(answering), refused_fingerprints(request))
    except UndecidedError:
        budget.finish()
        raise
    except BaseException as problem:
        budget.finish()
        write_answer(QUIT)
        if isinstance(problem, CredentialError):
            problem.hint += _way_without_token(repository)
        raise
    budget.finish()
    if token is None:
        _trace(options, f"no source has anything to say about {repository.full_name}")
    elif token.is_cached:
        from git_credential_bbjwt.tokens.record import fingerprint_of

        fingerprint = fingerprint_of(token.value.encode())
        write_answer(cached_answer(request, token.value, token.expires, fingerprint, token.username))
    else:
        write_answer(fresh_answer(token.value, token.expires, token.username))
        tidy(asking.cache)  # Git has its answer.
    return 0


def _way_without_token(repository: "Repository") -> str:
    """The hint for a public repository, if git sends a password before the server asks for one (git 2.46)."""
    from git_credential_bbjwt.core.failures import CredentialError
    from git_credential_bbjwt.git.helper_lines import is_proactive

    url = f"https://{repository.host}/{repository.full_name}"
    try:
        if not is_proactive(url):
            return ""
    except CredentialError:
        return ""
    # A setting for a URL takes precedence over `http.proactiveAuth`, so the command has to name the same URL or more.
    return f"; if the repository is public, go without a token: git -c http.{url}.proactiveAuth=none clone {url}"


def requested_repository(request: "Request", host: str, catalogue: "Catalogue") -> "Repository | None":
    """Return the repository that ``request`` is about if it is on a known host; else say why not and return None.

    A request that might have been for this helper gets one line; any other is only traced.
    """
    from git_credential_bbjwt.core.output import note, trace, warning

    if not catalogue.names_host(host):
        unreadable = catalogue.unreadable()
        if unreadable and request.protocol == b"https":
            # Other helpers may know the host, so git is not told to quit; but whoever named a source has to know.
            warning(f"{unreadable[0].what} ({unreadable[0].hint})")
        else:
            trace(f"no installation names the host {host}")
        return None
    if request.protocol != b"https":
        if request.protocol == b"http":
            warning(f"no token is sent over plain http: use https://{host}/ in the remote's URL")
        return None
    if request.path is None:
        note(
            f"git did not say which repository of {host} it wants: run git config --global "
            f"credential.https://{host}.useHttpPath true"
        )
        return None

    from git_credential_bbjwt.core.failures import NotARepositoryError

    try:
        return parse_path(host, request.path)
    except NotARepositoryError as reason:
        warning(f"{reason.what} on {host}: no token")
        return None


def _quit_because_time_is_up(spent: "BudgetSpentError") -> None:
    from git_credential_bbjwt.core.budget import say_that_time_is_up

    write_answer(QUIT)
    say_that_time_is_up(spent)
