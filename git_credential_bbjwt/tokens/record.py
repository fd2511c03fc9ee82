"""One cached token, and when it may be used again."""

import time

from git_credential_bbjwt.core.repository import Repository

#: A token is used again only with this many seconds left: a clone that starts with it must be able to end with it. The
#: README and the man page tell it in words.
MIN_REMAINING = 300

# A record from the future was written while the clock was wrong: its expiry means nothing. A few seconds are a clock
# being slewed.
_CLOCK_SLACK = 30

#: Begins the ``identity`` of a record whose token a broker gave.
BROKERED = "broker-"

_FORMAT = "bbjwt-token-record 4"
_END = "end"


class Record:
    """One minted token and all that must be the same for using it again.

    ``minted`` and ``expires`` are Unix times. ``stamp`` is that of all installation sources when it was minted,
    ``identity`` a digest of who gave it. ``fingerprint`` is what the token is recognised by; ``store`` names the
    token store it is kept in; ``token`` is None where that is not this record. ``username`` goes with it.
    """

    __slots__ = (
        "app",
        "expires",
        "fingerprint",
        "host",
        "identity",
        "minted",
        "name",
        "scope",
        "stamp",
        "store",
        "token",
        "username",
        "uuid",
        "workspace",
    )

    def __init__(
        self,
        repository: Repository,
        scope: str,
        app: str,
        *,
        stamp: str,
        identity: str,
        uuid: str,
        fingerprint: str,
        minted: int,
        expires: int,
        store: str,
        username: str,
        token: str | None,
    ) -> None:
        self.host = repository.host
        self.workspace = repository.workspace
        self.name = repository.name
        self.scope = scope
        self.app = app
        self.stamp = stamp
        self.identity = identity
        self.uuid = uuid
        self.fingerprint = fingerprint
        self.minted = minted
        self.expires = expires
        self.store = store
        self.username = username
        self.token = token

    def may_answer(
        self, token_store: str, refused: list[str], *, stamp: str = "", identities: tuple[str, ...] = ()
    ) -> bool:
        """Whether the token may be handed out again.

        It is of one who is still asked: the ``stamp`` of the sources is the same, or who gave it is one of the
        ``identities``. It is kept where ``--token-store`` says, its fingerprint is none of the ``refused`` ones, and
        enough of its life is left, by a clock that has not been set back since.
        """
        still_asked = self.stamp == stamp != "" or self.identity in identities
        return still_asked and self.store == token_store and self.fingerprint not in refused and self.may_be_in_time()

    def may_be_in_time(self) -> bool:
        """Whether enough of its life is left, by a clock that has not been set back since."""
        return self.minted - _CLOCK_SLACK <= time.time() <= self.expires - MIN_REMAINING

    @property
    def is_brokered(self) -> bool:
        """Whether a broker gave it."""
        return self.identity.startswith(BROKERED)

    @property
    def repository(self) -> Repository:
        """The repository the token is for."""
        return Repository(self.host, self.workspace, self.name)

    def to_bytes(self) -> bytes:
        """The record as its file holds it."""
        lines = [_FORMAT]
        lines += [f"{field}={getattr(self, field)}" for field in _TEXT_FIELDS]
        lines += [f"minted={self.minted}", f"expires={self.expires}"]
        if self.token is not None:
            lines.append(f"token={self.token}")
        lines += [_END, ""]
        return "\n".join(lines).encode("ascii")


_TEXT_FIELDS = (
    "host",
    "workspace",
    "name",
    "scope",
    "app",
    "stamp",
    "identity",
    "uuid",
    "fingerprint",
    "store",
    "username",
)


def parse_record(data: bytes) -> Record | None:
    """Return the record, or None for anything that is not a whole one."""
    try:
        lines = data.decode("ascii").split("\n")
        if lines[0] != _FORMAT or lines[-2:] != [_END, ""]:
            return None
        fields = dict(line.split("=", 1) for line in lines[1:-2])
        text = [fields[field] for field in _TEXT_FIELDS]
        token = fields.get("token")
        if token is not None and (not token.isprintable() or " " in token or not token):
            return None
        return Record(
            Repository(text[0], text[1], text[2]),
            text[3],
            text[4],
            stamp=text[5],
            identity=text[6],
            uuid=text[7],
            fingerprint=text[8],
            store=text[9],
            username=text[10],
            minted=int(fields["minted"]),
            expires=int(fields["expires"]),
            token=token,
        )
    except (ValueError, KeyError, IndexError):
        return None


def fingerprint_of(token: bytes) -> str:
    """What a token is recognised by, here and in ``state[]``: the first characters of its hexadecimal SHA-256."""
    from hashlib import sha256  # Loads OpenSSL; an answer from the cache needs no digest.

    from git_credential_bbjwt.git.protocol import FINGERPRINT_LENGTH

    return sha256(token).hexdigest()[:FINGERPRINT_LENGTH]
