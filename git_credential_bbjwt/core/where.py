"""Parse the place of a broker: the WHERE of ``--broker`` and ``BBJWT_BROKER``.

Sources: RFC 3986 (URLs), RFC 1123 section 2.1 (host names). A WHERE that looks like a URL is never run as a command.
A cached answer parses it, too, so no regular expressions are imported.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.core.failures import UsageError

#: The ways to ask a broker: the values of `Where.way`.
SOCKET = "unix"
HTTPS = "https"
COMMAND = "command"

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
_DIGITS = frozenset("0123456789")
_OF_SCHEME = _LETTERS | _DIGITS | frozenset("+.-")
_OF_HOST = _LETTERS | _DIGITS | frozenset(".-")
_OF_PATH = _LETTERS | _DIGITS | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ._~-/")

_LONGEST_HOST, _LONGEST_LABEL = 253, 63

# sockaddr_un has 108 bytes, the last one a NUL (unix(7)).
_LONGEST_SOCKET = 107

_HINT = "name the broker by unix:/PATH, https://HOST[:PORT][/PATH] or a command line"


class Where:
    """A broker's place.

    ``text`` is its normal form: an https URL has scheme and host in lower case, no ``:443`` and no slash at the end.
    ``path`` is the path of a socket or of the URL. ``host`` has brackets if it is an IPv6 address.
    """

    __slots__ = ("host", "path", "port", "text", "way")

    def __init__(self, way: str, text: str, *, path: str = "", host: str = "", port: int = 443) -> None:
        self.way = way
        self.text = text
        self.path = path
        self.host = host
        self.port = port

    @classmethod
    def parse(cls, value: str, named_by: str = "--broker") -> "Where":
        """Parse ``value``; ``named_by`` is the option or variable that errors name. Raises UsageError."""
        text = value.strip()
        if not text:
            raise _usage_error(f"{named_by} is empty")
        scheme, colon, rest = text.partition(":")
        scheme = scheme.lower()
        try:
            if colon and scheme == SOCKET:
                return _socket(rest)
            if colon and (scheme in ("http", HTTPS) or (rest.startswith("//") and _is_scheme(scheme))):
                return _https(scheme, rest)
        except ValueError as problem:  # The value is not repeated: a URL may have a password.
            raise _usage_error(f"{named_by} {problem}") from None
        return cls(COMMAND, value)


def _is_scheme(text: str) -> bool:
    return text[:1] in _LETTERS and _OF_SCHEME.issuperset(text)


def _socket(path: str) -> Where:
    if not path.startswith("/") or path.startswith("//") or "\0" in path:
        raise ValueError("needs the absolute path of a socket, such as unix:/run/bbjwt/socket")
    if len(path.encode("utf-8", "surrogateescape")) > _LONGEST_SOCKET:
        raise ValueError(f"names a socket by more than {_LONGEST_SOCKET} bytes, which the system does not allow")
    return Where(SOCKET, f"unix:{path}", path=path)


def _https(scheme: str, rest: str) -> Where:
    if scheme != HTTPS:
        raise ValueError("has a URL that is not https")
    if not rest.startswith("//"):
        raise ValueError("has a URL without a host")
    if not rest.isascii():
        raise ValueError("has a URL with a letter that is not ASCII; write the host's xn-- form")
    authority, slash, path = rest[2:].partition("/")
    for character, what in (("@", "user"), ("?", "query"), ("#", "fragment"), ("%", "percent escape")):
        if character in rest:
            raise ValueError(f"has a URL with a {what}")
    host, port = _split_port(authority.lower())
    if not (_is_ipv6(host[1:-1]) if host.startswith("[") and host.endswith("]") else _is_host_name(host)):
        raise ValueError("has a URL whose host is not a name")
    if not _OF_PATH.issuperset(path) or {".", ".."} & set(path.split("/")):
        raise ValueError("has a URL whose path has a dot segment, or another character than letters, digits and ._~-/")
    path = (slash + path).rstrip("/")
    return Where(HTTPS, f"https://{host}{'' if port == 443 else f':{port}'}{path}", path=path, host=host, port=port)


def _split_port(authority: str) -> tuple[str, int]:
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        return authority, 443
    if not _DIGITS.issuperset(port) or not 0 < len(port) <= 5 or not 1 <= int(port) <= 65_535:
        raise ValueError("has a URL whose port is not a number from 1 to 65535")
    return host, int(port)


def _is_host_name(host: str) -> bool:
    if not _OF_HOST.issuperset(host) or len(host) > _LONGEST_HOST:
        return False
    return all(0 < len(label) <= _LONGEST_LABEL and label.strip("-") == label for label in host.split("."))


def _is_ipv6(address: str) -> bool:
    import socket

    try:
        socket.inet_pton(socket.AF_INET6, address)
    except (OSError, ValueError):
        return False
    return True


def _usage_error(what: str) -> "UsageError":
    from git_credential_bbjwt.core.failures import UsageError

    return UsageError(what, _HINT)
