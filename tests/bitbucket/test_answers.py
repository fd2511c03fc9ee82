"""Rules in isolation: the checks on Bitbucket's responses, and the words of them that are shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest

from git_credential_bbjwt.bitbucket import refusal, responses
from git_credential_bbjwt.bitbucket.refusal import RequestKind, refuse
from git_credential_bbjwt.core.failures import NEWEST_PAYLOAD, AnothersWorkspaceError, BadAnswerError, RefusedError
from git_credential_bbjwt.core.output import hide
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.network.response import Response

UUID = "{12345678-1234-1234-1234-123456789abc}"
OTHER = "{87654321-1234-1234-1234-123456789abc}"
BY_NAME = Repository("bitbucket.org", "acme", "widgets")
BY_UUID = Repository("bitbucket.org", "acme", UUID)
BY_UUIDS = Repository("bitbucket.org", OTHER, UUID)


def said(found: object, status: int = 200, **headers: str) -> Response:
    """Return a response of the server."""
    return Response(status, json.dumps(found).encode(), headers)


def believed(check: Callable[[], str]) -> str | None:
    """Return the result of a check; None if it refuses the response."""
    try:
        return check()
    except BadAnswerError:
        return None


@pytest.mark.parametrize(
    ("repository", "found"),
    [
        (BY_NAME, {"uuid": UUID}),
        (BY_NAME, {"uuid": UUID.upper(), "full_name": "Acme/Widgets"}),
        (BY_UUID, {"uuid": UUID, "full_name": "acme/renamed"}),
        (BY_UUIDS, {"uuid": UUID, "full_name": "renamed/renamed"}),
    ],
)
def test_repositorys_uuid_is_accepted(repository: Repository, found: object) -> None:
    assert responses.checked_uuid(said(found), repository) == UUID


@pytest.mark.parametrize(
    ("repository", "found"),
    [
        (BY_NAME, [UUID]),
        (BY_NAME, {}),
        (BY_NAME, {"uuid": 5}),
        (BY_NAME, {"uuid": "acme"}),
        (BY_NAME, {"uuid": UUID[1:-1]}),
        (BY_NAME, {"uuid": UUID + "\n"}),
        (BY_NAME, {"uuid": UUID, "full_name": "acme/gadgets"}),
        (BY_NAME, {"uuid": UUID, "full_name": "other/widgets"}),
        (BY_NAME, {"uuid": UUID, "full_name": 5}),
        (BY_UUID, {"uuid": OTHER, "full_name": "acme/widgets"}),
        (BY_UUID, {"uuid": UUID, "full_name": "other/widgets"}),
        (BY_UUIDS, {"uuid": OTHER, "full_name": "acme/widgets"}),
    ],
)
def test_response_about_something_else_is_refused(repository: Repository, found: object) -> None:
    with pytest.raises(BadAnswerError):
        responses.checked_uuid(said(found), repository)


@pytest.mark.parametrize("found", [{}, [], {"workspace": UUID}, {"workspace": {}}, {"workspace": {"uuid": UUID}}])
def test_workspace_that_is_the_same_or_missing_is_accepted(found: object) -> None:
    responses.check_workspace(said(found), UUID)
    responses.check_workspace(said({"workspace": {"uuid": UUID.upper()}}), UUID)
    responses.check_workspace(said({"workspace": {"uuid": OTHER}}), "")


def test_slug_that_changed_hands_is_an_error() -> None:
    with pytest.raises(AnothersWorkspaceError):
        responses.check_workspace(said({"workspace": {"uuid": OTHER}}), UUID)


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ({"uuid": UUID.upper(), "full_name": "Acme/Widgets"}, "acme/widgets"),
        ({"uuid": UUID}, None),
        ({"full_name": "acme/widgets"}, None),
        ([], None),
        ({"uuid": OTHER, "full_name": "acme/widgets"}, None),
        ({"uuid": UUID, "full_name": "acme"}, None),
        ({"uuid": UUID, "full_name": "/widgets"}, None),
        ({"uuid": UUID, "full_name": "ac me/widgets"}, None),
        ({"uuid": UUID, "full_name": "acme/wid/gets"}, None),
    ],
)
def test_the_full_name_of_a_repository(found: object, name: str | None) -> None:
    assert believed(lambda: responses.checked_full_name(said(found), BY_UUIDS)) == name


@pytest.mark.parametrize(
    ("found", "slug"),
    [
        ({"uuid": UUID.upper(), "slug": "Acme"}, "acme"),
        ({"uuid": OTHER, "slug": "acme"}, None),
        ({"slug": "acme"}, None),
        ([], None),
        ({"uuid": UUID}, None),
        ({"uuid": UUID, "slug": "ac/me"}, None),
    ],
)
def test_the_slug_of_a_workspace(found: object, slug: str | None) -> None:
    assert believed(lambda: responses.checked_slug(said(found), UUID)) == slug


def granted(changes: dict[str, object], asked: str = "repository") -> responses.AccessToken:
    """Return the token of a response at the Unix time 1000. A change to None removes the member."""
    found: dict[str, Any] = {"access_token": "token", "token_type": "Bearer", "expires_in": 7200, **changes}
    return responses.checked_token(
        said({name: value for name, value in found.items() if value is not None}), asked, 1000
    )


@pytest.mark.parametrize(
    ("changes", "expires"),
    [
        ({}, 8200),
        ({"access_token": "!"}, 8200),
        ({"access_token": "~" * 8_192}, 8200),
        ({"token_type": "bearer"}, 8200),
        ({"expires_in": 1}, 1001),
        ({"expires_in": None}, 4600),
        ({"expires_in": 86_400}, 87_400),
        ({"expires_in": 10**9}, 87_400),
        ({"scopes": "repository"}, 8200),
        ({"scopes": ["repository"], "scope": ""}, 8200),
        ({"scope": ["repository"]}, 8200),
        ({"refresh_token": "x", "state": "client_credentials"}, 8200),
        ({"scope": "read:repository:bitbucket"}, 8200),
        ({"expires_in": 7200, "scope": None}, 8200),
    ],
)
def test_token_is_accepted(changes: dict[str, object], expires: int) -> None:
    token = granted(changes)
    assert (token.token, token.minted, token.expires) == (changes.get("access_token", "token"), 1000, expires)


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": value}
        for value in (
            None,
            5,
            "",
            "to ken",
            "t\nhost=evil.example",
            "t\r",
            "t\0",
            "\x1b[2J",
            "tok\x7fen",
            "tökén",
            "a" * 8_193,
        )
    ]
    + [{"token_type": value} for value in (None, 5, "mac", ["bearer"])]
    + [{"expires_in": value} for value in (0, -1, "7200", 7200.0, True)]
    + [
        {"scopes": "repository:write"},
        {"scope": "repository account"},
        {"scopes": ["repository", "account"]},
        {"scopes": "repository", "scope": "account"},
        {"scopes": 5},
        {"scopes": ["repository", 5]},
        {"scope": {"repository": True}},
        {"scopes": "pullrequest"},
        {"scopes": "repository", "scope": "repository:admin"},
    ],
)
def test_token_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadAnswerError):
        granted(changes)


@pytest.mark.parametrize(
    "body",
    [
        b'["token"]',
        b'"token"',
        b"null",
        b"",
        b"access_token=abc&token_type=bearer",
        b"<html><title>Login</title></html>",
        b'{"access_token": "\xff\xfe"}',
        b"[" * 200_000,
    ],
)
def test_token_response_that_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadAnswerError):
        responses.checked_token(Response(200, body, {}), "repository", 1000)


@pytest.mark.parametrize(
    ("asked", "brought", "more"),
    [
        ("repository:write", "repository repository:write", "account"),
        ("pullrequest", "repository pullrequest", "repository:write"),
        ("pullrequest:write", "repository:write repository pullrequest pullrequest:write", "account"),
        ("repository account", "account", "account:write"),
    ],
)
def test_scope_includes_only_the_scopes_that_bitbucket_lists(asked: str, brought: str, more: str) -> None:
    assert granted({"scopes": brought}, asked).expires == 8200
    with pytest.raises(BadAnswerError, match=more):
        granted({"scopes": f"{brought} {more}"}, asked)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"out of order\n", ("", "out of order")),
        (b"", ("", "")),
        *((body, ("", "")) for body in (b"<html>", b"[1]", b'"x"', b"{broken", b"a token=1", b"the access_token is 1")),
        (b'{"error": "invalid_scope", "error_description": "no such"}', ("invalid_scope", "invalid_scope: no such")),
        (b'{"error": "invalid_grant"}', ("invalid_grant", "invalid_grant")),
        (b'{"error": "", "error_description": "no such"}', ("", "no such")),
        (b'{"error": 5, "error_description": 6}', ("", "")),
        (b'{"error": {"message": "gone", "detail": "for good"}}', ("", "gone; for good")),
        (b'{"error": {"message": 5, "detail": 6}}', ("", "")),
        (
            b'{"error": {"message": "no", "detail": {"required": ["a", "b"], "granted": []}}}',
            ("", "no; required: a, b; granted: none"),
        ),
        (b'{"error": {"message": "no", "detail": {"required": "a"}, "data": 5}}', ("", "no")),
        (b'{"error": {"message": "no", "detail": "{\\"access_token\\": \\"abc\\"}"}}', ("", "no")),
        (b'{"error": "invalid_grant", "error_description": "Refresh_Token abc"}', ("invalid_grant", "invalid_grant")),
        (b'{"error": {"message": "see https://evil.example/x for more"}}', ("", "see [link] for more")),
        (b'{"error": {"message": "no", "data": {"announcement_url": "https://evil.example/"}}}', ("", "no")),
    ],
)
def test_words_of_an_error_that_are_shown(body: bytes, words: tuple[str, str]) -> None:
    assert refusal.server_words(body) == words


def test_long_text_is_cut_after_secrets_were_redacted() -> None:
    hide("a secret of this test")
    text = "x y " * 47 + "a secret of this test yes"
    assert refusal.server_words(text.encode()) == ("", "x y " * 47 + "[redacted] y")


def refused(
    status: int, request: RequestKind = RequestKind.LOOK_UP, body: object = None, **headers: str
) -> RefusedError:
    """Return the refusal that a response is treated as."""
    with pytest.raises(RefusedError) as raised:
        refuse(said(body or {"error": {"message": "why"}}, status, **headers), "host", request, NEWEST_PAYLOAD)
    assert raised.value.status == status
    return raised.value


WRONG_PAIR = "host does not accept the OAuth consumer's key and secret"


@pytest.mark.parametrize(
    ("status", "request_", "what", "about_repository"),
    [
        (401, RequestKind.LOOK_UP, "host does not accept the JWT (401): why", False),
        (403, RequestKind.LOOK_UP, "the app has no access to this repository (403): why", True),
        (404, RequestKind.LOOK_UP, "host knows no such repository (404): why", True),
        (400, RequestKind.LOOK_UP, "host responded with 400: why", False),
        (500, RequestKind.LOOK_UP, "host responded with 500: why", False),
        (201, RequestKind.LOOK_UP, "host responded with 201", False),
        (399, RequestKind.LOOK_UP, "host responded with a redirect to another place, which is never followed", False),
        *(
            (code, RequestKind.SWAP, f"host refused to swap the JWT for a token ({code}): why", False)
            for code in (400, 401, 403)
        ),
        (404, RequestKind.SWAP, "host responded with 404: why", False),
        (500, RequestKind.SWAP, "host responded with 500: why", False),
        *(
            (410, request, "host says that this function has ended, or is rehearsing its end (410): why", False)
            for request in RequestKind
        ),
        *(
            (
                code,
                RequestKind.CLIENT_CREDENTIALS,
                f"{WRONG_PAIR} ({code}): why",
                False,
            )
            for code in (400, 401, 403)
        ),
        (
            429,
            RequestKind.SWAP,
            "host responded with 429: too many requests; the hour's allowance is used up: why",
            False,
        ),
        (403, RequestKind.GIT, "host does not accept the token (403): why", False),
    ],
)
def test_error_and_hint_for_a_refusal(status: int, request_: RequestKind, what: str, about_repository: bool) -> None:
    refusal = refused(status, request_)
    assert (refusal.what, refusal.is_about_repository) == (what, about_repository)
    assert refusal.hint
    assert refusal.is_of_swap == (request_ is RequestKind.SWAP)


PIECES = ["A", "ab1", "a://", "://", "<a", "&#", "\\u00", "%2", " ", "é", "eyJ", "]}", "\0"]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda text: json.dumps({"error": {"message": text, "detail": text}}),
        lambda text: json.dumps({"error": "invalid_grant", "error_description": text}),
    ],
)
def test_refusal_with_one_long_word_takes_little_time(piece: str, form: Callable[[str], str]) -> None:
    body = form(f"x {piece * (65_536 // len(piece))}").encode()
    started = time.process_time()
    with pytest.raises(RefusedError) as raised:
        refuse(Response(400, body, {}), "host", RequestKind.SWAP, "")

    assert time.process_time() - started < 5
    assert "(400)" in raised.value.what
    assert len(raised.value.what) < 1_000


def test_missing_scope_is_reported_only_for_the_swap() -> None:
    body = {"error": "invalid_scope"}
    assert refused(400, RequestKind.SWAP, body).what == "the app does not have the requested scope: invalid_scope"
    assert refused(400, body=body).what == "host responded with 400: invalid_scope"


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://user:secret@elsewhere.example/secret?x", "elsewhere.example"),
        ("/secret", "another place"),
        ("https://[", "another place"),
        (f"https://{'h' * 101}/", "[redacted]"),
        ("https://eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x/", "[redacted]"),
        (f"https://{'ab1' * 30_000}/", "[redacted]"),
    ],
)
@pytest.mark.parametrize("status", [300, 301, 302])
def test_error_for_a_redirect_shows_its_host(status: int, location: str, shown: str) -> None:
    what = f"host responded with a redirect to {shown}, which is never followed"
    assert refused(status, body={"error": ""}, Location=location).what == what


def test_hint_for_a_redirect_to_another_workspace_names_the_workspace() -> None:
    location = "https://api.bitbucket.org/2.0/repositories/acme-inc/widgets?fields=uuid"
    assert "the new URL names the workspace acme-inc" in refused(301, Location=location).hint
    assert "the workspace" not in refused(301, Location=location.replace("acme-inc", "ac%20me")).hint


@pytest.mark.parametrize(("seconds", "hinted"), [(29, False), (32, True), (-29, False), (-32, True), (None, True)])
def test_hint_names_the_clock_only_if_it_may_be_off(seconds: int | None, hinted: bool) -> None:
    headers = {} if seconds is None else {"Date": formatdate(time.time() + seconds, usegmt=True)}
    hint = refused(401, RequestKind.LOOK_UP, None, **headers).hint
    assert hint.startswith(NEWEST_PAYLOAD)
    assert ("check this machine's clock" in hint) == hinted
    assert "rehearsing its end, which can last hours" in hint


@pytest.mark.parametrize(
    ("words", "request_", "hint"),
    [
        ("To access this repository, an admin must whitelist your IP.", RequestKind.GIT, "allow-list"),
        ("To access this repository, an admin must whitelist your IP.", RequestKind.LOOK_UP, "allow-list"),
        ("To access this repository, enable two-step authentication.", RequestKind.GIT, "two-step verification"),
        (
            'Cannot use client_credentials with a consumer marked as "public".',
            RequestKind.CLIENT_CREDENTIALS,
            "*This is a private consumer*",
        ),
        ("Invalid OAuth client credentials", RequestKind.CLIENT_CREDENTIALS, "check both in Bitbucket"),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_the_hint_names_the_cause_that_bitbucket_names(
    words: str, request_: RequestKind, hint: str, as_json: bool
) -> None:
    body = json.dumps({"error": "e", "error_description": words}).encode() if as_json else words.encode()
    with pytest.raises(RefusedError) as raised:
        refuse(Response(403, body, {}), "host", request_, "")
    assert hint in raised.value.hint


def test_a_grant_that_is_not_supported_is_marked() -> None:
    body = {"error": "invalid_grant", "error_description": "Unsupported grant type: urn:bitbucket:oauth2:jwt"}
    assert refused(400, RequestKind.SWAP, body).is_unknown_grant
    assert not refused(401, RequestKind.SWAP, body).is_unknown_grant
    assert not refused(400, RequestKind.SWAP).is_unknown_grant
