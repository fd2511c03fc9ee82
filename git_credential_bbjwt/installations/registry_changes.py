"""The registry of installations, a folder, and how it is changed: one installation whole or not at all. No secrets.

An installation is one entry, a file named by a digest of its host and client key. What leads to it are small files
named by what a call knows: for each workspace, by its slug and by its UUID, one that lists its entries; for each host
one that is there. They are written before the entry and removed after it, so that a process killed in between leaves
an entry that is found or none, and at most a file that leads nowhere. No change looks at the whole folder.
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from git_credential_bbjwt.core.failures import OWN_HOME, InstallationError
from git_credential_bbjwt.installations.catalogue import (
    MOVED_VERSION,
    level_of,
    parse_old_registry,
    registered,
    unreadable,
)
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.old_registry import OldRegistry
from git_credential_bbjwt.installations.payload import entry_of
from git_credential_bbjwt.installations.registry import (
    REGISTRY_FILE,
    REGISTRY_FOLDER,
    host_file,
    is_entry,
    read_registry,
    workspace_file,
)
from git_credential_bbjwt.system.digest import digest
from git_credential_bbjwt.system.lock import FileLock
from git_credential_bbjwt.system.ownership import is_administrator
from git_credential_bbjwt.system.places import site_config_folder, user_config_folder, why_no_home
from git_credential_bbjwt.system.private_folder import PrivateFolder, remove_if_empty

#: How many installations are best changed at once: each file is open meanwhile.
BATCH = 100


class RegistryFolder:
    """The user's registry, or the system's, which everybody may read and its owner alone may write."""

    def __init__(self, *, system: bool = False) -> None:
        """Raises InstallationError for a user without a home folder."""
        folder = site_config_folder() if system else user_config_folder()
        if folder is None:
            raise InstallationError(
                f"there is no home folder of yours to keep a registry in{why_no_home()}",
                OWN_HOME,
            )
        self.config_folder = folder
        self.path = f"{folder}/{REGISTRY_FOLDER}"
        self._folder_mode, self._file_mode = (0o755, 0o644) if system else (0o700, 0o600)

    def __iter__(self) -> Iterator[Installation]:
        """All installations. Raises InstallationError for a registry that cannot be used."""
        level = level_of(read_registry(self.config_folder))
        if level.problem is not None:
            raise level.problem
        return iter(level)

    def of_workspace(self, workspace: str) -> list[Installation]:
        """The installations that name ``workspace``, a slug or a UUID. Raises InstallationError as iteration does."""
        found = level_of(read_registry(self.config_folder)).of_workspace(workspace)
        return [one for one in found if workspace in (*one.workspaces, one.workspace_uuid)]

    @contextmanager
    def changing(self) -> Iterator["Change"]:
        """Give what changes the registry; nothing has changed before its `Change.commit`.

        Only one process at a time is in such a block. Raises InstallationError.
        """
        try:
            config = PrivateFolder(self.config_folder, create=True, mode=self._folder_mode)
        except OSError as problem:
            raise self._unwritable(problem) from problem
        try:
            # The lock that version 1.0 takes, too.
            lock = FileLock(config, REGISTRY_FILE + ".lock")
            with lock:
                old = read_registry(self.config_folder)
                if old.problem is not None:
                    raise unreadable(old)
                if isinstance(old, OldRegistry):
                    self._take_over(config, old)
                with self._open(REGISTRY_FOLDER) as folder:
                    if config.read(REGISTRY_FILE) != _MOVED:
                        config.write(REGISTRY_FILE, _MOVED, mode=self._file_mode, durable=True)
                    try:
                        yield Change(folder, self.path, self._file_mode, lock)
                    finally:
                        # Gone with its last installation, and then the note as well.
                        remove_if_empty(folder.path)
                        if not os.path.lexists(self.path):
                            config.remove(REGISTRY_FILE)
        except OSError as problem:
            raise self._unwritable(problem) from problem
        finally:
            config.close()
            remove_if_empty(config.path)

    def remove_leftovers(self) -> None:
        """Where no installation is left, remove what killed processes have left too. This looks at the whole folder."""
        with self.changing() as change:
            change.remove_leftovers()

    @contextmanager
    def _open(self, name: str) -> Iterator[PrivateFolder]:
        folder = PrivateFolder(f"{self.config_folder}/{name}", create=True, mode=self._folder_mode)
        try:
            yield folder
        finally:
            folder.close()

    def _take_over(self, config: PrivateFolder, old: OldRegistry) -> None:
        """Make the folder from a registry of version 1.0: under another name first, to be there whole."""
        if old.data is None:
            return
        installations = parse_old_registry(old.data, old.where)
        making = REGISTRY_FOLDER + ".new"
        for name in config.names(making):
            config.remove(f"{making}/{name}")
        with self._open(making) as folder:
            for some in in_batches(installations):
                change = Change(folder, folder.path, self._file_mode, None)
                change.put(some)
                change.commit()
        config.rename_folder(making, REGISTRY_FOLDER)

    def _unwritable(self, problem: OSError) -> InstallationError:
        hint = "check who owns the folder and its mode"
        if problem.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            hint = "its file system has no locks: set XDG_CONFIG_HOME to a folder on one that has"
        if isinstance(problem, PermissionError) and not is_administrator():
            hint += "; the system registry needs root"
        return InstallationError(f"cannot write {self.path}: {problem.strerror}", hint)


# What version 1.0 finds where it looks for its registry: it says that this is not one of its version.
_MOVED = json.dumps({"version": MOVED_VERSION, "installations": [], "movedTo": REGISTRY_FOLDER}).encode() + b"\n"


def in_batches(installations: Iterable[Installation]) -> Iterator[list[Installation]]:
    """Split ``installations`` into lists that are best changed at once."""
    some: list[Installation] = []
    for one in installations:
        some.append(one)
        if len(some) == BATCH:
            yield some
            some = []
    if some:
        yield some


def entry_name(installation: Installation) -> str:
    """The file of an installation's entry."""
    return f"installation,{digest(installation.host, installation.keyring_user)}"


