"""configure and unconfigure: the settings that they write into git's configuration and remove again."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import COMMAND, Machine, Workspace, cannot

CLOUD = "https://bitbucket.org"
HELPER = f"credential.{CLOUD}.helper"
PATH_SWITCH = f"credential.{CLOUD}.useHttpPath"


def values(machine: Machine, key: str, level: str = "--global") -> list[str]:
    """All values of a setting."""
    shown: str = machine.git("config", level, "-z", "--get-all", key, check=False).stdout
    return shown.split("\0")[:-1]


def config(machine: Machine) -> Path:
    """The user's configuration file."""
    return machine.home / ".gitconfig"


def test_nothing_registered_means_bitbucket_cloud(machine: Machine) -> None:
    machine.bbjwt("configure")

    assert values(machine, HELPER) == [str(COMMAND)]
    assert values(machine, PATH_SWITCH) == ["true"]


def test_an_injected_installation_names_the_host(acme: Workspace) -> None:
    config(acme.machine).unlink()
    acme.machine.bbjwt("configure")
    acme.machine.git("clone", "-q", acme.url, "w")

    assert values(acme.machine, HELPER) == []


def test_registered_hosts_are_configured(acme: Workspace) -> None:
    machine = acme.machine
    config(machine).unlink()
    machine.bbjwt("register", "--insecure-storage", acme.installation)
    machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(cloud_payload(acme)))
    machine.bbjwt("configure")

    assert values(machine, HELPER) == values(machine, f"credential.{acme.bitbucket.base_url}.helper") == [str(COMMAND)]


def cloud_payload(acme: Workspace) -> dict[str, object]:
    """A payload of Bitbucket Cloud itself."""
    app = acme.bitbucket.install("elsewhere")
    return acme.bitbucket.payload(app, baseUrl=CLOUD, baseApiUrl="https://api.bitbucket.org")


def test_one_workspace(acme: Workspace) -> None:
    config(acme.machine).unlink()
    acme.machine.bbjwt("configure", "--workspace", "acme", "--workspace", "beta")
    acme.machine.git("clone", "-q", acme.url, "w")

    base = acme.bitbucket.base_url
    assert values(acme.machine, f"credential.{base}/acme.helper") == [str(COMMAND)]
    assert values(acme.machine, f"credential.{base}/beta.useHttpPath") == ["true"]
    assert values(acme.machine, f"credential.{base}.helper") == []


def test_one_workspace_after_the_other(machine: Machine) -> None:
    for workspace in ("acme", "beta"):
        machine.bbjwt("configure", "--workspace", workspace)
    assert values(machine, f"credential.{CLOUD}/acme.helper") == values(machine, f"credential.{CLOUD}/beta.helper")
    assert values(machine, f"credential.{CLOUD}/acme.helper") == [str(COMMAND)]

    machine.bbjwt("configure")
    assert values(machine, HELPER) == [str(COMMAND)]
    assert values(machine, f"credential.{CLOUD}/acme.helper") == []
    machine.bbjwt("configure", "--workspace", "acme")
    assert values(machine, HELPER) == []
    machine.bbjwt("unconfigure")
    assert config(machine).read_bytes() == b""


def test_exclusive_resets_inherited_helpers(acme: Workspace) -> None:
    config(acme.machine).unlink()
    acme.machine.git("config", "--global", "credential.helper", "store")
    acme.machine.bbjwt("configure", "--exclusive")
    acme.machine.git("clone", "-q", acme.url, "w")

    assert values(acme.machine, f"credential.{acme.bitbucket.base_url}.helper") == ["", str(COMMAND)]
    assert not (acme.machine.home / ".git-credentials").exists()


