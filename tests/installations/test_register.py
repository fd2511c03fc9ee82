"""`register` with all it takes: OAuth consumers, secrets of registered apps, and the trial of a new secret."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, PATIENCE, Machine, Workspace, answer
from tests.emulator import Fault
from tests.installations.test_registration import entries_of, files_holding, registry_of


@pytest.fixture
def vendor(acme: Workspace) -> Workspace:
    """The usual scene, on a machine without a registered installation."""
    del acme.machine.environment["BBJWT_INSTALLATION"]
    return acme


def register(scene: Workspace, *words: str | Path, payload: object = None, check: bool = True) -> Any:
    """Register a payload, by default the scene's app, with its secret in a file."""
    data = json.dumps(scene.bitbucket.payload(scene.app) if payload is None else payload)
    return scene.machine.bbjwt("register", "--insecure-storage", *words, "-", data=data, check=check)


def listed(machine: Machine) -> list[dict[str, Any]]:
    """Return the output of ``list --json``."""
    found: list[dict[str, Any]] = json.loads(machine.bbjwt("list", "--json").stdout)
    return found


def consumer_of(scene: Workspace, **changes: Any) -> dict[str, Any]:
    """An OAuth consumer of acme as JSON."""
    fields = {"key": "consumer-1", "secret": "the-consumers-secret", "workspace": "acme"}
    return {"oauthConsumer": fields | {"baseUrl": scene.bitbucket.base_url} | changes}


def secret_file(scene: Workspace, text: str, mode: int = 0o600) -> Path:
    """A file for --secret-file."""
    path = scene.machine.home / "secret"
    path.write_text(text)
    path.chmod(mode)
    return path


def registered_app(scene: Workspace) -> dict[str, Any]:
    """The payload of an app that is registered under Develop apps, without its secret."""
    payload: dict[str, Any] = scene.bitbucket.payload(scene.app)
    scene.app.client_key = f"ari:cloud:bitbucket::app/{scene.app.workspace_uuid}/{scene.app.key}"
    del payload["sharedSecret"]
    return payload | {"clientKey": scene.app.client_key}


# OAuth consumers.


def test_consumer_is_registered_without_a_request(vendor: Workspace) -> None:
    done = register(vendor, payload=consumer_of(vendor))

    assert "its tokens open every repository of acme" in done.stderr
    assert "the-consumers-secret" not in done.stderr
    (one,) = listed(vendor.machine)
    assert (one["kind"], one["after_connect"], one["app"], one["client_key"]) == (
        "oauth-consumer",
        False,
        "consumer-1",
        None,
    )
    assert len(files_holding(vendor.machine.home / ".config", "the-consumers-secret")) == 1
    assert vendor.bitbucket.seen == []
    vendor.machine.bbjwt("unregister", "acme")
    assert list(vendor.machine.home.glob(".config/git-credential-bbjwt/*")) == []


def test_consumer_is_registered_in_addition_to_its_app(vendor: Workspace) -> None:
    register(vendor)
    register(vendor, "--after-connect", payload=consumer_of(vendor))

    assert [(one["kind"], one["after_connect"]) for one in listed(vendor.machine)] == [
        ("connect", False),
        ("oauth-consumer", True),
    ]
    assert len(entries_of(vendor.machine)) == 1
    assert "password" in answer(vendor.get())
    assert vendor.machine.bbjwt("jwt", "acme").stdout.count(".") == 2
    vendor.machine.bbjwt("unregister", "acme", "--app", "consumer-1")
    assert [one["kind"] for one in listed(vendor.machine)] == ["connect"]


def test_app_and_consumer_of_one_payload_are_registered_as_a_pair(vendor: Workspace) -> None:
    both = {"clientInfo": vendor.bitbucket.payload(vendor.app)} | consumer_of(vendor)
    done = register(vendor, payload={"SecretString": json.dumps(both)})

    assert [(one["kind"], one["after_connect"]) for one in listed(vendor.machine)] == [
        ("connect", False),
        ("oauth-consumer", True),
    ]
    assert "when Connect has ended" in done.stderr


@pytest.mark.parametrize(
    ("words", "payload"),
    [
        (["--after-connect"], None),
        (["--workspace=beta"], "consumer"),
        (["--oauth-consumer"], "consumer"),
        (["--secret-file=/etc/hostname"], "consumer"),
    ],
)
def test_options_that_exclude_each_other_register_nothing(
    vendor: Workspace, words: list[str], payload: str | None
) -> None:
    done = register(vendor, *words, payload=consumer_of(vendor) if payload else None, check=False)

    assert done.returncode in (1, 2)
    assert not registry_of(vendor.machine).exists()


@pytest.mark.parametrize("words", [["--workspace=acme"], [], ["--workspace=acme", "--workspace=beta"]])
def test_oauth_consumer_without_a_terminal_is_a_usage_error(vendor: Workspace, words: list[str]) -> None:
    done = vendor.machine.bbjwt("register", "--oauth-consumer", *words, check=False)

    assert done.returncode == 2
    assert ("pipe {" in done.stderr) == (words == ["--workspace=acme"])


