"""The gate that every word of a server or another program passes before it reaches a message.

Such text can contain a token that the helper sent, or a token that it has never seen. The gate decodes the usual
escapes and lets plain language pass, without anything that looks like a token. The text is cut before it is searched,
so that a page of megabytes takes as little time as a paragraph.
"""

import re
from base64 import urlsafe_b64decode
from itertools import pairwise
from urllib.parse import unquote

from git_credential_bbjwt.core.output import REDACTED, hidden_values, redacted

#: Characters of a message that are shown, unless the caller asks for another number.
USUAL_LENGTH = 200

# Number of characters that are checked. The rest is dropped before any search.
_LOOKED_AT = 4_000

# A longer run of letters and digits is not a word of a language.
_LONGEST_RUN = 20

# A longer run that has both letters and digits is not a word ("sha256" and "http2" are).
_LONGEST_MIXED_RUN = 7

# A longer word, including its punctuation, is not plain: two of Bitbucket's longest scope names fit. A path may be
# longer.
_LONGEST_WORD = 64
_LONGEST_PATH = 250

# This many equal characters in a row, in upper or lower case, are treated as a piece of a secret.
_PIECE = 12


# A backslash of JSON or of a programming language, with the character that it stands for.
_ESCAPE = re.compile(r"\\(?:u(?P<u>[0-9a-fA-F]{4})|x(?P<x>[0-9a-fA-F]{2})|U(?P<U>[0-9a-fA-F]{8})|[nrt])?")


def safe_text(text: "str | bytes", longest: int = USUAL_LENGTH) -> str:
    """Return what may be shown of ``text``: at most ``longest`` printable characters in one line, without secrets.

    Words that look like a token become "[redacted]". If a piece of a hidden value is left in any known form, the whole
    text becomes "[redacted]".
    """
    from unicodedata import normalize  # Slow to load, and seldom needed.

    if isinstance(text, bytes):
        text = text[: 4 * _LOOKED_AT].decode("utf-8", "replace")
    # Redact whole values before the cut, because a secret that the cut divides would not be recognised.
    text = _decoded(redacted(text[: 4 * _LOOKED_AT])[:_LOOKED_AT])
    text = redacted("".join(character if character.isprintable() else " " for character in normalize("NFKC", text)))
    if _holds_piece_of_a_secret(text):
        return REDACTED
    shown = " ".join(word if _is_plain(word) else REDACTED for word in text.split())
    while f"{REDACTED} {REDACTED}" in shown:
        shown = shown.replace(f"{REDACTED} {REDACTED}", REDACTED)
    return shown[:longest]


def _decoded(text: str) -> str:
    """Undo the escapes that servers use: of URLs, HTML and JSON; twice, because an escape may be escaped itself."""
    from html import unescape

    for _ in range(2):
        text = _ESCAPE.sub(_unescaped, unescape(unquote(text, errors="replace")))
    return text


def _unescaped(escape: re.Match[str]) -> str:
    number = int(escape["u"] or escape["x"] or escape["U"] or "0", 16)
    return chr(number) if 0 < number < 0x11_0000 else " " if escape[0] != "\\" else ""


def _is_plain(word: str) -> bool:
    """Return whether ``word`` may be a word of a language, a number, a name, a host or a path, and not a token."""
    if len(word) > (_LONGEST_PATH if "/" in word else _LONGEST_WORD):
        return False
    return all(map(_is_plain_run, "".join(c if c.isalnum() else " " for c in word).split()))


def _is_plain_run(run: str) -> bool:
    if len(run) > _LONGEST_RUN:
        return False
    if len(run) > _LONGEST_MIXED_RUN and not run.isdigit() and any(map(str.isdigit, run)):
        return False
    # "BitbucketCustom" is a name; base64 changes the case with every other letter.
    changes = sum(one.islower() and other.isupper() for one, other in pairwise(run))
    return changes < 3


def _holds_piece_of_a_secret(text: str) -> bool:
    """Return whether ``text`` has a piece of a hidden value: divided, in another case, reversed, or in base64.

    Every position of the text is compared with every twelfth position of the values.
    """
    values = [_squeezed(value) for value in hidden_values()]
    pieces = {value[at : at + _PIECE] for value in values for at in range(0, len(value) - _PIECE + 1, _PIECE)}
    if not pieces:
        return False
    texts = [text, text[::-1], *_from_base64(text)]
    return any(
        squeezed[at : at + _PIECE] in pieces
        for squeezed in map(_squeezed, texts)
        for at in range(len(squeezed) - _PIECE + 1)
    )


def _squeezed(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def _from_base64(text: str) -> list[str]:
    """Read all of ``text`` as base64, from each of the four positions at which a group of characters may begin."""
    text = "".join(c for c in text.replace("+", "-").replace("/", "_") if c.isascii() and (c.isalnum() or c in "-_"))
    return [urlsafe_b64decode(text[start:][: len(text[start:]) // 4 * 4]).decode("latin-1") for start in range(4)]
