"""The mint: its requests, the failures that are retried, and the errors that a person reads."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest

from git_credential_bbjwt.bitbucket.assertion import query_string_hash
from tests.conftest import Workspace, answer, assert_quits, ends_within, start
from tests.emulator import Fault
from tests.emulator.jwt import query_string_hash as query_string_hash_of_the_emulator
from tests.mint import Mint

# Responses that are accepted: `test_answers` has all cases.


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("token", Fault(change=lambda good: good | {"access_token": "abc\nhost=evil.example"})),
        ("token", Fault(status=200, body=b"access_token=abc&token_type=bearer")),
        ("token", Fault(status=201, body=b'{"access_token": "abc", "token_type": "bearer"}')),
        ("api", Fault(change=lambda good: good | {"full_name": "acme/gadgets"})),
    ],
)
def test_unusable_response_makes_git_quit_and_leaves_no_record(acme: Workspace, kind: str, fault: Fault) -> None:
    acme.bitbucket.misbehave(kind, fault)

    assert_quits(acme.get(check=False))
    assert acme.machine.records() == []
    assert len(acme.bitbucket.helper_requests()) == (1 if kind == "api" else 2)


@pytest.mark.parametrize("kind", ["api", "token"])
def test_body_over_1_mib_is_not_read(mint: Mint, kind: str) -> None:
    mint.bitbucket.misbehave(kind, Fault(status=200, body=b" " * (1024 * 1024) + b"{}"))

    assert "longer than 1048576 bytes" in mint.error().what


# Errors.


@pytest.mark.parametrize("kind", ["api", "token"])
def test_used_up_allowance_is_tried_once_more(mint: Mint, kind: str) -> None:
    text = b"Rate limit for this resource has been exceeded"
    mint.bitbucket.misbehave(kind, *[Fault(status=429, body=text) for _ in range(5)])

    assert "429: too many requests; the hour's allowance is used up" in mint.error().what
    assert mint.statuses().count(429) == 2


def test_personal_workspaces_payload_serves_its_own_workspace(acme: Workspace) -> None:
    acme.write_personal_installation()
    acme.machine.git("clone", "-q", acme.url, "w")

    assert len(acme.bitbucket.helper_requests()) == 2


@pytest.mark.parametrize("is_there", [True, False])
def test_personal_workspaces_payload_is_silent_about_others(acme: Workspace, is_there: bool) -> None:
    acme.write_personal_installation()
    if is_there:
        acme.bitbucket.host_repository("beta/tools")
        acme.bitbucket.misbehave("api", Fault(status=403, body=b"no"))
    done = acme.machine.get(acme.url.replace("acme/widgets", "beta/tools"))

    assert (done.stdout, done.stderr) == ("", "")
    assert acme.bitbucket.mints() == 0


def test_look_up_with_another_workspaces_uuid_is_an_error_only_if_the_payload_names_the_slug(acme: Workspace) -> None:
    acme.write_personal_installation()
    other = Fault(change=lambda good: good | {"workspace": {"uuid": "{00000000-0000-0000-0000-000000000000}"}})
    acme.bitbucket.misbehave("api", other, other)
    done = acme.get()
    assert (done.stdout, done.stderr) == ("", "")
    assert "in another workspace" in acme.get("--verbose").stderr

    acme.write_installation()
    acme.bitbucket.misbehave("api", other)
    assert_quits(acme.get(check=False), "another workspace", "slug")


@pytest.mark.parametrize(
    "fault",
    [Fault(status=401, body=b"no"), Fault(status=410), Fault(status=500), Fault(status=200, body=b"<html>")],
)
def test_undecided_look_up_is_an_error_and_left_to_other_helpers(acme: Workspace, fault: Fault) -> None:
    acme.write_personal_installation()
    acme.bitbucket.misbehave("api", fault)
    acme.bitbucket.misbehave("token", fault)  # A refused look-up is sent again with a token, if there is one.
    done = acme.get(check=False)

    assert (done.stdout, done.returncode) == ("", 1)
    assert "git-credential-bbjwt: error: " in done.stderr
    assert done.stderr.splitlines()[-1].startswith("hint: ")


def test_no_such_repository(acme: Workspace) -> None:
    assert_quits(acme.machine.get(acme.url.replace("widgets", "nothing"), check=False), "404", "renamed")


@pytest.mark.parametrize("redirects", [False, True])
def test_renamed_repository(mint: Mint, redirects: bool) -> None:
    mint.bitbucket.rules.rename_redirects = redirects
    mint.bitbucket.rename(mint.widgets, "gizmos")

    assert re.search("URL.*renamed|renamed.*URL", mint.error().hint)


def test_missing_scope_is_passed_on(mint: Mint) -> None:
    mint.app.scopes = {"account"}

    assert "privilege scopes. required: repository granted: account" in re.sub("[;,]", "", mint.error().what)


def test_scope_that_the_app_does_not_have(acme: Workspace) -> None:
    assert_quits(acme.get("--scope", "repository:write", check=False), "invalid_scope", "--scope")


def test_refused_grant_names_the_end_of_connect(acme: Workspace) -> None:
    body = json.dumps({"error": "unauthorized_client", "error_description": "no more"}).encode()
    acme.bitbucket.misbehave("token", Fault(status=400, body=body))

    assert_quits(acme.get(check=False), "unauthorized_client", "no more", "register", "ended Connect")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 418, 500, 501])
@pytest.mark.parametrize("kind", ["api", "token"])
def test_other_errors_are_not_tried_again(mint: Mint, kind: str, status: int) -> None:
    mint.bitbucket.misbehave(kind, Fault(status=status, body=b"Not <today>\r\n\x1b[31m"))
    # If the look-up's JWT is not accepted, it is sent again with a token, once, if there is one.
    mint.bitbucket.misbehave("token", Fault(status=400, body=b"no"))

    assert str(status) in mint.error().what
    assert "\x1b" not in mint.text
    assert len(mint.statuses()) == (1 if kind == "api" and status != 401 else 2)


@pytest.mark.parametrize(
    ("status", "location"),
    [
        *((status, "{base}/evil?token=1") for status in (300, 301, 302, 303, 307, 308, 399)),
        *((302, location) for location in ("https://evil.example/", "//evil.example/x", "https://a:b@{host}/")),
    ],
)
@pytest.mark.parametrize("kind", ["api", "token"])
def test_no_redirect_is_followed(mint: Mint, kind: str, status: int, location: str) -> None:
    location = location.format(base=mint.bitbucket.base_url, host=mint.bitbucket.host)
    mint.bitbucket.misbehave(kind, Fault(status=status, headers={"Location": location}))

    assert re.search("redirect.*never followed", mint.error().what)
    assert len(mint.bitbucket.seen) == (1 if kind == "api" else 2)
    assert not any("evil" in seen.path for seen in mint.bitbucket.seen)


# Failures that are retried.

PASSING: dict[str, Fault] = {
    "reset": Fault(reset=True),
    "truncated": Fault(truncate=True),
    **{str(status): Fault(status=status) for status in (429, 502, 503, 504)},
    "Retry-After in seconds": Fault(status=429, headers={"Retry-After": "1"}),
}


@pytest.mark.parametrize(("name", "times"), [*((name, 1) for name in PASSING), ("reset", 3), ("503", 3)])
@pytest.mark.parametrize("kind", ["api", "token"])
def test_temporary_failure_is_retried(mint: Mint, kind: str, name: str, times: int) -> None:
    # The good answer comes late enough that the helper has to wait for it.
    mint.bitbucket.misbehave(kind, *[PASSING[name]] * times, Fault(delay=0.1))

    assert mint.token().token
    assert len(mint.statuses()) == 2 + times


def test_lost_connection_is_made_again_by_the_command_too(acme: Workspace) -> None:
    acme.bitbucket.misbehave("token", Fault(reset=True), Fault(delay=0.1))

    assert "password" in answer(acme.get())
    assert len(acme.bitbucket.helper_requests()) == 3


def test_each_request_has_these_headers_and_no_others(mint: Mint) -> None:
    mint.token()
    look_up, swap = mint.bitbucket.helper_requests()
    both = {"Accept", "Accept-Encoding", "Authorization", "Host", "User-Agent"}

    assert set(look_up.headers) == both
    assert set(swap.headers) == both | {"Content-Length", "Content-Type"}
    assert look_up.headers["User-Agent"].startswith("git-credential-bbjwt/")


def test_each_attempt_has_a_jwt_of_its_own(mint: Mint) -> None:
    mint.bitbucket.misbehave("token", Fault(status=503, headers={"Retry-After": "1"}))
    mint.token()
    _, first, second = mint.bitbucket.helper_requests()

    assert first.headers["Authorization"] != second.headers["Authorization"]
    assert second.claims["iat"] >= second.claims["exp"] - 180
    assert (first.status, second.status) == (503, 200)


def test_retry_after_in_seconds_is_waited_for(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(status=429, headers={"Retry-After": "2"}))
    done = acme.get("--verbose")

    assert "password" in answer(done)
    assert "status 429; next attempt in 2.0 s" in done.stderr


def test_retry_after_as_a_date_is_relative_to_the_servers_clock(mint: Mint) -> None:
    mint.bitbucket.clock_offset = 3600
    value = formatdate(time.time() + 3600 + 60, usegmt=True)
    mint.bitbucket.misbehave("api", Fault(status=429, headers={"Retry-After": value}))

    waits = re.search(r"429.*asks to wait (\d+) s", mint.error(seconds=20).what)
    assert waits is not None
    assert 0 < int(waits[1]) <= 60


def test_retry_after_as_a_date_without_a_time_zone_is_in_utc(acme: Workspace) -> None:
    value = time.asctime(time.gmtime(time.time() + 3600))
    acme.bitbucket.misbehave("api", Fault(status=429, headers={"Retry-After": value}))

    waits = re.search(r"429.*asks to wait (\d+) s", acme.get(check=False, TZ="EST5").stderr)
    assert waits is not None
    assert 3500 < int(waits[1]) <= 3600


@pytest.mark.parametrize("value", ["86400", "999999999999999999999", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_retry_after_beyond_the_budget_fails_at_once(mint: Mint, value: str) -> None:
    mint.bitbucket.misbehave("token", Fault(status=429, headers={"Retry-After": value}))

    # With the largest possible budget, because no test waits that long.
    assert "asks to wait" in mint.error(seconds=3600).what
    assert mint.statuses() == [200, 429]


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "٣"])
def test_retry_after_that_is_no_number_of_seconds_is_ignored(mint: Mint, value: str) -> None:
    mint.bitbucket.misbehave("token", Fault(status=503, headers={"Retry-After": value.encode().decode("latin-1")}))

    assert mint.token().token


def test_server_that_stays_overloaded_is_given_up_after_five_attempts(mint: Mint) -> None:
    mint.bitbucket.misbehave("token", *[Fault(status=503)] * 20)

    assert "503" in mint.error().what
    assert mint.statuses() == [200, *[503] * 5]


# The budget.


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("api", lambda: Fault(delay=30)),
        ("token", lambda: Fault(drip=0.5)),
        ("token", lambda: Fault(status=503, headers={"Retry-After": "1"}, delay=5)),
    ],
)
def test_budget_bounds_the_whole_call(acme: Workspace, kind: str, fault: Callable[[], Fault]) -> None:
    acme.bitbucket.misbehave(kind, *[fault() for _ in range(9)])
    with ends_within(2):
        done = acme.get("--timeout", "2", check=False)

    assert_quits(done)


def test_long_wait_is_reported(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=3.5))
    with start(acme.machine, acme.url) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        output, errors = running.stdout.read(), running.stderr.read().decode()

    assert b"password=" in output
    assert errors == f"git-credential-bbjwt: still waiting for {acme.bitbucket.base_api_url[8:]}\n"


# The clock.


@pytest.mark.parametrize("offset", [-7200, -45, 7200])
def test_clock_that_is_off_is_noticed_and_worked_around(mint: Mint, offset: int) -> None:
    mint.bitbucket.clock_offset = offset
    token = mint.token()

    direction = "behind" if offset > 0 else "ahead of"
    assert re.search(rf"warning: this machine's clock is \d+ s {direction} Bitbucket's", mint.text)
    assert mint.statuses() == [401, 200, 200]
    # The expiry is by this machine's clock, whatever the server's says.
    assert abs(token.expires - time.time() - 7200) < 60


def test_clock_behind_by_less_than_a_jwt_lives_needs_no_second_attempt(mint: Mint) -> None:
    for offset in (-25, 25, 45):
        mint.bitbucket.clock_offset = offset
        mint.token()
    assert mint.lines == []
    assert mint.statuses() == [200] * 6


@pytest.mark.parametrize("status", [400, 401, 403])
def test_clock_that_is_off_is_worked_around_however_the_server_refuses(mint: Mint, status: int) -> None:
    mint.bitbucket.clock_offset = 45  # Behind by less than a JWT lives: the look-up is answered.
    mint.bitbucket.misbehave("token", Fault(status=status, body=b'{"error": "unauthorized_client"}'))

    assert mint.token().token
    assert "clock is" in mint.text
    assert mint.statuses() == [200, status, 200]


def test_server_that_closes_each_connection(acme: Workspace) -> None:
    acme.bitbucket.rules.keep_alive = False
    acme.bitbucket.clock_offset = -7200  # Two requests to each origin.

    assert "password" in answer(acme.get())
    assert [one.status for one in acme.bitbucket.helper_requests()] == [401, 200, 200]
    acme.machine.git("ls-remote", acme.url)


def test_refusal_for_another_reason_is_not_tried_again(acme: Workspace) -> None:
    acme.app.shared_secret = "another"
    assert_quits(acme.get(check=False), "401")
    # One of each kind.
    assert [one.origin for one in acme.bitbucket.helper_requests()] == ["api", "base"]


def test_refusal_for_another_reason_with_the_clock_off_is_tried_once(mint: Mint) -> None:
    mint.app.shared_secret = "another"
    mint.bitbucket.clock_offset = 7200

    assert "401" in mint.error().what
    assert [one.origin for one in mint.bitbucket.helper_requests()] == ["api", "api", "base"]


# The query string hash, by Atlassian's rules.


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("get", "/", []),
        ("GET", "/2.0/repositories/acme/widgets", [("fields", "uuid,full_name")]),
        ("GET", "/a&b/c/", [("b", "2"), ("a", "1"), ("a", "0"), ("jwt", "x")]),
        ("POST", "/site/oauth2/access_token", []),
        ("GET", "/x", [("a b", "c*d~e"), ("é", "ü/+"), ("A", "")]),
        # "Understanding JWT for apps", the worked example of a canonical request.
        (
            "GET",
            "/path/to/service",
            [("zee_last", "param"), ("repeated", "parameter 1"), ("first", "param"), ("repeated", "parameter 2")],
        ),
    ],
)
def test_query_string_hash(method: str, path: str, query: list[tuple[str, str]]) -> None:
    digest = query_string_hash(method, path, query)

    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert digest == query_string_hash_of_the_emulator(method.upper(), path, query)
