"""One HTTP/1.1 request and its response over an open connection, by Python's ``http.client``.

Errors of ``http.client`` repeat a server's words, so they are replaced by errors without these words.
"""

import socket
from http.client import HTTPConnection, HTTPException, HTTPResponse, InvalidURL, RemoteDisconnected

from git_credential_bbjwt.network.response import BrokenResponseError, TooLongError, UnsendableError

# Limit of interim responses (RFC 9110, section 15.2) before the final response.
_MOST_INTERIM = 20

_SWITCHING_PROTOCOLS = 101


class FinalResponse(HTTPResponse):
    """The response after interim responses. ``http.client`` itself skips 100, but not 103 (RFC 8297)."""

    def begin(self) -> None:
        """Read the head. Raises OSError, and BrokenResponseError without a server's words."""
        try:
            super().begin()
            for _ in range(_MOST_INTERIM):
                if not 100 <= self.status < 200 or self.status == _SWITCHING_PROTOCOLS:
                    break
                self.headers = self.msg = None  # type: ignore[assignment]  # as for a new response
                super().begin()
        except RemoteDisconnected:
            raise ConnectionResetError("it closed the connection without a response") from None
        except (HTTPException, ValueError) as problem:
            raise BrokenResponseError(
                f"it sent something other than an HTTP response ({type(problem).__name__})"
            ) from None
        if 100 <= self.status < 200:
            raise BrokenResponseError("it sends interim responses, but no final response")


def send_request(
    stream: socket.socket,
    method: str,
    target: str,
    host: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> FinalResponse:
    """Send a request for ``host`` (with its port, if it has one); return the response with its head read.

    Raises OSError, BrokenResponseError, UnsendableError.
    """
    connection = HTTPConnection(host)
    connection.sock = stream
    try:
        # http.client requests "identity", so no response is decompressed and grows beyond the limit in this way.
        connection.request(method, target, body, headers)
    except (ValueError, InvalidURL) as problem:  # The error's text has the value.
        raise UnsendableError from problem
    response = FinalResponse(stream, method=method)
    try:
        response.begin()
    except BaseException:
        response.close()
        raise
    return response


def read_body(response: FinalResponse, most: int) -> bytes:
    """Return the body, and close the response. Raises OSError, BrokenResponseError, TooLongError."""
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
