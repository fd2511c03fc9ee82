"""The folders that hold the token cache, and the record of one repository in them."""

from git_credential_bbjwt.core.output import trace, warning
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.system.folder import OwnFolder, file_name
from git_credential_bbjwt.system.ownership import is_private
from git_credential_bbjwt.system.places import APP_NAME, user_cache_folder, user_runtime_base
from git_credential_bbjwt.tokens.record import Record, parse_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    _Folder = TypeVar("_Folder", bound=OwnFolder)


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
    runtime = user_runtime_base()
    if runtime is not None and is_private(runtime):
        yield runtime + "/" + APP_NAME
    cache = user_cache_folder()
    if cache is not None:
        yield cache
