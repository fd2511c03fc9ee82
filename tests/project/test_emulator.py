"""The emulated Bitbucket without the helper: the facts that tests of the helper rely on."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import pytest

from tests.conftest import PATIENCE, Workspace
from tests.emulator import (
    IP_ALLOW_LIST,
    OUTAGE,
    RATE_LIMITED,
    SILENCE,
    TWO_STEP_VERIFICATION,
    App,
    Consumer,
    Emulator,
)
from tests.emulator.jwt import query_string_hash

TOKEN = "/site/oauth2/access_token"
WIDGETS = "/2.0/repositories/acme/widgets"
CONNECT_GRANT = "urn:bitbucket:oauth2:jwt"


def ask(
    bitbucket: Emulator,
    origin: str,
    path: str,
    authorization: str,
    form: dict[str, str] | None = None,
    seconds: float = PATIENCE,
) -> tuple[int, Any, http.client.HTTPMessage]:
    """Send one request; return status, JSON (or text) and headers."""
    url = bitbucket.base_url if origin == "base" else bitbucket.base_api_url
    trust = ssl.create_default_context(cafile=str(bitbucket.ca_file))
    connection = http.client.HTTPSConnection("localhost", urlsplit(url).port or 0, context=trust, timeout=seconds)
    headers = {"Authorization": authorization}
    if form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    try:
        connection.request("GET" if form is None else "POST", path, urlencode(form or {}), headers)
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    return response.status, json.loads(text) if text.startswith("{") else text, response.headers


def part(content: object) -> str:
    """Return one part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def jwt(bitbucket: Emulator, app: App, method: str, path: str) -> str:
    """Return an app's JWT for a request, as an Authorization header."""
    now = int(bitbucket.now())
    qsh = query_string_hash(method, path, [])
    claims = {"iss": app.key, "sub": app.client_key, "iat": now, "exp": now + 180, "qsh": qsh}
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    signature = hmac.new(app.shared_secret.encode(), signed.encode(), hashlib.sha256).digest()
    return f"JWT {signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def swap(bitbucket: Emulator, app: App, **fields: str) -> tuple[int, Any]:
    """Swap a JWT for a token."""
    form = {"grant_type": CONNECT_GRANT} | fields
    return ask(bitbucket, "base", TOKEN, jwt(bitbucket, app, "POST", TOKEN), form)[:2]


def look_up(bitbucket: Emulator, app: App, seconds: float = PATIENCE) -> tuple[int, Any]:
    """Look acme/widgets up with a JWT. Raises TimeoutError after ``seconds`` without an answer."""
    return ask(bitbucket, "api", WIDGETS, jwt(bitbucket, app, "GET", WIDGETS), seconds=seconds)[:2]


def basic(user: str, password: str) -> str:
    """HTTP Basic (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def client_credentials(bitbucket: Emulator, key: str, secret: str, **fields: str) -> tuple[int, Any]:
    """Request a consumer's token."""
    form = {"grant_type": "client_credentials"} | fields
    return ask(bitbucket, "base", TOKEN, basic(key, secret), form)[:2]


def git_status(bitbucket: Emulator, token: str) -> tuple[int, Any]:
    """Request acme/widgets as git does, with a token; return the status."""
    path = "/acme/widgets.git/info/refs?service=git-upload-pack"
    return ask(bitbucket, "base", path, basic("x-token-auth", token))[:2]


@pytest.fixture
def app(bitbucket: Emulator) -> App:
    """An app on acme, which has widgets and gadgets."""
    installed = bitbucket.install("acme")
    bitbucket.host_repository("acme/widgets")
    bitbucket.host_repository("acme/gadgets")
    return installed


@pytest.fixture
def consumer(bitbucket: Emulator, app: App) -> Consumer:  # noqa: ARG001  # the same workspace
    """A consumer of acme that may read."""
    return bitbucket.add_consumer("acme")


