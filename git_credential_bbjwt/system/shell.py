"""Command lines that a person wrote, run by a shell: without a terminal, and with an end whatever happens."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple, cast

from git_credential_bbjwt.system import child_process


class Done(NamedTuple):
    """What a shell's command came to; ``output`` is one byte longer than was wanted where it was too long."""

    status: int
    output: bytes
    errors: bytes


# What of a command's standard error is kept. Bytes.
_MOST_ERRORS = 64 * 1024


def run(command: str, data: bytes, *, most: int, env: dict[str, str]) -> Done:
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
    child_process.running.add(process.pid)
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
            child_process.kill(process.pid)
        status = process.wait()
        errors.join(_GRACE)  # What it started and left behind may hold the pipe.
        return Done(status, output, bytes(errors.data))
    finally:
        child_process.kill(process.pid)
        process.wait()
        child_process.running.discard(process.pid)


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
    child_process.end_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
