"""The standard error of an installation command, without the secrets in it.

A failing command often prints the payload that it has read, JSON within JSON, or base64 of it. So this module searches
for every value of a ``sharedSecret`` or ``secret`` member, and drops any base64 that contains such a value.
"""

import json
import re
from base64 import b64decode

from git_credential_bbjwt.core.output import REDACTED, hide
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.system import shell

# Levels of JSON within JSON that are searched, as many as payloads may be wrapped.
_LEVELS = 5

# Levels of base64 within base64 that are searched.
_BASE64_LEVELS = 3

# The value of a member, up to its closing quote or, if the text is cut, to the line's end. No part of the pattern can
# match the same characters in two ways, so the time of the search is proportional to the text's length.
_MEMBER = re.compile(
    r"""(["']?)(?:sharedSecret|shared_secret|secret)\1\s{0,9}[:=]\s{0,9}(?:"((?:[^"\\\n]|\\.)*)|'([^'\n]*))"""
)

_NAMES = ("sharedSecret", "secret")

# An escaped character in JSON.
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")

# Base64. A shorter word is more likely a word of a language.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_SHORTEST_BASE64 = 12

# Widths of lines of base64 (RFC 7468 and RFC 2045).
_USUAL_WIDTHS = {64, 76}

# A payload has one or two secrets. If there are more than this, nothing is shown.
_MOST_SECRETS = 100

# This many hexadecimal digits of a secret in a row are treated as a piece of it.
_DUMPED = 16

# Characters of a line that are shown.
_LONGEST_LINE = 300


def shown_lines(errors: bytes, output: bytes, most: int) -> list[str]:
    """Return the last ``most`` lines of ``errors`` without any secret that is in them or in ``output``.

    From now on, the secrets are redacted in all output.
    """
    if len(errors) >= shell.MOST_ERRORS:
        errors = errors.partition(b"\n")[2]  # The rest of a secret that was cut would not be recognised.
    text, printed = _decoded_text(errors), _decoded_text(output)
    found = _secrets_in(text, _BASE64_LEVELS) | _secrets_in(printed, _BASE64_LEVELS)
    if len(found) > _MOST_SECRETS or _holds_hexadecimal(text, found):
        return [REDACTED]
    for secret in found:
        hide(secret)
    spellings = sorted({spelt for secret in found for spelt in _spellings(secret)}, key=len, reverse=True)
    text = _without_base64(text, spellings)
    for spelt in spellings:
        text = text.replace(spelt, REDACTED)
    return [safe_text(line, _LONGEST_LINE) for line in text.splitlines()[-most:]]


def _decoded_text(data: bytes) -> str:
    return data.replace(b"\0", b"").decode("utf-8", "replace")  # UTF-16 has a NUL beside each ASCII character.


def _holds_hexadecimal(text: str, secrets: set[str]) -> bool:
    """Return whether ``text`` has a piece of a secret as a hexadecimal dump, with any spacing."""
    squeezed = "".join(filter(str.isalnum, text)).lower()
    dumps = [secret.encode().hex() for secret in secrets]
    pieces = {dump[at : at + _DUMPED] for dump in dumps for at in range(0, len(dump) - _DUMPED + 1, _DUMPED)}
    return bool(pieces) and any(squeezed[at : at + _DUMPED] in pieces for at in range(len(squeezed) - _DUMPED + 1))


def _secrets_in(text: str, levels: int) -> set[str]:
    """Return the values of members with a secret: in JSON, in JSON within strings of JSON, and in base64 of either."""
    if not levels:
        return set()
    found = _members_of(text, _LEVELS)
    unescaped = text
    for _ in range(_LEVELS):
        for match in _MEMBER.finditer(unescaped):
            found.add(_plain(match.group(2) or match.group(3) or ""))
        if "\\" not in unescaped:
            break
        unescaped = _whole(_ESCAPE.sub(_unescaped, unescaped))
    for _, readings in _base64_in(text):
        for said in readings:
            if "ecret" in said or said.isascii():  # Otherwise it is not base64 of text.
                found |= _secrets_in(said, levels - 1)
    return found - {""}


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match.group(1), 16)) if match.group(1) else match.group(2)


