"""The ID tokens that the https broker accepts: each check that one must pass, with real keys of each kind."""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from git_credential_bbjwt.serving.id_token import IdToken, NotAcceptedError
from git_credential_bbjwt.serving.identities import Identity, identify, verified
from git_credential_bbjwt.serving.issuer_keys import IssuerKeys, Key, keys_in
from git_credential_bbjwt.serving.limits import MinuteCounter
from git_credential_bbjwt.serving.policy import Policy, read_policy
from tests.issuer import USUAL, Issuer, as_jwk, private_key, write_policy

ISSUER = Issuer(kid="first")
OTHERS = Issuer("https://others.example")


class Fixed:
    """Keys that are already fetched."""

    def __init__(self, *documents: Any) -> None:
        self.keys = [key for document in documents for key in keys_in(json.dumps(document).encode())]
        self.asked = 0

    def for_token(self, token: object) -> list[Key]:
        del token
        self.asked += 1
        return self.keys

    def begin(self) -> None:
        """Do nothing: nothing has to be fetched."""


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    rules: list[dict[str, Any]] = [
        {"issuer": ISSUER.url, "claims": {"repository_id": "74"}, "allow": ["acme/widgets"]},
        {"issuer": ISSUER.url, "claims": {"ref": "refs/heads/*"}, "allow": ["acme/lib-*"]},
        {"issuer": ISSUER.url, "claims": {"sub": "**"[:0] + "repo:**"}, "allow": ["acme/x"], "audience": "other"},
    ]
    return read_policy(str(write_policy(tmp_path / "broker.toml", *rules)))


def identity(text: str, policy: Policy, keys: IssuerKeys | None = None) -> Identity:
    return identify(f"Bearer {text}", policy, {ISSUER.url: keys or Fixed(ISSUER.jwks())})


def check(text: str, policy: Policy, keys: IssuerKeys | None = None) -> IdToken:
    return verified(text, policy, {ISSUER.url: keys or Fixed(ISSUER.jwks())})


def part(content: Any) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return urlsafe_b64encode(data).decode().rstrip("=")


def signed(header: Any, claims: Any) -> str:
    """Return a token signed by the issuer, whatever its header and claims are."""
    text = f"{part(header)}.{part(claims)}"
    key = jwt.PyJWS()._algorithms["RS256"]
    return f"{text}.{part(key.sign(text.encode(), ISSUER.keys[ISSUER.kid]))}"


HEADER = {"alg": "RS256", "kid": ISSUER.kid}


@pytest.mark.parametrize("kind", USUAL)
def test_key_of_each_kind_is_accepted(policy: Policy, kind: str) -> None:
    issuer = Issuer(ISSUER.url, kind)
    found = identity(issuer.token(), policy, Fixed(issuer.jwks()))

    assert [rule.name for rule in found.rules] == ["rule 1", "rule 2"]


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_each_algorithm_of_rsa_is_accepted(policy: Policy, algorithm: str) -> None:
    text = jwt.encode(ISSUER.claims(), ISSUER.keys[ISSUER.kid], algorithm, {"kid": ISSUER.kid})
    named = Fixed({"keys": [as_jwk(ISSUER.keys[ISSUER.kid], kid=ISSUER.kid, alg=algorithm)]})
    usable = as_jwk(private_key("P-256"), kid=ISSUER.kid)
    other = Fixed({"keys": [as_jwk(ISSUER.keys[ISSUER.kid], kid=ISSUER.kid, alg="ES256"), usable]})

    assert check(text, policy, named).algorithm == algorithm
    with pytest.raises(NotAcceptedError, match="no such key"):
        check(text, policy, other)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a JWT of three base64url parts"),
        ("a.b", "not a JWT of three base64url parts"),
        ("a.b.c.d", "not a JWT of three base64url parts"),
        ("a.b.c\n", "not a JWT of three base64url parts"),
        (f"{part(HEADER)}=.{part({})}.x", "not a JWT of three base64url parts"),
        (f"{part(HEADER)}.{part({})}.+/", "not a JWT of three base64url parts"),
        ("a" * 16_385, "over 16 KiB"),
        (f"{part([])}.{part({})}.x", "header is not a JSON object"),
        (f"{part(HEADER)}.{part('x')}.x", "claims is not a JSON object"),
        (f"{part(HEADER)}.{part(b'{not json')}.x", "claims is not a JSON object"),
        (f"{part(HEADER)}.{part(chr(0xFEFF).encode() + b'{}')}.x", "claims is not a JSON object"),
        (f"{part(HEADER)}.{part('{}'.encode('utf-16'))}.x", "claims is not a JSON object"),
        (f"{part(HEADER)}.{part(bytes([0xFF]))}.x", "claims is not a JSON object"),
        (f"{part(HEADER)}.{part(b'[' * 10_000)}.x", "claims is not a JSON object"),
        (f"{part(HEADER)}.{part(b'1' * 10_000)}.x", "claims is not a JSON object"),
        (f"{part(HEADER)}.a.x", "claims is not a JSON object"),
    ],
)
def test_text_that_is_not_a_jwt_is_refused(policy: Policy, text: str, reason: str) -> None:
    with pytest.raises(NotAcceptedError, match=reason):
        check(text, policy)


