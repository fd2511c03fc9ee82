"""HTTP/1.1 over an open connection: one request, one response (RFC 9112).

The standard library's client costs a mint as much CPU time as all of its other imports together, skips one interim
response but not another (RFC 8297's 103), and repeats a server's words in its errors. Two short requests need little of
it. Nothing that a server sends is part of an error here, and every length is limited before it is read.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol


class Stream(Protocol):
    """A connected socket, with TLS or without."""

    def recv(self, size: int, /) -> bytes:
        """Return some bytes, none at the end. Raises OSError."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of ``data``. Raises OSError."""


class BrokenResponseError(Exception):
    """What came back is no HTTP response, or it ended too early."""


class TooLongError(Exception):
    """The response is longer than it may be."""


class UnsendableError(Exception):
    """A value of the request has a character that would end its line."""


class Headers(Mapping[str, str]):
    """The header fields of a response; names may be used in any case. Repeated fields are joined by commas."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = {name.lower(): value for name, value in fields.items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Head:
    """The first part of a response. ``reason`` is the server's own text."""

    def __init__(self, version: bytes, status: int, reason: str, headers: Headers) -> None:
        self.version = version
        self.status = status
        self.reason = reason
        self.headers = headers


# Bytes of the first line and all header fields together; number of interim responses before the final one.
_LONGEST_HEAD = 65_536
_MOST_INTERIM = 20

_PIECE = 65_536


def send_request(stream: Stream, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> None:
    """Send a request. Raises OSError and UnsendableError."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if not all(line.isprintable() and line.isascii() for line in lines):
        raise UnsendableError
    stream.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (body or b""))


class Input:
    """What a server sends, read in the order in which it comes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._data = bytearray()

    @property
    def is_empty(self) -> bool:
        """Whether all that was received has been read."""
        return not self._data

    def head(self) -> Head:
        """Read the head of the final response. Raises OSError, BrokenResponseError, TooLongError."""
        for _ in range(_MOST_INTERIM):
            head = self._one_head()
            if not 100 <= head.status < 200:
                return head
            if head.status == _SWITCHING_PROTOCOLS:
                break
        raise BrokenResponseError("it sends interim responses and no final one")

    def body(self, head: Head, most: int) -> tuple[bytes, bool]:
        """Read the body that follows ``head``, at most ``most`` bytes (RFC 9112, section 6.3).

        The second value tells whether the connection can carry another request.
        Raises OSError, BrokenResponseError, TooLongError.
        """
        keeps_open = head.version == b"HTTP/1.1" and "close" not in _tokens(head.headers.get("Connection"))
        if head.status in (204, 304):
            return b"", keeps_open and self.is_empty
        coding, lengths = _tokens(head.headers.get("Transfer-Encoding")), _tokens(head.headers.get("Content-Length"))
        if coding:
            if coding != {"chunked"}:
                raise BrokenResponseError("its transfer coding is unknown")
            body, keeps_open = self._chunks(most), keeps_open and not lengths
        elif lengths:
            length = lengths.pop()
            if lengths or not _is_number(length, "0123456789"):
                raise BrokenResponseError("its length is not a number")
            body = self._exactly(int(length), most)
        else:
            body, keeps_open = self._rest(most), False
        return body, keeps_open and self.is_empty

    def _one_head(self) -> Head:
        version, _, rest = self._line(_LONGEST_HEAD, is_first=True).partition(b" ")
        status, _, reason = rest.decode("latin-1").partition(" ")
        if version not in (b"HTTP/1.0", b"HTTP/1.1") or len(status) != 3 or not _is_number(status, "0123456789"):
            raise BrokenResponseError("what it sent is not HTTP")
        fields: dict[str, str] = {}
        name, left = "", _LONGEST_HEAD
        while line := self._line(left).decode("latin-1"):
            left -= len(line)
            if line[0] in " \t" and name:  # A long value, continued (RFC 9112, section 5.2).
                fields[name] += " " + line.strip()
                continue
            name, colon, value = line.partition(":")
            name = name.lower()
            if not colon or not name or name != "".join(name.split()):
                raise BrokenResponseError("a header field has no name")
            fields[name] = f"{fields[name]}, {value.strip()}" if name in fields else value.strip()
        return Head(version, int(status), reason, Headers(fields))

    def _line(self, most: int, *, is_first: bool = False) -> bytes:
        while (end := self._data.find(b"\n")) < 0:
            if len(self._data) > most:
                raise TooLongError
            self._receive(is_first=is_first and not self._data)
        if end > most:
            raise TooLongError
        line = bytes(self._data[:end]).removesuffix(b"\r")
        del self._data[: end + 1]
        return line

    def _chunks(self, most: int) -> bytes:
        body = bytearray()
        while True:
            size = self._line(_LONGEST_HEAD).decode("latin-1").partition(";")[0].strip()
            if not _is_number(size, "0123456789abcdefABCDEF"):
                raise BrokenResponseError("the size of a part of it is not a number")
            if not int(size, 16):
                break
            body += self._exactly(int(size, 16), most - len(body))
            if self._line(_LONGEST_HEAD):
                raise BrokenResponseError("a part of it is longer than its size")
        left = _LONGEST_HEAD
        while trailer := self._line(left):
            left -= len(trailer)
        return bytes(body)

    def _exactly(self, length: int, most: int) -> bytes:
        if length > most:
            raise TooLongError
        while len(self._data) < length:
            self._receive()
        found = bytes(self._data[:length])
        del self._data[:length]
        return found

    def _rest(self, most: int) -> bytes:
        while piece := self._stream.recv(_PIECE):
            self._data += piece
            if len(self._data) > most:
                raise TooLongError
        found = bytes(self._data)
        self._data.clear()
        return found

    def _receive(self, *, is_first: bool = False) -> None:
        piece = self._stream.recv(_PIECE)
        if not piece and is_first:
            raise ConnectionResetError("it closed the connection without a response")
        if not piece:
            raise BrokenResponseError("it closed the connection in the middle of its response")
        self._data += piece


_SWITCHING_PROTOCOLS = 101

# Digits of a length.
_LONGEST_NUMBER = 16


def _is_number(text: str, digits: str) -> bool:
    return 0 < len(text) <= _LONGEST_NUMBER and all(digit in digits for digit in text)


def _tokens(value: str | None) -> set[str]:
    """Return the elements of a comma-separated field, lower case."""
    return {token.strip().lower() for token in (value or "").split(",")} - {""}
