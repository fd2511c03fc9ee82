"""doctor: each check, what it says when it fails, and the remedy."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from typing import Any

import pytest

from tests import desktop
from tests.conftest import COMMAND, Machine, Workspace, pretend_git


def checks(machine: Machine, *arguments: str, **changes: str | None) -> dict[str, Any]:
    """The checks by name; where a name stands twice, the worst."""
    done = machine.bbjwt("doctor", "--json", *arguments, check=False, also=changes)
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0) == all(check["ok"] for check in report["checks"])
    found: dict[str, Any] = {}
    for check in sorted(report["checks"], key=lambda check: bool(check["ok"])):
        assert check["ok"] or check["remedy"], check
        found.setdefault(check["name"], check)
    return found


def test_all_is_well(acme: Workspace) -> None:
    done = acme.machine.bbjwt("doctor", acme.url)

    assert done.stderr == ""
    assert all(line.startswith("✓ ") for line in done.stdout.splitlines())
    for name in ("git", "git configuration", "keyring", "installation", "network", "clock", "token"):
        assert f"✓ {name}: " in done.stdout
    assert acme.app.shared_secret not in done.stdout
    assert acme.machine.records() == []


def test_nothing_is_known(machine: Machine) -> None:
    found = checks(machine)

    assert not found["git configuration"]["ok"]
    assert "configure" in found["git configuration"]["remedy"]
    assert "register" in found["installation"]["remedy"]


def test_another_helper_before_ours(acme: Workspace) -> None:
    config = acme.machine.home / ".gitconfig"
    config.write_text("[credential]\n\thelper = cache --timeout 3600\n" + config.read_text())
    found = checks(acme.machine, acme.url)

    assert "cache --timeout 3600" in found["git configuration"]["detail"]
    assert "--exclusive" in found["git configuration"]["remedy"]
    acme.machine.bbjwt("configure", "--exclusive")
    assert checks(acme.machine, acme.url)["git configuration"]["ok"]


def test_a_helper_for_one_workspace(acme: Workspace) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    acme.machine.bbjwt("configure", "--workspace", "acme")

    assert checks(acme.machine)["git configuration"]["ok"]
    assert checks(acme.machine, acme.url)["git configuration"]["ok"]
    acme.write_installation(principal={"type": "team", "username": "other"})
    assert not checks(acme.machine)["git configuration"]["ok"]


def test_settings_for_a_workspace_are_nothing_to_an_older_git(acme: Workspace) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    acme.machine.bbjwt("configure", "--workspace", "acme")
    pretend_git(acme.machine, "2.25.1")
    found = checks(acme.machine, acme.url)

    assert "configure --workspace" in found["git"]["detail"]
    assert "does not ask" in found["git configuration"]["detail"]
    acme.machine.bbjwt("configure")
    assert checks(acme.machine, acme.url)["git configuration"]["ok"]


def test_the_path_switch_is_off(acme: Workspace) -> None:
    acme.machine.git("config", "--global", f"credential.{acme.bitbucket.base_url}.useHttpPath", "false")

    assert "useHttpPath" in checks(acme.machine, acme.url)["git configuration"]["detail"]


def test_the_path_switch_that_stands_last_counts(acme: Workspace) -> None:
    # As git has it (credential.c asks for all that match), whichever matches best.
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


def test_a_helper_that_is_not_there(acme: Workspace) -> None:
    key = f"credential.{acme.bitbucket.base_url}.helper"
    acme.machine.git("config", "--global", key, "/gone/git-credential-bbjwt")

    assert "not there" in checks(acme.machine, acme.url)["git configuration"]["detail"]


@pytest.mark.parametrize("locked", [False, True])
def test_the_keyring(acme: Workspace, locked: bool) -> None:
    machine = acme.machine
    with desktop.session(machine):
        machine.bbjwt("register", acme.installation)
        del machine.environment["BBJWT_INSTALLATION"]
        if locked:
            desktop.lock(machine)
        found = checks(machine)
    assert found["keyring"]["ok"] == found["installation"]["ok"] == (not locked)
    assert ("unlock" in found["keyring"]["remedy"]) == locked


def test_the_clock(acme: Workspace) -> None:
    acme.bitbucket.clock_offset = -100
    found = checks(acme.machine)

    assert re.match("10[01] s ahead of", found["clock"]["detail"])
    assert "NTP" in found["clock"]["remedy"]


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
    found = checks(acme.machine, acme.url.replace("widgets", "nothing"))

    assert "404" in found["token"]["detail"]


def test_colour_only_in_a_terminal(acme: Workspace) -> None:
    def in_terminal(**changes: str) -> bytes:
        terminal, screen = pty.openpty()
        environment = acme.machine.env(changes, TERM="xterm")
        subprocess.run([COMMAND, "doctor"], stdout=screen, stdin=subprocess.DEVNULL, env=environment, check=True)
        os.close(screen)
        shown = b""
        try:
            while piece := os.read(terminal, 4096):
                shown += piece
        except OSError:
            pass
        os.close(terminal)
        return shown

    assert "\x1b[32m✓".encode() in in_terminal()
    assert b"\x1b" not in in_terminal(NO_COLOR="1")
    assert "\x1b" not in acme.machine.bbjwt("doctor").stdout


def test_any_locale(acme: Workspace) -> None:
    assert "✓ git" in acme.machine.bbjwt("doctor", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").stdout