def test_secret_file_beside_an_oauth_consumer_is_refused_before_anything_is_asked(vendor: Workspace) -> None:
    words = ("register", "--oauth-consumer", "--workspace=acme", "--secret-file=/etc/hostname")
    done = vendor.machine.bbjwt(*words, check=False)

    assert done.returncode == 2
    assert "--secret-file is for the payloads of Connect apps" in done.stderr


@contextmanager
def at_a_terminal(machine: Machine, *words: str | Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the command at its own terminal."""
    terminal, keyboard = pty.openpty()
    with subprocess.Popen(
        [COMMAND, *words],
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
        env=machine.env(),
        start_new_session=True,
        # getpass reads the controlling terminal, which the first terminal opened becomes.
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    ) as running:
        os.close(keyboard)
        yield running, terminal
        os.close(terminal)


def answered(terminal: int, questions: list[tuple[bytes, str]]) -> bytes:
    """Answer each question as it comes; return all that was shown."""
    shown = b""
    for question, reply in questions:
        while question not in shown.rpartition(b"\n")[2]:
            shown += os.read(terminal, 4096)
        os.write(terminal, reply.encode() + b"\n")
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:
        pass
    return shown


def test_key_and_secret_of_a_consumer_are_asked_for(vendor: Workspace) -> None:
    words = ("register", "--insecure-storage", "--oauth-consumer", "--workspace", "Acme", "--after-connect")
    with at_a_terminal(vendor.machine, *words) as (running, terminal):
        shown = answered(terminal, [(b"Key", "typed-key"), (b"Secret", "typed-secret")])
        assert running.wait(PATIENCE) == 0, shown

    assert b"typed-secret" not in shown
    (one,) = listed(vendor.machine)
    assert (one["app"], one["workspaces"], one["after_connect"]) == ("typed-key", ["acme"], True)
    assert len(files_holding(vendor.machine.home / ".config", "typed-secret")) == 1


def test_empty_secret_at_the_terminal_registers_nothing(vendor: Workspace) -> None:
    words = ("register", "--insecure-storage", "--oauth-consumer", "--workspace", "acme")
    with at_a_terminal(vendor.machine, *words) as (running, terminal):
        shown = answered(terminal, [(b"Key", "typed-key"), (b"Secret", "")])
        assert running.wait(PATIENCE) == 2, shown

    assert not registry_of(vendor.machine).exists()


# The secret of a registered app.


def test_secret_file_serves_all_payloads_of_the_call(vendor: Workspace) -> None:
    first = registered_app(vendor)
    another = "{00000000-0000-0000-0000-000000000000}"
    second = first | {"clientKey": first["clientKey"].replace(vendor.app.workspace_uuid, another)}
    second["principal"] = {"username": "beta"}
    path = secret_file(vendor, f"\ufeff{vendor.app.shared_secret}\n")
    data = json.dumps([first, second])
    done = vendor.machine.bbjwt("register", "--insecure-storage", "--secret-file", path, "-", data=data)

    assert "every workspace that has the app" in done.stderr
    assert "registered 2 of 2" in done.stderr
    assert vendor.app.shared_secret not in done.stderr
    assert "password" in answer(vendor.get())
    assert vendor.machine.bbjwt("jwt", "beta").stdout.count(".") == 2


def test_secret_file_replaces_the_secret_of_the_payload(vendor: Workspace) -> None:
    path = secret_file(vendor, vendor.app.shared_secret)
    payload = vendor.bitbucket.payload(vendor.app) | {"sharedSecret": "an-old-secret-in-the-payload"}
    vendor.machine.bbjwt("register", "--insecure-storage", f"--secret-file={path}", "-", data=json.dumps(payload))

    assert "password" in answer(vendor.get())
    assert files_holding(vendor.machine.home / ".config", "an-old-secret-in-the-payload") == []


def test_payload_of_a_registered_app_without_a_secret_names_the_option(vendor: Workspace) -> None:
    done = register(vendor, payload=registered_app(vendor), check=False)

    assert done.returncode == 1
    assert "--secret-file" in done.stderr
    assert not registry_of(vendor.machine).exists()
    # Another app's secret would not help.
    other = vendor.bitbucket.payload(vendor.app) | {"sharedSecret": "", "clientKey": "connection:9"}
    assert "--secret-file" not in register(vendor, payload=other, check=False).stderr


def test_secret_of_a_registered_app_is_asked_for_at_a_terminal(vendor: Workspace) -> None:
    payload = vendor.machine.home / "registered.json"
    payload.write_text(json.dumps(registered_app(vendor)))
    payload.chmod(0o600)
    with at_a_terminal(vendor.machine, "register", "--insecure-storage", payload) as (running, terminal):
        shown = answered(terminal, [(b"Secret of the app", vendor.app.shared_secret)])
        assert running.wait(PATIENCE) == 0, shown

    assert vendor.app.shared_secret.encode() not in shown
    assert b"every workspace that has the app" in shown
    assert "password" in answer(vendor.get())


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_secret_file_that_others_can_write_is_refused(vendor: Workspace, mode: int) -> None:
    path = secret_file(vendor, vendor.app.shared_secret, mode)
    done = register(vendor, f"--secret-file={path}", payload=registered_app(vendor), check=False)

    assert done.returncode == 1
    assert "chmod go-w" in done.stderr
    assert not registry_of(vendor.machine).exists()


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty"), ("a\nb", "line"), ("\n \n", "empty"), ("x" * 5_000, "large"), ("\0", "line")]
)
def test_secret_file_without_one_secret_is_refused(vendor: Workspace, text: str, reason: str) -> None:
    done = register(vendor, f"--secret-file={secret_file(vendor, text)}", payload=registered_app(vendor), check=False)

    assert done.returncode == 1
    assert reason in done.stderr
    assert not registry_of(vendor.machine).exists()


def test_secret_on_the_command_line_by_mistake_is_not_repeated(vendor: Workspace) -> None:
    done = register(vendor, "--secret-file=the-secret-itself", payload=registered_app(vendor), check=False)

    assert done.returncode == 1
    assert "the-secret-itself" not in done.stderr


def test_injected_payload_of_a_registered_app_needs_the_secret_in_it(vendor: Workspace) -> None:
    payload = registered_app(vendor)
    done = vendor.get(check=False, BBJWT_INSTALLATION=json.dumps(payload))

    assert (done.returncode, done.stdout) == (1, "quit=1\n")
    assert "sharedSecret" in done.stderr
    assert "Develop apps" in done.stderr
    with_secret = payload | {"sharedSecret": vendor.app.shared_secret}
    assert "password" in answer(vendor.get(BBJWT_INSTALLATION=json.dumps(with_secret)))


# The trial of a new secret.


def test_secret_that_bitbucket_refuses_replaces_nothing(vendor: Workspace) -> None:
    register(vendor)
    wrong = vendor.bitbucket.payload(vendor.app) | {"sharedSecret": "a-wrong-secret-that-is-new"}
    done = register(vendor, payload=wrong, check=False)

    assert done.returncode == 1
    assert "401" in done.stderr
    assert f"unregister acme --app {vendor.app.key}" in done.stderr
    assert "a-wrong-secret-that-is-new" not in done.stderr
    assert files_holding(vendor.machine.home / ".config", "a-wrong-secret-that-is-new") == []
    assert "password" in answer(vendor.get())
    assert vendor.bitbucket.seen[0].path.startswith("/2.0/workspaces/")


def test_reinstalled_app_is_tried_before_it_replaces_the_old_one(vendor: Workspace) -> None:
    register(vendor)
    new = vendor.bitbucket.install("acme")
    wrong = vendor.bitbucket.payload(new) | {"sharedSecret": "a-wrong-secret-that-is-new"}
    assert register(vendor, payload=wrong, check=False).returncode == 1
    assert listed(vendor.machine)[0]["client_key"] == vendor.app.client_key

    register(vendor, payload=vendor.bitbucket.payload(new))
    assert listed(vendor.machine)[0]["client_key"] == new.client_key


def test_first_registration_is_not_tried(vendor: Workspace) -> None:
    register(vendor, payload=vendor.bitbucket.payload(vendor.app) | {"sharedSecret": "wrong-and-not-tried"})

    assert vendor.bitbucket.seen == []


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500])
def test_secret_that_could_not_be_tried_replaces_with_a_note(vendor: Workspace, status: int) -> None:
    register(vendor)
    vendor.bitbucket.misbehave("api", *[Fault(status=status, body=b"no")] * 20)
    vendor.app.shared_secret = "another-secret-for-this-app"
    done = register(vendor)

    assert "could not be tried" in done.stderr
    assert len(files_holding(vendor.machine.home / ".config", "another-secret-for-this-app")) == 1


def test_silence_is_waited_for_ten_seconds_at_most(vendor: Workspace) -> None:
    register(vendor)
    vendor.bitbucket.misbehave("api", *[Fault(delay=60)] * 5)
    started = time.monotonic()
    done = register(vendor)

    assert "could not be tried" in done.stderr
    assert time.monotonic() - started < 10 + 5
    assert len(listed(vendor.machine)) == 1


def test_payload_without_a_uuid_replaces_untried_with_a_note(vendor: Workspace) -> None:
    payload = vendor.bitbucket.payload(vendor.app) | {"clientKey": "connection:77", "principal": {"username": "acme"}}
    register(vendor, payload=payload)
    done = register(vendor, payload=payload)

    assert "was not tried" in done.stderr
    assert vendor.bitbucket.seen == []


def test_several_payloads_are_not_tried(vendor: Workspace) -> None:
    register(vendor)
    register(vendor, payload=[vendor.bitbucket.payload(vendor.app)] * 2)

    assert vendor.bitbucket.seen == []


def test_repository_of_another_workspace_registers_nothing(vendor: Workspace) -> None:
    done = register(vendor, f"--repository={vendor.bitbucket.base_url}/beta/tools", check=False)

    assert done.returncode == 2
    assert not registry_of(vendor.machine).exists()
