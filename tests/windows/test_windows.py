"""The same helper on Windows: protocol, mint, cache, locks, Credential Manager, git, faults, attacks."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.emulator import Fault
from tests.windows.conftest import Scene, Windows, windows_path


def attributes(done: subprocess.CompletedProcess[bytes]) -> dict[str, str]:
    """Return the attributes of a helper's answer, whose lines must be as git reads them."""
    assert b"\r" not in done.stdout
    return dict(line.split("=", 1) for line in done.stdout.decode().splitlines())


def test_pip_makes_an_exe_from_a_wheel_for_windows(windows_machine: Windows) -> None:
    (about,) = (windows_machine.python / "Lib/site-packages").glob("git_credential_bbjwt-*.dist-info")

    assert windows_machine.command.exists()
    assert "Tag: py3-none-win_amd64" in (about / "WHEEL").read_text()
    assert windows_machine.bbjwt("--version").stdout.startswith(b"git-credential-bbjwt ")


def test_protocol(scene: Scene) -> None:
    run = scene.windows.bbjwt

    assert run("capability").stdout == b"version 0\ncapability state\n"
    assert run("get", data=b"protocol=https\nhost=github.com\npath=a/b\n\n").stdout == b""
    assert run("store", data=scene.request[:-1] + b"username=a\npassword=b\n\n").stdout == b""
    assert run("get", data=b"nonsense\n\n", check=False).returncode == 1
    assert run("later", data=scene.request).stdout == b""


def test_help_has_the_same_line_ends(scene: Scene) -> None:
    done = scene.windows.bbjwt("help")

    assert b"usage:" in done.stdout
    assert b"\r" not in done.stdout + done.stderr


def test_mistyped_command_is_an_error(scene: Scene) -> None:
    done = scene.windows.bbjwt("confgure", data=b"", check=False)

    assert done.returncode == 2
    assert b"configure" in done.stderr


def test_mint_and_cache(scene: Scene) -> None:
    first, second = attributes(scene.get()), attributes(scene.get())

    assert first["username"] == "x-token-auth"
    assert first["password"] in scene.bitbucket.tokens
    assert second == first
    assert scene.bitbucket.mints() == 1
    (record,) = [path for path in scene.windows.data.glob("Cache/??/??/*") if "~" not in path.name]
    assert record.read_bytes().endswith(b"\nend\n")

    refused = scene.request[:-1] + f"password={first['password']}\n\n".encode()
    scene.windows.bbjwt("erase", data=refused)
    assert attributes(scene.get())["password"] != first["password"]


def test_state_heals_within_one_git_command(scene: Scene) -> None:
    first = attributes(scene.get())
    asked = scene.request[:-1] + b"capability[]=state\n"
    kept = attributes(scene.windows.bbjwt("get", data=asked + b"\n"))
    assert (kept["password"], kept["continue"]) == (first["password"], "1")

    again = attributes(scene.windows.bbjwt("get", data=asked + f"state[]={kept['state[]']}\n\n".encode()))
    assert again["password"] not in ("", first["password"])


def test_many_at_once_make_one_mint(scene: Scene) -> None:
    helpers = [scene.start() for _ in range(8)]
    answers = {helper.communicate()[0] for helper in helpers}

    assert len(answers) == 1
    assert b"password=" in answers.pop()
    assert scene.bitbucket.mints() == 1


def test_next_process_does_not_wait_for_a_killed_process(scene: Scene) -> None:
    scene.bitbucket.misbehave("api", Fault(delay=60))
    helper = scene.start()
    scene.wait_until_asked()
    helper.send_signal(signal.SIGKILL)
    helper.communicate()

    assert "password" in attributes(scene.get("--timeout", "20"))


def test_secret_is_only_in_the_credential_manager(scene: Scene) -> None:
    run = scene.windows.bbjwt
    run("register", windows_path(scene.installation))
    kept = b"".join(path.read_bytes() for path in scene.windows.data.rglob("*") if path.is_file())

    assert scene.app.shared_secret.encode() not in kept
    assert scene.app.client_key.encode() in kept
    assert b"secret in the keyring" in run("list", BBJWT_INSTALLATION=None).stdout
    assert "password" in attributes(scene.get(BBJWT_INSTALLATION=None))

    run("unregister", "acme")
    assert scene.get(BBJWT_INSTALLATION=None).stdout == b""


def test_secret_that_the_credential_manager_cannot_store_is_an_error(scene: Scene) -> None:
    payload = scene.bitbucket.payload(scene.app, sharedSecret="x" * 1300)
    done = scene.windows.bbjwt("register", "-", data=json.dumps(payload).encode(), check=False)

    assert done.returncode == 1
    assert b"2560 bytes" in done.stderr


def test_git_clones(scene: Scene) -> None:
    # The helper uses Windows' paths, git those of Linux.
    helper = scene.home / "helper"
    helper.write_text(f'#!/bin/sh\nGIT_SSL_CAINFO= exec wine "{scene.windows.command}" "$@"\n')
    helper.chmod(0o755)
    section = f"credential.{scene.bitbucket.base_url}"
    words = ["-c", f"{section}.helper={helper}", "-c", f"{section}.useHttpPath=true", "clone", "-q"]
    environment = {
        **scene.windows.environment,
        "HOME": str(scene.home),
        "GIT_SSL_CAINFO": str(scene.bitbucket.ca_file),
        "GIT_TERMINAL_PROMPT": "0",
        "BBJWT_TRACE": windows_path(scene.home / "trace"),
    }
    into = scene.home / "clone"
    url = scene.bitbucket.url(scene.widgets)
    subprocess.run(["git", *words, url, into], env=environment, check=True, capture_output=True)

    assert (into / "README.md").exists()
    assert "a new token for" in (scene.home / "trace").read_text()


