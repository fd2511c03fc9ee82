"""Bitbucket as it is known to be: a test for each fact the product depends on, and either way of what is not sure."""

from __future__ import annotations

import json
import os
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from git_credential_bbjwt.commands.token import SIDE_BY_SIDE
from tests.commands.test_doctor import checks
from tests.conftest import Machine, Workspace, answer, assert_quits, request
from tests.emulator import Fault
from tests.installations.test_registration import registry_of
from tests.mint import Mint
from tests.tokens.test_token_cache import state_of

ANNOUNCED = "https://developer.atlassian.com/cloud/bitbucket/changelog/"


# The grant.


def test_the_least_set_of_scopes_is_listed(mint: Mint) -> None:
    mint.app.scopes = {"repository:write"}

    assert mint.token(scope="repository repository:write").token


@pytest.mark.parametrize("may_be_asked", [True, False])
def test_a_scope_that_the_app_has_by_implication(acme: Workspace, may_be_asked: bool) -> None:
    acme.app.scopes = {"repository:write"}
    acme.bitbucket.rules.implied_scope_may_be_asked = may_be_asked
    done = acme.get(check=False)

    if may_be_asked:
        assert "password" in answer(done)
    else:
        assert_quits(done, "--scope repository:write")
        assert "password" in answer(acme.get("--scope", "repository:write"))


def test_a_swap_that_echoes_no_scope(mint: Mint) -> None:
    mint.bitbucket.rules.echoes_scope = False

    assert mint.token().token


@pytest.mark.parametrize("checked", [True, False])
def test_the_qsh_is_right_whether_it_is_checked_or_not(mint: Mint, checked: bool) -> None:
    mint.bitbucket.rules.swap_checks_qsh = mint.bitbucket.rules.rest_checks_qsh = checked

    assert mint.token().token


# The end of it.


@pytest.mark.parametrize(("kind", "body"), [("api", "json"), ("token", "text"), ("token", "another page")])
def test_410_is_told_as_an_end_or_its_rehearsal(acme: Workspace, kind: str, body: str) -> None:
    page = f"{ANNOUNCED}#CHANGE-9999" if body == "json" else "https://evil.example/?https://developer.atlassian.com/"
    error = {"message": "CHANGE-9999 - Functionality has been deprecated", "data": {"announcement_url": page}}
    data = b"CHANGE-9999 - gone" if body == "text" else json.dumps({"type": "error", "error": error}).encode()
    acme.bitbucket.misbehave(kind, Fault(status=410, body=data))
    done = acme.get(check=False)

    assert_quits(done, "ended", "rehearsing", "minutes to hours", "OAuth consumer", "When Connect ends", "CHANGE-9999")
    assert (f"{ANNOUNCED}#CHANGE-9999" in done.stderr) == (body == "json")
    assert "evil.example" not in done.stderr
    assert "uninstall" not in done.stderr


def test_a_brown_out_passes(acme: Workspace) -> None:
    acme.bitbucket.rules.gone = True
    assert_quits(acme.get(check=False), "410")
    assert "410" in acme.machine.git("ls-remote", acme.url, check=False).stderr
    acme.bitbucket.rules.gone = False

    assert "password" in answer(token(acme))
    assert "password" in answer(acme.get())  # What a person asked for ended the memory of it.


def token(acme: Workspace) -> Any:
    """Ask as a person, as git would read it."""
    done = acme.machine.bbjwt("token", "--format", "json", acme.url, check=False)
    if done.returncode == 0:
        done.stdout = f"password={json.loads(done.stdout)['token']}\n"
    return done


ENDS = 1_830_000_000
HEADERS = {
    "Deprecation": "@1780000000",
    "Sunset": formatdate(ENDS, usegmt=True),
    "Link": f'<https://evil.example/>; rel="deprecation", <{ANNOUNCED}#x>; rel="deprecation"; type="text/html"',
}


def test_announced_end_is_shown_by_doctor_alone(acme: Workspace) -> None:
    acme.bitbucket.rules.announces = HEADERS
    assert acme.get().stderr == ""
    shown = checks(acme.machine, acme.url)["announcement"]

    assert shown["ok"]
    assert time.strftime("%Y-%m-%d", time.gmtime(ENDS)) in shown["detail"]
    assert f"{ANNOUNCED}#x" in shown["detail"]
    assert "evil" not in shown["detail"]


def erased(acme: Workspace) -> Any:
    """Have the token minted anew."""
    acme.machine.bbjwt("erase", data=request(acme.url) + "\n")
    return acme.get()


