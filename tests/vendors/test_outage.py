"""Mints during an outage of look-ups: git works, and a remembered UUID is enough."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.conftest import Machine, Workspace, answer, assert_quits, ends_within, request
from tests.emulator.model import OUTAGE, RATE_LIMITED, SILENCE, Fault

UNCONFIRMED = "Bitbucket does not return the UUID of acme/widgets now"


def mint_anew(acme: Workspace) -> None:
    """Drop the token of acme/widgets, as git does."""
    acme.machine.bbjwt("erase", data=request(acme.url) + "\n")


def uuid_file(machine: Machine) -> Path:
    """The one file of a remembered UUID."""
    (found,) = (machine.home / ".cache/git-credential-bbjwt").glob("??/??/*~uuid")
    return found


def look_ups(acme: Workspace) -> int:
    return sum(1 for one in acme.bitbucket.helper_requests() if one.origin == "api")


@pytest.fixture
def known(acme: Workspace) -> Workspace:
    """The usual scene, in which the repository's UUID is remembered and no token is kept."""
    acme.get()
    mint_anew(acme)
    return acme


@pytest.mark.parametrize("fault", [OUTAGE, RATE_LIMITED, Fault(status=500), Fault(reset=True)])
def test_token_is_given_with_one_warning_and_not_kept(known: Workspace, fault: Fault) -> None:
    known.bitbucket.misbehave("api", *[fault] * 40)
    done = known.get("--timeout=10")

    token = known.bitbucket.tokens[answer(done)["password"]]
    assert token.repository == known.widgets.uuid
    assert done.stderr.count("warning") == 1
    assert UNCONFIRMED in done.stderr
    assert known.machine.records() == []


@pytest.mark.parametrize("fault", [SILENCE, Fault(drip=0.5)])
def test_slow_host_is_given_up_after_half_of_a_short_budget(known: Workspace, fault: Fault) -> None:
    known.bitbucket.misbehave("api", *[fault] * 20)
    with ends_within(6):
        done = known.get("--timeout=6")

    assert "password" in answer(done)
    assert UNCONFIRMED in done.stderr


def test_for_two_minutes_mints_go_straight_to_the_swap(known: Workspace) -> None:
    known.bitbucket.misbehave("api", *[OUTAGE] * 40)
    known.get("--timeout=10")
    before = look_ups(known)
    done = known.get()
    assert UNCONFIRMED in done.stderr
    assert look_ups(known) == before
    # A person's command tries the look-up.
    known.bitbucket.misbehave("api", *[OUTAGE] * 40)
    assert known.machine.bbjwt("--timeout=10", "token", known.url).stdout.strip() in known.bitbucket.tokens
    assert look_ups(known) > before
    # After two minutes, every call tries it.
    for path in (known.machine.runtime / "git-credential-bbjwt/refusals").iterdir():
        os.utime(path, (time.time() - 121,) * 2)
    known.bitbucket._faults.clear()
    assert known.get().stderr == ""
    assert len(known.machine.records()) == 1


def test_repository_without_a_remembered_uuid_gets_no_token(known: Workspace) -> None:
    gadgets = known.bitbucket.host_repository("acme/gadgets")
    known.bitbucket.misbehave("api", *[OUTAGE] * 40)

    assert_quits(known.machine.get(known.bitbucket.url(gadgets), "--timeout=5", check=False))


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusal_is_not_an_outage(known: Workspace, status: int) -> None:
    known.bitbucket.misbehave("api", *[Fault(status=status, body=b"no")] * 4)
    done = known.get("--timeout=5", check=False)

    assert_quits(done)
    assert UNCONFIRMED not in done.stderr


def test_uuid_of_another_installations_look_up_is_not_used(known: Workspace) -> None:
    uuid_file(known.machine).write_text(f"{known.widgets.uuid} {'0' * 32}")
    known.bitbucket.misbehave("api", *[OUTAGE] * 40)

    assert_quits(known.get("--timeout=5", check=False))


@pytest.mark.parametrize(("hours", "given"), [(1, True), (3, False)])
def test_allowed_names_must_have_been_confirmed_within_two_hours(known: Workspace, hours: int, given: bool) -> None:
    when = time.time() - hours * 3600
    os.utime(uuid_file(known.machine), (when, when))
    known.bitbucket.misbehave("api", *[OUTAGE] * 40)
    done = known.get("--allow=acme/*", "--timeout=5", check=False)

    assert ("password" in done.stdout) == given


def test_token_opens_only_the_repository_of_the_earlier_token(known: Workspace) -> None:
    old, url = known.widgets.uuid, known.url
    gadgets = known.bitbucket.host_repository("acme/gadgets")
    known.bitbucket.rename(known.widgets, "renamed")
    known.bitbucket.rename(gadgets, "widgets")
    known.bitbucket.misbehave("api", *[OUTAGE] * 40)

    assert known.bitbucket.tokens[answer(known.machine.get(url, "--timeout=10"))["password"]].repository == old
