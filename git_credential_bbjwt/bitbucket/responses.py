"""The checks on Bitbucket's good responses.

Sources: RFC 6749, section 5.1 (tokens); "Repositories" and "Workspaces" of Bitbucket Cloud's REST API (names, UUIDs).
"""

import json
from typing import Any, NamedTuple

from git_credential_bbjwt.core.failures import NEWEST_PAYLOAD, AnothersWorkspaceError, BadAnswerError
from git_credential_bbjwt.core.protocol import is_visible_ascii
from git_credential_bbjwt.core.repository import Repository, is_name, is_uuid
from git_credential_bbjwt.core.scopes import broader_than, normal_scope
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.network.response import Response

# Seconds. The lifetime of a token without `expires_in` is the shorter of the two that Bitbucket's documentation has
# named over the years. A longer lifetime than the second value is cut to it.
_UNSTATED_LIFETIME = 3600
_LONGEST_LIFETIME = 86_400

# Characters. Today's tokens are JWTs of about 1,900.
_LONGEST_TOKEN = 8_192

# Digits of a number in JSON. Python takes seconds to parse a number of a million digits.
_LONGEST_NUMBER = 20


class AccessToken(NamedTuple):
    """The checked access token of a response, from which a vendor makes its `Token`.

    ``minted`` and ``expires`` are Unix times by this machine's clock. ``scope`` lists the granted scopes by their old
    names; it is empty if the response does not name them.
    """

    token: str
    minted: int
    expires: int
    scope: str = ""


def json_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``body``; None if ``body`` is anything else."""
    try:
        found = json.loads(body, parse_int=_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def checked_uuid(response: Response, repository: Repository) -> str:
    """Return the UUID, in braces, from a REST response about ``repository``. Raises BadAnswerError."""
    found = json_object(response.body)
    if found is None:
        raise _unusable("the REST API's response is not a JSON object")
    uuid, full_name = found.get("uuid"), found.get("full_name")
    if not isinstance(uuid, str) or not is_uuid(uuid.lower()):
        raise _unusable("the REST API's response does not contain the repository's UUID")
    if full_name is not None:
        workspace, _, name = str(full_name).lower().partition("/")
        same_workspace = repository.workspace.startswith("{") or repository.workspace == workspace
        if not same_workspace or repository.name not in (name, uuid.lower()):
            raise BadAnswerError(
                "the REST API's response is about another repository than the requested one",
                "if the repository was renamed or moved, update the remote's URL",
            )
    return uuid.lower()


def check_workspace(response: Response, workspace_uuid: str) -> None:
    """Raise AnothersWorkspaceError if a REST response names another workspace than that of ``workspace_uuid``."""
    workspace = (json_object(response.body) or {}).get("workspace")
    found = workspace.get("uuid") if isinstance(workspace, dict) else None
    if workspace_uuid and isinstance(found, str) and found.lower() != workspace_uuid:
        raise AnothersWorkspaceError(
            "the repository is in another workspace than the one the app is installed on",
            f"its workspace's slug may have changed hands: {NEWEST_PAYLOAD}",
        )


def checked_full_name(response: Response, repository: Repository) -> str:
    """Return ``workspace/slug``, lower case, from a response about a repository named by UUIDs.

    Raises BadAnswerError.
    """
    found = json_object(response.body) or {}
    uuid, full_name = found.get("uuid"), found.get("full_name")
    if not isinstance(uuid, str) or not isinstance(full_name, str):
        raise _unusable("the REST API's response is not about a repository")
    workspace, _, slug = full_name.lower().partition("/")
    if repository.name not in (uuid.lower(), slug):
        raise _unusable("the REST API's response is about another repository")
    if not is_name(workspace) or not is_name(slug):
        raise _unusable("the REST API's response does not contain a workspace and a slug")
    return f"{workspace}/{slug}"


def checked_slug(response: Response, workspace_uuid: str) -> str:
    """Return the slug from a REST response about the workspace of ``workspace_uuid``. Raises BadAnswerError."""
    found = json_object(response.body) or {}
    uuid, slug = found.get("uuid"), found.get("slug")
    if not isinstance(uuid, str) or uuid.lower() != workspace_uuid:
        raise _unusable("the REST API's response is about another workspace")
    if not isinstance(slug, str) or not is_name(slug.lower()):
        raise _unusable("the REST API's response does not contain the workspace's slug")
    return slug.lower()


def checked_token(response: Response, requested_scope: str, requested_at: int) -> AccessToken:
    """Return the token from the response to a swap, if it is no broader than requested. Raises BadAnswerError.

    ``requested_at`` is the Unix time of the request.
    """
    token = any_token(response, requested_at)
    broader = broader_than(requested_scope, token.scope)
    if broader:
        raise BadAnswerError(
            f"the token endpoint granted more than the scope {requested_scope}: {safe_text(' '.join(broader))}",
            "the token is not used; if you want the broader scope, request it with --scope",
        )
    return token


def any_token(response: Response, requested_at: int) -> AccessToken:
    """Return the token from a response of the token endpoint, whatever its scope. Raises BadAnswerError."""
    found = json_object(response.body)
    if found is None:
        raise _unusable("the token endpoint's response is not a JSON object")
    token, kind, lifetime = found.get("access_token"), found.get("token_type"), found.get("expires_in")
    if not isinstance(token, str) or not is_visible_ascii(token):
        raise _unusable("the token endpoint's response contains no usable access_token")
    if len(token) > _LONGEST_TOKEN:
        raise _unusable(
            f"the token endpoint's response contains an access_token of {len(token)} characters; "
            f"the limit is {_LONGEST_TOKEN}"
        )
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _unusable("the token endpoint's response has another token_type than bearer")
    if lifetime is None:
        lifetime = _UNSTATED_LIFETIME
    if type(lifetime) is not int or lifetime <= 0:
        raise _unusable("the token endpoint's response has an expires_in that is not a number of seconds")
    return AccessToken(token, requested_at, requested_at + min(lifetime, _LONGEST_LIFETIME), _granted_scope(found))


def _granted_scope(found: dict[str, Any]) -> str:
    """Return the granted scopes. Until May 2026 (CHANGE-3052), Bitbucket's name of the field was ``scopes``."""
    names: list[str] = []
    for field in ("scopes", "scope"):
        granted = found.get(field)
        if granted is None:
            continue
        listed = granted.split() if isinstance(granted, str) else granted
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise _unusable(f"the token endpoint's response has a {field} that is not a string or a list of strings")
        names += listed
    return normal_scope(" ".join(names))


def _unusable(what: str) -> BadAnswerError:
    return BadAnswerError(what, "try again; if this does not help, a proxy may be answering in Bitbucket's place")


def _number(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError("a number that is too long")
    return int(digits)
