"""Child processes of ours: no secret in their environment or arguments, and an end with the call that started them."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple, cast

from git_credential_bbjwt.system import places

#: The variables that hold secrets: never passed on to a child process.
SECRET_VARIABLES = ("BBJWT_INSTALLATION", "BBJWT_INSTALLATION_COMMAND", "BBJWT_JWT")

# Git's trace variables would make a child write into our output or the user's trace file.
_TRACE_PREFIX = "GIT_TRACE"

# What may hold a password and only a keyring backend has a use for: a proxy's URL; a backend's properties and
# passwords.
_PROXY_SUFFIX = "_proxy"
_OF_GIT_CONFIG = "GIT_CONFIG"  # Only `git config` reads it: with it, it would tell of settings that git does not have.
_KEYRING_PREFIX = "KEYRING_"

# The process groups that still run.
_running: set[int] = set()


def for_keyring() -> dict[str, str]:
    """Return the environment for a keyring's process: ours, less what holds our secrets and what makes git talk.

    A home folder of somebody else is left out, too: the configuration in it names code to run.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in SECRET_VARIABLES and not name.startswith(_TRACE_PREFIX) and not places.is_anothers(name)
    }


def for_git() -> dict[str, str]:
    """Return the environment for git, which uses no network and no keyring here."""
    return {
        name: value
        for name, value in for_keyring().items()
        if not name.lower().endswith(_PROXY_SUFFIX) and not name.startswith(_KEYRING_PREFIX) and name != _OF_GIT_CONFIG
    }


class Done(NamedTuple):
    """What a shell's command came to; ``output`` is one byte longer than was wanted where it was too long."""

    status: int
    output: bytes
    errors: bytes


# What of a command's standard error is kept. Bytes.
_MOST_ERRORS = 64 * 1024


def for_broker() -> dict[str, str]:
    """Return the environment for a broker or an installation command: without our secrets, and nobody to prompt."""
    environment = {name: value for name, value in for_keyring().items() if name not in _ASKING}
    environment["SSH_ASKPASS_REQUIRE"] = "never"
    return environment


_ASKING = ("SSH_ASKPASS", "SUDO_ASKPASS", "GIT_ASKPASS")


def run_shell(command: str, data: bytes, *, most: int, env: dict[str, str]) -> Done:
    """Run a command line by ``sh -c`` without a terminal, and end it and all that it started, whatever happens.

    It ends with this process even after SIGTERM, SIGINT or SIGHUP; its first process, on Linux, even after SIGKILL.
    Raises CredentialError where no shell can be run.
    """
    import subprocess

    prctl = _prctl()
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.PIPE if data else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
        preexec_fn=(lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)) if prctl else None,
    )
    _running.add(process.pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end_by_signal)
    assert process.stdout is not None
    assert process.stderr is not None
    errors = _Gathered(process.stderr.fileno(), _MOST_ERRORS)
    try:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(data)
                process.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        output = b""
        while len(output) <= most and (piece := os.read(process.stdout.fileno(), 65_536)):
            output += piece
        if len(output) > most:
            _kill(process.pid)
        status = process.wait()
        errors.join(_GRACE)  # What it started and left behind may hold the pipe.
        return Done(status, output, bytes(errors.data))
    finally:
        _kill(process.pid)
        process.wait()
        _running.discard(process.pid)


# Seconds for the rest of a standard error whose command has ended.
_GRACE = 0.2

_PR_SET_PDEATHSIG = 1


class _Gathered(threading.Thread):
    """Reads a pipe to its end, and keeps the last of it."""

    def __init__(self, fd: int, most: int) -> None:
        super().__init__(daemon=True)
        self.data = bytearray()
        self._fd, self._most = os.dup(fd), most
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while piece := os.read(self._fd, 65_536):
                self.data += piece
                del self.data[: -self._most]


def _prctl() -> Callable[[int, int], int] | None:
    if sys.platform != "linux":
        return None
    import ctypes

    try:
        return cast("Callable[[int, int], int]", ctypes.CDLL(None).prctl)
    except (OSError, AttributeError):
        return None


def _end_by_signal(number: int, _: object) -> None:
    end_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


class Spawned:
    """A process whose whole output is wanted, in a process group of its own; `end_all` ends it with the call.

    By posix_spawn(3): the usual module for processes costs as much to import as this process takes.
    """

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        """Start it. Raises OSError."""
        self._output, theirs = os.pipe()
        try:
            actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, theirs, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ]
            self.pid = os.posix_spawnp(command[0], command, env, file_actions=actions, setpgroup=0)
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(theirs)
        _running.add(self.pid)

    def finish(self) -> tuple[int, bytes]:
        """Wait for its end; return its exit status, and its standard output."""
        data = b""
        while piece := os.read(self._output, 65_536):
            data += piece
        os.close(self._output)
        _, status = os.waitpid(self.pid, 0)
        _running.discard(self.pid)
        return os.waitstatus_to_exitcode(status), data


def end_all() -> None:
    """End what still runs, and all that it started: a call that gives up leaves no process behind."""
    for pid in list(_running):
        _kill(pid)
