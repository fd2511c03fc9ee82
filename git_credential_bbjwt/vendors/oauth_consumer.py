"""Tokens from Bitbucket for an OAuth consumer. Each takes one request and opens every repository of the workspace."""

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import BroaderScopeError, RefusedError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.installations.catalogue import warn_of_exposed
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import TokenRequest


class OAuthConsumer:
    """The vendor for one OAuth consumer of a workspace.

    The token of an injected consumer is not kept outside a broker, because a later job of the same user could read it.
    """

    opens_workspace = True

    def __init__(self, consumer: Installation, session: Session) -> None:
        self.identity = consumer.identity
        self.after_connect = consumer.after_connect
        self.key = consumer.app_key
        #: The workspace's slug, even if a URL has its UUID.
        self.workspace = consumer.workspaces[0]
        self.host = consumer.host
        self.may_be_kept = consumer.secret_place.is_registered or session.cache.is_brokers
        self._consumer = consumer
        self._session = session

    def token(self, request: TokenRequest) -> Token:
        """Return a new token, no broader than requested. Raises CredentialError."""
        scope = request.scope
        if self._consumer.is_exposed:
            warn_of_exposed(self._consumer.where)
        session, all_requests, this_scope = self._session, digest(self.identity, "all"), digest(self.identity, scope)
        session.failures.check([all_requests, this_scope])
        try:
            found = session.consumer_token(self._consumer, request.repository)
        except RefusedError as refusal:
            if refusal.status in (400, 401, 403) or (refusal.status == 429 and refusal.is_used_up):
                session.failures.note(all_requests, refusal)
            raise

        from git_credential_bbjwt.bitbucket.consumer import check_scope  # Already loaded.

        try:
            check_scope(found.scope, scope)
        except BroaderScopeError as broader:
            session.failures.note(this_scope, broader)
            raise
        session.failures.end([all_requests, this_scope])
        trace(f"{self.workspace}: a new token of the OAuth consumer, scope {found.scope}")
        return Token(
            found.token,
            expires=found.expires,
            minted=found.minted,
            opens_workspace=True,
            granted=found.scope,
            requested_scope=scope,
            identity=self.identity,
            may_be_kept=self.may_be_kept,
        )
