"""Proxies on loopback, with or without a password: HTTP (only CONNECT) over TCP or TLS, and SOCKS."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from io import BufferedReader
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any
from urllib.parse import quote

_WANTS_PASSWORD = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="proxy"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'
)


class Proxy(ThreadingTCPServer):
    """Use as a context manager.

    ``asked`` lists the targets of all CONNECT requests, even refused requests; ``shown`` the clients' certificates.
    With a ``path``, the proxy listens at this Unix socket.
    """

    daemon_threads = True

    def __init__(self, userinfo: str = "", *, context: ssl.SSLContext | None = None, path: str = "") -> None:
        if path:
            self.address_family = socket.AF_UNIX
        super().__init__(path or ("127.0.0.1", 0), _Connection)  # type: ignore[arg-type]  # typeshed knows only TCP
        self._expected = base64.b64encode(userinfo.encode()).decode() if userinfo else ""
        self.context = context
        self.shown: list[object] = []
        self.address = f"localhost{quote(path)}" if path else f"localhost:{self.server_address[1]}"
        self.asked: list[str] = []

    def __enter__(self) -> Proxy:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()

    def serve(self, connection: socket.socket) -> None:
        """Serve one connection until it ends."""
        if self.context is not None:
            connection.getpeername()  # See `Handler.setup` of the emulator.
            secured = self.context.wrap_socket(connection, server_side=True)
            self.shown.append(secured.getpeercert() or None)
            connection = secured
        with connection, connection.makefile("rb") as reader:
            line = reader.readline().decode("latin-1")
            if not line.endswith("\n"):
                return
            method, target, _ = line.split()
            headers = {}
            while header := reader.readline().strip():
                name, _, value = header.decode("latin-1").partition(": ")
                headers[name.lower()] = value
            self.asked.append(target)
            if self._expected and headers.get("proxy-authorization") != f"Basic {self._expected}":
                connection.sendall(_WANTS_PASSWORD)
                return
            if method != "CONNECT":
                connection.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
                return
            host, _, port = target.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as there:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _pass_on(connection, there)


class SocksProxy(Proxy):
    """SOCKS 5 (RFC 1928, RFC 1929) and 4 (its documents "SOCKS" and "SOCKS 4A"); a password is only for SOCKS 5.

    ``refused`` counts the clients with a wrong password, ``versions`` has the versions that were used.
    """

    def __init__(self, userinfo: str = "", *, path: str = "") -> None:
        super().__init__(path=path)
        self._userinfo = userinfo
        self.refused = 0
        self.versions: set[int] = set()

    def serve(self, connection: socket.socket) -> None:
        """Serve one connection until it ends."""
        with connection, connection.makefile("rb") as reader:
            version, count = _read(reader, 2)
            self.versions.add(version)
            if version == 4:
                self._serve_4(connection, reader)
                return
            method = 2 if self._userinfo else 0
            if method not in _read(reader, count):
                connection.sendall(b"\x05\xff")
                return
            connection.sendall(bytes([5, method]))
            if method and not self._is_known(connection, reader):
                self.refused += 1
                return
            _, _, _, kind = _read(reader, 4)
            host = _socks_host(reader, kind)
            port = int.from_bytes(_read(reader, 2), "big")
            self.asked.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            # The tests' servers listen only on the loopback address of IPv4.
            with socket.create_connection(("localhost" if host == "::1" else host, port)) as there:
                connection.sendall(b"\x05\0\0\x01" + bytes(6))
                _pass_on(connection, there)

    def _serve_4(self, connection: socket.socket, reader: BufferedReader) -> None:
        port, address = int.from_bytes(_read(reader, 2), "big"), _read(reader, 4)
        _until_nul(reader)
        # SOCKS 4A: the name follows an invalid address.
        is_name = address[:3] == bytes(3) and address[3:] != bytes(1)
        host = _until_nul(reader).decode() if is_name else socket.inet_ntoa(address)
        self.asked.append(f"{host}:{port}")
        with socket.create_connection((host, port)) as there:
            connection.sendall(b"\0\x5a" + bytes(6))
            _pass_on(connection, there)

    def _is_known(self, connection: socket.socket, reader: BufferedReader) -> bool:
        _read(reader, 1)
        user, password = (_read(reader, _read(reader, 1)[0]).decode() for _ in range(2))
        known = f"{user}:{password}" == self._userinfo
        connection.sendall(b"\x01\0" if known else b"\x01\x01")
        return known


def _until_nul(reader: BufferedReader) -> bytes:
    found = b""
    while (byte := _read(reader, 1)) != b"\0":
        found += byte
    return found


def _socks_host(reader: BufferedReader, kind: int) -> str:
    """Return an IPv4 or IPv6 address, or a name, which has its length first (RFC 1928, section 5)."""
    if kind == 1:
        return socket.inet_ntoa(_read(reader, 4))
    if kind == 4:  # Newer curl also sends IPv6 addresses.
        return socket.inet_ntop(socket.AF_INET6, _read(reader, 16))
    return _read(reader, _read(reader, 1)[0]).decode()


class _Connection(BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # The client may go away early.
            self.server.serve(self.request)


def _read(reader: BufferedReader, size: int) -> bytes:
    data = reader.read(size)
    if len(data) < size:
        raise ConnectionAbortedError("the client went away")
    return data


def _pass_on(one: Any, other: socket.socket) -> None:
    ends = {one: other, other: one}
    while True:
        # TLS may have decrypted bytes that the socket no longer has.
        ready = [one] if getattr(one, "pending", int)() else select.select(list(ends), [], [], 60)[0]
        for source in ready:
            source.setblocking(False)  # A TLS record may not be complete yet.
            try:
                data = source.recv(65_536)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            finally:
                source.setblocking(True)
            if not data:
                return
            for record in _records(data):
                ends[source].sendall(record)


def _records(data: bytes) -> Iterator[bytes]:
    """Split TLS (RFC 8446, section 5.1) into its records.

    If two records come within one record of an https proxy, curl reads the first and waits forever for the second.
    """
    while data:
        end = 5 + int.from_bytes(data[3:5], "big")
        yield data[:end]
        data = data[end:]
