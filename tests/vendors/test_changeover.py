"""The changeover from a Connect app to an OAuth consumer when Bitbucket ends Connect, or rehearses its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from git_credential_bbjwt.bitbucket.connect_end import END_OF_CONNECT
from git_credential_bbjwt.core.failures import RefusedError
from git_credential_bbjwt.getting.changeover import ends_connect
from tests.conftest import (
    INSTALLED,
    PATIENCE,
    Machine,
    Workspace,
    answer,
    assert_quits,
    finish,
    request,
    start,
    state_of,
)
from tests.emulator.model import CONSUMER_GRANT_TYPE, GRANT_TYPE, OUTAGE, RATE_LIMITED, Consumer, Fault

TAKES_OVER = "takes over: its token opens every repository of the workspace acme"
DAY = 86_400


class Scene:
    """A workspace with a registered Connect app and a registered consumer for the time after Connect."""

    def __init__(self, acme: Workspace) -> None:
        self.acme = acme
        self.machine = acme.machine
        self.bitbucket = acme.bitbucket
        del self.machine.environment["BBJWT_INSTALLATION"]
        self.consumer: Consumer = acme.bitbucket.add_consumer()
        both = [self.bitbucket.payload(acme.app), self.bitbucket.consumer_json(self.consumer, afterConnect=True)]
        self.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(both))

    def get(self, *options: str, extra: str = "") -> tuple[bool, str]:
        """Return whether the token for acme/widgets opens the workspace, and the standard error."""
        done = self.acme.get(*options, extra=extra)
        return self.opens_workspace(answer(done)["password"]), done.stderr

    def opens_workspace(self, token: str) -> bool:
        """Return whether a token is the consumer's."""
        return self.bitbucket.tokens[token].consumer == self.consumer.key

    def mint_anew(self) -> None:
        """Drop the token of acme/widgets, as git does."""
        self.machine.bbjwt("erase", data=request(self.acme.url) + "\n")

    def swaps(self) -> int:
        """Return the number of swaps that were requested."""
        return len(self.bitbucket.grants(GRANT_TYPE))

    def consumer_requests(self) -> int:
        """Return the number of tokens that the consumer requested."""
        return len(self.bitbucket.grants(CONSUMER_GRANT_TYPE))

    def half_a_minute_later(self) -> None:
        """Make all remembered refusals 31 s old."""
        for path in (self.machine.runtime / "git-credential-bbjwt/refusals").iterdir():
            os.utime(path, (time.time() - 31,) * 2)


@pytest.fixture
def scene(acme: Workspace) -> Scene:
    """A workspace that is ready for the end of Connect."""
    return Scene(acme)


def test_tokens_are_narrow_while_connect_works(scene: Scene) -> None:
    assert scene.get() == (False, "")
    assert scene.consumer_requests() == 0


@pytest.mark.parametrize("how", ["gone", "unsupported"])
def test_consumer_takes_over_with_one_warning_and_connect_comes_back(scene: Scene, how: str) -> None:
    scene.get()
    scene.mint_anew()
    scene.bitbucket.end_connect(how)
    wide, said = scene.get()
    assert wide
    assert said.count("warning") == 1
    assert TAKES_OVER in said
    # The refusal is remembered: no request and no warning.
    before = len(scene.bitbucket.helper_requests())
    assert scene.get() == (True, "")
    assert len(scene.bitbucket.helper_requests()) == before
    # While it lasts, there is one request to Connect each 30 s, but no request for another token.
    scene.half_a_minute_later()
    wide, said = scene.get()
    assert wide
    assert TAKES_OVER in said
    assert scene.consumer_requests() == 1
    # The rehearsal ends.
    scene.bitbucket.restore_connect()
    assert scene.get() == (True, "")
    scene.half_a_minute_later()
    assert scene.get() == (False, "")
    assert not any(b"opens=workspace" in path.read_bytes() for path in scene.machine.records())


def test_many_processes_ask_connect_once(scene: Scene) -> None:
    scene.get()
    urls = [scene.bitbucket.url(scene.bitbucket.host_repository(f"acme/many{number}")) for number in range(6)]
    scene.bitbucket.end_connect("unsupported")
    swaps = scene.swaps()
    running = [start(scene.machine, url) for url in urls]
    tokens = {finish(process) for process in running}

    assert len(tokens) == 1
    assert scene.swaps() == swaps + 1
    assert scene.consumer_requests() == 1


