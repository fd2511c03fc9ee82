"""Kept tokens: one record a repository (and scope, and app), when one may answer again, and the folder they are in.

The folder holds one for each 61st part of the workspaces, and each of those one for each 61st part of their
repositories: so a workspace's records are found, and used up ones removed, by looking at a small part of them.
"""

import time

from git_credential_bbjwt import Repository, trace, warning
from git_credential_bbjwt.system import (
    APP_NAME,
    OwnFolder,
    exec_folder,
    file_name,
    is_private,
    user_cache_folder,
    user_runtime_base,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    _Folder = TypeVar("_Folder", bound=OwnFolder)

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

    from git_credential_bbjwt.git import FINGERPRINT_LENGTH

    return sha256(token).hexdigest()[:FINGERPRINT_LENGTH]


# A prime, so that all bytes of a name count.
_PARTS = 61


def part_of(text: str) -> str:
    """The part of the folder that ``text`` belongs in."""
    return f"{int.from_bytes(text.encode('utf-8', 'surrogateescape'), 'big') % _PARTS:02x}"


class Records:
    """The records in a folder, to be found; `cache` has what it takes to keep and to drop them.

    Without a folder nothing is found, nothing is kept, and tokens are minted each time.
    """

    def __init__(self, folder: OwnFolder | None) -> None:
        self.folder = folder

    @staticmethod
    def name(repository: Repository, scope: str, app: str) -> str:
        """The name of the record's file, and with an ending of those beside it."""
        host, workspace, name = repository.host, repository.workspace, repository.name
        folder = f"{part_of(f'{host}/{workspace}')}/{part_of(f'{name}/{scope}/{app}')}"
        return f"{folder}/{file_name(host, workspace, name, scope, app)}"

    def find(self, repository: Repository, scope: str, app: str) -> Record | None:
        """Return the record of exactly this repository, scope and app, whatever its age; None where there is none."""
        if self.folder is None:
            return None
        data = self.folder.read(self.name(repository, scope, app))
        record = parse_record(data) if data else None
        if record is None or (record.host, record.workspace, record.name, record.scope, record.app) != (
            repository.host,
            repository.workspace,
            repository.name,
            scope,
            app,
        ):
            return None
        return record


def kept() -> Records:
    """The records of this user."""
    return Records(next(usable_folders(OwnFolder), None))


def usable_folders(open_folder: "Callable[[str], _Folder]", *, made: bool = False) -> "Iterator[_Folder]":
    """The folders that records may be in, as ``open_folder`` opens them; the first is the one that is used.

    That is the user's runtime folder where that is private to the user, else platformdirs' user cache folder. Unless
    ``open_folder`` has ``made`` it, there may be none yet.
    """
    for path in _candidates():
        try:
            folder = open_folder(path)
        except OSError as problem:
            if isinstance(problem, PermissionError) and problem.filename == path:
                warning(f"the folder {path} is not used, and tokens are not kept there: {problem.strerror}")
            elif made or not isinstance(problem, FileNotFoundError):
                trace(f"no token cache in {path}: {problem.strerror}")
            continue
        yield folder


def _candidates() -> "Iterator[str]":
    for_this_run = exec_folder()
    if for_this_run is not None:
        yield for_this_run
        return
    runtime = user_runtime_base()
    if runtime is not None and is_private(runtime):
        yield runtime + "/" + APP_NAME
    cache = user_cache_folder()
    if cache is not None:
        yield cache
