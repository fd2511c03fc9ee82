"""Bad surroundings: other users of the machine, odd environments, full disks, processes that end early."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import (
    COMMAND,
    INSTALLED,
    LATE,
    PATIENCE,
    Machine,
    Workspace,
    answer,
    assert_quits,
    ends_within,
    finish,
    request,
    start,
    until,
    until_asked,
)
from tests.emulator import Fault


def register(acme: Workspace) -> Path:
    """Register the installation with its secret in a file; return the folder of both."""
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.installation.unlink()
    return acme.machine.home / ".config/git-credential-bbjwt"


# Another user of the machine.


def test_another_user_cannot_read_the_helpers_files(acme: Workspace, another_user: int) -> None:
    folder = register(acme)
    acme.get()
    os.chmod(acme.machine.home.parent, 0o755)  # noqa: S103  # as a home folder may be
    os.chmod(acme.machine.runtime, 0o700)
    ours = [path for base in (folder, acme.machine.runtime) for path in base.rglob("*")]
    assert len(ours) >= 4
    for path in ours:
        tried = subprocess.run(["cat", path], user=another_user, group=another_user, capture_output=True)
        assert tried.returncode != 0, path
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("what", ["folder", "link to a folder", "file", "dangling link"])
def test_a_registry_folder_another_user_prepared_is_not_written_to(
    acme: Workspace, another_user: int, tmp_path: Path, what: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o777)
    os.chown(theirs, another_user, another_user)
    place = acme.machine.home / ".config/git-credential-bbjwt"
    place.parent.mkdir()
    if what == "folder":
        place.mkdir()
        os.chown(place, another_user, another_user)
    elif what == "file":
        place.write_text("")
    else:
        place.symlink_to(theirs if what == "link to a folder" else tmp_path / "nowhere")
    done = acme.machine.bbjwt("register", "--insecure-storage", acme.installation, check=False)

    assert done.returncode == 1
    assert list(theirs.iterdir()) == []
    found = [path for path in tmp_path.rglob("*") if path.is_file() and path != acme.installation]
    assert not any(acme.app.shared_secret.encode() in path.read_bytes() for path in found)


def test_registry_behind_a_link_is_trusted_if_its_target_is(acme: Workspace, tmp_path: Path) -> None:
    real = tmp_path / "real"
    (real / "settings").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(real)
    acme.machine.environment["XDG_CONFIG_HOME"] = str(link / "settings")
    register(acme)

    assert "password" in answer(acme.get("--token-store=none"))
    real.chmod(0o777)
    refused = acme.get("--token-store=none", check=False)
    assert "password" not in refused.stdout
    assert f"chmod go-w {real}" in refused.stderr


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_secret_file_others_can_read_is_refused(acme: Workspace, mode: int) -> None:
    folder = register(acme)
    (secret,) = (folder / "shared-secrets").iterdir()
    secret.chmod(mode)
    done = acme.get(check=False)

    assert done.stdout == "quit=1\n"
    assert "others can read it" in done.stderr
    acme.machine.run("sh", "-c", done.stderr.partition("hint: run: ")[2].splitlines()[0])
    assert "password" in answer(acme.get())


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ("missing", "No such file"),
        ("empty", "it is empty"),
        ("folder", "it is not a file of this user's"),
        ("mode 0000", "its mode lets nobody read it"),
    ],
)
def test_secret_file_that_cannot_be_used_has_its_reason_and_remedy(acme: Workspace, spoilt: str, why: str) -> None:
    again = acme.machine.home / "again.json"
    shutil.copy(acme.installation, again)
    folder = register(acme)
    (secret,) = (folder / "shared-secrets").iterdir()
    if spoilt == "mode 0000":
        secret.chmod(0)
    else:
        secret.unlink()
    if spoilt == "empty":
        secret.touch(0o600)
    elif spoilt == "folder":
        secret.mkdir()
    done = acme.get(check=False)

    assert why in done.stderr
    for command in re.findall("(?:run|again): ([^;\n]+)", done.stderr.partition("hint: ")[2]):
        acme.machine.run("sh", "-c", command.replace(" FILE", f" {again}"))
    assert "password" in answer(acme.get())


def test_a_secret_file_of_another_user_is_refused(acme: Workspace, another_user: int) -> None:
    folder = register(acme)
    (secret,) = (folder / "shared-secrets").iterdir()
    os.chown(secret, another_user, another_user)

    assert acme.get(check=False).stdout == "quit=1\n"


def test_record_of_another_user_in_the_helpers_folder_is_not_used(acme: Workspace, another_user: int) -> None:
    token = answer(acme.get())["password"]
    (record,) = acme.machine.records()
    record.write_bytes(record.read_bytes().replace(token.encode(), b"of-somebody-else"))
    os.chown(record, another_user, another_user)

    assert answer(acme.get())["password"] not in (token, "of-somebody-else")


def test_the_trace_file_is_not_written_through_a_link(acme: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine\n")
    (tmp_path / "trace").symlink_to(target)

    assert "password" in answer(acme.get(BBJWT_TRACE=str(tmp_path / "trace")))
    assert target.read_text() == "mine\n"


def test_trace_file_may_be_a_fifo_without_a_reader(acme: Workspace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "trace")

    assert "password" in answer(acme.get(BBJWT_TRACE=str(tmp_path / "trace")))


# Odd environments.


def test_system_has_upgraded_python(acme: Workspace, tmp_path: Path) -> None:
    """An environment names its folder of packages by the version of Python, as in Debian's upgrades."""
    packages = tmp_path / "lib/python3.9/site-packages"
    packages.mkdir(parents=True)
    for one in Path(INSTALLED).iterdir():
        (packages / one.name).symlink_to(one)
    (packages / "git_credential_bbjwt").unlink()
    shutil.copytree(Path(INSTALLED) / "git_credential_bbjwt", packages / "git_credential_bbjwt")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    run = f"import sys; sys.path.insert(0, {str(packages)!r}); from git_credential_bbjwt.entry import main; "
    command = (f"{sys.base_prefix}/bin/python{version}", "-ISXutf8", "-c", f"{run}main(sys.argv[1:])")

    done = acme.machine.run(*command, "get", data=request(acme.url) + "\n")
    assert "password" in answer(done)
    report = acme.machine.run(*command, "doctor", acme.url).stdout
    assert f"– Python: the helper was installed for Python 3.9 and runs on {version}" in report


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "tr_TR.UTF-8"}, {"PYTHONIOENCODING": "latin-1"}, {"LANG": "x"}]
)
def test_any_locale(acme: Workspace, locale: dict[str, str]) -> None:
    assert "password" in answer(acme.get(also=locale))
    acme.machine.bbjwt("list", also=locale)


