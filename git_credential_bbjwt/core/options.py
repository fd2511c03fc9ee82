"""The options of the ``credential.helper`` line, parsed by hand: argparse costs half a Python start."""

from git_credential_bbjwt.core.repository import Repository, is_name, normal_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.core.failures import UsageError

#: What git calls (gitcredentials(7), "CUSTOM HELPERS").
OPERATIONS = ("get", "store", "erase", "capability")

#: The scope a clone needs and no more ("Scopes" in Bitbucket's OAuth 2.0 documentation).
DEFAULT_SCOPE = "repository"

#: Seconds one call may take in all, unless ``--timeout`` says otherwise.
DEFAULT_TIMEOUT = 60.0

TOKEN_STORES = ("runtime", "keyring", "none")

_WITH_VALUE = (
    "--scope",
    "--app",
    "--installation",
    "--installation-command",
    "--broker",
    "--host",
    "--allow",
    "--token-store",
    "--timeout",
)


class Pattern:
    """``workspace/slug``; in the slug ``*`` stands for any characters, and case is ignored."""

    __slots__ = ("slug", "workspace")

    def __init__(self, workspace: str, slug: str) -> None:
        self.workspace = workspace
        self.slug = slug

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Raises UsageError for what is not of this form."""
        workspace, slash, slug = text.lower().partition("/")
        slug = slug.removesuffix(".git")
        if not slash or not is_name(workspace) or not is_name(slug.replace("*", "x")):
            raise _usage_error("--allow needs WORKSPACE/SLUG, with * in SLUG for any characters")
        return cls(workspace, slug)

    def allows(self, repository: Repository) -> bool:
        """Whether ``repository``, by its slugs, is one of those meant."""
        if repository.workspace != self.workspace:
            return False
        first, *rest = self.slug.split("*")
        name = repository.name
        if not rest:
            return name == first
        last = rest.pop()
        if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
            return False
        name = name[len(first) : len(name) - len(last)]
        for part in rest:  # The leftmost place for each is the best: it leaves most to the others.
            position = name.find(part)
            if position < 0:
                return False
            name = name[position + len(part) :]
        return True

    def __str__(self) -> str:
        return f"{self.workspace}/{self.slug}"


def check_allowed(allow: "tuple[Pattern, ...]", repository: Repository) -> None:
    """Raise NotAllowedError where there are patterns and none allows ``repository``.

    One named by UUIDs is allowed by none: its slugs are not known here.
    """
    if allow and not any(pattern.allows(repository) for pattern in allow):
        from git_credential_bbjwt.core.failures import NotAllowedError

        raise NotAllowedError(
            f"--allow does not name {repository.full_name}: no token for it",
            "if this machine is to read it, add --allow WORKSPACE/SLUG to the credential.helper line",
        )


class HelperOptions:
    """What the helper line asks for. ``timeout`` is in seconds; ``app`` is the app key or empty for any.

    ``broker`` and ``installation_command`` are asked about ``hosts`` alone, by default Bitbucket Cloud's. ``allow``
    holds the patterns of the only repositories there are tokens for; where it is empty there is one for each.
    """

    __slots__ = (
        "allow",
        "app",
        "broker",
        "hosts",
        "installation",
        "installation_command",
        "scope",
        "scope_is_given",
        "timeout",
        "timeout_is_given",
        "token_store",
        "verbose",
    )

    def __init__(self) -> None:
        self.scope = DEFAULT_SCOPE
        self.app = ""
        self.allow: tuple[Pattern, ...] = ()
        self.broker: str | None = None
        self.hosts: tuple[str, ...] = ()
        self.installation: str | None = None
        self.installation_command: str | None = None
        self.scope_is_given = False
        self.timeout_is_given = False
        self.token_store = "runtime"
        self.timeout = DEFAULT_TIMEOUT
        self.verbose = False

    def replaced(self, **changes: object) -> "HelperOptions":
        """The same with ``changes``: what one part of the code is asked for is not written into another's options."""
        other = HelperOptions()
        for name in self.__slots__:
            setattr(other, name, changes.get(name, getattr(self, name)))
        return other


def parse_options(arguments: list[str]) -> tuple[HelperOptions, list[str]]:
    """Split ``arguments`` into the leading options and the rest.

    Raises UsageError for an option whose value cannot be used. An option that is not of the helper line ends the
    options: the commands for people know more.
    """
    options = HelperOptions()
    position = 0
    while position < len(arguments):
        name, equals, value = arguments[position].partition("=")
        if arguments[position] == "--verbose":
            options.verbose = True
        elif name in _WITH_VALUE:
            if not equals:
                position += 1
                if position == len(arguments):
                    raise _usage_error(f"{name} needs a value", f"write {name}=VALUE")
                value = arguments[position]
            _set(options, name, value)
        else:
            break
        position += 1
    if options.broker is not None and options.scope_is_given:
        raise _usage_error("--scope does not go with --broker: the broker's side has the scope")
    return options, arguments[position:]


def _set(options: HelperOptions, name: str, value: str) -> None:
    if name == "--scope":
        options.scope = checked_scope(value)
        options.scope_is_given = True
    elif name == "--app":
        if not value or not value.isascii() or not value.isprintable():
            raise _usage_error("--app needs an app key as the app's descriptor has it")
        options.app = value
    elif name == "--installation":
        if not value:
            raise _usage_error("--installation needs the path of a file")
        options.installation = value
    elif name == "--installation-command":
        if not value.strip():
            raise _usage_error("--installation-command needs a command line")
        options.installation_command = value
    elif name == "--broker":
        if not value.strip():
            raise _usage_error("--broker needs unix:/PATH or a command line")
        options.broker = value
    elif name == "--host":
        if not value or "/" in value or "@" in value:
            raise _usage_error("--host needs a host as it stands in the URL, such as bitbucket.org")
        options.hosts += (normal_host(value),)
    elif name == "--allow":
        options.allow += (Pattern.parse(value),)
    elif name == "--token-store":
        if value not in TOKEN_STORES:
            raise _usage_error(f"--token-store knows {', '.join(TOKEN_STORES)}")
        options.token_store = value
    else:
        options.timeout = checked_seconds(value)
        options.timeout_is_given = True


def with_scope(options: HelperOptions, value: str) -> HelperOptions:
    """The options with the scope that a command's own ``--scope`` names. Raises UsageError."""
    if options.broker is not None:
        raise _usage_error("--scope does not go with --broker: the broker's side has the scope")
    return options.replaced(scope=checked_scope(value), scope_is_given=True)


def checked_scope(value: str) -> str:
    """Return the scope in its one spelling: its tokens sorted, one space between. Raises UsageError."""
    # RFC 6749, section 3.3: a scope token is printable ASCII without the double quote and the backslash.
    if not value.strip() or any(not " " <= character <= "~" or character in '"\\' for character in value):
        raise _usage_error("--scope needs scopes as Bitbucket names them, such as repository or repository:write")
    return " ".join(sorted(set(value.split())))


def checked_seconds(value: str) -> float:
    """Return a number of seconds above zero and within a day. Raises UsageError."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise _usage_error("--timeout needs a number of seconds above 0, such as 60")
    return seconds


def _usage_error(what: str, hint: str = "") -> "UsageError":
    from git_credential_bbjwt.core.failures import UsageError

    return UsageError(what, hint)