@pytest.mark.parametrize(("short", "length"), [(False, range(1_800, 2_000)), (True, range(80, 100))])
def test_tokens_are_jwts_of_about_1900_characters_unless_switched(
    bitbucket: Emulator, app: App, short: bool, length: range
) -> None:
    bitbucket.rules.short_tokens = short
    status, answer = swap(bitbucket, app, scope="repository", bitbucket_repository=bitbucket.repositories[0].uuid)

    assert status == 200
    assert len(answer["access_token"]) in length
    assert answer["access_token"].count(".") == (0 if short else 2)
    assert git_status(bitbucket, answer["access_token"])[0] == 200


def test_scopes_by_their_new_names(bitbucket: Emulator, app: App) -> None:
    new = "read:repository:bitbucket"
    assert swap(bitbucket, app, scope=new)[0] == 400
    bitbucket.rules.takes_new_scope_names = bitbucket.rules.new_scope_names = True

    assert swap(bitbucket, app, scope=new)[1]["scope"] == new


def test_a_consumers_token_opens_its_whole_workspace(bitbucket: Emulator, consumer: Consumer) -> None:
    status, answer = client_credentials(bitbucket, consumer.key, consumer.secret)

    assert status == 200
    assert (answer["scope"], answer["token_type"], answer["expires_in"]) == ("repository", "bearer", 7200)
    assert "refresh_token" not in answer
    assert git_status(bitbucket, answer["access_token"])[0] == 200
    _, found, headers = ask(bitbucket, "api", WIDGETS, f"Bearer {answer['access_token']}")
    assert found["slug"] == "widgets"
    assert headers["x-oauth-scopes"] == "repository"
    assert (len(consumer.key), len(consumer.secret)) == (32, 76)


def test_a_consumer_is_refused_with_bitbuckets_own_words(bitbucket: Emulator, consumer: Consumer) -> None:
    wrong = client_credentials(bitbucket, consumer.key, "wrong")
    with_a_scope = client_credentials(bitbucket, consumer.key, consumer.secret, scope="repository")
    consumer.private = False
    public = client_credentials(bitbucket, consumer.key, consumer.secret)
    bitbucket.rules.wrong_consumer_status = 401

    assert wrong == (400, {"error": "unauthorized_client", "error_description": "Invalid OAuth client credentials"})
    assert with_a_scope[0] == 400
    assert public[1]["error"] == "invalid_grant"
    assert public[1]["error_description"].startswith('Cannot use client_credentials with a consumer marked as "public"')
    assert client_credentials(bitbucket, "nobody", "wrong")[0] == 401


@pytest.mark.parametrize("form_encoded", [False, True])
def test_key_and_secret_are_accepted_unchanged_or_form_encoded(
    bitbucket: Emulator, consumer: Consumer, form_encoded: bool
) -> None:
    consumer.secret = "a b+c%d/é"
    bitbucket.rules.consumer_form_encoded = form_encoded
    plain = client_credentials(bitbucket, consumer.key, consumer.secret)[0]
    encoded = client_credentials(bitbucket, quote_plus(consumer.key), quote_plus(consumer.secret))[0]

    assert (plain, encoded) == ((400, 200) if form_encoded else (200, 400))


def test_an_answer_without_a_scope(bitbucket: Emulator, consumer: Consumer) -> None:
    bitbucket.rules.echoes_scope = False

    assert "scope" not in client_credentials(bitbucket, consumer.key, consumer.secret)[1]


@pytest.mark.parametrize(
    ("how", "swapped", "looked_up"),
    [("gone", 410, 410), ("unauthorized", 401, 401), ("unsupported", 400, 200), ("forbidden", 403, 200)],
)
def test_end_of_connect_does_not_affect_consumers(
    bitbucket: Emulator, app: App, consumer: Consumer, how: str, swapped: int, looked_up: int
) -> None:
    before = swap(bitbucket, app)[1]["access_token"]
    bitbucket.end_connect(how)
    status, answer = swap(bitbucket, app)

    assert (status, look_up(bitbucket, app)[0]) == (swapped, looked_up)
    if how == "unsupported":
        assert answer == {"error": "invalid_grant", "error_description": "Unsupported grant type"}
    assert client_credentials(bitbucket, consumer.key, consumer.secret)[0] == 200
    assert git_status(bitbucket, before)[0] == 200
    bitbucket.end_connect(how, tokens=True)
    assert git_status(bitbucket, before)[0] == 401


