"""Change the registry.

Crash safety: every file is replaced in one step, so a process that is killed leaves each file old or new, never half
written. A workspace's UUID has a file, the pointer, with the workspace's slugs; a slug's file contains the entries. A
pointer without entries is ignored. So pointers are written before their entries and removed after them: after a kill
between two steps, an installation is either registered or not. A secret is stored before its entry is written, and
removed before its entry is removed. An entry that stays behind can be unregistered again. A secret file that stays
behind without an entry is removed by ``unregister --all``. Only one process at a time changes the registry. It reads
and writes only the files of the installations that it changes.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import OWN_HOME, InstallationError
from git_credential_bbjwt.core.files import site_config_folder, user_config_folder, why_no_home, why_not_trusted_itself
from git_credential_bbjwt.core.remedies import as_root, look_at, reason_and_remedy
from git_credential_bbjwt.core.repository import is_name, is_uuid
from git_credential_bbjwt.core.source import REGISTRY_FOLDER, Registry, file_of, host_folder, slugs_of
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.levels import level_of, registered_hosts
from git_credential_bbjwt.installations.registry_entry import entry_of, parse_entries
from git_credential_bbjwt.system.lock import FileLock
from git_credential_bbjwt.system.private_folder import NOT_YET, PrivateFolder, remove_if_empty

#: Number of installations that one `Change` should have at most.
BATCH = 400

# Number of further attempts to lock if another process removes the lock's folder.
_ATTEMPTS = 100


class RegistryFolder:
    """The user's registry, or the system's, which everybody can read and only its owner can write."""

    def __init__(self, *, system: bool) -> None:
        """Find the registry's folder. Raises InstallationError if the user has no home folder."""
        folder = site_config_folder() if system else user_config_folder()
        if folder is None:
            raise InstallationError(
                f"this user has no home folder for a registry{why_no_home()}",
                OWN_HOME,
            )
        self.config_folder = folder
        self.path = f"{folder}/{REGISTRY_FOLDER}"
        self._is_systems = system
        self._folder_mode, self._file_mode = (0o755, 0o644) if system else (0o700, 0o600)

    def __iter__(self) -> Iterator[Installation]:
        """Iterate over all installations. Raises InstallationError for a registry that cannot be used."""
        level = level_of(Registry(self.path))
        if level.problem is not None:
            raise level.problem
        return iter(level)

    def of_workspace(self, workspace: str) -> list[Installation]:
        """Return the installations that name ``workspace``, a slug or a UUID. Raises InstallationError."""
        return level_of(Registry(self.path)).of_workspace(workspace)

    @contextmanager
    def changing(self) -> Iterator["Change"]:
        """Provide a change of the registry, which is written by `Change.commit`.

        Only one process at a time can be in this block. Raises InstallationError.
        """
        try:
            with self._locked() as lock:
                PrivateFolder(self.path, create=True, mode=self._folder_mode).close()
                change = Change(self.path, self._folder_mode, self._file_mode, lock)
                try:
                    yield change
                finally:
                    change.close()
        except OSError as problem:
            raise self._unwritable(problem) from problem

    @contextmanager
    def _locked(self) -> Iterator[FileLock]:
        """Hold the registry's lock, a file in the configuration folder. Raises OSError."""
        for attempts_left in range(_ATTEMPTS, -1, -1):
            config = PrivateFolder(self.config_folder, create=True, mode=self._folder_mode)
            lock = FileLock(config, REGISTRY_FOLDER + ".lock")
            try:
                lock.__enter__()
            except FileNotFoundError:
                # Another process has removed the folder with its last file.
                config.close()
                if not attempts_left:
                    raise
                continue
            try:
                yield lock
            finally:
                lock.__exit__(None, None, None)
                config.close()
                remove_if_empty(config.path)
            return

    def _unwritable(self, problem: OSError) -> InstallationError:
        hint = _HINTS.get(problem.errno or 0) or look_at(self.path)
        if self._is_systems and isinstance(problem, PermissionError):
            hint = as_root(hint)
        why, remedy = reason_and_remedy(problem, hint)
        return InstallationError(f"cannot write {self.path}: {why}", remedy)


