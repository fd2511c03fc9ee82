"""A broker whose installation is an OAuth consumer: its tokens open the workspace, so the operator must allow them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Workspace, files_holding, request
from tests.emulator.model import CONSUMER_GRANT_TYPE
from tests.serving.test_broker import ALLOWED, Broker, broker, given, state

__all__ = ["broker"]  # a fixture

WHOLE = (*ALLOWED, "--whole-workspace")
REFUSED = "the token would open the whole workspace, which this broker does not hand out"


def requests(acme: Workspace) -> int:
    """Return the number of tokens that were requested for consumers."""
    return len(acme.bitbucket.grants(CONSUMER_GRANT_TYPE))


@pytest.fixture
def only_consumer(acme: Workspace, broker: Broker) -> Broker:
    """A broker that has an injected consumer and no Connect app."""
    consumer = acme.bitbucket.add_consumer()
    acme.installation.write_text(
        json.dumps(acme.bitbucket.consumer_json(consumer, workspaceUuid=acme.app.workspace_uuid))
    )
    return broker


@pytest.fixture
def with_successor(acme: Workspace, broker: Broker) -> Broker:
    """A broker that has a Connect app, and a consumer for the time after Connect."""
    both = {"clientInfo": acme.bitbucket.payload(acme.app)}
    both |= acme.bitbucket.consumer_json(acme.bitbucket.add_consumer())
    acme.installation.write_text(json.dumps(both))
    return broker


def test_no_request_is_made_unless_the_operator_allows_it(acme: Workspace, only_consumer: Broker) -> None:
    done = only_consumer.serve(request(acme.url) + "\n")

    assert given(done) == {"quit": "1", "bbjwt-error": REFUSED}
    assert requests(acme) == 0
    assert only_consumer.lines()[-1]["outcome"] == "error"


def test_one_token_serves_the_workspace_and_says_so(acme: Workspace, only_consumer: Broker) -> None:
    first = given(only_consumer.serve(request(acme.url) + "\n", *WHOLE))
    other = request(f"{acme.bitbucket.base_url}/acme/lib-a")
    second = given(only_consumer.serve(other + "\n", *WHOLE))

    assert first == second
    assert first["bbjwt-opens"] == "workspace"
    assert requests(acme) == 1
    assert all("workspace" in str(line["reason"]) for line in only_consumer.lines())
    # The allow-list applies, and a cached token is not returned once the operator no longer allows it.
    secret = only_consumer.serve(request(f"{acme.bitbucket.base_url}/acme/secrets") + "\n", *WHOLE)
    assert "password" not in given(secret)
    assert given(only_consumer.serve(request(acme.url) + "\n"))["bbjwt-error"] == REFUSED


def test_token_of_a_commands_consumer_is_kept_and_returned_only_while_the_operator_allows_it(
    acme: Workspace, only_consumer: Broker
) -> None:
    consumer, runs = acme.machine.home / "consumer", acme.machine.home / "runs"
    acme.installation.rename(consumer)
    acme.installation.write_text(json.dumps(acme.bitbucket.payload(acme.bitbucket.install("beta"))))
    options = (f"--installation-command=echo run >>{runs}; cat {consumer}", f"--host={acme.bitbucket.host}")
    first, second = (
        given(only_consumer.serve(request(f"{acme.bitbucket.base_url}/acme/{name}") + "\n", *WHOLE, options=options))
        for name in ("widgets", "lib-a")
    )

    assert first == second
    assert first["bbjwt-opens"] == "workspace"
    assert given(only_consumer.serve(request(acme.url) + "\n", options=options))["bbjwt-error"] == REFUSED
    assert runs.read_text() == "run\n"


def test_refused_token_is_replaced_once_a_minute_for_all_repositories(acme: Workspace, only_consumer: Broker) -> None:
    token = given(only_consumer.serve(request(acme.url) + "\n", *WHOLE))["password"]
    for name in ("widgets", "lib-a", "lib-b"):
        refused = request(f"{acme.bitbucket.base_url}/acme/{name}") + f"capability[]=state\nstate[]={state(token)}\n\n"
        assert "password" not in given(only_consumer.serve(refused, *WHOLE))
        others = request(f"{acme.bitbucket.base_url}/acme/{name}") + "\n"
        assert given(only_consumer.serve(others, *WHOLE))["password"] == token
    assert requests(acme) == 1


def test_request_by_uuids_is_not_allowed(acme: Workspace, only_consumer: Broker) -> None:
    url = f"{acme.bitbucket.base_url}/{acme.app.workspace_uuid}/{acme.widgets.uuid}"
    done = given(only_consumer.serve(request(url) + "\n", *WHOLE))

    assert done["bbjwt-error"] == "this broker hands out no token for this repository"
    assert acme.bitbucket.helper_requests() == []


def test_after_connect_a_broker_stops_unless_the_operator_allows_it(acme: Workspace, with_successor: Broker) -> None:
    narrow = given(with_successor.serve(request(acme.url) + "\n"))
    assert "bbjwt-opens" not in narrow
    assert acme.bitbucket.tokens[narrow["password"]].repository == acme.widgets.uuid
    acme.bitbucket.end_connect("gone")
    other = request(f"{acme.bitbucket.base_url}/acme/lib-a") + "\n"

    assert given(with_successor.serve(other))["bbjwt-error"] == REFUSED
    assert requests(acme) == 0
    assert given(with_successor.serve(other, *WHOLE))["bbjwt-opens"] == "workspace"


def test_client_keeps_the_token_only_in_its_runtime_folder(
    acme: Workspace, only_consumer: Broker, shared_memory: Path
) -> None:
    options = (f"--broker={only_consumer.where(*WHOLE)}", f"--host={acme.bitbucket.host}")
    token = acme.get(*options).stdout.partition("password=")[2].splitlines()[0]
    assert len(files_holding(acme.machine.runtime, token)) == 1
    acme.machine.bbjwt("forget", "--all")
    acme.machine.runtime.chmod(0o755)
    token = acme.get(*options).stdout.partition("password=")[2].splitlines()[0]

    assert files_holding(shared_memory.parent, token) == []
    assert files_holding(acme.machine.runtime, token) == []
