"""An issuer of ID tokens for tests: keys of each kind, tokens, and a server that publishes the keys."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

AUDIENCE = "https://broker.example"


def private_key(kind: str, bits: int = 2048) -> Any:
    """Return a new private key: ``RSA``, ``P-256``, ``P-384``, ``P-521``, ``secp256k1`` or ``Ed25519``."""
    curves: dict[str, Any] = {
        "P-256": ec.SECP256R1,
        "P-384": ec.SECP384R1,
        "P-521": ec.SECP521R1,
        "secp256k1": ec.SECP256K1,
    }
    if kind == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return ed25519.Ed25519PrivateKey.generate() if kind == "Ed25519" else ec.generate_private_key(curves[kind]())


_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def as_jwk(private: Any, **members: Any) -> dict[str, Any]:
    """Return the public key as a JWK; a member of None is left out."""
    public = private.public_key()
    if isinstance(private, rsa.RSAPrivateKey):
        found = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(private, ed25519.Ed25519PrivateKey):
        found = OKPAlgorithm.to_jwk(public, as_dict=True)
    else:  # PyJWT before 2.9 leaves out a coordinate's leading zeros (RFC 7518, section 6.2.1.2).
        numbers, length = public.public_numbers(), (public.key_size + 7) // 8
        found = {"kty": "EC", "crv": _CURVES[public.curve.name]}
        found |= {name: _base64url(getattr(numbers, name).to_bytes(length, "big")) for name in ("x", "y")}
    found.pop("key_ops", None)
    return {name: value for name, value in {**found, **members}.items() if value is not None}


#: The usual algorithm of each kind of key.
USUAL = {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}


class Issuer:
    """An issuer of tokens. ``url`` is its name; `IssuerServer` also serves its documents."""

    def __init__(self, url: str = "https://issuer.example", kind: str = "RSA", kid: str | None = None) -> None:
        self.url = url
        self.keys: dict[str, Any] = {}
        self.algorithms: dict[str, str] = {}
        self.kid = self.add_key(kind, kid)

    def add_key(self, kind: str = "RSA", kid: str | None = None) -> str:
        """Add a key that is published; return its name."""
        kid = kid or uuid.uuid4().hex[:8]
        self.keys[kid] = private_key(kind)
        self.algorithms[kid] = USUAL[kind]
        return kid

    def rotate(self, kind: str = "RSA") -> None:
        """Sign with a new key, and publish only that key."""
        kid = self.add_key(kind)
        for old in [one for one in self.keys if one != kid]:
            del self.keys[old]
        self.kid = kid

    def jwks(self) -> dict[str, Any]:
        """Return the published set of keys."""
        return {
            "keys": [as_jwk(key, kid=kid, use="sig", alg=self.algorithms[kid]) for kid, key in list(self.keys.items())]
        }

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a token for the broker; a change to None leaves a claim out."""
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "repo:acme/deploy:ref:refs/heads/main",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "jti": uuid.uuid4().hex,
            "repository_id": "74",
            "ref": "refs/heads/main",
        }
        return {name: value for name, value in {**usual, **changes}.items() if value is not None}

    def token(self, *, headers: dict[str, Any] | None = None, kid: str | None = None, **changes: Any) -> str:
        """Return a token that is signed with the key ``kid``, by default the newest key."""
        kid = kid or self.kid
        named = {"kid": kid, **(headers or {})}
        key, algorithm = self.keys[kid], self.algorithms[kid]
        return jwt.encode(
            self.claims(**changes), key, algorithm, {name: value for name, value in named.items() if value is not None}
        )


class IssuerServer(Issuer):
    """An issuer whose documents are served on loopback by https.

    ``answer`` may replace the usual answers: it is called with the path and returns status, headers and body. ``seen``
    has the requested paths.
    """

    def __init__(self, context: ssl.SSLContext, kind: str = "RSA") -> None:
        self.context = context
        self._is_open = True
        self.seen: list[str] = []
        self.cache_control = "max-age=600"
        self.answer: Callable[[str], tuple[int, dict[str, str], bytes] | None] = lambda _: None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append(self.path)
                status, headers, body = outer.answer(self.path) or outer.usual(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's signature
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Do not print a traceback for a client that goes away early."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        super().__init__(f"https://localhost:{self._server.server_port}", kind)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def usual(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return the discovery document or the keys (OpenID Connect Discovery 1.0)."""
        headers = {"Content-Type": "application/json", "Cache-Control": self.cache_control}
        if path == "/.well-known/openid-configuration":
            document: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        elif path == "/keys":
            document = self.jwks()
        else:
            return 404, {}, b""
        return 200, headers, json.dumps(document).encode()

    def close(self) -> None:
        """Stop listening, and hang up."""
        if self._is_open:
            self._is_open = False
            self._server.shutdown()
            self._server.server_close()


def write_policy(path: Path, *rules: dict[str, Any], **settings: Any) -> Path:
    """Write a configuration with ``rules`` as a person would; return its path."""
    settings.setdefault("audience", AUDIENCE)
    lines = [f"{json.dumps(name)} = {_toml(value)}" for name, value in settings.items()]
    for rule in rules:
        lines += ["", "[[trust]]", *(f"{name} = {_toml(value)}" for name, value in rule.items())]
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    new.chmod(0o600)
    new.replace(path)
    return path


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_toml(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
