"""The one family of errors: each says what happened and what to do next, and `entry` turns it into lines.

Those of who needs a token are in `failures`: an answer from the cache does without them.
"""


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