_NO_LOCKS = "its file system has no locks: set XDG_CONFIG_HOME to a folder on a file system with locks"
_HINTS = {
    errno.ENOLCK: _NO_LOCKS,
    errno.ENOTSUP: _NO_LOCKS,
    errno.ENOSYS: _NO_LOCKS,
    errno.ENOSPC: "make room on its disk, then run the command again",
    errno.EDQUOT: "make room within your quota, then run the command again",
    errno.EROFS: "its file system is read-only: set XDG_CONFIG_HOME to a folder that can be written",
}


def _pointer_of(installation: Installation) -> str:
    """Return the name of the pointer to all entries of an installation: its workspace's UUID.

    If the payload names no UUID, the name is a digest of the secret's user name, in the form of a UUID.
    """
    hexadecimal = digest(installation.keyring_user)
    groups = (hexadecimal[:8], *(hexadecimal[start : start + 4] for start in (8, 12, 16)), hexadecimal[20:32])
    return installation.workspace_uuid or f"{{{'-'.join(groups)}}}"


class Change:
    """A change of the registry: planned by `put` and `take_out`, written by `commit`."""

    def __init__(self, path: str, folder_mode: int, file_mode: int, lock: FileLock) -> None:
        self._path = path
        self._folder_mode = folder_mode
        self._file_mode = file_mode
        self._lock = lock
        self._folders: dict[str, PrivateFolder] = {}
        # The entries of each host and slug: as they are stored, and, only if they change, as they will be.
        self._before: dict[tuple[str, str], list[Installation]] = {}
        self._after: dict[tuple[str, str], list[Installation]] = {}

    def same(self, installation: Installation) -> list[Installation]:
        """Return the entries of all hosts and workspaces with the same secret, as they will be after the change."""
        pointer = _pointer_of(installation)
        found: list[Installation] = []
        for host in registered_hosts(self._path):
            for slug in self._slugs(host, pointer):
                found += self._entries(host, slug)
        return [one for one in found if one.keyring_user == installation.keyring_user]

    def reset(self) -> None:
        """Drop what was planned and read, so that entries are read again as they are stored."""
        self._before.clear()
        self._after.clear()

    def put(self, installations: list[Installation]) -> list[Installation]:
        """Plan to register ``installations``, each with one workspace; return the entries that they replace.

        Those are entries of the same app in the workspace, and the installation's entries in its earlier workspaces.
        """
        gone: list[Installation] = []
        theirs: dict[tuple[str, str], set[str]] = {}
        for new in installations:
            theirs.setdefault((new.host, new.keyring_user), set()).update(new.workspaces)
        for new in installations:
            for old in self.same(new):
                if old.host == new.host and old.workspaces[0] not in theirs[new.host, new.keyring_user]:
                    self.take_out(old)
                    gone.append(old)
            (workspace,) = new.workspaces
            gone += [one for one in self._entries(new.host, workspace) if _same_app(one, new)]
            self.take_out(new)
            self._after[new.host, workspace] += [new]
        return gone

    def take_out(self, installation: Installation) -> None:
        """Plan to unregister ``installation``."""
        (workspace,) = installation.workspaces
        entries = self._entries(installation.host, workspace)
        self._after[installation.host, workspace] = [one for one in entries if not _same_app(one, installation)]

    def commit(self) -> None:
        """Write the planned change. Raises InstallationError if the lock was lost, and OSError."""
        if not self._lock.is_held():
            raise InstallationError(
                "this process was stopped for so long that another process may have changed the registry",
                "run the command again",
            )
        for host in dict.fromkeys(host for host, _ in self._after):
            self._commit_host(self._folder(host, create=True), host)
        self.reset()

    def _commit_host(self, folder: PrivateFolder, host: str) -> None:
        entries = {slug: some for (of_host, slug), some in self._after.items() if of_host == host}
        grown, left = self._pointers(host, entries)
        files = {file_of(pointer): _lines(slugs) for pointer, slugs in grown.items()}
        files |= {file_of(slug): b"".join(map(entry_of, some)) for slug, some in entries.items() if some}
        self._write(folder, files)
        for slug in [slug for slug, some in entries.items() if not some]:
            folder.remove(file_of(slug))
        self._write(folder, {file_of(pointer): _lines(slugs) for pointer, slugs in left.items() if slugs})
        for pointer in [pointer for pointer, slugs in left.items() if not slugs]:
            folder.remove(file_of(pointer))

    def _pointers(
        self, host: str, entries: dict[str, list[Installation]]
    ) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
        """Return two new contents of pointers: of those that gain slugs, and then of those that lose slugs."""
        more: dict[str, set[str]] = {}
        fewer: dict[str, set[str]] = {}
        for slug, some in entries.items():
            new, old = set(map(_pointer_of, some)), set(map(_pointer_of, self._before[host, slug]))
            for pointer in new:
                more.setdefault(pointer, set()).add(slug)
            for pointer in old - new:
                fewer.setdefault(pointer, set()).add(slug)
        known = {pointer: set(self._slugs(host, pointer)) for pointer in more | fewer}
        grown = {pointer: known[pointer] | slugs for pointer, slugs in more.items() if slugs - known[pointer]}
        left = {pointer: (known[pointer] | more.get(pointer, set())) - slugs for pointer, slugs in fewer.items()}
        return grown, left

    def remove_leftovers(self) -> None:
        """Remove files that killed processes have left at hosts without an entry. This reads the whole registry."""
        for host in registered_hosts(self._path):
            folder = self._folder(host, create=False)
            mine = [name for name in folder.names() if is_name(_stem(name)) or is_uuid(_stem(name))]
            if not any(is_name(name.removesuffix(file_of(""))) for name in mine):
                for name in mine:
                    folder.remove(name)

    def close(self) -> None:
        """Remove the folders that are empty."""
        for folder in self._folders.values():
            folder.close()
            remove_if_empty(folder.path)
        remove_if_empty(self._path)

    def _folder(self, host: str, *, create: bool) -> PrivateFolder:
        if host not in self._folders:
            path = f"{self._path}/{host_folder(host)}"
            self._folders[host] = PrivateFolder(path, create=create, mode=self._folder_mode)
        return self._folders[host]

    def _entries(self, host: str, slug: str) -> list[Installation]:
        """Return the entries of a workspace, as they will be after the change."""
        if (host, slug) not in self._before:
            self._before[host, slug] = parse_entries(self._read(host, slug), slug, self._path)
        return self._after.get((host, slug), self._before[host, slug])

    def _slugs(self, host: str, pointer: str) -> list[str]:
        return slugs_of(self._read(host, pointer))

    def _read(self, host: str, name: str) -> bytes:
        try:
            folder = self._folder(host, create=False)
        except FileNotFoundError:
            return b""
        data = folder.read(file_of(name), others_may_read=True)
        path = f"{folder.path}/{file_of(name)}"
        if data is None and os.path.lexists(path):
            reason, remedy = why_not_trusted_itself(os.lstat(path), path, name=path) or (
                f"{path} was not written by this program",
                f"remove {path}",
            )
            raise InstallationError(f"the registry is not used: {reason}", f"run: {remedy}")
        return data or b""

    def _write(self, folder: PrivateFolder, files: dict[str, bytes]) -> None:
        if files:
            folder.write_many(files, mode=self._file_mode, durable=True)


def _same_app(one: Installation, other: Installation) -> bool:
    """Return whether two installations for one workspace belong to the same app or consumer."""
    return (one.kind, one.app_key) == (other.kind, other.app_key)


def _stem(name: str) -> str:
    """Return the slug or UUID in the name of a file, or of an incomplete file that a killed process left."""
    return name.removesuffix(NOT_YET).removesuffix(file_of(""))


def _lines(slugs: set[str]) -> bytes:
    return "".join(f"{slug}\n" for slug in sorted(slugs)).encode("ascii")