def test_exclusive_comes_after_helpers_that_the_file_names_later(acme: Workspace) -> None:
    config(acme.machine).unlink()
    acme.machine.bbjwt("configure")
    acme.machine.git("config", "--global", "credential.helper", "store")
    done = acme.machine.bbjwt("configure", "--exclusive")
    acme.machine.git("clone", "-q", acme.url, "w")

    assert "warning" not in done.stderr
    assert not (acme.machine.home / ".git-credentials").exists()
    once = config(acme.machine).read_bytes()
    acme.machine.bbjwt("configure", "--exclusive")
    assert config(acme.machine).read_bytes() == once


def test_rewrite_ssh(acme: Workspace) -> None:
    acme.machine.bbjwt("configure", "--rewrite-ssh")
    forms = ("git@localhost:", "ssh://git@localhost/", "ssh://git@localhost:22/", "git+ssh://git@localhost/")
    for number, form in enumerate(forms):
        acme.machine.git("clone", "-q", f"{form}acme/widgets.git", f"{number}")


def test_rewrite_ssh_knows_every_ssh_host_of_bitbucket(machine: Machine) -> None:
    machine.bbjwt("configure", "--rewrite-ssh")
    forms = [
        form
        for host in ("bitbucket.org", "ssh.bitbucket.org")
        for form in (f"git@{host}:", f"ssh://git@{host}/", f"ssh://git@{host}:22/", f"git+ssh://git@{host}/")
    ]
    for form in (*forms, "ssh://git@altssh.bitbucket.org:443/"):
        shown = machine.git("ls-remote", "--get-url", f"{form}acme/widgets.git").stdout
        assert shown == f"{CLOUD}/acme/widgets.git\n"


def test_twice_is_once(acme: Workspace) -> None:
    config(acme.machine).unlink()
    for arguments in ((), ("--exclusive", "--rewrite-ssh"), ("--workspace", "acme"), ()):
        acme.machine.bbjwt("configure", *arguments)
        once = config(acme.machine).read_bytes()
        acme.machine.bbjwt("configure", *arguments)
        assert config(acme.machine).read_bytes() == once
    assert once.count(b"bbjwt") == 1


