"""The token cache: exact reuse, one mint for many processes, healing, and folders that others have prepared."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from git_credential_bbjwt.core.record import MIN_REMAINING, token_paths
from tests.conftest import (
    COMMAND,
    PROJECT,
    Workspace,
    answer,
    cannot,
    ends_within,
    files_holding,
    finish,
    request,
    start,
    state_of,
    until_asked,
)
from tests.emulator import Fault
from tests.options import MAN_PAGE
from tests.properties import whole_record


def password(acme: Workspace, *options: str, extra: str = "", **changes: str | None) -> str:
    """Return the token that the helper returns for acme/widgets."""
    done = acme.machine.get(acme.url, *options, extra=extra, also=changes)
    return answer(done)["password"]


# The record.


def test_one_record_a_repository_that_only_its_user_can_read(acme: Workspace) -> None:
    gadgets = acme.bitbucket.host_repository("acme/gadgets")
    for _ in range(2):
        acme.get()
        acme.machine.get(acme.bitbucket.url(gadgets))
    folder = acme.machine.runtime / "git-credential-bbjwt"

    assert len(acme.machine.records()) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")] if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(record.stat().st_mode) for record in acme.machine.records()} == {0o600}
    assert acme.bitbucket.mints() == 2


def not_a_folder(path: Path) -> None:
    path.rmdir()
    path.write_text("")


def link(path: Path) -> None:
    path.rmdir()
    path.with_name("elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.with_name("elsewhere"))


RUNTIME_FOLDERS: dict[str, Callable[[Path], object]] = {
    "open to the group": lambda path: path.chmod(0o750),
    "open to all": lambda path: path.chmod(0o777),
    "missing": lambda path: path.rmdir(),
    "a file": not_a_folder,
    "a link": link,
}


def on_disk(acme: Workspace) -> Path:
    """Return the folder of UUIDs, which never has a token."""
    return acme.machine.home / ".cache/git-credential-bbjwt"


@pytest.mark.parametrize("name", RUNTIME_FOLDERS)
def test_tokens_are_in_dev_shm_if_the_runtime_folder_is_not_private(
    acme: Workspace, shared_memory: Path, name: str
) -> None:
    RUNTIME_FOLDERS[name](acme.machine.runtime)
    first = password(acme)

    (record,) = files_holding(shared_memory, first)
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert {stat.S_IMODE(path.stat().st_mode) for path in (shared_memory, record.parent)} == {0o700}
    assert files_holding(acme.machine.home.parent, first) == []
    assert {path.name.rpartition("~")[2] for path in on_disk(acme).rglob("*,*")} == {"uuid"}
    assert password(acme) == first
    assert not list(acme.machine.runtime.parent.glob("elsewhere/*"))


@pytest.mark.parametrize("whose", ["runtime", "the helper's"])
def test_folder_of_another_user_is_not_used(
    acme: Workspace, shared_memory: Path, another_user: int, whose: str
) -> None:
    prepared = acme.machine.runtime
    if whose != "runtime":
        prepared = prepared / "git-credential-bbjwt"
        prepared.mkdir(mode=0o700)
    os.chown(prepared, another_user, another_user)
    first = password(acme)

    assert list(acme.machine.runtime.glob("git-credential-bbjwt/*")) == []
    assert len(files_holding(shared_memory, first)) == 1
    assert password(acme) == first


def test_folder_behind_a_link_is_not_used(acme: Workspace, shared_memory: Path, tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir(mode=0o700)
    (acme.machine.runtime / "git-credential-bbjwt").symlink_to(tmp_path / "evil")
    first = password(acme)

    assert list((tmp_path / "evil").iterdir()) == []
    assert len(files_holding(shared_memory, first)) == 1


def chown_to_another(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65_534, 65_534)


def make_open(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)


def link_away(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700, exist_ok=True)
    folder.symlink_to(elsewhere)


PREPARED: dict[str, Callable[[Path], object]] = {
    "of another user": chown_to_another,
    "open to all": make_open,
    "a link": link_away,
    "a file": lambda folder: folder.write_text(""),
}


@pytest.mark.parametrize("name", PREPARED)
def test_no_token_is_kept_if_somebody_prepared_the_folder_in_dev_shm(
    acme: Workspace, shared_memory: Path, another_user: int, name: str
) -> None:
    assert another_user
    acme.machine.runtime.rmdir()
    PREPARED[name](shared_memory)
    first = password(acme)

    assert files_holding(shared_memory.parent, first) == []
    assert files_holding(acme.machine.home.parent, first) == []
    assert password(acme) != first
    shutil.rmtree(shared_memory.with_name("elsewhere"), ignore_errors=True)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder on a disk: /tmp is in memory on many systems, as on Debian 13."""
    place = PROJECT / ".cache"
    if subprocess.run(["stat", "-f", "-c", "%T", place], capture_output=True).stdout == b"tmpfs\n":
        cannot("the project is not on a disk")
    folder = Path(tempfile.mkdtemp(dir=place))
    yield folder
    shutil.rmtree(folder)


