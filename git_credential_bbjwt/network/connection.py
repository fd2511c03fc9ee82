"""One connection to one host, being opened by a thread of its own or open: directly, or through a proxy.

A direct one needs sockets and TLS alone, so that it is under way while the libraries for HTTP are still imported.
"""

import threading
import time
from ssl import SSLError
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.failures import ConnectionFailedError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.git.http_settings import HttpSettings
from git_credential_bbjwt.network.addresses import Address, addresses_of, first_to_connect
from git_credential_bbjwt.network.route import Certificates, Route, find_route
from git_credential_bbjwt.network.tls import context_for, name_for_tls
from git_credential_bbjwt.system.light_imports import https_connection

if TYPE_CHECKING:
    import socket
    import ssl

    from urllib3.connection import HTTPSConnection


class Network:
    """What all connections of one call share: the budget, git's settings, and the addresses that proved bad."""

    def __init__(self, budget: Budget, settings: HttpSettings) -> None:
        self.budget = budget
        self.settings = settings
        self.distrusted: set[str] = set()
        #: Whether a request of this call was lost on the way.
        self.loses = False
        self._routes: dict[str, Route] = {}
        self._contexts: dict[Certificates, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def route(self, url: str) -> Route:
        """The way to ``url``. Raises ConnectionFailedError."""
        if url not in self._routes:
            self._routes[url] = find_route(url, self.settings.for_url(url))
        return self._routes[url]

    def context(self, certificates: Certificates) -> "ssl.SSLContext":
        """What verifies certificates, one for both hosts: to read them takes long. Raises ConnectionFailedError."""
        with self._lock:
            if certificates not in self._contexts:
                self._contexts[certificates] = context_for(certificates)
            return self._contexts[certificates]

    def connect(self, host: str, port: int, route: Route) -> "socket.socket":
        """Return a socket that is connected to ``host``, Bitbucket's or a proxy's. Raises OSError, BudgetSpentError."""
        found: list[Address] = []
        for name in route.addresses(host, port) or [host]:
            found += addresses_of(name, port)
        return first_to_connect(found, self.budget.remaining, self.distrusted)


class Line:
    """A connection. ``heard`` is when something was last heard on it, by the monotonic clock, or it was begun."""

    def __init__(self, url: str, network: Network) -> None:
        """Git's settings for ``url`` choose the way to its host."""
        self._network = network
        target = urlsplit(url)
        self._host, self._port = target.hostname or "", target.port or 443
        self.host = target.netloc
        self._url = url
        self._peer = ""
        self._tls: ssl.SSLSocket | None = None
        self._http: HTTPSConnection | None = None
        self._trouble: Exception | None = None
        self.heard = time.monotonic()
        self._opening = threading.Thread(target=self._open, daemon=True)
        self._opening.start()

    def http(self) -> "HTTPSConnection":
        """The connection once it is open. Raises what went wrong: OSError, CredentialError, one of urllib3's."""
        connection = https_connection()  # Loaded while the connection is still being opened.
        self._opening.join()
        if self._trouble is not None:
            raise self._trouble
        if self._http is None:
            self._http = connection(self._host, self._port)
            self._http.sock = self._tls
            self._http.is_verified = True
        return self._http

    def hears(self) -> None:
        """Note that something was heard."""
        self.heard = time.monotonic()

    def begins_request(self) -> None:
        """An open line has waited for its request, and was not silent; one that is still being opened was."""
        if not self._opening.is_alive():
            self.hears()

    def distrust(self) -> None:
        """Have other addresses be tried first from now on."""
        if self._peer:
            self._network.distrusted.add(self._peer)

    def close(self) -> None:
        """Close it."""
        if self._http is not None:
            self._http.close()

    def _open(self) -> None:
        started = time.monotonic()
        try:
            route = self._network.route(self._url)
            if route.proxy is None:
                context = self._network.context(route.certificates)
                self._tls = context.wrap_socket(
                    self._dial(self._host, self._port, route), server_hostname=name_for_tls(self._host)
                )
            else:
                self._http = self._through(route)
            self.hears()
            trace(f"connected to {self._host} in {time.monotonic() - started:.3f} s")
        except Exception as problem:  # Carried over to the thread that waits for the connection.
            if isinstance(problem, SSLError):
                self.distrust()
            self._trouble = problem

    def _dial(self, host: str, port: int, route: Route) -> "socket.socket":
        raw = self._network.connect(host, port, route)
        self._peer = str(raw.getpeername()[0])
        self.hears()
        return raw

    def _through(self, route: Route) -> "HTTPSConnection":
        https_connection()
        from git_credential_bbjwt.network.proxy import connection_through

        proxy = route.proxy
        assert proxy is not None

        def dial() -> "socket.socket":
            try:
                return self._dial(proxy.host, proxy.port, route)
            except OSError as problem:
                raise ConnectionFailedError(
                    f"the proxy {proxy.place} cannot be reached: {problem.strerror or problem}",
                    "check the proxy in git's configuration (http.proxy) and in the environment (https_proxy)",
                ) from problem

        connection = connection_through(
            route, self._host, self._port, dial, self._network.context, self._network.budget
        )
        connection.connect()
        return connection
