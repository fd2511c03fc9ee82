"""One cached token, and when it may be used again."""

import time

from git_credential_bbjwt.core.repository import Repository

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.tokens.token import Token

#: A cached token is used only with this many seconds left: a clone that starts with it must be able to end with it.
MIN_REMAINING = 300

# A record from the future was written while the clock was wrong, so its end means nothing. A clock that is being slewed
# may be 30 s off.
_CLOCK_SLACK = 30

#: Begins the ``identity`` of a record whose token a broker gave.
BROKERED = "broker-"

_FORMAT = "bbjwt-token-record 5"
_END = "end"

_TEXT_FIELDS = (
    "host",
    "workspace",
    "name",
    "scope",
    "app",
    "stamp",
    "identity",
    "uuid",
    "opens",
    "granted",
    "asked",
    "fingerprint",
    "username",
    "token",
)

_WORKSPACE = "workspace"


class Record:
    """One cached token and all that must be the same for using it again.

    ``host``, ``workspace``, ``name``, ``scope`` and ``app`` are those of its slot (`tokens.slot`). ``minted`` and
    ``expires`` are Unix times. ``stamp`` is that of all sources of installations at the time of the mint, ``identity``
    a digest of the vendor. ``fingerprint`` identifies the token in ``state[]``. ``opens`` is ``workspace`` for
    a token that opens more than one repository; ``granted`` then names its scopes, and ``asked`` those that a call
    requested and found it no broader than.
    """

    __slots__ = (*_TEXT_FIELDS, "expires", "minted")

    host: str
    workspace: str
    name: str
    scope: str
    app: str
    stamp: str
    identity: str
    uuid: str
    opens: str
    granted: str
    asked: str
    fingerprint: str
    username: str
    token: str
    minted: int
    expires: int

    @classmethod
    def of(cls, token: "Token", repository: Repository, scope: str, app: str, *, stamp: str, identity: str) -> "Record":
        """Return the record of ``token``, whose end must be known."""
        assert token.expires is not None
        self = cls()
        self.host, self.workspace, self.name = repository.host, repository.workspace, repository.name
        self.scope, self.app, self.stamp, self.identity = scope, app, stamp, identity
        self.uuid, self.username, self.token = token.uuid or "", token.username, token.value
        self.opens, self.granted = _WORKSPACE if token.opens_workspace else "", token.granted
        self.asked = token.asked
        self.fingerprint = fingerprint_of(token.value.encode())
        self.minted, self.expires = token.minted, token.expires
        return self

    def may_answer(self, refused: list[str], *, stamp: str = "", identities: tuple[str, ...] = ()) -> bool:
        """Return whether the token may be handed out again.

        Whoever gave it must still be asked: the ``stamp`` of the sources is the same, or the giver is one of the
        ``identities``. It must not be one of the ``refused`` fingerprints, and it must be in time.
        """
        still_asked = self.stamp == stamp != "" or self.identity in identities
        return still_asked and self.fingerprint not in refused and self.is_in_time()

    def is_in_time(self) -> bool:
        """Return whether enough of its life is left, by a clock that has not been set back since the mint."""
        return self.minted - _CLOCK_SLACK <= time.time() <= self.expires - MIN_REMAINING

    @property
    def end(self) -> str:
        """The time of its end in words."""
        return time.strftime("%H:%M:%S UTC", time.gmtime(self.expires))

    @property
    def is_brokered(self) -> bool:
        """Return whether a broker gave it."""
        return self.identity.startswith(BROKERED)

    @property
    def opens_workspace(self) -> bool:
        """Return whether the token opens more than one repository."""
        return self.opens == _WORKSPACE

    @property
    def repository(self) -> Repository:
        """The repository that the token was requested for; its name is empty if one token serves the workspace."""
        return Repository(self.host, self.workspace, self.name)

    def to_token(self) -> "Token":
        """Return the token, marked as cached."""
        from git_credential_bbjwt.tokens.token import Token

        return Token(
            self.token,
            expires=self.expires,
            minted=self.minted,
            uuid=self.uuid or None,
            username=self.username,
            opens_workspace=self.opens_workspace,
            granted=self.granted,
            asked=self.asked,
            is_cached=True,
        )

    def to_bytes(self) -> bytes:
        """Return the content of the record's file."""
        lines = [_FORMAT]
        lines += [f"{field}={getattr(self, field)}" for field in _TEXT_FIELDS]
        lines += [f"minted={self.minted}", f"expires={self.expires}", _END, ""]
        return "\n".join(lines).encode("ascii")


def parse_record(data: bytes) -> Record | None:
    """Return the record, or None for anything that is not a whole one."""
    try:
        lines = data.decode("ascii").split("\n")
        if lines[0] != _FORMAT or lines[-2:] != [_END, ""]:
            return None
        fields = dict(line.split("=", 1) for line in lines[1:-2])
        record = Record()
        for field in _TEXT_FIELDS:
            setattr(record, field, fields[field])
        record.minted, record.expires = int(fields["minted"]), int(fields["expires"])
    except (ValueError, KeyError, IndexError):
        return None
    token = record.token
    return record if token and token.isprintable() and " " not in token else None


def fingerprint_of(token: bytes) -> str:
    """Return what identifies a token, here and in ``state[]``: the first digits of its hexadecimal SHA-256."""
    from hashlib import sha256  # Loads OpenSSL; an answer from the cache needs no digest.

    from git_credential_bbjwt.git.protocol import FINGERPRINT_LENGTH

    return sha256(token).hexdigest()[:FINGERPRINT_LENGTH]
