"""The https broker's configuration: whose jobs it trusts, and with which repositories. One TOML file.

TOML has comments, names with dots and slashes in quotes (``"oidc.circleci.com/project-id"``), nested tables
(``"kubernetes.io"``) and a reader in Python. Source: TOML 1.0; the settings are the table of the operators' page.
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.option_table import OPTIONS
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.core.repository import normal_host
from git_credential_bbjwt.serving.claims import Difference, check_claims, difference
from git_credential_bbjwt.serving.id_token import IdToken
from git_credential_bbjwt.serving.operators_files import read_own_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A rule has some 200 bytes. Bytes.
_LONGEST_FILE = 4 * 1024 * 1024

# The line with which a rule begins. A text over several lines may have one, too.
_BEGIN_OF_RULE = re.compile(r"""[ \t]*\[\[[ \t]*["']?trust["']?[ \t]*\]\]""")

# The name under which a rule gets the number of its line. No one types a NUL.
_LINE = "\0"


class PolicyError(CredentialError):
    """The configuration cannot be used; ``what`` names the file, and the rule with its line if it is in one."""

    usual_hint = "correct it, then try it: git-credential-bbjwt policy FILE"


@dataclass(frozen=True)
class Rule:
    """One ``[[trust]]``: tokens of ``issuer`` for one of ``audiences`` with these ``claims`` may request ``allow``.

    ``keys`` is the path or URL of the issuer's keys, empty for discovery.
    """

    name: str
    line: int
    issuer: str
    audiences: tuple[str, ...]
    claims: dict[str, object]
    allow: tuple[Pattern, ...]
    keys: str

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
    except ValueError as problem:  # TOMLDecodeError, or an integer of thousands of digits.
        raise PolicyError(f"{path}: {problem}") from problem
    except RecursionError as problem:
        raise PolicyError(f"{path}: its tables or lists are nested too deep") from problem
    except CredentialError as problem:
        raise PolicyError(problem.what, problem.hint) from problem
    return _policy(content, lines, path, text)


def _lines_of_rules(text: str) -> list[int]:
    """Return the line in which each ``[[trust]]`` begins, which the reader does not say.

    Each such line gets another one behind it, with its number as a setting, and the text is read once more. In a text
    over several lines that only looks like a rule, the number becomes a part of that text.
    """

    numbered = [
        f'{line}\n"\\u0000" = {number}' if _BEGIN_OF_RULE.match(line) else line
        for number, line in enumerate(text.split("\n"), 1)
    ]
    rules = tomllib.loads("\n".join(numbered)).get("trust")
    first = text.count("\n", 0, text.find("trust")) + 1
    if not isinstance(rules, list):
        return []
    return [rule.get(_LINE, first) if isinstance(rule, dict) else first for rule in rules]


def _policy(content: dict[str, Any], lines: list[int], path: str, text: str) -> Policy:
    settings = _Settings({"trust": [], **content}, path, text)
    audiences = settings.take("audience", _one_or_more)
    options = HelperOptions().replaced(
        installation=settings.take("installation", _path, None),
        installation_command=settings.take("installation_command", _text, None),
        hosts=settings.take("hosts", _hosts, ()),
        scope=settings.take("scope", _scope, "repository"),
        app=settings.take("app", _text, ""),
        timeout=settings.take("timeout", _seconds, 45.0),
        given=("--scope", "--timeout"),
    )
    policy = Policy(
        audiences=audiences,
        options=options,
        audit=settings.take("audit", _audit, "-"),
        per_minute=settings.take("per_minute", _count, 600),
        whole_workspace=settings.take("whole_workspace", _flag, False),
        rules=tuple(
            _rule(one, f"{path}, line {line}, ", f"rule {number}", line, audiences)
            for number, (one, line) in enumerate(zip(settings.take("trust", _tables), lines, strict=True), 1)
        ),
        keys={},
    )
    settings.finish()
    names = set()
    for rule in policy.rules:
        if rule.name in names:
            raise PolicyError(f"{path}, line {rule.line}, {rule.name}: an earlier rule has this name")
        names.add(rule.name)
        if rule.keys and policy.keys.setdefault(rule.issuer, rule.keys) != rule.keys:
            raise PolicyError(f"{path}, line {rule.line}, {rule.name}: another rule of this issuer names other keys")
    return policy


def _rule(content: dict[str, Any], where: str, usual_name: str, line: int, audiences: tuple[str, ...]) -> Rule:
    settings = _Settings(content, where + usual_name)
    name = settings.take("name", _text, usual_name)
    settings.where = where + name
    issuer = settings.take("issuer", _https_url)
    claims = settings.take("claims", _table)
    try:
        check_claims(issuer, claims)
    except ValueError as problem:
        raise settings.error(str(problem)) from problem
    rule = Rule(
        name=name,
        line=line,
        issuer=issuer,
        audiences=settings.take("audience", _one_or_more, audiences),
        claims=claims,
        allow=settings.take("allow", _patterns),
        keys=settings.take("keys", _place_of_keys, ""),
    )
    settings.finish()
    return rule


_REQUIRED: Any = object()


class _Settings:
    """The settings of one table, each taken once.

    ``where`` names the table in errors. If the table is the whole file, ``text`` is the file's, to find a line in.
    """

    def __init__(self, content: dict[str, Any], where: str, text: str = "") -> None:
        self.where = where
        self._content = dict(content)
        self._text = text

    def take(self, name: str, read: Callable[[Any], Any], default: Any = _REQUIRED) -> Any:
        """Return the value of a setting as ``read`` returns it. Raises PolicyError if that raises ValueError."""
        if name not in self._content:
            if default is _REQUIRED:
                raise self.error(f"{name} is missing")
            return default
        try:
            return read(self._content.pop(name))
        except ValueError as problem:
            raise self.error(f"{name} {problem}", name) from problem

    def finish(self) -> None:
        """Raise PolicyError for a setting that nobody took."""
        for name in self._content:
            shown = name if name.isprintable() and len(name) <= 40 else "one of them"
            raise self.error(f"there is no such setting: {shown}", name)

    def error(self, what: str, name: str = "") -> PolicyError:
        """Return the error, with the line of the setting ``name`` if that is in the file's own table."""
        found = re.search(rf"""^[ \t\[]*["']?{re.escape(name)}\b""", self._text, re.MULTILINE) if name else None
        line = "" if found is None else f", line {self._text.count(chr(10), 0, found.start()) + 1}"
        return PolicyError(f"{self.where}{line}: {what}")


def _must_be(what: str, is_right: Callable[[Any], bool]) -> Callable[[Any], Any]:
    """Return a reader that takes a value as it is, and raises ValueError for one that is not ``what``."""

    def read(value: Any) -> Any:
        if not is_right(value):
            raise ValueError(f"must be {what}")
        return value

    return read


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _is_path(value: object) -> bool:
    return _is_text(value) and os.path.isabs(str(value))


def _is_https_url(value: object) -> bool:
    url = str(value)
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    is_plain = url.isascii() and not any(character in url for character in ' \\"<>^`{|}@?#')
    return _is_text(value) and url.startswith("https://") and has_host and is_plain


_text = _must_be("a non-empty string", _is_text)
_path = _must_be("an absolute path", _is_path)
_audit = _must_be(
    '"-", "syslog", "none" or the absolute path of a file',
    lambda value: value in ("-", "syslog", "none") or _is_path(value),
)
_seconds = _must_be(
    "a number of seconds above 0 and within a day",
    lambda value: type(value) in (int, float) and 0 < value <= 86_400,
)
_count = _must_be("an integer above 0", lambda value: type(value) is int and value > 0)
_flag = _must_be("true or false", lambda value: isinstance(value, bool))
_table = _must_be("a table", lambda value: isinstance(value, dict))
_tables = _must_be(
    "at least one rule, [[trust]]",
    lambda value: isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value),
)
_list = _must_be(
    "a list of non-empty strings",
    lambda value: (
        isinstance(value, list) and bool(value) and all(isinstance(one, str) and one.strip() for one in value)
    ),
)
_https_url = _must_be("an https URL without user, query and fragment", _is_https_url)
_place_of_keys = _must_be(
    "the absolute path or https URL of a JWKS file", lambda value: _is_path(value) or _is_https_url(value)
)


def _one_or_more(value: object) -> tuple[str, ...]:
    try:
        return tuple(_list([value] if isinstance(value, str) else value))
    except ValueError:
        raise ValueError("must be a non-empty string, or a list of them") from None


def _hosts(value: object) -> tuple[str, ...]:
    hosts = _list(value)
    if any(character in host for host in hosts for character in "/@ "):
        raise ValueError("must be hosts as in the URL, such as bitbucket.org")
    return tuple(map(normal_host, hosts))


def _scope(value: object) -> str:
    try:
        return str(OPTIONS["--scope"].read(_text(value)))
    except UsageError:
        raise ValueError("must be scopes as Bitbucket names them, such as repository") from None


def _patterns(value: object) -> tuple[Pattern, ...]:
    try:
        return tuple(map(Pattern.parse, _list(value)))
    except UsageError:
        raise ValueError("needs WORKSPACE/SLUG, with * in SLUG for any characters") from None
