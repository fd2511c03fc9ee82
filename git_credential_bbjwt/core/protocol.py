"""Git's credential protocol: a request in, an answer out, and its limits.

Sources: git-credential(1), "INPUT/OUTPUT FORMAT" (attributes, ``state[]``, ``continue``), gitcredentials(7) (``quit``).
Values are bytes. Only a line feed ends a line, so a carriage return stays inside its value and makes it match nothing
(CVE-2024-52006).
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.core.failures import MalformedRequestError

#: Longest line of a request in bytes, its line feed not counted.
MAX_LINE = 65_535

# Bytes. Git sends a few kB, but `wwwauth[]` repeats text of the server, so the whole request needs a limit, too.
_MAX_REQUEST = 4 * 1024 * 1024


class Request:
    """One credential request. An attribute that was not sent is None; lists are tuples in the order of the request.

    ``host`` is in the form of `normal_host`.
    """

    __slots__ = ("capabilities", "host", "password", "path", "protocol", "state")

    def __init__(
        self,
        protocol: bytes | None,
        host: str,
        path: bytes | None,
        password: bytes | None,
        capabilities: tuple[bytes, ...],
        state: tuple[bytes, ...],
    ) -> None:
        self.protocol = protocol
        self.host = host
        self.path = path
        self.password = password
        self.capabilities = capabilities
        self.state = state


def read_request() -> bytes:
    """Return the request on standard input, up to its blank line or the end of file.

    Raises MalformedRequestError when the request is longer than any git would send.
    """
    data = b""
    while chunk := _read():
        data += chunk
        if data.startswith(b"\n") or b"\n\n" in data:
            break
        if len(data) > _MAX_REQUEST:
            raise _malformed("the credential request is longer than any git sends")
    return data


def _read() -> bytes:
    try:
        return os.read(0, 65_536)
    except OSError as problem:
        raise _malformed(f"cannot read the credential request: {problem.strerror}") from problem


def _malformed(what: str) -> "MalformedRequestError":
    from git_credential_bbjwt.core.failures import MalformedRequestError

    return MalformedRequestError(what)


def parse_request(data: bytes) -> Request:
    """Parse a request; unknown attributes are ignored, as git asks of helpers.

    Raises MalformedRequestError for a line without ``=``, a NUL, a line over `MAX_LINE`, and a request without host.
    """
    single: dict[bytes, bytes] = {}
    lists: dict[bytes, list[bytes]] = {b"capability[]": [], b"state[]": []}
    for line in data.split(b"\n"):
        if not line:
            break
        if len(line) > MAX_LINE:
            raise _malformed(f"a line of the credential request is over {MAX_LINE} bytes long")
        if b"\0" in line:
            raise _malformed("the credential request contains a NUL byte")
        key, equals, value = line.partition(b"=")
        if not equals:
            # The line is not repeated, because it may be a password.
            raise _malformed("a line of the credential request has no '='")
        if key not in lists:
            single[key] = value
        elif value:
            lists[key].append(value)
        else:
            lists[key].clear()  # An empty value resets the list: git-credential(1).
    host = single.get(b"host")
    if host is None:
        raise _malformed("the credential request does not name a host")
    from git_credential_bbjwt.core.repository import normal_host  # `store` does not need it.

    return Request(
        single.get(b"protocol"),
        normal_host(host.decode("utf-8", "surrogateescape")),
        single.get(b"path"),
        single.get(b"password"),
        tuple(lists[b"capability[]"]),
        tuple(lists[b"state[]"]),
    )


def format_answer(attributes: list[tuple[str, str]]) -> bytes:
    """Return the lines of an answer.

    Raises ValueError for a value that breaks the protocol: with a line break, a server could add attributes of its own
    (CVE-2020-5260).
    """
    lines = []
    for key, value in attributes:
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"a value of {key} that breaks the credential protocol")
        lines.append(f"{key}={value}\n")
    return "".join(lines).encode("ascii")


def is_visible_ascii(text: str) -> bool:
    """Return whether ``text`` is one or more characters of visible ASCII, as tokens and their user names are."""
    return text != "" and text.isascii() and text.isprintable() and " " not in text


def write_answer(data: bytes) -> None:
    """Write all of ``data`` to standard output. A reader that has gone is not an error.

    Raises CredentialError if it cannot be written.
    """
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(1, view) :]
    except BrokenPipeError:
        pass
    except OSError as problem:
        from git_credential_bbjwt.core.failures import CredentialError

        raise CredentialError(f"cannot write the answer: {problem.strerror}") from problem


#: Number of a token's fingerprint characters: the beginning of its SHA-256.
FINGERPRINT_LENGTH = 16

#: User name of every token ("Use OAuth on Bitbucket Cloud").
USERNAME = "x-token-auth"

#: Makes git stop at once instead of asking other helpers or a person.
QUIT = format_answer([("quit", "1")])

# Distinguishes this helper's `state[]` entries from other helpers'.
_STATE_PREFIX = "bbjwt:"


def refused_fingerprints(request: Request) -> list[str]:
    """Return the fingerprints of tokens that the server refused in this git command, as git 2.46 returns them."""
    return [
        entry.decode("ascii", "replace").removeprefix(_STATE_PREFIX)[:FINGERPRINT_LENGTH]
        for entry in request.state
        if entry.startswith(_STATE_PREFIX.encode())
    ]


def fingerprint_of(token: bytes) -> str:
    """Return what identifies a token, here and in ``state[]``: the first digits of its hexadecimal SHA-256."""
    from hashlib import sha256  # Loads OpenSSL, which an `erase` of another helper's password does not need.

    return sha256(token).hexdigest()[:FINGERPRINT_LENGTH]


def state_entry(fingerprint: str) -> str:
    """Return the ``state[]`` entry that names a token by its `fingerprint_of`."""
    return _STATE_PREFIX + fingerprint


def fresh_answer(token: str, expires: int | None, username: str) -> bytes:
    """Return the answer with a new token. ``expires`` is a Unix time, None if it is not known."""
    end = [] if expires is None else [("password_expiry_utc", str(expires))]
    return format_answer([("username", username), ("password", token), *end])


def cached_answer(request: Request, token: str, expires: int | None, fingerprint: str, username: str) -> bytes:
    """Return the answer with a cached token. With ``continue``, git asks again if the server refuses the token."""
    answer = fresh_answer(token, expires, username)
    if b"state" in request.capabilities:
        mine = [("state[]", state_entry(fingerprint)), ("continue", "1")]
        answer = format_answer([("capability[]", "state")]) + answer + format_answer(mine)
    return answer
