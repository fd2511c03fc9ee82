"""doctor: each check, its failure and its remedy."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from git_credential_bbjwt.commands.checks import git_sends
from git_credential_bbjwt.git import settings
from git_credential_bbjwt.git.clone_urls import parse_url
from tests import desktop
from tests.conftest import COMMAND, Machine, Workspace, answer, need, pretend_git, request
from tests.emulator import Fault
from tests.mint import be_the_helper


def checks(machine: Machine, *arguments: str, **changes: str | None) -> dict[str, Any]:
    """Return the checks by name; if several have the same name, a failure, or else a note."""
    done = machine.bbjwt("doctor", "--json", *arguments, check=False, also=changes)
    report = json.loads(done.stdout)
    failures = [check for check in report["checks"] if check["ok"] is False]
    assert report["ok"] == (done.returncode == 0) == (not failures)
    assert all(check["remedy"] for check in failures), failures
    assert len({(check["detail"], check["remedy"]) for check in failures}) == len(failures)
    found: dict[str, Any] = {}
    for check in sorted(report["checks"], key=lambda check: {False: 0, None: 1, True: 2}[check["ok"]]):
        found.setdefault(check["name"], check)
    return found


SECRET = "hunter2hunter2"


def failures(machine: Machine, *arguments: str, **changes: str | None) -> list[tuple[str, str, str]]:
    """Return name, detail and remedy of the checks that fail, in their order. Nothing shows SECRET."""
    done = machine.bbjwt("doctor", "--json", *arguments, check=False, also=changes)
    assert SECRET not in done.stdout + done.stderr
    report = json.loads(done.stdout)
    return [(one["name"], one["detail"], one["remedy"]) for one in report["checks"] if one["ok"] is False]


def only_failure(machine: Machine, *arguments: str, **changes: str | None) -> tuple[str, str, str]:
    """Return the one check that fails."""
    (found,) = failures(machine, *arguments, **changes)
    return found


def test_all_checks_pass(acme: Workspace) -> None:
    done = acme.machine.bbjwt("doctor", acme.url)

    assert done.stderr == ""
    *lines, last = done.stdout.splitlines()
    assert all(line.startswith(("✓ ", "– ", "  → ")) for line in lines)
    for name in (
        "git",
        "git configuration",
        "installation",
        "network",
        "clock",
        "secret",
        "token",
        "access",
        "Connect",
    ):
        assert f"✓ {name}: " in done.stdout
    passed = sum(line.startswith("✓ ") for line in lines)
    assert last == f"{passed} of {passed} passed"
    assert acme.app.shared_secret not in done.stdout
    assert not any(token in done.stdout for token in acme.bitbucket.tokens)
    assert acme.machine.records() == []


def test_last_line_sums_up_the_failures(acme: Workspace) -> None:
    acme.bitbucket.misbehave("token", Fault(status=403, body=b"no"))
    done = acme.machine.bbjwt("doctor", acme.url, check=False)

    assert re.fullmatch(r"1 of \d+ failed: token", done.stdout.splitlines()[-1])


def test_machine_without_an_installation(machine: Machine) -> None:
    found = checks(machine)

    assert "configure" in found["git configuration"]["remedy"]
    assert found["installation"]["remedy"] == "git-credential-bbjwt register FILE"


def test_set_up_for_exec_only_passes(acme: Workspace) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    found = checks(acme.machine, acme.url)

    assert found["git configuration"]["ok"] is None
    assert f"exec -- git clone {acme.url.removesuffix('.git')}" in found["git configuration"]["remedy"]
    assert found["token"]["ok"]
    acme.machine.bbjwt("exec", "--", COMMAND, "doctor", acme.url)


def test_unknown_workspace_names_the_known_ones(acme: Workspace) -> None:
    url = acme.url.replace("/acme/", "/other/")
    name, detail, remedy = failures(acme.machine, url)[0]

    assert name == "installation"
    assert "workspace other" in detail
    assert f"{acme.bitbucket.host}/acme" in detail
    assert "register FILE" in remedy


# Settings of git


def test_another_helper_is_asked_first(acme: Workspace) -> None:
    config = acme.machine.home / ".gitconfig"
    config.write_text("[credential]\n\thelper = cache --timeout SECRET-ARGUMENT\n" + config.read_text())
    name, detail, remedy = only_failure(acme.machine, acme.url)

    assert name == "git configuration"
    assert f"cache ({config})" in detail
    assert "SECRET-ARGUMENT" not in detail
    assert remedy == "run: git-credential-bbjwt configure --exclusive"
    acme.machine.bbjwt("configure", "--exclusive")
    assert failures(acme.machine, acme.url) == []


def test_store_after_this_helper_writes_tokens_in_the_clear(acme: Workspace) -> None:
    acme.machine.git("config", "--global", "--add", "credential.helper", "store")
    name, detail, remedy = only_failure(acme.machine, acme.url)

    assert (name, remedy) == ("git configuration", "run: git-credential-bbjwt configure --exclusive")
    assert "in the clear" in detail
    acme.machine.bbjwt("configure", "--exclusive")
    assert failures(acme.machine, acme.url) == []


@pytest.mark.parametrize("level", ["--global", "--local"])
def test_store_that_git_reads_later_is_removed_where_it_is(acme: Workspace, level: str) -> None:
    folder = acme.machine.home / "it's here"
    acme.machine.git("init", "-q", folder)
    acme.machine.git("config", level, f"credential.{base(acme)}/acme.helper", "store", cwd=folder)

    def found() -> list[dict[str, Any]]:
        done = acme.machine.run(COMMAND, "doctor", "--json", acme.url, cwd=folder, check=False)
        return [check for check in json.loads(done.stdout)["checks"] if check["ok"] is False]

    (problem,) = found()
    assert "in the clear" in problem["detail"]
    edit = problem["remedy"].removeprefix("remove it: ")
    acme.machine.run("sh", "-c", edit, cwd=folder, env=acme.machine.env(GIT_EDITOR="sed -i /store/d"))
    assert found() == []


def test_an_empty_helper_resets_this_one(acme: Workspace) -> None:
    acme.machine.git("config", "--global", "--add", "credential.helper", "")
    name, detail, remedy = only_failure(acme.machine, acme.url)

    assert name == "git configuration"
    assert f"an empty helper in {acme.machine.home}/.gitconfig resets it" in detail
    acme.machine.run("sh", "-c", remedy.partition(": ")[2])
    assert failures(acme.machine, acme.url) == []


def test_helper_line_with_an_unusable_option(acme: Workspace) -> None:
    key = f"credential.{acme.bitbucket.base_url}.helper"
    for value in ("bbjwt --timeout never", "bbjwt --tiemout 5", "bbjwt token", "bbjwt get", "bbjwt --allow 'acme/*"):
        acme.machine.git("config", "--global", key, value)
        name, detail, _ = failures(acme.machine)[0]
        assert name == "git configuration"
        assert "cannot be used" in detail
        assert acme.machine.git("ls-remote", acme.url, check=False).returncode != 0
    assert "a quote in it is not closed" in detail


def test_reset_in_the_environment(acme: Workspace) -> None:
    key = f"credential.{base(acme)}.helper"
    for reset in (
        {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": key, "GIT_CONFIG_VALUE_0": ""},
        {"GIT_CONFIG_PARAMETERS": f"'{key}='"},
    ):
        _, detail, remedy = only_failure(acme.machine, acme.url, **reset)
        assert "an empty helper in the environment resets it" in detail
        command = remedy.removeprefix("remove the reset: ")
        acme.machine.run("sh", "-euc", f"{command}; git ls-remote {acme.url}", env=acme.machine.env(reset))


@pytest.mark.parametrize("path", ["/dev/null", ""])
@pytest.mark.parametrize("is_injected", [True, False])
def test_variable_that_hides_the_users_configuration(acme: Workspace, path: str, is_injected: bool) -> None:
    if not is_injected:
        acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
        del acme.machine.environment["BBJWT_INSTALLATION"]
    found = checks(acme.machine, acme.url, GIT_CONFIG_GLOBAL=path)["git configuration"]

    assert found["ok"] == (None if is_injected else False)
    assert "because GIT_CONFIG_GLOBAL makes git read" in found["detail"]
    assert found["remedy"].endswith("run: unset GIT_CONFIG_GLOBAL")
    assert acme.machine.bbjwt("configure", check=False, GIT_CONFIG_GLOBAL=path).returncode == 1


def test_home_of_another_user(machine: Machine, another_user: int) -> None:
    os.chown(machine.home, another_user, -1)

    for name, detail, remedy in failures(machine):
        assert name in ("git configuration", "installation")
        assert "HOME belongs to another user" in detail
        assert "set HOME to your own folder" in remedy


def test_remedies_have_the_options_that_are_given(acme: Workspace) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    installation = acme.machine.environment.pop("BBJWT_INSTALLATION")
    remedy = checks(acme.machine, "--installation", installation, acme.url)["git configuration"]["remedy"]
    once, _, for_good = remedy.removeprefix("for one command: ").partition("; for good: ")

    acme.machine.run("sh", "-c", f"{once} once")
    acme.machine.run("sh", "-c", for_good)
    acme.machine.git("ls-remote", acme.url)
    (acme.machine.home / ".gitconfig").unlink()
    assert "exec -- git clone URL" in acme.machine.bbjwt("--installation", installation, "doctor").stdout


def test_options_of_the_helper_line_are_used(acme: Workspace) -> None:
    installation = acme.machine.environment.pop("BBJWT_INSTALLATION")
    key = f"credential.{acme.bitbucket.base_url}.helper"
    acme.machine.git("config", "--global", key, f"bbjwt --installation {installation} --allow 'acme/lib-*'")
    name, detail, _ = only_failure(acme.machine, acme.url)

    assert name == "token"
    assert "--allow does not name acme/widgets" in detail
    assert failures(acme.machine, "--allow=acme/widgets", acme.url) == []


def test_a_repositorys_own_helper_line_does_not_choose_what_runs(acme: Workspace) -> None:
    acme.machine.git("init", "-q", "w")
    key = f"credential.{acme.bitbucket.base_url}.helper"
    acme.machine.git("-C", "w", "config", key, "bbjwt --installation-command 'touch /tmp/x && touch ran'")
    acme.machine.run(COMMAND, "doctor", acme.url, cwd=acme.machine.home / "w", check=False)

    assert not (acme.machine.home / "w/ran").exists()


Sent = Callable[[str], list[tuple[str, str, str]]]


@pytest.fixture
def sent(acme: Workspace, monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Checks what git sends for a URL, in this process; returns the failures as `failures` does."""

    def failures_of(url: str) -> list[tuple[str, str, str]]:
        be_the_helper(monkeypatch, acme.machine.env(), [])
        monkeypatch.chdir(acme.machine.home)
        settings.read_settings.cache_clear()
        found = [one for one in git_sends.check(url, parse_url(url)) if one.ok is False]
        assert SECRET not in str(found)
        return [(one.name, one.detail, one.remedy) for one in found]

    return failures_of


