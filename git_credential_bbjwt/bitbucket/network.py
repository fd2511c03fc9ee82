"""Connections to Bitbucket: opened ahead, bounded by the call's budget, tried again when that can help."""

import random
import socket
import threading
import time
import warnings
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from ssl import SSLCertVerificationError
from typing import NamedTuple
from urllib.parse import urlsplit

from urllib3.connection import HTTPSConnection, ProxyConfig
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.util import Timeout
from urllib3.util.url import Url

from git_credential_bbjwt import __version__
from git_credential_bbjwt.bitbucket.route import Proxy, Route, find_route, tls_context
from git_credential_bbjwt.budget import Budget
from git_credential_bbjwt.diagnostics import trace
from git_credential_bbjwt.errors import BadAnswerError, ConnectionFailedError, RefusedError
from git_credential_bbjwt.git.config import HttpSettings

#: Largest answer that is read, in bytes.
MAX_ANSWER = 1024 * 1024

_PIECE = 65_536

# Seconds for one address to accept a connection; the next one (IPv4 after IPv6, say) needs its turn within the budget.
_CONNECT_TIMEOUT = 10.0

# Worth another try: the server says it is overloaded, or a proxy on the way that it cannot reach it.
_TRANSIENT = frozenset({429, 502, 503, 504})

# Tries in all, and the seconds before the second one; the wait doubles. Together some five seconds: longer than that,
# a person would rather know.
_TRIES = 5
_FIRST_WAIT = 0.3

# Bitbucket's own 429 names no time to wait, and means a rolling hour ("API request limits"): trying on only costs more.
_TRIES_WHEN_USED_UP = 2


class Answer(NamedTuple):
    """A whole HTTP answer. ``date`` is the Unix time of its ``Date`` header, None where it has none."""

    status: int
    body: bytes
    date: float | None
    retry_after: str | None
    location: str | None


class _Transient(Exception):  # noqa: N818  # it never leaves this module: a reason to try again, not an error
    """The try failed in a way another one may not. ``wait`` is the seconds the server asked for, if it did.

    ``tries`` is how many there may be in all.
    """

    def __init__(
        self, final: ConnectionFailedError | RefusedError, wait: float | None = None, tries: int = _TRIES
    ) -> None:
        super().__init__(final.what)
        self.final = final
        self.wait = wait
        self.tries = tries


