"""The mint: what is sent, what is believed of the answers, what is tried again, and what a person reads."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from git_credential_bbjwt.bitbucket.assertion import query_string_hash
from git_credential_bbjwt.bitbucket.responses import checked_token
from git_credential_bbjwt.network.response import Response
from tests.conftest import LATE, Workspace, answer
from tests.emulator import Fault
from tests.emulator.jwt import query_string_hash as query_string_hash_of_the_emulator


def assert_quits(done: Any, *words: str) -> None:
    """Git is told to quit, and a person reads one error and one hint that hold ``words``."""
    assert "password" not in done.stdout, done.stderr
    assert (done.stdout, done.returncode) == ("quit=1\n", 1), done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("git-credential-bbjwt: error: ")
    assert hint.startswith("hint: ")
    for word in words:
        assert word in done.stderr, done.stderr


def answers(**changes: Any) -> Fault:
    """A swap that answers with other values; None leaves a field out."""

    def change(good: dict[str, Any]) -> dict[str, Any]:
        changed = good | changes
        return {name: value for name, value in changed.items() if value is not None}

    return Fault(change=change)


# What may be believed.

UNUSABLE: dict[str, Fault] = {
    "no token": answers(access_token=None),
    "empty token": answers(access_token=""),
    "token is a number": answers(access_token=5),
    "line break in the token": answers(access_token="abc\nhost=evil.example"),
    "carriage return in the token": answers(access_token="abc\rdef"),
    "NUL in the token": answers(access_token="abc\0"),
    "space in the token": answers(access_token="abc def"),
    "letters beyond ASCII in the token": answers(access_token="abcé"),
    "escape in the token": answers(access_token="abc\x1b[2J"),
    "a huge token": answers(access_token="a" * 20_000),
    "no type": answers(token_type=None),
    "another type": answers(token_type="mac"),
    "type is a list": answers(token_type=["bearer"]),
    "broader scopes": answers(scopes="repository repository:write"),
    "other scopes": answers(scopes="account"),
    "broader scope": answers(scopes="repository", scope="repository:admin"),
    "scopes are a list with a number in it": answers(scopes=["repository", 5]),
    "a list of broader scopes": answers(scopes=["repository", "repository:write"]),
    "scope is an object": answers(scope={"repository": True}),
    "lifetime is text": answers(expires_in="7200"),
    "lifetime is true": answers(expires_in=True),
    "lifetime is broken": answers(expires_in=7200.5),
    "lifetime is over": answers(expires_in=0),
    "lifetime is negative": answers(expires_in=-1),
    "an array": Fault(change=lambda good: [good]),
    "a string": Fault(status=200, body=b'"token"'),
    "null": Fault(status=200, body=b"null"),
    "nothing": Fault(status=200, body=b""),
    "not JSON": Fault(status=200, body=b"access_token=abc&token_type=bearer"),
    "HTML": Fault(status=200, body=b"<html><title>Login</title></html>"),
    "not UTF-8": Fault(status=200, body=b'{"access_token": "\xff\xfe"}'),
    "deep": Fault(status=200, body=b"[" * 200_000),
    "over 1 MiB": Fault(status=200, body=b" " * (1024 * 1024) + b"{}"),
    "created": Fault(status=201, body=b'{"access_token": "abc", "token_type": "bearer"}'),
    "no content": Fault(status=204),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_nothing_is_taken_from_an_answer_that_is_not_right(acme: Workspace, name: str) -> None:
    acme.bitbucket.misbehave("token", UNUSABLE[name])

    assert_quits(acme.get(check=False))
    assert acme.machine.records() == []


USABLE: dict[str, Fault] = {
    "type in another case": answers(token_type="Bearer"),
    "no scopes": answers(scopes=None),
    "empty scopes": answers(scopes=""),
    "RFC 6749's scope": answers(scopes=None, scope="repository"),
    "scopes are a list": answers(scopes=["repository"]),
    "scope is a list": answers(scopes=None, scope=["repository"]),
    "Atlassian's newer spelling": answers(scopes=None, scope="read:repository:bitbucket"),
    "unknown fields": answers(refresh_token="x", state="client_credentials"),
}


@pytest.mark.parametrize("name", USABLE)
def test_what_is_right_enough_is_taken(acme: Workspace, name: str) -> None:
    acme.bitbucket.misbehave("token", USABLE[name])

    assert "password" in answer(acme.get())


@pytest.mark.parametrize(("stated", "believed"), [(3600, 3600), (None, 3600), (60, 60), (10**9, 86_400)])
def test_the_lifetime_is_the_one_stated(acme: Workspace, stated: int | None, believed: int) -> None:
    acme.bitbucket.misbehave("token", answers(expires_in=stated))
    before = int(time.time())
    expires = int(answer(acme.get())["password_expiry_utc"])

    assert before <= expires - believed <= time.time()


@pytest.mark.parametrize(
    ("asked", "granted", "taken"),
    [
        ("repository:write", "repository repository:write", True),
        ("repository:write", "repository:write repository:admin", False),
        ("pullrequest", "pullrequest repository", True),
        ("repository", "pullrequest", False),
        ("repository account", "account repository", True),
    ],
)
def test_a_scope_may_bring_along_what_it_implies(acme: Workspace, asked: str, granted: str, taken: bool) -> None:
    acme.app.scopes = set(asked.split())
    acme.bitbucket.misbehave("token", answers(scopes=granted))
    done = acme.get("--scope", asked, check=False)

    assert ("password" in answer(done)) == taken


UNUSABLE_LOOKUPS: dict[str, Fault] = {
    "no UUID": Fault(change=lambda good: {"full_name": good["full_name"]}),
    "UUID without braces": Fault(change=lambda good: good | {"uuid": good["uuid"][1:-1]}),
    "UUID is a slug": Fault(change=lambda good: good | {"uuid": "widgets"}),
    "UUID with a line break": Fault(change=lambda good: good | {"uuid": good["uuid"] + "\n"}),
    "another repository": Fault(change=lambda good: good | {"full_name": "acme/gadgets"}),
    "another workspace": Fault(change=lambda good: good | {"full_name": "beta/widgets"}),
    "not JSON": Fault(status=200, body=b"{"),
    "an array": Fault(change=lambda good: [good]),
    "over 1 MiB": Fault(status=200, body=b" " * (1024 * 1024 + 1)),
}


@pytest.mark.parametrize("name", UNUSABLE_LOOKUPS)
def test_no_token_is_asked_for_a_repository_that_is_not_certain(acme: Workspace, name: str) -> None:
    acme.bitbucket.misbehave("api", UNUSABLE_LOOKUPS[name])

    assert_quits(acme.get(check=False))
    assert acme.bitbucket.mints() == 0


# What a person reads.


def test_no_access_to_the_repository(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(status=403, body=b"Your credentials lack access."))

    assert_quits(acme.get(check=False), "403", "access")


@pytest.mark.parametrize("kind", ["api", "token"])
def test_an_hours_allowance_that_is_used_up_is_tried_once_more(acme: Workspace, kind: str) -> None:
    text = b"Rate limit for this resource has been exceeded"
    acme.bitbucket.misbehave(kind, *[Fault(status=429, body=text) for _ in range(5)])

    assert_quits(acme.get(check=False), "429", "allowance")
    assert len([seen for seen in acme.bitbucket.helper_requests() if seen.status == 429]) == 2


def personal(acme: Workspace) -> None:
    """Give acme a personal workspace's payload: it names the workspace by its UUID alone."""
    acme.write_installation(principal={"type": "user", "uuid": acme.app.workspace_uuid, "display_name": "A"})