def test_git_goes_by_ssh(acme: Workspace) -> None:
    ssh = "git@localhost:acme/widgets.git"
    name, detail, remedy = failures(acme.machine, ssh)[0]
    assert name == "what git sends"
    assert "by ssh" in detail
    assert remedy == "run: git-credential-bbjwt configure --rewrite-ssh"

    acme.machine.git("config", "--global", f"url.{ssh.removesuffix('acme/widgets.git')}.insteadOf", f"{base(acme)}/")
    name, detail, remedy = only_failure(acme.machine, acme.url)
    assert "by ssh" in detail
    assert f"insteadOf in {acme.machine.home}/.gitconfig" in detail
    acme.machine.run("sh", "-c", remedy)
    assert failures(acme.machine, acme.url) == []


def base(acme: Workspace) -> str:
    """Return the base URL of the emulator."""
    return acme.bitbucket.base_url


def test_git_sends_a_password_that_insteadof_adds(acme: Workspace, sent: Sent) -> None:
    with_password = base(acme).replace("https://", f"https://me:{SECRET}@")
    acme.machine.git("config", "--global", f"url.{with_password}/.insteadOf", f"{base(acme)}/")
    ((name, detail, remedy),) = sent(acme.url)

    assert name == "what git sends"
    assert "sends the password" in detail
    assert f"git config --file {acme.machine.home}/.gitconfig --edit" in remedy


