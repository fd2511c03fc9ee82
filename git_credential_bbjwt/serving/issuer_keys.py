"""The keys of the issuers that the https broker trusts: fetched, kept, and used to check signatures.

Sources: OpenID Connect Discovery 1.0 section 4 (where they are); RFC 7517 (JWK), RFC 7518 section 6 and RFC 8037 (kinds
of keys); RFC 9111 section 5.2.2.1 (``max-age``). Only URLs that the configuration names, or the discovery document of
an issuer that it names, are ever fetched.
"""

import functools
import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.output import error, trace
from git_credential_bbjwt.core.ownership import open_to_read
from git_credential_bbjwt.serving.id_token import ALGORITHMS, IdToken, NotAcceptedError
from git_credential_bbjwt.serving.isolation import check_own_file
from git_credential_bbjwt.system.budget import Budget

if TYPE_CHECKING:
    from jwt import PyJWS

#: Seconds for the discovery document and the keys together, and for the wait for them.
PATIENCE = 10.0

# How long keys are kept, whatever `max-age` says; and how long if they cannot be fetched again. Seconds.
_SHORTEST_LIFE, _LONGEST_LIFE = 300, 86_400

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


class KeysNotAvailableError(CredentialError):
    """The issuer's keys are not available now, so nothing can be said about its tokens."""


class Key(NamedTuple):
    """A key that checks signatures. ``kind`` is ``RSA``, ``P-256``, …; ``algorithm`` is empty if it may be any."""

    kid: str | None
    kind: str
    algorithm: str
    public: Any


def keys_in(data: bytes) -> list[Key]:
    """Return the usable keys of a JWKS. Raises ValueError if it is malformed."""
    try:
        found = json.loads(data.decode("utf-8"))
    except RecursionError as problem:
        raise ValueError("it is nested too deep") from problem
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is not a JSON object with a list of keys")
    return [key for one in listed if isinstance(one, dict) and (key := _key(one)) is not None]


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
            continue
        return
    raise NotAcceptedError(
        "the ID token's signature does not belong to its issuer" if fitting else "the ID token's issuer has no such key"
    )


@functools.cache
def _verifier() -> "PyJWS":
    from jwt import PyJWS

    return PyJWS()


def has_key(token: IdToken, keys: list[Key]) -> bool:
    """Return whether the key that ``token`` names is among ``keys``, of whatever kind."""
    return token.kid is None or any(key.kid == token.kid for key in keys)


class Fetched(NamedTuple):
    """Keys, and the seconds for which they are kept."""

    keys: list[Key]
    life: float


class IssuerKeys:
    """The keys of one issuer. Any number of threads may ask; one thread of its own fetches."""

    def __init__(self, issuer: str, fetch: Callable[[], Fetched]) -> None:
        """``fetch`` returns the keys; raises CredentialError, OSError, ValueError."""
        self.issuer = issuer
        self._fetch = fetch
        self._lock = threading.Lock()
        self._keys: list[Key] | None = None
        self._fetched_at = self._fresh_until = 0.0
        self._failed_at = self._last_unknown = float("-inf")
        self._under_way: threading.Event | None = None
        self._waiting = 0
        self._reason = ""

    def for_token(self, token: IdToken) -> list[Key]:
        """Return the issuer's keys, fetched again if the token names an unknown one. Raises KeysNotAvailableError."""
        now = time.monotonic()
        with self._lock:
            keys = self._present(now)
            if keys is not None and has_key(token, keys):
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
                raise self._not_available()
            self._waiting += 1
        under_way.wait(PATIENCE)
        with self._lock:
            self._waiting -= 1
            keys = self._present(time.monotonic())
            if keys is None or (not has_key(token, keys) and self._failed_at >= now):
                raise self._not_available()
            return keys

    def begin(self) -> threading.Event | None:
        """Start to fetch, unless that is under way; the event says when it is over. None so soon after a failure."""
        with self._lock:
            return self._start(time.monotonic())

    def _present(self, now: float) -> list[Key] | None:
        return self._keys if now < self._fetched_at + _LONGEST_LIFE else None

    def _not_available(self) -> KeysNotAvailableError:
        return KeysNotAvailableError("the keys of the ID token's issuer are not available now")

    def _start(self, now: float) -> threading.Event | None:
        if self._under_way is None and now >= self._failed_at + _AFTER_FAILURE:
            self._under_way = threading.Event()
            threading.Thread(target=self._run, args=(self._under_way,), daemon=True).start()
        return self._under_way

    def _run(self, over: threading.Event) -> None:
        reason, fetched = "", None
        try:
            fetched = self._fetch()
        except CredentialError as problem:
            reason = problem.what
        except Exception as problem:  # A thread has nobody to raise it to.
            reason = (
                f"{type(problem).__name__}: {problem}" if isinstance(problem, (OSError, ValueError)) else repr(problem)
            )
        now = time.monotonic()
        with self._lock:
            if fetched is not None:
                self._keys, self._fetched_at, self._fresh_until = fetched.keys, now, now + fetched.life
                self._failed_at = float("-inf")
            else:
                self._failed_at = now
            is_news, self._reason = reason != self._reason, reason
            self._under_way = None
        if is_news and reason:
            error(f"the keys of {self.issuer} cannot be fetched: {reason}")
        over.set()


