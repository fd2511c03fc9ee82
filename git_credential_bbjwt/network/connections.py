"""Connections to Bitbucket: opened ahead, bounded by the call's budget, tried again when that can help."""

import threading
import time
import warnings
from collections.abc import Callable
from queue import Empty, SimpleQueue
from ssl import SSLCertVerificationError, SSLEOFError, SSLError
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from git_credential_bbjwt import __version__
from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.failures import BadAnswerError, ConnectionFailedError, CredentialError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.git.http_settings import HttpSettings
from git_credential_bbjwt.network.connection import Line, Network
from git_credential_bbjwt.network.response import Response
from git_credential_bbjwt.system.light_imports import https_connection

if TYPE_CHECKING:
    from urllib3.connection import HTTPSConnection

#: Largest answer that is read, in bytes.
MAX_RESPONSE = 1024 * 1024

_PIECE = 65_536

# What is bounded by what: the call by its budget, and by nothing else. A try on which nothing was heard for so long is
# joined by another on a new connection, so many at once; sooner where one of this call's was lost already. Seconds.
_PATIENCE = 15.0
_PATIENCE_ONCE_LOST = 4.0
_MOST_AT_ONCE = 3

# Worth another try: the server says it is overloaded, or a proxy on the way that it cannot reach it.
_TRANSIENT = frozenset({429, 502, 503, 504})

# Tries in all, and the seconds before the second one; the wait doubles. Together some five seconds: longer than that,
# a person would rather know.
_TRIES = 5
_FIRST_WAIT = 0.3

# A 429 without a time to wait means that an allowance is used up: further attempts only cost more.
_TRIES_WHEN_USED_UP = 2


class _Transient(Exception):  # noqa: N818  # it never leaves this module: a reason to try again, not an error
    """The attempt failed in a way that another one may not. ``final`` is what to return or raise if it was the last.

    ``wait`` is the seconds the server asked for, if it did; ``attempts`` how many there may be in all.
    """

    def __init__(
        self, final: "ConnectionFailedError | Response", wait: float | None = None, attempts: int = _TRIES
    ) -> None:
        super().__init__(f"status {final.status}" if isinstance(final, Response) else final.what)
        self.final = final
        self.wait = wait
        self.attempts = attempts


class Connections:
    """The connections of one call: those that are idle are used again."""

    def __init__(self, budget: Budget, settings: HttpSettings) -> None:
        self._network = Network(budget, settings)
        self._idle: list[Origin] = []
        self._lock = threading.Lock()

    def take(self, base_url: str, path: str = "") -> "Origin":
        """Return an idle connection to ``base_url``, or one that is being opened from now on.

        With a ``path`` git's settings for that choose the way.
        """
        with self._lock:
            for origin in self._idle:
                if origin.base_url == base_url and origin.goes_the_way_to(base_url + path):
                    self._idle.remove(origin)
                    return origin
        return Origin(base_url, self._network, path)

    def give_back(self, origin: "Origin") -> None:
        """Have ``origin`` be idle, for whoever is next."""
        with self._lock:
            self._idle.append(origin)


