"""The audit of a broker: one line of JSON for each request, before the answer.

If the line cannot be written, there is no token.

Sources: syslog(3) (the facility ``authpriv``), RFC 3164 section 4.1 (its line).
"""

import errno
import fcntl
import json
import os
import socket
import stat
import time
from typing import Protocol

from git_credential_bbjwt.core.failures import AuditError, UsageError
from git_credential_bbjwt.core.ownership import open_to_append

#: Characters of a value: nobody can fill the disk with one line.
LONGEST_VALUE = 512

# authpriv (10) and info (6), as RFC 3164 counts them together.
_PRIORITY = 10 * 8 + 6
_SYSLOG = "/dev/log"

# Seconds to wait for the system's log, and for another process that writes to the same file.
_PATIENCE = 2.0
_PAUSE = 0.01


class NoSyslogError(AuditError):
    """No syslog answers, as in most containers."""

    usual_hint = "start a syslog service, or name a file: --audit /var/log/bbjwt.log"


class Audit(Protocol):
    """Where lines go."""

    def write(self, line: bytes) -> None:
        """Write one line. Raises AuditError, and then there is no token."""


def audit_to(where: str) -> Audit:
    """Return the audit that ``--audit`` names. Raises UsageError."""
    if where == "none":
        return _NoAudit()
    if where == "syslog":
        return _Syslog()
    if os.path.isabs(where):
        return _File(where)
    raise UsageError("--audit needs syslog, none, or the absolute path of a file")


def audit_line(asker: dict[str, object], *, longest: int = LONGEST_VALUE, **fields: object) -> bytes:
    """Return one line; each value has at most ``longest`` characters."""
    content = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "asker": asker, **fields}
    return json.dumps(_bounded(content, longest)).encode()


def _bounded(value: object, longest: int) -> object:
    if isinstance(value, dict):
        return {key: _bounded(inner, longest) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_bounded(inner, longest) for inner in value]
    return value[:longest] if isinstance(value, str) else value


class _NoAudit:
    def write(self, line: bytes) -> None:
        """Nobody wants to know."""


class _File:
    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, line: bytes) -> None:
        """Append the line in one ``write``; if only a part of it fits, take that part back."""
        try:
            fd = open_to_append(self._path)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o022:
                    raise AuditError(f"the audit file {self._path} is not a regular file, or others can write to it")
                self._append(fd, line + b"\n")
            finally:
                os.close(fd)
        except OSError as problem:
            raise AuditError(f"the audit cannot be written to {self._path}: {problem.strerror}") from problem

    def _append(self, fd: int, line: bytes) -> None:
        """Write under a lock: the part that is taken back must be this line's, not that of another process."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise AuditError(f"another process holds the audit file {self._path} locked") from None
                time.sleep(_PAUSE)
        before = os.fstat(fd).st_size
        written = os.write(fd, line)
        if written != len(line):
            os.ftruncate(fd, before)
            raise AuditError(f"the audit line does not fit into {self._path}")


class _Syslog:
    def write(self, line: bytes) -> None:
        """Send the line to the system's log."""
        text = f"<{_PRIORITY}>git-credential-bbjwt[{os.getpid()}]: ".encode() + line
        try:
            try:
                self._send(socket.SOCK_DGRAM, text)
            except OSError as problem:
                if problem.errno != errno.EPROTOTYPE:
                    raise
                self._send(socket.SOCK_STREAM, text + b"\0")
        except OSError as problem:
            raise NoSyslogError(
                f"the audit cannot be written: there is no syslog here ({_SYSLOG}: {problem.strerror or 'timeout'})",
            ) from problem

    @staticmethod
    def _send(kind: socket.SocketKind, text: bytes) -> None:
        with socket.socket(socket.AF_UNIX, kind) as log:
            log.settimeout(_PATIENCE)
            log.connect(_SYSLOG)
            log.sendall(text)
