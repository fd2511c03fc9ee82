"""The https broker's configuration: whose jobs it trusts, and with which repositories. One TOML file.

TOML has comments, names with dots and slashes in quotes (``"oidc.circleci.com/project-id"``), nested tables
(``"kubernetes.io"``) and a reader in Python. Source: TOML 1.0; the settings are the table of the operators' page.
"""

import os
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.option_table import OPTIONS
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.ownership import open_to_read
from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.core.repository import normal_host
from git_credential_bbjwt.serving.claims import complaint
from git_credential_bbjwt.serving.isolation import check_own_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A rule has some 200 bytes. Bytes.
_LONGEST_FILE = 4 * 1024 * 1024


class PolicyError(CredentialError):
    """The configuration cannot be used; ``what`` names the file, and the line if it is known."""

    usual_hint = "try it before you use it: git-credential-bbjwt policy FILE"


class Rule(NamedTuple):
    """One ``[[trust]]``: tokens of ``issuer`` for one of ``audiences`` with these ``claims`` may request ``allow``."""

    name: str
    line: int
    issuer: str
    audiences: tuple[str, ...]
    claims: dict[str, object]
    allow: tuple[Pattern, ...]


class Policy(NamedTuple):
    """A whole configuration. ``keys`` says where an issuer's keys are, if not by discovery."""

    audiences: tuple[str, ...]
    installation: str | None
    installation_command: str | None
    hosts: tuple[str, ...]
    scope: str
    app: str
    audit: str
    timeout: float
    per_minute: int
    whole_workspace: bool
    rules: tuple[Rule, ...]
    keys: dict[str, str]

    @property
    def options(self) -> HelperOptions:
        """The settings that the helper line has options for."""
        return HelperOptions().replaced(
            installation=self.installation,
            installation_command=self.installation_command,
            hosts=self.hosts,
            scope=self.scope,
            app=self.app,
            timeout=self.timeout,
            given=("--scope", "--timeout"),
        )

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
        check_own_file(path, "the configuration")
        data = _content(path)
        text = data.decode("utf-8")
        content = tomllib.loads(text)
    except PolicyError:
        raise
    except CredentialError as problem:
        raise PolicyError(f"{path}: {problem.what}", problem.hint) from problem
    except OSError as problem:
        raise PolicyError(f"{path} cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise PolicyError(f"{path}, line {data[: problem.start].count(10) + 1}: this is not UTF-8") from problem
    except tomllib.TOMLDecodeError as problem:
        raise PolicyError(f"{path}: {problem}") from problem
    except RecursionError as problem:
        raise PolicyError(f"{path}: its tables or lists are nested too deep") from problem
    return _Reader(path, text).policy(content)


def _content(path: str) -> bytes:
    fd = open_to_read(path)
    with os.fdopen(fd, "rb") as file:
        data = file.read(_LONGEST_FILE + 1)
    if len(data) > _LONGEST_FILE:
        raise PolicyError(f"{path} is over {_LONGEST_FILE} bytes long")
    return data


class _Reader:
    """Takes a configuration apart, and says in which line what is wrong."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines = lines_of_rules(text)
        self._text = text

    def policy(self, content: dict[str, object]) -> Policy:
        settings = _Settings(content, self._of_setting)
        audiences = settings.strings("audience", or_one=True)
        policy = Policy(
            audiences=audiences,
            installation=settings.string("installation", _absolute),
            installation_command=settings.string("installation_command"),
            hosts=tuple(map(settings.host, settings.strings("hosts", required=False))),
            scope=settings.string("scope", _scope) or "repository",
            app=settings.string("app") or "",
            audit=settings.string("audit", _audit) or "-",
            timeout=settings.number("timeout", 45.0),
            per_minute=settings.integer("per_minute", 600),
            whole_workspace=settings.boolean("whole_workspace"),
            rules=(),
            keys={},
        )
        trust = settings.take("trust")
        settings.finish()
        if not isinstance(trust, list) or not trust or not all(isinstance(one, dict) for one in trust):
            raise self._of_setting("trust", "the configuration needs at least one rule, [[trust]]")
        rules = tuple(self._rule(number, one, policy, policy.keys) for number, one in enumerate(trust, 1))
        names = set()
        for rule in rules:
            if rule.name in names:
                raise self._of_rule(rule.line, rule.name, "an earlier rule has this name")
            names.add(rule.name)
        return policy._replace(rules=rules)

    def _rule(self, number: int, content: dict[str, object], policy: Policy, keys: dict[str, str]) -> Rule:
        line = self._lines[number - 1] if number <= len(self._lines) else _line_of(self._text, "trust")
        name = content.get("name")
        shown = name if isinstance(name, str) and name.isprintable() else f"rule {number}"

        def wrong(_: str, what: str) -> PolicyError:
            return self._of_rule(line, shown, what)

        settings = _Settings(content, wrong)
        issuer = settings.string("issuer", _issuer, required=True)
        assert issuer is not None
        claims = settings.take("claims")
        if not isinstance(claims, dict):
            raise wrong("claims", "claims must be a table" if claims is not None else "claims is missing")
        why_not = complaint(issuer, claims)
        if why_not:
            raise wrong("claims", why_not)
        try:
            allow = tuple(Pattern.parse(one) for one in settings.strings("allow"))
        except UsageError as problem:
            raise wrong("allow", f"allow: {problem.what.replace('--allow needs', 'a pattern is')}") from problem
        source = settings.string("keys", _keys)
        if source is not None and keys.setdefault(issuer, source) != source:
            raise wrong("keys", "another rule of this issuer names other keys")
        audiences = settings.strings("audience", or_one=True, required=False) or policy.audiences
        name = settings.string("name", _name) or f"rule {number}"
        settings.finish()
        return Rule(name, line, issuer, audiences, claims, allow)

    def _of_setting(self, name: str, what: str) -> PolicyError:
        line = _line_of(self._text, name)
        return PolicyError(f"{self._path}{f', line {line}' if line else ''}: {what}")

    def _of_rule(self, line: int, name: str, what: str) -> PolicyError:
        return PolicyError(f"{self._path}, line {line}, {name}: {what}")


class _Settings:
    """The settings of one table, each taken once and with the type it must have."""

    def __init__(self, content: dict[str, object], wrong: Callable[[str, str], PolicyError]) -> None:
        self._content = dict(content)
        self._wrong = wrong

    def take(self, name: str) -> object:
        return self._content.pop(name, None)

    def string(self, name: str, checked: Callable[[str], str] | None = None, *, required: bool = False) -> str | None:
        value = self.take(name)
        if value is None and not required:
            return None
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise self._wrong(name, f"{name} is missing" if value is None else f"{name} must be a non-empty string")
        return self._checked(name, value, checked)

    def _checked(self, name: str, value: str, checked: Callable[[str], str] | None) -> str:
        try:
            return checked(value) if checked else value
        except UsageError as problem:
            raise self._wrong(name, problem.what) from problem
        except ValueError as problem:
            raise self._wrong(name, f"{name} {problem}") from problem

    def strings(self, name: str, *, or_one: bool = False, required: bool = True) -> tuple[str, ...]:
        value = self.take(name)
        if value is None and not required:
            return ()
        found = [value] if or_one and isinstance(value, str) else value
        if not isinstance(found, list) or not found or not all(isinstance(one, str) and one.strip() for one in found):
            kind = "a non-empty string, or a list of them" if or_one else "a list of non-empty strings"
            raise self._wrong(name, f"{name} is missing" if value is None else f"{name} must be {kind}")
        return tuple(found)

    def number(self, name: str, default: float) -> float:
        value = self.take(name)
        if value is None:
            return default
        if type(value) not in (int, float):
            raise self._wrong(name, f"{name} must be a number of seconds")
        try:
            return float(str(OPTIONS["--timeout"].read(repr(value))))
        except UsageError as problem:
            raise self._wrong(name, f"{name} must be a number of seconds above 0 and within a day") from problem

    def integer(self, name: str, default: int) -> int:
        value = self.take(name)
        if value is None:
            return default
        if type(value) is not int or value < 1:
            raise self._wrong(name, f"{name} must be an integer above 0")
        return value

    def boolean(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, f"{name} must be true or false")
        return bool(value)

    def host(self, value: str) -> str:
        if any(character in "/@ " for character in value):
            raise self._wrong("hosts", "hosts must be hosts as in the URL, such as bitbucket.org")
        return normal_host(value)

    def finish(self) -> None:
        """Raise PolicyError for a setting that nobody took."""
        for name in self._content:
            shown = name if name.isprintable() and len(name) <= 40 else "one of them"
            raise self._wrong(name, f"there is no such setting: {shown}")


def _absolute(value: str) -> str:
    if not os.path.isabs(value):
        raise ValueError("must be an absolute path")
    return value


def _scope(value: str) -> str:
    return str(OPTIONS["--scope"].read(value))


def _audit(value: str) -> str:
    if value not in ("-", "syslog", "none") and not os.path.isabs(value):
        raise ValueError('must be "-", "syslog", "none" or the absolute path of a file')
    return value


def _name(value: str) -> str:
    if len(value) > 100:
        raise ValueError("is over 100 characters long")
    return value


def _issuer(value: str) -> str:
    return _https_url(value)


def _keys(value: str) -> str:
    if value[:1] == "/":
        return value
    try:
        return _https_url(value)
    except ValueError:
        raise ValueError("must be the absolute path or https URL of a JWKS file") from None


def _https_url(value: str) -> str:
    """Return a URL that is https, without user, query and fragment. Raises ValueError."""
    reason = "must be an https URL without user, query and fragment"
    try:
        parts = urlsplit(value)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(reason) from None
    plain = value.isascii() and not any(one in ' \\"<>^`{|}' or not one.isprintable() for one in value)
    if not value.startswith("https://") or not has_host or not plain or any(one in value for one in "@?#"):
        raise ValueError(reason)
    return value


def lines_of_rules(text: str) -> list[int]:
    """Return the line in which each ``[[trust]]`` begins.

    The reader does not say where it found what. But what begins a rule, and nothing else, is a line after which the
    text so far is whole and has one rule more; each rule is read again from its own beginning alone.
    """
    lines = [line + "\n" for line in text.split("\n")]
    found: list[int] = []
    begun = 0
    for number, line in enumerate(lines):
        if line.lstrip().startswith("[[") and _rules_in(lines[begun : number + 1]) == (2 if found else 1):
            found.append(number + 1)
            begun = number
    return found


def _rules_in(lines: Iterable[str]) -> int:
    try:
        trust = tomllib.loads("".join(lines)).get("trust")
    except (tomllib.TOMLDecodeError, RecursionError):
        return -1
    return len(trust) if isinstance(trust, list) else 0


def _line_of(text: str, name: str) -> int:
    """Return the first line that begins with a setting's name, 0 if none does."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip(" \t[\"'").startswith(name) and not name.isspace():
            return number
    return 0
