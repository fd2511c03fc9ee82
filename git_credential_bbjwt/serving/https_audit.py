"""The https broker's audit: one line of JSON for each request, short enough that lines of several workers do not mix.

Sources: write(2) and pipe(7), "PIPE_BUF": a shorter write to a pipe is atomic; README.md in this folder, "Audit".
"""

import os
import select
import threading
import time

from git_credential_bbjwt.core.failures import AuditError
from git_credential_bbjwt.serving.audit import Audit, audit_line, audit_to

# Bytes of a line with its end: PIPE_BUF on Linux.
_LONGEST_LINE = 4096

# Characters of a value; fewer if the line would be too long.
_LONGEST_VALUES = (200, 100, 50, 20)

# How many claims, rules, elements of a list are shown.
_MOST_ELEMENTS = 30

# Lines a minute and worker about requests without an identity: else anybody could fill a disk.
_MOST_ANONYMOUS = 60

# Seconds that whoever reads standard output may take.
_PATIENCE = 5


class Log:
    """Writes the lines of one worker."""

    def __init__(self, where: str) -> None:
        self._audit = _StandardOutput() if where == "-" else audit_to(where)
        self._lock = threading.Lock()
        self._minute = 0
        self._anonymous = 0
        self._left_out = 0

    def write(self, asker: dict[str, object], *, anonymous: bool, **fields: object) -> None:
        """Write a line, unless it is about one request too many of those without an identity. Raises AuditError."""
        with self._lock:
            minute = int(time.monotonic() // 60)
            if minute != self._minute:
                self._minute, self._anonymous = minute, 0
            self._anonymous += anonymous
            if anonymous and self._anonymous > _MOST_ANONYMOUS:
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        if left_out:
            fields["left_out"] = left_out
        try:
            self._audit.write(line(asker, fields))
        except AuditError:
            with self._lock:
                self._left_out += left_out
            raise


def line(asker: dict[str, object], fields: dict[str, object]) -> bytes:
    """Return a line, without its end, that is shorter than a pipe takes at once."""
    asker = {name: _shown(value) for name, value in asker.items()}
    for longest in _LONGEST_VALUES:
        found = audit_line(asker, longest=longest, **fields)
        if len(found) < _LONGEST_LINE - 1:
            return found
    short = {name: value for name, value in asker.items() if name not in ("claims", "rules")}
    return audit_line({**short, "is_cut": True}, longest=longest, **fields)


def _shown(value: object) -> object:
    """Return what is shown of a claim, which its issuer made as large as it likes."""
    if isinstance(value, dict):
        inner = list(value.items())[:_MOST_ELEMENTS]
        return {str(key)[: _LONGEST_VALUES[0]]: _shown(one) for key, one in inner}
    if isinstance(value, list):
        return [_shown(one) for one in value[:_MOST_ELEMENTS]]
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return "a number that is too large to show"
    return value


class _StandardOutput(Audit):
    def write(self, line: bytes) -> None:
        """Write the line in one ``write``."""
        line += b"\n"
        try:
            waiting = select.poll()
            waiting.register(1, select.POLLOUT)
            if not waiting.poll(_PATIENCE * 1000):
                raise AuditError(f"nobody has read standard output for {_PATIENCE} s, so the audit cannot be written")
            written = os.write(1, line)
        except OSError as problem:
            raise AuditError(f"the audit cannot be written to standard output: {problem.strerror}") from problem
        if written != len(line):
            raise AuditError("the audit line does not fit into standard output")
