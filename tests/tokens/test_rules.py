"""Rules in isolation: the files of a slot, their lifetimes, and tidying."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from git_credential_bbjwt.commands.forget import forget_all
from git_credential_bbjwt.core import record as record_module
from git_credential_bbjwt.core.failures import TooManyRefusedError
from git_credential_bbjwt.core.record import Record, is_in_memory
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.system.private_folder import PrivateFolder
from git_credential_bbjwt.tokens import tidying
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.names import CLOSED, REFUSED, REMINTS
from git_credential_bbjwt.tokens.rate_limit import RateLimit
from git_credential_bbjwt.tokens.slot import Slot, workspace_slot
from git_credential_bbjwt.tokens.tidying import clear_all, records_of, tidy
from git_credential_bbjwt.tokens.token import Token, record_of
from git_credential_bbjwt.tokens.uuids import KnownUuids

WIDGETS = Repository("bitbucket.org", "acme", "widgets")
GADGETS = Repository("bitbucket.org", "acme", "gadgets")
OTHERS = Repository("bitbucket.org", "other", "widgets")
UUID = "{12345678-1234-1234-1234-123456789abc}"
SCOPE, APP = "repository", ""
DAY = 86_400

#: Seconds that a slow machine may take between two lines of a test, because files have the real time.
SOON = 60


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TokenCache:
    """An empty cache with everything in one folder."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(record_module, "_SHARED_MEMORY", str(tmp_path / "none"))  # Other tests keep tokens there.
    folder = TokenCache.open(create=True).tokens
    return TokenCache(folder, folder, folder)


@pytest.fixture
def nowhere() -> TokenCache:
    """A cache without a folder."""
    return TokenCache(None, None, None)


Later = Callable[[float], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """A function that sets the clock ``seconds`` after the test's start, which is a whole second."""
    began = int(time.time()) + 1

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: float(began + seconds))

    return set_clock


def slot(cache: TokenCache, repository: Repository = WIDGETS) -> Slot:
    """Return the slot of a repository."""
    return Slot(cache, repository, SCOPE, APP)


def record(repository: Repository, *, expires: float = 7200) -> Record:
    """Return a record that expires in ``expires`` seconds."""
    now = int(time.time())
    token = Token("token", identity="i", minted=now, expires=now + int(expires), uuid=UUID)
    return record_of(token, repository, SCOPE, APP, stamp="s")


def folder_of(kept: TokenCache) -> PrivateFolder:
    """Return the one folder of the cache."""
    assert kept.tokens is not None
    return kept.tokens


def files(kept: TokenCache) -> list[str]:
    """Return the names of all files of the cache."""
    return sorted(path.name for path in Path(folder_of(kept).path).rglob("*") if not path.is_dir())


def put(kept: TokenCache, name: str, age: float = 0.0) -> None:
    """Make a file of this age, in seconds."""
    path = Path(folder_of(kept).path, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"text")
    path.chmod(0o600)
    os.utime(path, (time.time() - age,) * 2)


def test_a_uuid_is_remembered_for_30_days(kept: TokenCache, nowhere: TokenCache, later: Later) -> None:
    known, unknown = KnownUuids(kept), KnownUuids(nowhere)
    assert known.find(WIDGETS) is None
    known.remember(WIDGETS, UUID, by="app")
    assert known.find(WIDGETS) == UUID
    for seconds, remembered in ((SOON, UUID), (30 * DAY - SOON, UUID), (30 * DAY + SOON, None), (-SOON, None)):
        later(seconds)
        assert known.find(WIDGETS) == remembered, seconds
    later(SOON)
    assert known.find(GADGETS) is None
    assert known.find(WIDGETS, by="app") == UUID
    assert known.find(WIDGETS, by="other") is None
    assert known.find(WIDGETS, within=2 * SOON) == UUID
    assert known.find(WIDGETS, within=SOON / 2) is None
    known.forget(WIDGETS)
    known.forget(WIDGETS)
    assert known.find(WIDGETS) is None
    known.remember(WIDGETS, "no UUID", by="app")
    assert known.find(WIDGETS) is None
    unknown.remember(WIDGETS, UUID, by="app")
    unknown.forget(WIDGETS)
    assert unknown.find(WIDGETS) is None


def test_refused_tokens_are_remembered_until_they_expire(kept: TokenCache, nowhere: TokenCache, later: Later) -> None:
    widgets = slot(kept)
    later(0)
    now = int(time.time())
    assert widgets.refused() == []
    widgets.refuse("known", now + 100)
    widgets.refuse("unknown", None)
    assert widgets.refused() == ["known", "unknown"]
    others = (Slot(kept, GADGETS, SCOPE, APP), Slot(kept, WIDGETS, "x", APP), Slot(kept, WIDGETS, SCOPE, "x"))
    assert [other.refused() for other in others] == [[], [], []]
    widgets.refuse("known", now + 100)
    assert widgets.refused() == ["unknown", "known"]
    later(99)
    assert widgets.refused() == ["unknown", "known"]
    later(100)
    assert widgets.refused() == ["unknown"]
    widgets.refuse("later", None)
    later(0)
    assert widgets.refused() == ["unknown", "later"]  # The expired token was not kept.
    later(DAY)
    assert widgets.refused() == ["later"]
    slot(nowhere).refuse("known", None)
    assert slot(nowhere).refused() == []


