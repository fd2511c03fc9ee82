"""Parse the answer of a broker, which is not trusted, into a token or an error.

Sources: git-credential(1), "INPUT/OUTPUT FORMAT"; RFC 7519 section 4.1.4 (``exp``).
"""

import json
import time
from base64 import urlsafe_b64decode

from git_credential_bbjwt.core.failures import BrokerError, NotARepositoryError
from git_credential_bbjwt.core.output import REDACTED, hide, one_line
from git_credential_bbjwt.core.protocol import USERNAME, is_visible_ascii
from git_credential_bbjwt.core.repository import Repository, normal_host, parse_path
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.tokens.token import Token

#: Limit of an answer in bytes. Real answers are much shorter.
LONGEST_ANSWER = 64 * 1024

# Seconds for which a token is kept at most, even if the broker names a later end.
_LONGEST_LIFE = 86_400

# Characters of a broker's reason that are shown, and bytes at the end of its standard error that are searched for it.
_LONGEST_REASON = 500
_LAST_ERRORS = 8192

_BASE64URL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")

# Attributes that an answer must not have twice.
_SINGLE = frozenset({"username", "password", "password_expiry_utc", "quit", "protocol", "host", "path", "bbjwt-opens"})

#: The next step after a broker's failure that has no hint of its own.
HINT = "ask whoever runs the broker; git-credential-bbjwt doctor URL shows its answer, BBJWT_TRACE=1 each step"

_HINT_AUDIT = "ask whoever runs the broker: its audit has the cause"


def no_token(repository: Repository, reason: str, hint: str = HINT) -> BrokerError:
    """Return the error for a broker that gives no token for ``repository``."""
    return BrokerError(f"the broker gives no token for {repository.full_name}: {reason}", hint)


def is_complete(answer: bytes) -> bool:
    """Return whether ``answer`` has its blank line, or is longer than the limit."""
    return answer.startswith(b"\n") or b"\n\n" in answer or len(answer) > LONGEST_ANSWER


def parse_answer(answer: bytes, errors: bytes, repository: Repository, identity: str) -> Token | None:
    """Return the token in ``answer``; None if the answer is empty. Raises BrokerError if there is no usable token.

    ``errors`` is the broker's standard error. ``identity`` is that of the broker's vendor.
    """
    if len(answer) > LONGEST_ANSWER:
        raise no_token(repository, f"its answer has more than {LONGEST_ANSWER} bytes")
    if not answer.strip(b"\n"):
        return None
    fields = _fields(answer, repository)
    if fields.get("quit") in ("1", "true"):
        reason = _shown(fields.get("bbjwt-error", "")) or last_words(errors) or "it gave no reason"
        raise no_token(repository, reason, _HINT_AUDIT)
    _check_same(fields, repository)
    token, username = fields.get("password", ""), fields.get("username", USERNAME)
    if not is_visible_ascii(token) or not is_visible_ascii(username):
        raise no_token(repository, "its answer has no usable password")
    hide(token)
    return Token(
        token,
        identity=identity,
        expires=_end_of(fields.get("password_expiry_utc"), token, repository),
        minted=int(time.time()),
        username=username,
        opens_workspace=fields.get("bbjwt-opens") == "workspace",
    )


def _fields(answer: bytes, repository: Repository) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in answer.split(b"\n"):
        if not line:
            break
        key, equals, value = line.partition(b"=")
        name = key.decode("ascii", "replace")
        if not equals or b"\0" in line:
            raise no_token(repository, "its answer is not in git's credential format")
        if name in _SINGLE and name in fields:
            raise no_token(repository, f"its answer has two lines of {name}")
        fields[name] = value.decode("utf-8", "surrogateescape")
    return fields


def _check_same(fields: dict[str, str], repository: Repository) -> None:
    """Raise BrokerError if the answer names another repository, because its token would be for that repository."""
    is_same = {
        "protocol": fields.get("protocol", "https") == "https",
        "host": normal_host(fields.get("host", repository.host)) == repository.host,
        "path": "path" not in fields or _is_path_of(fields["path"], repository),
    }
    for name, same in is_same.items():
        if not same:
            raise no_token(repository, f"its answer is about another {name}")


def _is_path_of(path: str, repository: Repository) -> bool:
    try:
        return parse_path(repository.host, path.encode("utf-8", "surrogateescape")) == repository
    except NotARepositoryError:
        return False


def _end_of(stated: str | None, token: str, repository: Repository) -> int | None:
    """Return the Unix time of the token's end, at most a day from now; None if it is not known.

    Raises BrokerError if the token has expired.
    """
    now = int(time.time())
    if stated is not None:
        if not stated.isascii() or not stated.isdigit() or len(stated) > 18:
            raise no_token(repository, "its answer has a password_expiry_utc that is not a Unix time")
        end = int(stated)
    else:
        claimed = _expiry_claim(token)
        if claimed is None:
            return None
        end = claimed
    if end <= now:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(end))
        raise no_token(repository, f"its token has expired already, at {when}", "check the clocks of both machines")
    return min(end, now + _LONGEST_LIFE)


def _expiry_claim(token: str) -> int | None:
    try:
        end = claims_in(token).get("exp")
    except ValueError:
        return None
    return int(end) if type(end) in (int, float) and 0 < end < 1e18 else None  # type: ignore[operator,call-overload]


def claims_in(token: str) -> dict[str, object]:
    """Return the claims of a JWT without verifying them. Raises ValueError."""
    parts = token.split(".")
    if len(parts) != 3 or not all(part and _BASE64URL.issuperset(part) for part in parts):
        raise ValueError("it is not a JWT")
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except RecursionError as problem:
        raise ValueError("it is not a JWT") from problem
    if not isinstance(claims, dict):
        raise ValueError("it is not a JWT")
    return claims


def last_words(errors: bytes) -> str:
    """Return the last line that contains ``error:``, or if there is none, the last line."""
    lines = [line.strip() for line in errors[-_LAST_ERRORS:].decode("utf-8", "replace").splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line]
    return _shown((telling or lines or [""])[-1])


def _shown(text: str) -> str:
    """Return a broker's words as one short line, without secrets, even those that this helper has never seen."""
    text = text.removeprefix("git-credential-bbjwt: error: ")
    shown = safe_text(text, len(text))
    if REDACTED in shown:
        return shown[:_LONGEST_REASON]
    return one_line(text[:_LONGEST_REASON])[:_LONGEST_REASON]