class Origin:
    """One base URL of an installation, and the connection to it.

    The connection is opened by a thread as soon as this is made, so that the handshakes of both origins, our own
    heavier imports and the keyring's work all go on at once.
    """

    def __init__(self, base_url: str, network: Network, path: str = "") -> None:
        self.base_url = base_url
        self._url = base_url + path
        self.host = urlsplit(base_url).netloc
        self._network = network
        self._budget = network.budget
        #: Whether no request is under way, nor was broken off.
        self.is_idle = True
        # urllib3 warns of a clock that is years off; such a clock shows in the certificate check, which says more.
        warnings.simplefilter("ignore")
        self._line: Line | None = Line(self._url, network)

    def goes_the_way_to(self, url: str) -> bool:
        """Whether the way is the same as to ``url``."""
        return url == self._url or self._network.route(url) == self._network.route(self._url)

    def request(
        self,
        method: str,
        target: str,
        headers: Callable[[], dict[str, str]],
        body: bytes | None = None,
    ) -> Response:
        """Send a request and return its response, whatever its status, after as many attempts as make sense.

        ``headers`` is called before each attempt, because a JWT must be fresh. Raises ConnectionFailedError and
        BudgetSpentError.
        """
        wait = _FIRST_WAIT
        for attempt in range(1, _TRIES + 1):
            try:
                return self._try(method, target, headers, body)
            except _Transient as problem:
                self.close()
                pause = problem.wait if problem.wait is not None else wait * _jitter()
                if attempt >= problem.attempts or pause >= self._budget.remaining():
                    if isinstance(problem.final, Response):
                        return problem.final
                    raise problem.final from None
                trace(f"{problem}; next try in {pause:.1f} s")
                self._budget.doing = f"waiting for {self.host} to recover"
                time.sleep(pause)
                wait *= 2
        raise AssertionError("the last try either returns or raises")

    def _try(self, method: str, target: str, headers: Callable[[], dict[str, str]], body: bytes | None) -> Response:
        https_connection()  # Loaded while the connections are opened, and before a keyring's answer is waited for.
        self._budget.doing = f"waiting for {self.host}"
        started = time.monotonic()
        self.is_idle = False
        results: SimpleQueue[_Try] = SimpleQueue()
        response = self._first_response(
            lambda line: _Try(line, results, self._budget, method, target, headers(), body), results
        )
        self.is_idle = True
        trace(f"{method} {self.base_url}{target}: {response.status} in {time.monotonic() - started:.3f} s")
        if response.status in _TRANSIENT:
            wait = response.retry_after
            used_up = response.status == 429 and wait is None
            raise _Transient(response, wait, _TRIES_WHEN_USED_UP if used_up else _TRIES)
        return response

    def _first_response(self, begin: "Callable[[Line], _Try]", results: "SimpleQueue[_Try]") -> Response:
        """Return the answer that comes first, of a try and of those that join it while nothing is heard on the last.

        Nothing is given up before the budget's end: a slow server or proxy still answers, and a connection that was
        lost on the way is no more than a delay. For the swap too: a token that nobody receives is no harm.
        """
        line, self._line = self._line or Line(self._url, self._network), None
        tries = [begin(line)]
        trouble: Exception | None = None
        while True:
            try:
                done = results.get(timeout=self._seconds_to_next(tries))
            except Empty:
                self._budget.remaining()
                if len(tries) < _MOST_AT_ONCE and tries[-1].silent_for() >= self._patience():
                    tries[-1].line.distrust()
                    trace(f"nothing was heard of {self.host} for {tries[-1].silent_for():.0f} s: trying beside it")
                    tries.append(begin(Line(self._url, self._network)))
                continue
            if done.response is not None:
                if done is not tries[0]:
                    self._network.loses = True
                self._line = done.line if done.keeps_open else None
                return done.response
            trouble = trouble or done.trouble
            done.is_over = True
            if all(one.is_over for one in tries):
                assert trouble is not None
                raise self._failure(trouble)

    def _patience(self) -> float:
        """Seconds without a byte after which a try is joined by another."""
        longest = _PATIENCE_ONCE_LOST if self._network.loses else _PATIENCE
        return min(longest, self._budget.seconds / 3)

    def _seconds_to_next(self, tries: "list[_Try]") -> float:
        remaining = self._budget.remaining()
        if len(tries) == _MOST_AT_ONCE:
            return remaining
        return max(0.001, min(remaining, self._patience() - tries[-1].silent_for()))

    def _failure(self, problem: Exception) -> Exception:
        """What a failed try comes to: a reason for another one, or the end."""
        if isinstance(problem, CredentialError):
            return problem
        reason = _reason(problem)
        proxy = self._network.route(self._url).proxy
        if proxy is not None and _proxy_refuses(reason):
            from git_credential_bbjwt.network.proxy import refused_by_proxy

            return refused_by_proxy(proxy, self.host, reason)
        if isinstance(problem, SSLCertVerificationError):
            return ConnectionFailedError(
                f"the certificate of {self.host} cannot be verified: {reason}",
                "if your network has its own certificate authority, name its file: git config --global "
                f"http.{self.base_url}/.sslCAInfo FILE (or SSL_CERT_FILE)",
            )
        if _wants_certificate(problem):
            return ConnectionFailedError(
                f"{self.host}, or a proxy, wants a client certificate: {reason}",
                "name it as for git: http.sslCert and http.sslKey; for a proxy http.proxySSLCert and http.proxySSLKey",
            )
        self._budget.remaining()
        hint = (
            "check the network, and the proxy in git's configuration and the environment; BBJWT_TRACE=1 shows each try"
        )
        if isinstance(problem, (ConnectionError, SSLEOFError)):
            hint += "; who hangs up like this may want a client certificate (http.sslCert)"
        final = ConnectionFailedError(f"no answer from {self.host}: {reason}", hint)
        return _Transient(final)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        line, self._line = self._line, None
        if line is not None:
            line.close()


