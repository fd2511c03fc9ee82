"""What every vendor of tokens has in common."""

from typing import Protocol

from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.tokens.token import Token

__all__ = ["Token", "Vendor"]


class Vendor(Protocol):
    """Gives tokens for repositories: Bitbucket for an installation, a command, or a broker."""

    #: A digest that is the same only for the same vendor with the same secret.
    identity: str

    #: Whether its tokens open the whole workspace, whichever repository was asked for.
    opens_workspace: bool

    def token(self, repository: Repository, scope: str, refused: list[str]) -> Token | None:
        """Return a token for ``repository``; None if the repository is not this vendor's.

        ``refused`` are fingerprints of tokens that the server refused, the newest last. Raises CredentialError.
        """
