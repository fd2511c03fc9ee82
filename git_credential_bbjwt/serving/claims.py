"""The claims that a rule of the https broker names: whether the rule is safe, and whether a token matches it.

Source of the rules: the operators' page (README.md in this folder), "Rules". A regular expression is not used on
purpose: six stars and a branch name of 250 characters took 25 s, and whoever names a branch chooses the name.
"""

import re
from typing import NamedTuple

#: Names that a rule cannot decide about: the rule's own settings do.
_OWN_SETTINGS = {"iss": "issuer", "aud": "audience"}

# Names that say nothing about whose job it is.
_ABOUT_THE_TOKEN = frozenset({"iss", "aud", "exp", "iat", "nbf", "jti"})

# A string of these characters alone matches everything, or nothing.
_SAYS_NOTHING = re.compile(r"[*/:@\s]*")

# No platform's claims are nested deeper than two tables.
_DEEPEST = 10


class Difference(NamedTuple):
    """The first claim that differs, with the token's value (None: not there) and the rule's.

    ``name`` is that of a nested claim with its tables', ``outer.inner``.
    """

    name: str
    found: object
    wanted: object


# Issuers that serve everybody, and the claims that name an owner there: whole (None), or by a beginning and an end.
# Sources: docs.github.com "OpenID Connect reference"; docs.gitlab.com "OpenID Connect (OIDC) Authentication Using ID
# Tokens"; buildkite.com/docs "OIDC with Buildkite" (all read in November 2026).
_PLATFORMS: dict[str, dict[str, tuple[str, str] | None]] = {
    "https://token.actions.githubusercontent.com": {
        "repository_id": None,
        "repository_owner_id": None,
        "repository_owner": None,
        "enterprise": None,
        "enterprise_id": None,
        "repository": ("", "/"),
        "sub": ("repo:", "/"),
    },
    "https://gitlab.com": {
        "project_id": None,
        "namespace_id": None,
        "project_path": ("", "/"),
        "namespace_path": ("", "/"),
        "sub": ("project_path:", "/"),
    },
    "https://agent.buildkite.com": {
        "organization_id": None,
        "organization_slug": None,
        "pipeline_id": None,
        "sub": ("organization:", ":"),
    },
}

# The path of a group itself has no slash.
_WHOLE_TOO = ("namespace_path",)


def difference(wanted: dict[str, object], claims: dict[str, object], prefix: str = "") -> Difference | None:
    """Return the first claim of ``claims`` that is not as the rule's ``wanted`` says; None if the rule matches.

    ``prefix`` begins the names of nested claims.
    """
    for name, value in wanted.items():
        found = claims.get(name)
        if isinstance(value, dict) and isinstance(found, dict):
            deeper = difference(value, found, f"{prefix}{name}.")
            if deeper is not None:
                return deeper
        elif name not in claims or not matches(value, found):
            return Difference(prefix + name, found, value)
    return None


def matches(wanted: object, found: object) -> bool:
    """Return whether one value of a token is as one value of a rule says.

    The time grows at most with the product of both lengths.
    """
    if isinstance(found, list):
        if any(isinstance(one, (list, dict)) for one in found):
            return False
        return any(matches(wanted, one) for one in found)
    if isinstance(wanted, list):
        return any(matches(one, found) for one in wanted)
    if isinstance(wanted, dict):
        return isinstance(found, dict) and difference(wanted, found) is None
    if isinstance(wanted, str):
        return isinstance(found, str) and _fits(wanted, found)
    return type(found) is type(wanted) and found == wanted


