"""The interface of all vendors of tokens."""

from typing import Protocol, runtime_checkable

from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.tokens.token import Token


@runtime_checkable
class Vendor(Protocol):
    """A vendor of tokens: Bitbucket for an installation, or a broker."""

    #: A digest that is the same only for the same vendor with the same secret.
    identity: str

    #: Whether its tokens open the whole workspace, whichever repository was requested.
    opens_workspace: bool

    def token(self, repository: Repository, scope: str, refused: list[str]) -> Token | None:
        """Return a token for ``repository``; None if this vendor does not serve the repository.

        ``refused`` are fingerprints of tokens that the server refused, the newest last. Raises CredentialError.
        """


@runtime_checkable
class Chooser(Protocol):
    """An installation command, whose vendors are known only after it has run for a repository."""

    #: As of a vendor. It does not depend on the vendors that the command returns.
    identity: str

    def vendors(self, repository: Repository) -> list[Vendor]:
        """Return the vendors for ``repository``; none if this source does not serve it. Raises CredentialError."""