def test_setting_whose_name_holds_a_token_is_not_shown(acme: Workspace) -> None:
    token = "ATCTT3xFfGN0Qw8Zk1pLmN0pQrStUvWxYz0123456789"
    acme.machine.git("config", "--global", f"url.{token}:.insteadOf", f"{base(acme)}/acme")
    done = acme.machine.bbjwt("doctor", acme.url, check=False)

    assert f"git config --file {acme.machine.home}/.gitconfig --edit" in done.stdout
    assert token not in done.stdout + done.stderr


def test_git_sends_the_password_of_the_url_or_of_a_remote(acme: Workspace) -> None:
    with_password = acme.url.replace("https://", f"https://me:{SECRET}@")
    assert "password" in only_failure(acme.machine, with_password)[1]

    acme.machine.git("init", "-q", ".")
    acme.machine.git("remote", "add", "upstream", with_password)
    name, detail, remedy = only_failure(acme.machine, acme.url)
    assert (name, remedy) == ("what git sends", f"git remote set-url upstream {acme.url.removesuffix('.git')}")
    assert "the remote upstream" in detail
    acme.machine.run("sh", "-c", remedy)
    assert failures(acme.machine, acme.url) == []


def test_remedies_quote_what_a_repositorys_author_chose(acme: Workspace, sent: Sent) -> None:
    acme.machine.git("init", "-q", ".")
    name = "x; touch ran; #"
    with open(acme.machine.home / ".git/config", "a") as config:
        config.write(f'[remote "{name}"]\n\turl = {acme.url.replace("https://", f"https://me:{SECRET}@")}\n')
        config.write(f'[url "{base(acme)}/$(touch ran)/"]\n\tinsteadOf = {base(acme)}/acme/\n')
        config.write('[http "https://*/;touch ran;"]\n\textraHeader = Authorization: x\n')
    remedies = [remedy for _, _, remedy in sent(acme.url)]

    assert remedies
    for remedy in remedies:
        acme.machine.run(
            "sh", "-c", remedy.partition(": ")[2] if remedy.startswith(("run", "use")) else remedy, check=False
        )
    assert not (acme.machine.home / "ran").exists()


