"""Child processes of ours: no secret in their environment or arguments, and an end with the call that started them."""

import contextlib
import os
import signal
import subprocess
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

_running: set["subprocess.Popen[bytes]"] = set()


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
    _running.add(process)
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
            _kill(process)
        status = process.wait()
        errors.join(_GRACE)  # What it started and left behind may hold the pipe.
        return Done(status, output, bytes(errors.data))
    finally:
        _kill(process)
        process.wait()
        _running.discard(process)


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


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def start(command: list[str], *, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start ``command``, in a process group of its own, with its output in a pipe; `end_all` ends it with the call.

    Raises OSError.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    )
    _running.add(process)
    return process


def ended(process: "subprocess.Popen[bytes]") -> None:
    """Take note that ``process`` has ended by itself."""
    _running.discard(process)


def end_all() -> None:
    """End what still runs, and all that it started: a call that gives up leaves no process behind."""
    for process in list(_running):
        _kill(process)