@pytest.mark.parametrize(
    "headers",
    [
        {"Deprecation": "\x1b[2Jsoon", "Sunset": "evil"},
        {"Sunset": "\x1b[31m", "Link": "<https://developer.atlassian.com.evil.example/>; rel=deprecation"},
        {"Deprecation": "@999999999999999999999999"},
        {"Deprecation": "true"},
    ],
)
def test_an_announcement_that_is_none_is_not_shown(mint: Mint, headers: dict[str, str]) -> None:
    mint.bitbucket.rules.announces = headers
    mint.token()

    assert mint.lines == []


# The REST API.


def test_a_rest_api_that_takes_no_jwt_is_asked_with_a_token(acme: Workspace) -> None:
    acme.bitbucket.rules.rest_takes_jwt = False
    given = answer(acme.get())["password"]

    assert acme.bitbucket.tokens[given].repository == acme.widgets.uuid
    assert acme.bitbucket.tokens[given].scopes == {"repository"}
    (transient,) = [one for one in acme.bitbucket.tokens if one != given]
    assert not any(transient.encode() in path.read_bytes() for path in acme.machine.records())


def test_a_wrong_secret_is_told_as_the_lookups_refusal(acme: Workspace) -> None:
    acme.write_installation(sharedSecret="wrong")

    assert_quits(acme.get(check=False), "does not accept the JWT (401)", "register the app's newest")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_git_gets_with_another_repositorys_token_stays_bounded(acme: Workspace, status: int) -> None:
    """As if a UUID were another repository's: with 401 git erases, asks anew, and so on."""
    gadgets = acme.bitbucket.host_repository("acme/gadgets")
    acme.bitbucket.rules.another_repositorys_token = status
    acme.get()
    for known in acme.bitbucket.tokens.values():
        known.repository = gadgets.uuid
    for _ in range(8 if status == 401 else 2):
        acme.machine.git("ls-remote", acme.url, check=False)
        for known in acme.bitbucket.tokens.values():
            known.repository = gadgets.uuid

    assert acme.bitbucket.mints() <= (6 if status == 401 else 1)


# Refusals are remembered.


def requests_of(acme: Workspace, *options: str, url: str = "", check: bool = False) -> tuple[int, str]:
    """How many requests a `get` makes, and what it says."""
    before = len(acme.bitbucket.helper_requests())
    done = acme.machine.get(url or acme.url, *options, check=check)
    return len(acme.bitbucket.helper_requests()) - before, done.stderr


def test_a_refused_jwt_is_not_tried_again_for_any_repository(acme: Workspace) -> None:
    acme.bitbucket.host_repository("acme/gadgets")
    acme.write_installation(sharedSecret="wrong")
    first, _ = requests_of(acme)
    assert first == 2
    for url in (acme.url, acme.url.replace("widgets", "gadgets")):
        count, said = requests_of(acme, url=url)
        assert count == 0
        assert "401" in said
        assert " s ago" in said
        assert "git-credential-bbjwt token URL asks at once" in said
    # It counts for the same secret alone.
    acme.write_installation()
    assert requests_of(acme)[0] == 2


def test_a_refused_swap_is_remembered_for_that_repository_and_scope(acme: Workspace) -> None:
    gadgets = acme.bitbucket.host_repository("acme/gadgets")
    acme.bitbucket.misbehave("token", Fault(status=400, body=b'{"error": "invalid_grant"}'))
    assert requests_of(acme)[0] == 2
    assert requests_of(acme)[0] == 0
    assert requests_of(acme, "--scope", "pullrequest")[0] > 0
    assert requests_of(acme, url=acme.bitbucket.url(gadgets))[0] == 2


@pytest.mark.parametrize("status", [403, 404])
def test_one_wrong_url_is_nobody_elses_trouble(acme: Workspace, status: int) -> None:
    wrong = acme.url.replace("widgets", "nothing")
    if status == 403:
        acme.bitbucket.misbehave("api", Fault(status=403, body=b"no"))
    assert requests_of(acme, url=wrong)[0] == 1
    assert requests_of(acme, url=wrong)[0] == 0
    assert requests_of(acme, check=True)[0] == 2


def test_410_is_remembered_for_the_installation(acme: Workspace) -> None:
    acme.bitbucket.host_repository("acme/gadgets")
    acme.bitbucket.rules.gone = True
    assert requests_of(acme)[0] == 1
    assert requests_of(acme, url=acme.url.replace("widgets", "gadgets"))[0] == 0


@pytest.mark.parametrize("kind", ["api", "token"])
def test_an_allowance_that_is_used_up_is_remembered_for_its_kind_of_request(acme: Workspace, kind: str) -> None:
    used_up = Fault(status=429, body=b"Rate limit for this resource has been exceeded")
    acme.bitbucket.misbehave(kind, used_up, used_up)
    assert requests_of(acme)[0] == (2 if kind == "api" else 3)
    count, said = requests_of(acme)
    assert count == 0
    assert "429" in said


