"""uninstall: everything that the helper has stored is removed, whatever the installer."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from git_credential_bbjwt.commands.uninstall import removal
from tests import desktop
from tests.conftest import COMMAND, PATIENCE, Machine, Workspace


def left(machine: Machine) -> list[Path]:
    """Return the remaining files of the helper."""
    places = [machine.home / ".config", machine.home / ".cache", machine.runtime]
    return [path for place in places for path in place.rglob("*") if path.is_file()]


def set_up(acme: Workspace) -> None:
    """Register, configure, and get a token."""
    (acme.machine.home / ".gitconfig").unlink()
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.machine.bbjwt("--timeout=30", "configure", "--rewrite-ssh")
    acme.machine.git("clone", "-q", acme.url, "w")
    assert left(acme.machine)


def test_everything_is_removed_and_a_second_run_succeeds(acme: Workspace) -> None:
    set_up(acme)
    for _ in range(2):
        done = acme.machine.bbjwt("uninstall")

        assert left(acme.machine) == []
        assert (acme.machine.home / ".gitconfig").read_bytes() == b""
        assert f"run: {shlex.quote(sys.executable)} -m pip uninstall git-credential-bbjwt" in done.stderr
        assert "still valid: tokens" in done.stderr


def test_settings_of_other_files_and_variables_are_named(acme: Workspace) -> None:
    (acme.machine.home / ".gitconfig").write_text("[include]\n\tpath = more\n")
    (acme.machine.home / "more").write_text("[credential]\n\thelper = bbjwt\n")
    done = acme.machine.bbjwt("uninstall")

    edit = f"git config --file {acme.machine.home}/more --edit"
    assert (
        f"{acme.machine.home}/more still names this helper, by credential.helper; to remove it, run: {edit}"
        in done.stderr
    )
    assert "still set in this environment: BBJWT_INSTALLATION" in done.stderr
    assert acme.installation.exists()


def test_keyring_that_cannot_be_reached_keeps_its_entry_and_fails(acme: Workspace) -> None:
    with desktop.session(acme.machine):
        acme.machine.bbjwt("register", acme.installation)
        acme.machine.bbjwt("configure")
    done = acme.machine.bbjwt("uninstall", check=False)

    assert done.returncode == 1
    assert "keyring" in done.stderr
    assert "not everything could be removed" in done.stderr
    again = acme.machine.bbjwt("uninstall", "--system", check=False, GIT_CONFIG_SYSTEM="/dev/null").stderr
    assert again.endswith("then run: git-credential-bbjwt uninstall --system\n")
    assert "acme" in acme.machine.bbjwt("list", BBJWT_INSTALLATION=None).stdout
    with desktop.session(acme.machine):
        acme.machine.bbjwt("uninstall")
    assert acme.machine.bbjwt("list", BBJWT_INSTALLATION=None).stdout == ""


@pytest.mark.parametrize(("reply", "is_removed"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_at_a_terminal_it_lists_and_asks(acme: Workspace, reply: str, is_removed: bool) -> None:
    set_up(acme)
    terminal, screen = pty.openpty()
    with subprocess.Popen(
        [COMMAND, "uninstall"], stdin=screen, stdout=screen, stderr=screen, env=acme.machine.env()
    ) as process:
        os.close(screen)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(terminal, 4096)
        os.write(terminal, reply.encode())
        status = process.wait(PATIENCE)
        os.close(terminal)

    assert b"1 installation with the secret: acme" in shown
    assert b"1 setting of this helper" in shown
    assert (status == 0) == is_removed == (left(acme.machine) == [])


@pytest.mark.parametrize(
    ("file", "folder", "command"),
    [
        ("tools/x/uv-receipt.toml", "tools/x/lib/python3.12/site-packages/git_credential_bbjwt", "uv tool uninstall"),
        ("venvs/x/pipx_metadata.json", "venvs/x/lib/python3/site-packages/git_credential_bbjwt", "pipx uninstall"),
        ("x", "share/git-credential-bbjwt/lib/python3/site-packages/p", "./install.sh --uninstall"),
        ("x", "venv/lib/python3/site-packages/p", "-m pip uninstall"),
    ],
)
def test_command_that_removes_the_program(tmp_path: Path, file: str, folder: str, command: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")
    (tmp_path / folder).mkdir(parents=True)

    assert command in removal(str(tmp_path / folder))
