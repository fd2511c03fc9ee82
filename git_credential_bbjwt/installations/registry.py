"""The registry of installations: read, changed under a lock, and written whole or not at all. It holds no secret."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from git_credential_bbjwt.errors import InstallationError
from git_credential_bbjwt.installations.payload import REGISTRY_VERSION, Installation, installations_of, registry_entry
from git_credential_bbjwt.installations.sources import REGISTRY_FILE, read_registry
from git_credential_bbjwt.system import places
from git_credential_bbjwt.system.lock import FileLock
from git_credential_bbjwt.system.private_folder import PrivateFolder


class Registry:
    """The user's registry, or the system's, which everybody may read and its owner alone may write."""

    def __init__(self, *, system: bool = False) -> None:
        """Raises InstallationError for a user without a home folder."""
        folder = places.site_config_folder() if system else places.user_config_folder()
        if folder is None:
            raise InstallationError(
                f"there is no home folder of yours to keep a registry in{places.why_no_home()}",
                "set HOME to your own folder (sudo -H sets it)",
            )
        self.folder_path = folder
        self.path = f"{folder}/{REGISTRY_FILE}"
        self._folder_mode, self._file_mode = (0o755, 0o644) if system else (0o700, 0o600)

    def read(self) -> list[Installation]:
        """Return the registered installations. Raises InstallationError for a registry that cannot be used."""
        return installations_of(read_registry(self.folder_path))

    @contextmanager
    def changing(self) -> Iterator[list[Installation]]:
        """Give the installations for a change, and write what has become of them when the block ends well.

        Only one process at a time is in such a block. Raises InstallationError, and nothing has changed then.
        """
        try:
            folder = PrivateFolder(self.folder_path, create=True, mode=self._folder_mode)
        except OSError as problem:
            raise self._unwritable(problem) from problem
        try:
            lock = FileLock(folder, REGISTRY_FILE)
            with lock:
                before = self.read()
                installations = list(before)
                yield installations
                if installations != before:
                    if not lock.is_held():
                        raise InstallationError(
                            "this process was stopped for so long that another one may have changed the registry",
                            "run the command again",
                        )
                    self._write(folder, installations)
        except OSError as problem:
            raise self._unwritable(problem) from problem
        finally:
            folder.close()
            folder.remove_itself()

    def _write(self, folder: PrivateFolder, installations: list[Installation]) -> None:
        if not installations:
            folder.remove(REGISTRY_FILE)
            return
        content = {"version": REGISTRY_VERSION, "installations": [registry_entry(one) for one in installations]}
        data = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        folder.write(REGISTRY_FILE, data, mode=self._file_mode, durable=True)

    def _unwritable(self, problem: OSError) -> InstallationError:
        hint = "check who owns the folder and its mode"
        if problem.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            hint = "its file system has no locks: set XDG_CONFIG_HOME to a folder on one that has"
        if isinstance(problem, PermissionError) and os.geteuid() != 0:
            hint += "; the system registry needs root"
        return InstallationError(f"cannot write {self.path}: {problem.strerror}", hint)