def _whole(text: str) -> str:
    """Join the halves of characters that JSON escapes in two (RFC 8259, section 7); a half alone is replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _members_of(text: str, levels: int) -> set[str]:
    """Return the values of members with a secret if all of ``text`` is JSON, including JSON within its strings."""
    if not levels or text.lstrip()[:1] not in ("{", "["):
        return set()
    found: set[str] = set()
    try:
        to_see = [json.loads(text)]
    except (ValueError, RecursionError):
        return found
    while to_see:
        value = to_see.pop()
        if isinstance(value, dict):
            found |= {_whole(one) for name, one in value.items() if name in _NAMES and isinstance(one, str)}
            to_see += value.values()
        elif isinstance(value, list):
            to_see += value
        elif isinstance(value, str):
            found |= _members_of(value, levels - 1)
    return found


def _plain(value: str) -> str:
    try:
        return _whole(str(json.loads(f'"{value}"')))
    except ValueError:
        return value


def _spellings(secret: str) -> set[str]:
    """Return the secret unchanged, escaped for JSON, for JSON in a string of JSON, and so on."""
    found = {secret}
    for as_ascii in (True, False):
        spelt = secret
        for _ in range(_LEVELS):
            spelt = json.dumps(spelt, ensure_ascii=as_ascii)[1:-1]
            found |= {spelt, spelt.replace("/", "\\/")}
    return found


def _base64_in(text: str) -> list[tuple[list[re.Match[str]], set[str]]]:
    """Return the blocks of ``text`` that may be base64, each with its possible readings."""
    # Words on the same line are separate. Words at the ends of lines may be one text that was broken into lines.
    blocks: list[list[re.Match[str]]] = []
    for word in _BASE64.finditer(text):
        between = text[blocks[-1][-1].end() : word.start()] if blocks else "the beginning"
        if "\n" in between and not between.strip():
            blocks[-1].append(word)
        else:
            blocks.append([word])
    return [(words, _readings(words)) for words in map(_without_neighbours, blocks) if words]


def _without_neighbours(words: list[re.Match[str]]) -> list[re.Match[str]]:
    """Return the words from the first to the last long one, and the short word that ends lines of the same width."""
    long = [number for number, word in enumerate(words) if len(word.group()) >= _SHORTEST_BASE64]
    if not long:
        return []
    inner, rest = words[long[0] : long[-1] + 1], words[long[-1] + 1 : long[-1] + 2]
    widths = {len(word.group()) for word in inner}
    is_cut_off = len(widths) == 1 and (len(inner) > 1 or widths <= _USUAL_WIDTHS)
    return inner + rest if is_cut_off else inner


def _readings(words: list[re.Match[str]]) -> set[str]:
    """Return the possible readings of a block: line by line, and as one text from each of its first lines on."""
    lines = [word.group().rstrip("=").translate(_URL_SAFE) for word in words]
    return {"".join(map(_decoded, lines)), *(_decoded("".join(lines[start:])) for start in range(3))}


_URL_SAFE = str.maketrans("-_", "+/")


def _decoded(text: str) -> str:
    text = text[: len(text) - (len(text) % 4 == 1)]
    return b64decode(text + "=" * (-len(text) % 4)).decode("utf-8", "replace")


def _without_base64(text: str, spellings: list[str]) -> str:
    """Return the text without those blocks of base64 that contain a secret."""
    shown, end = "", 0
    for words, readings in _base64_in(text):
        if any(_secrets_in(said, _BASE64_LEVELS) or any(spelt in said for spelt in spellings) for said in readings):
            shown += text[end : words[0].start()] + REDACTED
            end = words[-1].end()
    return shown + text[end:]