def test_no_token_is_kept_in_a_dev_shm_on_a_disk(acme: Workspace, shared_memory: Path, disk: Path) -> None:
    acme.machine.runtime.rmdir()
    script = f'mount --bind {disk} /dev/shm && exec "$@"'

    def get() -> str:
        command = ("unshare", "-m", "sh", "-c", script, "sh", COMMAND, "get")
        return answer(acme.machine.run(*command, data=request(acme.url) + "\n"))["password"]

    assert os.stat(disk).st_dev != os.stat(shared_memory.parent).st_dev
    first = get()
    assert list(disk.iterdir()) == []
    assert files_holding(acme.machine.home.parent, first) == []
    assert get() != first
    assert len(acme.bitbucket.helper_requests()) == 4


def truncate(record: Path) -> None:
    record.write_bytes(record.read_bytes()[:-5])


def make_fifo(record: Path) -> None:
    record.unlink()
    os.mkfifo(record, 0o600)


def link_to_copy(record: Path) -> None:
    copy = shutil.copy(record, record.parent.parent / "copy")
    record.unlink()
    record.symlink_to(copy)


def replaced(record: Path, old: bytes, new: bytes) -> None:
    data = record.read_bytes()
    assert old in data
    record.write_bytes(data.replace(old, new))


BROKEN_RECORDS: dict[str, Callable[[Path], object]] = {
    "empty": lambda record: record.write_bytes(b""),
    "truncated": truncate,
    "garbage": lambda record: record.write_bytes(os.urandom(500)),
    "another format": lambda record: replaced(record, b"record 6", b"record 1"),
    "expiry is not a number": lambda record: replaced(record, b"expires=", b"expires=x"),
    "a line break in the token": lambda record: replaced(record, b"token=", b"token=a\nhost=b\ntoken="),
    "an escape in the token": lambda record: replaced(record, b"token=", b"token=\x1b"),
    "of another repository": lambda record: replaced(record, b"name=widgets", b"name=gadgets"),
    "of another host": lambda record: replaced(record, b"host=localhost", b"host=evilhost1"),
    "of another scope": lambda record: replaced(record, b"scope=repository", b"scope=account"),
    "from the future": lambda record: replaced(record, b"minted=17", b"minted=97"),
    "readable by others": lambda record: record.chmod(0o644),
    "a FIFO": make_fifo,
    "a link": link_to_copy,
}


def test_broken_record_is_absent_and_replaced_by_a_whole_one(acme: Workspace) -> None:
    token = password(acme)
    for name, spoil in BROKEN_RECORDS.items():
        (record,) = acme.machine.records()
        spoil(record)
        new = password(acme)
        assert new != token, name
        token = new

    assert password(acme) == token
    assert acme.bitbucket.mints() == 1 + len(BROKEN_RECORDS)


