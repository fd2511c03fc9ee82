"""Run a user's command line in a shell, without a terminal, and end it in any case."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from git_credential_bbjwt.system import child_process


class Done(NamedTuple):
    """The result of a command. If ``output`` was too long, it is cut to one byte more than the limit."""

    status: int
    output: bytes
    errors: bytes


#: Whether this process is the helper's own. A server's process has signal handlers and children of its own.
owns_process = True

#: Number of bytes that are kept of the end of a command's standard error.
MOST_ERRORS = 64 * 1024


def run(command: str, data: bytes, *, most: int, env: dict[str, str], seconds: float | None = None) -> Done:
    """Run a command line by ``sh -c`` (on Windows by ``cmd /c``); then end everything that it started.

    The command has no terminal. It also ends if SIGTERM, SIGINT or SIGHUP ends this process. On Linux, its first
    process ends even if SIGKILL ends this process. ``seconds`` limits its time in a process that has no watchdog.
    Raises OSError if no shell can be run.
    """
    if owns_process and threading.current_thread() is threading.main_thread():
        end_children_on_signals()
    process, end = _start(command, subprocess.PIPE if data else subprocess.DEVNULL, env)
    assert process.stdout is not None
    assert process.stderr is not None
    late = None if seconds is None else threading.Timer(seconds, end)
    if late is not None:
        late.daemon = True
        late.start()
    printed, complained = bytearray(), bytearray()

    def keep_output(piece: bytes) -> None:
        if len(printed) <= most:
            printed.extend(piece[: most + 1 - len(printed)])
            if len(printed) > most:
                end()

    def keep_errors(piece: bytes) -> None:
        complained.extend(piece)
        del complained[:-MOST_ERRORS]

    output = _Reader(process.stdout.fileno(), keep_output)
    errors = _Reader(process.stderr.fileno(), keep_errors)
    try:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(data)
                process.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        status = process.wait()
        output.finish()
        errors.finish()
        return Done(status, _as_lines(bytes(printed)), bytes(complained))
    finally:
        if late is not None:
            late.cancel()
        end()
        process.wait()
        process.stdout.close()
        process.stderr.close()


# Seconds between two checks whether everything is read; and on Windows, seconds to wait for the rest of the output.
_PAUSE, _GRACE = 0.001, 5.0


class _Reader(threading.Thread):
    """A thread that reads a pipe to its end and passes each piece to ``keep``."""

    def __init__(self, fd: int, keep: Callable[[bytes], None]) -> None:
        super().__init__(daemon=True)
        self._keep = keep
        self._fd = os.dup(fd)
        self._reading = threading.Lock()
        self.start()

    def run(self) -> None:
        try:
            while self._has_more(None):
                with self._reading:
                    piece = os.read(self._fd, 65_536)
                    if not piece:
                        break
                    self._keep(piece)
        except OSError:
            pass  # The output has ended.
        finally:
            with self._reading:
                os.close(self._fd)
                self._fd = -1

    def finish(self) -> None:
        """Wait until the pipe is empty. The command has ended, but processes that it left may keep the pipe open."""
        if sys.platform == "win32":
            self.join(_GRACE)
            return
        while self.is_alive():
            with self._reading:
                if self._fd < 0 or not self._has_more(0):
                    return
            time.sleep(_PAUSE)

    def _has_more(self, wait: int | None) -> bool:
        """Return whether a read would not block, now (0) or after a wait (None)."""
        if sys.platform == "win32":  # Windows cannot poll a pipe.
            return True
        import select

        waiting = select.poll()
        waiting.register(self._fd, select.POLLIN)
        return bool(waiting.poll(wait))


if sys.platform == "win32":
    from git_credential_bbjwt.system.windows_processes import Job

    def end_children_on_signals() -> None:
        """Do nothing, because a command's processes end with its job."""

    def _as_lines(output: bytes) -> bytes:
        # Most Windows programs end a line with a carriage return and a line feed. Git ignores the former, too.
        return output.replace(b"\r\n", b"\n")

    def _start(command: str, stdin: int, env: dict[str, str]) -> "tuple[subprocess.Popen[bytes], Callable[[], None]]":
        # The shell is started by its path, because Windows would look into the current folder first.
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
    _PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

    def _as_lines(output: bytes) -> bytes:
        return output

    def end_children_on_signals() -> None:
        """From now on, let SIGTERM, SIGINT and SIGHUP first end all child processes and what these started.

        Call this in the main thread. A daemon that a command starts becomes a child of this process.
        """
        prctl = _prctl()
        if prctl is not None:
            child_process.adopts_orphans = prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _end_by_signal)

    def _start(command: str, stdin: int, env: dict[str, str]) -> "tuple[subprocess.Popen[bytes], Callable[[], None]]":
        prctl, parent = _prctl(), os.getpid()

        def end_with_parent() -> None:
            if prctl is not None:
                prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # The parent ended before that.
                os._exit(1)

        with child_process.starting:
            process = subprocess.Popen(
                ["sh", "-c", command],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
            child_process.running.add(process.pid)

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
