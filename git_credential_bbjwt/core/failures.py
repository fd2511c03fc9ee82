"""The errors of this program: one family, each with a sentence on what failed and a hint for the next step.

`entry` prints them. This module is imported only when something fails, because making twenty classes takes longer than
a cached answer may.
"""

# Hints of several errors.
WHOLE_PAYLOAD = "use the whole payload of the app's `installed` callback, unchanged"
NEWEST_PAYLOAD = "register the app's newest `installed` payload: git-credential-bbjwt register FILE"
NEW_JWT = "get a new JWT on the machine with the secret: git-credential-bbjwt jwt WORKSPACE"
OWN_HOME = "set HOME to your own folder (sudo -H sets it)"
HEADLESS_HINT = (
    "without a keyring, inject the installation as a file or as BBJWT_INSTALLATION, configure another keyring backend, "
    "or register with --insecure-storage"
)


class CredentialError(Exception):
    """An error that is shown to the user.

    ``what`` says in one sentence what failed. ``hint`` is the next step, by default the class's ``usual_hint``. Neither
    may contain a secret. ``exit_status`` is the program's.
    """

    exit_status = 1
    usual_hint = ""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint or self.usual_hint


class UsageError(CredentialError):
    """The command line itself is wrong. The hint is an imperative, with the words to write."""

    exit_status = 2

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)


class MalformedRequestError(CredentialError):
    """The credential request does not follow git's format (git-credential(1), "INPUT/OUTPUT FORMAT")."""


class NotARepositoryError(CredentialError):
    """The path of a request or URL cannot be the path of a Bitbucket repository."""


class NotAllowedError(CredentialError):
    """The user's own settings (``--allow``) do not allow a token for this repository."""


class InstallationError(CredentialError):
    """An installation is missing, broken or ambiguous."""

    usual_hint = WHOLE_PAYLOAD


class AnothersWorkspaceError(CredentialError):
    """The repository is in another workspace than the installation's."""


class UndecidedError(CredentialError):
    """The helper cannot decide now whether this installation is for the repository, so git should ask other helpers."""


class SecretError(CredentialError):
    """The shared secret is not available: there is no keyring, it is locked, or it does not have the secret."""


class ConnectionFailedError(CredentialError):
    """There was no complete HTTP response: DNS, TCP, TLS, a proxy, or a broken response."""


class BrokerError(CredentialError):
    """The broker refuses a token, fails, or returns a bad answer."""


class RefusedError(CredentialError):
    """Bitbucket refused a request.

    ``status`` is the HTTP status. ``is_about_repository``: only the requested repository does not exist or is closed to
    the app. ``is_used_up``: the hour's allowance is used up. ``is_of_swap``: the request was the swap and not the
    look-up. ``is_unknown_grant``: the token endpoint does not know the grant. ``is_remembered``: an earlier call was
    refused. ``installation`` is the key under which a refusal of all of an installation's requests is remembered.
    """

    installation = ""
    is_remembered = False

    def __init__(
        self,
        what: str,
        hint: str = "",
        *,
        status: int,
        is_about_repository: bool = False,
        is_used_up: bool = False,
        is_of_swap: bool = False,
        is_unknown_grant: bool = False,
    ) -> None:
        super().__init__(what, hint)
        self.status = status
        self.is_about_repository = is_about_repository
        self.is_used_up = is_used_up
        self.is_of_swap = is_of_swap
        self.is_unknown_grant = is_unknown_grant


class WholeWorkspaceError(CredentialError):
    """A broker has only a token that opens the whole workspace, and its operator did not allow that."""

    usual_hint = "start the broker with --whole-workspace, if every client may read every repository of the workspace"

    def __init__(self) -> None:
        super().__init__("the token would open the whole workspace, which this broker does not hand out")


class TooManyRefusedError(CredentialError):
    """The server keeps refusing new tokens. The next token can be requested in ``seconds``."""

    def __init__(self, what: str, hint: str, seconds: int) -> None:
        super().__init__(what, hint)
        self.seconds = seconds


class BadAnswerError(CredentialError):
    """Bitbucket's response reports success, but it is not acceptable."""


class BroaderScopeError(BadAnswerError):
    """The token of an OAuth consumer is broader than the requested scope."""


class BudgetSpentError(CredentialError):
    """The time for the whole call (``--timeout``) is over, or is too short for the next step."""