@pytest.mark.parametrize("spoilt", ["read-only", "full", "no home"])
def test_token_is_returned_although_nothing_can_be_kept(acme: Workspace, shared_memory: Path, spoilt: str) -> None:
    acme.machine.runtime.rmdir()
    shared_memory.write_text("not a folder")
    environment = dict(acme.machine.environment)
    if spoilt == "no home":
        environment |= {"HOME": "/nonexistent", "XDG_CACHE_HOME": "/proc/nothing"}
    elif spoilt == "read-only":
        environment["XDG_CACHE_HOME"] = "/proc"
    else:
        environment["XDG_CACHE_HOME"] = "/dev/full"
    acme.machine.environment = environment | {"BBJWT_INSTALLATION": str(acme.installation)}

    assert acme.get().stderr == ""
    assert "no token cache" in acme.get("--verbose").stderr


def test_token_is_returned_with_one_warning_if_the_memory_is_full(acme: Workspace, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    fill = "mount -t tmpfs -o size=64k,nr_inodes=1k,mode=700 none $0 && mkdir -m 700 $0/git-credential-bbjwt && "
    fill += 'dd if=/dev/zero of=$0/rest bs=4k 2>/dev/null; exec "$@"'
    command = ("unshare", "-m", "sh", "-c", fill, full, COMMAND, "get")
    acme.machine.environment["XDG_RUNTIME_DIR"] = str(full)
    done = acme.machine.run(*command, data=request(acme.url) + "\n", check=False)
    if done.stderr.startswith("unshare: ") or "mount" in done.stderr:
        cannot("this system allows no tmpfs of the test's own")

    assert "password" in answer(done)
    assert done.stderr.count("warning") == 1
    assert "could not be cached" in done.stderr
    assert files_holding(acme.machine.home.parent, answer(done)["password"]) == []


def test_files_that_cannot_be_removed_change_no_result(acme: Workspace, tmp_path: Path) -> None:
    gadgets, tools = (acme.bitbucket.host_repository(f"acme/{name}") for name in ("gadgets", "tools"))
    acme.machine.get(acme.bitbucket.url(gadgets))
    (expired,) = acme.machine.records()
    os.utime(expired, (1_600_000_000, 1_600_000_000))
    acme.bitbucket.misbehave("api", Fault(status=403))
    acme.get(check=False)  # The refusal is remembered.
    acme.bitbucket.repositories.remove(gadgets)
    read_only = 'mount --bind $0 $0 && mount -o remount,ro,bind $0 && exec "$@"'

    def run(*arguments: str, data: str = "") -> subprocess.CompletedProcess[str]:
        command = ("unshare", "-m", "sh", "-c", read_only, str(tmp_path), str(COMMAND), *arguments)
        done = acme.machine.run(*command, data=data, check=False)
        if done.stderr.startswith("unshare: ") or "mount" in done.stderr:
            cannot("this system allows no read-only mounts")
        return done

    assert run("token", acme.url).returncode == 0
    assert "404" in run("--token-store=none", "token", acme.bitbucket.url(gadgets)).stderr
    assert run("get", data=request(acme.bitbucket.url(tools)) + "\n").returncode == 0


def test_token_store_none_keeps_nothing(acme: Workspace) -> None:
    first = password(acme, "--token-store=none")

    assert list(acme.machine.runtime.iterdir()) == []
    assert password(acme) != first  # The first token was not kept,
    assert password(acme, "--token-store=none") != password(acme)  # and a kept token is not used.


# Exact reuse.


@pytest.mark.parametrize(("lifetime", "reused"), [(290, False), (330, True)])
def test_a_token_is_used_again_with_five_minutes_left(acme: Workspace, lifetime: int, reused: bool) -> None:
    acme.bitbucket.rules.lifetime = lifetime

    assert (password(acme) == password(acme)) == reused


def test_token_is_used_only_for_its_scope_and_app(acme: Workspace) -> None:
    acme.app.scopes = {"repository:write"}
    reading = password(acme)

    assert password(acme, "--scope", "repository:write") != reading
    assert password(acme, "--app", acme.app.key) != reading
    assert password(acme, "--scope", " repository  repository ") == reading
    assert password(acme) == reading


@pytest.mark.parametrize("how", ["file", "variable"])
def test_token_of_a_replaced_secret_is_not_used(acme: Workspace, how: str) -> None:
    def environment() -> dict[str, str]:
        text = json.dumps(acme.bitbucket.payload(acme.app))
        if how == "file":
            acme.installation.write_text(text)
            return {}
        return {"BBJWT_INSTALLATION": text}

    first = password(acme, **environment())
    assert password(acme, **environment()) == first
    acme.app.shared_secret = "another-secret-of-the-same-client-key"
    assert password(acme, **environment()) != first


def test_the_same_payload_with_other_irrelevant_fields_keeps_its_tokens(acme: Workspace) -> None:
    first = password(acme)
    acme.write_installation(user={"nickname": "somebody else"})

    assert password(acme) == first


def test_another_registration_does_not_drop_tokens(acme: Workspace) -> None:
    machine = acme.machine
    payload = json.dumps(acme.bitbucket.payload(acme.app))
    del machine.environment["BBJWT_INSTALLATION"]
    machine.bbjwt("register", "--insecure-storage", "-", data=payload)
    first = password(acme)
    other = json.dumps(acme.bitbucket.payload(acme.bitbucket.install("beta")))
    machine.bbjwt("register", "--insecure-storage", "-", data=other)

    assert password(acme) == first
    machine.bbjwt("register", "--insecure-storage", "-", data=payload)
    assert password(acme) != first
    machine.bbjwt("unregister", "acme")
    assert acme.get().stdout == ""


# One mint for many.


def test_many_processes_for_one_repository_make_one_mint(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=1))
    running = [start(acme.machine, acme.url) for _ in range(12)]
    answers = {finish(process) for process in running}

    assert len(answers) == 1
    assert acme.bitbucket.mints() == 1
    assert len(acme.bitbucket.helper_requests()) == 2