CONFIGURATIONS: dict[str, bytes] = {
    "empty": b"",
    "of a person": b"# mine\n[user]\n\tname = A\n[credential]\n\thelper = store ; trailing\n\n[alias]\n\tx = y\n",
    "the same section": b'[credential "https://bitbucket.org"]\n\tusername = me\n[core]\n\teditor = vi\n',
    "rewritten by hand": b'[url "https://bitbucket.org/"]\n\tinsteadOf = bb:\n',
    "carriage returns": b"[user]\r\n\tname = A\r\n",
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("arguments", [[], ["--exclusive", "--rewrite-ssh", "--workspace", "acme"]])
def test_unconfigure_leaves_the_file_as_it_was(machine: Machine, name: str, arguments: list[str]) -> None:
    before = CONFIGURATIONS[name]
    config(machine).write_bytes(before)
    machine.bbjwt("configure", *arguments)
    machine.bbjwt("unconfigure")

    assert config(machine).read_bytes() == before
    assert not (machine.home / ".config/git-credential-bbjwt").exists()


@pytest.mark.parametrize("arguments", [[], ["--exclusive", "--rewrite-ssh"]])
def test_unconfigure_leaves_the_settings_of_another_helper_for_the_url(machine: Machine, arguments: list[str]) -> None:
    config(machine).write_text(f'[credential "{CLOUD}"]\n    helper = cache\n    # why\n    useHttpPath = true\n')
    machine.bbjwt("configure", *arguments)
    machine.bbjwt("unconfigure")

    assert values(machine, HELPER) == ["cache"]
    assert values(machine, PATH_SWITCH) == ["true"]
    assert "# why" in config(machine).read_text()


def test_unconfigure_removes_entries_written_by_hand_and_their_settings(machine: Machine) -> None:
    config(machine).write_text(
        "[credential]\n\thelper = bbjwt --scope account\n"
        f'[credential "{CLOUD}"]\n\thelper = /gone/git-credential-bbjwt\n\tuseHttpPath = true\n'
        f'[credential "{CLOUD}/acme/"]\n\thelper = !git-credential-bbjwt\n\tuseHttpPath\n'
        f'[http "{CLOUD}/acme/"]\n\tproactiveAuth = basic\n[url "{CLOUD}/"]\n\tinsteadOf = git@bitbucket.org:\n'
    )
    machine.bbjwt("unconfigure")

    assert config(machine).read_bytes() == b""


def test_unconfigure_names_the_entries_that_other_files_have(machine: Machine) -> None:
    config(machine).write_text("[include]\n\tpath = more\n")
    (machine.home / "more").write_text(f'[credential "{CLOUD}"]\n\thelper = bbjwt --app SOME\n')
    machine.bbjwt("configure")
    done = machine.bbjwt("unconfigure")

    assert f"{machine.home}/more still names this helper, by {HELPER}" in done.stderr
    assert "SOME" not in done.stderr


def test_users_own_reset_survives(machine: Machine) -> None:
    for value in ("", "cache"):
        machine.git("config", "--global", "--add", HELPER, value)
    machine.bbjwt("configure", "--exclusive")
    machine.bbjwt("unconfigure")

    assert values(machine, HELPER) == ["", "cache"]


def test_options_before_configure_are_on_the_helper_line_and_in_force(acme: Workspace) -> None:
    config(acme.machine).unlink()
    acme.machine.bbjwt("--allow", "acme/lib-*", "--timeout=7", "--installation", acme.installation.name, "configure")
    (value,) = values(acme.machine, f"credential.{acme.bitbucket.base_url}.helper")

    # Git runs the helper in other folders.
    assert value == f"{COMMAND} --installation={acme.installation} --allow=acme/lib-\\* --timeout=7"
    refused = acme.machine.git("clone", "-q", acme.url, "w", check=False)
    assert "--allow does not name acme/widgets" in refused.stderr


def test_configure_without_options_keeps_those_of_the_line_that_is_there(machine: Machine) -> None:
    line = "/gone/git-credential-bbjwt --allow acme/lib-\\*"
    machine.git("config", "--global", HELPER, line)
    done = machine.bbjwt("configure")

    assert values(machine, HELPER) == [f"{COMMAND} --allow acme/lib-\\*"]
    assert "keeps its options (--allow)" in done.stderr
    machine.bbjwt("--allow=acme/widgets", "configure")
    assert values(machine, HELPER) == [f"{COMMAND} --allow=acme/widgets"]
    done = machine.bbjwt("--scope=repository:write", "configure")
    assert values(machine, HELPER) == [f"{COMMAND} --scope=repository:write --allow=acme/widgets"]
    assert "keeps its options (--allow)" in done.stderr
    refused = machine.bbjwt("configure", "--broker", "true", check=False)
    assert (refused.returncode, len(values(machine, HELPER))) == (2, 1)
    machine.bbjwt("unconfigure")
    machine.bbjwt("configure")
    assert values(machine, HELPER) == [str(COMMAND)]


def test_options_of_the_hosts_line_are_not_those_of_a_workspaces_line(machine: Machine) -> None:
    machine.git("config", "--global", HELPER, f"{COMMAND} --allow=acme/lib-\\*")
    done = machine.bbjwt("configure", "--workspace", "acme")

    assert values(machine, f"credential.{CLOUD}/acme.helper") == [str(COMMAND)]
    assert "keeps its options" not in done.stderr
    machine.git("config", "--global", f"credential.{CLOUD}/acme.helper", f"{COMMAND} --app=key")
    done = machine.bbjwt("configure", "--workspace", "acme")
    assert f"the helper line for {CLOUD}/acme keeps its options (--app)" in done.stderr


def test_hosts_of_the_options_are_configured(acme: Workspace) -> None:
    config(acme.machine).unlink()
    cloud = acme.bitbucket.payload(acme.bitbucket.install("elsewhere"), baseUrl=CLOUD)
    acme.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(cloud))
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.machine.bbjwt("--installation", acme.installation, "configure")
    acme.machine.git("clone", "-q", acme.url, "w")

    config(acme.machine).unlink()
    host = acme.bitbucket.host
    acme.machine.bbjwt("configure", "--host", host, "--installation-command", f"cat {acme.installation}")
    acme.machine.git("clone", "-q", acme.url, "x")
    assert values(acme.machine, HELPER) == []


