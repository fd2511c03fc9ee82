"""The table of the helper's options, and the parser that reads them.

The parser is written by hand because argparse costs half a Python start. The table also feeds ``--help``, the helper
line that `configure` and `exec` write, and the option tables of README and the man page (``python -m tests.options``).
"""

import os

from git_credential_bbjwt.core.options import DEFAULT_SCOPE, DEFAULT_TIMEOUT, HelperOptions, usage_error
from git_credential_bbjwt.core.repository import CLOUD_HOST, normal_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from git_credential_bbjwt.core.patterns import Pattern

TOKEN_STORES = ("runtime", "none")


def _scope(value: str) -> str:
    """Return the scopes by their old names, sorted, separated by one space."""
    # RFC 6749, section 3.3: a scope token is printable ASCII without the double quote and the backslash.
    if not value.strip() or any(not " " <= character <= "~" or character in '"\\' for character in value):
        raise usage_error("--scope needs scopes as Bitbucket names them", "write for example --scope repository:write")
    if value == DEFAULT_SCOPE:
        return value
    from git_credential_bbjwt.core.scopes import old_names

    return " ".join(sorted(old_names(value.split())))


def _app(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable():
        raise usage_error(
            "--app needs an app key as in the app's descriptor, or a consumer's key",
            "find the key: git-credential-bbjwt list",
        )
    return value


def _broker(value: str) -> str:
    from git_credential_bbjwt.core.where import Where

    return Where.parse(value).text


def _host(value: str) -> str:
    if not value or "/" in value or "@" in value:
        raise usage_error("--host needs a host as in the URL", f"write for example --host {CLOUD_HOST}")
    return normal_host(value)


def _allow(value: str) -> "Pattern":
    from git_credential_bbjwt.core.patterns import Pattern

    return Pattern.parse(value)


def _token_store(value: str) -> str:
    if value not in TOKEN_STORES:
        raise usage_error(f"--token-store is one of {', '.join(TOKEN_STORES)}", "write for example --token-store none")
    return value


def _timeout(value: str) -> float:
    """Return a number of seconds above zero and within a day."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise usage_error("--timeout needs a number of seconds above 0", "write for example --timeout 60")
    return seconds


def _text(name: str, what: str, example: str) -> "Callable[[str], str]":
    """Return a reader that accepts any text except blanks."""

    def read(value: str) -> str:
        if not value.strip():
            raise usage_error(f"{name} needs {what}", f"write for example {name} {example}")
        return value

    return read


def _switch(value: str) -> bool:
    return value == ""


class Option:
    """One option of the helper line: a row of the table.

    ``metavar`` is empty for a switch. ``read`` raises UsageError, or returns the value that `HelperOptions` keeps as
    ``attribute``. ``is_path`` marks a file's path, which `words` makes absolute because git runs the helper elsewhere.
    ``default`` and ``meaning`` are for help texts.
    """

    __slots__ = ("attribute", "default", "is_path", "is_repeatable", "meaning", "metavar", "name", "read")

    def __init__(
        self,
        name: str,
        metavar: str,
        read: "Callable[[str], object]",
        meaning: str,
        *,
        default: str = "",
        attribute: str = "",
        is_path: bool = False,
        is_repeatable: bool = False,
    ) -> None:
        self.name = name
        self.metavar = metavar
        self.read = read
        self.meaning = meaning
        self.default = default
        self.attribute = attribute or name[2:].replace("-", "_")
        self.is_path = is_path
        self.is_repeatable = is_repeatable

    def written(self, value: object) -> str:
        """Return ``value`` as another process can use it."""
        if isinstance(value, float):
            return f"{value:.12g}"
        return os.path.abspath(str(value)) if self.is_path else str(value)


def _table(*options: Option) -> "dict[str, Option]":
    return {option.name: option for option in options}


#: Every option of the helper line, in the order of ``--help``.
OPTIONS = _table(
    Option("--scope", "SCOPE", _scope, "scopes of the token, separated by spaces", default=DEFAULT_SCOPE),
    Option("--app", "KEY", _app, "app key, or a consumer's key, if the workspace has several"),
    Option(
        "--installation",
        "FILE",
        _text("--installation", "the path of a file", "installed.json"),
        "use this payload file before any other installation",
        is_path=True,
    ),
    Option(
        "--installation-command",
        "COMMAND",
        _text("--installation-command", "a command line", "'vault kv get …'"),
        "command line that prints the payload; it runs when a token is made",
    ),
    Option(
        "--broker",
        "WHERE",
        _broker,
        "ask this broker for tokens: unix:/PATH, an https URL, or a command line",
    ),
    Option(
        "--id-token-command",
        "COMMAND",
        _text("--id-token-command", "a command line", "'print-id-token'"),
        "command line that prints the ID token for an https broker",
    ),
    Option(
        "--id-token-file",
        "FILE",
        _text("--id-token-file", "the path of a file", "/run/id-token"),
        "file with the ID token for an https broker, read each time",
        is_path=True,
    ),
    Option(
        "--host",
        "HOST",
        _host,
        "host for which a broker or an installation command is asked; repeatable",
        default=CLOUD_HOST,
        attribute="hosts",
        is_repeatable=True,
    ),
    Option(
        "--allow",
        "PATTERN",
        _allow,
        "allow tokens only for WORKSPACE/SLUG, with * in SLUG for any characters; repeatable",
        is_repeatable=True,
    ),
    Option(
        "--token-store",
        "|".join(TOKEN_STORES),
        _token_store,
        "keep tokens in the token cache, or nowhere",
        default="runtime",
    ),
    Option("--timeout", "SECONDS", _timeout, "time for the whole call", default=f"{DEFAULT_TIMEOUT:g}"),
    Option("--verbose", "", _switch, "trace each decision and request to standard error"),
)


def parse_options(arguments: list[str]) -> tuple[HelperOptions, list[str]]:
    """Split ``arguments`` into the leading options and the rest.

    The first word that is not an option of the table ends the options. Raises UsageError for a value that cannot be
    used.
    """
    options = HelperOptions()
    position = 0
    while position < len(arguments):
        name, equals, value = arguments[position].partition("=")
        option = OPTIONS.get(name)
        if option is None or (equals and not option.metavar):
            break
        if option.metavar and not equals:
            position += 1
            if position == len(arguments):
                raise usage_error(f"{name} needs a value", f"write {name}=VALUE")
            value = arguments[position]
        set_option(options, option, value)
        position += 1
    options.check()
    return options, arguments[position:]


def set_option(options: HelperOptions, option: Option, value: str) -> None:
    """Read the ``value`` of ``option``. Raises UsageError."""
    found = option.read(value)
    if option.is_repeatable:
        found = (*getattr(options, option.attribute), found)
    setattr(options, option.attribute, found)
    options.given += (option.name,)


def with_option(options: HelperOptions, name: str, value: str) -> HelperOptions:
    """Return a copy with one option more. Raises UsageError."""
    other = options.replaced()
    set_option(other, OPTIONS[name], value)
    return other


def merged(earlier: HelperOptions, later: HelperOptions) -> HelperOptions:
    """Return a copy of ``earlier`` in which the options that ``later`` was given take precedence."""
    names = {*later.given, *(("--broker",) if later.broker is not None else ())}
    changes = {OPTIONS[name].attribute: getattr(later, OPTIONS[name].attribute) for name in names}
    return earlier.replaced(given=(*earlier.given, *later.given), **changes)


def helper_words(options: HelperOptions) -> list[str]:
    """Return the options for another helper line, without defaults and with absolute paths."""
    usual = HelperOptions()
    words: list[str] = []
    for option in OPTIONS.values():
        value = getattr(options, option.attribute)
        if value == getattr(usual, option.attribute):
            continue
        if not option.metavar:
            words.append(option.name)
        elif option.is_repeatable:
            words += [f"{option.name}={one}" for one in value]
        else:
            words.append(f"{option.name}={option.written(value)}")
    return words