def test_repositories_do_not_wait_for_each_other(acme: Workspace) -> None:
    gadgets = acme.bitbucket.host_repository("acme/gadgets")
    acme.bitbucket.misbehave("api", Fault(delay=60))
    slow = start(acme.machine, acme.url)
    until_asked(acme.bitbucket)

    assert "password" in answer(acme.machine.get(acme.bitbucket.url(gadgets)))
    assert slow.poll() is None
    slow.kill()
    finish(slow)


def test_waiting_for_another_process_ends_with_the_budget(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=30))
    slow = start(acme.machine, acme.url)
    until_asked(acme.bitbucket)
    with ends_within(3):
        waiting = acme.get("--timeout", "3", check=False)

    assert waiting.stdout == "quit=1\n"
    assert "another process" in waiting.stderr
    slow.kill()
    finish(slow)


def test_kills_at_random_moments_leave_no_broken_record(acme: Workspace) -> None:
    chance = random.Random(4)  # noqa: S311  # moments, not keys
    for _ in range(4):
        acme.machine.bbjwt("forget", "--all")
        running = [start(acme.machine, acme.url) for _ in range(4)]
        for process in running:
            time.sleep(chance.uniform(0, 0.06))
            process.send_signal(signal.SIGKILL)
        for process in running:
            finish(process)
        with ends_within(5):
            assert "password" in answer(acme.get())
        (record,) = acme.machine.records()
        assert record.read_bytes().endswith(b"\nend\n")


# Healing.


def erase(acme: Workspace, password: str | None) -> None:
    """Send what git sends if the server refused ``password``."""
    data = request(acme.url) + "username=x-token-auth\n" + (f"password={password}\n" if password else "") + "\n"
    assert acme.machine.bbjwt("erase", data=data).stdout == ""


def test_erase_drops_the_refused_token(acme: Workspace) -> None:
    first = password(acme)
    erase(acme, first)

    assert acme.machine.records() == []
    assert password(acme) != first


def test_erase_without_a_password_drops_the_token(acme: Workspace) -> None:
    acme.get()
    erase(acme, None)

    assert acme.machine.records() == []


def test_erase_without_a_protocol_concerns_https_too(acme: Workspace) -> None:
    for more in ("path=acme/widgets\n", ""):
        acme.get()
        acme.machine.bbjwt("erase", data=f"host={acme.bitbucket.host}\n{more}\n")
        assert acme.machine.records() == []


