"""Files on Windows: folders of the user's profile, whole-file writes, standard descriptors.

Windows has no modes. Access rules are not read, because the profile's folders are private by default.
"""

import msvcrt
import os
import stat
import sys
import time
from collections.abc import Callable
from typing import TypeVar

assert sys.platform == "win32"

_Result = TypeVar("_Result")

#: Ends the name of a file that is not complete yet.
NOT_YET = "~new"

# Bytes. The helper writes a few kB, so a larger file is not the helper's.
_MAX_BYTES = 8 * 1024 * 1024

# Seconds to wait for a file that another process, such as a virus scanner, reads: until then it cannot be replaced.
_PATIENCE = 2.0


class PrivateFolder:
    """A folder of this user's profile, as `private_folder.PrivateFolder` is on other systems."""

    __slots__ = ("path",)

    def __init__(self, path: str, *, create: bool = False, mode: int = 0o700) -> None:  # noqa: ARG002  # Windows has none
        """Open ``path``, making it (and the folders above it) first if ``create`` is set.

        Raises OSError: FileNotFoundError if there is none.
        """
        self.path = path
        if create:
            os.makedirs(path, exist_ok=True)
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(20, "it is not a folder", path)

    def close(self) -> None:
        """Do nothing, because no descriptor is open."""

    def read(self, name: str, *, others_may_read: bool = False) -> bytes | None:  # noqa: ARG002  # the profile's rules decide
        """Return the file's bytes; None if there is none."""
        try:
            fd = _patiently(lambda: open_to_read(self._at(name), through_links=False))
        except OSError:
            return None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                return None
            data = os.read(fd, _MAX_BYTES)
            return data if len(data) == found.st_size else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def write_many(
        self,
        files: "dict[str, bytes]",
        *,
        mode: int = 0o600,  # noqa: ARG002  # Windows has none
        durable: bool = False,
        date: float | None = None,
    ) -> None:
        """Put each content in place of the file of this name, each in one step, in the order given.

        Only one process at a time may write the same name. ``durable`` also waits for the disk, for content that
        cannot be made again. ``date`` becomes the time of the files, in Unix time, by default the present. If it
        raises OSError, the file at which it failed, and those after it, are unchanged.
        """
        made: list[str] = []
        try:
            for name, data in files.items():
                new = self._at(name + NOT_YET)
                self.remove(name + NOT_YET)
                fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_BINARY | os.O_NOINHERIT)
                made.append(name + NOT_YET)
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(fd, view) :]
                    if durable:
                        os.fsync(fd)
                finally:
                    os.close(fd)
                if date is not None:
                    os.utime(new, (date, date))
            for name in files:
                _replace(self._at(name + NOT_YET), self._at(name))
                made.remove(name + NOT_YET)
        except BaseException:
            for new in made:
                self.remove(new)
            raise

    def make_folders(self, path: str) -> None:
        """Make the folder ``path`` within this one, and missing folders above it."""
        os.makedirs(self._at(path), exist_ok=True)

    def age(self, name: str) -> float:
        """Return the seconds since the file's time, negative if that is in the future; 0 if there is no file."""
        try:
            born = os.lstat(self._at(name)).st_mtime
        except FileNotFoundError:
            return 0.0
        return time.time() - born  # Read the time first, or a concurrent write would give a negative age.

    def remove(self, name: str) -> None:
        """Remove the file, if there is one."""
        try:
            _patiently(lambda: os.unlink(self._at(name)))
        except FileNotFoundError:
            pass

    def remove_folder(self, name: str) -> None:
        """Remove the folder ``name`` within this one if it is empty."""
        try:
            os.rmdir(self._at(name))
        except OSError:
            pass

    def names(self, below: str = ".") -> list[str]:
        """Return the names in the folder, or in its subfolder ``below``; an empty list if that is missing."""
        try:
            return os.listdir(self._at(below))
        except OSError:
            return []

    def _at(self, name: str) -> str:
        # In this form a path may be longer than 260 characters ("Maximum Path Length Limitation").
        path = os.path.abspath(os.path.join(self.path, name))
        return path if path.startswith("\\\\") else "\\\\?\\" + path


def _patiently(act: "Callable[[], _Result]") -> "_Result":
    """Call ``act`` again while another process has the file open."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return act()
        except PermissionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.005)


def _replace(new: str, name: str) -> None:
    _patiently(lambda: os.replace(new, name))


def open_to_read(path: str, *, through_links: bool = True) -> int:
    """Open a file for reading. Raises OSError, ValueError."""
    if not through_links and os.path.islink(path):
        raise OSError(40, "it is a link", path)
    return os.open(path, os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)


def open_to_append(path: str) -> int:
    """Open a file at its end; make it if it is missing. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_BINARY | os.O_NOINHERIT)


def write_as_git_reads() -> None:
    """Write to the standard descriptors as git reads them: in UTF-8, without carriage returns."""
    for fd in (0, 1, 2):
        msvcrt.setmode(fd, os.O_BINARY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")  # type: ignore[union-attr]  # both are Python's own