@pytest.mark.parametrize(
    "claims",
    [
        b'{"iss": "%s", "sub": "a", "sub": "b"}',
        b'{"iss": "%s", "nested": {"a": 1, "a": 2}}',
        b'{"iss": "%s", "exp": NaN}',
        b'{"iss": "%s", "exp": -Infinity}',
        b'{"iss": "%s", "exp": 1e999}',
    ],
)
def test_json_that_readers_read_differently_is_refused(policy: Policy, claims: bytes) -> None:
    with pytest.raises(NotAcceptedError, match="claims is not a JSON object, or has a name twice"):
        check(signed(HEADER, claims % ISSUER.url.encode()), policy)


def test_header_with_a_name_twice_is_refused(policy: Policy) -> None:
    header = f'{{"alg": "none", "alg": "RS256", "kid": "{ISSUER.kid}"}}'.encode()
    with pytest.raises(NotAcceptedError, match="header is not a JSON object, or has a name twice"):
        check(signed(header, ISSUER.claims()), policy)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "", "HS256", "HS512", "ES256K", "rs256", "RSA", None, 1, ["RS256"]]
)
def test_other_algorithms_are_refused(policy: Policy, algorithm: object) -> None:
    with pytest.raises(NotAcceptedError, match="algorithm"):
        check(signed({**HEADER, "alg": algorithm}, ISSUER.claims()), policy)


def test_public_key_as_the_secret_of_hs256_is_refused(policy: Policy) -> None:
    pem = ISSUER.keys[ISSUER.kid].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = f"{part({**HEADER, 'alg': 'HS256'})}.{part(ISSUER.claims())}"
    with pytest.raises(NotAcceptedError, match="algorithm"):
        check(f"{text}.{part(hmac.digest(pem, text.encode(), 'sha256'))}", policy)


@pytest.mark.parametrize("name", ["crit", "b64"])
def test_header_with_an_extension_is_refused(policy: Policy, name: str) -> None:
    with pytest.raises(NotAcceptedError, match=f"header has {name}"):
        check(signed({**HEADER, name: ["exp"]}, ISSUER.claims()), policy)


def test_kid_that_is_not_a_string_is_refused(policy: Policy) -> None:
    with pytest.raises(NotAcceptedError, match="kid is not a string"):
        check(signed({**HEADER, "kid": [ISSUER.kid]}, ISSUER.claims()), policy)


def test_key_in_the_header_is_never_looked_at(policy: Policy) -> None:
    mine = Issuer(ISSUER.url)
    jwk = as_jwk(mine.keys[mine.kid], kid=mine.kid)
    for kid in (ISSUER.kid, mine.kid, None):
        header = {"jwk": jwk, "jku": "https://others.example/keys", "x5u": "https://others.example", "x5c": ["x"]}
        with pytest.raises(NotAcceptedError):
            check(mine.token(headers={**header, "kid": kid}), policy)

    assert check(ISSUER.token(headers={"jwk": jwk, "typ": "anything"}), policy).kid == ISSUER.kid