def test_a_password_in_a_url_is_in_no_argument(acme: Workspace, sent: Sent) -> None:
    seen = acme.machine.home / "arguments"
    git = acme.machine.home / "bin/git"
    git.parent.mkdir()
    git.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>"{seen}"\nexec {shutil.which("git")} "$@"\n')
    git.chmod(0o755)
    acme.machine.git("init", "-q", ".")
    acme.machine.git("remote", "add", "upstream", acme.url.replace("https://", f"https://me:{SECRET}@"))
    acme.machine.environment["PATH"] = f"{git.parent}:{acme.machine.environment['PATH']}"
    found = sent(acme.url.replace("https://", f"https://me:{SECRET}2@"))

    assert sum("sends the password" in detail for _, detail, _ in found) == 2
    assert "ls-remote" in seen.read_text()
    assert SECRET not in seen.read_text()


def test_a_push_url_may_be_another(acme: Workspace, sent: Sent) -> None:
    acme.machine.git("init", "-q", ".")
    acme.machine.git("remote", "add", "origin", acme.url)
    acme.machine.git("remote", "set-url", "--push", "origin", "git@localhost:acme/widgets.git")

    assert sent(acme.url) == []


@pytest.mark.parametrize("section", ["", "/acme/"])
def test_git_sends_an_authorization_header(acme: Workspace, sent: Sent, section: str) -> None:
    key = f"http.{base(acme)}{section}.extraHeader" if section else "http.extraHeader"
    acme.machine.git("config", "--global", key, f"AUTHORIZATION: Bearer {SECRET}")
    name, detail, remedy = sent(acme.url)[0]

    assert name == "what git sends"
    assert "Authorization header" in detail
    acme.machine.run("sh", "-c", remedy)
    assert sent(acme.url) == []


def test_remedy_keeps_the_other_headers_of_the_same_setting(acme: Workspace, sent: Sent) -> None:
    for header in ("X-Build: 1", f"Authorization: Bearer {SECRET}"):
        acme.machine.git("config", "--global", "--add", "http.extraHeader", header)
    ((_, _, remedy),) = sent(acme.url)

    assert remedy == f"remove it: git config --file {acme.machine.home}/.gitconfig --edit"


@pytest.mark.parametrize("entry", ["machine localhost login me password {}\n", "default login me password {}\n"])
def test_git_sends_the_login_of_netrc(acme: Workspace, sent: Sent, entry: str) -> None:
    (acme.machine.home / ".netrc").write_text("machine other.example login a password b\n" + entry.format(SECRET))
    ((name, _, remedy),) = sent(acme.url)

    assert name == "what git sends"
    assert str(acme.machine.home / ".netrc") in remedy


def test_netrc_of_other_hosts_does_not_matter(acme: Workspace, sent: Sent) -> None:
    (acme.machine.home / ".netrc").write_text("machine other.example login a password b\n")

    assert sent(acme.url) == []


def test_git_goes_to_another_host(acme: Workspace, sent: Sent) -> None:
    acme.machine.git("config", "--global", "url.https://mirror.example/.insteadOf", f"{base(acme)}/")
    ((name, detail, remedy),) = sent(acme.url)

    assert name == "what git sends"
    assert "mirror.example" in detail
    acme.machine.run("sh", "-c", remedy)
    assert sent(acme.url) == []


def test_a_helper_for_one_workspace(acme: Workspace) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    acme.machine.bbjwt("configure", "--workspace", "acme")

    assert checks(acme.machine)["git configuration"]["ok"]
    assert checks(acme.machine, acme.url)["git configuration"]["ok"]
    acme.write_installation(principal={"type": "team", "username": "other"})
    assert checks(acme.machine)["git configuration"]["ok"] is False


def test_settings_for_a_workspace_have_no_effect_in_an_older_git(acme: Workspace) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    acme.machine.bbjwt("configure", "--workspace", "acme")
    pretend_git(acme.machine, "2.25.1")
    found = checks(acme.machine, acme.url)

    assert "configure --workspace" in found["git"]["detail"]
    assert "does not ask" in found["git configuration"]["detail"]
    acme.machine.bbjwt("configure")
    assert checks(acme.machine, acme.url)["git configuration"]["ok"]


def test_git_could_send_the_token_with_its_first_request(acme: Workspace) -> None:
    pretend_git(acme.machine, "2.46.0")
    found = checks(acme.machine, acme.url)
    assert found["speed"]["ok"] is None
    acme.machine.run("sh", "-c", found["speed"]["remedy"])

    assert "speed" not in checks(acme.machine, acme.url)


def test_the_path_switch_is_off(acme: Workspace) -> None:
    acme.machine.git("config", "--global", f"credential.{base(acme)}.useHttpPath", "false")

    assert "useHttpPath" in only_failure(acme.machine, acme.url)[1]


@pytest.mark.parametrize(("line", "is_on"), [("useHttpPath = YES", True), ("useHttpPath = 0", False)])
def test_the_path_switch_is_read_as_git_reads_it(acme: Workspace, line: str, is_on: bool) -> None:
    config = acme.machine.home / ".gitconfig"
    config.write_text(f"{config.read_text()}[credential]\n\t{line}\n")
    cloned = acme.machine.git("clone", "-q", acme.url, "w", check=False)

    assert (cloned.returncode == 0) == is_on
    assert checks(acme.machine, acme.url)["git configuration"]["ok"] == is_on


