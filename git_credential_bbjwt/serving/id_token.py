"""An ID token, checked: its form, its algorithm, its times, its audience. `issuer_keys` checks its signature.

All of this is checked before any key is fetched, and not by PyJWT, which accepts ``exp`` as a string and a name that
occurs twice. Sources: RFC 7519 (JWT), RFC 7515 (JWS), RFC 8725 (JWT Best Current Practices), OpenID Connect Core 1.0
section 3.1.3.7.
"""

import json
import math
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Collection
from typing import NamedTuple

from git_credential_bbjwt.serving.answer import DeniedError

# Longer than any platform's token. Bytes.
_LONGEST_TOKEN = 16 * 1024

# Two machines' clocks may differ by so much. Seconds.
_LEEWAY = 60

# No platform's ID token lives longer. Seconds.
_LONGEST_LIFE = 86_400

#: The algorithms, each with the kind of key it needs.
ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    "ES256": "P-256",
    "ES384": "P-384",
    "ES512": "P-521",
    "EdDSA": "Ed25519",
}

_FORM = re.compile(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")


class NotAcceptedError(DeniedError):
    """The ID token is not accepted. The error gives the reason in words, without a value of the token."""

    status = 401

    def __init__(self, what: str) -> None:
        super().__init__(what, headers=(("WWW-Authenticate", 'Bearer error="invalid_token"'),))


class IdToken(NamedTuple):
    """A token that is well-formed; whether it is genuine is another question. ``kid`` is None if it names no key."""

    text: str
    algorithm: str
    kid: str | None
    claims: dict[str, object]

    @property
    def issuer(self) -> object:
        """The claim ``iss``, whatever it is."""
        return self.claims.get("iss")

    @property
    def subject(self) -> str:
        """The claim ``sub``; empty if that is not a string."""
        subject = self.claims.get("sub")
        return subject if isinstance(subject, str) else ""

    @property
    def audiences(self) -> list[str]:
        """The claim ``aud`` as a list; empty if it is neither a string nor a list of strings."""
        found = self.claims.get("aud")
        listed = found if isinstance(found, list) else [found]
        texts = [one for one in listed if isinstance(one, str)]
        return texts if len(texts) == len(listed) else []


def parse_token(text: str) -> IdToken:
    """Return the token that ``text`` is. Raises NotAcceptedError for a malformed one, and for an algorithm."""
    if len(text) > _LONGEST_TOKEN:
        raise NotAcceptedError("the ID token is over 16 KiB")
    if not _FORM.fullmatch(text):
        raise NotAcceptedError("the ID token is not a JWT of three base64url parts")
    parts = text.split(".")
    header, claims = _object(parts[0], "header"), _object(parts[1], "claims")
    for name in ("crit", "b64"):
        if name in header:
            raise NotAcceptedError(f"the ID token's header has {name}")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise NotAcceptedError("the ID token is signed with an algorithm that is not accepted")
    if kid is not None and not isinstance(kid, str):
        raise NotAcceptedError("the ID token's kid is not a string")
    return IdToken(text, algorithm, kid, claims)


def _object(part: str, name: str) -> dict[str, object]:
    try:
        return parse_object(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError as problem:
        raise NotAcceptedError(f"the ID token's {name} is not a JSON object, or has a name twice") from problem


def parse_object(data: bytes) -> dict[str, object]:
    """Return the JSON object in ``data``, which is UTF-8. Raises ValueError, also for a name that occurs twice."""
    try:
        found = json.loads(
            data.decode("utf-8"), object_pairs_hook=_without_twins, parse_constant=_finite, parse_float=_finite
        )
    except RecursionError as problem:
        raise ValueError("it is nested too deep") from problem
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"JSON does not have {text}")
    return number


def check_times(claims: dict[str, object]) -> None:
    """Raise NotAcceptedError for a token that has expired, is not valid yet, or lives too long."""
    now = time.time()
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    if expires + _LEEWAY <= now:
        raise NotAcceptedError("the ID token has expired")
    if issued > now + _LEEWAY:
        raise NotAcceptedError("the ID token was issued in the future")
    if not 0 < expires - issued <= _LONGEST_LIFE:
        raise NotAcceptedError("the ID token lives longer than 24 h, or ends before it begins")
    if "nbf" in claims and _time(claims, "nbf") > now + _LEEWAY:
        raise NotAcceptedError("the ID token is not valid yet")


def _time(claims: dict[str, object], name: str) -> float:
    value = claims.get(name)
    if name not in claims:
        raise NotAcceptedError(f"the ID token's {name} is missing")
    if type(value) is int and abs(value) < 1 << 53:
        return value
    if type(value) is float:
        return value
    raise NotAcceptedError(f"the ID token's {name} is not a number")


def check_audience(token: IdToken, accepted: Collection[str]) -> None:
    """Raise NotAcceptedError for a token that was made for another service."""
    if not any(one in accepted for one in token.audiences):
        raise NotAcceptedError("the ID token is for another audience")


def check_subject(token: IdToken) -> None:
    """Raise NotAcceptedError for a token that names nobody."""
    if not token.subject:
        raise NotAcceptedError("the ID token's sub is not a non-empty string")
