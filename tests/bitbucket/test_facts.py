"""A test for each fact about Bitbucket that the helper depends on; both possibilities if a fact is not certain."""

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
from tests.conftest import Machine, Workspace, answer, assert_quits, registry_of, request, state_of
from tests.emulator import Fault
from tests.mint import Mint

ANNOUNCED = "https://developer.atlassian.com/cloud/bitbucket/changelog/"


# The grant.


def test_the_least_set_of_scopes_is_listed(mint: Mint) -> None:
    mint.app.scopes = {"repository:write"}

    assert mint.token(scope="repository repository:write").token


@pytest.mark.parametrize("may_be_asked", [True, False])
def test_scope_that_another_scope_includes_may_be_requested(acme: Workspace, may_be_asked: bool) -> None:
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
def test_qsh_is_right_even_if_it_is_not_checked(mint: Mint, checked: bool) -> None:
    mint.bitbucket.rules.swap_checks_qsh = mint.bitbucket.rules.rest_checks_qsh = checked

    assert mint.token().token


# The end of the grant.


@pytest.mark.parametrize(("kind", "body"), [("api", "json"), ("token", "text"), ("token", "another page")])
def test_410_is_reported_as_an_end_or_its_rehearsal(acme: Workspace, kind: str, body: str) -> None:
    page = f"{ANNOUNCED}#CHANGE-9999" if body == "json" else "https://evil.example/?https://developer.atlassian.com/"
    error = {"message": "CHANGE-9999 - Functionality has been deprecated", "data": {"announcement_url": page}}
    data = b"CHANGE-9999 - gone" if body == "text" else json.dumps({"type": "error", "error": error}).encode()
    acme.bitbucket.misbehave(kind, Fault(status=410, body=data))
    done = acme.get(check=False)

    assert_quits(done, "ended", "rehearsing", "minutes to hours", "OAuth consumer", "When Connect ends", "CHANGE-9999")
    assert (f"{ANNOUNCED}#CHANGE-9999" in done.stderr) == (body == "json")
    assert "evil.example" not in done.stderr
    assert "uninstall" not in done.stderr


def test_helper_works_again_after_a_brown_out(acme: Workspace) -> None:
    acme.bitbucket.rules.gone = True
    assert_quits(acme.get(check=False), "410")
    assert "410" in acme.machine.git("ls-remote", acme.url, check=False).stderr
    acme.bitbucket.rules.gone = False

    assert "password" in answer(token(acme))
    assert "password" in answer(acme.get())  # A person's successful request has ended the memory.


def token(acme: Workspace) -> Any:
    """Request a token as a person; return it as git would read it."""
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


def test_announced_end_is_shown_only_by_doctor(acme: Workspace) -> None:
    acme.bitbucket.rules.announces = HEADERS
    assert acme.get().stderr == ""
    shown = checks(acme.machine, acme.url)["announcement"]

    assert shown["ok"]
    assert time.strftime("%Y-%m-%d", time.gmtime(ENDS)) in shown["detail"]
    assert f"{ANNOUNCED}#x" in shown["detail"]
    assert "evil" not in shown["detail"]


def erased(acme: Workspace) -> Any:
    """Erase the token, so that the next request mints a new one."""
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
def test_invalid_announcement_is_not_shown(mint: Mint, headers: dict[str, str]) -> None:
    mint.bitbucket.rules.announces = headers
    mint.token()

    assert mint.lines == []


# The REST API.


def test_look_up_uses_a_token_if_the_rest_api_accepts_no_jwt(acme: Workspace) -> None:
    acme.bitbucket.rules.rest_takes_jwt = False
    given = answer(acme.get())["password"]

    assert acme.bitbucket.tokens[given].repository == acme.widgets.uuid
    assert acme.bitbucket.tokens[given].scopes == {"repository"}
    (transient,) = [one for one in acme.bitbucket.tokens if one != given]
    assert not any(transient.encode() in path.read_bytes() for path in acme.machine.records())


def test_wrong_secret_is_reported_as_the_look_ups_refusal(acme: Workspace) -> None:
    acme.write_installation(sharedSecret="wrong")

    replace = f"replace the payload in {acme.installation} with the app's newest"
    assert_quits(acme.get(check=False), "does not accept the JWT (401)", replace)
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    again = "register the app's newest `installed` payload: git-credential-bbjwt register --insecure-storage FILE"
    assert_quits(acme.get(check=False), "does not accept the JWT (401)", again)