def _keys(installation: Installation) -> list[str]:
    """The files that lead to its entry from what a call knows of a repository."""
    return [workspace_file(workspace) for _, workspace in installation.keys]


class Change:
    """A change of the registry: planned by `put` and `take_out`, done by `commit`."""

    def __init__(self, folder: PrivateFolder, path: str, file_mode: int, lock: FileLock | None) -> None:
        self._folder = folder
        self._where = path
        self._mode = file_mode
        self._lock = lock
        # What the touched entries were, and what they are to be; None for none.
        self._before: dict[str, Installation | None] = {}
        self._after: dict[str, Installation | None] = {}

    def of_workspace(self, workspace: str) -> list[Installation]:
        """The installations that name ``workspace``, a slug or a UUID, as they are to be."""
        found = [self._entry(name) for name in self._listed(workspace_file(workspace))]
        found += self._after.values()
        named = [one for one in found if one and workspace in (*one.workspaces, one.workspace_uuid)]
        return list(dict.fromkeys(named))

    def same(self, installation: Installation) -> Installation | None:
        """What is registered under the same host and client key."""
        return self._entry(entry_name(installation))

    def put(self, installations: list[Installation]) -> list[Installation]:
        """Plan to register ``installations``; return what they take the whole place of.

        That is the same client key, and for the same workspaces the same app: installed anew it has another client key.
        """
        gone = []
        for new in installations:
            before = self.same(new)
            if before is not None:
                gone.append(before)
            for one in [other for workspace in new.workspaces for other in self.of_workspace(workspace)]:
                if (one.name, one.host) != (new.name, new.host) or one.keyring_user == new.keyring_user:
                    continue
                rest = tuple(w for w in one.workspaces if w not in new.workspaces)
                if not rest and self._entry(entry_name(one)) is not None:
                    gone.append(one)
                self._set(entry_name(one), one._replace(workspaces=rest) if rest else None)
            self._set(entry_name(new), new)
        return gone

    def take_out(self, installation: Installation, *workspaces: str) -> Installation | None:
        """Plan to have ``installation`` no longer serve ``workspaces``; return what is left of it, if anything."""
        rest = tuple(one for one in installation.workspaces if one not in workspaces)
        left = installation._replace(workspaces=rest) if rest else None
        self._set(entry_name(installation), left)
        return left

    def commit(self) -> None:
        """Do what was planned. Raises InstallationError where another process may be at it, and OSError."""
        if self._lock is not None and not self._lock.is_held():
            raise InstallationError(
                "this process was stopped for so long that another one may have changed the registry",
                "run the command again",
            )
        entries = {name: one for name, one in self._after.items() if one is not None}
        lists, lists_after = self._lists()
        more, fewer = self._counts()
        self._write({key: _lines(names) for key, names in lists.items()} | more)
        self._write({name: _json(one) for name, one in entries.items()})
        for name in self._after.keys() - entries.keys():
            self._folder.remove(name)
        rest = {key: _lines(names) for key, names in lists_after.items()} | fewer
        self._write({key: data for key, data in rest.items() if data})
        for key in [key for key, data in rest.items() if not data]:
            self._folder.remove(key)
        if any(not data for data in fewer.values()):  # The last one of a host is gone.
            self.remove_leftovers()
        self._before.clear()
        self._after.clear()

    def remove_leftovers(self) -> None:
        """Remove every file of ours if none of them is an entry."""
        names = self._folder.names()
        if not any(is_entry(name) for name in names):
            for name in names:
                if name.partition(",")[0] in ("host", "installation", "workspace"):
                    self._folder.remove(name)

    def _lists(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The lists of entries that change: with all that were and will be in them, and as they are to be after."""
        before: dict[str, list[str]] = {}
        meanwhile: dict[str, list[str]] = {}
        after: dict[str, list[str]] = {}
        for name, one in self._after.items():
            old = self._before[name]
            was, will_be = ([] if old is None else _keys(old)), ([] if one is None else _keys(one))
            for key in dict.fromkeys(was + will_be):
                if key not in after:
                    before[key] = self._listed(key)
                    meanwhile[key], after[key] = list(before[key]), list(before[key])
                if name not in meanwhile[key]:
                    meanwhile[key].append(name)
                after[key] = [other for other in after[key] if other != name] + ([name] if key in will_be else [])
        grown = {key: names for key, names in meanwhile.items() if names != before[key]}
        return grown, {key: names for key, names in after.items() if names != meanwhile[key]}

    def _counts(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """The hosts' files that are written before the entries, and those after: a count is never too small.

        One without a content is to be removed.
        """
        changes: dict[str, int] = {}
        for name, one in self._after.items():
            old = self._before[name]
            for host, by in ((old.host if old else "", -1), (one.host if one else "", 1)):
                if host:
                    changes[host] = changes.get(host, 0) + by
        more: dict[str, bytes] = {}
        fewer: dict[str, bytes] = {}
        for host, by in changes.items():
            known = (self._read(host_file(host)) or b"").split()
            count = int(known[1]) if len(known) == 2 and known[1].isdigit() else 0
            if by:
                (more if by > 0 else fewer)[host_file(host)] = f"{host} {count + by}\n".encode() if count > -by else b""
        return more, fewer

    def _write(self, files: dict[str, bytes]) -> None:
        if files:
            self._folder.write_many(files, mode=self._mode, durable=True)

    def _set(self, name: str, installation: Installation | None) -> None:
        self._before.setdefault(name, self._stored(name))
        self._after[name] = installation

    def _entry(self, name: str) -> Installation | None:
        return self._after[name] if name in self._after else self._stored(name)

    def _stored(self, name: str) -> Installation | None:
        data = self._read(name)
        return None if data is None else registered(data, self._where)

    def _listed(self, key: str) -> list[str]:
        data = self._read(key) or b""
        return [name for name in data.decode("ascii", "replace").split() if is_entry(name)]

    def _read(self, name: str) -> bytes | None:
        data = self._folder.read(name, others_may_read=True)
        if data is None and os.path.lexists(f"{self._folder.path}/{name}"):
            raise InstallationError(f"{self._where}/{name} is not used: see who owns it, and its mode", "chmod go-w it")
        return data


def _lines(names: list[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode("ascii")


def _json(installation: Installation) -> bytes:
    return json.dumps(entry_of(installation), indent=2, ensure_ascii=False).encode() + b"\n"
