"""Get tokens from a broker: by a socket, or by a command that answers one request in git's credential format.

Sources: git-credential(1), "INPUT/OUTPUT FORMAT"; ssh(1), "EXIT STATUS" (255 for an error of ssh itself); unix(7).
"""

import os
import re
import socket
import stat
import sys
import time
from shlex import quote

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.on_demand import BrokerSource
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.core.protocol import format_answer, state_entry
from git_credential_bbjwt.core.record import BROKERED
from git_credential_bbjwt.core.where import HTTPS, SOCKET, Where
from git_credential_bbjwt.system import child_process, shell
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.broker_answer import (
    HINT,
    LONGEST_ANSWER,
    is_complete,
    last_words,
    no_token,
    parse_answer,
)
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import TokenRequest

# Limit of the refused tokens that a request names. The newest are named.
_NAMED = 16

# Seconds for which the helper tries again if a broker is not reached, or if its socket does not exist yet.
_FOR_BROKER = 20.0
_FOR_SOCKET = 10.0

# Seconds before the second attempt, doubled each time, and the longest pause.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0

# ssh(1) exits with the command's status, and with this for an error of its own.
_SSH_FAILED = 255

# Words of ssh after which another attempt would fail in the same way.
_KEY_REFUSED = b"Permission denied"
_UNKNOWN_HOST = b"Host key verification failed"

# A command line that errors may show. Any other command line may contain a secret.
_PLAIN_SSH = re.compile(r"ssh( [A-Za-z0-9@._-]+)+")

# The exit status of a shell that does not find the command.
_NO_COMMAND = 127

_BUSY = "try again, because the broker may be overloaded or restarting; the log of its unit says more"


class Broker:
    """The vendor that asks a broker."""

    opens_workspace = False

    def __init__(self, broker: BrokerSource, session: Session) -> None:
        self.identity = BROKERED + digest(broker.how)
        self._broker = broker
        self._session = session

    def token(self, request: TokenRequest) -> Token | None:
        """Return the broker's token; None if the broker answers nothing. The broker's operator chose the scope.

        Raises BrokerError, and ConnectionFailedError for a broker by https.
        """
        self._session.has_asked = True
        where, repository = Where.parse(self._broker.how), request.repository
        attributes = [("capability[]", "state"), ("protocol", "https"), ("host", repository.host)]
        attributes += [("path", repository.full_name)]
        attributes += [("state[]", state_entry(one)) for one in request.refused[-_NAMED:]]
        sent = format_answer(attributes) + b"\n"
        if where.way == HTTPS:
            from git_credential_bbjwt.vendors.https_broker import ask_by_https

            return ask_by_https(self._broker, where, repository, sent, self._session, self.identity)
        try:
            answer, errors = _ask(where, sent, self._session.budget)
        except _FailedError as problem:
            raise no_token(repository, problem.reason, problem.hint) from problem
        return parse_answer(answer, errors, repository, self.identity)


class _FailedError(Exception):
    """The broker failed. ``seconds`` is the time for which another attempt may help; 0 if none helps."""

    def __init__(self, reason: str, hint: str = HINT, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.seconds = seconds


def _ask(where: Where, request: bytes, budget: Budget) -> tuple[bytes, bytes]:
    """Return the broker's answer and its standard error. Raises _FailedError.

    If the broker is not reached, try again for a while, because a restarting socket or a busy sshd refuses connections.
    """
    budget.doing = "waiting for the broker"
    started = time.monotonic()
    pause = _FIRST_PAUSE
    while True:
        try:
            if where.way == SOCKET:
                return _by_socket(where.path, request, budget), b""
            return _by_command(where.text, request)
        except _FailedError as problem:
            from random import uniform  # Slow to load, and seldom needed.

            wait = pause * uniform(0.5, 1.5)  # noqa: S311  # no key; clients that failed together come back apart
            if time.monotonic() - started + wait > problem.seconds or wait >= budget.remaining():
                raise
            trace(f"the broker was not reached ({problem.reason}); next attempt in {wait:.1f} s")
            time.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _by_socket(path: str, request: bytes, budget: Budget) -> bytes:
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise _FailedError("this system has no sockets with a path", "name the broker by a command line")
    answer = b""
    try:
        with socket.socket(family) as connection:
            connection.settimeout(budget.remaining())
            connection.connect(path)
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while not is_complete(answer):
                connection.settimeout(budget.remaining())
                piece = connection.recv(65_536)
                if not piece:
                    break
                answer += piece
    except TimeoutError as problem:
        raise budget.spent() from problem
    except OSError as problem:
        if not answer:
            raise _of_socket(path, problem) from problem
    if not answer:
        raise _closed(path)
    if not is_complete(answer):
        raise _FailedError("its answer is incomplete")
    return answer


def _of_socket(path: str, problem: OSError) -> _FailedError:
    """Return the error for the system's error at the socket ``path``."""
    what = f"cannot connect to the socket {path}: {problem.strerror or problem}"
    if isinstance(problem, FileNotFoundError):
        hint = "on the broker's machine, run: systemctl enable --now bbjwt.socket; into a container, mount its folder"
        is_expected = os.path.isdir(os.path.dirname(path))
        return _FailedError(what, hint, _FOR_SOCKET if is_expected else 0.0)
    if isinstance(problem, (ConnectionResetError, BrokenPipeError)):
        return _closed(path)
    if isinstance(problem, PermissionError):
        return _FailedError(what, _hint_for_group(path))
    if isinstance(problem, (ConnectionError, BlockingIOError)) and _is_socket(path):
        return _FailedError(what, _BUSY, _FOR_BROKER)
    return _FailedError(what)


def _closed(path: str) -> _FailedError:
    return _FailedError(f"the socket {path} was closed without an answer", _BUSY, _FOR_BROKER)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return True  # It was removed after the attempt.


def _hint_for_group(path: str) -> str:
    if sys.platform == "win32":
        return "sockets of brokers are not used on Windows"
    import grp

    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return f"see who may enter the socket's folder: ls -ld {quote(os.path.dirname(path))}"
    return f"add this user to the socket's group {group}: usermod -aG {group} USER, then log in again"


def _by_command(command: str, request: bytes) -> tuple[bytes, bytes]:
    done = shell.run(command, request, most=LONGEST_ANSWER, env=child_process.for_broker())
    is_too_long = len(done.output) > LONGEST_ANSWER  # Then the command was ended before its own end.
    answer, _, _ = done.output.partition(b"\n\n")
    if done.status == 0 or is_too_long or b"quit=1" in answer.split(b"\n"):
        return done.output, done.errors
    reason = last_words(done.errors) or f"the broker failed with exit status {done.status}"
    is_final = _KEY_REFUSED in done.errors or _UNKNOWN_HOST in done.errors
    was_not_reached = done.status == _SSH_FAILED and not done.output and not is_final
    hint = _hint_for_command(command, done.status, done.errors)
    raise _FailedError(reason, hint, _FOR_BROKER if was_not_reached else 0.0)


def _hint_for_command(command: str, status: int, errors: bytes) -> str:
    if _UNKNOWN_HOST in errors:
        shown = command.strip() if _PLAIN_SSH.fullmatch(command.strip()) else "the ssh command of --broker"
        return f"this user's ssh does not know the broker's host key: run it once yourself: {shown}"
    if status == _SSH_FAILED and _KEY_REFUSED in errors:
        return "the broker's sshd refuses this user's key: add its line to authorized_keys of the broker's user"
    if status == _NO_COMMAND:
        return "check the command of --broker: the shell does not find it"
    return HINT
