"""A folder for the tokens of one run of `exec`: made for it, and removed at its end, whatever ends it.

For machines without a private runtime folder, which is every container: a token kept in the home folder there would
end up in an image.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile

from git_credential_bbjwt import diagnostics
from git_credential_bbjwt.failures import CannotRunError
from git_credential_bbjwt.system import places

_PREFIX = f"{places.APP_NAME}-exec-"

# Locked for as long as the run lasts: the kernel drops the lock with its process, so that after a kill -9 the next run
# knows what is left over from what is in use.
_LOCK = "in-use"

# As shells have it: 126 for what cannot be run, 127 for what is not there.
_CANNOT_RUN, _NOT_FOUND = 126, 127

# Handed on to the command; the other signals are either the kernel's word about us alone or cannot be caught.
_HANDED_ON = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)


def run_with_folder(words: list[str], environment: dict[str, str]) -> int:
    """Run the command with a folder for its tokens; end as it ended. Where none can be made, tokens are not kept.

    Raises CannotRunError.
    """
    waited_for = _HANDED_ON | {signal.SIGCHLD}
    # From here on a signal waits until there is somebody to hand it to, and a folder to remove.
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    _remove_leftovers()
    with _Folder() as folder:
        # A folder that is not there keeps nothing, and is looked into instead of the home folder.
        environment = {**environment, places.EXEC_FOLDER_VARIABLE: folder or os.devnull}
        try:
            command = subprocess.Popen(
                words,
                env=environment,
                close_fds=False,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, waited_for),
            )
        except OSError as problem:
            raise cannot_run(words[0], problem) from problem
        while command.poll() is None:
            number = signal.sigwait(waited_for)
            if number != signal.SIGCHLD and command.poll() is None:
                command.send_signal(number)
    if command.returncode < 0:
        _end_by(-command.returncode)
    return command.returncode


def cannot_run(program: str, problem: OSError) -> CannotRunError:
    """The error for a command that did not start."""
    there = shutil.which(program) or "/" in program
    return CannotRunError(
        f"cannot run {program}: {problem.strerror}", "check its name and PATH", _CANNOT_RUN if there else _NOT_FOUND
    )


def _end_by(number: int) -> None:
    """End by the signal that ended the command, as a shell's caller expects it; without a core of our own."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)


class _Folder:
    """A new folder of mode 0700, marked as in use, below the temporary folder."""

    def __enter__(self) -> str | None:
        self._path: str | None = None
        try:
            self._path = tempfile.mkdtemp(prefix=f"{places.APP_NAME}-new-")
            lock = os.open(f"{self._path}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Locked before it has the name by which others look for what is left over.
            marked = self._path.replace(f"{places.APP_NAME}-new-", f"{_PREFIX}{os.geteuid()}-")
            os.rename(self._path, marked)
            self._path = marked
        except OSError as problem:
            diagnostics.trace(f"no folder for this run's tokens, so none is kept: {problem.strerror}")
        return self._path

    def __exit__(self, *exc: object) -> None:
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)


def _remove_leftovers() -> None:
    """Remove what killed runs of this user have left; runs under way keep theirs."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if not entry.name.startswith(f"{_PREFIX}{os.geteuid()}-"):
                continue
            with contextlib.suppress(OSError):
                found = entry.stat(follow_symlinks=False)
                if found.st_uid != os.geteuid() or not entry.is_dir(follow_symlinks=False):
                    continue
                lock = os.open(f"{entry.path}/{_LOCK}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path)
                finally:
                    os.close(lock)
