"""An OAuth consumer's tokens, by the client credentials grant. Such a token opens every repository of the workspace.

Sources: "OAuth on Bitbucket Cloud" and its examples with ``curl -u`` (key and secret unchanged), RFC 6749, sections
4.4 (the grant) and 2.3.1 (key and secret form-encoded, as Go's OAuth library sends them).
"""

import time
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote_plus

from git_credential_bbjwt.bitbucket.announcements import Announcement, announced
from git_credential_bbjwt.bitbucket.assertion import TOKEN_PATH
from git_credential_bbjwt.bitbucket.refusal import RequestKind, refuse
from git_credential_bbjwt.bitbucket.responses import AccessToken, any_token
from git_credential_bbjwt.core.failures import BadAnswerError, BroaderScopeError
from git_credential_bbjwt.core.output import hide, trace
from git_credential_bbjwt.core.scopes import broader_than
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.network.connections import Origin
from git_credential_bbjwt.network.response import Response

_BODY = b"grant_type=client_credentials"


def consumer_token(
    base: Origin, key: str, secret: Callable[[], str], remedy: str
) -> tuple[AccessToken, Announcement | None]:
    """Return a new token of the OAuth consumer ``key``, and the announcement in the response, if there is one.

    ``secret`` is called once, before the first request; ``remedy`` says how to correct a wrong key or secret. The
    token's ``scope`` is never empty; `check_scope` says whether the token may be used. Raises the errors of
    `Origin.request`, RefusedError, and BadAnswerError for a response without a scope.
    """
    plain, encoded = _pairs(key, secret())
    requested_at = int(time.time())
    response = _send(base, plain or encoded)
    if plain and plain != encoded and response.status in (400, 401, 403):
        trace(f"{base.host} refuses the consumer's key and secret; sending them form-encoded")
        response = _send(base, encoded)
    if response.status != _OK:
        refuse(response, base.host, RequestKind.CLIENT_CREDENTIALS, remedy)
    token = any_token(response, requested_at)
    hide(token.token)
    if not token.scope:
        raise BadAnswerError(
            "the token endpoint's response does not name the scope of the consumer's token",
            "the token is not used; try again, and check for a proxy that answers in Bitbucket's place",
        )
    return token, announced(response.headers)


def _send(base: Origin, pair: str) -> Response:
    headers = {"Authorization": f"Basic {pair}", "Content-Type": "application/x-www-form-urlencoded"}
    return base.request("POST", TOKEN_PATH, lambda: headers, _BODY)


def check_scope(granted: str, requested: str) -> None:
    """Raise BroaderScopeError if a consumer's token of scope ``granted`` is broader than ``requested``.

    Call this for cached tokens, too, because a call with a broader ``--scope`` may have cached the token.
    """
    broader = broader_than(requested, granted)
    if broader:
        raise BroaderScopeError(
            f"the OAuth consumer's token is broader than the scope {requested}: {safe_text(' '.join(broader))}",
            'give the consumer only the permission "Repositories: Read" (Workspace settings, OAuth consumers)',
        )


def _pairs(key: str, secret: str) -> tuple[str, str]:
    """Return key and secret for HTTP Basic, first unchanged and then form-encoded.

    The first is empty if it cannot be sent: a ``:`` in the key would end the key, and Basic allows only ASCII.
    """
    hide(secret)
    encoded = _basic(quote_plus(key), quote_plus(secret))
    if ":" in key or not (key + secret).isascii():
        return "", encoded
    return _basic(key, secret), encoded


def _basic(user: str, password: str) -> str:
    hide(password)
    pair = b64encode(f"{user}:{password}".encode()).decode()
    hide(pair)
    return pair


_OK = 200
