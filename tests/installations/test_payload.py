"""Payloads, in every wrapper that frameworks, logs and secret stores put around them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from git_credential_bbjwt.core.failures import InstallationError
from git_credential_bbjwt.installations.installation import Installation, Kind
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.installations.registry_entry import entry_of, parse_entries

UUID = "{0a0b0c0d-0102-0304-0506-0708090a0b0c}"
APP: dict[str, Any] = {
    "key": "app",
    "clientKey": "connection:7",
    "sharedSecret": "the-shared-secret",
    "baseUrl": "https://bitbucket.org",
    "baseApiUrl": "https://api.bitbucket.org",
    "productType": "bitbucket",
    "eventType": "installed",
    "principal": {"type": "team", "username": "acme", "uuid": UUID},
}
CONSUMER: dict[str, Any] = {"key": "consumer", "secret": "the-consumers-secret", "workspace": "Acme"}

#: Functions that wrap a value.
WRAPPERS: dict[str, Any] = {
    "clientInfo": lambda value: {"clientInfo": value},
    "a row of AddonSettings": lambda value: {"id": 1, "clientKey": "connection:7", "key": "clientInfo", "val": value},
    "a webhook log": lambda value: {"method": "POST", "headers": {"key": "x"}, "body": value},
    "AWS Secrets Manager": lambda value: {"ARN": "arn:x", "Name": "bbjwt", "SecretString": value},
    "Vault": lambda value: {"request_id": "x", "data": {"data": value, "metadata": {"version": 1}}},
}


def parsed(payload: object) -> list[Installation]:
    """Return the installations of ``payload``."""
    return parse_payload(json.dumps(payload).encode(), "FILE")


def refused(payload: object) -> InstallationError:
    """The error for ``payload``, which repeats none of its secrets."""
    with pytest.raises(InstallationError) as raised:
        parsed(payload)
    for text in (raised.value.what, raised.value.hint):
        assert "the-shared-secret" not in text
        assert "the-consumers-secret" not in text
    return raised.value


@pytest.mark.parametrize("as_text", [False, True], ids=["object", "string"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("payload", [APP, {"oauthConsumer": CONSUMER}], ids=["app", "consumer"])
def test_payload_is_found_in_each_wrapper(payload: dict[str, Any], wrapper: str, as_text: bool) -> None:
    assert parsed(WRAPPERS[wrapper](json.dumps(payload) if as_text else payload)) == parsed(payload)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_five_wrappers_are_opened_and_six_are_an_error(wrapper: str) -> None:
    wrapped: object = APP
    for depth in range(5):
        wrapped = WRAPPERS[wrapper](json.dumps(wrapped) if depth % 2 else wrapped)

    assert parsed(wrapped) == parsed(APP)
    assert "wrappers" in refused(WRAPPERS[wrapper](wrapped)).what


def test_different_wrappers_within_each_other_are_opened() -> None:
    wrapped: object = APP
    for wrap in WRAPPERS.values():
        wrapped = wrap(json.dumps(wrapped))

    assert parsed(wrapped) == parsed(APP)


def test_byte_order_mark_and_white_space_around_a_string_of_json_are_ignored() -> None:
    assert parsed({"SecretString": "\ufeff\n " + json.dumps(APP) + "\n"}) == parsed(APP)


@pytest.mark.parametrize("value", ["", "null", "5", "[]", "{", 5, [], [APP], "[" * 100_000, '{"a":' * 100_000])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapper_without_an_object_is_an_error(wrapper: str, value: object) -> None:
    assert "FILE" in refused(WRAPPERS[wrapper](value)).what


def test_app_and_consumer_in_one_payload_are_both_found_and_the_consumer_is_the_successor() -> None:
    app, consumer = parsed({"clientInfo": APP, "oauthConsumer": CONSUMER})

    assert (app.kind, app.after_connect) == (Kind.CONNECT, False)
    assert (consumer.kind, consumer.after_connect) == (Kind.OAUTH_CONSUMER, True)
    assert parsed({"SecretString": json.dumps({"clientInfo": json.dumps(APP), "oauthConsumer": CONSUMER})}) == [
        app,
        consumer,
    ]
    # A payload without a wrapper is also a Connect app. A consumer alone would be used at once.
    assert parsed(APP | {"oauthConsumer": CONSUMER}) == [app, consumer]


def test_consumer_is_used_at_once_unless_it_is_marked() -> None:
    for changes, marked in (({}, False), ({"afterConnect": False}, False), ({"afterConnect": True}, True)):
        (consumer,) = parsed({"oauthConsumer": CONSUMER | changes})
        assert consumer.after_connect == marked


def test_consumer_is_parsed() -> None:
    (consumer,) = parsed({"oauthConsumer": CONSUMER | {"afterConnect": True, "workspaceUuid": UUID.upper()}})

    assert (consumer.app_key, consumer.shared_secret) == ("consumer", "the-consumers-secret")
    assert (consumer.workspaces, consumer.workspace_uuid, consumer.after_connect) == (("acme",), UUID, True)
    assert (consumer.base_url, consumer.base_api_url) == ("https://bitbucket.org", "https://api.bitbucket.org")
    assert (consumer.keyring_user, consumer.client_key) == ("oauth-consumer:consumer", "")


@pytest.mark.parametrize("payload", [APP, {"oauthConsumer": CONSUMER}], ids=["app", "consumer"])
@pytest.mark.parametrize("base", [{}, {"baseUrl": "https://bitbucket.org"}, {"baseUrl": "https://BITBUCKET.org:443/"}])
def test_address_of_bitbucket_clouds_api_is_known(payload: dict[str, Any], base: dict[str, str]) -> None:
    fields = payload.get("oauthConsumer", payload)
    fields = {name: value for name, value in fields.items() if name not in ("baseUrl", "baseApiUrl")} | base
    (one,) = parsed({"oauthConsumer": fields} if "oauthConsumer" in payload else fields)

    assert (one.base_url, one.base_api_url) == ("https://bitbucket.org", "https://api.bitbucket.org")


@pytest.mark.parametrize(
    ("base", "host"),
    [
        ("https://git.example:1", "git.example:1"),
        ("https://git.example:65535", "git.example:65535"),
        ("https://[::1]:8443", "[::1]:8443"),
        ("https://GIT.example:443/", "git.example"),
        ("https://git.example:0", None),
        ("https://git.example:65536", None),
        ("https://git.example:x", None),
        ("https://", None),
        ("https://[::1", None),
        ("https://a@git.example", None),
        ("https://git.example?x", None),
        ("https://git.example#x", None),
        ("https://git%2eexample", None),
        ("ftp://git.example", None),
        ("git.example", None),
    ],
)
@pytest.mark.parametrize("field", ["baseUrl", "baseApiUrl"])
def test_base_url_is_an_https_host_without_a_path(field: str, base: str, host: str | None) -> None:
    payload = APP | {field: base}
    if host is None:
        assert "https://HOST" in refused(payload).what
    else:
        (one,) = parsed(payload)
        assert (one.base_url if field == "baseUrl" else one.base_api_url) == f"https://{host}"


def test_address_of_the_api_is_the_payloads_own() -> None:
    (one,) = parsed(APP | {"baseApiUrl": "https://api.example"})
    assert one.base_api_url == "https://api.example"
    without = {name: value for name, value in APP.items() if name != "baseApiUrl"} | {"baseUrl": "https://git.example"}
    assert "baseApiUrl" in refused(without).what


PAGE = "https://bitbucket.org/"


@pytest.mark.parametrize(
    ("principal", "slugs", "uuid"),
    [
        ({"username": "Acme", "uuid": UUID.upper()}, ("acme",), UUID),
        ({"username": "a/b", "uuid": UUID}, (), UUID),
        ({"username": 5, "uuid": UUID}, (), UUID),
        ({"uuid": UUID, "links": {"html": {"href": f"{PAGE}Acme/"}}}, ("acme",), UUID),
        ({"links": {"html": {"href": f"{PAGE}acme"}}}, ("acme",), ""),
        ({"links": {"html": {"href": f"{PAGE}acme/widgets"}}}, (), ""),
        ({"links": {"html": {"href": f"{PAGE}%7B0a0b%7D/"}}}, (), ""),
        ({"links": {"html": {"href": PAGE}}}, (), ""),
        ({"links": {"html": {"href": "https://[x/acme"}}}, (), ""),
        ({"links": {"html": 5}}, (), ""),
        ({"links": 5}, (), ""),
        ({"uuid": UUID[1:-1]}, (), ""),
        ({"uuid": 5}, (), ""),
        (5, (), ""),
        (None, (), ""),
    ],
)
def test_workspace_is_the_principals(principal: object, slugs: tuple[str, ...], uuid: str) -> None:
    (one,) = parsed(APP | {"principal": principal})
    assert (one.workspaces, one.workspace_uuid) == (slugs, uuid)


@pytest.mark.parametrize(
    ("client_key", "uuid"),
    [
        (f"ari:cloud:bitbucket::app/{UUID.upper()}/app", UUID),
        (f"ari:cloud:bitbucket::app/{UUID}", UUID),
        (f"ari:cloud:jira::app/{UUID}/app", ""),
        ("ari:cloud:bitbucket::app/acme/app", ""),
        (f"connection:{UUID}", ""),
    ],
)
def test_uuid_of_the_workspace_is_in_an_apps_client_key(client_key: str, uuid: str) -> None:
    (one,) = parsed(APP | {"clientKey": client_key, "principal": {"username": "acme"}})
    assert one.workspace_uuid == uuid


def test_consumer_of_another_host_needs_no_address_of_the_api() -> None:
    (consumer,) = parsed({"oauthConsumer": CONSUMER | {"baseUrl": "https://git.example:8443"}})

    assert (consumer.host, consumer.base_url) == ("git.example:8443", "https://git.example:8443")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"key": ""}, "key"),
        ({"secret": None}, "secret"),
        ({"secret": "line\nbreak"}, "secret"),
        ({"workspace": ""}, "workspace"),
        ({"workspace": UUID}, "workspace"),
        ({"workspace": "a/b"}, "workspace"),
        ({"workspaceUuid": "0a0b0c0d"}, "workspaceUuid"),
        ({"baseUrl": "http://bitbucket.org"}, "base URL"),
        ({"baseUrl": "https://bitbucket.org/x"}, "baseUrl"),
        ({"afterConnect": "true"}, "afterConnect"),
        ({"afterConnect": 1}, "afterConnect"),
        ({"after_connect": True}, "afterConnect"),
        ({"afterconnect": True}, "afterConnect"),
        ({"workspaceUUID": UUID}, "workspaceUuid"),
    ],
)
def test_consumer_that_cannot_be_used_names_the_member(change: dict[str, Any], named: str) -> None:
    error = refused({"oauthConsumer": CONSUMER | change})
    assert named in error.what
    assert "`installed`" not in error.hint or "baseUrl" in change


def test_consumer_without_the_member_around_it_is_told_so() -> None:
    error = refused(CONSUMER)

    assert "the member oauthConsumer around the OAuth consumer is missing" in error.what
    assert error.hint.startswith('write {"oauthConsumer": ')


@pytest.mark.parametrize("value", [None, 5, [], "", "x", [CONSUMER]])
def test_consumer_that_is_not_an_object_is_an_error(value: object) -> None:
    assert "FILE" in refused({"clientInfo": APP, "oauthConsumer": value}).what


def test_payload_with_a_name_from_a_wrapper_is_not_unwrapped() -> None:
    assert parsed(APP | {"val": "5"}) == parsed(APP)
    (one,) = parsed(APP | {"key": "clientInfo"})
    assert one.app_key == "clientInfo"


def test_identity_of_app_and_consumer_with_the_same_key_differs() -> None:
    (app,) = parsed(APP | {"clientKey": ""})
    consumer = app._replace(kind=Kind.OAUTH_CONSUMER)

    assert app.identity != consumer.identity


def test_secret_of_a_registered_app_may_be_missing() -> None:
    (app,) = parsed({**APP, "clientKey": f"ari:cloud:bitbucket::app/{UUID}/app", "sharedSecret": ""})

    assert (app.shared_secret, app.workspace_uuid) == ("", UUID)


@pytest.mark.parametrize("payload", [APP, {"oauthConsumer": CONSUMER | {"afterConnect": True}}])
def test_entry_of_the_registry_has_everything_except_the_secret(payload: dict[str, Any]) -> None:
    (one,) = parsed(payload)
    line = entry_of(one)

    assert parse_entries(line, "acme", "FILE") == [one._replace(shared_secret="")]
    assert one.shared_secret.encode() not in line
