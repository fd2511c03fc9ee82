"""A folder for the tokens of one run of `exec`: made for it, and removed at its end, whatever ends it.

For machines without a private runtime folder, which is every container: a token kept in the home folder there would
end up in an image.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NoReturn

from git_credential_bbjwt.core.failures import CannotRunError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.system.places import APP_NAME, EXEC_FOLDER_VARIABLE

# Locked for as long as the run lasts: the kernel drops the lock with its process, so that after a kill -9 the next run
# knows what is left over from what is in use.
_LOCK = "in-use"

# As shells have it: 126 for what cannot be run, 127 for what is not there.
_CANNOT_RUN, _NOT_FOUND = 126, 127


def run_with_folder(words: list[str], environment: dict[str, str]) -> int:
    """Run the command with a folder for its tokens; end as it ended. Where none can be made, tokens are not kept.

    Raises CannotRunError.
    """
    with _signals_wait():
        _remove_leftovers()
        with _Folder() as folder:
            # A folder that is not there keeps nothing, and is looked into instead of the home folder.
            status = _run(words, {**environment, EXEC_FOLDER_VARIABLE: folder or os.path.abspath(os.devnull)})
    return _ended_as(status)


def cannot_run(program: str, problem: OSError) -> CannotRunError:
    """The error for a command that did not start."""
    there = shutil.which(program) or os.path.dirname(program)
    return CannotRunError(
        f"cannot run {program}: {problem.strerror}", "check its name and PATH", _CANNOT_RUN if there else _NOT_FOUND
    )


class _Folder:
    """A new folder of mode 0700, marked as in use, below the temporary folder."""

    def __enter__(self) -> str | None:
        self._path: str | None = None
        self._lock = -1
        try:
            self._path = tempfile.mkdtemp(prefix=f"{APP_NAME}-new-")
            # Marked before it has the name by which others look for what is left over.
            self._path, self._lock = _mark(self._path)
        except OSError as problem:
            trace(f"no folder for this run's tokens, so none is kept: {problem.strerror}")
        return self._path

    def __exit__(self, *exc: object) -> None:
        if self._path is not None:
            if sys.platform == "win32" and self._lock >= 0:
                os.close(self._lock)  # What is open there cannot be removed.
            shutil.rmtree(self._path, ignore_errors=True)


def _remove_leftovers() -> None:
    """Remove what killed runs of this user have left; runs under way keep theirs."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_unless_in_use(entry)


if sys.platform == "win32":
    import msvcrt

    _PREFIX = f"{APP_NAME}-exec-"

    def become(words: list[str], environment: dict[str, str]) -> NoReturn:
        """Run the command in the place of this process, which ends as it does. Raises CannotRunError."""
        sys.exit(_run(words, environment))

    @contextlib.contextmanager
    def _signals_wait() -> "Iterator[None]":
        # A console sends what is typed there to the command too, which is the one to decide.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGBREAK)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run(words: list[str], environment: dict[str, str]) -> int:
        program = shutil.which(words[0]) or words[0]
        try:
            return subprocess.run([program, *words[1:]], env=environment, check=False).returncode
        except OSError as problem:
            raise cannot_run(words[0], problem) from problem

    def _ended_as(status: int) -> int:
        return status

    def _mark(path: str) -> tuple[str, int]:
        marked = path.replace(f"{APP_NAME}-new-", _PREFIX)
        os.rename(path, marked)
        lock = os.open(os.path.join(marked, _LOCK), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOINHERIT)
        msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        return marked, lock

    def _remove_unless_in_use(entry: "os.DirEntry[str]") -> None:
        # What another process has open cannot be removed.
        os.unlink(os.path.join(entry.path, _LOCK))
        shutil.rmtree(entry.path)

else:
    import fcntl

    _PREFIX = f"{APP_NAME}-exec-{os.geteuid()}-"

    def become(words: list[str], environment: dict[str, str]) -> NoReturn:
        """Run the command in the place of this process. Raises CannotRunError."""
        try:
            os.execvpe(words[0], words, environment)
        except OSError as problem:
            raise cannot_run(words[0], problem) from problem

    # Handed on to the command; the other signals are either the kernel's word about us alone or cannot be caught.
    _HANDED_ON = frozenset(
        {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
    )

    _waited_for = _HANDED_ON | {signal.SIGCHLD}

    @contextlib.contextmanager
    def _signals_wait() -> "Iterator[None]":
        # From here on a signal waits until there is somebody to hand it to, and a folder to remove.
        signal.pthread_sigmask(signal.SIG_BLOCK, _waited_for)
        yield

    def _run(words: list[str], environment: dict[str, str]) -> int:
        try:
            command = subprocess.Popen(
                words,
                env=environment,
                close_fds=False,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _waited_for),
            )
        except OSError as problem:
            raise cannot_run(words[0], problem) from problem
        while command.poll() is None:
            number = signal.sigwait(_waited_for)
            if number != signal.SIGCHLD and command.poll() is None:
                command.send_signal(number)
        return int(command.returncode)

    def _ended_as(status: int) -> int:
        """End by the signal that ended the command, as a shell's caller expects it; without a core of our own."""
        if status < 0:
            import resource

            _, hard = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
            with contextlib.suppress(OSError, ValueError):
                signal.signal(-status, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
            os.kill(os.getpid(), -status)
        return status

    def _mark(path: str) -> tuple[str, int]:
        lock = os.open(f"{path}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        marked = path.replace(f"{APP_NAME}-new-", _PREFIX)
        os.rename(path, marked)
        return marked, lock

    def _remove_unless_in_use(entry: "os.DirEntry[str]") -> None:
        if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
            return
        lock = os.open(f"{entry.path}/{_LOCK}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry.path)
        finally:
            os.close(lock)