def test_erase_keeps_a_newer_token_and_the_registered_secret(acme: Workspace) -> None:
    machine = acme.machine
    payload = json.dumps(acme.bitbucket.payload(acme.app))
    del machine.environment["BBJWT_INSTALLATION"]
    machine.bbjwt("register", "--insecure-storage", "-", data=payload)
    old = password(acme)
    erase(acme, old)
    new = password(acme)
    erase(acme, old)

    assert password(acme) == new
    erase(acme, new)
    assert "password" in answer(acme.get())


def test_erase_of_a_foreign_request_does_nothing(acme: Workspace) -> None:
    acme.get()
    for url in ("https://github.com/acme/widgets", acme.url.replace("widgets", "gadgets"), acme.bitbucket.base_url):
        acme.machine.bbjwt("erase", data=request(url) + "password=x\n\n")

    assert len(acme.machine.records()) == 1


def test_a_refused_cached_token_is_replaced_in_the_same_git_command(acme: Workspace) -> None:
    announced = "capability[]=authtype\ncapability[]=state\n"
    first = password(acme, extra=announced)
    cached = acme.get(extra=announced)
    refused = announced + state_of(cached) + "\nwwwauth[]=Basic realm=x\n"
    again = acme.get(extra=refused)

    assert answer(cached)["password"] == first
    assert answer(again)["password"] != first
    assert "continue" not in again.stdout
    # The next process with the old token gets the new one without a mint.
    assert answer(acme.get(extra=refused))["password"] == answer(again)["password"]
    assert acme.bitbucket.mints() == 2


def test_state_of_another_helper_is_ignored(acme: Workspace) -> None:
    first = password(acme)
    extra = "capability[]=state\nstate[]=other:thing\nstate[]=bbjwt:\nstate[]=bbjwt:ffff\nstate[]=\n"

    assert password(acme, extra=extra) == first


def test_state_does_not_reveal_the_token(acme: Workspace) -> None:
    token = password(acme)
    state = state_of(acme.get(extra="capability[]=state\n"))

    assert not any(token[at : at + 6] in state for at in range(len(token) - 6))


def test_forget_one_and_forget_all(acme: Workspace) -> None:
    gadgets = acme.bitbucket.host_repository("acme/gadgets")
    acme.get()
    acme.get("--app", acme.app.key)
    acme.machine.get(acme.bitbucket.url(gadgets))
    acme.machine.bbjwt("forget", acme.url.upper().replace("HTTPS", "https").replace(".GIT", ""))
    assert len(acme.machine.records()) == 1
    acme.machine.bbjwt("forget", "--all")
    assert acme.machine.records() == []
    assert acme.machine.bbjwt("forget", check=False).returncode == 2


def test_expired_records_are_removed(acme: Workspace) -> None:
    acme.get()
    (record,) = acme.machine.records()
    os.utime(record, (1_600_000_000, 1_600_000_000))
    gadgets = acme.bitbucket.host_repository("acme/gadgets")
    acme.machine.get(acme.bitbucket.url(gadgets))

    assert record not in acme.machine.records()


def test_forgetting_all_leaves_only_files_of_others(acme: Workspace) -> None:
    acme.get()
    (record,) = acme.machine.records()
    leftover = record.with_name(f"{record.name}~new")
    others = [record.with_name(f"{record.name}~strange"), record.with_name("notes"), record.parent.parent / "notes"]
    for path in (leftover, *others):
        path.write_text("something")
    acme.machine.bbjwt("forget", "--all")

    assert [path.exists() for path in (record, leftover, *others)] == [False, False, True, True, True]
    for path in others:
        path.unlink()
    acme.machine.bbjwt("forget", "--all")
    assert not record.parent.parent.exists()


def test_refused_tokens_that_are_not_kept_are_replaced_five_times(acme: Workspace) -> None:
    for _ in range(6):
        erase(acme, password(acme, "--token-store=none"))
    refused = acme.get("--token-store=none", check=False)

    assert refused.stdout == "quit=1\n"
    assert "refuses every token for acme/widgets" in refused.stderr
    assert acme.bitbucket.mints() == 6


