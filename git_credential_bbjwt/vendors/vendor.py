"""The interface of all vendors of tokens."""

from typing import Protocol, runtime_checkable

from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.tokens.token import Token


@runtime_checkable
class Vendor(Protocol):
    """Gives tokens for repositories: Bitbucket for an installation, or a broker."""

    #: A digest that is the same only for the same vendor with the same secret.
    identity: str

    #: Whether its tokens open the whole workspace, whichever repository was asked for.
    opens_workspace: bool

    def token(self, repository: Repository, scope: str, refused: list[str]) -> Token | None:
        """Return a token for ``repository``; None if the repository is not this vendor's.

        ``refused`` are fingerprints of tokens that the server refused, the newest last. Raises CredentialError.
        """


@runtime_checkable
class Chooser(Protocol):
    """Stands for vendors that are known only when it is asked about a repository: an installation command."""

    #: As that of a vendor, whatever it chooses.
    identity: str

    def vendors(self, repository: Repository) -> list[Vendor]:
        """Return the vendors for ``repository``, none if it is not this one's. Raises CredentialError."""
