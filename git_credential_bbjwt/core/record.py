"""Cached tokens: their records, their folders, and the rule for using them again.

On Linux, tokens are only in memory: in the user's runtime folder, or if there is none, in ``/dev/shm``. The containers
of a Kubernetes pod share ``/dev/shm``, so a token that opens a whole workspace is not kept there.
"""

import os
import sys
import time

from git_credential_bbjwt.core.files import (
    APP_NAME,
    OwnFolder,
    home_is_anothers,
    is_private,
    user_cache_folder,
    user_runtime_base,
)
from git_credential_bbjwt.core.protocol import is_visible_ascii
from git_credential_bbjwt.core.repository import Repository

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    _Folder = TypeVar("_Folder", bound=OwnFolder)

#: Seconds that a cached token must have left, so that a clone that starts with it can finish with it.
MIN_REMAINING = 300

# Seconds. If a record's time is further in the future, the clock was wrong when it was written, so its end is wrong,
# too. A clock that is being adjusted may be 30 s off.
_CLOCK_SLACK = 30

#: Begins the ``identity`` of a record whose token came from a broker.
BROKERED = "broker-"

_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # `is_in_memory` and `OwnFolder` decide whether it may be used.

# The characters of a readable name. A host's colon and a scope's blank are replaced because of Windows. There are no
# capital letters, because some file systems do not distinguish them.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-{}[]: ,")

# Characters. File systems allow 255, and locks and new files add an ending.
_LONGEST_NAME = 200

# Number of subfolders: a prime, so that all bytes of a name matter.
_PARTS = 61

#: Ends the name of the note that the newest token of a slot was refused, too.
CLOSED = "~closed"

# The last part of the name of a broker's slot, so that a broker and a client of the same user do not share locks.
_BROKERS = "broker"

_FORMAT = "bbjwt-token-record 6"
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
    "requested_scope",
    "fingerprint",
    "username",
    "token",
)

#: The ``opens`` of a token that opens more than one repository.
WORKSPACE = "workspace"


class Record:
    """One cached token, and everything that must be unchanged before it is used again.

    ``host``, ``workspace``, ``name``, ``scope`` and ``app`` are those of its slot (`tokens.slot`). ``minted`` and
    ``expires`` are Unix times. ``stamp`` is that of all sources of installations at the time of the mint, ``identity``
    a digest of the vendor. ``fingerprint`` identifies the token in ``state[]``. ``opens`` is ``workspace`` for a token
    that opens more than one repository. ``granted`` then names the token's scopes, which were compared with
    ``requested_scope``.
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
    requested_scope: str
    fingerprint: str
    username: str
    token: str
    minted: int
    expires: int

    def may_answer(self, refused: list[str], *, stamp: str = "", identities: tuple[str, ...] = ()) -> bool:
        """Return whether the token may be returned again.

        Its vendor must still be in use: the ``stamp`` of the sources is the same, or the vendor is one of the
        ``identities``. Its fingerprint must not be in ``refused``, and it must have enough time left.
        """
        still_asked = self.stamp == stamp != "" or self.identity in identities
        return still_asked and self.fingerprint not in refused and self.is_in_time()

    def is_in_time(self) -> bool:
        """Return whether enough time is left, and the clock has not been set back since the mint."""
        return self.minted - _CLOCK_SLACK <= time.time() <= self.expires - MIN_REMAINING

    @property
    def end(self) -> str:
        """The time of its end, as messages show it."""
        return time.strftime("%H:%M:%S UTC", time.gmtime(self.expires))

    @property
    def is_brokered(self) -> bool:
        """Return whether the token came from a broker."""
        return self.identity.startswith(BROKERED)

    @property
    def opens_workspace(self) -> bool:
        """Return whether the token opens more than one repository."""
        return self.opens == WORKSPACE

    @property
    def repository(self) -> Repository:
        """The repository that the token was requested for; its name is empty if one token serves the workspace."""
        return Repository(self.host, self.workspace, self.name)

    def to_bytes(self) -> bytes:
        """Return the content of the record's file."""
        lines = [_FORMAT]
        lines += [f"{field}={getattr(self, field)}" for field in _TEXT_FIELDS]
        lines += [f"minted={self.minted}", f"expires={self.expires}", _END, ""]
        return "\n".join(lines).encode("ascii")


def parse_record(data: bytes) -> Record | None:
    """Return the record in ``data``; None if it is incomplete or has another format."""
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
    return record if is_visible_ascii(record.token) else None


