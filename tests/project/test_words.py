"""Figures and words that stand in several places: the constants say them, or these tests compare."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest

from git_credential_bbjwt import __version__, options
from git_credential_bbjwt.bitbucket import assertion, network, race, signing
from git_credential_bbjwt.broker import serve
from git_credential_bbjwt.commands import jwt
from git_credential_bbjwt.git import config
from git_credential_bbjwt.tokens import MIN_REMAINING, cache, refusals
from tests.conftest import COMMAND, PROJECT, need

README = (PROJECT / "README.md").read_text(encoding="utf-8")
SECURITY = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
MAN_PATH = PROJECT / "git_credential_bbjwt/installed/git-credential-bbjwt.1"
MAN = MAN_PATH.read_text(encoding="utf-8")

NUMBERS = {"half a": 0.5, "a quarter of a": 0.25, "a": 1, "an": 1, "one": 1, "two": 2, "five": 5}
UNITS = {"second": 1, "s": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "MiB": 1 << 20}

#: Each figure, and what stands around it in the texts: "#" is a number and its unit.
FIGURES: dict[str, tuple[float, list[tuple[str, str]]]] = {
    "remaining life of a kept token": (
        MIN_REMAINING,
        [
            (README, "reused until # before"),
            (README, "in the cache with # left"),
            (MAN, "again until # before it expires"),
        ],
    ),
    "budget": (options.DEFAULT_TIMEOUT, [(README, r"`--timeout SECONDS` \| #s \|"), (MAN, r"included\.\nDefault: #s")]),
    "life of a JWT": (assertion.LIFETIME, [(README, "any scope of the app . #, or"), (MAN, "Default #, at most")]),
    "longest life of a JWT": (jwt.LONGEST, [(README, "`--expires` up to #"), (MAN, "seconds, at most #s")]),
    "life of a refusal": (
        refusals.LIFE,
        [
            (README, "remembered for #, as narrowly"),
            (README, "wait #, or ask"),
        ],
    ),
    "life of a UUID": (cache._UUID_LIFE, [(README, "seen within # both")]),
    "mints after refusals": (cache._REMINTS_WITHIN, [(README, "five refused within # no more")]),
    "answer": (network.MAX_RESPONSE, [(SECURITY, "object of at most # with")]),
    "patience": (network._PATIENCE, [(README, "beside it after #")]),
    "race": (race._NEXT, [(README, "dead address costs #")]),
    "clock": (signing._LONGEST_OFFSET, [(SECURITY, "more than # off")]),
    "refusals by an asker": (serve._BETWEEN_REFUSALS, [(SECURITY, "get a new one, once #")]),
}


def value(text: str) -> float:
    """What a number and a unit mean."""
    number, _, unit = text.strip("s" if text[:1].isdigit() and " " not in text else "").rpartition(" ")
    if not number:
        return float(text.rstrip("s"))
    return (NUMBERS[number] if number in NUMBERS else float(number)) * UNITS[unit.removesuffix("s") or "s"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_constants(name: str) -> None:
    expected, places = FIGURES[name]
    amount = r"((?:half a|a quarter of a|an?|one|two|five|\d+) (?:seconds?|minutes?|hours?|days?|week|MiB))"
    for text, shape in places:
        pattern = shape.replace(" ", r"\s+").replace("#s", r"(\d+)").replace("#", amount.replace(" ", r"\s+"))
        found = re.search(pattern, text)
        assert found, shape
        assert value(" ".join(found[1].split())) == expected, shape


def test_counts() -> None:
    assert NUMBERS["five"] == cache.MOST_REMINTS
    assert "after five refused" in " ".join(README.split())
    assert f"first {serve._DIGEST} characters" in " ".join(SECURITY.split())
    assert f"git {config.dotted(config.SETTINGS_BY_ENVIRONMENT)} or newer" in README
    assert f"Needs git {config.dotted(config.SETTINGS_BY_ENVIRONMENT)}" in MAN
    assert f"git {config.dotted(config.SECTIONS_FOR_PATHS)} or newer" in MAN


def test_help_says_the_defaults() -> None:
    text = subprocess.run([COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    jwts = subprocess.run([COMMAND, "jwt", "--help"], capture_output=True, text=True, check=True).stdout

    assert f"default: {options.DEFAULT_TIMEOUT:g}" in text
    assert f"default: {options.DEFAULT_SCOPE}" in text
    assert f"default: {assertion.LIFETIME}" in jwts


def test_the_man_page_is_of_this_version_and_without_a_fault() -> None:
    assert f'"git-credential-bbjwt {__version__}"' in MAN.splitlines()[0]
    checked = subprocess.run([need("mandoc"), "-T", "lint", MAN_PATH], capture_output=True, text=True, check=False)
    assert checked.stdout + checked.stderr == ""


#: Idioms of another language, and what stands for them here.
NOT_ENGLISH = {
    r"(?<![Tt]here )\bis no (?:path|number|URL|JSON|payload|JWT|repository|command|folder|key|file|value)\b": "not a",
    r"\bnames no\b": "does not name",
    r"\babout no\b": "not about a",
    r"\bbroke off\b": "ended",
    r"\bset to nothing\b": "empty",
    r"\bit is to (?:print|be|have)\b": "it must",
    r"\b(?:twice|one \w+) a (?:fetch|repository|command)\b": "per",
}


@pytest.mark.parametrize("idiom", NOT_ENGLISH)
def test_what_people_read_is_plain_english(idiom: str) -> None:
    texts = {path.name: path.read_text(encoding="utf-8") for path in [*PROJECT.glob("*.md"), MAN_PATH]}
    for path in (PROJECT / "git_credential_bbjwt").rglob("*.py"):
        words = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        texts[path.name] = "\n".join(one for one in words if isinstance(one, str))
    found = {name: re.findall(f".*{idiom}.*", text) for name, text in texts.items() if re.search(idiom, text)}

    assert found == {}
