"""Bitbucket's scopes of repositories and pull requests, each of which has two names.

Source: "Bitbucket OAuth 2.0 scopes" (old names) and "Bitbucket scopes for Forge apps and API tokens" (new names).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: The old name of each scope by its new one. Requests to Bitbucket, options and records use the old names.
OLD_NAMES = {
    "read:repository:bitbucket": "repository",
    "write:repository:bitbucket": "repository:write",
    "admin:repository:bitbucket": "repository:admin",
    "delete:repository:bitbucket": "repository:delete",
    "read:pullrequest:bitbucket": "pullrequest",
    "write:pullrequest:bitbucket": "pullrequest:write",
}


def old_names(scopes: "Iterable[str]") -> "set[str]":
    """Return ``scopes`` by their old names; scopes with one name only stay as they are."""
    return {OLD_NAMES.get(scope, scope) for scope in scopes}
