"""A token for git from any vendor, and its conversion to a record of the cache and back."""

from git_credential_bbjwt.core.protocol import FINGERPRINT_LENGTH, USERNAME
from git_credential_bbjwt.core.record import WORKSPACE, Record
from git_credential_bbjwt.core.repository import Repository


class Token:
    """An access token with its end and its reach.

    ``value`` is git's password, and ``identity`` is the vendor's. ``expires`` is the Unix time of its end, None if that
    is not known. ``minted`` is the Unix time at which it was requested. ``uuid`` is the UUID of the one repository that
    it opens, None if it came from a broker or ``opens_workspace``. ``granted`` names the scopes of a token that opens a
    workspace, and ``asked`` the requested scope that they were compared with.
    """

    __slots__ = (
        "asked",
        "expires",
        "granted",
        "identity",
        "is_cached",
        "may_be_kept",
        "minted",
        "opens_workspace",
        "username",
        "uuid",
        "value",
    )

    def __init__(
        self,
        value: str,
        *,
        identity: str,
        expires: int | None,
        minted: int,
        uuid: str | None = None,
        username: str = USERNAME,
        opens_workspace: bool = False,
        granted: str = "",
        asked: str = "",
        is_cached: bool = False,
        may_be_kept: bool = True,
    ) -> None:
        self.value = value
        self.expires = expires
        self.minted = minted
        self.uuid = uuid
        self.username = username
        self.opens_workspace = opens_workspace
        self.granted = granted
        self.asked = asked
        self.identity = identity
        #: Whether it comes from the token cache. Git gets such a token with a ``state[]``, by which git can refuse it.
        self.is_cached = is_cached
        #: Whether the token cache may keep it.
        self.may_be_kept = may_be_kept


def fingerprint_of(token: bytes) -> str:
    """Return the fingerprint of a token, as in ``state[]``: the first digits of its hexadecimal SHA-256."""
    from hashlib import sha256  # Loads OpenSSL, which an `erase` of another helper's password does not need.

    return sha256(token).hexdigest()[:FINGERPRINT_LENGTH]


def record_of(token: Token, repository: Repository, scope: str, app: str, *, stamp: str) -> Record:
    """Return the record of ``token``, whose end must be known."""
    assert token.expires is not None
    record = Record()
    record.host, record.workspace, record.name = repository.host, repository.workspace, repository.name
    record.scope, record.app, record.stamp, record.identity = scope, app, stamp, token.identity
    record.uuid, record.username, record.token = token.uuid or "", token.username, token.value
    record.opens, record.granted = WORKSPACE if token.opens_workspace else "", token.granted
    record.asked = token.asked
    record.fingerprint = fingerprint_of(token.value.encode())
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
        asked=record.asked,
        identity=record.identity,
        is_cached=True,
    )