@pytest.mark.parametrize(
    "issuer", ["https://others.example", ISSUER.url + "/", ISSUER.url.upper(), "", None, 1, [ISSUER.url]]
)
def test_other_issuer_is_refused_and_no_key_is_fetched(policy: Policy, issuer: object) -> None:
    keys = Fixed(ISSUER.jwks())
    with pytest.raises(NotAcceptedError, match="issuer is not trusted"):
        check(signed(HEADER, {**ISSUER.claims(), "iss": issuer}), policy, keys)
    assert keys.asked == 0


NOW = int(time.time())


def as_of_now(changes: dict[str, Any]) -> dict[str, Any]:
    """Return the changes with their times moved by the seconds since `NOW`."""
    passed = int(time.time()) - NOW
    return {
        name: value + passed if type(value) in (int, float) and abs(value - NOW) < 1e6 else value
        for name, value in changes.items()
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": None}, "exp is missing"),
        ({"iat": None}, "iat is missing"),
        ({"exp": str(NOW + 300)}, "exp is not a number"),
        ({"exp": True}, "exp is not a number"),
        ({"exp": 1 << 60}, "exp is not a number"),
        ({"iat": str(NOW)}, "iat is not a number"),
        ({"nbf": "x"}, "nbf is not a number"),
        ({"nbf": False}, "nbf is not a number"),
        ({"exp": NOW - 61, "iat": NOW - 300}, "has expired"),
        ({"iat": NOW + 600, "exp": NOW + 900}, "issued in the future"),
        ({"iat": NOW - 10, "exp": NOW + 86_400}, "longer than 24 h"),
        ({"iat": NOW + 30, "exp": NOW + 30}, "longer than 24 h, or ends before"),
        ({"nbf": NOW + 600}, "not valid yet"),
        ({"aud": None}, "another audience"),
        ({"aud": "https://broker.example/"}, "another audience"),
        ({"aud": "https://others.example"}, "another audience"),
        ({"aud": []}, "another audience"),
        ({"aud": ["https://broker.example", 1]}, "another audience"),
        ({"aud": {"https://broker.example": True}}, "another audience"),
        ({"sub": None}, "sub is not"),
        ({"sub": ""}, "sub is not"),
        ({"sub": 7}, "sub is not"),
    ],
)
def test_claims_that_are_refused(policy: Policy, changes: dict[str, Any], reason: str) -> None:
    claims = {name: value for name, value in {**ISSUER.claims(), **as_of_now(changes)}.items() if value is not None}
    with pytest.raises(NotAcceptedError, match=reason) as caught:
        check(signed(HEADER, claims), policy)
    assert all(str(value) not in caught.value.what for value in claims.values() if len(str(value)) > 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 30, "iat": NOW - 300},
        {"iat": NOW + 30},
        {"nbf": NOW + 30},
        {"nbf": None},
        {"exp": NOW + 300.5, "iat": NOW - 0.5},
        {"aud": ["https://a.example", "https://broker.example"]},
        {"aud": "other"},
    ],
)
def test_claims_that_are_accepted(policy: Policy, changes: dict[str, Any]) -> None:
    assert check(ISSUER.token(**as_of_now(changes)), policy).subject


def test_audience_of_one_rule_matches_no_other_rule(policy: Policy) -> None:
    found = identity(ISSUER.token(aud="other"), policy)

    assert [rule.name for rule in found.rules] == ["rule 3"]


def test_signature_of_another_issuer_is_refused(policy: Policy) -> None:
    text = OTHERS.token(iss=ISSUER.url, headers={"kid": ISSUER.kid})
    with pytest.raises(NotAcceptedError, match="signature does not belong to its issuer"):
        check(text, policy)
    head, _, signature = ISSUER.token().rpartition(".")
    with pytest.raises(NotAcceptedError, match="signature does not belong to its issuer"):
        check(f"{head}.{signature[:-4]}AAAA", policy)
    with pytest.raises(NotAcceptedError, match="signature does not belong to its issuer"):
        check(f"{head}.", policy)