@pytest.mark.parametrize("level", ["--global", "--local", "--system"])
def test_settings_that_configure_does_not_write_are_corrected_where_they_are(acme: Workspace, level: str) -> None:
    folder = acme.machine.home / "it's here"
    acme.machine.git("init", "-q", folder)
    acme.machine.environment |= {"GIT_CONFIG_NOSYSTEM": "0", "GIT_CONFIG_SYSTEM": str(acme.machine.home / "system")}
    acme.machine.bbjwt("configure", "--workspace", "acme")

    def mend(named: str, edit: str) -> None:
        done = acme.machine.run(COMMAND, "doctor", "--json", acme.url, cwd=folder, check=False)
        (problem,) = [check for check in json.loads(done.stdout)["checks"] if check["ok"] is False]
        assert named in problem["detail"]
        command = problem["remedy"].removeprefix("correct it: ")
        acme.machine.run("sh", "-c", command, cwd=folder, env=acme.machine.env(GIT_EDITOR=f"sed -i {edit}"))
        acme.machine.run(COMMAND, "doctor", acme.url, cwd=folder)

    if level != "--system":
        acme.machine.git("config", level, "credential.useHttpPath", "false", cwd=folder)
        mend("useHttpPath is off in ", "s/false/true/")
    if level != "--global":
        (acme.machine.home / ".gitconfig").unlink()
        acme.machine.git("config", level, f"credential.{base(acme)}.helper", "/gone/git-credential-bbjwt", cwd=folder)
        acme.machine.git("config", level, f"credential.{base(acme)}.useHttpPath", "true", cwd=folder)
        mend("by which git finds no program", f"s#/gone/.*#{COMMAND}#")


def test_remedies_for_a_workspaces_line_are_for_that_workspace(acme: Workspace) -> None:
    config = acme.machine.home / ".gitconfig"
    config.write_text("[credential]\n\thelper = cache\n")
    acme.machine.bbjwt("configure", "--workspace", "acme")
    remedy = only_failure(acme.machine, acme.url)[2]
    assert remedy == "run: git-credential-bbjwt configure --exclusive --workspace acme"
    assert remedy.removeprefix("run: ") in acme.machine.bbjwt("configure", "--workspace", "acme").stderr
    acme.machine.run("sh", "-c", remedy.removeprefix("run: "))

    assert failures(acme.machine, acme.url) == []
    assert f'[credential "{base(acme)}"]' not in config.read_text()


def test_setting_without_a_value_stops_git(acme: Workspace) -> None:
    config = acme.machine.home / ".gitconfig"
    config.write_text(f"{config.read_text()}[credential]\n\tuseHttpPath\n")

    assert acme.machine.git("clone", "-q", acme.url, "w", check=False).returncode == 128
    name, detail, remedy = only_failure(acme.machine, acme.url)
    assert name == "git configuration"
    assert detail == f"git stops at credential.usehttppath in {config}, because it has no value"
    assert f"git config --file {config} --edit" in remedy


def test_last_path_switch_is_used(acme: Workspace) -> None:
    # Git uses the last matching switch and not the best match (credential.c).
    config = acme.machine.home / ".gitconfig"
    ours = config.read_text()
    for text, on in (
        (ours + "[credential]\n\tuseHttpPath = false\n", False),
        ("[credential]\n\tuseHttpPath = false\n" + ours, True),
    ):
        config.write_text(text)
        asked = acme.machine.git("clone", "-q", acme.url, f"{on}", check=False)
        assert (asked.returncode == 0) == on
        assert checks(acme.machine, acme.url)["git configuration"]["ok"] == on


def test_a_helper_that_git_does_not_find(acme: Workspace) -> None:
    name = "git-credential-bbjwt"
    for value in (f"/gone/{name}", name, f"~/{name}", f"!/gone/{name}", f"'{COMMAND}'"):
        acme.machine.git("config", "--global", f"credential.{base(acme)}.helper", value)
        assert acme.machine.git("ls-remote", acme.url, check=False).returncode != 0

        assert "git finds no program" in only_failure(acme.machine)[1]
    acme.machine.bbjwt("configure")
    assert failures(acme.machine, acme.url) == []


# Installations and Bitbucket


def test_remedy_has_the_path_of_a_command_that_is_not_on_path(acme: Workspace) -> None:
    acme.machine.git("config", "--global", f"credential.{base(acme)}.useHttpPath", "false")
    acme.machine.git("config", "--global", f"credential.{base(acme)}.helper", str(COMMAND))
    assert only_failure(acme.machine)[2] == "run: git-credential-bbjwt configure"
    acme.machine.environment["PATH"] = only_git = str(acme.machine.home / "bin")
    Path(only_git).mkdir()
    Path(only_git, "git").symlink_to(shutil.which("git") or "")

    remedy = only_failure(acme.machine)[2]
    assert remedy == f"run: {shlex.quote(str(COMMAND))} configure"
    acme.machine.run("/bin/sh", "-c", remedy.removeprefix("run: "))
    assert failures(acme.machine) == []