class Connections:
    """The connections of one call: those that are idle are used again."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._settings = HttpSettings()
        self._idle: list[Origin] = []
        self._lock = threading.Lock()

    def take(self, base_url: str) -> "Origin":
        """Return an idle connection to ``base_url``, or one that is being opened from now on."""
        with self._lock:
            for origin in self._idle:
                if origin.base_url == base_url:
                    self._idle.remove(origin)
                    return origin
        return Origin(base_url, self._budget, self._settings)

    def give_back(self, origin: "Origin") -> None:
        """Have ``origin`` be idle, for whoever is next."""
        with self._lock:
            self._idle.append(origin)


class Origin:
    """One base URL of an installation, and the connection to it.

    The connection is opened by a thread as soon as this is made, so that the handshakes of both origins, our own
    heavier imports and the keyring's work all go on at once.
    """

    def __init__(self, base_url: str, budget: Budget, settings: HttpSettings | None = None) -> None:
        self.base_url = base_url
        self.host = urlsplit(base_url).netloc
        self._budget = budget
        self._settings = settings or HttpSettings()
        self._route: Route | None = None
        self._connection: HTTPSConnection | None = None
        self._trouble: Exception | None = None
        #: Whether no request is under way, nor was broken off.
        self.is_idle = True
        # urllib3 warns of a clock that is years off; such a clock shows in the certificate check, which says more.
        warnings.simplefilter("ignore")
        self._opening: threading.Thread | None = threading.Thread(target=self._open_ahead, daemon=True)
        self._opening.start()

    def _open_ahead(self) -> None:
        try:
            self._connection = self._connect()
        except Exception as problem:  # Carried over to the thread that waits for the connection.
            self._trouble = problem

    def _connect(self) -> HTTPSConnection:
        if self._route is None:
            self._route = find_route(self.base_url, self._settings.for_url(self.base_url))
        proxy = self._route.proxy
        target = urlsplit(self.base_url)
        host, port = target.hostname or "", target.port or 443
        remaining = self._budget.remaining()
        timeout = Timeout(connect=min(_CONNECT_TIMEOUT, remaining / 3), read=remaining)
        context = tls_context(self._route)
        if proxy is None:
            connection = HTTPSConnection(host, port, timeout=timeout.connect_timeout, ssl_context=context)
        elif proxy.is_socks:
            connection = _SocksConnection(host, port, timeout=timeout.connect_timeout, ssl_context=context)
            connection.socks = proxy
        else:
            connection = HTTPSConnection(
                proxy.host,
                proxy.port,
                timeout=timeout.connect_timeout,
                ssl_context=context,
                proxy=Url(scheme=proxy.scheme, host=proxy.host, port=proxy.port),
                proxy_config=ProxyConfig(context, False, None, None),
            )
            headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
            connection.set_tunnel(host, port, headers=headers, scheme=proxy.scheme)
        started = time.monotonic()
        connection.connect()
        trace(f"connected to {self.host} in {time.monotonic() - started:.3f} s")
        return connection

    def request(
        self,
        method: str,
        target: str,
        headers: Callable[[], dict[str, str]],
        body: bytes | None = None,
    ) -> Answer:
        """Send a request and return its answer, whatever its status, after as many tries as make sense.

        ``headers`` is asked before each try, for a JWT must be fresh. Raises ConnectionFailedError, BudgetSpentError,
        and RefusedError for a server that stays overloaded.
        """
        wait = _FIRST_WAIT
        for attempt in range(1, _TRIES + 1):
            try:
                return self._try(method, target, headers(), body)
            except _Transient as problem:
                self.close()
                pause = problem.wait if problem.wait is not None else wait * random.uniform(0.5, 1.5)  # noqa: S311  # no key
                if attempt >= problem.tries or pause >= self._budget.remaining():
                    raise problem.final from None
                trace(f"{problem}; next try in {pause:.1f} s")
                self._budget.doing = f"waiting for {self.host} to recover"
                time.sleep(pause)
                wait *= 2
        raise AssertionError("the last try either returns or raises")

    def _try(self, method: str, target: str, headers: dict[str, str], body: bytes | None) -> Answer:
        self._budget.doing = f"waiting for {self.host}"
        started = time.monotonic()
        self.is_idle = False
        try:
            connection = self._ready()
            answer = self._exchange(connection, method, target, headers, body)
        except ConnectionFailedError:
            raise
        except (HTTPError, HTTPException, OSError) as problem:
            trace(f"{method} {self.base_url}{target}: {type(problem).__name__}: {problem}")
            self._budget.remaining()
            raise self._failure(problem) from problem
        self.is_idle = True
        trace(f"{method} {self.base_url}{target}: {answer.status} in {time.monotonic() - started:.3f} s")
        if answer.status in _TRANSIENT:
            what = f"{self.host} answered {answer.status}" + (": too many requests" if answer.status == 429 else "")
            wait = _seconds_to_wait(answer)
            used_up = answer.status == 429 and wait is None
            if used_up:
                what += "; the allowance of this hour is used up"
            if wait is not None:
                what += f", and asks to wait {wait:.0f} s"
            final = RefusedError(
                what,
                "try again later; clone URLs that name the repository by its UUID cost one request less"
                if answer.status == 429
                else "try again later",
                status=answer.status,
                server_time=answer.date,
                is_used_up=used_up,
            )
            raise _Transient(final, wait, _TRIES_WHEN_USED_UP if used_up else _TRIES)
        return answer

    def _ready(self) -> HTTPSConnection:
        """The open connection: the one opened ahead, or a new one."""
        if self._opening is not None:
            self._opening.join()
            self._opening = None
            if self._trouble is not None:
                raise self._trouble
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _exchange(
        self, connection: HTTPSConnection, method: str, target: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        # `sock` belongs to http.client's documented use; the bound on each wait shrinks with the budget.
        connection.sock.settimeout(self._budget.remaining())
        connection.timeout = self._budget.remaining()
        connection.request(
            method,
            target,
            body=body,
            headers={
                "Accept": "application/json",
                # Nothing is decompressed, so nothing can grow beyond the limit by being so.
                "Accept-Encoding": "identity",
                "User-Agent": f"git-credential-bbjwt/{__version__}",
                **headers,
            },
            preload_content=False,
            decode_content=False,
        )
        response = connection.getresponse()
        # Piece by piece up to the end: only there does urllib3 notice that a length was announced and not kept.
        content = b""
        while len(content) <= MAX_ANSWER and (piece := response.read(_PIECE)):
            content += piece
        if len(content) > MAX_ANSWER:
            self.close()
            raise BadAnswerError(
                f"{self.host} sent more than {MAX_ANSWER} bytes", "check for a proxy that answers itself"
            )
        # http.client has dropped a connection that the server means to close; the next request opens another.
        if connection.sock is None:
            self.close()
        return Answer(
            response.status,
            content,
            http_time(response.headers.get("Date")),
            response.headers.get("Retry-After"),
            response.headers.get("Location"),
        )

    def _failure(self, problem: Exception) -> Exception:
        """What a failed try comes to: a reason for another one, or the end."""
        reason = _reason(problem)
        if _proxy_refuses(reason):
            return _refused_by_proxy(self.host, reason)
        if isinstance(problem, SSLCertVerificationError):
            return ConnectionFailedError(
                f"the certificate of {self.host} cannot be verified: {reason}",
                "if your network has its own certificate authority, name its file: git config --global "
                f"http.{self.base_url}/.sslCAInfo FILE (or SSL_CERT_FILE)",
            )
        final = ConnectionFailedError(
            f"no answer from {self.host}: {reason}",
            "check the network, and the proxy in git's configuration and the environment; BBJWT_TRACE=1 shows each try",
        )
        return _Transient(final)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _SocksConnection(HTTPSConnection):
    """A connection through the SOCKS proxy ``socks``."""

    socks: Proxy

    def _new_conn(self) -> socket.socket:
        """Open the connection, as urllib3's own SOCKS support overrides it. Raises OSError, ConnectionFailedError."""
        from python_socks import ProxyError, ProxyType
        from python_socks.sync import Proxy as Socks

        user, password = (part.decode("latin-1") for part in self.socks.userinfo or (b"", b""))
        proxy = Socks(
            ProxyType.SOCKS4 if self.socks.scheme.startswith("socks4") else ProxyType.SOCKS5,
            self.socks.host,
            self.socks.port,
            user or None,
            password or None,
            rdns=self.socks.resolves,
        )
        timeout = self.timeout if isinstance(self.timeout, (int, float)) else None
        try:
            return proxy.connect(self.host, self.port, timeout=timeout)
        except ProxyError as problem:
            if problem.error_code is not None:  # It tried, and might succeed later.
                raise OSError(f"the SOCKS proxy says: {problem}") from problem
            raise _refused_by_proxy(self.host, str(problem)) from problem