def test_claims_under_another_signature_are_refused(policy: Policy) -> None:
    header, _, signature = ISSUER.token().split(".")
    with pytest.raises(NotAcceptedError, match="signature does not belong to its issuer"):
        check(f"{header}.{part(ISSUER.claims(sub='admin'))}.{signature}", policy)


def test_signature_of_another_kind_of_key_is_refused(policy: Policy) -> None:
    curve = private_key("P-256")
    keys = Fixed({"keys": [*ISSUER.jwks()["keys"], as_jwk(curve, kid="curve")]})
    text = jwt.encode(ISSUER.claims(), curve, "ES256", {"kid": ISSUER.kid})
    with pytest.raises(NotAcceptedError, match="no such key"):
        check(text, policy, keys)


def test_token_without_kid_needs_the_only_key_of_its_kind(policy: Policy) -> None:
    text = ISSUER.token(headers={"kid": None})
    curve = as_jwk(private_key("P-256"), kid="curve")
    second = as_jwk(private_key("RSA"), kid="second")

    assert check(text, policy, Fixed({"keys": [*ISSUER.jwks()["keys"], curve]})).kid is None
    with pytest.raises(NotAcceptedError, match="not exactly one"):
        check(text, policy, Fixed({"keys": [*ISSUER.jwks()["keys"], second]}))


def test_four_keys_of_one_kid_are_tried(policy: Policy) -> None:
    others = [as_jwk(private_key("P-256"), kid="same") for _ in range(4)]
    issuer = Issuer(ISSUER.url, "P-256")
    mine = as_jwk(issuer.keys[issuer.kid], kid="same")
    text = issuer.token(headers={"kid": "same"})

    assert check(text, policy, Fixed({"keys": [*others[:3], mine]})).kid == "same"
    with pytest.raises(NotAcceptedError, match="signature"):
        check(text, policy, Fixed({"keys": [*others, mine]}))


def test_unusable_keys_are_skipped() -> None:
    good = as_jwk(private_key("P-256"), kid="good", use="sig", key_ops=["verify"])
    listed = [
        good,
        {"kty": "oct", "k": "c2VjcmV0", "kid": "good"},
        as_jwk(private_key("secp256k1"), kid="k"),
        as_jwk(private_key("RSA", 1024), kid="short"),
        {**good, "use": "enc"},
        {**good, "key_ops": ["sign"]},
        {**good, "key_ops": "verify"},
        {**good, "alg": "RS256"},
        {**good, "alg": "HS256"},
        {**good, "kid": 7},
        {**good, "x": "AAAA"},
        {**good, "crv": "P-384"},
        {**good, "y": None},
        {"kty": "RSA", "n": "!!", "e": "AQAB", "kid": "r"},
        {"kty": "RSA", "n": "", "e": "", "kid": "r"},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        {"kty": ["RSA"], "n": "AQAB", "e": "AQAB"},
        {},
        "key",
        None,
    ]

    assert [key.kid for key in keys_in(json.dumps({"keys": listed}).encode())] == ["good"]


def test_private_key_in_a_key_set_is_used_as_a_public_key(policy: Policy) -> None:
    from jwt.algorithms import RSAAlgorithm

    whole = RSAAlgorithm.to_jwk(ISSUER.keys[ISSUER.kid], as_dict=True)
    keys = Fixed({"keys": [{**whole, "kid": ISSUER.kid, "key_ops": ["sign", "verify"]}]})

    assert check(ISSUER.token(), policy, keys).subject


@pytest.mark.parametrize(
    "text",
    [b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [], "keys": []}', b"{", b"\xff", b"[" * 100_000, b""],
)
def test_document_without_a_key_set_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        keys_in(text)


def test_events_are_counted_by_the_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 600.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    counter = MinuteCounter()
    assert [counter.count("a"), counter.count("a"), counter.count("b"), counter.count("a")] == [1, 2, 1, 3]

    now = 659.5
    assert counter.count("a") == 4
    assert counter.seconds_left() == 1
    now = 660.0
    assert counter.count("a") == 1
    assert counter.seconds_left() == 60
