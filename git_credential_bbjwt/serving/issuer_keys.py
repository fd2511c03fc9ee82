"""The keys of the issuers that the https broker trusts: read, kept, and used to check signatures.

Sources: OpenID Connect Discovery 1.0 section 4 (where they are); RFC 7517 (JWK), RFC 7518 section 6 and RFC 8037 (kinds
of keys); RFC 9111 section 5.2.2.1 (``max-age``). Only URLs that the configuration names, or the discovery document of
an issuer that it names, are ever fetched.
"""

import functools
import json
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from git_credential_bbjwt.core.output import error, trace
from git_credential_bbjwt.serving.answer import DeniedError
from git_credential_bbjwt.serving.id_token import ALGORITHMS, IdToken, NotAcceptedError
from git_credential_bbjwt.serving.operators_files import ChangingFile, read_own_file, reason_of
from git_credential_bbjwt.system.budget import Budget

if TYPE_CHECKING:
    from jwt import PyJWS

    from git_credential_bbjwt.network.connections import Connections

#: Seconds for the discovery document and the keys together, and for the wait for them.
PATIENCE = 10.0

# How long keys are kept, whatever `max-age` says; and how much longer if they cannot be fetched again. GitLab's
# `max-age` is a day, and its keys must be usable while new ones are fetched. Seconds.
_SHORTEST_LIFE, _LONGEST_LIFE = 300, 86_400
_LONGEST_OUTAGE = 86_400

# A flood of tokens with unknown keys leads to one fetch in so many seconds; a failed fetch is not repeated for so many.
_BETWEEN_UNKNOWN = 60
_AFTER_FAILURE = 10

# So many requests wait for an issuer at once; strangers who name a slow one hold no more threads than that.
_MOST_WAITING = 3

# How many keys with one `kid` are tried.
_MOST_TRIED = 4

_LONGEST_FILE = 1024 * 1024

# OpenSSL verifies with no longer ones (OPENSSL_RSA_MAX_MODULUS_BITS). Bits.
_RSA_BITS = range(2048, 16_384 + 1)

# The public members of a key: a private one that an issuer published by mistake is not looked at.
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}

_MAX_AGE = re.compile(r'(?:^|,)\s*max-age\s*=\s*"?([0-9]{1,10})"?\s*(?:,|$)', re.IGNORECASE)


class KeysNotAvailableError(DeniedError):
    """The issuer's keys are not available now, so nothing can be said about its tokens."""

    status = 503

    def __init__(self) -> None:
        retry = (("Retry-After", str(_AFTER_FAILURE)),)
        super().__init__("the keys of the ID token's issuer are not available now", headers=retry)


class Key(NamedTuple):
    """A key that checks signatures. ``kind`` is ``RSA``, ``P-256``, …; ``algorithm`` is empty if it may be any."""

    kid: str | None
    kind: str
    algorithm: str
    public: Any


def keys_in(data: bytes) -> list[Key]:
    """Return the usable keys of a JWKS, at least one. Raises ValueError."""
    listed = _document(data).get("keys")
    if not isinstance(listed, list):
        raise ValueError("there is no list of keys")
    keys = [key for one in listed if isinstance(one, dict) and (key := _key(one)) is not None]
    if not keys:
        raise ValueError("there is no usable key")
    return keys


def _document(data: bytes) -> dict[str, Any]:
    """Return the JSON object in an issuer's document. Raises ValueError.

    One odd key must not make all other keys unusable, so this is less strict than `id_token.parse_object`: if a name
    occurs twice, the last value is used, as RFC 7517 section 4 allows.
    """
    try:
        found = json.loads(data, parse_int=float)  # No integer is used, and one of thousands of digits is an error.
    except RecursionError as problem:
        raise ValueError("it is nested too deep") from problem
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _key(found: dict[str, Any]) -> Key | None:
    """Return a usable key; None for one of another kind or for another purpose, and for a broken one."""
    from jwt import PyJWK

    kid, algorithm, operations = found.get("kid"), found.get("alg", ""), found.get("key_ops", ["verify"])
    if not (kid is None or isinstance(kid, str)) or not isinstance(algorithm, str):
        return None
    if found.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    kty = found.get("kty")
    kind = kty if kty == "RSA" else found.get("crv")
    possible = [name for name, needs in ALGORITHMS.items() if needs == kind and algorithm in ("", name)]
    if not isinstance(kty, str) or kty not in _MEMBERS or not isinstance(kind, str) or not possible:
        return None
    try:
        members = {"kty": kty, **{name: found[name] for name in _MEMBERS[kty]}}
        public = PyJWK.from_dict(members, algorithm=possible[0]).key
    except Exception as problem:  # The library has many errors for a stranger's broken key.
        trace(f"an issuer's key is not used: {type(problem).__name__}")
        return None
    return Key(kid, kind, algorithm, public) if kind != "RSA" or public.key_size in _RSA_BITS else None


