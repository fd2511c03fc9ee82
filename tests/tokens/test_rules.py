"""What is kept beside a record, for how long, and what is removed: the rules in isolation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from git_credential_bbjwt.core.failures import TooManyRefusedError
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.tokens import cache
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.record import Record

WIDGETS = Repository("bitbucket.org", "acme", "widgets")
GADGETS = Repository("bitbucket.org", "acme", "gadgets")
OTHERS = Repository("bitbucket.org", "other", "widgets")
UUID = "{12345678-1234-1234-1234-123456789abc}"
SCOPE, APP = "repository", ""
DAY = 86_400

#: Seconds that a slow machine may take between two lines here: files bear the real time.
SOON = 60


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenCache:
    """An empty cache."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return TokenCache.open(create=True)


@pytest.fixture
def nowhere() -> TokenCache:
    """One without a folder."""
    return TokenCache(None)


Later = Callable[[float], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Sets the clock so many seconds ahead of the time at which the test began, a whole second."""
    began = int(time.time()) + 1

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: float(began + seconds))

    return set_clock


def record(repository: Repository, *, expires: float = 7200, scope: str = SCOPE) -> Record:
    """A record that ends so many seconds from now."""
    now = int(time.time())
    return Record(
        repository,
        scope,
        APP,
        stamp="s",
        identity="i",
        uuid=UUID,
        fingerprint="f",
        minted=now,
        expires=now + int(expires),
        store="runtime",
        username="x-token-auth",
        token="token",
    )


def files(kept: TokenCache) -> list[str]:
    """The names of all files below the cache."""
    assert kept.folder is not None
    return sorted(path.name for path in Path(kept.folder.path).rglob("*") if not path.is_dir())


def put(kept: TokenCache, name: str, age: float = 0.0) -> None:
    """A file of that age."""
    assert kept.folder is not None
    path = Path(kept.folder.path, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"text")
    path.chmod(0o600)
    os.utime(path, (time.time() - age,) * 2)


def test_a_uuid_is_remembered_for_30_days(kept: TokenCache, nowhere: TokenCache, later: Later) -> None:
    assert kept.remembered_uuid(WIDGETS) is None
    kept.remember_uuid(WIDGETS, UUID)
    assert kept.remembered_uuid(WIDGETS) == UUID
    for seconds, remembered in ((SOON, UUID), (30 * DAY - SOON, UUID), (30 * DAY + SOON, None), (-SOON, None)):
        later(seconds)
        assert kept.remembered_uuid(WIDGETS) == remembered, seconds
    later(SOON)
    assert kept.remembered_uuid(GADGETS) is None
    kept.forget_uuid(WIDGETS)
    kept.forget_uuid(WIDGETS)
    assert kept.remembered_uuid(WIDGETS) is None
    kept.remember_uuid(WIDGETS, "no UUID")
    assert kept.remembered_uuid(WIDGETS) is None
    nowhere.remember_uuid(WIDGETS, UUID)
    nowhere.forget_uuid(WIDGETS)
    assert nowhere.remembered_uuid(WIDGETS) is None


def test_the_first_of_a_day_is_told_of_each_name(kept: TokenCache, nowhere: TokenCache, later: Later) -> None:
    told = [kept.is_first_today("announced"), kept.is_first_today("announced")]
    for seconds in (SOON, DAY - SOON, DAY + SOON, -SOON):
        later(seconds)
        told.append(kept.is_first_today("announced"))
    assert told == [True, False, False, False, True, True]
    assert kept.is_first_today("lookups")
    assert not nowhere.is_first_today("announced")


def test_a_day_that_cannot_be_noted_is_none(kept: TokenCache) -> None:
    assert kept.folder is not None
    os.mkdir(f"{kept.folder.path}/announced")

    assert not kept.is_first_today("announced")


def test_refused_tokens_are_remembered_to_their_end(kept: TokenCache, nowhere: TokenCache, later: Later) -> None:
    def refused() -> list[str]:
        return kept.refused(WIDGETS, SCOPE, APP)

    later(0)
    now = int(time.time())
    assert refused() == []
    kept.note_refused(WIDGETS, SCOPE, APP, "known", now + 100)
    kept.note_refused(WIDGETS, SCOPE, APP, "unknown", None)
    assert refused() == ["known", "unknown"]
    assert [kept.refused(*other) for other in ((GADGETS, SCOPE, APP), (WIDGETS, "x", APP), (WIDGETS, SCOPE, "x"))] == [
        [],
        [],
        [],
    ]
    kept.note_refused(WIDGETS, SCOPE, APP, "known", now + 100)
    assert refused() == ["unknown", "known"]
    later(99)
    assert refused() == ["unknown", "known"]
    later(100)
    assert refused() == ["unknown"]
    kept.note_refused(WIDGETS, SCOPE, APP, "later", None)
    later(0)
    assert refused() == ["unknown", "later"]  # What had ended was not kept.
    later(DAY)
    assert refused() == ["later"]
    nowhere.note_refused(WIDGETS, SCOPE, APP, "known", None)
    assert nowhere.refused(WIDGETS, SCOPE, APP) == []


def test_32_refused_tokens_are_remembered(kept: TokenCache) -> None:
    for number in range(34):
        kept.note_refused(WIDGETS, SCOPE, APP, f"number-{number}", None)

    assert kept.refused(WIDGETS, SCOPE, APP) == [f"number-{number}" for number in range(2, 34)]


def test_lines_of_refused_tokens_that_say_no_time_do_not_count(kept: TokenCache) -> None:
    name = kept.name(WIDGETS, SCOPE, APP) + "~refused"
    kept.write(name, f"one soon\ntwo {int(time.time()) + 100}\nthree\n".encode())

    assert kept.refused(WIDGETS, SCOPE, APP) == ["two"]


def test_five_mints_anew_within_five_minutes(kept: TokenCache, later: Later) -> None:
    for number in range(5):
        later(number)
        kept.count_remint(WIDGETS, SCOPE, APP)
    later(299)
    with pytest.raises(TooManyRefusedError, match="5 tokens for acme/widgets within 5 minutes"):
        kept.count_remint(WIDGETS, SCOPE, APP)
    kept.count_remint(GADGETS, SCOPE, APP)
    later(300)  # The first does not count any more, the second does.
    kept.count_remint(WIDGETS, SCOPE, APP)
    with pytest.raises(TooManyRefusedError):
        kept.count_remint(WIDGETS, SCOPE, APP)
    later(-1)  # A clock that was set back: those to come are none that were.
    kept.count_remint(WIDGETS, SCOPE, APP)


def test_what_is_no_time_does_not_count(kept: TokenCache) -> None:
    kept.write(kept.name(WIDGETS, SCOPE, APP) + "~reminted", b" ".join([b"soon"] * 9))
    kept.count_remint(WIDGETS, SCOPE, APP)


def test_records_are_kept_found_and_dropped(kept: TokenCache, nowhere: TokenCache) -> None:
    long = Repository("bitbucket.org", "w" * 120, "r" * 120)
    every = [record(one) for one in (WIDGETS, GADGETS, OTHERS, long)]
    for one in every:
        kept.keep(one)
    kept.remember_uuid(WIDGETS, UUID)
    kept.write(kept.name(WIDGETS, SCOPE, APP) + "x", b"no record")

    assert {one.repository for one in kept.records()} == {WIDGETS, GADGETS, OTHERS, long}
    assert {one.repository for one in kept.records_of("bitbucket.org", "acme")} == {WIDGETS, GADGETS}
    assert {one.repository for one in kept.records_of("bitbucket.org", "w" * 120)} == {long}
    assert list(kept.records_of("elsewhere.example", "acme")) == []
    kept.drop(every[0])
    kept.drop(every[0])
    assert kept.find(WIDGETS, SCOPE, APP) is None
    assert kept.find(GADGETS, SCOPE, APP) is not None
    nowhere.keep(every[0])
    nowhere.drop(every[0])
    nowhere.clear()
    nowhere.tidy()
    assert (list(nowhere.records()), list(nowhere.records_of("bitbucket.org", "acme"))) == ([], [])


OURS = [
    "bitbucket.org,acme,widgets,repository,",
    "bitbucket.org,acme,widgets,repository,~lock",
    "bitbucket.org,acme,widgets,repository,~refused~new",
    "bitbucket.org,acme,widgets,,~uuid",
    "0f" * 16,
    "0f" * 16 + "~reminted",
    "0f" * 16 + "-" + "0f" * 8,
    "0f" * 16 + ".lock",
    "lookups~00",
    "misses~19",
    "announced",
    "announced~new",
]
NOT_OURS = [
    "bitbucket.org,acme,widgets,repository,~strange",
    "bitbucket.org,acme,widgets,repository",
    "bitbucket.org,acme,widgets,repository,,",
    "notes",
    "notes~lock",
    "0f" * 15,
    "0f" * 16 + "0",
    "0f" * 16 + "-" + "0f" * 7,
    "0f" * 16 + "-0",
    "0f" * 16 + "-" + "0f" * 8 + "0",
    "xy" * 16,
    "0f" * 16 + "-" + "xy" * 8,
]


@pytest.mark.parametrize("where", ["", "0a/1b/", "refusals/"])
def test_clearing_removes_what_is_named_as_ours(kept: TokenCache, where: str) -> None:
    for name in [*OURS, *NOT_OURS]:
        put(kept, where + name)
    kept.clear()
    assert files(kept) == sorted(NOT_OURS)
    assert kept.folder is not None
    for name in NOT_OURS:
        os.unlink(f"{kept.folder.path}/{where}{name}")
    kept.clear()
    assert not os.path.exists(kept.folder.path)


def test_folders_that_are_no_parts_are_left_alone(kept: TokenCache) -> None:
    for folder in ("0a/1b", "0A/1b", "0a/1bc", "abc/1b", "a/1b", "xy/1b"):
        put(kept, f"{folder}/{'0f' * 16}")
    kept.clear()

    assert len(files(kept)) == 5


@pytest.mark.parametrize("where", ["", "0a/1b/", "refusals/"])
def test_tidying_removes_what_is_used_up(kept: TokenCache, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(cache, "_TIDYING", 60.0)
    # A record's file bears the time of its end.
    ages = {
        "bitbucket.org,acme,used-up,repository,": 5,
        "bitbucket.org,acme,in-time,repository,": -60,
        "bitbucket.org,acme,widgets,repository,~reminted": DAY + 60,
        "bitbucket.org,acme,gadgets,repository,~reminted": DAY - 60,
        "bitbucket.org,acme,widgets,,~uuid": 30 * DAY + 60,
        "bitbucket.org,acme,gadgets,,~uuid": 30 * DAY - 60,
        "0f" * 16: DAY + 60,
        "1f" * 16: DAY - 60,
        "notes": 99 * DAY,
    }
    for name, age in ages.items():
        put(kept, where + name, age)
    kept.tidy()

    assert files(kept) == sorted(
        [
            "bitbucket.org,acme,in-time,repository,",
            "bitbucket.org,acme,gadgets,repository,~reminted",
            "bitbucket.org,acme,gadgets,,~uuid",
            "1f" * 16,
            "notes",
        ]
    )


def test_tidying_ends_in_time(kept: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        put(kept, f"0a/{number:02x}/{'0f' * 16}", DAY + 60)
    monkeypatch.setattr(cache, "_TIDYING", -1.0)
    kept.tidy()
    assert len(files(kept)) == 8
    monkeypatch.setattr(cache, "_TIDYING", 60.0)
    kept.tidy()
    assert files(kept) == []


def test_asking_for_every_folder_makes_none(kept: TokenCache, tmp_path: Path) -> None:
    assert kept.folder is not None
    (one,) = TokenCache.every_folder()
    assert one.folder is not None
    assert one.folder.path == kept.folder.path
    assert not (tmp_path / "cache").exists()
