"""Handle a ``get`` that the cache could not answer (gitcredentials(7), "CUSTOM HELPERS")."""

import sys

from git_credential_bbjwt.core.failures import BudgetSpentError, CredentialError, NotARepositoryError, UndecidedError
from git_credential_bbjwt.core.options import HelperOptions, check_allowed
from git_credential_bbjwt.core.output import note, trace, warning
from git_credential_bbjwt.core.protocol import (
    QUIT,
    Request,
    cached_answer,
    fresh_answer,
    refused_fingerprints,
    write_answer,
)
from git_credential_bbjwt.core.repository import Repository, parse_path
from git_credential_bbjwt.core.sources import Sources
from git_credential_bbjwt.getting.call import Call
from git_credential_bbjwt.getting.obtain import obtain
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.system.budget import Budget, say_that_time_is_up
from git_credential_bbjwt.tokens.tidying import tidy

# In seconds. It is shorter than Python's default, so that a network thread does not wait long for one that imports.
_SWITCH_INTERVAL = 0.0005


def get_new(request: Request, options: HelperOptions, sources: Sources) -> int:
    """Answer a request that the cache could not answer; return the exit status.

    Raises CredentialError; if the request was for this helper, git was told to quit before.
    """
    catalogue = Catalogue(sources)
    repository = requested_repository(request, catalogue)
    if repository is None:
        return 0
    sys.setswitchinterval(_SWITCH_INTERVAL)
    budget = Budget(options.timeout)
    try:
        candidates = catalogue.candidates(repository, options.app)
        if not candidates:
            key = " with the key of --app" if options.app else ""
            trace(f"no installation{key} names the workspace {repository.workspace}")
            return 0
        check_allowed(options.allow, repository)
        is_certain = catalogue.is_certain(candidates, repository)
        budget.watch(_quit_because_time_is_up if is_certain else say_that_time_is_up)
        call = Call(options, sources, catalogue, budget)
        token = obtain(call, repository, call.vendors(candidates), refused_fingerprints(request))
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
        trace(f"no source has a token for {repository.full_name}")
    elif token.is_cached:
        write_answer(cached_answer(request, token.value, token.expires, token.fingerprint, token.username))
    else:
        write_answer(fresh_answer(token.value, token.expires, token.username))
        tidy(call.cache)
    return 0


def _way_without_token(repository: Repository) -> str:
    """Return a hint for a public repository if git sends a password before the server asks for one (git 2.46)."""
    from git_credential_bbjwt.git.helper_lines import is_proactive  # Only an error needs it.

    url = repository.url
    try:
        if not is_proactive(url):
            return ""
    except CredentialError:
        return ""
    # A setting for a URL takes precedence over `http.proactiveAuth`, so the command must name this URL.
    return f"; if the repository is public, go without a token: git -c http.{url}.proactiveAuth=none clone {url}"


def requested_repository(request: Request, catalogue: Catalogue) -> Repository | None:
    """Return the repository of ``request`` if it is on a known host; otherwise report the reason and return None.

    Print a line if the request might have been for this helper; otherwise only trace.
    """
    host = request.host
    if not catalogue.names_host(host):
        unreadable = catalogue.unreadable()
        if unreadable and request.protocol == b"https":
            # Other helpers may know the host, so git is not told to quit. But the user must learn of a broken source.
            warning(f"{unreadable[0].what} ({unreadable[0].hint})")
        else:
            trace(f"no installation names the host {host.rpartition('@')[2]}")
        return None
    if request.protocol != b"https":
        if request.protocol == b"http":
            warning(f"no token is sent over plain http: use https://{host}/ in the remote's URL")
        else:
            trace("the protocol of the request is not https")
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
        warning(f"no token for {host}: {reason.what}")
        return None


def _quit_because_time_is_up(spent: BudgetSpentError) -> None:
    write_answer(QUIT)
    say_that_time_is_up(spent)
