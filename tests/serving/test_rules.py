"""The limits of a client, the errors that a client reads, and the audit's lines."""

from __future__ import annotations

import contextlib
import json
import select
import time

import pytest

from git_credential_bbjwt.core.failures import BudgetSpentError
from git_credential_bbjwt.serving import limits
from git_credential_bbjwt.serving.answer import Answer, TooManyError, _ascii
from git_credential_bbjwt.serving.audit import LONGEST_VALUE_BY_HTTPS, audit_line
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.names import LOOKUPS, MINTING, MOST_LOOKUPS
from tests.tokens.test_rules import WIDGETS, kept, record, slot

__all__ = ["kept"]  # a fixture

NOW = 2_000_000_000


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW + 0.5)


def written(kept: TokenCache, name: str) -> str:
    """Return the content of a file of the cache."""
    return (kept.read(name) or b"").decode()


def lookup(kept: TokenCache, seconds: float = 10) -> contextlib.AbstractContextManager[limits.Place]:
    assert kept.notes is not None
    return limits.lookup(kept, LOOKUPS, "too many", Budget(seconds))


@pytest.mark.parametrize(
    ("told", "counts"), [(NOW, True), (NOW - 59, True), (NOW - 60, False), (NOW + 1, False), ("soon", False)]
)
def test_look_ups_of_the_last_minute_are_counted(kept: TokenCache, told: int | str, counts: bool) -> None:
    for number in range(MOST_LOOKUPS):
        kept.write(f"{LOOKUPS}~{number:02}", f"{told:>20}".encode())
    if counts:
        with pytest.raises(TooManyError, match="too many") as raised, lookup(kept):
            pass
        assert raised.value.headers == (("Retry-After", str(max(1, 60 - (NOW - int(told))))),)
    else:
        for _ in range(MOST_LOOKUPS):
            with lookup(kept) as place:
                place.spend()
        with pytest.raises(TooManyError), lookup(kept):
            pass


def test_unspent_look_up_gives_its_place_back(kept: TokenCache) -> None:
    for _ in range(MOST_LOOKUPS + 5):
        with lookup(kept):
            pass


def test_look_up_that_finds_all_places_held_waits_for_its_budget(kept: TokenCache) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(MOST_LOOKUPS):
            held.enter_context(lookup(kept))
        with pytest.raises(BudgetSpentError), lookup(kept, 0.2):
            pass


def announce(kept: TokenCache, *, refused: bool, expires: float = 7200) -> None:
    """Announce a mint that replaces a token with ``expires`` seconds left."""
    before = record(WIDGETS, expires=expires)
    with limits.noting_mint(kept, slot(kept), before, [before.fingerprint] if refused else []):
        assert kept.read(slot(kept).name + MINTING)


@pytest.mark.parametrize(("ago", "too_soon"), [(0, True), (59, True), (60, False), (-1, False)])
def test_a_refused_token_makes_one_mint_a_minute(kept: TokenCache, ago: int, too_soon: bool) -> None:
    kept.write(slot(kept).name + MINTING, str(NOW - ago).encode())
    if too_soon:
        with pytest.raises(TooManyError, match=f"was made {ago} s ago because one was refused") as raised:
            announce(kept, refused=True)
        assert raised.value.headers == (("Retry-After", str(60 - ago)),)
        assert written(kept, slot(kept).name + MINTING) == str(NOW - ago)
    else:
        announce(kept, refused=True)
        assert written(kept, slot(kept).name + MINTING) == str(NOW)


def test_a_mint_for_another_reason_is_not_delayed(kept: TokenCache) -> None:
    kept.write(slot(kept).name + MINTING, str(NOW - 1).encode())
    announce(kept, refused=False)
    announce(kept, refused=True, expires=10)  # The token was about to expire.
    with limits.noting_mint(kept, slot(kept), None, ["0" * 16]):
        pass

    assert written(kept, slot(kept).name + MINTING) == str(NOW - 1)


@pytest.mark.parametrize("told", ["", "soon", "-1"])
def test_note_without_a_time_delays_no_mint(kept: TokenCache, told: str) -> None:
    kept.write(slot(kept).name + MINTING, told.encode())
    announce(kept, refused=True)

    assert written(kept, slot(kept).name + MINTING) == str(NOW)


def test_full_folder_makes_no_mint(kept: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TokenCache, "write", full)
    monkeypatch.setattr("os.pwrite", full)
    why = "cannot write to its own folder: No space left on device"
    with pytest.raises(limits.CannotLimitError, match=why):
        announce(kept, refused=False)
    with pytest.raises(limits.CannotLimitError, match=why), lookup(kept):
        pass


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("plain ~!", "plain ~!"),
        ("a\nb\x7f\x1b", r"a\nb\x7f\x1b"),
        ("naïve", r"na\xefve"),
        ("x" * 501, "x" * 500),
    ],
)
def test_a_client_reads_at_most_five_hundred_printable_characters(text: str, read: str) -> None:
    assert _ascii(text) == read


def test_audit_line_fits_into_a_pipe_whatever_the_token_claims() -> None:
    claims = {f"claim {number}": ["\U0001f40d" * 300] * 40 for number in range(40)}
    client = {"by": "oidc", "issuer": "https://ci.example", "claims": claims, "rules": ["all"], "jti": 10**5000}
    line = audit_line(Answer(200, b"", "acme/widgets"), client, "repository", LONGEST_VALUE_BY_HTTPS)

    assert len(line) + 1 < select.PIPE_BUF
    asker = json.loads(line)["asker"]
    assert (asker["issuer"], asker["is_cut"]) == ("https://ci.example", True)
    assert asker["jti"] == "a number that is too large to show"
