"""Signers, which provide JWTs: the same JWT from elsewhere for all requests, or a new JWT for each request."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from git_credential_bbjwt.bitbucket import assertion
from git_credential_bbjwt.core.failures import BadAnswerError
from git_credential_bbjwt.core.output import hide, warning

# Seconds: a week. A larger difference of clocks is not corrected, because otherwise a false server could obtain a JWT
# that is valid for a year.
_LONGEST_OFFSET = 7 * 86_400

Query = tuple[tuple[str, str], ...]


class Signed:
    """A JWT, and the seconds by which the clock that it was signed with is ahead of this machine's."""

    def __init__(self, jwt: str, offset: float) -> None:
        self.jwt = jwt
        self.offset = offset


class Signer(Protocol):
    """A source of JWTs, which prove the app's identity."""

    #: Whether each request gets its own JWT, with its own ``qsh``.
    signs_each: bool

    def jwt_for(self, method: str, path: str, query: Query) -> Signed:
        """Return a JWT for this request. Raises CredentialError if the secret is not available."""

    def adopt(self, server_time: float | None, refused: Signed) -> bool:
        """Sign by the server's clock from now on. Return whether a JWT that replaces ``refused`` may be accepted."""


class PresignedJwt:
    """A JWT that was signed elsewhere."""

    signs_each = False

    def __init__(self, jwt: str) -> None:
        self._jwt = jwt
        hide(jwt)

    def jwt_for(self, method: str, path: str, query: Query) -> Signed:  # noqa: ARG002  # the JWT is the same for all
        return Signed(self._jwt, 0.0)

    def adopt(self, server_time: float | None, refused: Signed) -> bool:  # noqa: ARG002  # it cannot sign again
        return False


class SecretSigner:
    """A signer with an installation's shared secret, which may still be on its way from the keyring."""

    signs_each = True

    def __init__(self, app_key: str, client_key: str, shared_secret: Callable[[], str]) -> None:
        self._app_key = app_key
        self._client_key = client_key
        self._shared_secret = shared_secret
        self._offset = 0.0
        self._lock = threading.Lock()  # Two requests may be signed at once.

    def jwt_for(self, method: str, path: str, query: Query) -> Signed:
        with self._lock:
            offset, secret = self._offset, self._shared_secret()
        hide(secret)  # Each time, because a long-lived process forgets the oldest hidden values.
        qsh = assertion.query_string_hash(method, path, query)
        issued_at = int(time.time() + offset) - assertion.CLOCK_TOLERANCE
        jwt = assertion.sign(secret, self._app_key, self._client_key, qsh, issued_at=issued_at)
        hide(jwt)
        return Signed(jwt, offset)

    def adopt(self, server_time: float | None, refused: Signed) -> bool:
        with self._lock:
            if refused.offset != self._offset:
                return True  # Another request has adopted the server's clock meanwhile.
            if server_time is None or self._offset:
                return False
            offset = server_time - time.time()
            if abs(offset) <= assertion.CLOCK_TOLERANCE:
                return False
            if abs(offset) > _LONGEST_OFFSET:
                raise BadAnswerError(
                    f"Bitbucket's clock and this machine's differ by {abs(offset) / 86_400:.0f} days: no JWT is signed",
                    "check this machine's date; if it is right, a proxy may be answering in Bitbucket's place",
                )
            self._offset = offset
        warning(
            f"this machine's clock is {abs(offset):.0f} s {'behind' if offset > 0 else 'ahead of'} "
            "Bitbucket's; signed again with Bitbucket's time. Set the clock (NTP)"
        )
        return True
