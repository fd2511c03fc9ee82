"""The order in which vendors are asked, and the changeover to an OAuth consumer when Bitbucket ends Connect."""

import time
from collections.abc import Sequence

from git_credential_bbjwt.bitbucket.connect_end import END_OF_CONNECT
from git_credential_bbjwt.core.failures import CredentialError, RefusedError, UndecidedError
from git_credential_bbjwt.core.output import warning
from git_credential_bbjwt.core.scopes import missing_from
from git_credential_bbjwt.getting.call import Call
from git_credential_bbjwt.getting.workspace import cached_workspace_token, check_whole_workspace, workspace_token
from git_credential_bbjwt.tokens.names import CONNECT
from git_credential_bbjwt.tokens.slot import Slot, workspace_slot
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.oauth_consumer import OAuthConsumer
from git_credential_bbjwt.vendors.vendor import Chooser, TokenRequest, Vendor

# Seconds. Before the end of Connect, rehearsals refuse credentials. The rehearsals for app passwords began seven weeks
# before their end (Atlassian's brown-out schedule, community article 3237429).
_REHEARSALS = 60 * 86_400


def first_token(call: Call, vendors: Sequence[Vendor | Chooser], request: TokenRequest) -> Token | None:
    """Return the token of the first vendor that has one; None if no vendor has one.

    The last vendor may be an OAuth consumer that takes over from those before it. Raises CredentialError.
    """
    for position, vendor in enumerate(vendors):
        successor = vendors[-1] if position < len(vendors) - 1 else None
        if not isinstance(vendor, Vendor):
            token = _cached(call, vendor, request) if position == 0 else None
            if token is not None:
                return token
            chosen = vendor.vendors(request.repository)
            if chosen:
                return first_token(call, [*chosen, *([successor] if successor else [])], request)
            continue
        if isinstance(successor, OAuthConsumer) and successor.after_connect and not vendor.opens_workspace:
            token = _with_successor(call, vendor, successor, request)
        else:
            token = _ask(call, vendor, request, is_only=len(vendors) == 1)
        if token is not None:
            return token
    return None


def _cached(call: Call, command: Chooser, request: TokenRequest) -> Token | None:
    """Return the workspace's token from an earlier run of an installation command, if a broker has kept it."""
    slot = workspace_slot(call.cache, request.repository.host, request.repository.workspace, call.options.app)
    record = slot.find()
    if record is None or not record.may_answer(request.refused, identities=(command.identity,)):
        return None
    check_whole_workspace(call)
    return cached_workspace_token(call, slot, record, is_only=False)


def _ask(call: Call, vendor: Vendor, request: TokenRequest, *, is_only: bool) -> Token | None:
    if isinstance(vendor, OAuthConsumer):
        return workspace_token(call, vendor, request, is_only=is_only)
    return vendor.token(request)


def _with_successor(call: Call, vendor: Vendor, successor: OAuthConsumer, request: TokenRequest) -> Token | None:
    """Ask ``vendor``; if Bitbucket refuses it because Connect ends, ask its ``successor`` instead."""
    slot = workspace_slot(call.cache, successor.host, successor.workspace, call.options.app)
    try:
        token = _ask_connect(call, slot, vendor, request)
    except (RefusedError, UndecidedError) as problem:
        refusal = _end_of_connect(problem)
        if refusal is None:
            raise
        token = None
        try:
            token = workspace_token(call, successor, request, is_only=False)
        finally:
            if not refusal.is_remembered:
                warning(_words(refusal, successor, token, request.scope))
        return token
    if token is not None:
        slot.drop()  # Connect works again, so the workspace's token is no longer needed.
    return token


def _ask_connect(call: Call, slot: Slot, vendor: Vendor, request: TokenRequest) -> Token | None:
    """Ask ``vendor`` so that only one of many processes finds out that Connect has ended.

    The first process asks under the workspace's lock. If it gets a token, the other processes ask in parallel. If
    Connect has ended, they find the refusal that the first process noted.
    """
    session = call.session
    if session.connect_works:
        return vendor.token(request)
    started = time.time()
    with slot.lock(call.budget, of=CONNECT):
        if not slot.connect_works_since(started):
            try:
                token = vendor.token(request)
            except (RefusedError, UndecidedError) as problem:
                refusal = _end_of_connect(problem)
                if refusal is not None:
                    session.failures.note(refusal.installation, refusal)
                raise
            slot.note_connect_works()
            session.connect_works = True
            return token
    return vendor.token(request)


def _end_of_connect(problem: CredentialError) -> RefusedError | None:
    """Return the refusal if it means that Connect has ended, or rehearses its end; None for any other problem."""
    refusal = problem.__cause__ if isinstance(problem, UndecidedError) else problem
    return refusal if isinstance(refusal, RefusedError) and ends_connect(refusal, time.time()) else None


def ends_connect(refusal: RefusedError, now: float) -> bool:
    """Return whether a consumer takes over after this refusal, at the Unix time ``now``.

    Bitbucket's response at the end of Connect is not known. It responds with 410 for a function that has ended, with
    400 "Unsupported grant type" for a grant that the token endpoint does not know, and with 401 for credentials that
    have ended.
    """
    if refusal.status == 410 or (refusal.is_of_swap and refusal.is_unknown_grant):
        return True
    if refusal.status == 401:
        return now >= END_OF_CONNECT - _REHEARSALS
    return refusal.is_of_swap and refusal.status in (400, 403) and now >= END_OF_CONNECT


def _words(refusal: RefusedError, successor: OAuthConsumer, token: Token | None, scope: str) -> str:
    missing = missing_from(scope, token.granted) if token is not None else []
    without = f", but does not have the scope {' '.join(missing)}" if missing else ""
    return (
        f"{refusal.what}; the OAuth consumer {successor.key} takes over: its token opens every repository of the "
        f"workspace {successor.workspace}{without}"
    )
