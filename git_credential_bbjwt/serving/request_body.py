"""The body of a request to the https broker: its type, its length, and the time it may take to arrive.

A client that has proved its identity may still send its request a byte a minute, and would hold a thread all the time.
gunicorn does not bound that, but hands its socket to the application (``gunicorn.socket``). Under other servers,
nothing can be done about it here. Source: PEP 3333, "Input and Error Streams".
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

from git_credential_bbjwt.serving.answer import DeniedError

# A request is a few hundred bytes, and a client sends it at once. Bytes, seconds.
_LONGEST = 64 * 1024
_PATIENCE = 10

# Seconds: a socket's next read ends at once.
_AT_ONCE = 0.001


def read_body(environ: dict[str, Any]) -> bytes:
    """Return the body, which ends with a blank line. Raises DeniedError."""
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower() != "text/plain":
        raise _denied(415, "the request's Content-Type is not text/plain")
    stated = environ.get("CONTENT_LENGTH") or ""
    if stated and not (stated.isascii() and stated.isdigit() and len(stated) < 19):
        raise _denied(400, "the request's Content-Length is not a number")
    # A body in chunks has no stated length, and only some servers end the input after it.
    length = int(stated) if stated else _LONGEST + 1 if environ.get("wsgi.input_terminated") else 0
    too_long = _denied(413, f"the request is over {_LONGEST} bytes long")
    if stated and length > _LONGEST:
        raise too_long
    data = _read(environ, length)
    if len(data) > _LONGEST:
        raise too_long
    if (stated and len(data) < length) or b"\n\n" not in data:
        raise _denied(400, "the request is incomplete: it does not end with a blank line")
    return data


def _read(environ: dict[str, Any], most: int) -> bytes:
    """Return up to ``most`` bytes. Raises DeniedError if they do not arrive in time, or the client goes away."""
    end = time.monotonic() + _PATIENCE
    late = _denied(408, f"the request did not arrive within {_PATIENCE} s")
    try:
        with _bounded(environ.get("gunicorn.socket")):
            data: bytes = environ["wsgi.input"].read(most)
    except Exception as problem:  # Each server has its own error for a client that has gone and for a broken chunk.
        if isinstance(problem, TimeoutError) or time.monotonic() >= end:
            raise late from problem
        raise _denied(400, "the request is incomplete") from problem
    if len(data) < most and time.monotonic() >= end:
        raise late
    return data


@contextlib.contextmanager
def _bounded(connection: object) -> Iterator[None]:
    """End the reads from a socket in time, and leave it as it was for the response."""
    if not isinstance(connection, socket.socket):
        yield
        return
    is_tls = isinstance(connection, ssl.SSLSocket)

    def end() -> None:
        with contextlib.suppress(OSError):  # It was closed meanwhile.
            if is_tls:
                # The end of the connection would be an error of TLS, and there would be no response.
                connection.settimeout(_AT_ONCE)
            else:
                connection.shutdown(socket.SHUT_RD)

    if is_tls:
        connection.settimeout(_PATIENCE)
    timer = threading.Timer(_PATIENCE, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if is_tls:
            connection.settimeout(None)


def _denied(status: int, what: str) -> DeniedError:
    return DeniedError(what, status=status)
