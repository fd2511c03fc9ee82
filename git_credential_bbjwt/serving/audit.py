"""The audit of a broker: one line of JSON for each request, before the answer.

If the line cannot be written, there is no token. A line is shorter than PIPE_BUF, so that lines of several processes
do not mix. Sources: syslog(3) (the facility ``authpriv``), RFC 3164 section 4.1 (its line), pipe(7) (``PIPE_BUF``).
"""

import errno
import fcntl
import functools
import json
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable

from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.files import open_to_append
from git_credential_bbjwt.core.output import error
from git_credential_bbjwt.serving.answer import Answer, DeniedError, refusal
from git_credential_bbjwt.serving.limits import MinuteCounter

#: Writes one line; raises OSError or AuditError, and then there is no token.
Write = Callable[[bytes], None]

#: Characters of a value, in the audit of `serve` and of the https broker.
LONGEST_VALUE, LONGEST_VALUE_BY_HTTPS = 512, 200

# Characters of a value in a line that would be too long.
_CUTS = (100, 50, 20)

# Bytes of a line with its end: PIPE_BUF on Linux.
_LONGEST_LINE = 4096

# How many claims, rules, elements of a list are shown.
_MOST_ELEMENTS = 30

# Lines a minute and worker about requests that anybody can send, who could fill a disk otherwise: no identity is
# proved, or the request is not one of the helper's.
_MOST_ANONYMOUS = 60
_ANONYMOUS = (
    400,
    401,
    413,
    415,
    503,
)

# authpriv (10) and info (6), as RFC 3164 counts them together.
_PRIORITY = 10 * 8 + 6
_SYSLOG = "/dev/log"

# Seconds to wait for the system's log, for another process that writes to the same file, and for the reader of
# standard output; and for a disk, which may hang.
_PATIENCE = 2.0
_PATIENCE_WITH_READER = 3
_PATIENCE_WITH_DISK = 4
_PAUSE = 0.01


class AuditError(DeniedError):
    """The audit cannot be written, so there is no token."""

    status = 503
    usual_hint = "the broker's operator must check the path that --audit names, its mode, and the space on its disk"

    def __init__(self, why: str, hint: str = "", reason: str = "") -> None:
        what = f"the audit cannot be written: {why}"
        super().__init__(what, hint, reason=f"the audit cannot be written, so there is no token{reason}")


class Audit:
    """The audit of one process. ``write`` writes a line; each value has at most ``longest`` characters."""

    def __init__(self, write: Write, longest: int) -> None:
        self._write = write
        self._longest = longest
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._anonymous = MinuteCounter()
        self._left_out = 0

    def record(self, answer: Answer, client: dict[str, object], scope: str, **fields: object) -> Answer:
        """Return ``answer``, once its line is written; without the line, an answer without a token."""
        with self._lock:
            if answer.status in _ANONYMOUS and self._anonymous.count("") > _MOST_ANONYMOUS:
                self._left_out += 1
                return answer
            left_out, self._left_out = self._left_out, 0
        if left_out:
            fields["left_out"] = left_out
        try:
            self._write_in_time(audit_line(answer, client, scope, self._longest, **fields))
        except AuditError as problem:
            trouble = problem
        except Exception as problem:  # After any error, the line was not written.
            trouble = AuditError(getattr(problem, "strerror", None) or type(problem).__name__)
        else:
            return answer
        with self._lock:
            self._left_out += left_out
        error(trouble.what, trouble.hint)
        return refusal(trouble, answer.repository)

    def _write_in_time(self, line: bytes) -> None:
        """Write ``line`` in another thread, because nothing can interrupt the wait for a disk that hangs.

        It writes one line at a time, so that such a disk holds one thread, and not one for each request. Raises as
        ``write`` does; OSError if the line is not written in time.
        """
        end = time.monotonic() + _PATIENCE_WITH_DISK
        late = OSError(errno.ETIMEDOUT, f"a line was not written within {_PATIENCE_WITH_DISK} s")
        problems: list[Exception] = []
        if not self._writing.acquire(timeout=_PATIENCE_WITH_DISK):
            raise late

        def write() -> None:
            try:
                self._write(line)
            except Exception as problem:  # It is raised again by the thread that waits.
                problems.append(problem)
            finally:
                self._writing.release()

        thread = threading.Thread(target=write, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # There is no room for a thread.
            write()
        else:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                raise late
        if problems:
            raise problems[0]


def audit_to(where: str) -> Write:
    """Return what writes to the place that ``--audit`` names. Raises UsageError."""
    if where == "none":
        return lambda _: None
    if where == "syslog":
        return _to_syslog
    if os.path.isabs(where):
        return functools.partial(_to_file, where)
    raise UsageError("--audit needs syslog, none, or the absolute path of a file", "write for example --audit syslog")


def audit_line(answer: Answer, client: dict[str, object], scope: str, longest: int, **fields: object) -> bytes:
    """Return one line without its end. Each value has at most ``longest`` characters, or fewer to shorten the line.

    ``client`` is what is known about the client: the member ``asker`` of the line.
    """
    content: dict[str, object] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "asker": client,
        "repository": answer.repository,
        "scope": scope,
        "outcome": answer.outcome,
        "reason": answer.cause,
        "expires": answer.expires,
        "digest": answer.digest,
        **fields,
    }
    for cut in (longest, *_CUTS):
        line = json.dumps(_bounded(content, cut)).encode()
        if len(line) < _LONGEST_LINE - 1:
            return line
    content["asker"] = {name: client[name] for name in client if name not in ("claims", "rules")} | {"is_cut": True}
    return json.dumps(_bounded(content, cut)).encode()