def test_a_personal_workspaces_payload_serves_its_own_workspace(acme: Workspace) -> None:
    personal(acme)
    acme.machine.git("clone", "-q", acme.url, "w")

    assert len(acme.bitbucket.helper_requests()) == 2


@pytest.mark.parametrize("fault", [None, Fault(status=403, body=b"no")])
@pytest.mark.parametrize("there", [True, False])
def test_a_personal_workspaces_payload_is_silent_about_others(
    acme: Workspace, fault: Fault | None, there: bool
) -> None:
    personal(acme)
    if there:
        acme.bitbucket.host_repository("beta/tools")
    if fault is not None:
        acme.bitbucket.misbehave("api", fault)
    done = acme.machine.get(acme.url.replace("acme/widgets", "beta/tools"))

    assert (done.stdout, done.stderr) == ("", "")
    assert acme.bitbucket.mints() == 0


def test_a_workspace_that_is_another_by_its_uuid_is_not_ours(acme: Workspace) -> None:
    personal(acme)
    other = Fault(change=lambda good: good | {"workspace": {"uuid": "{00000000-0000-0000-0000-000000000000}"}})
    acme.bitbucket.misbehave("api", other)
    done = acme.get()
    assert (done.stdout, done.stderr) == ("", "")

    acme.write_installation()
    acme.bitbucket.misbehave("api", other)
    assert_quits(acme.get(check=False), "another workspace", "slug")


