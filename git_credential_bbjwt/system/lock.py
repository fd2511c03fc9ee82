"""Locks between processes, by the operating system's file locks.

The usual lock library is not used, because importing it takes as long as three Python starts, a noticeable part of a
mint. The kernel releases the lock of a process that ends, so nobody waits for a killed process.
"""

import os
import sys
import threading
import time
from collections.abc import Callable

from git_credential_bbjwt.system.private_folder import PrivateFolder

#: Describes, in messages, a call that waits for a `FileLock` of the token cache.
WAITING = "waiting for another process that is getting a token for the same repository"


#: Seconds between two renewals by a holder.
_RENEWAL = 1.0

#: Seconds without a renewal after which the holder is treated as stopped.
_STOPPED = 5.0

#: Seconds. More time between two checks is not counted, because the waiting process may have been stopped itself.
_LONGEST_GAP = 0.5

#: Seconds between two checks of a waiting process: the first pause, and the longest.
_FIRST_LOOK, _LONGEST_LOOK = 0.002, 0.05


def _try_until_locked(try_to_lock: Callable[[], bool], may_wait: Callable[[], object] | None) -> None:
    pause = _FIRST_LOOK
    while not try_to_lock():
        if may_wait is not None:
            may_wait()
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_LOOK)


if sys.platform == "win32":
    import msvcrt

    class FileLock:
        """An exclusive lock, the file ``name`` in ``folder``, held between ``with`` and its end.

        Waiting ends when ``may_wait`` raises, or with the budget's watchdog. A suspended process keeps its lock,
        because an open file cannot be removed. Raises OSError if the folder cannot be written.
        """

        def __init__(self, folder: PrivateFolder, name: str, *, may_wait: Callable[[], object] | None = None) -> None:
            """``may_wait`` is called before each further attempt. It raises an error if the wait must end."""
            self._folder = folder
            self._name = name
            self._may_wait = may_wait
            self._path = os.path.join(folder.path, name)
            self._fd = -1

        def __enter__(self) -> None:
            _try_until_locked(self._try, self._may_wait)

        def _try(self) -> bool:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_BINARY | os.O_NOINHERIT)
            except PermissionError:  # The last holder is removing the file.
                if not os.path.isdir(self._folder.path):
                    raise
                return False
            try:
                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            except OSError:
                os.close(fd)
                return False
            self._fd = fd
            return True

        def is_held(self) -> bool:
            """Return whether this process holds the lock."""
            return self._fd >= 0

        def __exit__(self, *exc: object) -> None:
            os.lseek(self._fd, 0, os.SEEK_SET)
            msvcrt.locking(self._fd, msvcrt.LK_UNLCK, 1)
            os.close(self._fd)
            try:
                os.unlink(self._path)
            except OSError:
                pass  # The next holder has already opened it.

else:
    import fcntl

    class FileLock:
        """An exclusive lock, the file ``name`` in ``folder``, held between ``with`` and its end.

        The kernel releases the lock of a process that ends, however it ends. A process that is stopped (SIGSTOP, a
        paused container) keeps its lock. So the holder also renews the lock: every second it sets the file's time. A
        waiting process takes the lock over if that time has not changed for 5 s of its own monotonic clock. It never
        compares the file's time with a clock, because a file server has another clock. To take the lock over, it
        removes the file; then every waiting process tries to make a new file and lock that. A second process could
        remove the new file by mistake. So a file is removed only under a lock of the folder, and only if it is still
        the file that was not renewed. A stopped process learns from `is_held` that it has lost the lock.

        Raises OSError if the folder cannot be written.
        """

        def __init__(self, folder: PrivateFolder, name: str, *, may_wait: Callable[[], object] | None = None) -> None:
            """``may_wait`` is called before each further attempt. It raises an error if the wait must end."""
            self._folder = folder
            self._name = name
            self._may_wait = may_wait
            self._fd = -1
            self._released = threading.Event()
            self._seen: tuple[int, int] | None = None
            self._looked_at = self._unrenewed = 0.0

        def __enter__(self) -> None:
            _try_until_locked(self._try, self._may_wait)
            self._renewal = threading.Thread(target=self._renew, daemon=True)
            self._renewal.start()

        def _try(self) -> bool:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._name, flags, 0o600, dir_fd=self._folder.fd)
            try:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if self._is_stopped(fd):
                        self._remove_if(lambda: self._is_current(fd) and _renewal_of(fd) == self._seen)
                else:
                    # The last holder may have removed the file before it was locked here. If so, try again.
                    if self._is_current(fd):
                        os.utime(fd)
                        self._fd, fd = fd, -1
                        return True
            finally:
                if fd >= 0:
                    os.close(fd)
            return False

        def _is_stopped(self, fd: int) -> bool:
            """Return whether the holder has not renewed the lock for so long that it must have been stopped."""
            now, seen = time.monotonic(), _renewal_of(fd)
            if seen == self._seen:
                self._unrenewed += min(now - self._looked_at, _LONGEST_GAP)
            else:
                self._seen, self._unrenewed = seen, 0.0
            self._looked_at = now
            return self._unrenewed > _STOPPED

        def _remove_if(self, is_still: Callable[[], bool]) -> None:
            """Remove the file if ``is_still`` returns True, unless another process is removing one in this folder."""
            try:
                fcntl.flock(self._folder.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            try:
                if is_still():
                    self._folder.remove(self._name)
            finally:
                fcntl.flock(self._folder.fd, fcntl.LOCK_UN)

        def _renew(self) -> None:
            while not self._released.wait(_RENEWAL):
                try:
                    os.utime(self._fd)
                except OSError:
                    return

        def is_held(self) -> bool:
            """Return whether this process still holds the lock, which others can take over from a stopped process."""
            return self._is_current(self._fd)

        def _is_current(self, fd: int) -> bool:
            try:
                there = os.stat(self._name, dir_fd=self._folder.fd, follow_symlinks=False)
            except FileNotFoundError:
                return False
            return os.path.samestat(there, os.fstat(fd))

        def __exit__(self, *exc: object) -> None:
            self._released.set()
            self._renewal.join()
            self._remove_if(self.is_held)
            os.close(self._fd)

    def _renewal_of(fd: int) -> tuple[int, int]:
        """Return a value that changes with each renewal of the lock, and with each new file."""
        found = os.fstat(fd)
        return found.st_ino, found.st_mtime_ns