def test_configure_writes_a_command_for_gits_shell(scene: Scene) -> None:
    before = "[user]\n\tname = A\n"
    (scene.home / ".gitconfig").write_text(before)
    scene.windows.bbjwt("configure")
    written = (scene.home / ".gitconfig").read_text()

    assert windows_path(scene.windows.command).replace("\\", "/") in written
    assert f'[credential "{scene.bitbucket.base_url}"]' in written
    scene.windows.bbjwt("configure")
    assert (scene.home / ".gitconfig").read_text() == written
    scene.windows.bbjwt("unconfigure")
    assert (scene.home / ".gitconfig").read_text() == before


def test_exec_exits_with_the_commands_status(scene: Scene) -> None:
    run = scene.windows.bbjwt
    python = str(scene.windows.python / "python.exe")
    shows = "import os, sys; print(os.environ['GIT_CONFIG_COUNT']); sys.exit(7)"
    done = run("exec", "--", python, "-c", shows, check=False)

    assert done.returncode == 7
    assert done.stdout.split() == [b"3"]
    assert run("exec", "--", "there-is-no-such-program", check=False).returncode == 127


def test_doctor_finds_no_problem(scene: Scene) -> None:
    scene.windows.bbjwt("configure")
    done = scene.windows.bbjwt("doctor", scene.bitbucket.url(scene.widgets), check=False)

    assert "WinVaultKeyring" in done.stdout.decode()
    assert "✗" not in done.stdout.decode(), done.stdout.decode()


def test_an_installation_command_is_run_by_cmd(scene: Scene) -> None:
    command = f"type {windows_path(scene.installation)}"
    options = ["--installation-command", command, "--host", scene.bitbucket.host]

    assert "password" in attributes(scene.get(*options, BBJWT_INSTALLATION=None))
    failing = scene.get("--installation-command", "exit 3", *options[2:], check=False, BBJWT_INSTALLATION=None)
    assert failing.stdout == b"quit=1\n"
    assert b"exit status 3" in failing.stderr


def test_a_broker_by_command(scene: Scene) -> None:
    broker = "echo password=from-the-broker"
    options = ["--broker", broker, "--host", scene.bitbucket.host]

    assert attributes(scene.get(*options, BBJWT_INSTALLATION=None))["password"] == "from-the-broker"
    socket = scene.get("--broker", "unix:/run/broker", *options[2:], check=False, BBJWT_INSTALLATION=None)
    assert b"command line" in socket.stderr
    serve = scene.windows.bbjwt("serve", "--allow", "acme/*", "--audit", "none", check=False)
    assert (serve.returncode, b"Linux" in serve.stderr) == (2, True)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("token", Fault(status=200, body=b"{}")),
        ("token", Fault(status=200, body=b'{"access_token": "a\\r\\nhost=evil", "token_type": "bearer"}')),
        ("token", Fault(status=401, body=b'{"error": "invalid_grant"}')),
        ("token", Fault(status=302, headers={"Location": "https://evil.example/"})),
        ("api", Fault(status=410, body=b"gone")),
        ("api", Fault(status=200, body=b"[]")),
        ("api", Fault(truncate=True)),
    ],
)
def test_bad_answer_is_an_error_with_a_reason(scene: Scene, kind: str, fault: Fault) -> None:
    scene.bitbucket.misbehave(kind, *[fault] * 5)
    done = scene.get("--timeout", "10", check=False)

    assert done.stdout == b"quit=1\n"
    assert b"error: " in done.stderr
    assert b"hint: " in done.stderr
    assert b"internal error" not in done.stderr


@pytest.mark.parametrize(
    "data",
    [
        b"protocol=https\nhost=HOST\npath=acme/wid\0gets\n\n",
        b"protocol=https\nhost=HOST\npath=acme/" + b"x" * 70_000 + b"\n\n",
        b"protocol=https\nhost=HOST\npath=acme/..\\..\\secret\n\n",
        b"protocol=https\nhost=HOST\npath=acme/widgets:stream\n\n",
        b"protocol=https\nhost=HOST\npath=acme/con\n\n",
        b"protocol=https\r\nhost=HOST\r\npath=acme/widgets\r\n\r\n",
        b"protocol=http\nhost=HOST\npath=acme/widgets\n\n",
    ],
)
def test_a_hostile_request_gets_no_token(scene: Scene, data: bytes) -> None:
    done = scene.windows.bbjwt("get", data=data.replace(b"HOST", scene.bitbucket.host.encode()), check=False)

    assert b"password" not in done.stdout
    assert b"internal error" not in done.stderr
    assert [path for path in scene.windows.data.rglob("*") if path.is_file() and "secret" in path.name] == []


def test_current_folder_and_pythonpath_choose_no_code(scene: Scene, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "truststore.py").write_text("open('was-run', 'w')\n")
    (planted / "platformdirs.py").write_text("open('was-run', 'w')\n")
    for program in ("git.exe", "cmd.exe"):
        # Windows looks into the current folder first.
        (planted / program).write_bytes((scene.windows.python / "python.exe").read_bytes())
    get = scene.windows.bbjwt
    path = windows_path(planted)
    words = ["--token-store", "none", "get"]
    assert "password" in attributes(get(*words, data=scene.request, cwd=planted, PYTHONPATH=path))
    asked = ["--installation-command", f"type {windows_path(scene.installation)}", "--host", scene.bitbucket.host]
    done = get(*asked, *words, data=scene.request, cwd=planted, PYTHONPATH=path, BBJWT_INSTALLATION=None)
    assert "password" in attributes(done)
    assert not (planted / "was-run").exists()
