"""One HTTP/1.1 request and its response over an open connection, by Python's ``http.client``.

``http.client`` repeats a server's words in its errors; here they become errors without them.
"""

import socket
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, InvalidURL, RemoteDisconnected

from git_credential_bbjwt.network.response import BrokenResponseError, TooLongError, UnsendableError

# Interim responses (RFC 9110, section 15.2) before the final one.
_MOST_INTERIM = 20

_SWITCHING_PROTOCOLS = 101


class FinalResponse(HTTPResponse):
    """The response that follows interim ones: ``http.client`` itself skips 100, and not 103 (RFC 8297)."""

    def begin(self) -> None:
        """Read the head. Raises OSError, and BrokenResponseError without a server's words."""
        try:
            super().begin()
            for _ in range(_MOST_INTERIM):
                if not 100 <= self.status < 200 or self.status == _SWITCHING_PROTOCOLS:
                    break
                self.headers = self.msg = None  # type: ignore[assignment]  # so begins the next one
                super().begin()
        except RemoteDisconnected:
            raise ConnectionResetError("it closed the connection without a response") from None
        except (HTTPException, ValueError) as problem:
            raise BrokenResponseError(f"what it sent is not an HTTP response ({type(problem).__name__})") from None
        if 100 <= self.status < 200:
            raise BrokenResponseError("it sends interim responses and no final one")


def send_request(
    stream: socket.socket,
    method: str,
    target: str,
    host: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> FinalResponse:
    """Send a request for ``host`` (with its port, if it has one); return the response with its head read.

    Raises OSError, BrokenResponseError, UnsendableError.
    """
    connection = HTTPConnection(host)
    connection.sock = stream
    try:
        # Nothing is decompressed, so nothing can grow beyond its limit by that: http.client asks for "identity".
        connection.request(method, target, body, dict(headers or {}))
    except (ValueError, InvalidURL) as problem:  # Its text has the value.
        raise UnsendableError from problem
    response = FinalResponse(stream, method=method)
    try:
        response.begin()
    except BaseException:
        response.close()
        raise
    return response


def read_body(response: FinalResponse, most: int) -> bytes:
    """Return the body, and be done with the response. Raises OSError, BrokenResponseError, TooLongError."""
    try:
        with response:
            if response.length is not None and response.length > most:
                raise TooLongError
            body = response.read() if response.length is not None else response.read(most + 1)
    except (HTTPException, ValueError) as problem:
        raise BrokenResponseError("it closed the connection in the middle of its response") from problem
    if len(body) > most:
        raise TooLongError
    return body
