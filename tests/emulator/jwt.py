"""JWTs as Bitbucket checks them ("Understanding JWT for apps"), by code that shares nothing with the helper's."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from urllib.parse import quote


class BadJwtError(Exception):
    pass


def decoded(segment: str) -> bytes:
    if "=" in segment or not segment.isascii():
        raise BadJwtError("not base64url without padding")
    try:
        return base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except ValueError as bad:
        raise BadJwtError("not base64url") from bad


def decoded_json(segment: str) -> dict[str, Any]:
    try:
        found = json.loads(decoded(segment))
    except ValueError as bad:
        raise BadJwtError("not JSON") from bad
    if not isinstance(found, dict):
        raise BadJwtError("no object")
    return found


def query_string_hash(method: str, path: str, query: list[tuple[str, str]]) -> str:
    """The hash a JWT must carry for a request ("Understanding JWT for apps", "Creating a query string hash")."""
    path = path if path == "/" else path.rstrip("/")
    by_key: dict[str, list[str]] = {}
    for key, value in query:
        if key != "jwt":
            by_key.setdefault(quote(key, safe="~"), []).append(quote(value, safe="~"))
    canonical = "&".join(f"{key}={','.join(sorted(by_key[key]))}" for key in sorted(by_key))
    text = f"{method}&{path.replace('&', '%26')}&{canonical}"
    return hashlib.sha256(text.encode()).hexdigest()
