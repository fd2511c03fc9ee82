"""token, jwt and a machine without a secret, and the common behaviour of all commands."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest

from git_credential_bbjwt import __version__
from git_credential_bbjwt.commands.command_line import COMMANDS
from git_credential_bbjwt.core import output
from tests.conftest import Machine, Workspace, answer, assert_quits, ends_within, until
from tests.emulator import RATE_LIMITED, Fault
from tests.system.test_neighbours import processes_of

# token


def test_token_in_each_format(acme: Workspace) -> None:
    def printed(*arguments: str) -> str:
        return acme.machine.bbjwt("token", acme.url, *arguments).stdout.removesuffix("\n")

    token = printed()
    known = json.loads(printed("--format", "json"))
    user = base64.b64decode(printed("--format=header").removeprefix("Authorization: Basic ")).decode()

    assert known == {
        "username": "x-token-auth",
        "token": token,
        "expires_at": known["expires_at"],
        "scope": "repository",
        "repository": "acme/widgets",
        "uuid": acme.widgets.uuid,
    }
    assert abs(known["expires_at"] - acme.bitbucket.tokens[token].expires) < 5
    assert user == f"x-token-auth:{token}"
    assert acme.bitbucket.mints() == 1
    elsewhere = {"GIT_CONFIG_GLOBAL": "/dev/null", "BBJWT_INSTALLATION": ""}
    acme.machine.git("clone", "-q", printed("--format", "url"), "w", also=elsewhere)
    acme.machine.git("-c", f"http.extraHeader={printed('--format', 'header')}", "ls-remote", acme.url, also=elsewhere)


def test_token_ends_in_time_if_git_does_not(acme: Workspace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "configuration")
    with ends_within(2):
        done = acme.machine.bbjwt(
            "--timeout=2", "token", acme.url, check=False, GIT_CONFIG_GLOBAL=str(tmp_path / "configuration")
        )

    assert done.returncode == 1
    assert "gave up after 2 s: waiting for git config" in done.stderr
    until(lambda: not processes_of(acme.machine))


def test_token_of_another_scope(acme: Workspace) -> None:
    acme.app.scopes = {"repository:write"}
    done = acme.machine.bbjwt("token", acme.url, "--scope", "repository:write", "--format", "json")

    assert json.loads(done.stdout)["scope"] == "repository:write"


@pytest.mark.parametrize(
    "url", ["acme/widgets", "https://bitbucket.org/acme", "https://github.com/a/b", "http://x/a/b"]
)
def test_token_for_a_foreign_repository_is_an_error_with_a_hint(acme: Workspace, url: str) -> None:
    done = acme.machine.bbjwt("token", url, check=False)

    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("git-credential-bbjwt: error: ")


def with_consumer(acme: Workspace) -> None:
    """Register an OAuth consumer in place of the Connect app."""
    payload = json.dumps(acme.bitbucket.consumer_json(acme.bitbucket.add_consumer("acme")))
    acme.machine.bbjwt("register", "--insecure-storage", "-", data=payload)
    del acme.machine.environment["BBJWT_INSTALLATION"]


def test_token_of_an_oauth_consumer_is_for_no_single_repository(acme: Workspace) -> None:
    with_consumer(acme)
    known = json.loads(acme.machine.bbjwt("token", acme.url, "--format", "json").stdout)

    assert known["repository"] is None
    assert known["uuid"] is None
    assert known["scope"] == "repository"


def test_forget_of_a_url_drops_the_workspaces_token(acme: Workspace) -> None:
    with_consumer(acme)
    acme.get()
    assert len(acme.machine.records()) > 0
    acme.machine.bbjwt("forget", acme.url)

    assert acme.machine.records() == []


def test_jwt_of_an_oauth_consumer_is_a_usage_error_that_names_other_ways(acme: Workspace) -> None:
    with_consumer(acme)
    done = acme.machine.bbjwt("jwt", "acme", check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert "git-credential-bbjwt token URL" in done.stderr
    assert "--broker" in done.stderr


def test_429_stops_token_with_a_count(acme: Workspace) -> None:
    urls = [acme.url, *(f"{acme.bitbucket.base_url}/acme/r{number}" for number in range(40))]
    for number in range(40):
        acme.bitbucket.host_repository(f"acme/r{number}", path=acme.widgets.path)
    acme.machine.bbjwt("token", acme.url)  # A cached token is printed nevertheless.
    acme.bitbucket.misbehave("api", *[RATE_LIMITED] * 80)
    done = acme.machine.bbjwt("token", "-", data="\n".join(urls), check=False)

    assert done.returncode == 1
    assert "stopped after 1 of 41 tokens" in done.stderr
    assert len(done.stdout.splitlines()) == 41


# jwt, and a machine that uses a JWT


def without_secret(acme: Workspace, *arguments: str) -> dict[str, str]:
    """Return the environment of a machine with a JWT and without a secret."""
    jwt = acme.machine.bbjwt("jwt", "acme", *arguments).stdout.strip()
    payload = acme.bitbucket.payload(acme.app)
    installation = {name: payload[name] for name in ("baseUrl", "baseApiUrl", "principal")}
    return {"BBJWT_JWT": jwt, "BBJWT_INSTALLATION": json.dumps(installation)}


def test_a_machine_with_a_jwt_needs_no_secret(acme: Workspace) -> None:
    changes = without_secret(acme)
    acme.installation.unlink()
    acme.machine.git("clone", "-q", acme.url, "w", also=changes)

    # The API does not accept the swap's JWT, so the look-up uses a transient token.
    asked = [
        (seen.method, seen.status, seen.form.get("bitbucket_repository")) for seen in acme.bitbucket.helper_requests()
    ]
    assert asked == [("GET", 401, None), ("POST", 200, None), ("GET", 200, None), ("POST", 200, acme.widgets.uuid)]
    transient = next(token for token, known in acme.bitbucket.tokens.items() if known.repository is None)
    assert acme.bitbucket.tokens[transient].scopes == {"repository"}
    everything = b"".join(path.read_bytes() for path in acme.machine.home.parent.rglob("*") if path.is_file())
    assert transient.encode() not in everything


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_look_up_uses_a_token_if_the_api_refuses_the_swaps_jwt(acme: Workspace, status: int) -> None:
    acme.bitbucket.misbehave("api", Fault(status=status, body=b"no"))
    done = acme.machine.get(acme.url, check=False, also=without_secret(acme))

    # A 404 is about the repository and not about the JWT.
    assert ("password" in done.stdout) == (status != 404)
    assert len(acme.bitbucket.helper_requests()) == (1 if status == 404 else 4)


def test_jwt_from_a_file_with_an_api_that_accepts_it(acme: Workspace, tmp_path: Path) -> None:
    acme.bitbucket.rules.rest_checks_qsh = False
    changes = without_secret(acme)
    (tmp_path / "jwt").write_text(f"{changes.pop('BBJWT_JWT')}\n")
    done = acme.machine.get(acme.url, BBJWT_JWT_FILE=f"{tmp_path / 'jwt'}\n", also=changes)

    assert "password" in answer(done)
    assert len(acme.bitbucket.helper_requests()) == 2


def test_jwt_without_hosts_is_for_bitbucket_cloud_and_not_for_registered_hosts(acme: Workspace) -> None:
    jwt = without_secret(acme)["BBJWT_JWT"]
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    done = acme.get(BBJWT_INSTALLATION=None, BBJWT_JWT=jwt)

    assert (done.stdout, done.stderr) == ("", "")
    assert acme.bitbucket.seen == []


def test_a_jwt_serves_a_repository_named_by_uuid_with_one_request(acme: Workspace) -> None:
    url = f"{acme.bitbucket.base_url}/{acme.app.workspace_uuid}/{acme.widgets.uuid}"
    acme.machine.get(url, also=without_secret(acme))

    assert len(acme.bitbucket.helper_requests()) == 1


def test_an_expired_jwt_says_when_it_expired(acme: Workspace) -> None:
    changes = without_secret(acme, "--expires", "1")
    expires = json.loads(base64.urlsafe_b64decode(changes["BBJWT_JWT"].split(".")[1] + "=="))["exp"]
    time.sleep(1.1)
    done = acme.machine.get(acme.url, check=False, also=changes)

    assert_quits(done, time.strftime("expired at %Y-%m-%d", time.gmtime(expires)), "UTC", "jwt WORKSPACE")
    assert acme.bitbucket.seen == []


@pytest.mark.parametrize("jwt", ["x", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "..", "é.é.é"])
def test_text_that_is_not_a_jwt_is_an_error(acme: Workspace, jwt: str) -> None:
    changes = without_secret(acme) | {"BBJWT_JWT": jwt}

    assert_quits(acme.machine.get(acme.url, check=False, also=changes), "not contain a JWT")


def test_empty_file_is_not_a_jwt(acme: Workspace, tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text("\n")

    assert_quits(acme.get(check=False, BBJWT_JWT_FILE=str(tmp_path / "jwt")), "no JWT")


def test_a_new_jwt_does_not_inherit_the_token_of_another(acme: Workspace) -> None:
    first = answer(acme.machine.get(acme.url, also=without_secret(acme)))["password"]
    other = without_secret(acme, "--expires", "300")

    assert answer(acme.machine.get(acme.url, also=other))["password"] != first
    assert answer(acme.get())["password"] != first


def test_jwt_is_for_the_swap_and_short(acme: Workspace) -> None:
    def claims(*arguments: str) -> dict[str, int]:
        segment = acme.machine.bbjwt("jwt", "ACME", *arguments).stdout.split(".")[1]
        found: dict[str, int] = json.loads(base64.urlsafe_b64decode(segment + "=="))
        return found

    usual = claims()
    assert usual["exp"] - usual["iat"] == 180
    assert claims("--expires", "3600")["exp"] - time.time() > 3500
    for wrong in ("0", "3601", "-1", "x"):
        assert acme.machine.bbjwt("jwt", "acme", "--expires", wrong, check=False).returncode == 2
    assert acme.machine.bbjwt("jwt", "nobody", check=False).returncode == 1


# All commands


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_of_each_command_has_an_example_and_fits_80_columns(machine: Machine, command: str) -> None:
    done = machine.bbjwt(*command.split(), "--help", COLUMNS="80")

    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.startswith("usage: git-credential-bbjwt")
    assert done.stderr == ""
    assert not command or f"  git-credential-bbjwt {command}" in done.stdout  # An example.
    refused = machine.bbjwt(*command.split(), "--no-such-option", check=False)
    assert refused.returncode == 2
    assert f"hint: {' '.join(['git-credential-bbjwt', *command.split()])} --help" in refused.stderr


def test_operations_have_the_general_help(machine: Machine) -> None:
    assert machine.bbjwt("get", "--help").stdout == machine.bbjwt("-h").stdout == machine.bbjwt("help").stdout


def test_a_command_loads_no_other(acme: Workspace) -> None:
    loaded = acme.machine.imports_of("list", acme.url)

    assert "git_credential_bbjwt.installations.catalogue" in loaded
    # Each module is used only by another command.
    others = ("bitbucket.assertion", "git.entries", "installations.registry_changes", "getting.obtain")
    assert not loaded & {f"git_credential_bbjwt.{module}" for module in others}
    assert not loaded & {"concurrent.futures", "logging", "hmac"}


def test_version(machine: Machine) -> None:
    assert machine.bbjwt("--version").stdout == f"git-credential-bbjwt {__version__}\n"
    assert machine.git("credential-bbjwt", "--version").stdout == f"git-credential-bbjwt {__version__}\n"


# Traces


def test_trace_has_the_decisions_and_no_secret(acme: Workspace, tmp_path: Path) -> None:
    acme.bitbucket.misbehave("token", Fault(status=503))
    trace = tmp_path / "trace"
    shown = [acme.get("--verbose", "--token-store=none").stderr]
    acme.get(BBJWT_TRACE=str(trace))
    acme.get(BBJWT_TRACE=str(trace))
    acme.app.shared_secret += "x"
    acme.get("--verbose", "--token-store=none", check=False, BBJWT_TRACE="1")
    shown.append(trace.read_text())

    assert "503" in shown[0]
    assert "next attempt in" in shown[0]
    for text in shown:
        assert "/2.0/repositories/acme/widgets" in text
        assert ": 200 in " in text
    assert "using the cached token" in shown[1]
    assert trace.stat().st_mode & 0o777 == 0o600
    secrets = [acme.app.shared_secret.removesuffix("x"), *acme.bitbucket.tokens]
    secrets += [seen.jwt for seen in acme.bitbucket.helper_requests() if seen.jwt]
    for secret in secrets:
        assert secret not in "".join(shown)


def test_bug_is_reported_in_two_lines_and_with_a_traceback_only_in_the_trace(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def told(value: str) -> str:
        monkeypatch.setenv("BBJWT_TRACE", value)
        try:
            raise KeyError("a secret")
        except KeyError as bug:
            status = output.report(bug)
        assert status == 1
        return capfd.readouterr().err

    for value in ("", "0", "false"):
        first, hint = told(value).splitlines()
        assert first == "git-credential-bbjwt: error: internal error: KeyError"
        assert hint.startswith("hint: set BBJWT_TRACE=1")
    assert "Traceback" in told("1")
    monkeypatch.setattr("git_credential_bbjwt.core.output._verbose", True)
    assert "Traceback" in told("")


def test_no_trace_by_default(acme: Workspace) -> None:
    for value in ("", "0", "false"):
        assert acme.get(BBJWT_TRACE=value).stderr == ""


@pytest.mark.parametrize(
    ("value", "why"),
    [("relative/path", "neither 1 nor the absolute path"), ("/not/there", "No such file or directory")],
)
def test_trace_that_goes_nowhere_is_said_once(acme: Workspace, value: str, why: str) -> None:
    (line,) = acme.get("--token-store=none", BBJWT_TRACE=value).stderr.splitlines()

    assert line.startswith("git-credential-bbjwt: warning: ")
    assert why in line
    assert value not in line