def test_many_processes_get_narrow_tokens_in_parallel_while_connect_works(scene: Scene) -> None:
    urls = [scene.bitbucket.url(scene.bitbucket.host_repository(f"acme/many{number}")) for number in range(4)]
    scene.bitbucket.misbehave("api", *[Fault(delay=1)] * 4)
    running = [start(scene.machine, url) for url in urls]
    tokens = {finish(process) for process in running}

    assert len(tokens) == 4
    look_ups = [one for one in scene.bitbucket.seen if one.origin == "api"]
    # The first process finds out that Connect works. The others wait for it, but not for each other.
    assert max(one.received for one in look_ups[1:]) < min(one.answered for one in look_ups[1:])
    assert scene.consumer_requests() == 0


def test_person_asks_connect_at_once(scene: Scene) -> None:
    scene.bitbucket.end_connect("gone")
    scene.get()
    scene.bitbucket.restore_connect()
    token = scene.machine.bbjwt("token", scene.acme.url).stdout.strip()

    assert not scene.opens_workspace(token)
    assert scene.get() == (False, "")


@pytest.mark.parametrize("fault", [OUTAGE, RATE_LIMITED, Fault(status=403, body=b"no"), Fault(status=404, body=b"no")])
def test_failed_look_up_is_not_the_end_of_connect(scene: Scene, fault: Fault) -> None:
    scene.bitbucket.misbehave("api", *[fault] * 40)

    assert_quits(scene.acme.get("--timeout=5", check=False))
    assert scene.consumer_requests() == 0


def test_refused_narrow_token_heals_in_the_same_command(scene: Scene) -> None:
    scene.get()
    state = state_of(scene.acme.get(extra="capability[]=state\n"))
    scene.bitbucket.end_connect("gone", tokens=True)
    wide, said = scene.get(extra=f"capability[]=state\n{state}\n")
    assert wide
    assert TAKES_OVER in said
    # The next command does not return the refused token, either.
    assert scene.get() == (True, "")


def test_clone_loses_nothing_at_the_end(scene: Scene, each_git: tuple[int, ...]) -> None:
    scene.machine.git("clone", "-q", scene.acme.url, "before")
    scene.bitbucket.end_connect("gone", tokens=True)
    if each_git < (2, 46):  # An older git erases the refused token and fails once.
        scene.machine.git("clone", "-q", scene.acme.url, "lost", check=False)
    scene.machine.git("clone", "-q", scene.acme.url, "after")
    scene.bitbucket.restore_connect()
    scene.machine.git("clone", "-q", scene.acme.url, "again")


def test_consumer_is_used_at_once_if_no_app_serves_the_workspace(scene: Scene) -> None:
    scene.machine.bbjwt("unregister", "acme", "--app", scene.acme.app.key)

    assert scene.get() == (True, "")
    assert scene.get() == (True, "")
    assert scene.consumer_requests() == 1


def test_app_option_names_the_app_or_the_consumer(scene: Scene) -> None:
    assert scene.get(f"--app={scene.acme.app.key}") == (False, "")
    assert scene.get(f"--app={scene.consumer.key}") == (True, "")
    scene.mint_anew()
    scene.machine.bbjwt("forget", "--all")
    scene.bitbucket.end_connect("gone")
    wide, _ = scene.get(f"--app={scene.acme.app.key}")
    assert wide


def test_warning_names_a_scope_that_the_consumer_does_not_have(scene: Scene) -> None:
    scene.bitbucket.end_connect("gone")
    wide, said = scene.get("--scope=repository:write")

    assert wide
    assert "does not have the scope repository:write" in said


def test_injected_payload_with_both_changes_over(acme: Workspace) -> None:
    consumer = acme.bitbucket.add_consumer()
    both = {"clientInfo": acme.bitbucket.payload(acme.app), **acme.bitbucket.consumer_json(consumer)}
    acme.installation.write_text(json.dumps(both))
    assert acme.bitbucket.tokens[answer(acme.get())["password"]].consumer == ""
    acme.machine.bbjwt("forget", "--all")
    acme.bitbucket.end_connect("unsupported")
    done = acme.get()

    assert acme.bitbucket.tokens[answer(done)["password"]].consumer == consumer.key
    assert TAKES_OVER in done.stderr
    assert acme.machine.records() == []


def test_command_that_prints_both_changes_over(acme: Workspace) -> None:
    consumer = acme.bitbucket.add_consumer()
    both = {"clientInfo": acme.bitbucket.payload(acme.app), **acme.bitbucket.consumer_json(consumer)}
    (acme.machine.home / "both").write_text(json.dumps(both))
    del acme.machine.environment["BBJWT_INSTALLATION"]
    options = (f"--installation-command=cat {acme.machine.home}/both", f"--host={acme.bitbucket.host}")
    assert acme.bitbucket.tokens[answer(acme.get(*options))["password"]].consumer == ""
    acme.machine.bbjwt("forget", "--all")
    acme.bitbucket.end_connect("gone")
    done = acme.get(*options)

    assert acme.bitbucket.tokens[answer(done)["password"]].consumer == consumer.key
    assert TAKES_OVER in done.stderr


