"""One answer on standard output to one request on standard input: a broker behind sshd or a systemd socket unit.

Whoever started this process has authenticated the client. Sources: git-credential(1) (the format), README.md beside
this file (how it is started).
"""

import contextlib
import os
import select
import signal
import stat
import time
from collections.abc import Callable

from git_credential_bbjwt.core.failures import MalformedRequestError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import PREFIX, divert
from git_credential_bbjwt.core.protocol import write_answer
from git_credential_bbjwt.serving.answer import internal_error
from git_credential_bbjwt.serving.answering import Answering, OperatorSettings
from git_credential_bbjwt.serving.audit import LONGEST_VALUE, Audit, Write
from git_credential_bbjwt.serving.client import identify_client
from git_credential_bbjwt.serving.limits import tidy_folder
from git_credential_bbjwt.serving.operators_files import operators_folder
from git_credential_bbjwt.system import child_process
from git_credential_bbjwt.system.budget import Budget

# Seconds for the whole answer, unless ``--timeout`` says otherwise. It is less than the client's own budget, so that
# the reason reaches the client.
_DEFAULT_TIMEOUT = 45.0

# A request is a few hundred bytes, and git writes it at once. Bytes, seconds.
_LONGEST_REQUEST = 64 * 1024
_LONGEST_WAIT = 10.0

# Seconds for writing the audit's line, the answer and standard error, if the budget leaves less.
_LONGEST_END = 4.5


def serve(
    options: HelperOptions, read_settings: Callable[[HelperOptions], OperatorSettings], write: Write, label: str
) -> int:
    """Answer the request on standard input; return the exit status.

    ``read_settings`` reads the operator's settings, and may raise CredentialError. ``write`` is from `audit_to`.
    Every answer ends with a blank line.
    """
    if "--timeout" not in options.given:
        options = options.replaced(timeout=_DEFAULT_TIMEOUT)
    warnings: list[str] = []
    # Nothing is written to standard error before the answer, because the client may never read it.
    divert(lambda mark, text: warnings.append(text) if "warning" in mark else None)
    budget = Budget(options.timeout)
    end = time.monotonic() + options.timeout
    if options.installation_command is not None:
        from git_credential_bbjwt.system.shell import end_children_on_signals  # Slow to load.

        end_children_on_signals()  # The thread that runs the command cannot set this.
    try:
        answer = Answering(lambda: read_settings(options), budget).answer(_read_request)
    except Exception as problem:  # For example, no thread can be started. The client must get an answer.
        answer = internal_error(problem)
    answer = answer._replace(cause="; ".join(filter(None, [answer.cause, *warnings])))
    client = identify_client() | ({"label": label} if label else {})
    _end_in(max(_LONGEST_END, end - time.monotonic()))
    answer = Audit(write, LONGEST_VALUE).record(answer, client, options.scope)
    write_answer(answer.lines)
    if answer.reason and not _is_shared_socket():  # On a shared socket, the line would follow the answer.
        with contextlib.suppress(OSError):
            os.write(2, f"{PREFIX}error: {answer.reason}\n".encode())
    signal.setitimer(signal.ITIMER_REAL, 0)
    if answer.digest or answer.status not in (200, 400):  # Refusals leave files, too.
        tidy_folder(operators_folder())
    return 0 if answer.status == 200 else 1


def _end_in(seconds: float) -> None:
    """End this process and its children after ``seconds``, whatever it is waiting for: the audit's disk, or a reader.

    It uses a signal, because a thread cannot always be started.
    """

    def end(*_: object) -> None:
        child_process.end_all()
        os._exit(1)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _is_shared_socket() -> bool:
    """Return whether standard error is the socket of the answers."""
    answers, errors = os.fstat(1), os.fstat(2)
    return stat.S_ISSOCK(answers.st_mode) and os.path.samestat(answers, errors)


def _read_request() -> bytes:
    """Return the request on standard input, which is not trusted. Raises MalformedRequestError."""
    end = time.monotonic() + _LONGEST_WAIT
    data = b""
    while not (data.startswith(b"\n") or b"\n\n" in data):
        left = end - time.monotonic()
        if left <= 0 or not select.select([0], [], [], left)[0]:
            raise MalformedRequestError(f"no complete request came within {_LONGEST_WAIT:.0f} s")
        piece = os.read(0, 65_536)
        if not piece:
            break
        data += piece
        if len(data) > _LONGEST_REQUEST:
            raise MalformedRequestError(f"the request is over {_LONGEST_REQUEST} bytes long")
    return data
