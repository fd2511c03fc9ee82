"""A token for git from any vendor, and its conversion to a record of the cache and back."""

from typing import NamedTuple

from git_credential_bbjwt.core.protocol import USERNAME, fingerprint_of
from git_credential_bbjwt.core.record import WORKSPACE, Record
from git_credential_bbjwt.core.repository import Repository


class Token(NamedTuple):
    """The token of a vendor for git, with its end and its reach. In the cache it is a `Record`.

    ``value`` is git's password, and ``identity`` is the vendor's. ``expires`` is the Unix time of its end, None if that
    is not known. ``minted`` is the Unix time at which it was requested. ``uuid`` is the UUID of the one repository that
    it opens, None if it came from a broker or ``opens_workspace``. ``granted`` names the scopes of a token that opens a
    workspace, which were compared with ``requested_scope``.
    """

    value: str
    identity: str
    expires: int | None
    minted: int
    uuid: str | None = None
    username: str = USERNAME
    opens_workspace: bool = False
    granted: str = ""
    requested_scope: str = ""
    #: Whether it comes from the token cache. Git gets such a token with a ``state[]`` to refuse it by.
    is_cached: bool = False
    #: Whether the token cache may keep it.
    may_be_kept: bool = True

    def __repr__(self) -> str:
        """Return a text without the token."""
        return f"Token(identity={self.identity!r}, expires={self.expires})"

    @property
    def fingerprint(self) -> str:
        """The token's fingerprint in ``state[]``."""
        return fingerprint_of(self.value.encode())


def record_of(token: Token, repository: Repository, scope: str, app: str, *, stamp: str) -> Record:
    """Return the record of ``token``, whose end must be known."""
    assert token.expires is not None
    record = Record()
    record.host, record.workspace, record.name = repository.host, repository.workspace, repository.name
    record.scope, record.app, record.stamp, record.identity = scope, app, stamp, token.identity
    record.uuid, record.username, record.token = token.uuid or "", token.username, token.value
    record.opens, record.granted = WORKSPACE if token.opens_workspace else "", token.granted
    record.requested_scope = token.requested_scope
    record.fingerprint = token.fingerprint
    record.minted, record.expires = token.minted, token.expires
    return record


def cached_token(record: Record) -> Token:
    """Return the token of a record, marked as cached."""
    return Token(
        record.token,
        expires=record.expires,
        minted=record.minted,
        uuid=record.uuid or None,
        username=record.username,
        opens_workspace=record.opens_workspace,
        granted=record.granted,
        requested_scope=record.requested_scope,
        identity=record.identity,
        is_cached=True,
    )
