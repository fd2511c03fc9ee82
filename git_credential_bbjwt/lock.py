"""One process at a time for one name: the operating system's own file locks.

A lock library was measured and left out: importing the usual one takes as long as three Python starts, a noticeable
part of a mint. The kernel drops a lock with its process, so a killed process leaves nothing to wait for.
"""

import fcntl
import os

from git_credential_bbjwt.private_folder import PrivateFolder

#: What a call is doing while it waits for a `FileLock` of the token cache, for messages.
WAITING = "waiting for another process that is getting a token for the same repository"


class FileLock:
    """An exclusive lock on ``name`` in ``folder``, held between ``with`` and its end.

    Waiting has no bound of its own: `budget` bounds the whole call. Raises OSError where the folder cannot be written.
    """

    def __init__(self, folder: PrivateFolder, name: str) -> None:
        self._folder = folder
        self._name = name + ".lock"
        self._fd = -1

    def __enter__(self) -> None:
        while True:
            fd = os.open(
                self._name,
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
                dir_fd=self._folder.fd,
            )
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if self._is_current(fd):
                    self._fd = fd
                    return
            except BaseException:
                os.close(fd)
                raise
            # Its last holder removed the file while we waited: the next one locks a new file.
            os.close(fd)

    def _is_current(self, fd: int) -> bool:
        try:
            there = os.stat(self._name, dir_fd=self._folder.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def __exit__(self, *exc: object) -> None:
        self._folder.remove(self._name)
        os.close(self._fd)
