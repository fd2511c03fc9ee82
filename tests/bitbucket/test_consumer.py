"""OAuth consumers: the one request of the client credentials grant, and the checks on the response."""

from __future__ import annotations

import base64
import time
from contextlib import closing

import pytest

from git_credential_bbjwt.bitbucket.consumer import check_scope, consumer_token
from git_credential_bbjwt.bitbucket.responses import AccessToken
from git_credential_bbjwt.core.failures import BadAnswerError, BroaderScopeError, RefusedError
from git_credential_bbjwt.git.http_settings import HttpSettings
from git_credential_bbjwt.network.connections import Connections
from git_credential_bbjwt.system.budget import Budget
from tests.conftest import Machine
from tests.emulator import Consumer, Emulator, Fault
from tests.mint import be_the_helper


@pytest.fixture
def consumer(bitbucket: Emulator, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Consumer:
    be_the_helper(monkeypatch, machine.env(GIT_SSL_CAINFO=str(bitbucket.ca_file)), [])
    return bitbucket.add_consumer()


def token_of(bitbucket: Emulator, consumer: Consumer, secret: str = "") -> AccessToken:
    """Have the helper request a token, with another secret if one is given."""
    base = Connections(Budget(20), HttpSettings()).take(bitbucket.base_url)
    with closing(base):
        token, _ = consumer_token(base, consumer.key, lambda: secret or consumer.secret, "run: register it")
        return token


def test_one_request_gets_a_token_for_the_workspace(bitbucket: Emulator, consumer: Consumer) -> None:
    before = int(time.time())
    token = token_of(bitbucket, consumer)

    (sent,) = bitbucket.seen
    assert sent.form == {"grant_type": "client_credentials"}
    pair = base64.b64encode(f"{consumer.key}:{consumer.secret}".encode()).decode()
    assert sent.headers["Authorization"] == f"Basic {pair}"
    assert bitbucket.tokens[token.token].repository is None
    assert token.scope == "repository"
    assert before + 7200 <= token.expires <= time.time() + 7200


@pytest.mark.parametrize(
    ("key", "secret"),
    [("key", "plain-secret"), ("key", "a+b/c="), ("key", "a+b/c= 1"), ("k:ey", "secret"), ("key", "sécret")],
)
@pytest.mark.parametrize("decodes", [True, False])
def test_key_and_secret_are_sent_unchanged_and_then_form_encoded(
    bitbucket: Emulator, consumer: Consumer, key: str, secret: str, decodes: bool
) -> None:
    bitbucket.consumers.clear()
    consumer.key, consumer.secret = key, secret
    bitbucket.consumers[key] = consumer
    bitbucket.rules.consumer_form_encoded = decodes
    only_encoded = ":" in key or not secret.isascii()
    if only_encoded and not decodes:
        with pytest.raises(RefusedError, match="does not accept the OAuth consumer's key and secret"):
            token_of(bitbucket, consumer)
        assert len(bitbucket.seen) == 1
        return
    assert token_of(bitbucket, consumer).scope == "repository"
    needs_encoding = decodes and not only_encoded and "+" in secret
    assert len(bitbucket.seen) == (2 if needs_encoding else 1)


@pytest.mark.parametrize("status", [400, 401])
def test_a_wrong_secret_is_refused_with_a_hint(bitbucket: Emulator, consumer: Consumer, status: int) -> None:
    bitbucket.rules.wrong_consumer_status = status
    with pytest.raises(RefusedError) as raised:
        token_of(bitbucket, consumer, "another-secret-2")
    assert (raised.value.status, raised.value.is_of_swap) == (status, False)
    assert raised.value.hint.endswith("then run: register it")
    assert len(bitbucket.seen) == 1


def test_hint_for_a_public_consumer_names_the_box_to_tick(bitbucket: Emulator, consumer: Consumer) -> None:
    consumer.private = False

    with pytest.raises(RefusedError) as raised:
        token_of(bitbucket, consumer)
    assert "tick *This is a private consumer*" in raised.value.hint


def test_a_response_without_a_scope_is_not_used(bitbucket: Emulator, consumer: Consumer) -> None:
    bitbucket.rules.echoes_scope = False

    with pytest.raises(BadAnswerError, match="does not name the scope"):
        token_of(bitbucket, consumer)


def test_a_consumer_that_is_overloaded_is_asked_again(bitbucket: Emulator, consumer: Consumer) -> None:
    bitbucket.misbehave("token", Fault(status=503), Fault(reset=True))

    assert token_of(bitbucket, consumer).token in bitbucket.tokens


def test_hint_for_a_broader_consumer_names_the_permission_that_is_enough() -> None:
    check_scope("read:repository:bitbucket", "repository")
    check_scope("repository", "repository:write")
    for more in ("pullrequest", "account", "repository:write"):
        with pytest.raises(BroaderScopeError, match=more) as raised:
            check_scope(f"repository {more}", "repository")
    assert 'only the permission "Repositories: Read"' in raised.value.hint