def test_32_refused_tokens_are_remembered(kept: TokenCache) -> None:
    for number in range(34):
        slot(kept).refuse(f"number-{number}", None)

    assert slot(kept).refused() == [f"number-{number}" for number in range(2, 34)]


def test_lines_of_refused_tokens_without_a_time_are_ignored(kept: TokenCache) -> None:
    kept.write(slot(kept).name + REFUSED, f"one soon\ntwo {int(time.time()) + 100}\nthree\n".encode())

    assert slot(kept).refused() == ["two"]


def test_five_tokens_replace_refused_ones_within_five_minutes(kept: TokenCache, later: Later) -> None:
    for number in range(5):
        later(number)
        slot(kept).count_remint()
    later(299)
    with pytest.raises(TooManyRefusedError, match="5 tokens for acme/widgets within 5 minutes"):
        slot(kept).count_remint()
    slot(kept, GADGETS).count_remint()
    later(300)  # Now the first is too old, but the second is not.
    slot(kept).count_remint()
    with pytest.raises(TooManyRefusedError):
        slot(kept).count_remint()
    later(-1)  # The clock was set back, so the counted times are in the future.
    slot(kept).count_remint()


def test_words_that_are_not_times_are_ignored(kept: TokenCache) -> None:
    kept.write(slot(kept).name + REMINTS, b" ".join([b"soon"] * 9))
    slot(kept).count_remint()


def test_limit_says_how_long_to_wait(kept: TokenCache, later: Later) -> None:
    limit = RateLimit(kept, "lookups", most=2, seconds=60)
    later(0)
    assert limit.wait() == 0
    limit.count()
    later(10)
    assert limit.wait() == 0
    limit.count()
    assert limit.wait() == 50
    later(59)
    assert limit.wait() == 1
    later(60)
    assert limit.wait() == 0
    limit.count()
    assert limit.wait() == 10


def test_closed_repository_opens_after_30_seconds(kept: TokenCache, later: Later) -> None:
    widgets = slot(kept)
    put(kept, widgets.name + CLOSED)
    later(0)
    assert 27 <= widgets.closed_for() <= 30
    later(20)
    assert 7 <= widgets.closed_for() <= 10
    later(30)
    assert widgets.closed_for() == 0
    later(0)
    widgets.reopen()
    assert widgets.closed_for() == 0
    assert slot(kept, GADGETS).closed_for() == 0


def test_records_are_kept_found_and_dropped(kept: TokenCache, nowhere: TokenCache) -> None:
    long = Repository("bitbucket.org", "w" * 120, "r" * 120)
    every = [record(one) for one in (WIDGETS, GADGETS, OTHERS, long)]
    for one in every:
        slot(kept, one.repository).keep(one)
    KnownUuids(kept).remember(WIDGETS, UUID, by="app")
    kept.write(slot(kept).name + "x", b"no record")

    def names(host: str, workspace: str) -> set[str]:
        return {one.repository.full_name for _, one in records_of(folder_of(kept), host, workspace)}

    assert names("bitbucket.org", "acme") == {"acme/widgets", "acme/gadgets"}
    assert names("bitbucket.org", "w" * 120) == {long.full_name}
    assert names("elsewhere.example", "acme") == set()
    slot(kept).drop()
    slot(kept).drop()
    assert slot(kept).find() is None
    assert slot(kept, GADGETS).find() is not None
    slot(nowhere).keep(every[0])
    slot(nowhere).drop()
    assert slot(nowhere).find() is None
    tidy(nowhere)


def test_broker_has_separate_slots(kept: TokenCache) -> None:
    brokers = TokenCache(kept.tokens, kept.notes, kept.uuids, is_brokers=True)
    slot(kept).keep(record(WIDGETS))
    assert slot(brokers).find() is None
    with slot(kept).lock(Budget(10)), slot(brokers).lock(Budget(10)):
        slot(brokers).keep(record(WIDGETS))
    assert slot(brokers).find() is not None
    assert tidying.forget(lambda _: True) == 2
    assert (slot(kept).find(), slot(brokers).find()) == (None, None)