def test_broken_consumer_is_an_error_that_follows_the_reason(scene: Scene) -> None:
    scene.consumer.deleted = True
    scene.bitbucket.end_connect("gone")
    done = scene.acme.get(check=False)

    assert_quits(done, "410", "does not accept the OAuth consumer's key and secret")
    # With the hint's options, the consumer takes over again. Without them, it would not, or would not be stored.
    remedy = "git-credential-bbjwt register --oauth-consumer --after-connect --insecure-storage --workspace acme"
    assert f"then run: {remedy}\n" in done.stderr
    assert f"then run: {remedy}\n" in scene.machine.bbjwt("doctor", check=False).stdout


def test_hint_for_a_refused_injected_consumer_names_its_source(acme: Workspace) -> None:
    consumer = acme.bitbucket.add_consumer()
    consumer.deleted = True
    acme.installation.write_text(json.dumps(acme.bitbucket.consumer_json(consumer)))

    assert_quits(acme.get(check=False), f"then correct them in {acme.installation}")


# By the calendar.


def refusal(status: int, *, swap: bool = True, unknown_grant: bool = False) -> RefusedError:
    """A refusal."""
    return RefusedError("no", status=status, is_of_swap=swap, is_unknown_grant=unknown_grant)


@pytest.mark.parametrize(
    ("refused", "since"),
    [
        (refusal(410), None),
        (refusal(410, swap=False), None),
        (refusal(400, unknown_grant=True), None),
        (refusal(401), -60 * DAY),
        (refusal(401, swap=False), -60 * DAY),
        (refusal(400), 0),
        (refusal(403), 0),
        (refusal(403, swap=False), "never"),
        (refusal(404, swap=False), "never"),
        (refusal(429), "never"),
        (refusal(503), "never"),
    ],
)
def test_refusals_that_mean_the_end_by_the_date(refused: RefusedError, since: int | str | None) -> None:
    for days in (-365, -61, -59, -1, 1, 365):
        ends = since is None or (isinstance(since, int) and days * DAY >= since)
        assert ends_connect(refused, END_OF_CONNECT + days * DAY) == ends, days


# The installed command with another time of the machine's clock.
_AT = """
import sys, time
sys.path.insert(0, {installed!r})
real = time.time
time.time = lambda: real() + {offset}
from git_credential_bbjwt.entry import main
main(sys.argv[1:])
"""


def at(machine: Machine, offset: float, url: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Get a token, or run ``command``, with the clocks of the machine and of Bitbucket at this time."""
    script = _AT.format(installed=INSTALLED, offset=offset)
    return subprocess.run(
        [sys.executable, "-I", "-c", script, *(command or ["get"])],
        input=request(url) + "\n",
        capture_output=True,
        text=True,
        env=machine.env(),
        timeout=PATIENCE,
    )


@pytest.mark.parametrize(
    ("how", "days", "wide"),
    [
        ("unauthorized", -61, False),
        ("unauthorized", -59, True),
        ("forbidden", -1, False),
        ("forbidden", 1, True),
    ],
)
def test_whole_command_around_the_date(scene: Scene, how: str, days: int, wide: bool) -> None:
    offset = END_OF_CONNECT + days * DAY - time.time()
    scene.bitbucket.clock_offset = offset
    scene.bitbucket.end_connect(how)
    done = at(scene.machine, offset, scene.acme.url)

    assert "Traceback" not in done.stderr
    assert ("password" in done.stdout) == wide, done.stderr
    assert (TAKES_OVER in done.stderr) == wide
    assert wide or done.stdout == "quit=1\n"


@pytest.mark.parametrize(("days", "takes_over"), [(-61, False), (-59, True)])
def test_doctor_promises_a_takeover_only_when_there_is_one(scene: Scene, days: int, takes_over: bool) -> None:
    offset = END_OF_CONNECT + days * DAY - time.time()
    scene.bitbucket.clock_offset = offset
    scene.bitbucket.end_connect("unauthorized")
    done = at(scene.machine, offset, scene.acme.url, "doctor", "--json")
    found = [one for one in json.loads(done.stdout)["checks"] if "does not accept the JWT" in one["detail"]]

    assert ["takes over" in one["detail"] for one in found] == [takes_over], done.stdout
    assert [one["ok"] for one in found] == [None if takes_over else False]
