"""install.sh and the packages: on any shell, without a network, upgraded, uninstalled, and by other installers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from git_credential_bbjwt import __version__
from tests import tally
from tests.conftest import COMMAND, PATIENCE, PROJECT, Machine, Workspace, answer, cannot, need, shared_folder
from tests.installers import INSTALLER, environments, install, installed, make_python_without_venv

Recorder = Callable[[str, object], None]


@pytest.fixture
def no_wheels(tmp_path: Path) -> Path:
    """An empty wheelhouse, for tests that end before it is opened."""
    (tmp_path / "no-wheels").mkdir()
    return tmp_path / "no-wheels"


@pytest.fixture
def short(fresh: Machine, tmp_path: Path) -> Machine:
    """A machine on which install.sh ends after all checks, because `python -m venv` fails."""
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\ncase "$*" in *"-m venv"*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    fresh.environment["PYTHON"] = str(python)
    return fresh


#: The last step that the machine `short` reaches.
ALL_IS_CHECKED = "making an isolated environment"


def tree(folder: Path) -> list[str]:
    """Return everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(("shell", "with_what"), [("dash", "fresh"), ("busybox sh", "with_uv")])
def test_install_clone_upgrade_uninstall(
    acme: Workspace,
    wheelhouse: Path,
    shell: str,
    with_what: str,
    request: pytest.FixtureRequest,
    record_property: Recorder,
) -> None:
    need(shell.split()[0])
    record_property(*tally.worked_with("install.sh:", shell))
    machine: Machine = request.getfixturevalue(with_what)
    payload = acme.installation
    del machine.environment["BBJWT_INSTALLATION"]
    (machine.home / ".gitconfig").unlink()
    before = tree(machine.home)
    pattern = f"{acme.bitbucket.base_url}/acme/REPOSITORY"

    first = install(machine, wheelhouse, "--no-configure", shell=shell)
    machine.run(installed(machine), "register", "--insecure-storage", payload)
    machine.run(installed(machine), "configure", "--exclusive", "--workspace", "acme")
    machine.git("clone", "-q", acme.url, "w")
    settings = (machine.home / ".gitconfig").read_bytes()
    assert f"next: {installed(machine)} register FILE" in first.stderr
    (extended,) = re.findall("not on your PATH.*\n *(export PATH=.*)", first.stderr)
    machine.run("sh", "-euc", f"{extended}; git-credential-bbjwt --version")
    assert machine.run(installed(machine), "--version").stdout == f"git-credential-bbjwt {__version__}\n"

    if with_what == "with_uv":
        (oldest,) = environments(machine)
        upgraded = install(machine, wheelhouse)
        assert (machine.home / ".gitconfig").read_bytes() == settings
        # A running command still imports from there.
        (newer,) = environments(machine) - {oldest}
        assert oldest.exists()
        assert upgraded.stderr.splitlines()[-1] == f"next: git clone {pattern}"
        install(machine, wheelhouse, "--no-configure")
        assert newer in environments(machine)
        assert not oldest.exists()
    acme.bitbucket.revoke_tokens()
    machine.git("fetch", "-q", cwd=machine.home / "w", check=False)
    machine.git("fetch", "-q", cwd=machine.home / "w")
    assert acme.bitbucket.mints() == 2

    install(machine, wheelhouse, "--uninstall", shell=shell)
    shutil.rmtree(machine.home / "w")
    if (machine.home / ".gitconfig").exists():  # Git leaves an empty file.
        assert (machine.home / ".gitconfig").read_text() == ""
        (machine.home / ".gitconfig").unlink()
    assert tree(machine.home) == before
    assert list(machine.runtime.iterdir()) == []


