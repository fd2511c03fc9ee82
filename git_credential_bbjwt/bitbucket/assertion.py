"""The JWT an app proves itself with: its claims, the query string hash, the signature.

Sources: "Understanding JWT for apps" (claims, qsh), "OAuth 2.0" of Bitbucket Cloud (the grant). For Bitbucket the
client key stands in ``sub``.
"""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from urllib.parse import quote

from git_credential_bbjwt.core.failures import WHOLE_PAYLOAD, InstallationError

#: Path of the token endpoint, below the base URL: where a JWT is swapped for a token.
TOKEN_PATH = "/site/oauth2/access_token"

#: Seconds from ``iat`` to ``exp``: three minutes, as Atlassian's examples have it.
LIFETIME = 180

# A server whose clock is this many seconds behind would see an `iat` in the future. From here on a clock counts as
# off, and `bitbucket` signs again with the server's time.
CLOCK_TOLERANCE = 30


def query_string_hash(method: str, path: str, query: Iterable[tuple[str, str]] = ()) -> str:
    """Return the ``qsh`` claim for one request.

    ``path`` is relative to the base URL and percent-encoded as sent; ``query`` is not encoded. Form fields of a POST
    do not enter it.
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

    A JWT with HS256 is two JSON objects in base64url and their HMAC (RFC 7515, appendix A.1), which the standard
    library has. A library for JWTs also loads what fetches keys and checks signatures, which nothing here does.
    Raises InstallationError for a shared secret that is not text.
    """
    try:
        key = shared_secret.encode()
    except UnicodeEncodeError as problem:
        raise InstallationError(f"the shared secret of the app {app_key} cannot sign", WHOLE_PAYLOAD) from problem
    header = {"alg": "HS256", "typ": "JWT"}
    claims = {"iss": app_key, "sub": client_key, "iat": issued_at, "exp": issued_at + lifetime, "qsh": qsh}
    signed = b".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return (signed + b"." + _base64url(hmac.digest(key, signed, "sha256"))).decode("ascii")


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