def _refused_by_proxy(host: str, reason: str) -> ConnectionFailedError:
    return ConnectionFailedError(
        f"the proxy does not let through to {host}: {reason}",
        "check the user name and password in the proxy's URL (http.proxy in git's configuration, https_proxy)",
    )


def _reason(problem: BaseException) -> str:
    """The innermost reason in words: urllib3 wraps the operating system's own several times."""
    if isinstance(problem, NewConnectionError) and problem.__cause__ is not None:
        problem = problem.__cause__
    if isinstance(problem, TimeoutError):
        return "it timed out"
    text = getattr(problem, "verify_message", None) or getattr(problem, "strerror", None) or str(problem)
    return " ".join(str(text).split())[:300] or type(problem).__name__


def _proxy_refuses(reason: str) -> bool:
    """Whether a proxy's answer to CONNECT is a no that stays one; http.client tells it in words alone."""
    _, told, answer = reason.partition("Tunnel connection failed: ")
    status = answer.partition(" ")[0]
    return bool(told) and status.startswith("4") and status != "429"


def http_time(text: str | None) -> float | None:
    """Return the Unix time of an HTTP date (RFC 9110, section 5.6.7), None for what is none."""
    if not text:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds_to_wait(answer: Answer) -> float | None:
    """What ``Retry-After`` asks for, in seconds (RFC 9110, section 10.2.3: a number, or a date)."""
    text = (answer.retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    date = http_time(text)
    if date is None:
        return None
    # By the server's own clock where it tells it, for ours may be off.
    return max(0.0, date - (answer.date if answer.date is not None else time.time()))