def test_install_without_a_keyring(acme: Workspace, with_uv: Machine, wheelhouse: Path) -> None:
    del acme.machine.environment["BBJWT_INSTALLATION"]
    (with_uv.home / ".gitconfig").unlink()
    payload = acme.installation.rename(acme.installation.with_name("the app's payload.json"))
    done = install(with_uv, wheelhouse, payload)

    # The command is installed and configured, the secret is not stored, and the last lines have the next commands.
    *_, what, variable, stored = done.stderr.splitlines()
    assert "do one of these" in what
    assert shlex.split(variable) == ["export", f"BBJWT_INSTALLATION={payload}"]
    assert shlex.split(stored) == [str(installed(with_uv)), "register", "--insecure-storage", str(payload)]
    assert json.loads(with_uv.run(installed(with_uv), "list", "--json").stdout) == []
    with_uv.run("sh", "-c", f"{variable}; git clone -q {acme.url} w")
    with_uv.run("sh", "-c", stored)
    with_uv.git("clone", "-q", acme.url, "again")
    with_uv.run(installed(with_uv), "unregister", "--all")
    with_uv.environment["PATH"] = f"{installed(with_uv).parent}:{with_uv.environment['PATH']}"
    done = install(with_uv, wheelhouse, "--insecure-storage", payload)
    assert "PATH" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"next: git clone {acme.bitbucket.base_url}/acme/REPOSITORY"
    with_uv.git("clone", "-q", acme.url, "once-more")
    with_uv.run(installed(with_uv), "unregister", "--all")
    with_uv.environment["BBJWT_INSTALLATION"] = str(payload)
    done = install(with_uv, wheelhouse)
    assert (
        done.stderr.splitlines()[-1] == "next: git-credential-bbjwt doctor https://bitbucket.org/WORKSPACE/REPOSITORY"
    )


@pytest.mark.parametrize(
    ("text", "reason"), [("[]", "not a JSON object"), ("{\n}\n{\n}\n", "more than one payload\nhint: use one payload")]
)
def test_install_with_a_file_that_is_not_a_payload_installs_nothing(
    fresh: Machine, no_wheels: Path, text: str, reason: str
) -> None:
    (fresh.home / "payload").write_text(text)
    refused = install(fresh, no_wheels, fresh.home / "payload", check=False)

    assert refused.returncode == 1
    assert reason in refused.stderr
    assert "not a payload" in refused.stderr
    assert not (fresh.home / ".local").exists()  # The error comes before anything is made.


@pytest.mark.parametrize("form", ["an array", "a line each", "base64"])
def test_install_accepts_a_file_in_every_form_of_register(
    acme: Workspace, short: Machine, no_wheels: Path, form: str
) -> None:
    several = [acme.bitbucket.payload(acme.app), acme.bitbucket.payload(acme.bitbucket.install("other"))]
    text = json.dumps(several) if form == "an array" else "\n".join(map(json.dumps, several)) + "\n"
    if form == "base64":
        text = b64encode(json.dumps(several[0]).encode()).decode()
    (short.home / "payloads").write_text(text)
    done = install(short, no_wheels, short.home / "payloads", check=False)

    assert "not a payload" not in done.stderr
    assert ALL_IS_CHECKED in done.stderr


def programs_that_betray_themselves(folder: Path, ran: Path) -> None:
    """Fill a folder with commands and modules that write to ``ran`` if they are run."""
    for name in ("apt-get", "cat", "date", "dirname", "git", "id", "mkdir", "mktemp", "python3", "rm", "sed", "uv"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} >>"{ran}"\n')
        (folder / name).chmod(0o755)
    for name in ("venv", "ensurepip", "pip", "sys", "os"):
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\n")
    (folder / "uv.toml").write_text("broken")