def part_of(text: str) -> str:
    """Return the subfolder for ``text``, so that the helper never has to list a folder of 100,000 files."""
    return f"{int.from_bytes(text.encode('utf-8', 'surrogateescape'), 'big') % _PARTS:02x}"


def file_name(*parts: str) -> str:
    """Return a file name that is different for each list of two or more parts."""
    name = ",".join(parts)
    if len(name) <= _LONGEST_NAME and _PLAIN.issuperset(name) and name.count(",") == len(parts) - 1:
        return name.replace(":", "=").replace(" ", "+")

    from git_credential_bbjwt.core.digest import digest

    return digest(*parts)


def slot_name(repository: Repository, scope: str, app: str, *, is_brokers: bool = False) -> str:
    """Return the file name of a slot's record, below the cache's folder."""
    host, workspace, name = repository.host, repository.workspace, repository.name
    folder = f"{part_of(f'{host}/{workspace}')}/{part_of(f'{name}/{scope}/{app}')}"
    parts = (host, workspace, name, scope, app)
    return f"{folder}/{file_name(*parts, _BROKERS) if is_brokers else file_name(*parts)}"


def read_record(folder: OwnFolder, name: str, repository: Repository, scope: str, app: str) -> Record | None:
    """Return the record in the file ``name``, whatever its age; None if it does not belong to exactly this slot."""
    data = folder.read(name)
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


def cached_record(repository: Repository, scope: str, app: str) -> Record | None:
    """Return this user's record for ``repository``, whatever its age; None if there is none.

    It may be the record of the workspace's token, unless the server has just refused that token for this repository.
    """
    folder = first_usable(token_paths(), OwnFolder)
    if folder is None:
        return None
    name = slot_name(repository, scope, app)
    record = read_record(folder, name, repository, scope, app)
    if record is not None:
        return record
    workspace = Repository(repository.host, repository.workspace, "")
    record = read_record(folder, slot_name(workspace, "", app), workspace, "", app)
    if record is None or record.requested_scope != scope or folder.read(name + CLOSED) is not None:
        return None
    return record


def token_paths(operators: str | None = None) -> "Iterator[str]":
    """Yield the folders that may have tokens; the first usable folder is used.

    ``operators`` is the folder that a broker's operator chose; if it is given, it is the only one.
    """
    if operators is not None:
        yield operators
        return
    runtime = user_runtime_base()
    if runtime is not None and is_private(runtime):
        yield runtime + "/" + APP_NAME
    if not sys.platform.startswith("linux"):
        cache = user_cache_folder()
        if cache is not None:
            yield cache
    elif not home_is_anothers() and is_in_memory(_SHARED_MEMORY):
        yield f"{_SHARED_MEMORY}/{APP_NAME}-{os.geteuid()}"


def is_shared_memory(path: str) -> bool:
    """Return whether ``path``, one of `token_paths`, is in ``/dev/shm``, which other containers may share."""
    return path.startswith(_SHARED_MEMORY + "/" + APP_NAME)


def is_in_memory(path: str) -> bool:
    """Return whether the folder ``path`` is on a tmpfs.

    The device number decides (proc_pid_mountinfo(5)) and not the path, because a later mount can cover a path.
    """
    if sys.platform == "win32":
        return False
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", "rb") as mounts:
            lines = mounts.read().splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    return any(line.split(b" ", 3)[2:3] == [number] and b" - tmpfs " in line for line in lines)


def first_usable(
    paths: "Iterator[str]", open_folder: "Callable[[str], _Folder]", *, create: bool = False
) -> "_Folder | None":
    """Return the first of ``paths`` that ``open_folder`` can open; None if it can open none."""
    return next(usable(paths, open_folder, create=create), None)


def usable(
    paths: "Iterator[str]", open_folder: "Callable[[str], _Folder]", *, create: bool = False
) -> "Iterator[_Folder]":
    """Yield each of ``paths`` that ``open_folder`` can open. ``create`` says that it makes missing folders."""
    for path in paths:
        try:
            yield open_folder(path)
        except OSError as problem:
            from git_credential_bbjwt.core.output import trace, warning

            if isinstance(problem, PermissionError) and problem.filename == path:
                warning(f"the folder {path} is not used, and tokens are not kept there: {problem.strerror}")
            elif create or not isinstance(problem, FileNotFoundError):
                trace(f"no token cache in {path}: {problem.strerror}")
