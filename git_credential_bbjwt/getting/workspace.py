"""Tokens that open a whole workspace: one for all its repositories, cached once, replaced rarely.

Many repositories share such a token. The server also refuses it for a repository that does not exist or is closed to
the OAuth consumer, and then the other repositories must keep it. So a refused token is replaced only if it is old
enough to have been revoked.
"""

from git_credential_bbjwt.core.failures import WholeWorkspaceError
from git_credential_bbjwt.core.record import Record
from git_credential_bbjwt.core.scopes import broader_than
from git_credential_bbjwt.getting.call import Call, closed_error, keep, use
from git_credential_bbjwt.tokens.slot import CLOSED_FOR, Slot, may_be_replaced, workspace_slot
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.oauth_consumer import OAuthConsumer
from git_credential_bbjwt.vendors.vendor import TokenRequest


def workspace_token(call: Call, consumer: OAuthConsumer, request: TokenRequest, *, is_only: bool) -> Token:
    """Return a token of an OAuth consumer, the cached one if it may be used.

    ``is_only`` says that no other vendor comes first, so the next call may use the cached token at once. Raises
    CredentialError; WholeWorkspaceError in a broker that may not return such tokens.
    """
    check_whole_workspace(call)
    slot = workspace_slot(call.cache, consumer.host, consumer.workspace, call.options.app)
    if not (call.keeps and consumer.may_be_kept and slot.can_keep(opens_workspace=True)):
        return consumer.token(request)
    with slot.lock(call.budget):
        record = slot.find()
        if record is not None and record.may_answer([], identities=(consumer.identity,)):
            if record.fingerprint not in request.refused:
                return cached_workspace_token(call, slot, record, is_only=is_only)
            if not may_be_replaced(slot, record):
                if not call.must_keep:  # A broker's client must not close the repository for the other clients.
                    call.slot(request.repository).close(None)
                raise closed_error(request.repository, CLOSED_FOR, opens_workspace=True)
        token = consumer.token(request)
        keep(call, slot, token, is_settled=is_only)
    return token._replace(may_be_kept=False)  # It is already kept.


def cached_workspace_token(call: Call, slot: Slot, record: Record, *, is_only: bool) -> Token:
    """Return the record's token. Raises BroaderScopeError if it is broader than this call's scope."""
    scope = call.options.scope
    if broader_than(scope, record.granted):
        from git_credential_bbjwt.bitbucket.consumer import check_scope

        check_scope(record.granted, scope)
    record.requested_scope = scope
    return use(call, slot, record, is_settled=is_only)


def check_whole_workspace(call: Call) -> None:
    """Raise WholeWorkspaceError in a broker that may not return tokens for the whole workspace."""
    if not call.whole_workspace:
        raise WholeWorkspaceError