def test_install_runs_and_reads_nothing_of_the_callers_folder(fresh: Machine, wheelhouse: Path) -> None:
    caller = fresh.home / "caller"
    caller.mkdir()
    programs_that_betray_themselves(caller, fresh.home / "ran")
    precious = fresh.home / "precious"
    precious.write_text("precious")
    (fresh.home / ".local/bin").mkdir(parents=True)
    (fresh.home / ".local/bin/.git-credential-bbjwt.new").symlink_to(precious)
    install_it = f'/bin/sh "{INSTALLER}" --no-configure --wheelhouse "{wheelhouse}"'
    fresh.environment["PATH"] = f":.:../caller:{fresh.environment['PATH']}:"
    fresh.run("/bin/sh", "-c", f"umask 000 && cd '{caller}' && exec {install_it}")

    assert not (fresh.home / "ran").exists()
    assert precious.read_text() == "precious"
    share, command = fresh.home / ".local/share", installed(fresh)
    assert [
        path for path in (command, *share.rglob("*")) if not path.is_symlink() and path.stat().st_mode & 0o022
    ] == []


@pytest.mark.parametrize(
    ("options", "path"),
    [
        *((options.split(), ".") for options in ("--demo", "--uninstall", "--fill-wheelhouse wheels", "--help", "")),
        *(([], path) for path in (".:/usr/bin:/bin", ":/usr/bin:/bin", "/usr/bin:/bin:", "../caller:/usr/bin:/bin")),
    ],
)
def test_relative_entries_of_path_are_not_used(short: Machine, no_wheels: Path, options: list[str], path: str) -> None:
    caller = short.home / "caller"
    caller.mkdir()
    programs_that_betray_themselves(caller, short.home / "ran")
    short.environment["PATH"] = path
    short.run("/bin/sh", INSTALLER, "--wheelhouse", no_wheels, *options, cwd=caller, check=False)

    assert not (short.home / "ran").exists()


def test_a_relative_python_is_refused(fresh: Machine, no_wheels: Path) -> None:
    fresh.environment["PYTHON"] = "./python3"
    refused = install(fresh, no_wheels, check=False)

    assert refused.returncode == 1
    assert "PYTHON=./python3 is relative to this folder" in refused.stderr


@pytest.mark.parametrize(
    "wrong",
    ["the home of another", "a folder of another", "a link of another", "everybody's folder", "everybody's home"],
)
def test_install_uses_no_folder_or_link_that_others_can_replace(
    fresh: Machine, no_wheels: Path, request: pytest.FixtureRequest, wrong: str
) -> None:
    local = fresh.home / ".local"
    if wrong.startswith("everybody"):
        local.mkdir()
        (local if "folder" in wrong else fresh.home).chmod(0o777)
    else:
        another_user = request.getfixturevalue("another_user")
        if "home" in wrong:
            os.chown(fresh.home, another_user, another_user)
        elif "folder" in wrong:
            local.mkdir()
            os.chown(local, another_user, another_user)
        else:
            (fresh.home / "elsewhere").mkdir()
            local.symlink_to(fresh.home / "elsewhere")
            os.chown(local, another_user, another_user, follow_symlinks=False)
    refused = install(fresh, no_wheels, check=False)

    assert refused.returncode == 1
    assert ("everybody can write to" if wrong.startswith("everybody") else "belongs to another user") in refused.stderr
    assert not installed(fresh).exists()


def test_folder_that_everybody_can_write_is_accepted_if_it_is_sticky(short: Machine, no_wheels: Path) -> None:
    # The homes of these tests are in such a folder, /tmp.
    (short.home / ".local").mkdir()
    (short.home / ".local").chmod(0o1777)
    done = install(short, no_wheels, check=False)

    assert ALL_IS_CHECKED in done.stderr


@pytest.mark.parametrize("variable", ["HOME", "TMPDIR"])
def test_a_relative_folder_in_the_environment_is_not_used(short: Machine, no_wheels: Path, variable: str) -> None:
    short.environment[variable] = "here"
    (short.home / "here").mkdir()
    mode = [] if variable == "HOME" else ["--demo"]
    done = install(short, no_wheels, *mode, check=False)

    assert done.returncode == 1
    assert tree(short.home) == ["here"]


