"""configure and unconfigure: what they write into git's configuration, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import COMMAND, Machine, Workspace

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
    assert not config(machine).exists()


def test_exclusive_resets_inherited_helpers(acme: Workspace) -> None:
    config(acme.machine).unlink()
    acme.machine.git("config", "--global", "credential.helper", "store")
    acme.machine.bbjwt("configure", "--exclusive")
    acme.machine.git("clone", "-q", acme.url, "w")

    assert values(acme.machine, f"credential.{acme.bitbucket.base_url}.helper") == ["", str(COMMAND)]
    assert not (acme.machine.home / ".git-credentials").exists()


def test_rewrite_ssh(acme: Workspace) -> None:
    acme.machine.bbjwt("configure", "--rewrite-ssh")
    for url in ("git@localhost:acme/widgets.git", "ssh://git@localhost/acme/widgets.git"):
        acme.machine.git("clone", "-q", url, url[:3])


def test_twice_is_once(acme: Workspace) -> None:
    config(acme.machine).unlink()
    for arguments in ((), ("--exclusive",), ("--exclusive", "--rewrite-ssh"), ("--workspace", "acme"), ()):
        acme.machine.bbjwt("configure", *arguments)
        once = config(acme.machine).read_bytes()
        acme.machine.bbjwt("configure", *arguments)
        assert config(acme.machine).read_bytes() == once
    assert once.count(b"bbjwt") == 1


CONFIGURATIONS: dict[str, bytes] = {
    "empty": b"",
    "of a person": b"# mine\n[user]\n\tname = A\n[credential]\n\thelper = store ; trailing\n\n[alias]\n\tx = y\n",
    "the same section": b'[credential "https://bitbucket.org"]\n\tusername = me\n[core]\n\teditor = vi\n',
    "the path switch is on already": b'[credential "https://bitbucket.org"]\n\tuseHttpPath = true\n',
    "a helper of its own": b'[credential "https://bitbucket.org"]\n    helper = cache\n    # why\n',
    "configured by hand": b'[credential "https://bitbucket.org"]\n\thelper = bbjwt\n\tuseHttpPath = true\n',
    "rewritten by hand": b'[url "https://bitbucket.org/"]\n\tinsteadOf = bb:\n',
    "carriage returns": b"[user]\r\n\tname = A\r\n",
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("arguments", [[], ["--exclusive", "--rewrite-ssh", "--workspace", "acme"], ["--exclusive"]])
def test_unconfigure_leaves_the_file_as_it_was(machine: Machine, name: str, arguments: list[str]) -> None:
    before = CONFIGURATIONS[name]
    config(machine).write_bytes(before)
    machine.bbjwt("configure", *arguments)
    machine.bbjwt("configure", *arguments)
    machine.bbjwt("unconfigure")

    assert config(machine).read_bytes() == before
    assert not (machine.home / ".config/git-credential-bbjwt").exists()


def test_a_file_that_was_not_there_is_not_there_afterwards(machine: Machine) -> None:
    machine.bbjwt("configure")
    machine.bbjwt("unconfigure")

    assert not config(machine).exists()


def test_unconfigure_leaves_what_a_person_added_since(machine: Machine) -> None:
    machine.bbjwt("configure")
    machine.git("config", "--global", "--add", HELPER, "cache")
    machine.bbjwt("unconfigure")

    assert values(machine, HELPER) == ["cache"]
    assert values(machine, PATH_SWITCH) == []


def test_a_reset_of_the_persons_own_survives(machine: Machine) -> None:
    for value in ("", "cache"):
        machine.git("config", "--global", "--add", HELPER, value)
    machine.bbjwt("configure", "--exclusive")
    machine.bbjwt("unconfigure")

    assert values(machine, HELPER) == ["", "cache"]


def test_unconfigure_of_nothing_is_no_error(machine: Machine) -> None:
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


def test_off_path_the_absolute_path_is_named_and_works(acme: Workspace, tmp_path: Path) -> None:
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
    assert done.stderr.startswith("git-credential-bbjwt: error: git config failed")
