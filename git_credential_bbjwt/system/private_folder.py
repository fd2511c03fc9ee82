"""Write files, whole or not at all, in a folder that only this user can enter."""

import os
import sys

__all__ = ["NOT_YET", "PrivateFolder", "remove_if_empty"]

if sys.platform == "win32":
    from git_credential_bbjwt.core.windows_files import NOT_YET, PrivateFolder

else:
    import time

    from git_credential_bbjwt.core.files import A_FOLDER, OwnFolder

    #: Ends the name of a file that is not complete yet.
    NOT_YET = "~new"

    # More files than this are synced to the disk together, which is faster.
    _MANY = 20

    _NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

    class PrivateFolder(OwnFolder):
        """A folder of this user with mode 0700, for reading and writing."""

        __slots__ = ()

        def __init__(self, path: str, *, create: bool, mode: int = 0o700) -> None:
            """Open ``path``, making it (and the folders above it) first if ``create`` is set.

            Raises OSError as `OwnFolder` does.
            """
            if create:
                _make(path, mode)
            super().__init__(path, mode=mode)

        def write_many(
            self, files: "dict[str, bytes]", *, mode: int = 0o600, durable: bool = False, date: float | None = None
        ) -> None:
            """Put each content in place of the file of this name, each in one step, in the order given.

            Only one process at a time may write the same name. ``durable`` also waits for the disk, for content that
            cannot be made again. ``date`` becomes the time of the files, in Unix time, by default the present. If it
            raises OSError, the file at which it failed, and those after it, are unchanged.
            """
            is_synced = durable and len(files) <= _MANY
            made: list[str] = []
            try:
                for name, data in files.items():
                    new = name + NOT_YET
                    self.remove(new)
                    fd = os.open(new, _NEW_FILE, mode, dir_fd=self.fd)
                    made.append(new)
                    try:
                        os.fchmod(fd, mode)
                        view = memoryview(data)
                        while view:
                            view = view[os.write(fd, view) :]
                        if date is not None:
                            os.utime(fd, (date, date))
                        if is_synced:
                            os.fsync(fd)
                    finally:
                        os.close(fd)
                if durable and not is_synced:
                    self._sync(made)
                for name in files:
                    os.rename(name + NOT_YET, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
                    made.pop(0)
            except BaseException:
                for new in made:
                    self.remove(new)
                raise
            if durable:
                os.fsync(self.fd)

        def _sync(self, names: "list[str]") -> None:
            """Wait until the files ``names`` are on the disk. If the system can, it syncs the whole file system."""
            from ctypes import CDLL

            sync_file_system = getattr(CDLL(None), "syncfs", None)
            if sync_file_system is not None and sync_file_system(self.fd) == 0:
                return
            for name in names:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

        def make_folders(self, path: str) -> None:
            """Make the folder ``path`` within this one, and missing folders above it."""
            try:
                os.mkdir(path, 0o700, dir_fd=self.fd)
            except FileExistsError:
                pass
            except FileNotFoundError:
                above = os.path.dirname(path)
                if not above:
                    raise
                self.make_folders(above)
                self.make_folders(path)

        def age(self, name: str) -> float:
            """Return the seconds since the file's time, negative if that is in the future; 0 if it cannot be read."""
            try:
                born = os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mtime
            except OSError:
                return 0.0
            return time.time() - born  # Read the time first, or a concurrent write would give a negative age.

        def remove(self, name: str) -> None:
            """Remove the file, if there is one."""
            try:
                os.unlink(name, dir_fd=self.fd)
            except FileNotFoundError:
                pass

        def remove_folder(self, name: str) -> None:
            """Remove the folder ``name`` within this one if it is empty."""
            try:
                os.rmdir(name, dir_fd=self.fd)
            except OSError:
                pass

        def names(self, below: str = ".") -> list[str]:
            """Return the names in the folder, or in its subfolder ``below``; an empty list if that is missing."""
            try:
                fd = os.open(below, A_FOLDER, dir_fd=self.fd)
            except OSError:
                return []
            try:
                return os.listdir(fd)
            finally:
                os.close(fd)

    def _make(path: str, mode: int) -> None:
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            return
        except FileNotFoundError:
            above = os.path.dirname(path)
            if os.path.isdir(above):
                raise  # In /proc, no folder can be made, with this error.
            _make(above, mode)
            os.mkdir(path, mode)
        os.chmod(path, mode)  # Despite the umask, everybody must be able to read the system registry.


def remove_if_empty(path: str) -> None:
    """Remove the folder ``path`` if it is empty."""
    try:
        os.rmdir(path)
    except OSError:
        pass
