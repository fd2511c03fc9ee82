"""The options of a call. `option_table` reads them; a call without options does not load it."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.core.failures import UsageError
    from git_credential_bbjwt.core.patterns import Pattern
    from git_credential_bbjwt.core.repository import Repository

#: The operations that git calls (gitcredentials(7), "CUSTOM HELPERS").
OPERATIONS = ("get", "store", "erase", "capability")

#: The scope that a clone needs ("Scopes" in Bitbucket's OAuth 2.0 documentation).
DEFAULT_SCOPE = "repository"

#: Seconds that one call may take, unless ``--timeout`` names another number.
DEFAULT_TIMEOUT = 60.0


def check_allowed(allow: "tuple[Pattern, ...]", repository: "Repository") -> None:
    """Raise NotAllowedError if there are patterns and none allows ``repository``.

    No pattern allows a repository that is named by UUIDs, because its slugs are not known here.
    """
    if allow and not any(pattern.allows(repository) for pattern in allow):
        from git_credential_bbjwt.core.failures import NotAllowedError

        raise NotAllowedError(
            f"--allow does not name {repository.full_name}: no token for it",
            "if this machine may read it, add --allow WORKSPACE/SLUG to the credential.helper line",
        )


class HelperOptions:
    """The options of a helper line, read and checked.

    ``timeout`` is in seconds. ``app`` is the app key, or empty for any. ``broker`` and ``installation_command`` are
    asked about ``hosts`` only, by default Bitbucket Cloud's. If ``allow`` has patterns, there are tokens only for the
    repositories that they match. ``given`` has the names of the options that were given.
    """

    __slots__ = (
        "allow",
        "app",
        "broker",
        "given",
        "hosts",
        "id_token_command",
        "id_token_file",
        "installation",
        "installation_command",
        "scope",
        "timeout",
        "token_store",
        "verbose",
    )

    def __init__(self) -> None:
        self.scope = DEFAULT_SCOPE
        self.app = ""
        self.allow: tuple[Pattern, ...] = ()
        self.broker: str | None = None
        self.given: tuple[str, ...] = ()
        self.hosts: tuple[str, ...] = ()
        self.id_token_command: str | None = None
        self.id_token_file: str | None = None
        self.installation: str | None = None
        self.installation_command: str | None = None
        self.token_store = "runtime"
        self.timeout = DEFAULT_TIMEOUT
        self.verbose = False

    def replaced(self, **changes: object) -> "HelperOptions":
        """Return a copy with ``changes``."""
        other = HelperOptions()
        for name in self.__slots__:
            setattr(other, name, changes.get(name, getattr(self, name)))
        return other

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.broker is not None and "--scope" in self.given:
            raise usage_error(
                "--scope cannot be used with --broker, which chooses the scope itself", "leave out --scope"
            )

    def check_id_token(self) -> None:
        """Raise UsageError for an ID token without an https broker. Call this when the broker is known."""
        names = [name for name in self.given if name.startswith("--id-token-")]
        if names and not (self.broker or "").startswith("https:"):
            raise usage_error(f"{names[0]} is for an https broker only", "write for example --broker https://HOST")


def usage_error(what: str, hint: str) -> "UsageError":
    """Return the error. Its module is loaded only here, because a cached answer needs no errors."""
    from git_credential_bbjwt.core.failures import UsageError

    return UsageError(what, hint)