def check_signature(token: IdToken, keys: list[Key]) -> None:
    """Raise NotAcceptedError unless one of the issuer's ``keys`` made the signature of ``token``."""
    kind = ALGORITHMS[token.algorithm]
    fitting = [key for key in keys if key.kind == kind and key.algorithm in ("", token.algorithm)]
    if token.kid is None:
        if len(fitting) != 1:
            raise NotAcceptedError("the ID token names no key, and its issuer has not exactly one of that kind")
    else:
        fitting = [key for key in fitting if key.kid == token.kid][:_MOST_TRIED]
    for key in fitting:
        try:
            _verifier().decode(token.text, key=key.public, algorithms=[token.algorithm])
        except Exception as problem:  # A signature that does not fit has several errors; none may be a 500.
            trace(f"a signature does not fit: {type(problem).__name__}")
        else:
            return
    raise NotAcceptedError(
        "the ID token's signature does not belong to its issuer" if fitting else "the ID token's issuer has no such key"
    )


@functools.cache
def _verifier() -> "PyJWS":
    from jwt import PyJWS

    return PyJWS()


class IssuerKeys(Protocol):
    """The keys of one issuer."""

    def for_token(self, token: IdToken) -> list[Key]:
        """Return the keys. Raises KeysNotAvailableError."""

    def begin(self) -> threading.Thread | None:
        """Start to fetch; the thread, if there is one, ends when that is over."""


class Fetched(NamedTuple):
    """Keys, and the seconds for which they are kept."""

    keys: list[Key]
    life: float


class FetchedKeys:
    """The keys of one issuer, in memory, for any number of threads. A separate thread fetches them.

    Anybody can send a token that names this issuer and a key of any name, before anything is verified. So an unknown
    key leads to one fetch a minute, a failed fetch is not repeated for 10 s, and no more than three requests wait for a
    fetch. Tokens with a known key never wait: if the keys are out of date, they are used while a fetch is under way,
    and for another day if it fails.
    """

    def __init__(self, issuer: str, fetch: Callable[[], Fetched]) -> None:
        """``fetch`` returns the keys; raises CredentialError, OSError, ValueError."""
        self._issuer = issuer
        self._fetch = fetch
        self._lock = threading.Lock()
        self._keys: list[Key] | None = None
        self._fresh_until = 0.0
        self._failed_at = self._last_unknown = float("-inf")
        self._under_way: threading.Thread | None = None
        self._waiting = 0
        self._reason = ""

    def for_token(self, token: IdToken) -> list[Key]:
        """Return the issuer's keys, fetched again if the token names an unknown one. Raises KeysNotAvailableError."""
        now = time.monotonic()
        with self._lock:
            keys = self._present(now)
            if keys is not None and _has_key(token, keys):
                if now >= self._fresh_until:
                    self._start(now)  # Meanwhile the present ones are used.
                return keys
            is_new = keys is not None and self._under_way is None
            if is_new and keys is not None and now < self._last_unknown + _BETWEEN_UNKNOWN:
                return keys
            under_way = self._start(now)
            if is_new and under_way is not None:
                self._last_unknown = now
            if under_way is None or self._waiting >= _MOST_WAITING:
                raise KeysNotAvailableError
            self._waiting += 1
        under_way.join(PATIENCE)
        with self._lock:
            self._waiting -= 1
            keys = self._present(time.monotonic())
            if keys is None or (not _has_key(token, keys) and self._failed_at >= now):
                raise KeysNotAvailableError
            return keys

    def begin(self) -> threading.Thread | None:
        """Start to fetch, unless that is under way; return the thread that does it. None so soon after a failure."""
        with self._lock:
            return self._start(time.monotonic())

    def _present(self, now: float) -> list[Key] | None:
        return self._keys if now < self._fresh_until + _LONGEST_OUTAGE else None

    def _start(self, now: float) -> threading.Thread | None:
        if self._under_way is None and now >= self._failed_at + _AFTER_FAILURE:
            thread = threading.Thread(target=self._run, daemon=True)
            thread.start()  # It may raise RuntimeError.
            self._under_way = thread
        return self._under_way

    def _run(self) -> None:
        reason, fetched = "", None
        try:
            fetched = self._fetch()
        except Exception as problem:  # A thread has nobody to raise it to.
            reason = reason_of(problem)
        now = time.monotonic()
        with self._lock:
            if fetched is not None:
                self._keys, self._fresh_until = fetched.keys, now + fetched.life
                self._failed_at = float("-inf")
            else:
                self._failed_at = now
            is_news, self._reason = reason != self._reason, reason
            self._under_way = None
        if is_news and reason:
            error(f"the keys of {self._issuer} cannot be fetched: {reason}")


