"""Questions of `register` to Bitbucket: for a workspace's slug, and whether a secret is right."""

import threading

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.clone_urls import parse_url
from git_credential_bbjwt.core.failures import (
    BudgetSpentError,
    ConnectionFailedError,
    CredentialError,
    InstallationError,
    RefusedError,
    UsageError,
)
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.core.repository import Repository, parse_path
from git_credential_bbjwt.getting.obtain import token_for_person
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.vendors.connect import look_up_workspace
from git_credential_bbjwt.vendors.session import Session

# Seconds that a trial may take before the new secret replaces the old one untried.
_PATIENCE = 10.0

_UNAUTHORIZED = 401


def ask_slug(given: Installation, where: str, options: HelperOptions) -> str:
    """Ask Bitbucket for the slug of a workspace that the payload names by its UUID alone. Raises InstallationError."""
    say_it = "name it: git-credential-bbjwt register FILE --workspace SLUG"
    if not given.workspace_uuid:
        raise InstallationError(f"{where} names neither the workspace's slug nor its UUID", say_it)
    try:
        return look_up_workspace(given, _session(options.timeout))
    except CredentialError as problem:
        raise InstallationError(
            f"{where} does not name the workspace's slug, and Bitbucket does not tell it: {problem.what}", say_it
        ) from problem


def check_secret(new: Installation, options: HelperOptions, remedy: str) -> None:
    """Try the secret of ``new``, which is to replace a registered installation, by one signed request.

    Raises InstallationError with the hint ``remedy`` if Bitbucket refuses it; if that stays open, a note says why.
    """
    if not new.workspace_uuid:
        note(f"the new secret of the {new.name} was not tried: the payload does not name the workspace's UUID")
        return
    failures: list[Exception | None] = []

    def look_up() -> None:
        try:
            look_up_workspace(new, _session(min(_PATIENCE, options.timeout)))
            failures.append(None)
        except Exception as problem:  # Raised again in the thread that waits.
            failures.append(problem)

    trying = threading.Thread(target=look_up, daemon=True)
    trying.start()
    trying.join(min(_PATIENCE, options.timeout))
    problem = failures[0] if failures else BudgetSpentError("there is no response")
    if problem is None:
        return
    if isinstance(problem, RefusedError) and problem.status == _UNAUTHORIZED:
        raise InstallationError(
            f"Bitbucket refuses the new secret of the {new.name}, so nothing was replaced: {problem.what}", remedy
        ) from problem
    if not isinstance(problem, (RefusedError, ConnectionFailedError, BudgetSpentError)):
        raise problem
    note(f"the new secret of the {new.name} could not be tried: {problem.what}")


def parse_repository(text: str, installations: list[Installation]) -> Repository:
    """Return the repository of --repository. Raises CredentialError if it belongs to another workspace."""
    host = installations[0].host
    repository = parse_url(text) if ":" in text else parse_path(host, text.encode("utf-8", "surrogateescape"))
    if not any(one.serves(repository) for one in installations):
        raise UsageError(f"{repository.full_name} on {repository.host} belongs to another installation")
    return repository


def get_token(repository: Repository, installation: Installation, options: HelperOptions) -> None:
    """Get a token for one repository. Raises CredentialError if there is none."""
    token_for_person(repository, options.replaced(token_store="none", app=installation.app_key))
    note(f"got a token for {repository.full_name}: all is well")


def _session(seconds: float) -> Session:
    return Session(Budget(seconds), TokenCache.open(create=False), for_person=True)
