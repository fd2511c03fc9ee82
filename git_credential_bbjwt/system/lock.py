"""One process at a time for one name: the operating system's own file locks.

A lock library was measured and left out: importing the usual one takes as long as three Python starts, a noticeable
part of a mint. The kernel drops a lock with its process, so a killed process leaves nothing to wait for.
"""

import os
import sys
import threading
import time
from collections.abc import Callable

from git_credential_bbjwt.system.private_folder import PrivateFolder

#: What a call is doing while it waits for a `FileLock` of the token cache, for messages.
WAITING = "waiting for another process that is getting a token for the same repository"


#: A holder that still works shows so every that many seconds.
_RENEWAL = 1.0

#: Seconds without a sign of life after which a holder counts as stopped.
_STOPPED = 5.0

#: Seconds between two looks of one that waits: the first, and the longest.
_FIRST_LOOK, _LONGEST_LOOK = 0.002, 0.05


if sys.platform == "win32":
    import msvcrt

    class FileLock:
        """An exclusive lock, the file ``name`` in ``folder``, held between ``with`` and its end.

        Waiting ends when ``may_wait`` raises, or with the budget's watchdog. A process that is suspended keeps its
        lock, because a file that is open cannot be removed. Raises OSError where the folder cannot be written.
        """

        def __init__(self, folder: PrivateFolder, name: str, *, may_wait: Callable[[], object] | None = None) -> None:
            """``may_wait`` is called before each look of one that waits, and raises when it must not wait longer."""
            self._folder = folder
            self._name = name
            self._may_wait = may_wait
            self._path = os.path.join(folder.path, name)
            self._fd = -1

        def __enter__(self) -> None:
            pause = _FIRST_LOOK
            while not self._try():
                if self._may_wait is not None:
                    self._may_wait()
                time.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_LOOK)

        def _try(self) -> bool:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_BINARY | os.O_NOINHERIT)
            except PermissionError:  # Its last holder is removing it.
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
            """Whether it is still ours."""
            return self._fd >= 0

        def __exit__(self, *exc: object) -> None:
            os.lseek(self._fd, 0, os.SEEK_SET)
            msvcrt.locking(self._fd, msvcrt.LK_UNLCK, 1)
            os.close(self._fd)
            try:
                os.unlink(self._path)
            except OSError:
                pass  # The next one has it open.

else:
    import fcntl

    class FileLock:
        """An exclusive lock, the file ``name`` in ``folder``, held between ``with`` and its end.

        Its holder renews the file's time every second. From one that has not for 5 seconds, a process that was stopped
        (SIGSTOP, a suspended container), one of those that wait takes the lock over. Waiting has no bound of its own:
        `budget` bounds the whole call. Raises OSError where the folder cannot be written.
        """

        def __init__(self, folder: PrivateFolder, name: str, *, may_wait: Callable[[], object] | None = None) -> None:
            """``may_wait`` is called before each look of one that waits, and raises when it must not wait longer."""
            self._folder = folder
            self._name = name
            self._may_wait = may_wait
            self._fd = -1
            self._released = threading.Event()

        def __enter__(self) -> None:
            pause = _FIRST_LOOK
            while not self._try():
                if self._may_wait is not None:
                    self._may_wait()
                time.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_LOOK)
            self._renewal = threading.Thread(target=self._renew, daemon=True)
            self._renewal.start()

        def _try(self) -> bool:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._name, flags, 0o600, dir_fd=self._folder.fd)
            try:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._take_over_if_stopped(fd)
                else:
                    # Else its last holder removed the file before we had it: the next look finds a new one.
                    if self._is_current(fd):
                        os.utime(fd)
                        self._fd, fd = fd, -1
                        return True
            finally:
                if fd >= 0:
                    os.close(fd)
            return False

        def _take_over_if_stopped(self, fd: int) -> None:
            """Remove the file of a holder that gives no sign of life, so that one of those who wait makes a new one."""
            if time.time() - os.fstat(fd).st_mtime < _STOPPED:
                return
            # One at a time: a second one would remove the file that the first one's successor has locked by then.
            fcntl.flock(self._folder.fd, fcntl.LOCK_EX)
            try:
                if self._is_current(fd):
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
            """Whether it is still ours: it was taken over from a process that was stopped for long."""
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
            if self.is_held():
                self._folder.remove(self._name)
            os.close(self._fd)