def test_two_installers_never_work_in_the_same_folder(short: Machine, no_wheels: Path) -> None:
    data = short.home / ".local/share/git-credential-bbjwt"
    data.mkdir(parents=True)
    (data / "installing").symlink_to(str(os.getpid()))
    for options in ([], ["--uninstall"]):
        refused = install(short, no_wheels, *options, check=False)
        assert f"process {os.getpid()} is installing there just now" in refused.stderr
        assert refused.returncode == 1

    # The lock of a killed installer is replaced.
    ended = subprocess.Popen(["true"])
    ended.wait()
    (data / "installing").unlink()
    (data / "installing").symlink_to(str(ended.pid))
    (data / "environment-1-2/bin").mkdir(parents=True)
    done = install(short, no_wheels, check=False)
    assert ALL_IS_CHECKED in done.stderr
    assert not data.exists()


@pytest.mark.parametrize("with_what", ["fresh", "with_uv"])
def test_a_wheelhouse_is_filled_without_pip_on_the_machine(
    wheelhouse: Path, with_what: str, request: pytest.FixtureRequest
) -> None:
    machine: Machine = request.getfixturevalue(with_what)
    for tool in ("PIP", "UV"):
        machine.environment |= {f"{tool}_NO_INDEX": "1", f"{tool}_FIND_LINKS": str(wheelhouse)}
    done = machine.run("sh", INSTALLER, "--fill-wheelhouse", "wheels")
    filled = {path.name for path in (machine.home / "wheels").iterdir()}

    assert done.stderr.splitlines()[-1].startswith(f"next: copy {machine.home}/wheels ")
    assert filled <= {path.name for path in wheelhouse.iterdir()}
    assert {"keyring", "hatchling", "trustme", "gunicorn", "pip"} <= {name.partition("-")[0] for name in filled}
    if with_what == "with_uv":
        for tool in ("PIP", "UV"):
            del machine.environment[f"{tool}_FIND_LINKS"]
        install(machine, machine.home / "wheels", "--no-configure")
        assert machine.run(installed(machine), "capability").returncode == 0


def test_upgrade_keeps_the_requested_packages(with_uv: Machine, wheelhouse: Path) -> None:
    install(with_uv, wheelhouse, "--no-configure", "--with", "keyring-pass", "--with-broker")
    done = install(with_uv, wheelhouse, "--no-configure", "--with", "keyrings.alt")
    current = with_uv.home / ".local/share/git-credential-bbjwt/current/bin"

    assert "not locked: keyrings.alt keyring-pass" in done.stderr
    asked = "import gunicorn, keyring_pass, keyrings.alt; print(keyring_pass.__file__)"
    before, after = sorted(environments(with_uv), key=os.path.getmtime)
    printed = with_uv.run(current / "python", "-I", "-c", asked).stdout
    assert Path(printed.strip()).resolve().is_relative_to(after)
    assert before.exists()
    assert "gunicorn (version 27" in with_uv.run(current / "gunicorn", "--version").stdout


def test_uninstall_keeps_the_command_if_a_secret_cannot_be_removed(with_uv: Machine, wheelhouse: Path) -> None:
    install(with_uv, wheelhouse, "--no-configure")
    real = installed(with_uv).rename(installed(with_uv).with_name("real"))
    (environment,) = environments(with_uv)
    installed(with_uv).write_text(f'#!/bin/sh\n# {environment}\n[ "$1" != unregister ] || exit 1\nexec "{real}" "$@"\n')
    installed(with_uv).chmod(0o755)
    refused = install(with_uv, wheelhouse, "--uninstall", check=False)

    assert refused.returncode == 1
    assert "hint: unlock the keyring, then run again: ./install.sh --uninstall\n" in refused.stderr
    assert installed(with_uv).exists()
    assert environments(with_uv)