@pytest.mark.parametrize("fault", [Fault(status=401, body=b"no"), Fault(status=410), Fault(status=500)])
def test_what_cannot_be_decided_is_said_and_left_to_other_helpers(acme: Workspace, fault: Fault) -> None:
    personal(acme)
    acme.bitbucket.misbehave("api", fault)
    acme.bitbucket.misbehave("token", fault)  # A refused look-up is tried with a token, if there is one.
    done = acme.get(check=False)

    assert (done.stdout, done.returncode) == ("", 1)
    assert "git-credential-bbjwt: error: " in done.stderr
    assert done.stderr.splitlines()[-1].startswith("hint: ")


def test_no_such_repository(acme: Workspace) -> None:
    assert_quits(acme.machine.get(acme.url.replace("widgets", "nothing"), check=False), "404", "renamed")


@pytest.mark.parametrize("redirects", [False, True])
def test_a_renamed_repository(acme: Workspace, redirects: bool) -> None:
    acme.bitbucket.rules.rename_redirects = redirects
    url = acme.url
    acme.bitbucket.rename(acme.widgets, "gizmos")

    assert_quits(acme.machine.get(url, check=False), "renamed", "URL")


def test_a_missing_scope_is_passed_on(acme: Workspace) -> None:
    acme.app.scopes = {"account"}

    assert_quits(acme.get(check=False), "privilege scopes", "required: repository", "granted: account")


def test_a_scope_the_app_does_not_have(acme: Workspace) -> None:
    assert_quits(acme.get("--scope", "repository:write", check=False), "invalid_scope", "--scope")


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("code", ["invalid_grant", "unauthorized_client", "unsupported_grant_type"])
def test_a_refused_grant_names_the_end_of_connect(acme: Workspace, status: int, code: str) -> None:
    body = json.dumps({"error": code, "error_description": "no more"}).encode()
    acme.bitbucket.misbehave("token", Fault(status=status, body=body))

    assert_quits(acme.get(check=False), code, "no more", "register", "ended Connect")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 418, 500, 501])
@pytest.mark.parametrize("kind", ["api", "token"])
def test_other_errors_are_not_tried_again(acme: Workspace, kind: str, status: int) -> None:
    acme.bitbucket.misbehave(kind, Fault(status=status, body=b"Not <today>\r\n\x1b[31m"))
    # A look-up by a JWT that is not accepted is tried by a token, once, if there is one.
    acme.bitbucket.misbehave("token", Fault(status=400, body=b"no"))
    done = acme.get(check=False)

    assert_quits(done, str(status))
    assert "\x1b" not in done.stderr
    assert len(acme.bitbucket.helper_requests()) == (1 if kind == "api" and status != 401 else 2)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
@pytest.mark.parametrize("kind", ["api", "token"])
def test_no_redirect_is_followed(acme: Workspace, kind: str, status: int) -> None:
    location = f"{acme.bitbucket.base_url}/evil\r?token=1"
    acme.bitbucket.misbehave(kind, Fault(status=status, headers={"Location": location.replace("\r", "")}))

    assert_quits(acme.get(check=False), "redirect", "never followed")
    assert len(acme.bitbucket.helper_requests()) == (1 if kind == "api" else 2)
    assert not any("evil" in seen.path for seen in acme.bitbucket.seen)


# What is tried again.

PASSING: dict[str, Fault] = {
    "reset": Fault(reset=True),
    "truncated": Fault(truncate=True),
    **{str(status): Fault(status=status) for status in (429, 502, 503, 504)},
    "Retry-After in seconds": Fault(status=429, headers={"Retry-After": "1"}),
}


