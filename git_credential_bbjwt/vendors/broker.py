"""Asking a broker for a token: a command or a socket that answers one request in git's credential format.

Sources: git-credential(1), "INPUT/OUTPUT FORMAT"; RFC 7519 section 4.1.4 (``exp``); README, "Jobs that must
not hold the secret". What it answers is checked as a stranger's.
"""

import json
import socket
import time
from base64 import urlsafe_b64decode

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.failures import BrokerError
from git_credential_bbjwt.core.output import hide, redacted, trace
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.git.protocol import USERNAME, format_answer, state_entry
from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.system import child_process, shell
from git_credential_bbjwt.system.digest import digest
from git_credential_bbjwt.tokens.record import BROKERED
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.session import Session

#: Begins a WHERE that is the path of a socket; everything else is a command line for ``sh -c``.
SOCKET_PREFIX = "unix:"

# No token and no error comes near this. Bytes.
_LONGEST_ANSWER = 64 * 1024

# Seconds that any token is kept at the most, whatever the broker says of its end.
_LONGEST_LIFE = 86_400

# How many refused tokens are named: the newest ones.
_NAMED = 16

# Characters of a broker's reason that are shown.
_LONGEST_REASON = 500

_HINT = "ask who runs the broker; git-credential-bbjwt doctor URL shows its answer, BBJWT_TRACE=1 each step"


class Broker:
    """The vendor that asks a broker."""

    opens_workspace = False

    def __init__(self, asked: Asked, session: Session) -> None:
        self.identity = BROKERED + digest(asked.how)
        self._where = asked.how
        self._session = session

    def token(self, repository: Repository, scope: str, refused: list[str]) -> Token | None:  # noqa: ARG002  # the broker's side has the scope
        """Return the broker's token; None if it has nothing to say about ``repository``. Raises BrokerError."""
        self._session.has_asked = True
        return ask(self._where, repository, refused, self._session.budget)


def ask(where: str, repository: Repository, refused: list[str], budget: Budget) -> Token | None:
    """Ask the broker at ``where`` for a token; None where it has nothing to say about ``repository``.

    ``refused`` are the fingerprints of tokens that the server would not take, the newest last. Raises BrokerError.
    """
    attributes = [("capability[]", "state"), ("protocol", "https"), ("host", repository.host)]
    attributes += [("path", repository.full_name)]
    attributes += [("state[]", state_entry(one)) for one in refused[-_NAMED:]]
    request = format_answer(attributes) + b"\n"
    budget.doing = "waiting for the broker"
    started = time.monotonic()
    if where.startswith(SOCKET_PREFIX):
        answer, errors = _by_socket(where.removeprefix(SOCKET_PREFIX), request, budget), b""
    else:
        answer, errors = _by_command(where, request)
    trace(f"the broker answered about {repository.full_name} in {time.monotonic() - started:.3f} s")
    return _checked(answer, errors)


def _by_socket(path: str, request: bytes, budget: Budget) -> bytes:
    answer = b""
    try:
        family = getattr(socket, "AF_UNIX", None)
        if family is None:
            raise BrokerError("this system has no sockets with a path", "name the broker by a command line")
        with socket.socket(family) as connection:
            connection.settimeout(budget.remaining())
            connection.connect(path)
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while len(answer) <= _LONGEST_ANSWER and (piece := connection.recv(65_536)):
                answer += piece
    except OSError as problem:
        raise BrokerError(f"the broker's socket {path} fails: {problem.strerror or problem}", _HINT) from problem
    if answer != b"\n" and not answer.endswith(b"\n\n") and len(answer) <= _LONGEST_ANSWER:
        raise BrokerError("the broker's answer is incomplete", _HINT)
    return answer


def _by_command(command: str, request: bytes) -> tuple[bytes, bytes]:
    done = shell.run(command, request, most=_LONGEST_ANSWER, env=child_process.for_broker())
    too_long = len(done.output) > _LONGEST_ANSWER  # It was ended for that.
    if done.status != 0 and not too_long and b"quit=1" not in done.output.split(b"\n"):
        said = _last_words(done.errors)
        reason = f": {said}" if said else f" with exit status {done.status}"
        raise BrokerError(f"the broker failed{reason}", _HINT)
    return done.output, done.errors


def _checked(answer: bytes, errors: bytes) -> Token | None:
    if len(answer) > _LONGEST_ANSWER:
        raise BrokerError(f"the broker answered more than {_LONGEST_ANSWER} bytes", _HINT)
    fields: dict[str, str] = {}
    for line in answer.split(b"\n"):
        if not line:
            break
        key, equals, value = line.partition(b"=")
        name = key.decode("ascii", "replace")
        if not equals or b"\0" in line:
            raise BrokerError("the broker's answer is not in git's credential format", _HINT)
        if name in ("username", "password", "password_expiry_utc", "quit") and name in fields:
            raise BrokerError(f"the broker's answer has two lines of {name}", _HINT)
        fields[name] = value.decode("utf-8", "replace")
    if not answer.strip(b"\n"):
        return None
    if fields.get("quit") in ("1", "true"):
        reason = fields.get("bbjwt-error", "") or _last_words(errors) or "it gave no reason"
        raise BrokerError(f"the broker gives no token: {_shown(reason)}", _HINT)
    token, username = fields.get("password"), fields.get("username", USERNAME)
    if not token or not _is_visible_ascii(token) or not username or not _is_visible_ascii(username):
        raise BrokerError("the broker's answer has no usable password", _HINT)
    hide(token)
    return Token(
        token,
        expires=_end_of(fields.get("password_expiry_utc"), token),
        minted=int(time.time()),
        username=username,
    )


def _end_of(stated: str | None, token: str) -> int | None:
    """The Unix time at which the token ends, no later than in a day. Raises BrokerError for one that has ended."""
    now = int(time.time())
    if stated is not None:
        if not stated.isascii() or not stated.isdigit() or len(stated) > 18:
            raise BrokerError("the broker's answer has a password_expiry_utc that is not a Unix time", _HINT)
        end = int(stated)
    else:
        found = _expiry_claim(token)
        if found is None:
            return None
        end = found
    if end <= now:
        raise BrokerError("the broker's token has expired already", "check the clocks of both machines")
    return min(end, now + _LONGEST_LIFE)


def _expiry_claim(token: str) -> int | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        end = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))["exp"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return int(end) if type(end) in (int, float) and 0 < end < 1e18 else None


def _last_words(errors: bytes) -> str:
    """The last line that says ``error:``, else the last line."""
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line]
    return _shown((telling or lines or [""])[-1])


def _shown(text: str) -> str:
    text = redacted(text).removeprefix("git-credential-bbjwt: error: ")
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return escaped[:_LONGEST_REASON]


def _is_visible_ascii(text: str) -> bool:
    return all("\x21" <= character <= "\x7e" for character in text)