def test_command_without_its_python_is_installed_again_with_its_packages(with_uv: Machine, wheelhouse: Path) -> None:
    install(with_uv, wheelhouse, "--no-configure", "--with", "keyrings.alt")
    (environment,) = environments(with_uv)
    (environment / "bin/python").unlink()
    (environment / "bin/python").symlink_to("/nonexistent/python3.9")
    refused = install(with_uv, wheelhouse, "--uninstall", check=False)
    again = install(with_uv, wheelhouse, "--no-configure")

    assert refused.returncode == 1
    assert "hint: install it again, then uninstall it: ./install.sh --no-configure\n" in refused.stderr
    assert "not locked: keyrings.alt" in again.stderr
    install(with_uv, wheelhouse, "--uninstall")
    assert not installed(with_uv).exists()


def test_the_command_of_another_installer_is_named_and_never_removed(with_uv: Machine, wheelhouse: Path) -> None:
    installed(with_uv).parent.mkdir(parents=True)
    installed(with_uv).write_text("#!/somewhere/else/python\n")
    uninstalled = install(with_uv, wheelhouse, "--uninstall")
    assert f"note: {installed(with_uv)} is left alone: another installer made it" in uninstalled.stderr
    assert installed(with_uv).read_text() == "#!/somewhere/else/python\n"

    done = install(with_uv, wheelhouse, "--no-configure")
    assert f"note: replacing {installed(with_uv)}, which another installer made" in done.stderr


def test_install_runs_only_from_its_own_folder(fresh: Machine) -> None:
    done = fresh.run("sh", "-c", f"exec sh -s -- --no-configure <'{INSTALLER}'", check=False)

    assert done.returncode == 1
    assert "hint: run it there: ./install.sh" in done.stderr


def test_link_to_the_installer_is_refused(fresh: Machine) -> None:
    link = fresh.home / "install.sh"
    link.symlink_to(INSTALLER)
    done = fresh.run("sh", link, check=False)

    assert done.returncode == 1
    assert done.stderr.endswith("hint: run it there: ./install.sh\n")


def test_home_that_ends_in_a_slash_is_the_same_home(short: Machine, no_wheels: Path) -> None:
    home = short.home
    short.environment["HOME"] = f"{home}/"
    done = install(short, no_wheels, check=False)

    assert f"installing git-credential-bbjwt in {home}/.local/share/git-credential-bbjwt ..." in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        "--demo --system",
        "--demo FILE",
        "--demo --uninstall",
        "--uninstall --latest",
        "--uninstall --no-configure",
        "--fill-wheelhouse wheels --with keyring-pass",
        "--insecure-storage",
        "--latst",
        "FILE FILE",
    ],
)
def test_no_option_is_ignored(fresh: Machine, options: str) -> None:
    (fresh.home / "FILE").touch()
    done = fresh.run("sh", INSTALLER, *options.split(), check=False)

    assert done.returncode == 2
    assert "usage: ./install.sh" in done.stderr


@pytest.mark.parametrize("wrong", ["a file", "a link to nowhere", "a name"])
def test_unusable_place_is_named_before_anything_is_made(fresh: Machine, no_wheels: Path, wrong: str) -> None:
    if wrong == "a file":
        (fresh.home / ".local").touch()
    elif wrong == "a link to nowhere":
        (fresh.home / ".local").symlink_to("nowhere")
    else:
        fresh.environment["HOME"] = str(fresh.home / "two\nlines")
    before = tree(fresh.home)
    done = install(fresh, no_wheels, check=False)

    assert done.returncode == 1
    assert ("is not a folder" if wrong != "a name" else "folder with such a name") in done.stderr
    assert "hint: " in done.stderr
    assert tree(fresh.home) == before


