"""Remove files of the token cache: expired files, tokens to forget, or everything."""

import time
from collections.abc import Callable, Iterable, Iterator

from git_credential_bbjwt.core.record import Record, file_name, parse_record, part_of
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.system.private_folder import NOT_YET, PrivateFolder, remove_if_empty
from git_credential_bbjwt.tokens.cache import TokenCache, every_folder, try_to_remove
from git_credential_bbjwt.tokens.names import (
    BESIDE,
    CLOSED,
    ENDINGS,
    LOOKUPS,
    MINTING,
    MISSES,
    NAMED,
    OUTAGE_LIFE,
    REFUSALS,
    REFUSED,
    REMINTS,
    UUID,
)
from git_credential_bbjwt.tokens.slot import CLOSED_FOR, REMINTS_WITHIN, Slot
from git_credential_bbjwt.tokens.uuids import UUID_LIFE

# Seconds that `tidy` may take after an answer. Git has the answer then, but waits for the process to end.
_TIDYING = 0.0005

# Number of workspaces up to which `forget_workspaces` looks for each one's records.
_FEW = 20

# Seconds after which a file expires: a day, except for these endings.
_A_DAY = 86_400
_LIVES = {
    REMINTS: REMINTS_WITHIN,
    CLOSED: CLOSED_FOR,
    MINTING: 60,
    NAMED: 7200,
    REFUSED: _A_DAY,
    UUID: UUID_LIFE,
}

_ENDINGS = {(ending + more).removeprefix(BESIDE) for ending in ("", *ENDINGS) for more in ("", NOT_YET)}

_HEX = frozenset("0123456789abcdef")


def tidy(cache: TokenCache, *, everything: bool = False) -> None:
    """Remove expired files, so that the cache does not grow with every repository.

    A call checks only some files, from a random place on, so its cost does not grow with the cache, and each file is
    checked in some call. With ``everything``, for a full folder, it checks all files.
    """
    end = time.monotonic() + (3600.0 if everything else _TIDYING)
    for folder in cache.folders():
        _tidy_folder(folder, end)


def _tidy_folder(folder: PrivateFolder, end: float) -> None:
    _remove_ended(folder, ".")
    _remove_ended(folder, REFUSALS, OUTAGE_LIFE)
    for part in _from_anywhere(_parts(folder)):
        for leaf in _from_anywhere(_leaves(folder, part)):
            _remove_ended(folder, leaf)
            if time.monotonic() > end:
                return


def _remove_ended(folder: PrivateFolder, path: str, life: int = _A_DAY) -> None:
    for name in folder.names(path):
        if _is_the_helpers(name) and folder.age(f"{path}/{name}") > _life(name, life):
            try_to_remove(folder, f"{path}/{name}")


def _life(name: str, usual: int) -> int:
    """Return the seconds for which a file is needed. The time of a record's file is the token's end."""
    record, beside, ending = name.partition(BESIDE)
    return _LIVES.get(beside + ending, usual) if beside else 0 if "," in record else usual


def forget(concerns: Callable[[Record], bool]) -> int:
    """Drop the cached tokens that ``concerns`` accepts, from all folders; return their number."""
    dropped = 0
    for folder in every_folder():
        for path, record in _all_records(folder):
            if concerns(record):
                _drop(folder, path, record)
                dropped += 1
    return dropped


def forget_repository(repository: Repository) -> int:
    """Drop the cached tokens of one repository and of its whole workspace; return their number."""

    def concerns(record: Record) -> bool:
        if record.repository == repository:
            return True
        # A UUID's slug is not known here, so it may be any workspace.
        same = repository.workspace.startswith("{") or record.workspace == repository.workspace
        return record.opens_workspace and record.name == "" and record.host == repository.host and same

    return forget(concerns)


def workspace_records(cache: TokenCache, host: str) -> list[Record]:
    """Return the records of tokens that serve a whole workspace of ``host``."""
    records = [] if cache.tokens is None else [record for _, record in _all_records(cache.tokens)]
    return [record for record in records if record.host == host and record.name == ""]


