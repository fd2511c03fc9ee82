"""Connections to servers: opened ahead, limited by the call's budget, and replaced after a failure if that can help."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from urllib.parse import urlsplit

from git_credential_bbjwt import __version__
from git_credential_bbjwt.core.failures import ConnectionFailedError, CredentialError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.git.http_settings import HttpSettings
from git_credential_bbjwt.network.connection import Connection, Network, SilentError
from git_credential_bbjwt.network.response import Response
from git_credential_bbjwt.system.budget import Budget

# Seconds without a byte after which an attempt is given up: the first attempt; the first attempt, if a request of this
# call has lost an attempt before; the second attempt. The first attempt is also limited to a third of the budget, the
# second to half of the rest. The third attempt may take all of the rest.
_FIRST_PATIENCE = 15.0
_FIRST_PATIENCE_ONCE_LOST = 5.0
_SECOND_PATIENCE = 20.0

# Statuses that are worth another attempt: the server is overloaded, or a proxy cannot reach it.
_TRANSIENT = frozenset({429, 502, 503, 504})

# Limit of the attempts that fail with a response or an error, and the seconds before the second attempt. The wait
# doubles, so that all attempts take about 5 s. A longer wait would help less than the error.
_ATTEMPTS = 5
_FIRST_WAIT = 0.3

# A 429 without a time to wait means that the allowance is used up, so further attempts hardly help.
_ATTEMPTS_WHEN_USED_UP = 2


class Connections:
    """The connections of one call. Idle connections are used again."""

    def __init__(self, budget: Budget, settings: HttpSettings) -> None:
        self._network = Network(budget, settings)
        self._idle: list[Origin] = []
        self._lock = threading.Lock()

    def take(self, base_url: str, path: str = "") -> "Origin":
        """Return an idle connection to ``base_url``, or start to open a new one.

        With a ``path``, git's settings for that path choose the route.
        """
        with self._lock:
            for origin in self._idle:
                if origin.base_url == base_url and origin.has_route_to(base_url + path):
                    self._idle.remove(origin)
                    return origin
        return Origin(base_url, self._network, path)

    def give_back(self, origin: "Origin") -> None:
        """Make ``origin`` available to the next `take`, unless a request of it was broken off."""
        if origin.is_idle:
            with self._lock:
                self._idle.append(origin)

    def close(self) -> None:
        """Close the idle connections, in a process that goes on. An error may refer to them for a long time."""
        with self._lock:
            for origin in self._idle:
                origin.close()
            self._idle.clear()

    def abort(self) -> None:
        """End all exchanges that are under way, in a process that goes on when the budget of the call is over."""
        for reference in self._network.connections:
            connection = reference()
            if connection is not None:
                connection.abort()


class Origin:
    """One base URL, and the connection to it.

    A thread opens the connection as soon as this object is made, so that the handshakes with all origins, the imports
    and the work of a keyring run in parallel.
    """

    def __init__(self, base_url: str, network: Network, path: str) -> None:
        self.base_url = base_url
        self.host = urlsplit(base_url).netloc
        self._url = base_url + path
        self._network = network
        self._budget = network.budget
        #: Whether no request is running, and none was broken off.
        self.is_idle = True
        # Another thread may need the connection during a swap.
        self._lock = threading.Lock()
        patience = _patience(network, 0, network.budget.seconds)
        self._connection: Connection | None = Connection(self._url, network, patience)

    def has_route_to(self, url: str) -> bool:
        """Return whether the route is the same as to ``url``."""
        return url == self._url or self._network.route(url) == self._network.route(self._url)

    def request(
        self,
        method: str,
        target: str,
        headers: Callable[[], dict[str, str]],
        body: bytes | None = None,
        *,
        limit: float | None = None,
        is_final: Callable[[Response], bool] = lambda _: False,
    ) -> Response:
        """Send a request, again if that can help; return the response, whatever its status.

        ``headers`` is called before each attempt, because a JWT may have to be new. ``limit`` limits the seconds of all
        attempts together. ``is_final`` says whether a response with the status of an overloaded server is a refusal.
        Raises ConnectionFailedError, BadAnswerError and BudgetSpentError.
        """
        with self._lock, nullcontext() if limit is None else self._aborted_after(limit):
            return self._repeated(
                lambda patience: self._attempt(method, target, headers(), body, patience), limit, is_final
            )

    @contextmanager
    def _aborted_after(self, seconds: float) -> Iterator[None]:
        """Abort an exchange that takes longer than ``seconds``, because a response that drips is never silent."""
        timer = threading.Timer(seconds, self._abort)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _abort(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    def _repeated(
        self, attempt: Callable[[float], Response], limit: float | None, is_final: Callable[[Response], bool]
    ) -> Response:
        self._budget.doing = f"waiting for {self.host}"
        self.is_idle = False
        remaining = self._remaining(limit)
        lost = failed = 0
        while True:
            patience = _patience(self._network, lost, remaining())
            try:
                response = attempt(patience)
            except SilentError as silent:
                lost += 1
                self._network.has_lost_attempt = True
                self.close()
                remaining()
                trace(f"no data from {self.host} for {silent.seconds:.0f} s; starting another attempt")
                continue
            except CredentialError:
                self.close()
                raise
            except Exception as problem:  # DNS, TCP, TLS, proxies and broken responses raise different errors.
                self.close()

                from git_credential_bbjwt.network.request_errors import attempt_error

                final: ConnectionFailedError | Response = attempt_error(problem, self.host, self.base_url)
                attempts, wait = _ATTEMPTS, None
            else:
                self.is_idle = True
                if response.status not in _TRANSIENT or is_final(response):
                    return response
                final, wait = response, response.retry_after
                attempts = _ATTEMPTS_WHEN_USED_UP if response.status == 429 and wait is None else _ATTEMPTS
            failed += 1
            pause = _FIRST_WAIT * 2 ** (failed - 1) * _jitter() if wait is None else wait
            if failed >= attempts or pause >= remaining():
                if isinstance(final, Response):
                    return final
                raise final
            what = f"status {final.status}" if isinstance(final, Response) else final.what
            trace(f"{what}; next attempt in {pause:.1f} s")
            self._budget.doing = f"waiting for {self.host} to recover ({what})"
            time.sleep(pause)

    def prepare_tls(self) -> None:
        """Prepare TLS while the connection is being opened."""
        self._budget.doing = "reading git's settings and the certificates"
        if self._connection is not None:
            self._connection.prepare_tls()

    def close(self) -> None:
        """Close the connection. The next request opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _remaining(self, limit: float | None) -> Callable[[], float]:
        """Return a function for the seconds that are left. It raises BudgetSpentError or ConnectionFailedError."""
        if limit is None:
            return self._budget.remaining
        end = time.monotonic() + limit

        def remaining() -> float:
            left = self._budget.remaining()
            if end <= time.monotonic():
                from git_credential_bbjwt.network.request_errors import no_response_within

                raise no_response_within(limit, self.host)
            return min(left, end - time.monotonic())

        return remaining

    def _attempt(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None, patience: float
    ) -> Response:
        started = time.monotonic()
        connection = self._connection or Connection(self._url, self._network, patience)
        self._connection = connection
        own = {
            "Accept": "application/json",
            "User-Agent": f"git-credential-bbjwt/{__version__}",
        }
        try:
            response, keeps_open = connection.exchange(method, target, {**own, **headers}, body, patience)
        except SilentError:
            connection.distrust()
            raise
        if not keeps_open:
            self.close()
        trace(f"{method} {self.base_url}{target}: {response.status} in {time.monotonic() - started:.3f} s")
        return response


def _patience(network: Network, lost: int, left: float) -> float:
    """Return the seconds without a byte after which an attempt is given up.

    ``lost`` is the number of attempts of this request that were given up, ``left`` the seconds that are left for it.
    """
    if lost == 0:
        longest = _FIRST_PATIENCE_ONCE_LOST if network.has_lost_attempt else _FIRST_PATIENCE
        return min(longest, network.budget.seconds / 3, left)
    return min(_SECOND_PATIENCE, left / 2) if lost == 1 else left


def _jitter() -> float:
    """Return a factor around 1, so that many processes that failed together do not retry at the same time."""
    from random import uniform

    return uniform(0.5, 1.5)  # noqa: S311  # no key
