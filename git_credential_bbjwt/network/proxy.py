"""Connections through a proxy: HTTP and HTTPS proxies by urllib3, SOCKS proxies by python-socks."""

import socket
import ssl
from collections.abc import Callable

from urllib3.connection import HTTPSConnection, ProxyConfig
from urllib3.util.url import Url

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.failures import ConnectionFailedError
from git_credential_bbjwt.network.route import Certificates, Proxy, Route


class _Connection(HTTPSConnection):
    """One whose TCP connection is opened by ``dial``."""

    dial: Callable[[], socket.socket]

    def _new_conn(self) -> socket.socket:
        """As urllib3's own SOCKS support overrides it."""
        return self.dial()


def connection_through(
    route: Route,
    host: str,
    port: int,
    dial: Callable[[], socket.socket],
    context: Callable[[Certificates], ssl.SSLContext],
    budget: Budget,
) -> HTTPSConnection:
    """Return a connection to ``host`` through the proxy of ``route``, which ``dial`` connects to; it is not yet open.

    ``context`` gives what verifies certificates. Raises ConnectionFailedError.
    """
    proxy = route.proxy
    assert proxy is not None
    for_bitbucket = context(route.certificates)
    if proxy.is_socks:
        connection = _Connection(host, port, timeout=budget.remaining(), ssl_context=for_bitbucket)
        connection.dial = lambda: _through_socks(proxy, host, port, dial, budget)
        return connection
    config = ProxyConfig(context(route.proxy_certificates), False, None, None) if proxy.scheme == "https" else None
    connection = _Connection(
        proxy.host,
        proxy.port,
        timeout=budget.remaining(),
        ssl_context=for_bitbucket,
        proxy=Url(scheme=proxy.scheme, host=proxy.host, port=proxy.port),
        proxy_config=config,
    )
    connection.dial = dial
    headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
    connection.set_tunnel(host, port, headers=headers, scheme=proxy.scheme)
    return connection


def _through_socks(
    proxy: Proxy, host: str, port: int, dial: Callable[[], socket.socket], budget: Budget
) -> socket.socket:
    """Raises OSError, ConnectionFailedError."""
    from python_socks import ProxyError, ProxyType
    from python_socks.sync import Proxy as Socks

    class Dialled(Socks):
        """Takes the place of a proxy before the proxy, which is what python-socks has for another way to connect."""

        def connect(self, *_: object, **__: object) -> socket.socket:
            return dial()

    kind = ProxyType.SOCKS4 if proxy.scheme.startswith("socks4") else ProxyType.SOCKS5
    user, password = (part.decode("latin-1") for part in proxy.userinfo or (b"", b""))
    before = Dialled(kind, proxy.host, proxy.port)
    socks = Socks(kind, proxy.host, proxy.port, user or None, password or None, rdns=proxy.resolves, forward=before)
    try:
        return socks.connect(host, port, timeout=budget.remaining())
    except ProxyError as problem:
        if problem.error_code is not None:  # It tried, and might succeed later.
            raise OSError(f"the SOCKS proxy says: {problem}") from problem
        raise refused_by_proxy(proxy, host, str(problem)) from problem


def refused_by_proxy(proxy: Proxy, host: str, reason: str) -> ConnectionFailedError:
    """The error for a proxy that says no, and will go on doing so."""
    return ConnectionFailedError(
        f"the proxy {proxy.place} refused to connect to {host}: {reason}",
        "check the user name and password in the proxy's URL (http.proxy in git's configuration, https_proxy)",
    )
