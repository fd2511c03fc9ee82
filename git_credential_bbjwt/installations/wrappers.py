"""Unwrap payloads: frameworks, logs and secret stores put them into other JSON objects or into strings of JSON.

Sources: atlassian-connect-express (``clientInfo``, its table AddonSettings), AWS Secrets Manager (``GetSecretValue``),
HashiCorp Vault (KV secrets engine).
"""

import json
from typing import Any

from git_credential_bbjwt.core.failures import InstallationError

#: The member that contains a Connect app's payload, and the member that contains an OAuth consumer.
APP, CONSUMER = "clientInfo", "oauthConsumer"

# More are a mistake, or an attack on the parser.
_MOST_WRAPPERS = 5

_HINT = "use the payload of the app's `installed` callback, or an OAuth consumer as JSON"
_ONE_HINT = "use one payload; to register several, write one per line: jq -c . FILE | git-credential-bbjwt register -"


def unwrapped(data: bytes, where: str) -> dict[str, dict[str, Any]]:
    """Take ``data`` out of its wrappers; return an object under `APP`, an object under `CONSUMER`, or both.

    ``where`` names the data in errors. Raises InstallationError, which never repeats a value of the data.
    """
    return _opened(json_object(data, where), where, _MOST_WRAPPERS)


def json_object(data: bytes | str, where: str) -> dict[str, Any]:
    """Parse ``data`` as a JSON object. Raises InstallationError."""
    try:
        found = json.loads(data.strip().removeprefix("\ufeff") if isinstance(data, str) else data)
    except json.JSONDecodeError as broken:
        if broken.msg == "Extra data":
            raise InstallationError(f"{where}: this is more than one payload", _ONE_HINT) from broken
        found = None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InstallationError(f"{where}: this is not a JSON object", _HINT)
    return found


def _opened(found: dict[str, Any], where: str, wrappers_left: int) -> dict[str, dict[str, Any]]:
    consumer = {CONSUMER: _object(found[CONSUMER], where)} if CONSUMER in found else {}
    inner = _inner(found, where)
    if inner is None:
        is_payload = not consumer or "clientKey" in found or "sharedSecret" in found
        return ({APP: found} if is_payload else {}) | consumer
    if not wrappers_left:
        raise InstallationError(f"{where}: the payload is in more than {_MOST_WRAPPERS} wrappers", _HINT)
    return _opened(_object(inner, where), where, wrappers_left - 1) | consumer


def _inner(found: dict[str, Any], where: str) -> object:
    """Return the content of the wrapper ``found``; None if ``found`` is not a wrapper."""
    if APP in found:
        return found[APP]
    if found.get("key") == APP and "val" in found:
        return found["val"]
    for name in ("body", "SecretString"):
        if name in found:
            return found[name]
    if "data" in found:
        data = _object(found["data"], where)
        return data.get("data", data)
    return None


def _object(value: object, where: str) -> dict[str, Any]:
    return value if isinstance(value, dict) else json_object(value if isinstance(value, str) else "", where)