def test_workspace_has_one_slot_apart_from_its_repositories(kept: TokenCache) -> None:
    slot(kept).keep(record(WIDGETS))
    everywhere = workspace_slot(kept, "bitbucket.org", "acme", APP)
    assert everywhere.find() is None
    token = Token("wide", identity="i", minted=int(time.time()), expires=int(time.time()) + 7200, opens_workspace=True)
    everywhere.keep(record_of(token, everywhere.repository, everywhere.scope, APP, stamp="s"))
    found = everywhere.find()
    assert found is not None
    assert found.opens_workspace
    assert {one.token for _, one in records_of(folder_of(kept), "bitbucket.org", "acme")} == {"token", "wide"}


HELPERS = [
    "bitbucket.org,acme,widgets,repository,",
    "bitbucket.org,acme,widgets,repository,,broker",
    "bitbucket.org,acme,widgets,repository,~lock",
    "bitbucket.org,acme,widgets,repository,~refused~new",
    "bitbucket.org,acme,widgets,,~uuid",
    "bitbucket.org,acme,,,",
    "0f" * 16,
    "0f" * 16 + "~reminted",
    "lookups~00",
    "misses~19",
]
OTHERS_FILES = [
    "bitbucket.org,acme,widgets,repository,~strange",
    "bitbucket.org,acme,widgets,repository",
    "bitbucket.org,acme,widgets,repository,,",
    "notes",
    "notes~lock",
    "0f" * 15,
    "0f" * 16 + "0",
    "0f" * 16 + ".lock",
    "xy" * 16,
]


@pytest.mark.parametrize("where", ["", "0a/1b/", "refusals/"])
def test_clearing_removes_only_files_with_the_helpers_names(kept: TokenCache, where: str) -> None:
    for name in [*HELPERS, *OTHERS_FILES]:
        put(kept, where + name)
    forget_all()
    assert files(kept) == sorted(OTHERS_FILES)
    for name in OTHERS_FILES:
        os.unlink(f"{folder_of(kept).path}/{where}{name}")
    forget_all()
    assert not os.path.exists(folder_of(kept).path)


def test_folders_with_other_names_are_not_touched(kept: TokenCache) -> None:
    for folder in ("0a/1b", "0A/1b", "0a/1bc", "abc/1b", "a/1b", "xy/1b"):
        put(kept, f"{folder}/{'0f' * 16}")
    clear_all()

    assert len(files(kept)) == 5


@pytest.mark.parametrize("where", ["", "0a/1b/", "refusals/"])
def test_tidying_removes_expired_files(kept: TokenCache, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(tidying, "_TIDYING", 60.0)
    # A record's file has the time at which its token expires.
    ages = {
        "bitbucket.org,acme,used-up,repository,": 5,
        "bitbucket.org,acme,in-time,repository,": -60,
        "bitbucket.org,acme,widgets,repository,~reminted": 310,
        "bitbucket.org,acme,gadgets,repository,~reminted": 290,
        "bitbucket.org,acme,widgets,repository,~minting": 70,
        "bitbucket.org,acme,gadgets,repository,~minting": 50,
        "bitbucket.org,acme,widgets,repository,~named": 7210,
        "bitbucket.org,acme,gadgets,repository,~refused": DAY - 60,
        "bitbucket.org,acme,widgets,repository,~lock": DAY + 60,
        "bitbucket.org,acme,widgets,,~uuid": 30 * DAY + 60,
        "bitbucket.org,acme,gadgets,,~uuid": 30 * DAY - 60,
        "0f" * 16: DAY + 60,
        "1f" * 16: 110 if where == "refusals/" else DAY - 60,
        "2f" * 16: 130 if where == "refusals/" else DAY + 60,
        "notes": 99 * DAY,
    }
    for name, age in ages.items():
        put(kept, where + name, age)
    tidy(kept)

    assert files(kept) == sorted(
        [
            "bitbucket.org,acme,in-time,repository,",
            "bitbucket.org,acme,gadgets,repository,~reminted",
            "bitbucket.org,acme,gadgets,repository,~minting",
            "bitbucket.org,acme,gadgets,repository,~refused",
            "bitbucket.org,acme,gadgets,,~uuid",
            "1f" * 16,
            "notes",
        ]
    )


def test_tidying_ends_in_time_unless_everything_is_requested(kept: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        put(kept, f"0a/{number:02x}/{'0f' * 16}", DAY + 60)
    monkeypatch.setattr(tidying, "_TIDYING", -1.0)
    tidy(kept)
    assert len(files(kept)) == 8
    tidy(kept, everything=True)
    assert files(kept) == []


def test_folder_is_in_memory_by_its_device_number(tmp_path: Path) -> None:
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    tmpfs = {line[2] for line in mounts if line[line.index("-") + 1] == "tmpfs"}
    for path in ("/", "/proc", "/dev/shm", str(tmp_path)):
        device = os.stat(path).st_dev
        assert is_in_memory(path) == (f"{os.major(device)}:{os.minor(device)}" in tmpfs)
    assert not is_in_memory("/nonexistent")
