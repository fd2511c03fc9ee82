"""Locks between processes: killed and stopped holders, stopped waiters, and clocks that differ."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from git_credential_bbjwt.system import lock
from git_credential_bbjwt.system.lock import FileLock
from git_credential_bbjwt.system.private_folder import PrivateFolder
from tests.conftest import Workspace, finish, start, until_asked
from tests.emulator import Fault


def lock_files(acme: Workspace) -> list[Path]:
    return list(acme.machine.home.parent.rglob("*~lock"))


@contextmanager
def times_of_another_clock(acme: Workspace, seconds: float) -> Iterator[None]:
    """Give every lock file the time of a file server whose clock differs by ``seconds``, until the block ends."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(0.01):
            for path in lock_files(acme):
                try:
                    os.utime(path, (time.time() + seconds,) * 2)
                except FileNotFoundError:
                    pass  # The holder has released it.

    server = threading.Thread(target=run)
    server.start()
    try:
        yield
    finally:
        done.set()
        server.join()


@pytest.mark.parametrize("seconds", [-5, -3600, 3600])
def test_lock_on_a_file_server_with_another_clock_is_not_taken_over(acme: Workspace, seconds: float) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=3))
    with times_of_another_clock(acme, seconds):
        first = start(acme.machine, acme.url)
        until_asked(acme.bitbucket)
        others = [start(acme.machine, acme.url) for _ in range(3)]
        answers = {finish(one) for one in (first, *others)}

    assert len(answers) <= 2  # The answer with the minted token, and the cached answer with its state.
    assert acme.bitbucket.mints() == 1


def test_killed_holder_delays_nobody(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=60))
    killed = start(acme.machine, acme.url)
    until_asked(acme.bitbucket)
    others = [start(acme.machine, acme.url, "--timeout=3600") for _ in range(4)]
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    finish(killed)
    answers = [finish(one) for one in others]

    assert all(b"password=" in one for one in answers)
    assert acme.bitbucket.mints() == 1


def test_waiter_that_was_stopped_does_not_take_over_from_a_holder_that_works(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=9))
    holder = start(acme.machine, acme.url)
    until_asked(acme.bitbucket)
    waiter = start(acme.machine, acme.url)
    time.sleep(0.5)
    waiter.send_signal(signal.SIGSTOP)
    holder.send_signal(signal.SIGSTOP)  # As if a container was paused.
    time.sleep(6)
    waiter.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    holder.send_signal(signal.SIGCONT)
    answers = [finish(one) for one in (holder, waiter)]

    assert all(b"password=" in one for one in answers)
    assert acme.bitbucket.mints() == 1


# The rule in isolation.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateFolder]:
    """A folder for locks that are renewed and taken over ten times as fast."""
    monkeypatch.setattr(lock, "_RENEWAL", 0.1)
    monkeypatch.setattr(lock, "_STOPPED", 0.5)
    monkeypatch.setattr(lock, "_LONGEST_GAP", 0.05)
    tmp_path.chmod(0o700)
    opened = PrivateFolder(str(tmp_path), create=False)
    yield opened
    opened.close()


def test_lock_that_is_not_renewed_is_taken_over_once(folder: PrivateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileLock, "_renew", lambda _: None)
    stopped = FileLock(folder, "one")
    holding: list[int] = []
    most: list[int] = []

    def take() -> None:
        own = PrivateFolder(folder.path, create=False)
        with FileLock(own, "one"):
            holding.append(1)
            most.append(len(holding))
            time.sleep(0.05)
            holding.pop()
        own.close()

    with stopped:
        assert stopped.is_held()
        takers = [threading.Thread(target=take) for _ in range(6)]
        for one in takers:
            one.start()
        for one in takers:
            one.join()
        assert not stopped.is_held()

    assert most == [1] * 6
    assert folder.names() == []


def test_lock_that_is_renewed_is_not_taken_over(folder: PrivateFolder) -> None:
    held = FileLock(folder, "one")

    def stop_waiting() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    with held:
        deadline = time.monotonic() + 2
        with pytest.raises(TimeoutError), FileLock(folder, "one", may_wait=stop_waiting):
            pass
        assert held.is_held()
