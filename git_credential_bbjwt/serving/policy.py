"""The https broker's configuration: whose jobs it trusts, and with which repositories. One TOML file.

TOML has comments, names with dots and slashes in quotes (``"oidc.circleci.com/project-id"``), nested tables
(``"kubernetes.io"``) and a reader in Python. Source: TOML 1.0; the settings are the table of the operators' page.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.option_table import OPTIONS
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.core.repository import normal_host
from git_credential_bbjwt.serving.claims import Difference, check_claims, difference
from git_credential_bbjwt.serving.id_token import IdToken
from git_credential_bbjwt.serving.isolation import read_own_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_Value = TypeVar("_Value")

# A rule has some 200 bytes. Bytes.
_LONGEST_FILE = 4 * 1024 * 1024

_LONGEST_NAME = 100

# Seconds.
_A_DAY = 86_400

# The line with which a rule begins. A text over several lines may have one, too.
_BEGIN_OF_RULE = re.compile(r"""^[ \t]*\[\[[ \t]*["']?trust["']?[ \t]*\]\][^\n]*$""", re.MULTILINE)

# The name under which a rule gets the number of its line. No one types a NUL.
_LINE = "\0"


class PolicyError(CredentialError):
    """The configuration cannot be used; ``what`` names the file, and the rule with its line if it is in one."""

    usual_hint = "try it before you use it: git-credential-bbjwt policy FILE"


@dataclass(frozen=True)
class Rule:
    """One ``[[trust]]``: tokens of ``issuer`` for one of ``audiences`` with these ``claims`` may request ``allow``."""

    name: str
    line: int
    issuer: str
    audiences: tuple[str, ...]
    claims: dict[str, object]
    allow: tuple[Pattern, ...]

    def mismatch(self, token: IdToken) -> Difference | None:
        """Return the first claim of ``token`` that is not as the rule says; None if the rule matches."""
        if token.issuer != self.issuer:
            return Difference("iss", token.issuer, self.issuer)
        if not any(one in self.audiences for one in token.audiences):
            return Difference("aud", token.claims.get("aud"), list(self.audiences))
        return difference(self.claims, token.claims)


@dataclass(frozen=True)
class Policy:
    """A whole configuration. ``keys`` says where an issuer's keys are, if not by discovery."""

    audiences: tuple[str, ...]
    options: HelperOptions
    audit: str
    per_minute: int
    whole_workspace: bool
    rules: tuple[Rule, ...]
    keys: dict[str, str]

    @property
    def issuers(self) -> tuple[str, ...]:
        """Every issuer that a rule names, once."""
        return tuple(dict.fromkeys(rule.issuer for rule in self.rules))

    def audiences_of(self, issuer: str) -> set[str]:
        """Return the audiences of all rules of ``issuer``."""
        return {audience for rule in self.rules if rule.issuer == issuer for audience in rule.audiences}


def read_policy(path: str) -> Policy:
    """Read the configuration in the file ``path``. Raises PolicyError."""
    try:
        data = read_own_file(path, "the configuration", _LONGEST_FILE)
        text = data.decode("utf-8")
        content, lines = tomllib.loads(text), _lines_of_rules(text)
    except UnicodeDecodeError as problem:
        raise PolicyError(f"{path}, line {data[: problem.start].count(10) + 1}: this is not UTF-8") from problem
    except tomllib.TOMLDecodeError as problem:
        raise PolicyError(f"{path}: {problem}") from problem
    except RecursionError as problem:
        raise PolicyError(f"{path}: its tables or lists are nested too deep") from problem
    except CredentialError as problem:
        raise PolicyError(problem.what, problem.hint) from problem
    return _policy(content, lines, path)


def _lines_of_rules(text: str) -> list[int]:
    """Return the line in which each ``[[trust]]`` begins, which the reader does not say.

    Each such line gets another one behind it, with its number as a setting, and the text is read once more. In a text
    over several lines that only looks like a rule, the number becomes a part of that text.
    """

    def numbered(match: re.Match[str]) -> str:
        number = text.count("\n", 0, match.start()) + 1
        return f'{match[0]}\n"\\u0000" = {number}'

    rules = tomllib.loads(_BEGIN_OF_RULE.sub(numbered, text)).get("trust")
    first = text.count("\n", 0, text.find("trust")) + 1
    return [rule.get(_LINE, first) if isinstance(rule, dict) else first for rule in rules or ()]


def _policy(content: dict[str, Any], lines: list[int], path: str) -> Policy:
    settings = _Settings({"trust": [], **content}, path)
    audiences = settings.take("audience", _one_or_more)
    options = HelperOptions().replaced(
        installation=settings.take("installation", _absolute_path, None),
        installation_command=settings.take("installation_command", _text, None),
        hosts=settings.take("hosts", _hosts, tuple[str, ...]()),
        scope=settings.take("scope", _scope, "repository"),
        app=settings.take("app", _text, ""),
        timeout=settings.take("timeout", _seconds, 45.0),
        given=("--scope", "--timeout"),
    )
    audit = settings.take("audit", _audit, "-")
    per_minute = settings.take("per_minute", _count, 600)
    whole_workspace = settings.take("whole_workspace", _flag, False)
    trust = settings.take("trust", _tables)
    settings.finish()
    rules: list[Rule] = []
    keys: dict[str, str] = {}
    for number, (one, line) in enumerate(zip(trust, lines, strict=True), 1):
        rules.append(_rule(one, number, line, path, audiences, keys, {rule.name for rule in rules}))
    return Policy(audiences, options, audit, per_minute, whole_workspace, tuple(rules), keys)


def _rule(
    content: dict[str, Any],
    number: int,
    line: int,
    path: str,
    audiences: tuple[str, ...],
    keys: dict[str, str],
    names: set[str],
) -> Rule:
    stated = content.get("name")
    shown = stated if isinstance(stated, str) and stated.isprintable() else f"rule {number}"
    settings = _Settings(content, f"{path}, line {line}, {shown}")
    name = settings.take("name", _name, f"rule {number}")
    if name in names:
        raise settings.error("an earlier rule has this name")
    issuer = settings.take("issuer", _https_url)
    claims = settings.take("claims", _table)
    try:
        check_claims(issuer, claims)
    except ValueError as problem:
        raise settings.error(str(problem)) from problem
    allow = settings.take("allow", _patterns)
    source = settings.take("keys", _place_of_keys, "")
    if source and keys.setdefault(issuer, source) != source:
        raise settings.error("another rule of this issuer names other keys")
    audiences = settings.take("audience", _one_or_more, audiences)
    settings.finish()
    return Rule(name, line, issuer, audiences, claims, allow)


_REQUIRED: Any = object()


class _Settings:
    """The settings of one table, each taken once. ``where`` names the table in errors."""

    def __init__(self, content: dict[str, Any], where: str) -> None:
        self._content = dict(content)
        self._where = where

    def take(self, name: str, read: Callable[[Any], _Value], default: _Value = _REQUIRED) -> _Value:
        """Return the value of a setting as ``read`` returns it. Raises PolicyError if that raises ValueError."""
        if name not in self._content:
            if default is _REQUIRED:
                raise self.error(f"{name} is missing")
            return default
        try:
            return read(self._content.pop(name))
        except ValueError as problem:
            raise self.error(f"{name} {problem}") from problem

    def finish(self) -> None:
        """Raise PolicyError for a setting that nobody took."""
        for name in self._content:
            shown = name if name.isprintable() and len(name) <= 40 else "one of them"
            raise self.error(f"there is no such setting: {shown}")

    def error(self, what: str) -> PolicyError:
        return PolicyError(f"{self._where}: {what}")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be a non-empty string")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one.strip() for one in value):
        raise ValueError("must be a list of non-empty strings")
    return tuple(value)


def _one_or_more(value: object) -> tuple[str, ...]:
    return _texts([value] if isinstance(value, str) else value)


def _name(value: object) -> str:
    name = _text(value)
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"is over {_LONGEST_NAME} characters long")
    return name


def _absolute_path(value: object) -> str:
    path = _text(value)
    if not os.path.isabs(path):
        raise ValueError("must be an absolute path")
    return path


def _audit(value: object) -> str:
    if value in ("-", "syslog", "none"):
        return str(value)
    return _absolute_path(value)


def _hosts(value: object) -> tuple[str, ...]:
    hosts = _texts(value)
    if any(character in host for host in hosts for character in "/@ "):
        raise ValueError("must be hosts as in the URL, such as bitbucket.org")
    return tuple(map(normal_host, hosts))


def _scope(value: object) -> str:
    try:
        return str(OPTIONS["--scope"].read(_text(value)))
    except UsageError:
        raise ValueError("must be scopes as Bitbucket names them, such as repository") from None


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _A_DAY:
        raise ValueError("must be a number of seconds above 0 and within a day")
    return float(value)


def _count(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("must be an integer above 0")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # as all of these
    return value


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError("must be a table")  # as all of these
    return value


def _tables(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be at least one rule, [[trust]]")
    return [_table(one) for one in value]


def _patterns(value: object) -> tuple[Pattern, ...]:
    try:
        return tuple(map(Pattern.parse, _texts(value)))
    except UsageError:
        raise ValueError("needs WORKSPACE/SLUG, with * in SLUG for any characters") from None


def _place_of_keys(value: object) -> str:
    try:
        return _text(value) if str(value).startswith("/") else _https_url(value)
    except ValueError:
        raise ValueError("must be the absolute path or https URL of a JWKS file") from None


def _https_url(value: object) -> str:
    url = _text(value)
    is_plain = url.isascii() and not any(character in url for character in ' \\"<>^`{|}@?#')
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not (url.startswith("https://") and has_host and is_plain):
        raise ValueError("must be an https URL without user, query and fragment")
    return url