@pytest.mark.parametrize("where", [".gitconfig", ".config/git/config"])
def test_settings_that_git_cannot_read(acme: Workspace, where: str) -> None:
    config = acme.machine.home / where
    config.parent.mkdir(parents=True, exist_ok=True)
    (acme.machine.home / ".gitconfig").rename(config)
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    del acme.machine.environment["BBJWT_INSTALLATION"]
    config.chmod(0)
    doctor = json.loads(as_nobody_special(acme.machine, "doctor", "--json").stdout)

    (problem,) = [check for check in doctor["checks"] if check["ok"] is False]
    assert f"because it cannot read {config}" in problem["detail"]
    assert problem["remedy"].endswith(f"ls -l {config}")


def test_home_is_not_set(acme: Workspace) -> None:
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    folder = str(acme.machine.home / ".config")
    changes = {"HOME": None, "XDG_CONFIG_HOME": folder, "BBJWT_INSTALLATION": None}

    assert "because HOME is not set" in only_failure(acme.machine, **changes)[1]
    changes["HOME"] = "/nonexistent"
    _, detail, remedy = only_failure(acme.machine, **changes)
    assert "because HOME names no folder: /nonexistent" in detail
    acme.machine.run("sh", "-euc", f'{remedy.removeprefix("run: ")}; [ -d "$HOME" ]', env=acme.machine.env(HOME=None))


def test_broker_of_a_variable_that_git_does_not_use(acme: Workspace) -> None:
    machine = acme.machine
    line = f"{COMMAND} --host {acme.bitbucket.host}"
    machine.git("config", "--global", f"credential.{base(acme)}.helper", line)
    broker = machine.home / "broker"
    broker.write_text(f"#!/bin/sh\nBBJWT_INSTALLATION={acme.installation} exec {COMMAND} get\n")
    broker.chmod(0o755)
    changes = {"BBJWT_BROKER": str(broker), "BBJWT_INSTALLATION": None}
    name, detail, remedy = only_failure(machine, "--host", acme.bitbucket.host, acme.url, **changes)
    assert (name, remedy) == ("git configuration", "run: git-credential-bbjwt configure")
    assert "BBJWT_BROKER" in detail
    note = machine.get(acme.url, "--host", acme.bitbucket.host, also=changes).stderr
    assert "BBJWT_BROKER" in note
    machine.bbjwt("--host", acme.bitbucket.host, "configure", also=changes)
    assert failures(machine, "--host", acme.bitbucket.host, acme.url, **changes) == []
    machine.git("ls-remote", acme.url, also=changes)

    (machine.home / ".gitconfig").unlink()
    assert failures(machine, "--host", acme.bitbucket.host, acme.url, **changes) == []
    shown = machine.bbjwt("doctor", "--host", acme.bitbucket.host, acme.url, also=changes).stdout
    assert f"git-credential-bbjwt --host={acme.bitbucket.host} configure" in shown
    machine.bbjwt("--host", acme.bitbucket.host, "exec", "--", "git", "ls-remote", acme.url, also=changes)


def test_registry_that_cannot_be_read(acme: Workspace) -> None:
    machine = acme.machine
    machine.bbjwt("register", "--insecure-storage", acme.installation)
    del machine.environment["BBJWT_INSTALLATION"]
    registry = machine.home / ".config/git-credential-bbjwt/installations"
    for part in (registry, next(registry.iterdir())):
        part.chmod(0)
        for words in (["doctor", "--json"], ["doctor", "--json", acme.url]):
            doctor = json.loads(as_nobody_special(machine, *words).stdout)
            (problem,) = [
                check for check in doctor["checks"] if (check["name"], check["ok"]) == ("installation", False)
            ]
            assert "Permission denied" in problem["detail"]
            assert f"ls -ld {part}" in problem["remedy"]
        assert "ls -ld" in as_nobody_special(machine, "list").stderr
        done = as_nobody_special(machine, "get", data=request(acme.url) + "\n")
        assert "password" not in done.stdout
        assert done.stderr.count("Permission denied") == 1
        part.chmod(0o700)
    assert "password" in answer(acme.get())


@pytest.mark.parametrize("part", ["runtime folder", "own folder"])
def test_token_cache_that_cannot_be_used(acme: Workspace, part: str) -> None:
    folder = acme.machine.runtime
    if part == "own folder":
        folder = folder / "git-credential-bbjwt"
        folder.mkdir()
    folder.chmod(0o500 if part == "runtime folder" else 0o755)
    doctor = json.loads(as_nobody_special(acme.machine, "doctor", "--json").stdout)
    (problem,) = [check for check in doctor["checks"] if check["ok"] is False]

    assert problem["name"] == "token cache"
    assert "run: " not in problem["detail"]
    assert problem["remedy"].endswith(f"ls -ld {folder}" if part == "runtime folder" else f"chmod 700 {folder}")