def test_option_with_a_line_break_reaches_the_helper(acme: Workspace) -> None:
    config(acme.machine).unlink()
    del acme.machine.environment["BBJWT_INSTALLATION"]
    command = f"true\n cat '{acme.installation}' # ü \\ $x"
    acme.machine.bbjwt("configure", "--host", acme.bitbucket.host, "--installation-command", command)
    acme.machine.git("clone", "-q", acme.url, "w")


@pytest.mark.parametrize(
    "broker", ["ssh -T broker", 'sh -c "echo a b"', "echo \\\\$HOME", "unix:/run/with blank/socket"]
)
def test_lines_that_configure_prints_write_the_same_when_pasted(machine: Machine, broker: str) -> None:
    words = ["configure", "--broker", broker, "--exclusive", "--rewrite-ssh", "--workspace", "acme", "--proactive"]
    done = machine.bbjwt(*words)
    written = config(machine).read_bytes()
    config(machine).unlink()
    lines = [line.partition(": ")[2] for line in done.stderr.splitlines() if ": git config " in line]
    machine.run("sh", "-c", "\n".join(lines))

    assert config(machine).read_bytes() == written


def test_proactive_is_for_workspaces_and_never_for_a_host(machine: Machine) -> None:
    refused = machine.bbjwt("configure", "--proactive", check=False)
    assert refused.returncode == 2
    assert "--workspace" in refused.stderr
    machine.bbjwt("configure", "--proactive", "--workspace", "acme", "--workspace", "beta")

    settings = machine.git("config", "--global", "--get-regexp", "proactiveauth").stdout.splitlines()
    assert settings == [f"http.{CLOUD}/{workspace}/.proactiveauth basic" for workspace in ("acme", "beta")]
    machine.bbjwt("unconfigure")
    assert config(machine).read_bytes() == b""


def test_proactive_survives_the_change_to_a_workspace_and_back(machine: Machine) -> None:
    key = f"http.{CLOUD}/acme/.proactiveAuth"
    machine.bbjwt("configure")
    machine.bbjwt("configure", "--workspace", "acme", "--proactive")
    assert (values(machine, HELPER), values(machine, key)) == ([], ["basic"])
    machine.bbjwt("configure")
    assert (values(machine, HELPER), values(machine, key)) == ([str(COMMAND)], ["basic"])
    machine.bbjwt("unconfigure")
    assert config(machine).read_bytes() == b""


def test_proactive_for_the_workspaces_that_are_registered(acme: Workspace) -> None:
    config(acme.machine).unlink()
    acme.machine.bbjwt("configure", "--proactive")
    acme.machine.git("clone", "-q", acme.url, "w")

    assert values(acme.machine, f"http.{acme.bitbucket.base_url}/acme/.proactiveAuth") == ["basic"]
    assert values(acme.machine, f"credential.{acme.bitbucket.base_url}.helper") == [str(COMMAND)]


def test_proactive_needs_a_token_for_public_repositories_and_says_how_to_go_without(
    acme: Workspace, each_git: tuple[int, ...]
) -> None:
    acme.widgets.is_public = True
    acme.machine.bbjwt("configure", "--proactive")
    acme.machine.git("clone", "-q", acme.url, "w")
    asked_at_once = each_git >= (2, 46)
    assert (len(acme.bitbucket.helper_requests()) > 0) == asked_at_once

    acme.machine.bbjwt("forget", "--all")
    acme.app.shared_secret += "x"
    done = acme.machine.git("clone", acme.url, "x", check=False)
    assert (done.returncode != 0) == asked_at_once
    if asked_at_once:
        (command,) = re.findall(r"git -c http\S+=none clone \S+", done.stderr)
        acme.machine.run("sh", "-c", f"{command} y")
        # A setting for a URL takes precedence over the general one, even over that of the command line.
        general = acme.machine.git("-c", "http.proactiveAuth=none", "clone", acme.url, "z", check=False)
        assert general.returncode != 0