def test_other_refusals_are_not_remembered(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(status=500), Fault(status=429, headers={"Retry-After": "999999"}))
    assert requests_of(acme)[0] == 1
    assert requests_of(acme)[0] == 1
    assert requests_of(acme, check=True)[0] == 2


def test_a_refusal_is_over_after_half_a_minute_and_not_prolonged(acme: Workspace) -> None:
    acme.write_installation(sharedSecret="wrong")
    requests_of(acme)
    (remembered,) = refusals(acme.machine)
    os.utime(remembered, (time.time() - 25, time.time() - 25))
    assert requests_of(acme)[0] == 0
    assert time.time() - remembered.stat().st_mtime > 20
    os.utime(remembered, (time.time() - 31, time.time() - 31))
    assert requests_of(acme)[0] == 2


def refusals(machine: Machine) -> list[Path]:
    """The files of the refusals that are remembered."""
    return sorted((machine.runtime / "git-credential-bbjwt/refusals").glob("*"))


def test_a_person_asks_anew_and_success_ends_it(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(status=403, body=b"no"))
    requests_of(acme)
    assert requests_of(acme)[0] == 0
    assert "password" in answer(token(acme))
    assert refusals(acme.machine) == []
    assert requests_of(acme, "--token-store=none", check=True)[0] == 2


def test_within_a_command_of_many_a_refusal_counts_for_the_others(acme: Workspace) -> None:
    urls = [acme.bitbucket.url(acme.bitbucket.host_repository(f"acme/x{n}", path=acme.widgets.path)) for n in range(60)]
    acme.write_installation(sharedSecret="wrong")
    done = acme.machine.bbjwt("token", *urls, check=False)

    assert done.returncode == 1
    assert len(acme.bitbucket.helper_requests()) <= 2 * SIDE_BY_SIDE


def test_a_kept_token_is_served_all_the_same(acme: Workspace) -> None:
    given = answer(acme.get())["password"]
    acme.bitbucket.rules.gone = True
    acme.get("--token-store=none", check=False)
    assert refusals(acme.machine)

    assert answer(acme.get())["password"] == given


def test_forget_drops_refusals_and_no_store_keeps_them_too(acme: Workspace) -> None:
    acme.write_installation(sharedSecret="wrong")
    requests_of(acme, "--token-store=none")
    (remembered,) = refusals(acme.machine)
    assert requests_of(acme, "--token-store=none")[0] == 0
    assert acme.app.shared_secret not in remembered.read_text()
    assert remembered.stat().st_mode & 0o777 == 0o600
    acme.machine.bbjwt("forget", acme.url)
    assert refusals(acme.machine) == []


def test_a_thousand_are_remembered_at_most(acme: Workspace) -> None:
    acme.write_installation(sharedSecret="wrong")
    requests_of(acme)
    (remembered,) = refusals(acme.machine)
    for number in range(1200):
        (remembered.parent / f"{number:032x}").write_bytes(b"{}")
    remembered.unlink()
    requests_of(acme)

    assert len(refusals(acme.machine)) <= 1000
    assert requests_of(acme)[0] == 0


# A repository's UUID is remembered.


def test_a_mint_anew_asks_both_at_once(acme: Workspace) -> None:
    acme.get()
    acme.bitbucket.misbehave("api", Fault(delay=2))
    acme.bitbucket.misbehave("token", Fault(delay=2))
    assert "password" in answer(erased(acme))

    one, other = acme.bitbucket.helper_requests()[2:]
    assert max(one.received, other.received) < min(one.answered, other.answered)


def test_a_slug_that_is_another_repository_now_gets_no_token_of_the_old_one(acme: Workspace) -> None:
    acme.get()
    old = acme.widgets
    acme.bitbucket.rename(old, "gone")
    old.old_slugs.clear()
    acme.widgets = acme.bitbucket.host_repository("acme/widgets", path=old.path)
    given = answer(erased(acme))["password"]

    assert acme.bitbucket.tokens[given].repository == acme.widgets.uuid != old.uuid
    assert len(acme.bitbucket.helper_requests()) == 2 + 3
    assert "password" in answer(erased(acme))
    assert len(acme.bitbucket.helper_requests()) == 2 + 3 + 2


def test_a_404_drops_the_remembered_uuid(acme: Workspace) -> None:
    acme.get()
    assert uuids(acme.machine)
    acme.bitbucket.repositories.clear()
    assert "404" in erased_quietly(acme)
    assert uuids(acme.machine) == []


def erased_quietly(acme: Workspace) -> str:
    acme.machine.bbjwt("erase", data=request(acme.url) + "\n")
    return acme.get(check=False).stderr


def uuids(machine: Machine) -> list[Path]:
    return list((machine.home / ".cache/git-credential-bbjwt").glob("??/??/*~uuid"))