@pytest.mark.parametrize("home", [None, "", "/nowhere", "relative"])
def test_no_home(acme: Workspace, home: str | None, tmp_path: Path) -> None:
    # Without the variable, the home is that of the user who runs the tests, so nothing must be written there.
    cache = {"XDG_CACHE_HOME": None if home == "/nowhere" else str(tmp_path / "cache")}

    assert "password" in answer(acme.get(also=cache, HOME=home, XDG_RUNTIME_DIR=None))
    assert not Path("/nowhere").exists()


def test_home_that_cannot_be_written_to(acme: Workspace) -> None:
    # /proc takes no new files, not even from root.
    for arguments in (["get"], ["doctor"], ["forget", "--all"]):
        elsewhere = {"HOME": "/proc", "XDG_RUNTIME_DIR": "/proc"}
        done = acme.machine.bbjwt(*arguments, data=request(acme.url), check=False, also=elsewhere)
        assert "password" in done.stdout or arguments != ["get"]
    refused = acme.machine.bbjwt("register", "--insecure-storage", acme.installation, check=False, HOME="/proc")
    assert refused.returncode == 1
    assert refused.stderr.startswith("git-credential-bbjwt: error: ")


@pytest.mark.parametrize("limit", [0, 10, 100])
def test_a_full_disk(acme: Workspace, limit: int) -> None:
    def no_room() -> None:
        # Writes beyond the limit fail, as on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def run(*arguments: str | Path, data: str = "") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [COMMAND, *arguments],
            input=data.encode(),
            env=acme.machine.env(),
            capture_output=True,
            preexec_fn=no_room,
            timeout=PATIENCE,
        )

    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    before = acme.machine.bbjwt("list").stdout
    other = acme.machine.home / "other.json"
    app = acme.bitbucket.install("beta")
    other.write_text(str(acme.bitbucket.payload(app)).replace("'", '"').replace("None", "null"))
    other.chmod(0o600)
    registered = run("register", "--insecure-storage", other)

    assert registered.returncode == 1
    assert registered.stderr.startswith(b"git-credential-bbjwt: error: ")
    assert app.shared_secret.encode() not in registered.stderr
    assert acme.machine.bbjwt("list").stdout == before
    assert b"password=" in run("get", data=request(acme.url)).stdout
    assert acme.machine.records() == []


def test_answer_that_cannot_be_written_is_an_error(acme: Workspace) -> None:
    command = ["sh", "-c", 'exec "$@" >/dev/full', "sh", str(COMMAND), "get"]
    done = acme.machine.run(*command, data=request(acme.url), check=False)

    assert done.returncode == 1
    assert "No space left" in done.stderr


def test_too_few_descriptors_is_one_error(acme: Workspace) -> None:
    done = acme.machine.run("sh", "-c", 'ulimit -n 5; exec "$0" get', COMMAND, data=request(acme.url), check=False)

    assert "password" in done.stdout or done.returncode == 1


def test_too_few_threads_is_an_error_that_names_the_limits(acme: Workspace) -> None:
    # A thread's stack is as large as the limit of stacks, and so larger than the process may become.
    limited = 'ulimit -s 500000000 && ulimit -v 4000000 && exec "$0" get'
    done = acme.machine.run("sh", "-c", limited, COMMAND, data=request(acme.url), check=False)

    assert_quits(done, "no more memory or threads", "ulimit -a")


# Processes that end early.


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGKILL])
def test_early_end_leaves_no_process_running(acme: Workspace, end: signal.Signals) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=20))
    before = processes_of(acme.machine)
    running = start(acme.machine, acme.url)
    until_asked(acme.bitbucket)
    running.send_signal(end)
    if end == signal.SIGPIPE:  # Python ignores the signal, because no pipe broke.
        running.kill()
    assert finish(running) in (b"", b"quit=1\n")
    until(lambda: processes_of(acme.machine) <= before, LATE)
    with ends_within(5):
        assert "password" in answer(acme.get())


def processes_of(machine: Machine) -> set[int]:
    """The processes whose environment is this machine's."""
    mark = f"HOME={machine.home}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def test_git_that_goes_away_is_no_error(acme: Workspace) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with (
        ours,
        subprocess.Popen(
            [COMMAND, "get"],
            stdin=subprocess.PIPE,
            stdout=ours.fileno(),
            stderr=subprocess.PIPE,
            env=acme.machine.env(),
        ) as running,
    ):
        _, errors = running.communicate(request(acme.url).encode())
    assert b"Traceback" not in errors
    assert running.returncode in (0, 1)