SECRET = "hunter2hunter2"


def test_configure_warns_of_helpers_that_are_asked_first_or_store_tokens(machine: Machine) -> None:
    config(machine).write_text(f"[credential]\n\thelper = !echo password={SECRET}\n\thelper = store --file=x\n")
    done = machine.bbjwt("configure")
    first, second = (line for line in done.stderr.splitlines() if "warning" in line)

    assert f"echo ({config(machine)}) is asked before this helper" in first
    assert f"store ({config(machine)}) is asked before this helper" in second
    assert "configure --exclusive" in first
    assert SECRET not in done.stderr
    machine.git("config", "--global", "--add", HELPER, "cache")
    done = machine.bbjwt("configure")
    assert "cache (" in done.stderr
    assert "stores them" in done.stderr
    machine.bbjwt("configure", "--exclusive")
    assert "warning" not in machine.bbjwt("configure").stderr


def test_configure_warns_of_a_path_switch_that_git_reads_later(machine: Machine) -> None:
    machine.bbjwt("configure")
    machine.git("config", "--global", "credential.useHttpPath", "false")
    done = machine.bbjwt("configure")

    assert f"warning: useHttpPath is off in {config(machine)}" in done.stderr
    assert f"git config --file {config(machine)} --edit" in done.stderr


def test_words_of_another_helper_that_are_not_a_program_are_not_shown(machine: Machine) -> None:
    values = (f"!TOKEN={SECRET} run", SECRET, f"!{SECRET}", f"'{SECRET}", f"/{SECRET}/x -y")
    for value in values:
        machine.git("config", "--global", "--add", "credential.helper", value)
    done = machine.bbjwt("configure")

    assert "warning" in done.stderr
    assert SECRET not in done.stderr


def test_configuration_that_cannot_be_replaced_names_other_ways(machine: Machine) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        cannot("only root can mount a file")
    config(machine).write_text("[user]\n\tname = A\n")
    script = 'mount --bind "$0" "$0" && exec "$1" configure'
    done = machine.run("unshare", "-m", "sh", "-c", script, config(machine), COMMAND, check=False)

    if "unshare" in done.stderr or "mount:" in done.stderr:
        cannot("no mount namespace here")
    assert done.returncode == 1
    assert "Device or resource busy" in done.stderr
    assert "exec -- git clone URL" in done.stderr
    assert "configure --system" in done.stderr
    assert config(machine).read_text() == "[user]\n\tname = A\n"


def test_unconfigure_without_entries_succeeds(machine: Machine) -> None:
    assert machine.bbjwt("unconfigure").returncode == 0


def test_local_is_for_one_repository(machine: Machine) -> None:
    machine.git("init", "-q", "a")
    machine.git("init", "-q", "b")
    before = (machine.home / "a/.git/config").read_bytes()
    for name in ("a", "b"):
        machine.run(COMMAND, "configure", "--local", cwd=machine.home / name)
    machine.run(COMMAND, "unconfigure", "--local", cwd=machine.home / "a")

    assert (machine.home / "a/.git/config").read_bytes() == before
    assert b"bbjwt" in (machine.home / "b/.git/config").read_bytes()
    assert machine.run(COMMAND, "configure", "--local", check=False).returncode == 1


def test_system_names_the_absolute_path(machine: Machine, tmp_path: Path) -> None:
    machine.environment["GIT_CONFIG_SYSTEM"] = str(tmp_path / "gitconfig")
    del machine.environment["GIT_CONFIG_NOSYSTEM"]
    (tmp_path / "gitconfig").write_text("")
    machine.bbjwt("configure", "--system")

    assert values(machine, HELPER, "--system") == [str(COMMAND)]
    machine.bbjwt("unconfigure", "--system")
    assert (tmp_path / "gitconfig").read_bytes() == b""