@pytest.fixture
def settled(with_uv: Machine, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine with the command in a home with a blank in its name. Tests that change nothing share it."""

    def fill(home: Path) -> None:
        with_uv.environment["HOME"] = str(home)
        install(with_uv, wheelhouse, "--no-configure", shell="bash")  # noqa: S604  # a shell's name

    with_uv.home = shared_folder(tmp_path_factory, "a settled home", fill)
    with_uv.environment["HOME"] = str(with_uv.home)
    return with_uv


def test_the_installed_command_ignores_pythonpath(settled: Machine, tmp_path: Path, record_property: Recorder) -> None:
    record_property(*tally.worked_with("install.sh:", "bash"))
    (tmp_path / "os.py").write_text("raise SystemExit('taken over')\n")
    settled.environment["PYTHONPATH"] = str(tmp_path)

    assert settled.run(installed(settled), "capability").stdout == "version 0\ncapability state\n"


def test_failed_upgrade_leaves_the_old_command_working(settled: Machine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    failed = settled.run("sh", INSTALLER, "--wheelhouse", tmp_path / "empty", check=False)

    assert failed.returncode == 1
    assert "hint: " in failed.stderr
    assert settled.run(installed(settled), "capability").returncode == 0
    assert len(environments(settled)) == 1


def test_man_page_and_completions(settled: Machine) -> None:
    man = need("man")
    settled.environment["PATH"] = f"{installed(settled).parent}:{settled.environment['PATH']}"
    settled.environment["MANPAGER"] = "cat"

    assert "fresh read-only tokens" in settled.git("help", "credential-bbjwt").stdout
    checked = settled.run(man, "--warnings", "-l", settled.home / ".local/share/man/man1/git-credential-bbjwt.1")
    assert checked.stderr == ""
    script = settled.home / ".local/share/bash-completion/completions/git-credential-bbjwt"
    settled.run("bash", "-c", f"source '{script}' && complete -p git-credential-bbjwt")
    for name in ("zsh/site-functions/_git-credential-bbjwt", "fish/vendor_completions.d/git-credential-bbjwt.fish"):
        assert "unconfigure" in (settled.home / ".local/share" / name).read_text()


def test_the_demo_leaves_nothing_behind(fresh: Machine, wheelhouse: Path, checkout: Path, git_3: Path) -> None:
    before = tree(checkout)
    done = install(fresh, wheelhouse, "--demo", installer=checkout / "install.sh", cwd=checkout)

    assert git_3.exists()  # It works with git 3.0's defaults.
    assert "cloned: Hello from a private repository." in done.stdout
    assert done.stdout.count("error: 403") == 2
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    assert tree(fresh.home) == []
    assert tree(checkout) == before


def test_checkout_is_not_changed(acme: Workspace, with_uv: Machine, wheelhouse: Path, checkout: Path) -> None:
    without_ours = with_uv.home / "wheels"
    without_ours.mkdir()
    for wheel in wheelhouse.iterdir():
        if not wheel.name.startswith("git_credential_bbjwt"):
            (without_ours / wheel.name).symlink_to(wheel)
    (without_ours / "git_credential_bbjwt-0.9.0-py3-none-any.whl").touch()  # A wheel of another version.
    before = tree(checkout)
    install(
        with_uv, without_ours, "--insecure-storage", acme.installation, installer=checkout / "install.sh", cwd=checkout
    )
    install(with_uv, without_ours, "--uninstall", installer=checkout / "install.sh", cwd=checkout)

    assert tree(checkout) == before


# Debian without python3-venv: a Python that lacks the module, with and without other tools.


@pytest.fixture
def without_venv(fresh: Machine, tmp_path: Path) -> Path:
    """A folder for PATH with git and the usual tools, but with a python3 that cannot make environments."""
    folder = tmp_path / "debian"
    folder.mkdir()
    basics = (
        "cat",
        "chmod",
        "date",
        "dirname",
        "id",
        "ln",
        "mkdir",
        "mktemp",
        "mv",
        "rm",
        "rmdir",
        "sed",
        "sh",
        "touch",
    )
    for program in (*basics, "git"):
        (folder / program).symlink_to(need(program))
    make_python_without_venv(folder / "python3")
    fresh.environment["PATH"] = str(folder)
    del fresh.environment["PYTHON"]
    return folder


def fake_apt(folder: Path) -> Path:
    """Make an apt-get that records its arguments."""
    apt = folder / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >>"{folder}/apt-log"\ntest "$1" = update\n')
    apt.chmod(0o755)
    return folder / "apt-log"


#: Debian's separate package.
VENV = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"


def test_without_venv_root_gets_the_package_installed(fresh: Machine, no_wheels: Path, without_venv: Path) -> None:
    if os.geteuid() != 0:
        cannot("only root installs packages")
    log = fake_apt(without_venv)
    done = install(fresh, no_wheels, check=False)

    assert f"lacks the venv module: installing {VENV}" in done.stderr
    assert f"install -y -qq {VENV}" in log.read_text()
    assert f"hint: run: apt-get update && apt-get install -y {VENV}" in done.stderr


@pytest.mark.parametrize("mode", ["--demo", "--fill-wheelhouse=wheels"])
def test_without_venv_the_demo_installs_no_system_package(
    fresh: Machine, no_wheels: Path, without_venv: Path, mode: str
) -> None:
    log = fake_apt(without_venv)
    done = install(fresh, no_wheels, *mode.split("="), check=False)
    sudo = "" if os.geteuid() == 0 else "sudo "

    assert done.returncode == 1
    assert f"hint: run: {sudo}apt-get update && {sudo}apt-get install -y {VENV}" in done.stderr
    assert not log.exists()


def test_without_venv_a_user_gets_the_exact_command(fresh: Machine, no_wheels: Path, without_venv: Path) -> None:
    log = fake_apt(without_venv)
    (without_venv / "id").unlink()
    (without_venv / "id").write_text("#!/bin/sh\necho 1000\n")
    (without_venv / "id").chmod(0o755)
    done = install(fresh, no_wheels, check=False)

    assert done.returncode == 1
    assert f"hint: run: sudo apt-get update && sudo apt-get install -y {VENV}" in done.stderr
    assert not log.exists()


def test_without_venv_on_other_systems(fresh: Machine, no_wheels: Path, without_venv: Path) -> None:
    assert without_venv.exists()
    done = install(fresh, no_wheels, check=False)

    assert done.returncode == 1
    assert "uv or virtualenv" in done.stderr


@pytest.mark.parametrize("tool", ["uv", "virtualenv"])
def test_without_venv_another_tool_is_used(
    fresh: Machine, wheelhouse: Path, tools: Path, without_venv: Path, tool: str, record_property: Recorder
) -> None:
    record_property(*tally.worked_with("install.sh:", f"{tool} in place of venv"))
    (without_venv / tool).symlink_to(tools / tool)
    install(fresh, wheelhouse, "--no-configure")

    assert fresh.run(installed(fresh), "capability").returncode == 0


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("uv", ["tool", "install", "--no-index", "--find-links", "{wheelhouse}", "--python", sys.executable]),
        ("pipx", ["install", "--pip-args=--no-index --find-links {wheelhouse}", "--python", sys.executable]),
    ],
)
def test_other_installers(
    acme: Workspace,
    fresh: Machine,
    wheelhouse: Path,
    tools: Path,
    tool: str,
    arguments: list[str],
    record_property: Recorder,
) -> None:
    program = tools / tool
    version = fresh.run(program, "--version").stdout.split()[-1 if tool == "pipx" else 1]
    record_property(*tally.worked_with(tool, version))
    fresh.run(program, *(word.format(wheelhouse=wheelhouse) for word in arguments), "git-credential-bbjwt")
    fresh.environment["PATH"] = f"{installed(fresh).parent}:{fresh.environment['PATH']}"
    fresh.git("clone", "-q", acme.url, "w")

    assert (fresh.home / "w/README.md").exists()


# The packages.


def test_packages_are_reproducible_and_whole(tmp_path: Path, machine: Machine) -> None:
    digests: set[str] = set()
    for number in range(2):
        copy = tmp_path / f"copy{number}"
        ignored = shutil.ignore_patterns(".git", ".cache", "__pycache__")
        shutil.copytree(PROJECT, copy, ignore=ignored)
        machine.run(sys.executable, "-m", "hatchling", "build", "-d", tmp_path / f"dist{number}", cwd=copy)
        files = sorted((tmp_path / f"dist{number}").iterdir())
        assert [path.suffix for path in files] == [".whl", ".gz"]
        digests.add(" ".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))
    assert len(digests) == 1

    (wheel,) = (tmp_path / "dist0").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "git_credential_bbjwt/py.typed" in names
    assert not [name for name in names if "/tests/" in name or "build_hook" in name or name.startswith("tests")]
    # The same wheel can be built from the sdist.
    (sdist,) = (tmp_path / "dist0").glob("*.tar.gz")
    (tmp_path / "unpacked").mkdir()
    machine.run("tar", "-xf", sdist, "-C", tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    machine.run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=unpacked)
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


def test_command_is_the_wheels_own() -> None:
    # It is not an installer's wrapper, which imports `re` and takes half a Python start.
    assert "import re" not in COMMAND.read_text()


# For all users.


def test_for_all_users(acme: Workspace, with_uv: Machine, wheelhouse: Path) -> None:
    if os.geteuid() != 0:
        cannot("only root installs for all users")
    payload = acme.machine.home / "system.json"
    payload.write_text(acme.installation.read_text())
    script = f"""
set -e
mount -t tmpfs none /opt
mount -t tmpfs none /usr/local
umask 077
sh "{INSTALLER}" --system --wheelhouse "{wheelhouse}" --no-configure
/usr/local/bin/git-credential-bbjwt register --system --insecure-storage "{payload}"
/usr/local/bin/git-credential-bbjwt configure --system
git config --system --list
git clone -q "{acme.url}" w
find /opt /usr/local ! -type l ! -perm -o=r
sh "{INSTALLER}" --system --uninstall
find /opt /usr/local -type f
"""
    environment = with_uv.environment
    for name in ("BBJWT_INSTALLATION", "GIT_CONFIG_NOSYSTEM"):
        environment.pop(name)
    (acme.machine.home / ".gitconfig").unlink()
    environment["GIT_CONFIG_SYSTEM"] = str(acme.machine.home / "system-gitconfig")
    Path(environment["GIT_CONFIG_SYSTEM"]).touch()
    python = Path(os.path.realpath(sys.executable))
    if python.is_relative_to("/usr/local") or python.is_relative_to("/opt"):
        cannot("Python itself is where the test puts an empty folder")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env=acme.machine.env(),
        cwd=acme.machine.home,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    if "unshare" in done.stderr:
        cannot("no mount namespace can be made here")
    assert done.returncode == 0, done.stderr
    base = acme.bitbucket.base_url
    assert f"credential.{base}.helper=/usr/local/bin/git-credential-bbjwt" in done.stdout
    assert not done.stdout.strip().splitlines()[-1].startswith("/")
    assert (acme.machine.home / "w/README.md").exists()
    assert Path(environment["GIT_CONFIG_SYSTEM"]).read_bytes() == b""
    registry = Path(environment["XDG_CONFIG_DIRS"]) / "git-credential-bbjwt/installations"
    assert not registry.exists()


def test_a_shared_registry_is_readable_and_its_secret_is_not(acme: Workspace) -> None:
    acme.machine.bbjwt("register", "--system", "--insecure-storage", acme.installation)
    folder = Path(acme.machine.environment["XDG_CONFIG_DIRS"]) / "git-credential-bbjwt"

    assert (folder / "installations").stat().st_mode & 0o777 == 0o755
    entries = [path for path in (folder / "installations").rglob("*") if path.is_file()]
    assert entries
    assert not any(acme.app.shared_secret in path.read_text() for path in entries)
    (secret,) = (folder / "shared-secrets").iterdir()
    assert secret.stat().st_mode & 0o777 == 0o600
    listed = json.loads(acme.machine.bbjwt("list", "--json", BBJWT_INSTALLATION=None).stdout)
    assert [one["registry"] for one in listed] == ["system"]
    assert "password" in answer(acme.get(BBJWT_INSTALLATION=None))
