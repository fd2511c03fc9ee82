"""Writing in a folder that is this user's alone: files whole or not at all, and nothing by path after the check."""

import os
import sys

__all__ = ["NOT_YET", "PrivateFolder", "remove_if_empty"]

if sys.platform == "win32":
    from git_credential_bbjwt.core.windows_files import NOT_YET, PrivateFolder

else:
    import time

    from git_credential_bbjwt.core.ownership import A_FOLDER, OwnFolder

    #: Ends the name of a file that is not complete yet.
    NOT_YET = "~new"

    # More files than these reach the disk sooner together than one after the other.
    _MANY = 20

    _NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

    class PrivateFolder(OwnFolder):
        """A folder of this user's with mode 0700, to write in."""

        __slots__ = ()

        def __init__(self, path: str, *, create: bool, mode: int = 0o700) -> None:
            """Open ``path``, making it (and the folders above it) first if ``create`` is set.

            Raises OSError as `OwnFolder` does.
            """
            if create:
                _make(path, mode)
            super().__init__(path, mode=mode)

        def write(
            self, name: str, data: bytes, *, mode: int = 0o600, durable: bool = False, date: float | None = None
        ) -> None:
            """Put ``data`` in place of the file in one step. Only one process at a time may write the same name.

            ``durable`` also waits for the disk, for content that cannot be made again. ``date`` becomes the time of the
            file, in Unix time, by default the present. Raises OSError; the old file is then as it was.
            """
            self.write_many({name: data}, mode=mode, durable=durable, date=date)

        def write_many(
            self, files: "dict[str, bytes]", *, mode: int = 0o600, durable: bool = False, date: float | None = None
        ) -> None:
            """Do the same for several files, each in one step of its own, in the order given."""
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
            """Wait until the disk has all of ``names``: where the system can, by one call for its file system."""
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
            """Make the folder ``path`` within this one, and those between, where they are not there."""
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
            """Return the seconds since the file's time, negative if that is in the future; 0 if there is no file."""
            try:
                born = os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mtime
            except FileNotFoundError:
                return 0.0
            return time.time() - born  # Read the time first, or a concurrent write would give a negative age.

        def remove(self, name: str) -> None:
            """Remove the file, if there is one."""
            try:
                os.unlink(name, dir_fd=self.fd)
            except FileNotFoundError:
                pass

        def remove_folder(self, name: str) -> None:
            """Remove the folder ``name`` within this one if nothing is in it."""
            try:
                os.rmdir(name, dir_fd=self.fd)
            except OSError:
                pass

        def names(self, below: str = ".") -> list[str]:
            """Return the names in the folder, or in the folder ``below`` it; none if that is not there."""
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
                raise  # /proc says so of whatever it will not have made.
            _make(above, mode)
            os.mkdir(path, mode)
        os.chmod(path, mode)  # Whatever the umask is: everybody reads the system's registry.


def remove_if_empty(path: str) -> None:
    """Remove the folder ``path`` if nothing is left in it."""
    try:
        os.rmdir(path)
    except OSError:
        pass