def _bounded(value: object, longest: int) -> object:
    """Return the part of a value that is shown. A claim was made as large as its issuer likes."""
    if isinstance(value, dict):
        inner = list(value.items())[:_MOST_ELEMENTS]
        return {str(key)[:longest]: _bounded(one, longest) for key, one in inner}
    if isinstance(value, list):
        return [_bounded(one, longest) for one in value[:_MOST_ELEMENTS]]
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return "a number that is too large to show"
    return value[:longest] if isinstance(value, str) else value


def _to_file(path: str, line: bytes) -> None:
    """Append the line in one ``write``; if only a part of it fits, take that part back."""
    fd = open_to_append(path)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o022:
            raise OSError(errno.EPERM, "it is not a regular file, or others can write to it")
        _lock(fd)  # The part that is taken back must be this line's, not that of another process.
        before = os.fstat(fd).st_size
        if os.write(fd, line + b"\n") != len(line) + 1:
            os.ftruncate(fd, before)
            raise OSError(errno.ENOSPC, "the line does not fit")
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise OSError(errno.ETIMEDOUT, "another process holds it locked") from None
            time.sleep(_PAUSE)


def to_standard_output(line: bytes) -> None:
    """Write the line in one ``write``. Raises OSError, also if nobody reads it."""
    waiting = select.poll()
    waiting.register(1, select.POLLOUT)
    if not waiting.poll(_PATIENCE_WITH_READER * 1000):
        raise OSError(errno.ETIMEDOUT, f"nobody has read standard output for {_PATIENCE_WITH_READER} s")
    if os.write(1, line + b"\n") != len(line) + 1:
        raise OSError(errno.ENOSPC, "the line does not fit into standard output")


def _to_syslog(line: bytes) -> None:
    text = f"<{_PRIORITY}>git-credential-bbjwt[{os.getpid()}]: ".encode() + line
    try:
        try:
            _send(socket.SOCK_DGRAM, text)
        except OSError as problem:
            if problem.errno != errno.EPROTOTYPE:
                raise
            _send(socket.SOCK_STREAM, text + b"\0")
    except OSError as problem:
        raise AuditError(
            f"there is no syslog here ({_SYSLOG}: {problem.strerror or 'timeout'})",
            "start a syslog service, or name a file: --audit /var/log/bbjwt.log",
            ": there is no syslog here",
        ) from problem


def _send(kind: socket.SocketKind, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX, kind) as log:
        log.settimeout(_PATIENCE)
        log.connect(_SYSLOG)
        log.sendall(text)