def test_command_that_is_not_on_path_is_configured_by_its_absolute_path(acme: Workspace, tmp_path: Path) -> None:
    odd = tmp_path / "an odd; folder"
    odd.mkdir()
    shutil.copy(COMMAND, odd)
    machine = acme.machine
    machine.environment["PATH"] = os.environ["PATH"].replace(f"{COMMAND.parent}:", "")
    config(machine).unlink()
    machine.run(odd / COMMAND.name, "configure")
    machine.git("clone", "-q", acme.url, "w")

    assert values(machine, f"credential.{acme.bitbucket.base_url}.helper")[0].startswith("/")


def test_a_file_git_cannot_write_is_an_error(machine: Machine) -> None:
    config(machine).symlink_to("/proc/version")
    done = machine.bbjwt("configure", check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("git-credential-bbjwt: error: git failed: ")


@pytest.mark.parametrize(("content", "hint"), [("[broken\n", "hint: correct that line"), ("", "hint: run: unset ")])
def test_cause_that_git_names_is_what_the_hint_is_about(machine: Machine, content: str, hint: str) -> None:
    config(machine).write_text(content)
    done = machine.bbjwt("configure", check=False, GIT_CONFIG_COUNT=None if content else "x")

    assert done.returncode == 1
    assert hint in done.stderr


def test_line_with_an_open_quote_is_named_and_can_be_removed(machine: Machine) -> None:
    machine.git("config", "--global", HELPER, "bbjwt --allow 'acme/*")
    before = config(machine).read_text()
    done = machine.bbjwt("configure", check=False)

    assert done.returncode == 1
    assert "a quote in it is not closed" in done.stderr
    assert config(machine).read_text() == before
    machine.bbjwt("unconfigure")
    assert "bbjwt" not in config(machine).read_text()


def test_unconfigure_removes_a_path_that_is_not_utf_8_between_other_helpers(machine: Machine) -> None:
    line = b"\thelper = /home/jos\xe9/git-credential-bbjwt\n"
    config(machine).write_bytes(b'[credential "https://bitbucket.org"]\n\thelper = a\n' + line + b"\thelper = b\n")
    machine.bbjwt("unconfigure", LC_ALL="C.UTF-8")

    assert values(machine, "credential.https://bitbucket.org.helper") == ["a", "b"]


def test_local_outside_a_repository_is_an_error(machine: Machine) -> None:
    for command in ("configure", "unconfigure"):
        done = machine.bbjwt(command, "--local", check=False)
        assert done.returncode == 1
        assert "not a git repository" in done.stderr
        assert "change into a repository" in done.stderr


def test_local_in_a_repository_that_git_refuses_says_why(machine: Machine, another_user: int) -> None:
    machine.git("init", "-q")
    os.chown(machine.home / ".git", another_user, another_user)
    done = machine.bbjwt("configure", "--local", check=False)

    assert done.returncode == 1
    assert "dubious ownership" in done.stderr
    assert "git status" in done.stderr


def test_unconfigure_fails_if_git_cannot_read_its_configuration(machine: Machine) -> None:
    machine.bbjwt("configure")
    done = machine.bbjwt("unconfigure", check=False, GIT_CONFIG_COUNT="x")

    assert done.returncode == 1
    assert "bogus count in GIT_CONFIG_COUNT" in done.stderr
    assert "does not name this helper" not in done.stderr


def test_unconfigure_that_cannot_write_does_not_name_ways_to_configure(machine: Machine) -> None:
    machine.bbjwt("configure")
    (machine.home / ".gitconfig.lock").write_text("")
    done = machine.bbjwt("unconfigure", check=False)

    assert done.returncode == 1
    assert "exec" not in done.stderr
