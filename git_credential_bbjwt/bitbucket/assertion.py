"""The JWT that proves an app's identity: its claims, the query string hash, the signature.

Sources: "Understanding JWT for apps" (claims, qsh), "OAuth 2.0" of Bitbucket Cloud (the grant). For Bitbucket, ``sub``
is the client key.
"""

import hashlib
import sys
import warnings
from collections.abc import Iterable
from types import ModuleType
from urllib.parse import quote

from git_credential_bbjwt.core.failures import WHOLE_PAYLOAD, InstallationError

#: Path of the token endpoint, below the base URL, which swaps a JWT for a token.
TOKEN_PATH = "/site/oauth2/access_token"

#: Seconds from ``iat`` to ``exp``: three minutes, as in Atlassian's examples.
LIFETIME = 180

# Seconds. JWTs are dated back by this time, so that a server whose clock is behind accepts them. If a clock is further
# off, `signing` signs again with the server's time.
CLOCK_TOLERANCE = 30


def query_string_hash(method: str, path: str, query: Iterable[tuple[str, str]] = ()) -> str:
    """Return the ``qsh`` claim for one request.

    ``path`` is relative to the base URL and percent-encoded as sent; ``query`` is not encoded. Form fields of a POST
    are not part of it.
    """
    canonical_path = "/" + path.strip("/").replace("&", "%26")
    values: dict[str, list[str]] = {}
    for key, value in query:
        if key != "jwt":
            values.setdefault(_encoded(key), []).append(_encoded(value))
    canonical_query = "&".join(f"{key}={','.join(sorted(values[key]))}" for key in sorted(values))
    canonical = f"{method.upper()}&{canonical_path}&{canonical_query}"
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def sign(
    shared_secret: str, app_key: str, client_key: str, qsh: str, *, issued_at: int, lifetime: int = LIFETIME
) -> str:
    """Return a JWT for the one request whose hash is ``qsh``. ``issued_at`` is a Unix time, ``lifetime`` seconds.

    Raises InstallationError for a shared secret that cannot sign.
    """
    jwt = _pyjwt()
    claims = {"iss": app_key, "sub": client_key, "iat": issued_at, "exp": issued_at + lifetime, "qsh": qsh}
    try:
        with warnings.catch_warnings():
            # PyJWT warns about short keys, but Bitbucket chooses the key, and git's user would see the warning.
            warnings.simplefilter("ignore")
            return str(jwt.encode(claims, shared_secret, algorithm="HS256"))
    except (jwt.PyJWTError, UnicodeEncodeError) as problem:
        raise InstallationError(f"the shared secret of the app {app_key} cannot sign", WHOLE_PAYLOAD) from problem


def _pyjwt() -> ModuleType:
    """Return PyJWT. It is imported here because a wheel, with its completions, is built before PyJWT is installed.

    PyJWT imports cryptography if it is available. HS256 does not need it, and the import takes 34 ms of CPU time in
    each mint. A process that verifies ID tokens has already imported cryptography and keeps it.
    """
    sys.modules.setdefault("cryptography", None)  # type: ignore[arg-type]  # None refuses the import
    import jwt

    return jwt