def test_remembered_uuid_that_is_too_old_is_not_used(acme: Workspace) -> None:
    acme.get()
    (remembered,) = uuids(acme.machine)
    os.utime(remembered, (time.time() - 31 * 86_400,) * 2)
    acme.bitbucket.misbehave("api", Fault(status=403, body=b"no"))
    erased_quietly(acme)

    assert len(acme.bitbucket.helper_requests()) == 3  # No swap went ahead of the look-up.


def test_a_clock_that_is_off_with_both_requests_under_way(acme: Workspace) -> None:
    acme.get()
    acme.bitbucket.clock_offset = -7200
    done = erased(acme)

    assert "password" in answer(done)
    assert done.stderr.count("Set the clock") == 1
    assert len(acme.bitbucket.helper_requests()) <= 2 + 4


# Minted anew at most five times in five minutes.


def refuse(acme: Workspace, token: str) -> None:
    """Erase ``token`` as git does when the server refuses it."""
    acme.machine.bbjwt("erase", data=request(acme.url) + f"username=x\npassword={token}\n\n")


def test_server_that_refuses_every_token_gets_six_and_then_git_is_told_to_quit(acme: Workspace) -> None:
    given = []
    for _ in range(6):
        given.append(answer(acme.get())["password"])
        refuse(acme, given[-1])

    assert len(set(given)) == acme.bitbucket.mints() == 6
    assert_quits(acme.get(check=False), "refuses every token for acme/widgets")
    assert_quits(acme.get(check=False), "no other token for ")
    gadgets = acme.bitbucket.host_repository("acme/gadgets")
    assert "password" in answer(acme.machine.get(acme.bitbucket.url(gadgets)))
    # After 30 s the newest is handed out again, unchanged; once it is named as refused, the 30 s begin again.
    closed = until_opened(acme)
    state = state_of(acme.get(extra="capability[]=state\n"))
    assert answer(acme.get())["password"] == given[-1]
    assert_quits(acme.get(extra=f"capability[]=state\n{state}\n", check=False), "has refused 5 tokens")
    assert closed.exists()
    assert_quits(acme.get(check=False), "refuses every token")
    # An erase that names no token asks for another one.
    assert answer(erased(acme))["password"] not in given


def until_opened(acme: Workspace) -> Path:
    """Let 30 s pass for a closed repository; return the file that notes it."""
    (closed,) = (acme.machine.runtime / "git-credential-bbjwt").glob("??/??/*~closed")
    os.utime(closed, (time.time() - 31,) * 2)
    return closed


# Workspaces.


def test_register_asks_for_the_slug_by_the_workspaces_uuid(acme: Workspace) -> None:
    acme.write_personal_installation()
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)

    assert json.loads(acme.machine.bbjwt("list", "--json").stdout)[0]["workspaces"] == ["acme"]
    assert "password" in answer(acme.get())
    (asked,) = [one for one in acme.bitbucket.seen if "workspaces" in one.path]
    assert asked.path.startswith("/2.0/workspaces/")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(change=lambda found: found | {"slug": "../evil"}),
    ],
)
def test_register_says_what_to_do_where_the_slug_is_not_told(acme: Workspace, fault: Fault) -> None:
    acme.write_personal_installation()
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.bitbucket.misbehave("api", fault)
    done = acme.machine.bbjwt("register", "--insecure-storage", acme.installation, check=False)

    assert done.returncode == 1
    assert "--workspace SLUG" in done.stderr
    assert not registry_of(acme.machine).exists()


def test_doctor_notices_a_workspace_whose_slug_has_changed(acme: Workspace) -> None:
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    assert "workspace" not in checks(acme.machine)
    acme.app.workspace = "acme-inc"
    found = checks(acme.machine)["workspace"]

    assert not found["ok"]
    assert "acme-inc" in found["detail"]
    assert "--workspace acme-inc" in found["remedy"]


# LFS, and what doctor knows of it.


def test_doctor_names_the_cure_for_lfs_and_sees_a_revoked_token(acme: Workspace) -> None:
    found = checks(acme.machine, acme.url)
    cure = f"git config lfs.{acme.bitbucket.base_url}/acme/widgets.git/info/lfs.access basic"
    assert cure in found["lfs"]["remedy"]
    assert "BBJWT_TRACE=/FILE" in found["trace"]["remedy"]
    assert "cached token" not in found
    acme.get()
    assert checks(acme.machine, acme.url)["cached token"]["ok"]
    acme.bitbucket.revoke_tokens()
    revoked = checks(acme.machine, acme.url)["cached token"]
    assert not revoked["ok"]
    assert f"forget {acme.bitbucket.base_url}/acme/widgets" in revoked["remedy"]
