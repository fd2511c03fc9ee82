"""Child processes on Windows. They have no window, and they end with this process, as does all that they started."""

import ctypes
import os
import subprocess
import sys
import threading
from ctypes import wintypes
from typing import Any

assert sys.platform == "win32"

#: Arguments of `subprocess` for a process that has no console to prompt on.
ALONE: dict[str, Any] = {"creationflags": subprocess.CREATE_NO_WINDOW}

_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateJobObjectW.restype = wintypes.HANDLE
_kernel32.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
_kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
_kernel32.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
_kernel32.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)


class _Limits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("times", ctypes.c_int64 * 2),
        ("flags", wintypes.DWORD),
        ("working_set", ctypes.c_size_t * 2),
        ("processes", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("classes", wintypes.DWORD * 2),
        ("counters", ctypes.c_uint64 * 6),
        ("memory", ctypes.c_size_t * 4),
    )


class Job:
    """A process and all that it starts. They end with this process, or at once by `end` ("Job Objects")."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        """Put ``process`` into a job. Raises OSError."""
        limits, extended, kill_on_close = _Limits(), 9, 0x2000
        limits.flags = kill_on_close
        self._handle = _kernel32.CreateJobObjectW(None, None)
        _kernel32.SetInformationJobObject(self._handle, extended, ctypes.byref(limits), ctypes.sizeof(limits))
        if not _kernel32.AssignProcessToJobObject(self._handle, int(process._handle)):  # type: ignore[attr-defined]  # the only way
            process.kill()
            raise ctypes.WinError(ctypes.get_last_error())
        _jobs.append(self)

    def end(self) -> None:
        """End all processes of the job."""
        _kernel32.TerminateJobObject(self._handle, 1)
        if self in _jobs:
            _jobs.remove(self)


_jobs: "list[Job]" = []


def find(program: str) -> str:
    """Return the path of ``program`` on PATH, because Windows itself would look into the current folder first.

    Raises FileNotFoundError.
    """
    name = program if program.lower().endswith(".exe") else program + ".exe"
    if os.path.isabs(program):
        return program
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(folder.strip('"'), name)
        if os.path.isabs(path) and os.path.isfile(path):
            return path
    raise FileNotFoundError(2, "it is not on PATH", program)


def end_after(seconds: int) -> None:
    """End this process after ``seconds``, whatever it is waiting for."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


class Spawned:
    """A process whose output is read to the end. `end_all` ends the process with the call."""

    def __init__(
        self, command: list[str], env: dict[str, str], request: bytes = b"", *, at_terminal: bool = False
    ) -> None:
        """Start the process and write ``request`` to it; with ``at_terminal``, it may prompt. Raises OSError."""
        self._process = subprocess.Popen(
            [find(command[0]), *command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if at_terminal else subprocess.DEVNULL,
            env=env,
            **({} if at_terminal else ALONE),
        )
        self._job = Job(self._process)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.close()
        except OSError:
            pass  # It ended without reading its input. Its output shows that.
        self._process.stdin = None

    def finish(self, seconds: float | None = None) -> tuple[int, bytes]:
        """Wait for the end of the process; return its exit status and its standard output.

        If that takes longer than ``seconds``, end the process. Raises TimeoutError then.
        """
        try:
            output, _ = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise TimeoutError from None
        self._job.end()
        return self._process.returncode, output

    def stop(self) -> None:
        """End the process at once."""
        self._job.end()
        self._process.wait()


def end_all() -> None:
    """End all running child processes and everything that they started."""
    for job in list(_jobs):
        job.end()
