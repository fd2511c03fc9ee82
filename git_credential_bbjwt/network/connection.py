"""A connection to one host, directly or through a proxy, which a separate thread opens.

TLS and HTTP are imported while TCP and TLS wait for the server, because these imports take longer than all others of a
mint together. Otherwise, if git clones eight submodules at once, the imports of all eight helpers would compete for the
processor before any helper has sent a packet.
"""

import contextlib
import socket
import threading
import time
import weakref
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import ConnectionFailedError, CredentialError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.git.http_settings import HttpSettings
from git_credential_bbjwt.network.addresses import Address, addresses_of, first_to_connect, unix_socket
from git_credential_bbjwt.network.response import Response
from git_credential_bbjwt.network.route import Certificates, Route, find_route
from git_credential_bbjwt.system.budget import Budget

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

#: Limit of a response's body in bytes.
MOST_BYTES = 1024 * 1024


class SilentError(Exception):
    """No data was received for ``seconds``, so the connection is given up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no data for {seconds:.0f} s")
        self.seconds = seconds


class Network:
    """The state that all connections of a call share: the budget, git's settings, and the addresses that failed."""

    def __init__(self, budget: Budget, settings: HttpSettings) -> None:
        self.budget = budget
        self.settings = settings
        self.distrusted: set[str] = set()
        #: Whether an attempt of this call was given up because no data was received.
        self.has_lost_attempt = False
        #: All connections of this call, for `Connections.abort`. They are closed when nobody else refers to them.
        self.connections: list[weakref.ref[Connection]] = []
        self._routes: dict[str, Route] = {}
        self._contexts: dict[Certificates, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def route(self, url: str) -> Route:
        """Return the route to ``url``. Raises ConnectionFailedError."""
        if url not in self._routes:
            self._routes[url] = find_route(url, self.settings.for_url(url))
        return self._routes[url]

    def context(self, certificates: Certificates) -> "ssl.SSLContext":
        """Return the TLS context for ``certificates``. Both hosts share it, because reading certificates takes long.

        Raises ConnectionFailedError.
        """
        from git_credential_bbjwt.network.tls import context_for

        with self._lock:
            if certificates not in self._contexts:
                self._contexts[certificates] = context_for(certificates)
            return self._contexts[certificates]

    def connect(self, host: str, port: int, route: Route) -> socket.socket:
        """Return a socket that is connected to ``host``, a server or a proxy. Raises OSError, BudgetSpentError."""
        found: list[Address] = []
        for name in route.addresses(host, port) or [host]:
            found += addresses_of(name, port)
        return first_to_connect(found, self.budget.remaining, self.distrusted)


class Connection:
    """A connection that a thread opens as soon as this object is made.

    ``patience`` is the seconds without a byte after which opening it is given up.
    """

    def __init__(self, url: str, network: Network, patience: float) -> None:
        """Start to open the connection. Git's settings for ``url`` choose the route to its host."""
        self._url = url
        self._network = network
        self._patience = patience
        target = urlsplit(url)
        self.host = target.netloc
        self._name, self._port = target.hostname or "", target.port or 443
        self._peer = ""
        self._stream: socket.socket | None = None
        self._trouble: Exception | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        # The time of the last received data, or of the start, by the monotonic clock.
        self._heard = time.monotonic()
        network.connections.append(weakref.ref(self))
        self._opening = threading.Thread(target=self._open, daemon=True)
        self._opening.start()

    def prepare_tls(self) -> None:
        """Import TLS and read the certificates, while TCP waits for the server. The connection reports every error."""
        with contextlib.suppress(Exception):
            self._network.context(self._network.route(self._url).certificates)

    def exchange(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None, patience: float
    ) -> tuple[Response, bool]:
        """Send a request; return its response, and whether the connection can carry another one.

        ``patience`` is the seconds without a byte after which the request is given up. Raises SilentError, OSError,
        CredentialError, and the errors of `response`.
        """
        from git_credential_bbjwt.network.http1 import read_body, send_request
        from git_credential_bbjwt.network.tls import why_it_hung_up

        stream = self._wait_until_open(patience)
        # The socket's timeout limits a single wait. The budget ends a response that drips.
        stream.settimeout(patience)
        try:
            response = send_request(stream, method, target, self.host, headers, body)
            content = read_body(response, MOST_BYTES)
        except TimeoutError as problem:
            raise SilentError(patience) from problem
        except OSError as problem:
            raise why_it_hung_up(stream, problem) from problem
        return Response(response.status, content, response.headers), not response.will_close

    def distrust(self) -> None:
        """From now on, try this connection's address last."""
        if self._peer:
            self._network.distrusted.add(self._peer)

    def close(self) -> None:
        """Close the connection. If it is still being opened, it is closed as soon as it is open."""
        with self._lock:
            self._is_closed = True
            if self._stream is not None:
                self._stream.close()

    def abort(self) -> None:
        """End an exchange that is under way in another thread, which then gets an error.

        The socket is shut down and not closed: its number could belong to another file before that thread notices.
        """
        with self._lock:
            self._is_closed = True
            if self._stream is not None:
                with contextlib.suppress(OSError):
                    # SSLSocket's own `shutdown` first ends TLS, and then that thread could send its request in clear.
                    socket.socket.shutdown(self._stream, socket.SHUT_RDWR)

    def _wait_until_open(self, patience: float) -> socket.socket:
        while self._opening.is_alive():
            silent = time.monotonic() - self._heard
            if silent >= patience:
                raise SilentError(silent)
            self._opening.join(patience - silent)
        if isinstance(self._trouble, TimeoutError):
            raise SilentError(time.monotonic() - self._heard) from self._trouble
        if self._trouble is not None:
            raise self._trouble
        assert self._stream is not None
        return self._stream

    def _open(self) -> None:
        started = time.monotonic()
        try:
            opened = self._opened()
            with self._lock:
                self._stream = opened
                if self._is_closed:
                    opened.close()
            trace(f"connected to {self.host} in {time.monotonic() - started:.3f} s")
        except Exception as problem:  # Raised again by the thread that waits for the connection.
            if not isinstance(problem, CredentialError):
                self.distrust()
            self._trouble = problem

    def _opened(self) -> "ssl.SSLSocket":
        route = self._network.route(self._url)
        stream = self._dial_proxy(route) if route.proxy else self._dial(self._name, self._port, route)
        try:
            if route.proxy is not None:
                from git_credential_bbjwt.network.proxy import through_proxy

                is_https = route.proxy.scheme == "https"
                for_proxy = self._network.context(route.proxy_certificates) if is_https else None
                stream = through_proxy(stream, route, for_proxy, self._name, self._port)
                self._heard = time.monotonic()
            from git_credential_bbjwt.network.tls import name_for_tls

            context = self._network.context(route.certificates)
            return context.wrap_socket(stream, server_hostname=name_for_tls(self._name))
        except BaseException:
            stream.close()
            raise

    def _dial(self, host: str, port: int, route: Route) -> socket.socket:
        stream = self._network.connect(host, port, route)
        try:
            self._peer = str(stream.getpeername()[0])
        except OSError:  # It has been reset already.
            stream.close()
            raise
        self._heard = time.monotonic()
        stream.settimeout(self._patience)
        return stream

    def _dial_proxy(self, route: Route) -> socket.socket:
        proxy = route.proxy
        assert proxy is not None
        try:
            if proxy.socket_path:
                return unix_socket(proxy.socket_path, self._patience)
            return self._dial(proxy.host, proxy.port, route)
        except OSError as problem:
            raise ConnectionFailedError(
                f"the proxy {proxy.place} cannot be reached: {problem.strerror or problem}",
                "check https_proxy, and http.proxy in git's configuration: "
                "git config --show-origin --get-regexp 'proxy$'",
            ) from problem