def forget_workspaces(workspaces: Iterable[tuple[str, str]]) -> None:
    """Drop the cached tokens of workspaces (pairs of host and slug or UUID).

    The records of a few workspaces are found by their names. For many, it is faster to read all records once.
    """
    wanted = set(workspaces)
    if len(wanted) > _FEW:
        forget(lambda record: (record.host, record.workspace) in wanted)
        return
    for folder in every_folder():
        for host, workspace in wanted:
            for path, record in list(records_of(folder, host, workspace)):
                _drop(folder, path, record)


def forget_refusals() -> None:
    """Forget every remembered refusal."""
    for folder in every_folder():
        for name in folder.names(REFUSALS):
            folder.remove(f"{REFUSALS}/{name}")
        folder.remove_folder(REFUSALS)


def clear_all() -> None:
    """Remove every file with a name of the helper's, including broken records and leftovers of killed processes.

    Folders that are then empty are removed, too.
    """
    for folder in every_folder():
        parts = _parts(folder)
        for path in [".", REFUSALS, *(leaf for part in parts for leaf in _leaves(folder, part))]:
            for name in folder.names(path):
                if _is_the_helpers(name):
                    folder.remove(f"{path}/{name}")
            folder.remove_folder(path)
        for part in parts:
            folder.remove_folder(part)
        remove_if_empty(folder.path)


def _drop(folder: PrivateFolder, path: str, record: Record) -> None:
    slot = Slot(TokenCache(folder, folder, folder), record.repository, record.scope, record.app)
    slot.name = path  # The record may be in a broker's slot, which has another name.
    slot.forget(record)


def records_of(folder: PrivateFolder, host: str, workspace: str) -> Iterator[tuple[str, Record]]:
    """Yield the records of one workspace with the paths of their files.

    ``workspace`` is the name that was used in the requests: a slug or a UUID.
    """
    name = file_name(host, workspace, "")
    # A long workspace name is hashed, so the records' names do not begin with it.
    beginning = name if "," in name else ""
    for path, record in _records_in(folder, part_of(f"{host}/{workspace}"), beginning):
        if (record.host, record.workspace) == (host, workspace):
            yield path, record


def _all_records(folder: PrivateFolder) -> Iterator[tuple[str, Record]]:
    for part in _parts(folder):
        yield from _records_in(folder, part, "")


def _records_in(folder: PrivateFolder, part: str, beginning: str) -> Iterator[tuple[str, Record]]:
    for leaf in _leaves(folder, part):
        for name in folder.names(leaf):
            if BESIDE not in name and (name.startswith(beginning) or "," not in name):
                record = parse_record(folder.read(f"{leaf}/{name}") or b"")
                if record is not None:
                    yield f"{leaf}/{name}", record


def _parts(folder: PrivateFolder) -> list[str]:
    return [name for name in folder.names() if _is_part(name)]


def _leaves(folder: PrivateFolder, part: str) -> list[str]:
    return [f"{part}/{name}" for name in folder.names(part) if _is_part(name)]


def _from_anywhere(names: list[str]) -> list[str]:
    """Return ``names``, rotated to begin at a place that the clock chooses."""
    start = time.time_ns() // 1000 % len(names) if names else 0
    return names[start:] + names[:start]


def _is_part(name: str) -> bool:
    return len(name) == 2 and _HEX.issuperset(name)


def _is_the_helpers(name: str) -> bool:
    """Return whether a file has the name of a record, or of one of the other files of a slot."""
    record, beside, ending = name.partition(BESIDE)
    if record in (LOOKUPS, MISSES) and len(ending) == 2 and ending.isdigit():
        return True
    if beside and ending not in _ENDINGS:
        return False
    if record.count(",") == 4 or (record.count(",") == 5 and record.endswith(",broker")):
        return True
    return len(record) == 32 and _HEX.issuperset(record)
