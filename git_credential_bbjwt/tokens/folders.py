"""The folders that hold cached tokens, and the one record that a cached answer reads.

On Linux a token is in memory only: in the user's runtime folder, else in ``/dev/shm``. The containers of a Kubernetes
pod share ``/dev/shm``, so a token that opens a whole workspace is not kept there.
"""

import os
import sys

from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.system.folder import OwnFolder, file_name
from git_credential_bbjwt.system.ownership import is_private
from git_credential_bbjwt.system.places import APP_NAME, home_is_anothers, user_cache_folder, user_runtime_base
from git_credential_bbjwt.tokens.record import Record, parse_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    _Folder = TypeVar("_Folder", bound=OwnFolder)

_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # `is_in_memory` and `OwnFolder` decide whether it may be used.

# A prime, so that all bytes of a name matter.
_PARTS = 61

#: Ends the name of the note that the newest token of a slot was refused as well.
CLOSED = "~closed"

# The last part of the name of a broker's slot: a broker and an asker of one user do not wait for each other.
_BROKERS = "broker"


def part_of(text: str) -> str:
    """Return the subfolder that ``text`` belongs in: the helper never has to list a folder of 100,000 files."""
    return f"{int.from_bytes(text.encode('utf-8', 'surrogateescape'), 'big') % _PARTS:02x}"


def slot_name(repository: Repository, scope: str, app: str, *, is_brokers: bool = False) -> str:
    """Return the file name of a slot's record, below the cache's folder."""
    host, workspace, name = repository.host, repository.workspace, repository.name
    folder = f"{part_of(f'{host}/{workspace}')}/{part_of(f'{name}/{scope}/{app}')}"
    parts = (host, workspace, name, scope, app)
    return f"{folder}/{file_name(*parts, _BROKERS) if is_brokers else file_name(*parts)}"


def read_record(folder: OwnFolder, name: str, repository: Repository, scope: str, app: str) -> Record | None:
    """Return the record in the file ``name`` if it is of exactly this slot, whatever its age; else None."""
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

    It may be that of the workspace's token, unless the server has lately refused that token for this repository.
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
    if record is None or record.asked != scope or folder.read(name + CLOSED) is not None:
        return None
    return record


def token_paths(operators: str | None = None) -> "Iterator[str]":
    """Yield the folders that may hold tokens; the first that can be used is used.

    ``operators`` is the folder that a broker's operator gave it: then no other one is used.
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

    The device number decides (proc_pid_mountinfo(5)): a path says nothing, because a later mount can cover it.
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
    """Yield each of ``paths`` that ``open_folder`` can open. ``create`` tells that it makes what is missing."""
    for path in paths:
        try:
            yield open_folder(path)
        except OSError as problem:
            from git_credential_bbjwt.core.output import trace, warning

            if isinstance(problem, PermissionError) and problem.filename == path:
                warning(f"the folder {path} is not used, and tokens are not kept there: {problem.strerror}")
            elif create or not isinstance(problem, FileNotFoundError):
                trace(f"no token cache in {path}: {problem.strerror}")
