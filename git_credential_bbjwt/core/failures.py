"""What can go wrong: one family of errors, each of which says what happened and what to do next.

`entry` turns them into lines. They have a room of their own, loaded when something does go wrong, for making twenty
classes would hold up every answer from the cache.
"""

# Hints that several errors have.
WHOLE_PAYLOAD = "use the whole payload of the app's `installed` callback, unchanged"
NEWEST_PAYLOAD = "register the app's newest `installed` payload: git-credential-bbjwt register FILE"
OWN_HOME = "set HOME to your own folder (sudo -H sets it)"
HEADLESS_HINT = (
    "where there is no keyring, inject the installation as a file or as BBJWT_INSTALLATION, configure another keyring "
    "backend, or register with --insecure-storage"
)


class CredentialError(Exception):
    """Something a person has to know.

    ``what`` is one sentence on what happened, ``hint`` the next thing to do, by default the class's ``usual_hint``.
    Neither may hold a secret.
    """

    exit_status = 1
    usual_hint = ""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint or self.usual_hint


class UsageError(CredentialError):
    """The command line itself is wrong."""

    exit_status = 2


class MalformedRequestError(CredentialError):
    """The credential request does not follow git's format (git-credential(1), "INPUT/OUTPUT FORMAT")."""


class NotARepositoryError(CredentialError):
    """The path of a request or URL cannot be the path of a Bitbucket repository."""


class NotAllowedError(CredentialError):
    """The user's own settings allow no token for this repository (``--allow``)."""


class CannotRunError(CredentialError):
    """The command that `exec` was given cannot be run. ``exit_status`` is what a shell would end with."""

    def __init__(self, what: str, hint: str, exit_status: int) -> None:
        super().__init__(what, hint)
        self.exit_status = exit_status


class InstallationError(CredentialError):
    """An installation is missing, broken or ambiguous."""

    usual_hint = WHOLE_PAYLOAD


class AnothersWorkspaceError(CredentialError):
    """The repository is in another workspace than the one the installation is for."""


class UndecidedError(CredentialError):
    """Whether the repository is of this installation cannot be told now, so other helpers are to be asked."""


class SecretError(CredentialError):
    """The shared secret cannot be had: no keyring, a locked one, or nothing stored there."""


class ConnectionFailedError(CredentialError):
    """No complete HTTP answer came back: DNS, TCP, TLS, proxy, or a broken answer."""


class BrokerError(CredentialError):
    """The broker gives no token, fails, or answers with something no token may be taken from."""


class UnkeptError(CredentialError):
    """A broker's token cannot be kept in its folder, so it is not handed out: nothing would bound the client."""

    usual_hint = "see that the broker's folder has room, and that its user may write there"


class AuditError(CredentialError):
    """A broker's audit cannot be written, so there is no token."""

    usual_hint = "whoever runs the broker has to mend this: the path that --audit names, its mode, the room on its disk"


class InstallationCommandError(CredentialError):
    """An installation command failed, or printed something that is not one payload."""


class RefusedError(CredentialError):
    """Bitbucket answered, and the answer is no.

    ``status`` is the HTTP status; ``server_time`` the Unix time of the answer's ``Date`` header, if it had one.
    ``is_about_repository`` tells that only the repository asked for is not there or may not be seen; ``is_used_up``
    that an allowance is, for an hour. ``is_of_swap`` tells which of a mint's two requests it was, ``is_unknown_grant``
    that the token endpoint does not know the grant, ``is_remembered`` that an earlier call met it. The key in
    ``installation`` is what a refusal of all of an installation's requests is remembered under.
    """

    installation = ""
    is_of_swap = False
    is_unknown_grant = False
    is_remembered = False

    def __init__(
        self,
        what: str,
        hint: str = "",
        *,
        status: int,
        server_time: float | None = None,
        is_about_repository: bool = False,
        is_used_up: bool = False,
    ) -> None:
        super().__init__(what, hint)
        self.is_used_up = is_used_up
        self.status = status
        self.server_time = server_time
        self.is_about_repository = is_about_repository


class WholeWorkspaceError(CredentialError):
    """A broker has only a token that opens the whole workspace, and its operator did not allow that."""

    usual_hint = "start the broker with --whole-workspace, if every client may read every repository of the workspace"

    def __init__(self) -> None:
        super().__init__("the token would open the whole workspace, which this broker does not hand out")


class TooManyRefusedError(CredentialError):
    """The server goes on refusing tokens that were just minted."""


class BadAnswerError(CredentialError):
    """Bitbucket answered with success, but with something no token may be taken from."""


class BroaderScopeError(BadAnswerError):
    """The token of an OAuth consumer is broader than the requested scope."""


class BudgetSpentError(CredentialError):
    """The time for the whole call (``--timeout``) is over, or would be before the next step could end."""
