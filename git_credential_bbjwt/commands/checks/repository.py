"""One repository: whether the cached token still opens it, and a whole mint."""

import os
import time
from collections.abc import Iterator

from git_credential_bbjwt.bitbucket.api import check_token
from git_credential_bbjwt.commands.checks.check import Check, Subject, failed, note, passed
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.record import token_paths
from git_credential_bbjwt.core.remedies import look_at, reason_and_remedy
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.getting.call import Call, call_for_person
from git_credential_bbjwt.getting.obtain import obtain_for_person
from git_credential_bbjwt.system.private_folder import PrivateFolder
from git_credential_bbjwt.tokens.slot import Slot, workspace_slot
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.session import Session


def cached_token(repository: Repository, subject: Subject) -> Iterator[Check]:
    """Check that git's server accepts the cached token: clients that never erase one go on failing with it."""
    options, session = subject.options, subject.session
    slots = [Slot(session.cache, repository, options.scope, options.app)]
    slots.append(workspace_slot(session.cache, repository.host, repository.workspace, options.app))
    record = next((found for found in (slot.find() for slot in slots) if found and found.is_in_time()), None)
    if record is None:
        return
    try:
        _present(repository, record.username, record.token, session)
    except CredentialError as problem:
        yield failed("cached token", problem.what, problem.hint.replace(" forget URL", f" forget {repository.url}"))
        return
    yield passed("cached token", f"it opens {repository.full_name}")


def _present(repository: Repository, username: str, token: str, session: Session) -> None:
    origin = session.connections().take(f"https://{repository.host}", f"/{repository.full_name}.git")
    check_token(origin, repository, username, token)


def new_token(repository: Repository, options: HelperOptions) -> Iterator[Check]:
    """Get a token for ``repository``, and check that git's server accepts it."""
    with call_for_person(options.replaced(token_store="none")) as call:
        try:
            started = time.monotonic()
            token = obtain_for_person(call, repository)
        except CredentialError as problem:
            yield failed("token", problem.what, problem.hint)
            return
        took = time.monotonic() - started
        yield passed("token", _described(repository, options, token, took))
        yield _access(repository, token, call)
        # Remedies for clients whose errors hide the cause.
        cure = f"git config lfs.{repository.url}.git/info/lfs.access basic"
        yield note("lfs", "if git-lfs gets a 403", f"run: {cure}")
        yield note("trace", "if a client such as cargo hides this helper's messages", "set BBJWT_TRACE=/FILE")
        if call.session.announcement is not None:
            yield passed("announcement", str(call.session.announcement))


def _described(repository: Repository, options: HelperOptions, token: Token, took: float) -> str:
    end = "its end is not known"
    if token.expires is not None:
        end = f"expires at {time.strftime('%H:%M:%S UTC', time.gmtime(token.expires))}"
    if token.opens_workspace:
        scope = f", scope {token.granted}" if token.granted else ""
        return f"it opens every repository of {repository.workspace}{scope}, {end}"
    if not token.uuid:
        return f"the broker returned a token for {repository.full_name} in {took:.2f} s, {end}"
    return f"Bitbucket returned a token for {repository.full_name} ({token.uuid}), scope {options.scope}, {end}"


def _access(repository: Repository, token: Token, call: Call) -> Check:
    try:
        _present(repository, token.username, token.value, call.session)
    except CredentialError as problem:
        hint = problem.hint
        if hint.endswith(" forget URL"):  # The server names no cause, and this token is new.
            hint = "give the app's account access to the repository"
            if token.opens_workspace:
                hint = f"check that the OAuth consumer belongs to the workspace {repository.workspace}"
                consumers = [one for one in call.catalogue.naming(repository.workspace) if one.is_consumer]
                hint += f", then {consumers[0].remedy}" if consumers else ""
        return failed("access", problem.what, hint)
    return passed("access", f"git's server accepts it for {repository.full_name}")


def cache(options: HelperOptions) -> Iterator[Check]:
    """Check that tokens can be kept."""
    if options.token_store == "none":
        yield note("token cache", "tokens are not cached (--token-store none)")
        return
    for path in token_paths():
        try:
            PrivateFolder(path, create=False).close()
        except FileNotFoundError:
            above = os.path.dirname(path)
            if os.path.isdir(above) and not os.access(above, os.W_OK):  # It is made with the first token.
                what = f"{path} cannot be made: this user cannot write to {above}"
                yield failed("token cache", what, look_at(above))
                continue
        except OSError as problem:
            why, remedy = reason_and_remedy(problem, look_at(path))
            yield failed("token cache", f"{path} is not used: {why}", remedy)
            continue
        yield passed("token cache", path)
        return
    yield note(
        "token cache",
        "tokens are not cached, because there is no private runtime folder (XDG_RUNTIME_DIR) and no usable tmpfs",
    )
