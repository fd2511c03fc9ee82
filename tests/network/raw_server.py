"""A TLS server that sends any bytes that a test wants."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from io import BufferedReader

#: A function of the request's head, as text, that returns the pieces to send.
Reply = Callable[[str], Iterable[bytes]]


class RawServer:
    """Use as a context manager. ``reply`` may be changed at any time; each connection gets one reply and is closed."""

    def __init__(self, context: ssl.SSLContext | None, reply: Reply) -> None:
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.reply = reply
        self.url = f"https://localhost:{self._listening.getsockname()[1]}"
        #: The heads of all requests.
        self.requests: list[str] = []

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listening.accept()[0],), daemon=True).start()

    def _secured(self, connection: socket.socket) -> socket.socket:
        assert self._context is not None
        connection.getpeername()  # See `Handler.setup` of the emulator.
        return self._context.wrap_socket(connection, server_side=True)

    def _serve(self, connection: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._secured(connection) as secured,
            secured.makefile("rb") as reader,
        ):
            head = _head(reader)
            if head:
                self.requests.append(head)
                for piece in self.reply(head):
                    secured.sendall(piece)


class PlainServer(RawServer):
    """The same without TLS, as a proxy."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(None, reply)

    def _secured(self, connection: socket.socket) -> socket.socket:
        return connection


def _head(reader: BufferedReader) -> str:
    lines = []
    while line := reader.readline().decode("latin-1").strip():
        lines.append(line)
    length = next((int(line.split()[1]) for line in lines if line.lower().startswith("content-length:")), 0)
    reader.read(length)
    return "\n".join(lines)
