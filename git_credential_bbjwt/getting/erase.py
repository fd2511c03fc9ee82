"""The operation ``erase``: git names a token that the server refused, so the helper does not return it again."""

import time
from functools import partial

from git_credential_bbjwt.core.failures import NotARepositoryError, TooManyRefusedError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.core.protocol import fingerprint_of, parse_request, read_request
from git_credential_bbjwt.core.record import Record
from git_credential_bbjwt.core.repository import Repository, parse_path
from git_credential_bbjwt.core.sources import read_sources
from git_credential_bbjwt.system.budget import Budget, say_that_time_is_up
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.slot import (
    CLOSED_FOR,
    MOST_REMINTS,
    REMINTS_WITHIN,
    Slot,
    may_be_replaced,
    workspace_slot,
)
from git_credential_bbjwt.tokens.tidying import forget, workspace_records


def erase(options: HelperOptions) -> int:
    """Drop the cached token that the server refused; a newer one stays, as does every registered secret."""
    request = parse_request(read_request())
    # git-credential(1): an attribute that is not named matches everything.
    if request.protocol not in (None, b"https"):
        return 0
    refused = None if request.password is None else fingerprint_of(request.password)
    if not request.path:
        from git_credential_bbjwt.system import site_packages

        site_packages.load()
        forget(lambda one: one.host == request.host and refused in (None, one.fingerprint))
        return 0
    try:
        repository = parse_path(request.host, request.path)
    except NotARepositoryError:
        return 0
    # A broker's token is noted as refused even if it is not kept.
    cache = TokenCache.open(create=options.broker is not None)
    slot = Slot(cache, repository, options.scope, options.app)
    budget = Budget(options.timeout)
    budget.watch(say_that_time_is_up)
    is_known = False
    of_workspace = _workspace_slot(cache, repository, options.app, refused)
    for holder, drop in ((slot, _drop), (of_workspace, partial(_drop_workspaces, of_repository=slot))):
        if _refused_record(holder, refused) is not None:
            is_known = True
            with holder.lock(budget):
                # Check again under the lock, because a token that another process minted meanwhile must stay.
                record = _refused_record(holder, refused)
                if record is not None:
                    drop(holder, record, is_refused=refused is not None)
    if not is_known and refused is not None:
        if options.broker:
            slot.refuse(refused, None)
        elif slot.find() is None and read_sources(options).may_name(request.host):
            _note_unkept(cache, slot, refused)
    return 0


def _note_unkept(cache: TokenCache, slot: Slot, refused: str) -> None:
    """Note a refused token that may be the helper's, although it is not in the cache.

    Otherwise, a client that retries until the server accepts a token would get new tokens forever.
    """
    if cache.make_notes() is None:
        return
    slot.refuse(refused, int(time.time()) + REMINTS_WITHIN)
    if len(slot.refused()) > MOST_REMINTS:
        slot.close(None)


def _workspace_slot(cache: TokenCache, repository: Repository, app: str, refused: str | None) -> Slot:
    """Return the slot of the workspace's token. If the URL has the workspace's UUID, the record has the slug."""
    if repository.workspace.startswith("{") and refused is not None:
        for record in workspace_records(cache, repository.host):
            if record.fingerprint == refused:
                return workspace_slot(cache, record.host, record.workspace, record.app)
    return workspace_slot(cache, repository.host, repository.workspace, app)


def _refused_record(slot: Slot, refused: str | None) -> Record | None:
    """Return the slot's record if its token is the refused one, or if git named no token; otherwise None."""
    record = slot.find()
    return record if record is not None and refused in (None, record.fingerprint) else None


def _drop(slot: Slot, record: Record, *, is_refused: bool) -> None:
    """Drop the record, unless the server has refused too many tokens."""
    if is_refused:
        try:
            slot.count_remint()
        except TooManyRefusedError as too_many:
            trace(f"{too_many.what}: the newest token stays, and is not returned for {CLOSED_FOR} s")
            slot.close(record)
            return
    slot.forget(record)
    trace(f"{slot.repository.full_name}: dropped the cached token")


def _drop_workspaces(of_workspace: Slot, record: Record, *, of_repository: Slot, is_refused: bool) -> None:
    """Drop the workspace's token if it may be replaced; otherwise close the repository."""
    if is_refused and not may_be_replaced(of_workspace, record):
        trace(f"{of_repository.repository.full_name}: the workspace's token stays for the other repositories")
        of_repository.close(None)
        return
    of_repository.reopen()
    of_workspace.drop()
    trace(f"{record.workspace}: dropped the cached token of the workspace")