def _has_key(token: IdToken, keys: list[Key]) -> bool:
    """Return whether the key that ``token`` names is among ``keys``, of whatever kind."""
    return token.kid is None or any(key.kid == token.kid for key in keys)


class KeysInFile:
    """The keys of one issuer in a file, read again when it changes; a broken one leaves the old keys in force."""

    def __init__(self, issuer: str, path: str) -> None:
        self._keys: list[Key] = []
        self._file = ChangingFile(path, self._take, f"the keys of {issuer} in {path} cannot be used")

    def _take(self, path: str) -> None:
        self._keys = read_keys(path)

    def for_token(self, token: IdToken) -> list[Key]:  # noqa: ARG002  # a file has all keys that there are
        """Return the keys. Raises KeysNotAvailableError if they were never readable."""
        self._file.look()
        if not self._keys:
            raise KeysNotAvailableError
        return self._keys

    def begin(self) -> None:
        """Nothing has to be fetched."""


def read_keys(path: str) -> list[Key]:
    """Return the keys in a JWKS file. Raises CredentialError if others could have written it, OSError, ValueError."""
    return keys_in(read_own_file(path, "the key file", _LONGEST_FILE))


def fetch_keys(issuer: str, url: str) -> Fetched:
    """Fetch the keys of ``issuer``, from ``url`` or, if that is empty, from where its discovery document says.

    By https, by git's route to each URL, within one budget; no redirect is followed. Raises ValueError,
    CredentialError.
    """
    from git_credential_bbjwt.git.http_settings import HttpSettings
    from git_credential_bbjwt.network.connections import Connections

    connections = Connections(Budget(PATIENCE), HttpSettings())
    end = threading.Timer(PATIENCE, connections.abort)  # The budget does not end a response that drips.
    end.daemon = True
    end.start()
    try:
        return _fetch(connections, issuer, url)
    finally:
        end.cancel()
        end.join()


def _fetch(connections: "Connections", issuer: str, url: str) -> Fetched:
    if not url:
        body, _ = _get(connections, issuer.rstrip("/") + "/.well-known/openid-configuration")
        found = _document(body)
        if found.get("issuer") != issuer:
            raise ValueError("its discovery document names another issuer")
        named = found.get("jwks_uri")
        if not isinstance(named, str) or not (named.isascii() and named.isprintable()):
            raise ValueError("its discovery document has no jwks_uri")
        url = named
    body, cache_control = _get(connections, url)
    stated = _MAX_AGE.search(cache_control[:1000])
    life = int(stated[1]) if stated else _SHORTEST_LIFE
    return Fetched(keys_in(body), min(max(life, _SHORTEST_LIFE), _LONGEST_LIFE))


def _get(connections: "Connections", url: str) -> tuple[bytes, str]:
    """Return the body at ``url``, and its ``Cache-Control``."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise ValueError("the URL of the keys is not an https URL without a user")
    origin = connections.take(f"https://{parts.netloc}", parts.path)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        response = origin.request("GET", target, lambda: {"Accept": "application/json"})
    finally:
        origin.close()
    if response.status != 200:
        raise ValueError(f"https://{parts.netloc} answered {response.status}")
    return response.body, response.headers.get("Cache-Control") or ""
