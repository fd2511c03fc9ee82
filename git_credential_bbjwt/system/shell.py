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


def run(command: str, data: bytes, *, most: int, env: dict[str, str], seconds: float | None = None) -> Done:
    """Run a command line by ``sh -c``, on Windows by ``cmd /c``, without a terminal; it ends, with all that it started.

    It ends with this process even after SIGTERM, SIGINT or SIGHUP; its first process, on Linux, even after SIGKILL. It
    ends after ``seconds``, which a process needs that does not end with its own budget. Raises CredentialError where no
    shell can be run.
    """
    process, end = _start(command, subprocess.PIPE if data else subprocess.DEVNULL, env)
    assert process.stdout is not None
    assert process.stderr is not None
    late = None if seconds is None else threading.Timer(seconds, end)
    if late is not None:
        late.daemon = True
        late.start()
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
            end()
        status = process.wait()
        errors.join(_GRACE)  # What it started and left behind may hold the pipe.
        return Done(status, _as_lines(output), bytes(errors.data))
    finally:
        if late is not None:
            late.cancel()
        end()
        process.wait()
        process.stdout.close()
        process.stderr.close()


# Seconds for the rest of a standard error whose command has ended.
_GRACE = 0.2


class _Gathered(threading.Thread):
    """Reads a pipe to its end, and keeps the last of it."""

    def __init__(self, fd: int, most: int) -> None:
        super().__init__(daemon=True)
        self.data = bytearray()
        self._fd, self._most = os.dup(fd), most
        self.start()

    def run(self) -> None:
        try:
            while piece := os.read(self._fd, 65_536):
                self.data += piece
                del self.data[: -self._most]
        except OSError:
            pass  # There is no more.
        finally:
            os.close(self._fd)


if sys.platform == "win32":
    from git_credential_bbjwt.system.windows.processes import Job

    def _as_lines(output: bytes) -> bytes:
        # Most programs there end a line with two characters; git takes the first for nothing, too.
        return output.replace(b"\r\n", b"\n")

    def _start(command: str, stdin: int, env: dict[str, str]) -> "tuple[subprocess.Popen[bytes], Callable[[], None]]":
        # By its path: Windows would look into the current folder first. It ends with its job.
        cmd = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "cmd.exe")
        process = subprocess.Popen(
            f'"{cmd}" /d /s /c "{command}"',
            executable=cmd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            **child_process.ALONE,
        )
        return process, Job(process).end

else:
    _PR_SET_PDEATHSIG = 1

    def _as_lines(output: bytes) -> bytes:
        return output

    def _start(command: str, stdin: int, env: dict[str, str]) -> "tuple[subprocess.Popen[bytes], Callable[[], None]]":
        prctl = _prctl()
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
            preexec_fn=(lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)) if prctl else None,
        )
        child_process.running.add(process.pid)
        if threading.current_thread() is threading.main_thread():  # A server's signal handlers stay as they are.
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, _end_by_signal)

        def end() -> None:
            child_process.kill(process.pid)
            child_process.running.discard(process.pid)

        return process, end

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