@pytest.mark.parametrize(("name", "times"), [*((name, 1) for name in PASSING), ("reset", 3), ("503", 3)])
@pytest.mark.parametrize("kind", ["api", "token"])
def test_what_may_pass_is_tried_again(acme: Workspace, kind: str, name: str, times: int) -> None:
    # The good answer comes late enough that the helper has to wait for it.
    acme.bitbucket.misbehave(kind, *[PASSING[name]] * times, Fault(delay=0.1))

    assert "password" in answer(acme.get())
    assert len(acme.bitbucket.helper_requests()) == 2 + times


def test_each_request_has_these_headers_and_no_others(acme: Workspace) -> None:
    acme.get()
    look_up, swap = acme.bitbucket.helper_requests()
    both = {"Accept", "Accept-Encoding", "Authorization", "Host", "User-Agent"}

    assert set(look_up.headers) == both
    assert set(swap.headers) == both | {"Content-Length", "Content-Type"}
    assert look_up.headers["User-Agent"].startswith("git-credential-bbjwt/")


def test_each_try_has_a_jwt_of_its_own_request(acme: Workspace) -> None:
    acme.bitbucket.misbehave("token", Fault(status=503, headers={"Retry-After": "1"}))
    acme.get()
    _, first, second = acme.bitbucket.helper_requests()

    assert second.claims["iat"] >= second.claims["exp"] - 180
    assert second.status == 200
    assert first.status == 503


def test_retry_after_in_seconds_is_waited_for(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(status=429, headers={"Retry-After": "2"}))
    done = acme.get("--verbose")

    assert "password" in answer(done)
    assert "status 429; next attempt in 2.0 s" in done.stderr


def test_retry_after_as_a_date_is_held_against_the_servers_clock(acme: Workspace) -> None:
    acme.bitbucket.clock_offset = 3600
    value = formatdate(time.time() + 3600 + 60, usegmt=True)
    acme.bitbucket.misbehave("api", Fault(status=429, headers={"Retry-After": value}))
    done = acme.get("--timeout=20", check=False)

    assert_quits(done, "429", "asks to wait")
    waits = re.search(r"asks to wait (\d+) s", done.stderr)
    assert waits is not None
    assert 0 < int(waits[1]) <= 60


@pytest.mark.parametrize("value", ["86400", "999999999999999999999", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_retry_after_beyond_the_budget_fails_at_once(acme: Workspace, value: str) -> None:
    acme.bitbucket.misbehave("token", Fault(status=429, headers={"Retry-After": value}))

    # With the largest budget there is: a test waits for no process so long.
    assert_quits(acme.get("--timeout=3600", check=False), "429", "asks to wait")
    assert len(acme.bitbucket.helper_requests()) == 2


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "٣"])
def test_a_retry_after_that_is_none_is_ignored(acme: Workspace, value: str) -> None:
    acme.bitbucket.misbehave("token", Fault(status=503, headers={"Retry-After": value.encode().decode("latin-1")}))

    assert "password" in answer(acme.get())


def test_a_server_that_stays_overloaded_is_given_up(acme: Workspace) -> None:
    acme.bitbucket.misbehave("token", *[Fault(status=503)] * 20)

    assert_quits(acme.get(check=False), "503")
    assert len(acme.bitbucket.helper_requests()) == 6


# The budget.

SLOW: dict[str, Callable[[], Fault]] = {
    "silent": lambda: Fault(delay=30),
    "dripping": lambda: Fault(drip=0.5),
    "overloaded": lambda: Fault(status=503, headers={"Retry-After": "1"}, delay=5),
}


@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("kind", ["api", "token"])
def test_the_budget_bounds_the_whole_call(acme: Workspace, kind: str, name: str) -> None:
    acme.bitbucket.misbehave(kind, *[SLOW[name]() for _ in range(9)])
    started = time.monotonic()

    assert_quits(acme.get("--timeout", "2", check=False))
    assert time.monotonic() - started < 2 + LATE


def test_a_long_wait_is_told(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=3.5))
    done = acme.get()

    assert "password" in answer(done)
    assert done.stderr == f"git-credential-bbjwt: still waiting for {acme.bitbucket.base_api_url[8:]}\n"


# The clock.