@pytest.mark.parametrize("prefix", ["JWT ", '"', "Authorization: JWT "])
def test_jwt_from_elsewhere_that_is_none_or_is_refused_needs_a_new_jwt(acme: Workspace, prefix: str) -> None:
    jwt = acme.machine.bbjwt("jwt", "acme").stdout.strip()
    new = "get a new JWT on the machine with the secret: git-credential-bbjwt jwt WORKSPACE"

    assert_quits(acme.get(check=False, BBJWT_JWT=prefix + jwt), "BBJWT_JWT does not contain a JWT", new)
    assert acme.bitbucket.seen == []
    assert_quits(acme.get(check=False, BBJWT_JWT=jwt[:-4] + "aaaa"), "refused to swap the JWT for a token (401)", new)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_tokens_of_another_repository_lead_to_few_requests(acme: Workspace, status: int) -> None:
    """If a UUID belongs to another repository and git gets 401, git erases the token and asks again."""
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
    """Return the number of requests that a `get` makes, and its standard error."""
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
    # The refusal applies only to the same secret.
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
def test_refusal_of_one_wrong_url_does_not_stop_others(acme: Workspace, status: int) -> None:
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


def test_refusal_is_remembered_for_30_seconds_and_not_extended(acme: Workspace) -> None:
    acme.write_installation(sharedSecret="wrong")
    requests_of(acme)
    (remembered,) = refusals(acme.machine)
    os.utime(remembered, (time.time() - 25, time.time() - 25))
    assert requests_of(acme)[0] == 0
    assert time.time() - remembered.stat().st_mtime > 20
    os.utime(remembered, (time.time() - 31, time.time() - 31))
    assert requests_of(acme)[0] == 2


def refusals(machine: Machine) -> list[Path]:
    """Return the files of the remembered refusals."""
    return sorted((machine.runtime / "git-credential-bbjwt/refusals").glob("*"))


def test_persons_request_ignores_refusals_and_success_ends_them(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(status=403, body=b"no"))
    requests_of(acme)
    assert requests_of(acme)[0] == 0
    assert "password" in answer(token(acme))
    assert refusals(acme.machine) == []
    assert requests_of(acme, "--token-store=none", check=True)[0] == 2


def test_refusal_within_a_command_of_many_urls_stops_the_others(acme: Workspace) -> None:
    urls = [acme.bitbucket.url(acme.bitbucket.host_repository(f"acme/x{n}", path=acme.widgets.path)) for n in range(60)]
    acme.write_installation(sharedSecret="wrong")
    done = acme.machine.bbjwt("token", *urls, check=False)

    assert done.returncode == 1
    assert len(acme.bitbucket.helper_requests()) <= 2 * SIDE_BY_SIDE


def test_cached_token_is_returned_despite_a_refusal(acme: Workspace) -> None:
    given = answer(acme.get())["password"]
    acme.bitbucket.rules.gone = True
    acme.get("--token-store=none", check=False)
    assert refusals(acme.machine)

    assert answer(acme.get())["password"] == given


def test_forget_drops_refusals_that_are_kept_without_a_token_store(acme: Workspace) -> None:
    acme.write_installation(sharedSecret="wrong")
    requests_of(acme, "--token-store=none")
    (remembered,) = refusals(acme.machine)
    assert requests_of(acme, "--token-store=none")[0] == 0
    assert acme.app.shared_secret not in remembered.read_text()
    assert remembered.stat().st_mode & 0o777 == 0o600
    acme.machine.bbjwt("forget", acme.url)
    assert refusals(acme.machine) == []


def test_at_most_a_thousand_refusals_are_remembered(acme: Workspace) -> None:
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


def test_mint_with_a_remembered_uuid_sends_both_requests_at_once(acme: Workspace) -> None:
    acme.get()
    acme.bitbucket.misbehave("api", Fault(delay=2))
    acme.bitbucket.misbehave("token", Fault(delay=2))
    assert "password" in answer(erased(acme))

    one, other = acme.bitbucket.helper_requests()[2:]
    assert max(one.received, other.received) < min(one.answered, other.answered)


def test_name_that_moved_to_another_repository_gets_no_token_for_the_old_one(acme: Workspace) -> None:
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

    assert len(acme.bitbucket.helper_requests()) == 3  # No swap was sent together with the look-up.


def test_clock_that_is_off_while_both_requests_run(acme: Workspace) -> None:
    acme.get()
    acme.bitbucket.clock_offset = -7200
    done = erased(acme)

    assert "password" in answer(done)
    assert done.stderr.count("Set the clock") == 1
    assert len(acme.bitbucket.helper_requests()) <= 2 + 4


# A refused token is replaced at most five times in five minutes.


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
    # After 30 s, the newest token is returned again. If git names it as refused, the 30 s begin again.
    closed = until_opened(acme)
    state = state_of(acme.get(extra="capability[]=state\n"))
    assert answer(acme.get())["password"] == given[-1]
    assert_quits(acme.get(extra=f"capability[]=state\n{state}\n", check=False), "has refused 5 tokens")
    assert closed.exists()
    assert_quits(acme.get(check=False), "refuses every token")
    # After an erase without a token, the helper gets another token.
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
def test_register_names_the_option_if_bitbucket_does_not_return_the_slug(acme: Workspace, fault: Fault) -> None:
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


# LFS, and doctor's hint about it.


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
