"""Connections through a proxy: HTTP and HTTPS proxies by CONNECT, SOCKS proxies by python-socks."""

import select
import socket
import ssl
import threading
from base64 import b64encode

from git_credential_bbjwt.core.failures import ConnectionFailedError
from git_credential_bbjwt.core.output import hide
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.network.addresses import addresses_of
from git_credential_bbjwt.network.http1 import FinalResponse, send_request
from git_credential_bbjwt.network.route import Proxy, Route
from git_credential_bbjwt.network.tls import name_for_tls

_PIECE = 65_536


def through_proxy(
    connected: socket.socket, route: Route, context: ssl.SSLContext | None, host: str, port: int
) -> socket.socket:
    """Return a socket that leads to ``host`` through the proxy of ``route``, to which ``connected`` is connected.

    ``context`` is for TLS with an https proxy. Raises ConnectionFailedError if the proxy refuses, OSError and the
    errors of `http1` for a failure that may be temporary.
    """
    proxy = route.proxy
    assert proxy is not None
    if proxy.is_socks:
        return _through_socks(connected, route, proxy, host, port)
    if context is None:
        _request_tunnel(connected, proxy, host, port)
        return connected
    secured = context.wrap_socket(connected, server_hostname=name_for_tls(proxy.host))
    _request_tunnel(secured, proxy, host, port)
    return _without_tls(secured)


def _request_tunnel(stream: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Send CONNECT (RFC 9110, section 9.3.6). Only the head of the response comes before the tunnel's bytes.

    If the proxy does not open the tunnel, ``stream`` is closed.
    """
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = {}
    if proxy.userinfo is not None:
        encoded = b64encode(b":".join(proxy.userinfo)).decode()
        hide(encoded)
        hide(proxy.userinfo[1].decode("utf-8", "surrogateescape"))
        headers["Proxy-Authorization"] = f"Basic {encoded}"
    try:
        response = send_request(stream, "CONNECT", place, place, headers)
        response.close()
        _check_accepted(response, proxy, host)
    except BaseException:
        stream.close()
        raise


def _check_accepted(response: FinalResponse, proxy: Proxy, host: str) -> None:
    if 200 <= response.status < 300:
        return
    reason = f"{response.status} {safe_text(response.reason, 100)}".strip()
    if 400 <= response.status < 500 and response.status != 429:
        raise refused_by_proxy(proxy, host, reason)
    raise OSError(f"the proxy {proxy.place} responds with {reason}")


def _without_tls(secured: ssl.SSLSocket) -> socket.socket:
    """Return a socket whose bytes go through ``secured``.

    TLS with the server can use it like any other socket. Python's ssl cannot wrap TLS around TLS.
    """
    here, there = socket.socketpair()
    here.settimeout(secured.gettimeout())
    threading.Thread(target=_relay, args=(there, secured), daemon=True).start()
    return here


def _relay(plain: socket.socket, secured: ssl.SSLSocket) -> None:
    """Pass bytes on in both directions until one side ends. Only this thread reads and writes TLS."""
    ends: dict[socket.socket, socket.socket] = {plain: secured, secured: plain}
    with plain, secured:
        try:
            while True:
                # TLS may have decrypted bytes that its socket no longer has.
                ready = [secured] if secured.pending() else select.select(list(ends), [], [])[0]
                for source in ready:
                    source.setblocking(False)
                    try:
                        data = source.recv(_PIECE)
                    except (BlockingIOError, ssl.SSLWantReadError):  # The TLS record is not complete yet.
                        continue
                    finally:
                        source.setblocking(True)
                    if not data:
                        return
                    ends[source].sendall(data)
        except OSError:
            return  # The other end finds the connection closed.


def _through_socks(connected: socket.socket, route: Route, proxy: Proxy, host: str, port: int) -> socket.socket:
    from python_socks import ProxyError, ProxyType
    from python_socks.sync import Proxy as Socks

    class Connected(Socks):
        """A proxy before the proxy, because python-socks can use an open connection only in this way."""

        def connect(self, *_: object, **__: object) -> socket.socket:
            return connected

    kind = ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else ProxyType.SOCKS4
    user, password = (part.decode("latin-1") for part in proxy.userinfo or (b"", b""))
    before = Connected(kind, proxy.host, proxy.port)
    socks = Socks(kind, proxy.host, proxy.port, user or None, password or None, rdns=True, forward=before)
    target = host if proxy.resolves else _address(route, host, port, only_ipv4=kind is ProxyType.SOCKS4)
    try:
        return socks.connect(target, port)
    except ProxyError as problem:
        reason = safe_text(str(problem), 100)
        if problem.error_code is not None:  # The proxy tried to connect, and might succeed later.
            raise OSError(f"the proxy {proxy.place} responds: {reason}") from problem
        raise refused_by_proxy(proxy, host, reason) from problem


def _address(route: Route, host: str, port: int, *, only_ipv4: bool) -> str:
    """Return an address of ``host`` for a proxy that resolves no names (SOCKS4 knows only IPv4). Raises OSError."""
    for name in route.addresses(host, port) or [host]:
        for address in addresses_of(name, port):
            if address.family == socket.AF_INET or not only_ipv4:
                return str(address.place[0])
    raise OSError(f"{host} has no IPv4 address, and a SOCKS4 proxy needs one")


def refused_by_proxy(proxy: Proxy, host: str, reason: str) -> ConnectionFailedError:
    """Return the error for a proxy that refuses permanently."""
    return ConnectionFailedError(
        f"the proxy {proxy.place} refused to connect to {host}: {reason}",
        "check the user name and password in the proxy's URL (http.proxy in git's configuration, https_proxy)",
    )