def test_one_token_that_many_processes_erase_is_replaced(acme: Workspace) -> None:
    token = password(acme)
    for _ in range(8):
        erase(acme, token)

    assert password(acme) != token


def test_erased_password_of_a_foreign_host_leaves_no_file(acme: Workspace) -> None:
    for number in range(8):
        acme.machine.bbjwt("erase", data=request("https://github.com/a/b") + f"password=secret{number}\n\n")

    assert list(acme.machine.runtime.iterdir()) == []


# The fast path.

HEAVY = (
    "argparse",
    "json",
    "re",
    "pathlib",
    "urllib3",
    "keyring",
    "platformdirs",
    "jwt",
    "subprocess",
    "typing",
    "hashlib",
    "site",
    "resource",
    "_blake2",
)


_EVERY_CALL = {"", ".entry", ".core", ".core.options", ".core.protocol"}
_SOURCES = {".core.repository", ".core.files", ".core.source", ".core.sources"}

#: The modules that a cached answer, ``store`` and a foreign request load. Each further module takes 1 % of a start.
OURS = {
    "cached": _EVERY_CALL | _SOURCES | {".core.record"},
    "store": _EVERY_CALL,
    "foreign": _EVERY_CALL | _SOURCES,
}


def ours_of(imported: set[str]) -> set[str]:
    """Return the helper's modules of ``imported``, without the name of the package."""
    return {name.removeprefix("git_credential_bbjwt") for name in imported if name.startswith("git_credential_bbjwt")}


def test_registered_installation_loads_no_other_module(acme: Workspace) -> None:
    payload = acme.installation.read_text()
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.machine.bbjwt("register", "--insecure-storage", "-", data=payload)
    acme.get()
    time.sleep(0.1)  # The registry's files must be old enough for their times to be reliable.
    acme.get()
    imported = acme.machine.imports_of("get", acme.url)

    assert ours_of(imported) == OURS["cached"]


@pytest.mark.parametrize("case", [*OURS, "erase"])
def test_fast_path_loads_few_modules(acme: Workspace, case: str) -> None:
    acme.get()
    url = "https://github.com/a/b" if case in ("foreign", "erase") else acme.url
    operation = {"store": "store", "erase": "erase"}.get(case, "get")
    imported = acme.machine.imports_of(operation, url)

    assert imported.isdisjoint(HEAVY)
    assert ours_of(imported) == OURS.get(case, ours_of(imported))


@pytest.mark.parametrize(("option", "further"), [("--timeout=60", set()), ("--allow=acme/*", {".core.patterns"})])
def test_cached_answer_loads_few_modules_for_an_option(acme: Workspace, option: str, further: set[str]) -> None:
    acme.get()
    imported = acme.machine.imports_of("get", acme.url, option)

    assert imported.isdisjoint(HEAVY)
    assert ours_of(imported) == OURS["cached"] | {".core.option_table"} | further


@pytest.mark.parametrize(
    ("minted", "expires", "in_time"),
    [(30, 7200, True), (31, 7200, False), (0, MIN_REMAINING, True), (0, MIN_REMAINING - 1, False)],
)
def test_record_is_in_time_with_5_minutes_left_and_a_clock_that_was_not_set_back(
    monkeypatch: pytest.MonkeyPatch, minted: int, expires: int, in_time: bool
) -> None:
    now = 1_800_000_000
    monkeypatch.setattr("time.time", lambda: float(now))
    record = whole_record(minted=now + minted, expires=now + expires)

    assert record.is_in_time() == in_time


def test_man_page_names_every_folder_for_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    paths = [path.replace(str(tmp_path), "$XDG_RUNTIME_DIR") for path in token_paths()]

    page = MAN_PAGE.read_text(encoding="utf-8").replace("\\-", "-").partition(".SH FILES\n")[2].partition(".SH ")[0]
    named = re.findall(r"^\.I (\S+)/$", page, re.MULTILINE)
    assert paths[0] == "$XDG_RUNTIME_DIR/git-credential-bbjwt"
    assert {re.sub(r"-\d+$", "-UID", path) for path in paths} <= set(named)