@pytest.mark.parametrize("offset", [-7200, -45, 45, 7200])
def test_a_clock_that_is_off_is_noticed_and_worked_around(acme: Workspace, offset: int) -> None:
    acme.bitbucket.clock_offset = offset
    done = acme.get(check=False)
    seen = acme.bitbucket.helper_requests()

    if offset == 45:
        # Ours is behind by less than a JWT lives: nothing is refused.
        assert [one.status for one in seen] == [200, 200]
        return
    assert "password" in answer(done)
    assert "clock is" in done.stderr
    assert [one.status for one in seen] == [401, 200, 200]
    # The expiry is by this machine's clock, whatever the server's says.
    assert abs(int(answer(done)["password_expiry_utc"]) - time.time() - 7200) < 60


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_clock_that_is_off_is_worked_around_however_the_server_refuses(acme: Workspace, status: int) -> None:
    acme.bitbucket.clock_offset = 45  # Behind by less than a JWT lives: the look-up is answered.
    acme.bitbucket.misbehave("token", Fault(status=status, body=b'{"error": "unauthorized_client"}'))
    done = acme.get()

    assert "password" in answer(done)
    assert "clock is" in done.stderr
    assert [one.status for one in acme.bitbucket.helper_requests()] == [200, status, 200]


def test_a_server_that_closes_each_connection(acme: Workspace) -> None:
    acme.bitbucket.rules.keep_alive = False
    acme.bitbucket.clock_offset = -7200  # Two requests to each origin.

    assert "password" in answer(acme.get())
    assert [one.status for one in acme.bitbucket.helper_requests()] == [401, 200, 200]
    acme.machine.git("ls-remote", acme.url)


def test_a_clock_a_little_off_needs_no_second_try(acme: Workspace) -> None:
    for offset in (-25, 25):
        acme.bitbucket.clock_offset = offset
        assert acme.get("--token-store=none").stderr == ""
    assert [one.status for one in acme.bitbucket.helper_requests()] == [200] * 4


def test_a_refusal_for_another_reason_is_not_tried_again(acme: Workspace) -> None:
    acme.app.shared_secret = "another"
    assert_quits(acme.get(check=False), "401")
    # One of each kind.
    assert [one.origin for one in acme.bitbucket.helper_requests()] == ["api", "base"]


@pytest.mark.parametrize("dated", [True, False])
def test_the_clock_is_named_only_where_it_may_be_the_cause(acme: Workspace, dated: bool) -> None:
    acme.app.shared_secret = "another"
    acme.bitbucket.rules.dates = dated
    done = acme.get(check=False)

    assert_quits(done, "401", "newest `installed` payload")
    assert ("check this machine's clock" in done.stderr) == (not dated)


def test_a_refusal_for_another_reason_with_the_clock_off_is_tried_once(acme: Workspace) -> None:
    acme.app.shared_secret = "another"
    acme.bitbucket.clock_offset = 7200
    assert_quits(acme.get(check=False), "401")
    assert [one.origin for one in acme.bitbucket.helper_requests()] == ["api", "api", "base"]


# The query string hash, by Atlassian's rules.


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("get", "/", []),
        ("GET", "/2.0/repositories/acme/widgets", [("fields", "uuid,full_name")]),
        ("GET", "/a&b/c/", [("b", "2"), ("a", "1"), ("a", "0"), ("jwt", "x")]),
        ("POST", "/site/oauth2/access_token", []),
        ("GET", "/x", [("a b", "c*d~e"), ("é", "ü/+"), ("A", "")]),
    ],
)
def test_query_string_hash(method: str, path: str, query: list[tuple[str, str]]) -> None:
    assert query_string_hash(method, path, query) == query_string_hash_of_the_emulator(method.upper(), path, query)


def test_query_string_hash_of_atlassians_page() -> None:
    # "Understanding JWT for apps", the worked example of a canonical request.
    query = [("zee_last", "param"), ("repeated", "parameter 1"), ("first", "param"), ("repeated", "parameter 2")]
    digest = query_string_hash("GET", "/path/to/service", query)

    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert digest == query_string_hash_of_the_emulator("GET", "/path/to/service", query)


def test_the_shortest_life_there_is_counts() -> None:
    body = b'{"access_token": "abc", "token_type": "bearer", "expires_in": 1}'

    assert checked_token(Response(200, body, {}), "repository", 1000).expires == 1001
