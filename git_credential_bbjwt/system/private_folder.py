"""A folder only this user can enter, and files in it that are written whole or not at all.

Another user of the machine may have prepared the folder, a symbolic link or a file in its place. So nothing is done by
path after the check: every file is opened relative to the checked folder's own descriptor.
"""

import errno
import os
import stat
import time

# A record or registry is a few kilobytes; whatever is larger was not written by us.
_MAX_BYTES = 8 * 1024 * 1024


class PrivateFolder:
    """An open folder that belongs to this user with mode 0700. ``fd`` is its descriptor."""

    __slots__ = ("fd", "path")

    def __init__(self, path: str, *, create: bool, mode: int = 0o700) -> None:
        """Open ``path``, making it (and the folders above it) first if ``create`` is set.

        ``mode`` 0755 is for the one folder everybody may read, the system registry's; only its owner writes there.
        Raises OSError: FileNotFoundError where there is none, PermissionError where it is not this user's alone; an
        existing folder's mode is never changed.
        """
        self.path = path
        if create:
            _make(path, mode)
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(self.fd)
            if found.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it belongs to another user", path)
            if found.st_mode & 0o777 & ~mode:
                # Not mended: somebody gave it that mode, or put a folder of his own in the place of ours.
                raise PermissionError(errno.EPERM, f"others can enter it; run: chmod {mode:o} {path}", path)
        except BaseException:
            os.close(self.fd)
            raise

    def close(self) -> None:
        """Close the descriptor; the object is of no use afterwards."""
        os.close(self.fd)

    def read(self, name: str) -> bytes | None:
        """Return the file's bytes, or None where there is none that this user alone can have written."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                return None
            data = os.read(fd, _MAX_BYTES)
            return data if len(data) == found.st_size else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def write(self, name: str, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
        """Put ``data`` in place of the file in one step. Only one process at a time may write the same name.

        ``durable`` also waits for the disk, for what cannot be had again. Raises OSError; the old file is then as it
        was.
        """
        new = name + ".new"
        self.remove(new)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self.fd)
        try:
            try:
                os.fchmod(fd, mode)
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                if durable:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(new, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except BaseException:
            self.remove(new)
            raise
        if durable:
            os.fsync(self.fd)

    def age(self, name: str) -> float:
        """Seconds since the file was written; 0 where there is none."""
        try:
            return time.time() - os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self, name: str) -> bool:
        """Remove the file; False where there was none."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            return False
        return True

    def remove_itself(self) -> None:
        """Remove the folder if nothing is left in it."""
        try:
            os.rmdir(self.path)
        except OSError:
            pass

    def names(self) -> list[str]:
        """The names of all files in the folder."""
        return os.listdir(self.fd)


def _make(path: str, mode: int) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        pass
    except FileNotFoundError:
        above = os.path.dirname(path)
        if os.path.isdir(above):
            raise  # /proc says so of whatever it will not have made.
        _make(above, mode)
        os.mkdir(path, mode)


def why_not_trusted(path: str) -> str:
    """Why what stands in the folder ``path`` cannot be trusted to be this user's or root's choice; empty where it can.

    Raises FileNotFoundError where there is no such folder, OSError where it cannot be looked at.
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return "it is reached through a link"
    if found.st_uid not in (0, os.geteuid()):
        return "its folder is another user's"
    if found.st_mode & 0o022:
        return f"others can write to its folder; run: chmod go-w {path}"
    above = os.path.dirname(os.path.realpath(path))
    while True:
        found = os.stat(above)
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX):
            return f"others can replace its folder: see who owns {above}, and its mode"
        if above == os.path.dirname(above):
            return ""
        above = os.path.dirname(above)


def is_private(path: str) -> bool:
    """Whether ``path`` is a real folder, not a link, that belongs to this user and that nobody else can enter."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
