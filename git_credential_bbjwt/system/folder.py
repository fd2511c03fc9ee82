"""Folders that belong to this user alone, to read in, and names of files in them.

Another user of the machine may have prepared a folder, a symbolic link or a file in the place of one of the helper's.
So nothing is done by path after the check: every file is opened relative to the checked folder's own descriptor.
"""

import os
import stat
import sys

__all__ = ["OwnFolder", "file_name", "open_to_append", "open_to_read"]

if sys.platform == "win32":
    from git_credential_bbjwt.system.windows.files import PrivateFolder as OwnFolder
    from git_credential_bbjwt.system.windows.files import open_to_append, open_to_read

else:
    # The helper writes a few kilobytes; a larger file is not its own. Bytes.
    _MAX_BYTES = 8 * 1024 * 1024

    #: How a folder is opened: not through a link.
    A_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

    class OwnFolder:
        """An open folder that belongs to this user with mode 0700, to read in. ``fd`` is its descriptor.

        A file's name may lead through folders within it: only this user can have made those.
        """

        __slots__ = ("fd", "path")

        def __init__(self, path: str, *, mode: int = 0o700) -> None:
            """Open ``path``.

            ``mode`` 0755 is for the one folder everybody may read, the system registry's; only its owner writes there.
            The mode of an existing folder is never changed. Raises OSError: FileNotFoundError if there is none,
            PermissionError if it is not this user's alone.
            """
            self.path = path
            self.fd = os.open(path, A_FOLDER)
            try:
                found = os.fstat(self.fd)
                why_not = ""
                if found.st_uid != os.geteuid():
                    why_not = "it belongs to another user"
                elif found.st_mode & 0o777 & ~mode:
                    # The mode is not corrected: somebody chose it, or put a folder in this one's place.
                    why_not = f"others can enter it; run: chmod {mode:o} {path}"
                if why_not:
                    from errno import EPERM  # Its table takes a hundredth of a start.

                    raise PermissionError(EPERM, why_not, path)
            except BaseException:
                os.close(self.fd)
                raise

        def close(self) -> None:
            """Close the descriptor; the object is of no use afterwards."""
            os.close(self.fd)

        def read(self, name: str, *, others_may_read: bool = False) -> bytes | None:
            """Return the file's bytes; None if there is no file that this user alone can have written and read."""
            try:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
            except OSError:
                return None
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                    return None
                if found.st_mode & (0o022 if others_may_read else 0o077):
                    return None
                if found.st_size > _MAX_BYTES:
                    return None
                data = os.read(fd, found.st_size + 1)
                return data if len(data) == found.st_size else None
            except OSError:
                return None
            finally:
                os.close(fd)

    def open_to_read(path: str, *, through_links: bool = True) -> int:
        """Open a file for reading, without waiting at a FIFO that somebody put there. Raises OSError, ValueError."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if through_links else os.O_NOFOLLOW))

    def open_to_append(path: str) -> int:
        """Open a file at its end, not through a link; make it with mode 0600 if it is not there. Raises OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(path, flags, 0o600)


# The characters of a readable name. A host's colon and a scope's blank are replaced, because Windows allows neither in
# such a place. There are no capital letters, because some file systems do not distinguish them.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-{}[]: ,")

# File systems allow 255, and the names of locks and new files have an ending. Characters.
_LONGEST_NAME = 200


def file_name(*parts: str) -> str:
    """Return a name that no other list of two or more parts has."""
    name = ",".join(parts)
    if len(name) <= _LONGEST_NAME and _PLAIN.issuperset(name) and name.count(",") == len(parts) - 1:
        return name.replace(":", "=").replace(" ", "+")

    from git_credential_bbjwt.system.digest import digest

    return digest(*parts)