class IssuerKeysInFile:
    """The keys of one issuer in a file, read again when it changes; a broken one leaves the old keys in force."""

    def __init__(self, issuer: str, path: str) -> None:
        self.issuer = issuer
        self._path = path
        self._lock = threading.Lock()
        self._keys: list[Key] | None = None
        self._seen: tuple[int, ...] | None = None
        self._reason = ""

    def for_token(self, token: IdToken) -> list[Key]:  # noqa: ARG002  # a file has all keys that there are
        """Return the keys. Raises KeysNotAvailableError if they were never readable."""
        with self._lock:
            try:
                found = os.stat(self._path)
                seen = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
                if seen != self._seen or self._keys is None:
                    self._keys, self._seen, reason = read_keys(self._path), seen, ""
                else:
                    reason = self._reason
            except (CredentialError, OSError, ValueError) as problem:
                reason = getattr(problem, "what", "") or getattr(problem, "strerror", "") or str(problem)
            is_news, self._reason = reason != self._reason, reason
            keys = self._keys
        if is_news and reason:
            error(f"the keys of {self.issuer} in {self._path} cannot be used: {reason}")
        if keys is None:
            raise KeysNotAvailableError("the keys of the ID token's issuer are not available now")
        return keys

    def begin(self) -> None:
        """Nothing has to be fetched."""


def read_keys(path: str) -> list[Key]:
    """Return the keys in a JWKS file. Raises CredentialError if others could have written it, OSError, ValueError."""
    check_own_file(path, "the key file")
    with os.fdopen(open_to_read(path), "rb") as file:
        data = file.read(_LONGEST_FILE + 1)
    if len(data) > _LONGEST_FILE:
        raise ValueError(f"it is over {_LONGEST_FILE} bytes long")
    keys = keys_in(data)
    if not keys:
        raise ValueError("it has no usable key")
    return keys


def fetcher(issuer: str, url: str = "") -> Callable[[], Fetched]:
    """Return what fetches the keys of ``issuer``, from ``url`` or from where its discovery document says."""

    def fetch() -> Fetched:
        with _Reader() as reader:
            return reader.keys(url or reader.discover(issuer))

    return fetch


class _Reader:
    """Fetches by https, by git's route to each URL, within one budget; no redirect is followed."""

    def __enter__(self) -> "_Reader":
        from git_credential_bbjwt.git.http_settings import HttpSettings
        from git_credential_bbjwt.network.connections import Connections, Origin

        self._connections = Connections(Budget(PATIENCE), HttpSettings())
        self._taken: list[Origin] = []
        return self

    def __exit__(self, *exc: object) -> None:
        for origin in self._taken:
            origin.close()

    def discover(self, issuer: str) -> str:
        """Return the URL of an issuer's keys. Raises ValueError, CredentialError."""
        url = issuer.rstrip("/") + "/.well-known/openid-configuration"
        body, _ = self._get(url)
        try:
            found = json.loads(body.decode("utf-8"))
        except RecursionError as problem:
            raise ValueError(f"{url} is nested too deep") from problem
        if not isinstance(found, dict) or found.get("issuer") != issuer:
            raise ValueError(f"{url} names another issuer")
        keys = found.get("jwks_uri")
        if not isinstance(keys, str) or not keys.startswith("https://") or not keys.isascii() or not keys.isprintable():
            raise ValueError(f"{url} has no jwks_uri that is an https URL")
        return keys

    def keys(self, url: str) -> Fetched:
        """Return the keys at ``url``. Raises ValueError, CredentialError."""
        body, cache_control = self._get(url)
        keys = keys_in(body)
        if not keys:
            raise ValueError(f"{url} has no usable key")
        stated = _MAX_AGE.search(cache_control[:1000])
        life = int(stated[1]) if stated else _SHORTEST_LIFE
        return Fetched(keys, min(max(life, _SHORTEST_LIFE), _LONGEST_LIFE))

    def _get(self, url: str) -> tuple[bytes, str]:
        parts = urlsplit(url)
        if not parts.hostname or "@" in parts.netloc:
            raise ValueError("the URL of the keys is not an https URL without a user")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        origin = self._connections.take(f"https://{parts.netloc}", parts.path)
        self._taken.append(origin)
        response = origin.request("GET", target, lambda: {"Accept": "application/json"})
        if response.status != 200:
            raise ValueError(f"https://{parts.netloc} answered {response.status}")
        return response.body, response.headers.get("Cache-Control") or ""
