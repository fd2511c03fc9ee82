"""Parse payloads: the JSON of a Connect app's ``installed`` callback, or of an OAuth consumer.

Source of the callback's format: Atlassian Connect's ``installed`` lifecycle callback.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import InstallationError
from git_credential_bbjwt.core.repository import CLOUD_HOST, is_name, is_uuid, normal_host
from git_credential_bbjwt.installations.installation import (
    CLOUD_API_URL,
    CLOUD_BASE_URL,
    Installation,
    Kind,
)
from git_credential_bbjwt.installations.wrappers import APP, CONSUMER, unwrapped

# Characters of a host and port (RFC 3986, section 3.2.2), with the brackets of IPv6. "@" and "%" are refused.
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._:[]")


def parse_payload(data: bytes, where: str) -> list[Installation]:
    """Return the installations in a payload, wrapped or not: a Connect app, an OAuth consumer, or both.

    The app comes first. A consumer in the same payload is used when Connect has ended. ``where`` names the payload in
    errors. Raises InstallationError, which never repeats a value of the payload.
    """
    found = unwrapped(data, where)
    installations = [_connect(found[APP], where)] if APP in found else []
    if CONSUMER in found:
        consumer = _consumer(found[CONSUMER], where)
        installations.append(consumer._replace(after_connect=True) if installations else consumer)
    return installations


def _connect(payload: dict[str, Any], where: str) -> Installation:
    if not any(field in payload for field in ("key", "clientKey", "sharedSecret", "baseUrl")):
        raise InstallationError(f"{where}: this is not a payload: it has none of a payload's members")
    if "secret" in payload and "clientKey" not in payload:
        raise InstallationError(f"{where}: the member {CONSUMER} around the OAuth consumer is missing", _CONSUMER_HINT)
    for field, expected in (("productType", "bitbucket"), ("eventType", "installed")):
        if payload.get(field, expected) != expected:
            raise InstallationError(
                f"{where}: the {field} of this payload is not {expected}",
                "use the payload of the app's `installed` lifecycle callback from Bitbucket",
            )
    base_url, base_api_url = _base_urls(payload, where)
    principal = payload.get("principal")
    return Installation(
        app_key=text_of(payload, "key", where),
        client_key=text_of(payload, "clientKey", where),
        base_url=base_url,
        base_api_url=base_api_url,
        workspaces=tuple(_workspace_slugs(principal)),
        workspace_uuid=_workspace_uuid(principal) or _uuid_of_client(text_of(payload, "clientKey", where)),
        where=where,
        shared_secret=text_of(payload, "sharedSecret", where),
    )


def _consumer(fields: dict[str, Any], where: str) -> Installation:
    where_in = f"{where}: {CONSUMER}"
    known = {_folded(name): name for name in _CONSUMER_FIELDS}
    for name in fields.keys() - set(_CONSUMER_FIELDS):
        if _folded(name) in known:  # If afterConnect is misspelt, the consumer must not be used at once.
            raise InstallationError(f"{where_in}: the member {known[_folded(name)]} is misspelt", _CONSUMER_HINT)
    key, secret, workspace = (
        text_of(fields, name, where_in, _CONSUMER_HINT) for name in ("key", "secret", "workspace")
    )
    for name, value in (("key", key), ("secret", secret), ("workspace", workspace)):
        if not value:
            raise InstallationError(f"{where_in}: {name} is missing", _CONSUMER_HINT)
    uuid = text_of(fields, "workspaceUuid", where_in, _CONSUMER_HINT).lower()
    after_connect = fields.get("afterConnect", False)
    for name, is_right in (
        ("workspace", is_name(workspace.lower())),
        ("workspaceUuid", not uuid or is_uuid(uuid)),
        ("afterConnect", isinstance(after_connect, bool)),
    ):
        if not is_right:
            raise InstallationError(f"{where_in}: {name} is not {_CONSUMER_FIELDS[name]}", _CONSUMER_HINT)
    base_url, base_api_url = _base_urls(fields, where_in, needs_api=False)
    return Installation(
        app_key=key,
        base_url=base_url,
        base_api_url=base_api_url,
        workspaces=(workspace.lower(),),
        workspace_uuid=uuid,
        where=where,
        shared_secret=secret,
        kind=Kind.OAUTH_CONSUMER,
        after_connect=bool(after_connect),
    )


# The members of a consumer, and the format of each as errors name it.
_CONSUMER_FIELDS = {
    "key": "a string",
    "secret": "a string",
    "workspace": "the slug of its URLs",
    "workspaceUuid": "a UUID in braces",
    "baseUrl": "https://HOST",
    "baseApiUrl": "https://HOST",
    "afterConnect": "true or false",
}
_CONSUMER_HINT = 'write {"oauthConsumer": {"key": "…", "secret": "…", "workspace": "SLUG"}}'


def _folded(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _base_urls(fields: dict[str, Any], where: str, *, needs_api: bool = True) -> tuple[str, str]:
    """Return the checked base URLs. A consumer needs no API URL, because it makes no look-up."""
    base_url, base_api_url = text_of(fields, "baseUrl", where), text_of(fields, "baseApiUrl", where)
    if not base_api_url and (not base_url or _host_of(base_url, where) == CLOUD_HOST):
        base_api_url = CLOUD_API_URL
    if not base_api_url and not needs_api:
        base_api_url = base_url
    return (
        checked_base(base_url or CLOUD_BASE_URL, "baseUrl", where),
        checked_base(base_api_url, "baseApiUrl", where),
    )


def text_of(fields: dict[str, Any], field: str, where: str, hint: str = "") -> str:
    value = fields.get(field, "")
    if not isinstance(value, str) or not value.isprintable():
        raise InstallationError(f"{where}: {field} is not a string, or contains control characters", hint)
    return value


def _host_of(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        # `.port` raises for a port that is not a number.
        well_formed = parts.scheme == "https" and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if not well_formed or not _HOST_CHARACTERS.issuperset(parts.netloc) or parts.query or parts.fragment:
        raise InstallationError(f"{where}: a base URL must be https://HOST, without a path")
    return normal_host(parts.netloc)


def checked_base(url: str, field: str, where: str) -> str:
    if not url:
        raise InstallationError(f"{where}: {field} is missing")
    host = _host_of(url, where)
    if urlsplit(url).path not in ("", "/"):
        raise InstallationError(f"{where}: {field} must be https://HOST, without a path")
    return f"https://{host}"


def _workspace_slugs(principal: object) -> Iterator[str]:
    """Yield the slug that a payload's principal names: its user name, or in old payloads its page's address.

    The principal of a personal workspace names no slug, because Bitbucket removed its user name in 2019.
    """
    if not isinstance(principal, dict):
        return
    username = principal.get("username")
    if isinstance(username, str) and is_name(username.lower()):
        yield username.lower()
        return
    links = principal.get("links")
    page = links.get("html") if isinstance(links, dict) else None
    address = page.get("href") if isinstance(page, dict) else None
    if isinstance(address, str):
        try:
            segments = urlsplit(address).path.strip("/").split("/")
        except ValueError:  # The brackets in the address contain no IPv6 address.
            return
        if len(segments) == 1 and is_name(segments[0].lower()):
            yield segments[0].lower()


def _uuid_of_client(client_key: str) -> str:
    """Return the workspace's UUID in a client key of the form ``ari:cloud:bitbucket::app/{UUID}/APP-KEY``."""
    resource, _, rest = client_key.partition("::app/")
    uuid = rest.partition("/")[0].lower()
    return uuid if resource == "ari:cloud:bitbucket" and is_uuid(uuid) else ""


def _workspace_uuid(principal: object) -> str:
    uuid = principal.get("uuid") if isinstance(principal, dict) else None
    return uuid.lower() if isinstance(uuid, str) and is_uuid(uuid.lower()) else ""
