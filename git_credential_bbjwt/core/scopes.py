"""Bitbucket's scopes of repositories and pull requests, each of which has two names.

Source: "Bitbucket OAuth 2.0 scopes" (old names) and "Bitbucket scopes for Forge apps and API tokens" (new names).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: The old name of each scope by its new name. Requests to Bitbucket, options and records use the old names.
OLD_NAMES = {
    "read:repository:bitbucket": "repository",
    "write:repository:bitbucket": "repository:write",
    "admin:repository:bitbucket": "repository:admin",
    "delete:repository:bitbucket": "repository:delete",
    "read:pullrequest:bitbucket": "pullrequest",
    "write:pullrequest:bitbucket": "pullrequest:write",
}


def old_names(scopes: "Iterable[str]") -> "set[str]":
    """Return ``scopes`` by their old names; scopes with only one name stay as they are."""
    return {OLD_NAMES.get(scope, scope) for scope in scopes}


# Scopes that a scope includes although its name does not show it.
_INCLUDED = {
    "pullrequest": ("repository",),
    "pullrequest:write": ("pullrequest", "repository", "repository:write"),
}


def normal_scope(scope: str) -> str:
    """Return ``scope`` (names separated by spaces) in its normal form: old names, each once, sorted."""
    return " ".join(sorted(old_names(scope.split())))


def broader_than(asked: str, granted: str) -> "list[str]":
    """Return the names in ``granted`` that ``asked`` does not include. Both are lists of names in any spelling."""
    return sorted(old_names(granted.split()) - _with_included(asked))


def missing_from(asked: str, granted: str) -> "list[str]":
    """Return the names in ``asked`` that ``granted`` does not include. Both are lists of names in any spelling."""
    return sorted(old_names(asked.split()) - _with_included(granted))


def _with_included(scope: str) -> "set[str]":
    included = old_names(scope.split())
    for name in list(included):
        # Every `:write` scope includes the scope that reads the same.
        included |= {*_INCLUDED.get(name, ()), name.removesuffix(":write")}
    return included