def as_nobody_special(machine: Machine, *words: str, data: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command without root's power to read every file."""
    powerless = [need("setpriv"), "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    return machine.run(*powerless, COMMAND, *words, data=data, check=False)


@pytest.mark.parametrize("locked", [False, True])
def test_the_keyring(acme: Workspace, locked: bool) -> None:
    machine = acme.machine
    with desktop.session(machine):
        machine.bbjwt("register", acme.installation)
        del machine.environment["BBJWT_INSTALLATION"]
        if locked:
            desktop.lock(machine)
        found = checks(machine)
    assert found["keyring"]["ok"] == (not locked)
    assert found["installation"]["ok"] == (None if locked else True)
    assert ("unlock" in found["keyring"]["remedy"]) == locked


@pytest.mark.parametrize("registered", [False, True])
def test_secret_that_bitbucket_refuses_is_reported_without_a_url(acme: Workspace, registered: bool) -> None:
    if registered:
        acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
        del acme.machine.environment["BBJWT_INSTALLATION"]
    assert checks(acme.machine)["secret"]["ok"]
    acme.app.shared_secret += "x"
    name, detail, remedy = only_failure(acme.machine)

    assert name == "secret"
    assert "401" in detail
    assert "register" in remedy


def test_a_refused_secret_is_named_once_and_first(acme: Workspace) -> None:
    acme.app.shared_secret += "x"
    names = [name for name, _, _ in failures(acme.machine, acme.url)]

    assert names[0] == "secret"
    assert len(names) == 1


def test_a_renamed_workspace(acme: Workspace) -> None:
    acme.write_installation(principal={"type": "team", "username": "old-name", "uuid": acme.app.workspace_uuid})
    name, detail, remedy = next(one for one in failures(acme.machine) if one[0] != "git configuration")

    assert name == "workspace"
    assert "has the slug acme now" in detail
    assert "--workspace acme" in remedy
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    del acme.machine.environment["BBJWT_INSTALLATION"]
    name, _, remedy = next(one for one in failures(acme.machine) if one[0] != "git configuration")
    assert "register --insecure-storage FILE --workspace acme; and update" in remedy


def test_the_end_of_connect_is_a_remark_of_a_passed_check(acme: Workspace) -> None:
    found = checks(acme.machine, acme.url)

    assert found["Connect"]["ok"]
    assert found["Connect"]["detail"].count("January 31, 2027") == 1
    assert "--after-connect" in found["Connect"]["detail"]
    acme.bitbucket.end_connect("gone", look_ups=True)
    assert "Connect" not in checks(acme.machine, acme.url)


def test_an_oauth_consumer_is_tried_without_a_url(acme: Workspace) -> None:
    consumer = acme.bitbucket.add_consumer("acme")
    acme.installation.write_text(json.dumps(acme.bitbucket.consumer_json(consumer)))
    found = checks(acme.machine)

    assert found["secret"]["ok"]
    assert "open every repository" in found["installation"]["detail"] + found["secret"]["detail"]
    assert "Connect" not in found
    assert not any(token in json.dumps(found) for token in acme.bitbucket.tokens)
    consumer.secret += "x"
    assert only_failure(acme.machine)[0] == "secret"


def test_consumer_that_takes_over_when_connect_has_ended_makes_doctor_pass(acme: Workspace) -> None:
    consumer = acme.bitbucket.consumer_json(acme.bitbucket.add_consumer("acme"))
    acme.installation.write_text(json.dumps({"clientInfo": acme.bitbucket.payload(acme.app)} | consumer))
    assert "for the time after it" in checks(acme.machine, acme.url)["Connect"]["detail"]
    acme.bitbucket.end_connect("gone")

    assert failures(acme.machine, acme.url) == []
    found = checks(acme.machine, acme.url)
    assert "takes over" in found["secret"]["detail"]
    assert "every repository of acme" in found["token"]["detail"]


@pytest.mark.parametrize(
    ("changes", "passes"), [({}, True), ({"workspaceUuid": "{00000000-0000-4000-8000-000000000000}"}, False)]
)
def test_consumer_takes_over_from_an_app_without_a_slug(acme: Workspace, changes: dict[str, str], passes: bool) -> None:
    payload = acme.bitbucket.payload(acme.app)
    del payload["principal"]["username"]
    consumer = acme.bitbucket.consumer_json(acme.bitbucket.add_consumer("acme"), **changes)
    acme.installation.write_text(json.dumps({"clientInfo": payload} | consumer))
    acme.bitbucket.end_connect("gone")

    assert (failures(acme.machine) == []) == passes


def test_configuration_that_git_waits_for_is_named(acme: Workspace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "configuration")
    done = acme.machine.bbjwt(
        "--timeout=3", "doctor", acme.url, check=False, GIT_CONFIG_GLOBAL=str(tmp_path / "configuration")
    )

    assert "✗ time: gave up after 3 s: waiting for git config" in done.stdout


def test_settings_that_git_itself_refuses(acme: Workspace) -> None:
    for broken in ({"GIT_CONFIG_COUNT": "x"}, {"GIT_CONFIG_COUNT": "1"}, {"GIT_CONFIG_PARAMETERS": "x"}):
        remedy = only_failure(acme.machine, acme.url, **broken)[2]
        assert remedy == "run: unset GIT_CONFIG_COUNT GIT_CONFIG_PARAMETERS"
    config = acme.machine.home / ".gitconfig"
    config.write_text("[credential\n")
    name, detail, remedy = only_failure(acme.machine, acme.url)
    assert name == "git"
    assert f"bad config line 1 in file {config}" in detail
    assert remedy.startswith("correct that line")


def test_the_oauth_consumer_that_is_used_is_named(acme: Workspace) -> None:
    first, second = acme.bitbucket.add_consumer("acme"), acme.bitbucket.add_consumer("acme")
    for consumer in (first, second):
        payload = json.dumps(acme.bitbucket.consumer_json(consumer))
        acme.machine.bbjwt("register", "--insecure-storage", "-", data=payload)
    del acme.machine.environment["BBJWT_INSTALLATION"]
    shown = acme.machine.bbjwt("doctor", acme.url).stdout

    assert f"OAuth consumer {first.key} is not used: OAuth consumer {second.key} was registered later" in shown
    assert "opens every repository of acme, scope repository" in shown


def test_more_than_20_installations_are_counted(acme: Workspace) -> None:
    payloads = [acme.bitbucket.payload(acme.bitbucket.install(f"w{number}")) for number in range(23)]
    acme.machine.bbjwt("register", "--insecure-storage", "-", data="\n".join(map(json.dumps, payloads)))
    del acme.machine.environment["BBJWT_INSTALLATION"]
    found = acme.machine.bbjwt("doctor", "--json", check=False).stdout

    assert "3 more are not checked" in found
    assert found.count("Bitbucket accepts the app") == 20


def test_refused_secrets_of_many_installations_are_named_and_git_once(acme: Workspace) -> None:
    payloads = [acme.bitbucket.payload(acme.bitbucket.install(f"w{number}")) for number in range(3)]
    acme.machine.bbjwt("register", "--insecure-storage", "-", data="\n".join(map(json.dumps, payloads)))
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.bitbucket.apps.clear()
    (acme.machine.home / ".gitconfig").unlink()
    git, *secrets = failures(acme.machine)

    assert git[0] == "git configuration"
    for number, (name, detail, _) in enumerate(secrets):
        assert name == "secret"
        assert f"app acme-builds on w{number} (" in detail
    assert len(secrets) == 3


def test_the_clock(acme: Workspace) -> None:
    acme.bitbucket.clock_offset = -100
    found = checks(acme.machine)

    assert re.match("10[01] s ahead of", found["clock"]["detail"])
    assert "set-ntp" in found["clock"]["remedy"]


def test_the_network(acme: Workspace) -> None:
    acme.write_installation(baseApiUrl="https://localhost:1")
    found = checks(acme.machine)

    assert "localhost:1" in found["network"]["detail"]
    assert "proxy" in found["network"]["remedy"]


def test_an_untrusted_certificate(acme: Workspace) -> None:
    found = checks(acme.machine, SSL_CERT_FILE="/dev/null", GIT_SSL_CAINFO=None)

    assert "certificate" in found["network"]["detail"]
    assert "sslCAInfo" in found["network"]["remedy"]


def test_the_mint(acme: Workspace) -> None:
    assert "404" in only_failure(acme.machine, acme.url.replace("widgets", "nothing"))[1]


def test_a_cached_token_that_the_server_refuses(acme: Workspace) -> None:
    token = answer(acme.get())["password"]
    assert checks(acme.machine, acme.url)["cached token"]["ok"]
    acme.bitbucket.tokens[token].revoked = True
    name, _, remedy = only_failure(acme.machine, acme.url)

    assert name == "cached token"
    acme.machine.run("sh", "-c", remedy.removeprefix("run: "))
    assert failures(acme.machine, acme.url) == []


def test_words_of_a_server_pass_the_gate(acme: Workspace) -> None:
    body = b'{"error_description": "your token eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl is bad"}'
    acme.bitbucket.misbehave("token", Fault(status=400, body=body))
    done = acme.machine.bbjwt("doctor", "--json", acme.url, check=False)

    assert "eyJ" not in done.stdout


def test_colour_only_in_a_terminal(acme: Workspace) -> None:
    assert "\x1b[32m✓" in acme.machine.at_terminal("doctor", check=False)
    assert "\x1b" not in acme.machine.at_terminal("doctor", check=False, NO_COLOR="1")
    assert "\x1b" not in acme.machine.bbjwt("doctor").stdout


def test_any_locale(acme: Workspace) -> None:
    assert "✓ git" in acme.machine.bbjwt("doctor", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").stdout