def test_a_rehearsal_ends(bitbucket: Emulator, app: App) -> None:
    bitbucket.end_connect("unauthorized", seconds=600)
    during = swap(bitbucket, app)[0]
    bitbucket.clock_offset = 601
    after = swap(bitbucket, app)[0]
    bitbucket.end_connect()
    bitbucket.restore_connect()

    assert (during, after, swap(bitbucket, app)[0]) == (401, 200, 200)


def test_look_ups_fail_while_swaps_work(bitbucket: Emulator, app: App) -> None:
    bitbucket.rules.rest_fault = OUTAGE
    assert look_up(bitbucket, app)[0] == 503
    bitbucket.rules.rest_fault = RATE_LIMITED
    assert look_up(bitbucket, app) == (429, "Rate limit for this resource has been exceeded")
    bitbucket.rules.rest_fault = SILENCE
    with pytest.raises(TimeoutError):
        look_up(bitbucket, app, 0.5)
    assert swap(bitbucket, app)[0] == 200
    bitbucket.rules.rest_fault = None
    assert look_up(bitbucket, app)[0] == 200


@pytest.mark.parametrize("text", [IP_ALLOW_LIST, TWO_STEP_VERIFICATION])
def test_refusal_by_location_or_login_says_why(bitbucket: Emulator, app: App, text: str) -> None:
    token = swap(bitbucket, app)[1]["access_token"]
    bitbucket.rules.refuses = text

    assert git_status(bitbucket, token) == (403, text)
    assert look_up(bitbucket, app)[1]["error"]["message"] == text
    bitbucket.rules.refuses_git_alone = True
    assert look_up(bitbucket, app)[0] == 200


def test_renamed_workspace_is_found_only_by_its_new_name_and_its_uuid(bitbucket: Emulator, app: App) -> None:
    token = swap(bitbucket, app)[1]["access_token"]
    bitbucket.rename_workspace("acme", "apex")
    path = f"/2.0/repositories/{quote(app.workspace_uuid)}/widgets"
    _, found, _ = ask(bitbucket, "api", path, f"Bearer {token}")

    assert look_up(bitbucket, app)[0] == 404
    assert found["full_name"] == "apex/widgets"
    assert git_status(bitbucket, token)[0] == 404


def test_refused_swap_can_block_good_swaps(bitbucket: Emulator, app: App) -> None:
    bitbucket.rules.refusal_lasts = 60
    assert swap(bitbucket, app, scope="account")[0] == 400
    assert swap(bitbucket, app)[0] == 400
    bitbucket.clock_offset = 61
    assert swap(bitbucket, app)[0] == 200


def test_token_of_forge_is_a_jwt_that_git_can_use(bitbucket: Emulator, app: App) -> None:  # noqa: ARG001  # acme is there
    token = bitbucket.forge_token("acme")
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==="))

    assert git_status(bitbucket, token)[0] == 200
    assert abs(claims["exp"] - time.time() - 4 * 3600) < 60


def test_it_serves_with_the_defaults_of_git_3(acme: Workspace, git_3: Path) -> None:
    fresh = acme.bitbucket.host_repository("acme/fresh", {"it.txt": "It, by git 3.\n"})
    acme.machine.run(git_3, "clone", "-q", acme.bitbucket.url(fresh), "clone")
    acme.machine.run(git_3, "fetch", "-q", cwd=acme.machine.home / "clone")

    assert (acme.machine.home / "clone/it.txt").read_text() == "It, by git 3.\n"
