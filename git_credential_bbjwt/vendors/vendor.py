"""The interface of all vendors of tokens."""

from typing import NamedTuple, Protocol, runtime_checkable

from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.tokens.token import Token


class TokenRequest(NamedTuple):
    """The request for a token that vendors get. ``refused`` are fingerprints of tokens that the server refused."""

    repository: Repository
    scope: str
    #: The newest is the last.
    refused: list[str]


@runtime_checkable
class Vendor(Protocol):
    """A vendor of tokens: Bitbucket for an installation, or a broker."""

    #: A digest that is the same only for the same vendor with the same secret.
    identity: str

    #: Whether its tokens open the whole workspace, whichever repository was requested.
    opens_workspace: bool

    def token(self, request: TokenRequest) -> Token | None:
        """Return a token; None if this vendor does not serve the repository. Raises CredentialError."""


@runtime_checkable
class Chooser(Protocol):
    """An installation command, whose vendors are known only after it has run for a repository."""

    #: As of a vendor. It does not depend on the vendors that the command returns.
    identity: str

    def vendors(self, repository: Repository) -> list[Vendor]:
        """Return the vendors for ``repository``; none if this source does not serve it. Raises CredentialError."""
