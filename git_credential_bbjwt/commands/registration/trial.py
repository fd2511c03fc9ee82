"""Questions of `register` to Bitbucket: for a workspace's slug, and whether a secret is right."""

from concurrent import futures

from git_credential_bbjwt.core.failures import (
    BudgetSpentError,
    ConnectionFailedError,
    CredentialError,
    InstallationError,
    RefusedError,
)
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.vendors.connect import look_up_workspace
from git_credential_bbjwt.vendors.session import Session

# Seconds that a trial may take before the new secret replaces the old one untried.
_PATIENCE = 10.0


def ask_slug(app: Installation, where: str, timeout: float) -> str:
    """Ask Bitbucket for the slug of a workspace that the payload names by its UUID alone. Raises InstallationError."""
    remedy = "name it: git-credential-bbjwt register FILE --workspace SLUG"
    if not app.workspace_uuid:
        raise InstallationError(f"{where} names neither the workspace's slug nor its UUID", remedy)
    try:
        return look_up_workspace(app, _session(timeout))
    except CredentialError as problem:
        raise InstallationError(
            f"{where} does not name the workspace's slug, and Bitbucket does not tell it: {problem.what}", remedy
        ) from problem


def check_secret(new: Installation, timeout: float, remedy: str) -> None:
    """Try the secret of ``new``, which is to replace a registered installation, by one signed request.

    Raises InstallationError with the hint ``remedy`` if Bitbucket refuses it; if that stays open, a note says why.
    """
    if not new.workspace_uuid:
        note(f"the new secret of the {new.name} was not tried: the payload does not name the workspace's UUID")
        return
    seconds = min(_PATIENCE, timeout)
    # A thread, because a name look-up cannot be ended. It ends with the process.
    trial = futures.ThreadPoolExecutor(1).submit(look_up_workspace, new, _session(seconds))
    try:
        trial.result(seconds)
    except futures.TimeoutError:
        note(f"the new secret of the {new.name} could not be tried: there is no response")
    except (RefusedError, ConnectionFailedError, BudgetSpentError) as problem:
        if isinstance(problem, RefusedError) and problem.status == 401:
            raise InstallationError(
                f"Bitbucket refuses the new secret of the {new.name}, so nothing was replaced: {problem.what}", remedy
            ) from problem
        note(f"the new secret of the {new.name} could not be tried: {problem.what}")


def _session(seconds: float) -> Session:
    return Session(Budget(seconds), TokenCache.open(create=False), for_person=True)