class _Try:
    """One request on one connection, by a thread of its own."""

    def __init__(
        self,
        line: Line,
        results: "SimpleQueue[_Try]",
        budget: Budget,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
    ) -> None:
        line.begins_request()
        self.line = line
        self.response: Response | None = None
        self.trouble: Exception | None = None
        self.is_over = False
        #: Whether the connection can carry another request.
        self.keeps_open = True
        self._results = results
        self._budget = budget
        self._request = (method, target, headers, body)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def silent_for(self) -> float:
        """Seconds since something was last heard."""
        return time.monotonic() - self.line.heard

    def _run(self) -> None:
        try:
            self.response = self._exchange(self.line.http(), *self._request)
        except Exception as problem:  # Carried over to the thread that waits.
            hung_up = isinstance(problem, (ConnectionError, SSLEOFError))
            self.trouble = (self._alert() if hung_up else None) or problem
        self._results.put(self)

    def _alert(self) -> Exception | None:
        """Why the server hung up, where it said so in TLS: with TLS 1.3 that comes when we are sending already."""
        try:
            self.line.http().sock.recv(1)
        except SSLError as alert:
            return alert
        except Exception:  # Whatever it is, it says no more than what is known.
            return None
        return None

    def _exchange(
        self, connection: "HTTPSConnection", method: str, target: str, headers: dict[str, str], body: bytes | None
    ) -> Response:
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
        self.line.hears()
        response = connection.getresponse()
        # Piece by piece up to the end: only there does urllib3 notice that a length was announced and not kept.
        content = b""
        while len(content) <= MAX_RESPONSE and (piece := response.read(_PIECE)):
            self.line.hears()
            content += piece
        if len(content) > MAX_RESPONSE:
            self.line.close()
            raise BadAnswerError(
                f"the answer of {self.line.host} is over {MAX_RESPONSE} bytes long",
                "check for a proxy that answers itself",
            )
        # http.client has dropped a connection that the server means to close; the next request opens another.
        self.keeps_open = connection.sock is not None
        return Response(response.status, content, response.headers)


def _reason(problem: BaseException) -> str:
    """The innermost reason in words: urllib3 wraps the operating system's own several times."""
    if isinstance(problem, TimeoutError):
        return "it timed out"
    text = getattr(problem, "verify_message", None) or getattr(problem, "strerror", None) or str(problem)
    return " ".join(str(text).split())[:300] or type(problem).__name__


def _jitter() -> float:
    """A factor around 1, so that many who failed together do not come back together."""
    from random import uniform

    return uniform(0.5, 1.5)  # noqa: S311  # no key


def _wants_certificate(problem: Exception) -> bool:
    """Whether a server wanted to be shown a certificate (RFC 8446, section 6.2; before TLS 1.3 it says less)."""
    alerts = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNKNOWN_CA", "HANDSHAKE_FAILURE")
    return isinstance(problem, SSLError) and any(f"ALERT_{alert}" in str(problem.reason) for alert in alerts)


def _proxy_refuses(reason: str) -> bool:
    """Whether a proxy's answer to CONNECT is a no that stays one; http.client tells it in words alone."""
    _, told, response = reason.partition("Tunnel connection failed: ")
    status = response.partition(" ")[0]
    return bool(told) and status.startswith("4") and status != "429"
