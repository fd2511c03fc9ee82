"""The gate for a server's words: texts that pass, texts that are redacted, and the time it takes."""

from __future__ import annotations

import base64
import json
import secrets
import textwrap
import time
from collections.abc import Callable

import pytest

from git_credential_bbjwt.core import output
from git_credential_bbjwt.core.output import REDACTED, hide, redacted
from git_credential_bbjwt.core.server_text import safe_text


@pytest.fixture(autouse=True)
def _nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the hidden values of other tests in this process."""
    monkeypatch.setattr(output, "_secrets", {})


@pytest.mark.parametrize(
    "text",
    [
        "Your credentials lack one or more required privilege scopes.",
        "required: repository:write, account; granted: read:repository:bitbucket,write:repository:bitbucket",
        "CHANGE-2770 - Functionality has been deprecated",
        "Token is invalid, expired, or not supported for this endpoint.",
        "To access this repository, an admin must whitelist your IP 203.0.113.17.",
        "cannot read /etc/bbjwt/installation.json: permission denied (errno 13, HTTP/1.1, UTF-8, sha256)",
        "/var/lib/a-rather-long-folder-of-secrets/with-another-one-in-it/and-then/installation.json: no such file",
        "Das Verzeichnis für Größen gibt es nicht",
    ],
)
def test_plain_language_passes_unchanged(text: str) -> None:
    assert safe_text(text) == text


def a_jwt() -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = json.dumps({"iss": secrets.token_hex(8), "qsh": secrets.token_hex(32)}).encode()
    return ".".join((part(b'{"typ":"JWT","alg":"HS256"}'), part(claims), part(secrets.token_bytes(32))))


def longest_in_both(shown: str, token: str) -> int:
    """Return the length of the longest piece of ``token`` in ``shown``, without punctuation and ignoring case."""
    squeezed, plain = ("".join(filter(str.isalnum, text)).lower() for text in (shown, token))
    length = 0
    while any(plain[at : at + length + 1] in squeezed for at in range(len(plain) - length)):
        length += 1
    return length


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "a part": lambda token: token[20:70],
    "without its end": lambda token: token[:-9],
    "in quotes": lambda token: f'"{token}",',
    "in a URL": lambda token: f"https://host.example/?jwt={token}&x",
    "in a header": lambda token: f"Authorization:Bearer {token}",
    "with user name, in base64": lambda token: base64.b64encode(f"x-token-auth:{token}".encode()).decode(),
    "in base64 of base64": lambda token: base64.b64encode(base64.b64encode(token.encode())).decode(),
    "in hex": lambda token: token.encode().hex(),
    "as JSON escapes": lambda token: "".join(f"\\u{ord(c):04x}" for c in token),
    "as escaped JSON escapes": lambda token: "".join(f"\\\\u{ord(c):04x}" for c in token),
    "as hex escapes": lambda token: "".join(f"\\x{ord(c):02x}" for c in token),
    "percent-encoded": lambda token: "".join(f"%{ord(c):02X}" for c in token),
    "percent-encoded twice": lambda token: "".join(f"%25{ord(c):02x}" for c in token),
    "as HTML": lambda token: "".join(f"&#{ord(c)};" for c in token),
    "dots as HTML": lambda token: token.replace(".", "&period;"),
    "in full width": lambda token: "".join(chr(ord(c) + 0xFEE0) for c in token),
}

#: Texts that can be recognised only if the value is known.
SPELLINGS_OF_KNOWN: dict[str, Callable[[str], str]] = SPELLINGS | {
    "in lines": lambda token: "\r\n".join(textwrap.wrap(token, 7)),
    "letter by letter": " ".join,
    "with zero-width spaces": "\u200b".join,
    "in lower case": str.lower,
    "reversed": lambda token: token[::-1],
    "base64 in lines": lambda token: "\n".join(textwrap.wrap(base64.b64encode(token.encode()).decode(), 7)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", [a_jwt, lambda: secrets.token_urlsafe(60), lambda: secrets.token_hex(20)])
def test_nothing_that_looks_like_a_token_passes(spelling: str, kind: Callable[[], str]) -> None:
    token = kind()
    if spelling == "a part" and len(token) < 80:
        return
    shown = safe_text(f"bad token {SPELLINGS[spelling](token)} of yours", 10_000)

    assert REDACTED in shown
    assert longest_in_both(shown, token) < 8


@pytest.mark.parametrize("spelling", SPELLINGS_OF_KNOWN)
def test_no_piece_of_a_known_value_passes(spelling: str) -> None:
    token = a_jwt()
    hide(token)
    shown = safe_text(f"bad token {SPELLINGS_OF_KNOWN[spelling](token)} of yours", 100_000)

    assert REDACTED in shown
    assert longest_in_both(shown, token) < 8


@pytest.mark.parametrize("cut", range(3_950, 4_050, 7))
def test_a_secret_is_not_shown_wherever_the_text_is_cut(cut: int) -> None:
    secret = "correct horse battery staple of this test"
    hide(secret)
    text = "ab " * (cut // 3) + secret + " " + "x " * 9_000

    assert "battery" not in safe_text(text, 10**6)


@pytest.mark.parametrize("size", [8_000, 64_000, 1_048_576])
@pytest.mark.parametrize(
    "piece", ["A", "ab1", "<", "<a ", "&", "&#", "&amp", "\\", "\\u00", "%", "%2", "eyJ", "://", "a://", " ", "\0", "é"]
)
def test_text_of_any_length_takes_no_time(piece: str, size: int) -> None:
    text = piece * (size // len(piece))
    started = time.process_time()
    for form in (text, text.encode(), "word " + text):
        assert len(safe_text(form)) <= 200

    assert time.process_time() - started < 5


def test_shown_text_is_one_printable_line_of_the_given_length() -> None:
    assert safe_text("a\r\nb\x1b[2J\u2028c\x85d") == "a b [2J c d"
    assert safe_text("word " * 100, 12) == "word word wo"
    assert safe_text(b"\xff\xfeword") == "\ufffd\ufffdword"


def test_no_line_for_people_has_a_jwt() -> None:
    token = a_jwt()
    assert redacted(f"key={token}, eyJust a word") == f"key={REDACTED}, eyJust a word"
    assert redacted(f"{token}{token[:19]}") == REDACTED
