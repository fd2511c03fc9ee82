"""The audit of a broker: one line of JSON for each request, before the answer. Where it fails, there is no token.

Sources: syslog(3) (the facility ``authpriv``), RFC 3164 section 4.1 (its line).
"""

import json
import os
import socket
import stat
import time
from typing import Protocol

from git_credential_bbjwt.core.failures import AuditError, UsageError
from git_credential_bbjwt.system.folder import open_to_append

# Characters of a value; a line is written whole, and nobody can fill the disk with one.
_LONGEST_VALUE = 512

# authpriv (10) and info (6), as RFC 3164 counts them together.
_PRIORITY = 10 * 8 + 6
_SYSLOG = "/dev/log"


class Audit(Protocol):
    """Where lines go."""

    def write(self, line: bytes) -> None:
        """Write one line. Raises AuditError, and then there is no token."""


def audit_to(where: str) -> Audit:
    """The audit that ``--audit`` names. Raises UsageError."""
    if where == "none":
        return _NoAudit()
    if where == "syslog":
        return _Syslog()
    if os.path.isabs(where):
        return _File(where)
    raise UsageError("--audit needs syslog, none, or the absolute path of a file")


def audit_line(asker: dict[str, object], **fields: object) -> bytes:
    """One line; each value bounded."""
    content = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "asker": asker, **fields}
    return json.dumps(_bounded(content)).encode()


def _bounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _bounded(inner) for key, inner in value.items()}
    return value[:_LONGEST_VALUE] if isinstance(value, str) else value


class _NoAudit:
    def write(self, line: bytes) -> None:
        """Nobody wants to know."""


class _File:
    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, line: bytes) -> None:
        """Append in one ``write``; what of it fails to fit is taken back."""
        line += b"\n"
        try:
            fd = open_to_append(self._path)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o022:
                    raise AuditError(f"the audit file {self._path} is not a regular file, or others can write to it")
                written = os.write(fd, line)
                if written != len(line):
                    end = os.lseek(fd, 0, os.SEEK_CUR)
                    os.ftruncate(fd, end - written)
                    raise AuditError(f"the audit line does not fit into {self._path}")
            finally:
                os.close(fd)
        except OSError as problem:
            raise AuditError(f"the audit cannot be written to {self._path}: {problem.strerror}") from problem


class _Syslog:
    def write(self, line: bytes) -> None:
        """Hand the line to the system's log."""
        text = f"<{_PRIORITY}>git-credential-bbjwt[{os.getpid()}]: ".encode() + line
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try:
                with socket.socket(socket.AF_UNIX, kind) as log:
                    log.settimeout(5)
                    log.connect(_SYSLOG)
                    log.sendall(text + (b"\0" if kind == socket.SOCK_STREAM else b""))
                return
            except OSError as problem:
                last = problem
        raise AuditError(
            f"the audit cannot be written: there is no syslog here ({_SYSLOG}: {last.strerror})",
        ) from last
