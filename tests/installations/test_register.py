"""`register` with all it takes: OAuth consumers, secrets of registered apps, and the trial of a new secret."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import (
    COMMAND,
    PATIENCE,
    Machine,
    Workspace,
    answer,
    ends_within,
    entries_of,
    files_holding,
    registry_of,
)
from tests.emulator import Fault


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


def test_consumer_is_registered_without_a_request(unregistered: Workspace) -> None:
    done = register(unregistered, payload=consumer_of(unregistered))

    assert "its tokens open every repository of acme" in done.stderr
    assert "the-consumers-secret" not in done.stderr
    (one,) = listed(unregistered.machine)
    assert (one["kind"], one["after_connect"], one["app"], one["client_key"]) == (
        "oauth-consumer",
        False,
        "consumer-1",
        None,
    )
    assert len(files_holding(unregistered.machine.home / ".config", "the-consumers-secret")) == 1
    assert unregistered.bitbucket.seen == []
    unregistered.machine.bbjwt("unregister", "acme")
    assert list(unregistered.machine.home.glob(".config/git-credential-bbjwt/*")) == []


def test_consumer_is_registered_in_addition_to_its_app(unregistered: Workspace) -> None:
    register(unregistered)
    register(unregistered, "--after-connect", payload=consumer_of(unregistered))

    assert [(one["kind"], one["after_connect"]) for one in listed(unregistered.machine)] == [
        ("connect", False),
        ("oauth-consumer", True),
    ]
    assert len(entries_of(unregistered.machine)) == 1
    assert "password" in answer(unregistered.get())
    assert unregistered.machine.bbjwt("jwt", "acme").stdout.count(".") == 2
    unregistered.machine.bbjwt("unregister", "acme", "--app", "consumer-1")
    assert [one["kind"] for one in listed(unregistered.machine)] == ["connect"]


def test_app_and_consumer_of_one_payload_are_registered_as_a_pair(unregistered: Workspace) -> None:
    both = {"clientInfo": unregistered.bitbucket.payload(unregistered.app)} | consumer_of(unregistered)
    done = register(unregistered, payload={"SecretString": json.dumps(both)})

    assert [(one["kind"], one["after_connect"]) for one in listed(unregistered.machine)] == [
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
    unregistered: Workspace, words: list[str], payload: str | None
) -> None:
    done = register(unregistered, *words, payload=consumer_of(unregistered) if payload else None, check=False)

    assert done.returncode in (1, 2)
    assert not registry_of(unregistered.machine).exists()


@pytest.mark.parametrize("words", [["--workspace=acme"], [], ["--workspace=acme", "--workspace=beta"]])
def test_oauth_consumer_without_a_terminal_is_a_usage_error(unregistered: Workspace, words: list[str]) -> None:
    done = unregistered.machine.bbjwt("register", "--oauth-consumer", *words, check=False)

    assert done.returncode == 2
    assert ("pipe {" in done.stderr) == (words == ["--workspace=acme"])


def test_secret_file_beside_an_oauth_consumer_is_refused_before_anything_is_asked(unregistered: Workspace) -> None:
    words = ("register", "--oauth-consumer", "--workspace=acme", "--secret-file=/etc/hostname")
    done = unregistered.machine.bbjwt(*words, check=False)

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


def test_key_and_secret_of_a_consumer_are_asked_for(unregistered: Workspace) -> None:
    words = ("register", "--insecure-storage", "--oauth-consumer", "--workspace", "Acme", "--after-connect")
    with at_a_terminal(unregistered.machine, *words) as (running, terminal):
        shown = answered(terminal, [(b"Key", "typed-key"), (b"Secret", "typed-secret")])
        assert running.wait(PATIENCE) == 0, shown

    assert b"typed-secret" not in shown
    (one,) = listed(unregistered.machine)
    assert (one["app"], one["workspaces"], one["after_connect"]) == ("typed-key", ["acme"], True)
    assert len(files_holding(unregistered.machine.home / ".config", "typed-secret")) == 1


def test_empty_secret_at_the_terminal_registers_nothing(unregistered: Workspace) -> None:
    words = ("register", "--insecure-storage", "--oauth-consumer", "--workspace", "acme")
    with at_a_terminal(unregistered.machine, *words) as (running, terminal):
        shown = answered(terminal, [(b"Key", "typed-key"), (b"Secret", "")])
        assert running.wait(PATIENCE) == 2, shown

    assert not registry_of(unregistered.machine).exists()


@pytest.mark.parametrize("cause", ["keyring", "registry"])
@pytest.mark.parametrize("words", ["--oauth-consumer --workspace acme", "-", "registered.json"])
def test_secret_that_cannot_be_registered_is_not_asked_for(unregistered: Workspace, words: str, cause: str) -> None:
    machine = unregistered.machine
    (machine.home / "registered.json").write_text(json.dumps(registered_app(unregistered)))
    (machine.home / "registered.json").chmod(0o600)
    machine.environment["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
    if cause == "registry":
        (machine.home / ".config").mkdir()
        (machine.home / ".config/git-credential-bbjwt").touch()
    where = [str(machine.home / word) if word.endswith(".json") else word for word in words.split()]
    with at_a_terminal(machine, "register", *where) as (running, terminal):
        shown = answered(terminal, [])
        assert running.wait(PATIENCE) == 1, shown

    look = f"check who owns it, and its mode: ls -ld {machine.home}/.config/git-credential-bbjwt\r\n"
    assert ("the null backend stores nothing" if cause == "keyring" else look).encode() in shown
    assert b"(not shown)" not in shown
    assert b"paste" not in shown


# The secret of a registered app.


def test_secret_file_serves_all_payloads_of_the_call(unregistered: Workspace) -> None:
    first = registered_app(unregistered)
    another = "{00000000-0000-0000-0000-000000000000}"
    second = first | {"clientKey": first["clientKey"].replace(unregistered.app.workspace_uuid, another)}
    second["principal"] = {"username": "beta"}
    path = secret_file(unregistered, f"\ufeff{unregistered.app.shared_secret}\n")
    data = json.dumps([first, second])
    done = unregistered.machine.bbjwt("register", "--insecure-storage", "--secret-file", path, "-", data=data)

    assert "every workspace that has the app" in done.stderr
    assert "registered 2 of 2" in done.stderr
    assert unregistered.app.shared_secret not in done.stderr
    assert "password" in answer(unregistered.get())
    assert unregistered.machine.bbjwt("jwt", "beta").stdout.count(".") == 2


def test_secret_file_replaces_the_secret_of_the_payload(unregistered: Workspace) -> None:
    path = secret_file(unregistered, unregistered.app.shared_secret)
    payload = unregistered.bitbucket.payload(unregistered.app) | {"sharedSecret": "an-old-secret-in-the-payload"}
    unregistered.machine.bbjwt("register", "--insecure-storage", f"--secret-file={path}", "-", data=json.dumps(payload))

    assert "password" in answer(unregistered.get())
    assert files_holding(unregistered.machine.home / ".config", "an-old-secret-in-the-payload") == []


def test_payload_of_a_registered_app_without_a_secret_names_the_option(unregistered: Workspace) -> None:
    done = register(unregistered, payload=registered_app(unregistered), check=False)

    assert done.returncode == 1
    assert "--secret-file" in done.stderr
    assert not registry_of(unregistered.machine).exists()
    # Another app's secret would not help.
    other = unregistered.bitbucket.payload(unregistered.app) | {"sharedSecret": "", "clientKey": "connection:9"}
    assert "--secret-file" not in register(unregistered, payload=other, check=False).stderr


def test_secret_of_a_registered_app_is_asked_for_at_a_terminal(unregistered: Workspace) -> None:
    payload = unregistered.machine.home / "registered.json"
    payload.write_text(json.dumps(registered_app(unregistered)))
    payload.chmod(0o600)
    with at_a_terminal(unregistered.machine, "register", "--insecure-storage", payload) as (running, terminal):
        shown = answered(terminal, [(b"Secret of the app", unregistered.app.shared_secret)])
        assert running.wait(PATIENCE) == 0, shown

    assert unregistered.app.shared_secret.encode() not in shown
    assert b"every workspace that has the app" in shown
    assert "password" in answer(unregistered.get())


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_secret_file_that_others_can_write_is_refused(unregistered: Workspace, mode: int) -> None:
    path = secret_file(unregistered, unregistered.app.shared_secret, mode)
    done = register(unregistered, f"--secret-file={path}", payload=registered_app(unregistered), check=False)

    assert done.returncode == 1
    assert "chmod go-w" in done.stderr
    assert not registry_of(unregistered.machine).exists()


def test_empty_secret_file_needs_the_secret(unregistered: Workspace) -> None:
    path = secret_file(unregistered, "")
    done = register(unregistered, f"--secret-file={path}", payload=registered_app(unregistered), check=False)

    assert f"hint: write the secret to {path}" in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty"), ("a\nb", "line"), ("\n \n", "empty"), ("x" * 5_000, "large"), ("\0", "line")]
)
def test_secret_file_without_one_secret_is_refused(unregistered: Workspace, text: str, reason: str) -> None:
    done = register(
        unregistered,
        f"--secret-file={secret_file(unregistered, text)}",
        payload=registered_app(unregistered),
        check=False,
    )

    assert done.returncode == 1
    assert reason in done.stderr
    assert not registry_of(unregistered.machine).exists()


def test_secret_on_the_command_line_by_mistake_is_not_repeated(unregistered: Workspace) -> None:
    done = register(unregistered, "--secret-file=the-secret-itself", payload=registered_app(unregistered), check=False)

    assert done.returncode == 1
    assert "the-secret-itself" not in done.stderr


def test_injected_payload_of_a_registered_app_needs_the_secret_in_it(unregistered: Workspace) -> None:
    payload = registered_app(unregistered)
    done = unregistered.get(check=False, BBJWT_INSTALLATION=json.dumps(payload))

    assert (done.returncode, done.stdout) == (1, "quit=1\n")
    assert "sharedSecret" in done.stderr
    assert "Develop apps" in done.stderr
    with_secret = payload | {"sharedSecret": unregistered.app.shared_secret}
    assert "password" in answer(unregistered.get(BBJWT_INSTALLATION=json.dumps(with_secret)))


# The trial of a new secret.


def test_secret_that_bitbucket_refuses_replaces_nothing(unregistered: Workspace) -> None:
    register(unregistered)
    wrong = unregistered.bitbucket.payload(unregistered.app) | {"sharedSecret": "a-wrong-secret-that-is-new"}
    done = register(unregistered, payload=wrong, check=False)

    assert done.returncode == 1
    assert "401" in done.stderr
    assert f"unregister acme --app {unregistered.app.key}" in done.stderr
    assert "a-wrong-secret-that-is-new" not in done.stderr
    assert files_holding(unregistered.machine.home / ".config", "a-wrong-secret-that-is-new") == []
    assert "password" in answer(unregistered.get())
    assert unregistered.bitbucket.seen[0].path.startswith("/2.0/workspaces/")


def test_reinstalled_app_is_tried_before_it_replaces_the_old_one(unregistered: Workspace) -> None:
    register(unregistered)
    new = unregistered.bitbucket.install("acme")
    wrong = unregistered.bitbucket.payload(new) | {"sharedSecret": "a-wrong-secret-that-is-new"}
    assert register(unregistered, payload=wrong, check=False).returncode == 1
    assert listed(unregistered.machine)[0]["client_key"] == unregistered.app.client_key

    register(unregistered, payload=unregistered.bitbucket.payload(new))
    assert listed(unregistered.machine)[0]["client_key"] == new.client_key


def test_first_registration_is_not_tried(unregistered: Workspace) -> None:
    register(
        unregistered, payload=unregistered.bitbucket.payload(unregistered.app) | {"sharedSecret": "wrong-and-not-tried"}
    )

    assert unregistered.bitbucket.seen == []


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500])
def test_secret_that_could_not_be_tried_replaces_with_a_note(unregistered: Workspace, status: int) -> None:
    register(unregistered)
    unregistered.bitbucket.misbehave("api", *[Fault(status=status, body=b"no")] * 20)
    unregistered.app.shared_secret = "another-secret-for-this-app"
    done = register(unregistered)

    assert "could not be tried" in done.stderr
    assert len(files_holding(unregistered.machine.home / ".config", "another-secret-for-this-app")) == 1


def test_silence_is_waited_for_ten_seconds_at_most(unregistered: Workspace) -> None:
    register(unregistered)
    unregistered.bitbucket.misbehave("api", *[Fault(delay=60)] * 5)
    with ends_within(10):
        done = register(unregistered)

    assert "could not be tried" in done.stderr
    assert len(listed(unregistered.machine)) == 1


def test_payload_without_a_uuid_replaces_untried_with_a_note(unregistered: Workspace) -> None:
    payload = unregistered.bitbucket.payload(unregistered.app) | {
        "clientKey": "connection:77",
        "principal": {"username": "acme"},
    }
    register(unregistered, payload=payload)
    done = register(unregistered, payload=payload)

    assert "was not tried" in done.stderr
    assert unregistered.bitbucket.seen == []


def test_several_payloads_are_not_tried(unregistered: Workspace) -> None:
    register(unregistered)
    register(unregistered, payload=[unregistered.bitbucket.payload(unregistered.app)] * 2)

    assert unregistered.bitbucket.seen == []


def test_repository_of_another_workspace_registers_nothing(unregistered: Workspace) -> None:
    done = register(unregistered, f"--repository={unregistered.bitbucket.base_url}/beta/tools", check=False)

    assert done.returncode == 2
    assert not registry_of(unregistered.machine).exists()
