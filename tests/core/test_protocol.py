"""The helper as git calls it: tables of standard output, standard error and the exit status."""

from __future__ import annotations

import os
import pty
import subprocess

import pytest

from git_credential_bbjwt.core.protocol import format_answer
from tests.conftest import COMMAND, PATIENCE, Machine, Workspace, answer, assert_quits, request


def silent(done: subprocess.CompletedProcess[str]) -> bool:
    """Return whether the call printed nothing and succeeded."""
    return (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def one_line(text: str) -> bool:
    """Return whether ``text`` is exactly one whole line."""
    return text.count("\n") == 1 and text.endswith("\n")


def test_get_prints_user_name_token_and_expiry(acme: Workspace) -> None:
    done = acme.get()

    assert list(answer(done)) == ["username", "password", "password_expiry_utc"]
    assert answer(done)["username"] == "x-token-auth"
    issued = acme.bitbucket.tokens[answer(done)["password"]]
    assert abs(int(answer(done)["password_expiry_utc"]) - issued.expires) < 5
    assert done.stderr == ""


def test_a_request_ends_at_the_blank_line_with_the_pipe_still_open(acme: Workspace) -> None:
    with subprocess.Popen(
        [COMMAND, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=acme.machine.env()
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(request(acme.url).encode() + b"\n")
        running.stdin.flush()
        assert b"password=" in running.stdout.read()
        assert running.wait(PATIENCE) == 0


def test_unknown_attributes_are_ignored(acme: Workspace) -> None:
    extra = "wwwauth[]=Basic realm=x\nfuture=thing\nfuture[]=a\nfuture[]=\nusername=someone\ncapability[]=authtype\n"

    assert answer(acme.get(extra=extra))["username"] == "x-token-auth"


def test_last_value_of_a_repeated_attribute_is_used(acme: Workspace) -> None:
    data = f"host=evil.example\n{request(acme.url)}\n"

    assert "password" in answer(acme.machine.bbjwt("get", data=data))


@pytest.mark.parametrize("protocol", ["ssh", "ftp", "cert", "smtp", "HTTPS", ""])
def test_other_protocols_get_no_answer(acme: Workspace, protocol: str) -> None:
    data = request(acme.url).replace("protocol=https", f"protocol={protocol}")

    assert silent(acme.machine.bbjwt("get", data=data))
    assert "not https" in acme.machine.bbjwt("--verbose", "get", data=data).stderr


def test_the_certificate_request_of_git_has_an_empty_host_and_gets_no_answer(acme: Workspace) -> None:
    assert silent(acme.machine.bbjwt("get", data="protocol=cert\nhost=\npath=/a/key\n\n"))


def test_http_for_a_known_host_is_a_warning(acme: Workspace) -> None:
    done = acme.machine.get(acme.url.replace("https", "http"))

    assert (done.stdout, done.returncode) == ("", 0)
    assert one_line(done.stderr)
    assert "https" in done.stderr


@pytest.mark.parametrize("url", ["https://github.com/acme/widgets", "http://github.com/acme/widgets"])
def test_a_foreign_host_gets_no_answer(acme: Workspace, url: str) -> None:
    assert silent(acme.machine.get(url))
    assert "no installation" in acme.machine.get(url, "--verbose").stderr


def test_password_in_a_host_is_not_traced(acme: Workspace) -> None:
    traced = acme.machine.get(acme.url.replace("://", "://x-token-auth:a-password@"), "--verbose").stderr
    assert "no installation" in traced
    assert "a-password" not in traced


def test_a_foreign_workspace_gets_no_answer(acme: Workspace) -> None:
    url = acme.url.replace("acme", "other")

    assert silent(acme.machine.get(url))
    assert "no installation" in acme.machine.get(url, "--verbose").stderr
    assert acme.bitbucket.seen == []


def test_another_app_than_the_workspaces_is_an_error(acme: Workspace) -> None:
    assert_quits(acme.get("--app", "another", check=False), "--app", acme.app.key)
    assert acme.bitbucket.seen == []
    acme.write_personal_installation()  # Only Bitbucket knows its workspace.
    assert "--app" in acme.get("--app", "another", "--verbose").stderr


def test_request_without_a_path_names_the_command_that_makes_git_send_it(acme: Workspace) -> None:
    done = acme.machine.get(acme.bitbucket.base_url)

    assert (done.stdout, done.returncode) == ("", 0)
    assert one_line(done.stderr)
    assert f"git config --global credential.{acme.bitbucket.base_url}.useHttpPath true" in done.stderr


def test_git_is_told_to_quit_if_no_token_is_available(acme: Workspace) -> None:
    acme.app.shared_secret = "another one since the app was installed again"
    done = acme.get(check=False)

    assert (done.stdout, done.returncode) == ("quit=1\n", 1)
    error, hint = done.stderr.splitlines()
    assert error.startswith("git-credential-bbjwt: error: ")
    assert hint.startswith("hint: ")


def test_git_stops_at_once_and_does_not_prompt(acme: Workspace) -> None:
    acme.app.uninstalled = True
    done = acme.machine.git("clone", acme.url, "w", check=False, GIT_TERMINAL_PROMPT=None, GIT_ASKPASS="false")

    assert done.returncode == 128
    assert "told us to quit" in done.stderr


@pytest.mark.parametrize(
    "data",
    [
        b"protocol=https\nhost\n\n",
        b"protocol=https\nhost=bitbucket.org\npath=acme/wid\0gets\n\n",
        b"protocol=https\nhost=bitbucket.org\npath=" + b"a" * 65_531 + b"\n\n",
        b"protocol=https\npath=acme/widgets\n\n",
        b"",
        b"\n",
        b"\xff\xfe\n\n",
        b"password",
        b"a=b\n" * 2_000_000,
    ],
    ids=["no equals", "NUL", "long line", "no host", "empty", "blank", "bytes", "cut short", "endless"],
)
def test_malformed_request_prints_one_line_and_exits_with_1(acme: Workspace, data: bytes) -> None:
    for operation in ("get", "erase"):
        done = acme.machine.bbjwt(operation, data=data, check=False)
        assert (done.stdout, done.returncode) == ("", 1)
        assert one_line(done.stderr)


def test_a_line_of_exactly_the_limit_is_read(acme: Workspace) -> None:
    extra = "x=" + "a" * (65_535 - 2) + "\n"

    assert "password" in answer(acme.get(extra=extra))


def test_a_request_is_read_up_to_its_limit_and_no_further(acme: Workspace) -> None:
    data = request(acme.url).encode()
    line = b"wwwauth[]=" + b"x" * 65_000 + b"\n"
    data += line * ((4 * 1024 * 1024 - len(data)) // len(line))
    data += b"a=" + b"x" * (4 * 1024 * 1024 - len(data) - 3) + b"\n"

    assert len(data) == 4 * 1024 * 1024
    assert "password" in answer(acme.machine.bbjwt("get", data=data))
    done = acme.machine.bbjwt("get", data=data[:-1] + b"x\n", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "longer than any git sends" in done.stderr


@pytest.mark.parametrize("value", ["a\nhost=evil.example", "a\rb", "a\0b", "\x1b[2J", "é", "\u2028", "a\x7f"])
def test_value_cannot_add_a_line_to_the_answer(value: str) -> None:
    with pytest.raises(ValueError, match="password"):
        format_answer([("username", "x-token-auth"), ("password", value)])


def test_a_malformed_line_is_not_repeated(acme: Workspace) -> None:
    done = acme.machine.bbjwt("get", data="host=bitbucket.org\nhunter2-secret\n\n", check=False)

    assert "hunter2" not in done.stderr + done.stdout


def test_store_reads_and_keeps_nothing(acme: Workspace) -> None:
    before = sorted(acme.machine.home.rglob("*"))

    assert silent(acme.machine.bbjwt("store", data=request(acme.url) + "username=u\npassword=p\n\n"))
    assert sorted(acme.machine.home.rglob("*")) == before
    assert acme.machine.records() == []


def test_capability_is_announced(machine: Machine) -> None:
    assert machine.bbjwt("capability").stdout == "version 0\ncapability state\n"


@pytest.mark.parametrize("word", ["frobnicate", "approve2", "get-later"])
def test_future_operations_are_ignored(machine: Machine, word: str) -> None:
    assert silent(machine.bbjwt(word, data="protocol=https\n\n"))


def test_an_unknown_command_at_a_terminal_is_a_usage_error(machine: Machine) -> None:
    terminal, keyboard = pty.openpty()
    done = subprocess.run([COMMAND, "frobnicate"], stdin=keyboard, capture_output=True, env=machine.env())
    os.close(terminal)
    os.close(keyboard)

    assert done.returncode == 2
    assert b"frobnicate" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--bogus", "get"],
        ["--scope"],
        ["--scope", "", "get"],
        ["--scope", 'a"b', "get"],
        ["--timeout", "soon", "get"],
        ["--timeout", "0", "get"],
        ["--timeout", "nan", "get"],
        ["--token-store", "disk", "get"],
        ["--app", "", "get"],
        ["get", "store"],
    ],
)
def test_wrong_command_line_exits_with_2(machine: Machine, arguments: list[str]) -> None:
    done = machine.bbjwt(*arguments, data=request("https://bitbucket.org/acme/widgets") + "\n", check=False)

    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr


def test_options_may_be_written_with_an_equals_sign(acme: Workspace) -> None:
    assert "password" in answer(acme.get("--scope=repository", "--timeout=30", "--token-store=none"))


def test_only_an_answer_from_the_cache_has_a_state(acme: Workspace) -> None:
    announced = "capability[]=authtype\ncapability[]=state\n"
    fresh = acme.get(extra=announced).stdout
    cached = acme.get(extra=announced).stdout.splitlines()

    assert "continue" not in fresh
    assert cached[0] == "capability[]=state"
    assert cached[-1] == "continue=1"
    assert cached[-2].startswith("state[]=bbjwt:")
    assert "continue" not in acme.get().stdout


def test_closed_descriptors_do_no_harm(acme: Workspace) -> None:
    for closed in ("0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"):
        done = acme.machine.run("sh", "-c", f'exec "$0" get {closed}', COMMAND, data=request(acme.url), check=False)
        assert done.returncode in (0, 1)
    assert [record.read_bytes()[:5] for record in acme.machine.records()] == [b"bbjwt"]


def test_reader_that_has_gone_causes_no_traceback(acme: Workspace) -> None:
    acme.get()
    done = acme.machine.run("sh", "-c", '"$0" get <request | true; "$0" --help | true', COMMAND, check=False)

    assert "Traceback" not in done.stderr