def _fits(pattern: str, text: str) -> bool:
    """Return whether ``text`` fits ``pattern``; ``*`` is any characters except ``/`` and ``:``, ``**`` any at all.

    All places in the pattern that the text so far may lead to are followed at once, as the bits of one number
    (Baeza-Yates and Gonnet, "A new approach to text searching", 1992).
    """
    parts = re.findall(r"\*+|[^*]", pattern)
    literals: dict[str, int] = {}
    stars = within_a_part = 0  # the places of `*` and `**`, and of `*` alone
    for place, part in enumerate(parts):
        if part[0] != "*":
            literals[part] = literals.get(part, 0) | 1 << place
        else:
            stars |= 1 << place
            within_a_part |= (part == "*") << place
    reached = 1 | (stars & 1) << 1
    for character in text:
        stays = stars & ~within_a_part if character in "/:" else stars
        reached = (reached & literals.get(character, 0)) << 1 | reached & stays
        reached |= (reached & stars) << 1  # A star may also be empty. No two of them are neighbours.
        if not reached:
            return False
    return bool(reached >> len(parts) & 1)


def check_claims(issuer: str, claims: dict[str, object]) -> None:
    """Raise ValueError for the ``claims`` of a rule that match nothing, or anybody."""
    for name in claims:
        if name in _OWN_SETTINGS:
            raise ValueError(f"claims cannot name {name}: that is the setting {_OWN_SETTINGS[name]}")
    _check_value("claims", claims)
    platform = _PLATFORMS.get(issuer.lower().rstrip("/").removesuffix(":443"))
    if platform is not None:
        if not any(_names_owner(name, platform[name], value) for name, value in claims.items() if name in platform):
            shown = [name if ends is None else f"{name} = {ends[0]}OWNER{ends[1]}…" for name, ends in platform.items()]
            raise ValueError(
                f"this would trust everybody's jobs at {issuer}: claims must name the owner, without a wildcard, by "
                f"{', '.join(shown[:-1])} or {shown[-1]}"
            )
    elif not any(_narrows(value) for name, value in claims.items() if name not in _ABOUT_THE_TOKEN):
        raise ValueError("claims need at least one, besides exp, iat, nbf and jti, that does not begin with a wildcard")


def _check_value(name: str, value: object, depth: int = 0) -> None:
    """Raise ValueError for a value that no rule may have."""
    if isinstance(value, (dict, list)):
        if not value:
            raise ValueError(f"{name} is empty")
        if depth > _DEEPEST:
            raise ValueError("its tables are nested too deep")
        if isinstance(value, list) and any(isinstance(one, list) for one in value):
            raise ValueError(f"{name} has a list in a list")
        for inner_name, one in value.items() if isinstance(value, dict) else [(name, one) for one in value]:
            _check_value(inner_name, one, depth + 1)
    elif isinstance(value, str):
        if _SAYS_NOTHING.fullmatch(value):
            raise ValueError(
                f"{name} has a string that says nothing: empty, or of wildcards, slashes, colons, @ and blanks alone"
            )
    elif not isinstance(value, (bool, int)):
        raise ValueError(f"{name} must be a string, an integer, a boolean, a list or a table")


def _names_owner(name: str, ends: tuple[str, str] | None, value: object) -> bool:
    """Return whether a claim, in each of its alternatives, names one owner, whole or between these ``ends``."""
    if isinstance(value, list):
        return all(_names_owner(name, ends, one) for one in value)
    if not isinstance(value, str):
        return ends is None and type(value) is int
    if ends is None or (name in _WHOLE_TOO and "*" not in value):
        return "*" not in value
    owner, end, _ = value.removeprefix(ends[0]).partition(ends[1])
    return value.startswith(ends[0]) and bool(end and "*" not in owner and owner.strip("/:@ \t"))


def _narrows(value: object) -> bool:
    """Return whether a value, in each of its alternatives, does not begin with a wildcard."""
    if isinstance(value, dict):
        return any(_narrows(one) for one in value.values())
    if isinstance(value, list):
        return all(_narrows(one) for one in value)
    return not (isinstance(value, str) and value.startswith("*"))


def named_claims(wanted: dict[str, object], claims: dict[str, object]) -> dict[str, object]:
    """Return the part of ``claims`` that a rule names, in its shape, for the audit."""
    found: dict[str, object] = {}
    for name, value in wanted.items():
        inner = claims.get(name)
        both = isinstance(value, dict) and isinstance(inner, dict)
        found[name] = named_claims(value, inner) if both else inner  # type: ignore[arg-type]  # both are objects
    return found
