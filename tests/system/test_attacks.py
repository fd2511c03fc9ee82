"""One attack of each kind: by the author of a folder, a server, another user, a clock."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import (
    COMMAND,
    INSTALLED,
    PATIENCE,
    PROJECT,
    Machine,
    Workspace,
    answer,
    assert_quits,
    ends_within,
    finish,
    request,
    start,
    until_asked,
)
from tests.emulator import Fault, make_bare_repository
from tests.mint import Mint
from tests.proxy import Proxy


@pytest.fixture
def thief() -> Iterator[Proxy]:
    """A proxy that must not be used."""
    with Proxy() as running:
        yield running


# The author of a folder does not choose the route.


def in_a_clone(acme: Workspace, setting: str, value: str) -> tuple[Path, dict[str, str]]:
    folder = acme.machine.home / "clone"
    acme.machine.git("init", "-q", folder)
    acme.machine.git("config", setting, value, cwd=folder)
    return folder, {}


def in_an_include(acme: Workspace, setting: str, value: str) -> tuple[Path, dict[str, str]]:
    folder, also = in_a_clone(acme, "include.path", "more")
    acme.machine.git("config", "-f", folder / ".git/more", setting, value)
    return folder, also


def in_a_worktree(acme: Workspace, setting: str, value: str) -> tuple[Path, dict[str, str]]:
    folder, also = in_a_clone(acme, "extensions.worktreeConfig", "true")
    acme.machine.git("config", "--worktree", setting, value, cwd=folder)
    return folder, also


def in_a_bare_repository(acme: Workspace, setting: str, value: str) -> tuple[Path, dict[str, str]]:
    folder = acme.machine.home / "checkout/docs"
    make_bare_repository(folder, {"a": "b"})
    acme.machine.git("config", "-f", folder / "config", setting, value)
    return folder, {}


def by_git_dir(acme: Workspace, setting: str, value: str) -> tuple[Path, dict[str, str]]:
    folder, _ = in_a_bare_repository(acme, setting, value)
    return acme.machine.home, {"GIT_DIR": str(folder)}


PLANTED = [in_a_clone, in_an_include, in_a_worktree, in_a_bare_repository, by_git_dir]


@pytest.mark.parametrize(
    ("planted", "command"), [*((planted, "get") for planted in PLANTED), (in_a_clone, "token"), (in_a_clone, "doctor")]
)
def test_a_repositorys_own_proxy_gets_no_jwt(
    acme: Workspace, thief: Proxy, planted: Callable[..., tuple[Path, dict[str, str]]], command: str
) -> None:
    folder, also = planted(acme, f"http.{acme.bitbucket.base_url}.proxy", f"http://{thief.address}")
    arguments = ["get"] if command == "get" else [command, acme.url]
    data = request(acme.url) + "\n" if command == "get" else ""
    done = acme.machine.run(COMMAND, *arguments, data=data, cwd=folder, env=acme.machine.env(also))

    assert thief.asked == []
    assert done.stderr.count("does not choose the route") == 1
    assert "http.proxy" in done.stderr


def test_older_git_without_scopes_reads_no_setting_of_the_repository(acme: Workspace, thief: Proxy) -> None:
    # Before 2.26 `git config` knows no --show-scope, and ends with its usage.
    old = acme.machine.home / "old/git"
    old.parent.mkdir()
    real = shutil.which("git", path=acme.machine.environment["PATH"])
    old.write_text(f"""#!/bin/sh
case " $* " in
" version ") echo git version 2.25.1; exit ;;
*" --show-scope "*) exit 129 ;;
esac
exec {real} "$@"
""")
    old.chmod(0o755)
    acme.machine.environment["PATH"] = f"{old.parent}:{acme.machine.environment['PATH']}"
    folder, _ = in_a_clone(acme, "http.proxy", f"http://{thief.address}")
    for command in (["get"], ["token", acme.url]):
        acme.machine.run(COMMAND, "--token-store=none", *command, data=request(acme.url) + "\n", cwd=folder)
    assert thief.asked == []

    acme.machine.git("config", "--global", "http.proxy", f"http://{thief.address}")
    acme.machine.run(COMMAND, "--token-store=none", "get", data=request(acme.url) + "\n", cwd=folder)
    assert len(thief.asked) == 2


def test_a_relative_authority_is_not_used(acme: Workspace) -> None:
    folder = acme.machine.home / "theirs"
    folder.mkdir()
    shutil.copy(acme.bitbucket.ca_file, folder / "ca.pem")
    acme.machine.git("config", "--global", "http.sslCAInfo", "ca.pem")
    del acme.machine.environment["SSL_CERT_FILE"]
    del acme.machine.environment["GIT_SSL_CAINFO"]
    done = acme.machine.run(COMMAND, "get", data=request(acme.url) + "\n", cwd=folder, check=False)

    assert_quits(done, "cannot be verified", "relative path")


@pytest.mark.parametrize("level", ["global", "-c", "a conditional include"])
def test_users_own_settings_are_used(acme: Workspace, thief: Proxy, level: str) -> None:
    folder, _ = in_a_clone(acme, "user.name", "A")
    setting, also = ("http.proxy", f"http://{thief.address}"), {}
    if level == "global":
        acme.machine.git("config", "--global", *setting)
    elif level == "-c":
        also = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": setting[0], "GIT_CONFIG_VALUE_0": setting[1]}
    else:
        acme.machine.git("config", "-f", acme.machine.home / "work.inc", *setting)
        acme.machine.git("config", "--global", f"includeIf.gitdir:{folder}/.path", acme.machine.home / "work.inc")
    done = acme.machine.run(COMMAND, "get", data=request(acme.url) + "\n", cwd=folder, env=acme.machine.env(also))

    assert "password" in answer(done)
    assert len(thief.asked) == 2
    assert done.stderr == ""


# Text of a server.


@pytest.mark.parametrize("days", [8, -8, 27_000])
def test_servers_clock_is_used_within_a_week(mint: Mint, days: int) -> None:
    mint.bitbucket.clock_offset = days * 86_400

    assert "days" in mint.error().what
    assert "date" in mint.text
    for seen in mint.bitbucket.helper_requests():
        claims = seen.jwt.split(".")[1]
        assert abs(json.loads(base64.urlsafe_b64decode(claims + "=="))["exp"] - time.time()) < 300


TOKEN = "a-token-that-is-not-for-eyes"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (201, f'{{"access_token": "{TOKEN}", "token_type": "bearer"}}'),
        (201, TOKEN),
        (200, f'["{TOKEN}"]'),
        (400, f'[{{"access_token": "{TOKEN}"}}]'),
        (400, f"access_token={TOKEN}&token_type=bearer"),
        (401, f'"{TOKEN}"'),
        (500, f'{{"access_token": "{TOKEN}"'),
    ],
)
def test_response_that_may_contain_a_token_is_not_shown(
    mint: Mint, monkeypatch: pytest.MonkeyPatch, status: int, body: str
) -> None:
    monkeypatch.setenv("BBJWT_TRACE", "1")
    mint.bitbucket.misbehave("token", Fault(status=status, body=body.encode()))

    mint.error()
    assert TOKEN not in mint.text


@pytest.mark.parametrize("length", [0, 180])
def test_no_part_of_a_jwt_in_a_response_is_shown(acme: Workspace, length: int) -> None:
    jwt = acme.machine.bbjwt("jwt", "acme").stdout.strip()
    acme.bitbucket.misbehave("token", Fault(status=401, body=b"x" * length + jwt.encode()))
    done = acme.get("--verbose", check=False, BBJWT_JWT=jwt)

    assert done.returncode == 1
    assert jwt[:12] not in done.stderr


def test_no_link_in_the_text_of_a_response_is_shown(acme: Workspace) -> None:
    text = "see https://developer.atlassian.com.evil.example/x or http://evil.example"
    acme.bitbucket.misbehave("api", Fault(status=403, body=text.encode()))
    done = acme.get(check=False)

    assert "see [link] or [link]" in done.stderr
    assert "evil.example" not in done.stderr


# Other users, and root with another's home.


@pytest.mark.parametrize("settings", [".config", "not/made/yet"])
def test_root_with_another_users_home_reads_and_makes_nothing_there(
    acme: Workspace, thief: Proxy, another_user: int, settings: str
) -> None:
    home, env = acme.machine.home, acme.machine.environment
    marker = home.parent / "ran"
    code = home / ".local/share/python_keyring"
    code.mkdir(parents=True)
    (code / "planted.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (code / "keyringrc.cfg").write_text(f"[backend]\ndefault-keyring=planted.K\nkeyring-path={code}\n")
    (home / ".config").mkdir()
    (home / ".config/python_keyring").symlink_to(code)
    acme.machine.git("config", "--global", "http.proxy", f"http://{thief.address}")
    payload = home.parent / "payload.json"
    shutil.copy(acme.installation, payload)
    payload.chmod(0o600)
    env["BBJWT_INSTALLATION"] = str(payload)
    env["XDG_CONFIG_HOME"] = str(home / settings)
    for path in (home, *home.rglob("*")):
        os.chown(path, another_user, another_user, follow_symlinks=False)
    before = sorted((str(path), path.lstat().st_mode) for path in home.rglob("*"))

    for _ in range(2):
        assert "password" in answer(acme.get())
    acme.machine.bbjwt("doctor", acme.url, check=False)
    refused = [
        acme.machine.bbjwt("register", payload, check=False),
        acme.machine.bbjwt("register", "--insecure-storage", payload, check=False),
        acme.machine.bbjwt("configure", check=False),
    ]

    assert acme.bitbucket.mints() >= 2
    assert thief.asked == []
    assert not marker.exists()
    assert [done.returncode for done in refused] == [1, 1, 1]
    assert all("another user" in done.stderr for done in refused)
    assert before == sorted((str(path), path.lstat().st_mode) for path in home.rglob("*"))


def test_folder_that_others_can_enter_is_not_changed(acme: Workspace) -> None:
    folder = acme.machine.runtime / "git-credential-bbjwt"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    (folder / "not-ours").write_text("precious")
    for _ in range(2):
        done = acme.get()
        assert f"chmod 700 {folder}" in done.stderr
    acme.machine.bbjwt("forget", "--all")

    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert (folder / "not-ours").read_text() == "precious"


@pytest.mark.parametrize(
    "slip", ["folder is a link", "others can write to the folder", "others can replace the folder"]
)
def test_registry_in_a_place_that_others_can_change_is_not_used(acme: Workspace, slip: str) -> None:
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    del acme.machine.environment["BBJWT_INSTALLATION"]
    folder = acme.machine.home / ".config/git-credential-bbjwt"
    if slip == "folder is a link":
        folder.rename(acme.machine.home / "elsewhere")
        folder.symlink_to(acme.machine.home / "elsewhere")
    elif slip == "others can write to the folder":
        folder.chmod(0o722)
    else:
        folder.parent.chmod(0o777)

    assert_quits(acme.machine.get("https://bitbucket.org/acme/widgets", check=False), str(folder))


# Time, processes, descriptors.


def test_stopped_helper_delays_others_only_for_seconds(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=2))
    stopped = start(acme.machine, acme.url)
    until_asked(acme.bitbucket)
    stopped.send_signal(signal.SIGSTOP)
    try:
        with ends_within(5):
            others = [start(acme.machine, acme.url) for _ in range(3)]
            answers = {finish(one) for one in others}
    finally:
        stopped.send_signal(signal.SIGCONT)
        finish(stopped)

    assert len({line for one in answers for line in one.splitlines() if line.startswith(b"password=")}) == 1
    assert acme.bitbucket.mints() <= 2


def test_no_child_outlives_a_call_that_gave_up(acme: Workspace) -> None:
    fifo = acme.machine.home / "fifo"
    os.mkfifo(fifo)
    acme.machine.git("config", "--global", "include.path", fifo)
    done = acme.get("--timeout=1", check=False)

    assert_quits(done, "gave up")
    with contextlib.suppress(OSError):  # Opening and writing fail if nobody reads.
        writing = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        # A killed process may take a moment to end. A process that lives keeps reading.
        for _ in range(100):
            os.write(writing, b"\n")
            time.sleep(0.05)
        pytest.fail("somebody still reads the FIFO")


@pytest.mark.parametrize("command", [["--version"], ["--help"], ["list"], ["token", "URL"], ["doctor"]])
@pytest.mark.parametrize("end", ["closed", "full", "gone"])
def test_result_that_cannot_be_written_is_an_error(acme: Workspace, command: list[str], end: str) -> None:
    words = [acme.url if word == "URL" else word for word in command]
    redirect = {"closed": ">&-", "full": ">/dev/full", "gone": "| true"}[end]
    script = f'trap "" PIPE; "$@" {redirect}'
    if end == "gone":
        # The reader has gone before anything is written.
        script = 'exec 3>"$0"; { sleep 0.3; "$@"; echo "status $?" >&3; } | true'
    told = acme.machine.home / "told"
    done = acme.machine.run("bash", "-c", script, told, COMMAND, *words, check=False)
    status = done.returncode if end != "gone" else int(told.read_text().split()[-1])

    assert status == 1
    assert "internal error" not in done.stderr
    if end == "gone":
        assert "git-credential-bbjwt: error" not in done.stderr
    else:
        assert "git-credential-bbjwt: error" in done.stderr


def test_closed_standard_input_is_an_empty_one(machine: Machine) -> None:
    for words, status in (("token -", 0), ("register -", 1)):
        done = machine.run("sh", "-c", f'"$0" {words} <&-', COMMAND, check=False)
        assert done.returncode == status
        assert "internal error" not in done.stderr


@pytest.mark.parametrize("word", ["confgure", "ghp_asecretthatisnoword", "clone"])
def test_mistyped_command_is_an_error_without_a_terminal(machine: Machine, word: str) -> None:
    done = machine.bbjwt(word, check=False)

    assert done.returncode == 2
    assert word not in done.stderr
    assert ("did you mean configure?" in done.stderr) == (word == "confgure")
    assert machine.bbjwt(word, data="protocol=https\n\n").stderr == ""
    assert "usage:" in machine.bbjwt("help").stdout


def test_byte_order_mark_before_a_jwt_is_ignored(acme: Workspace) -> None:
    jwt = acme.machine.bbjwt("jwt", "acme").stdout.strip()

    assert "password" in answer(acme.get("--token-store=none", BBJWT_JWT="\ufeff" + jwt + "\n"))


@pytest.mark.parametrize("value", ["{planted}", ":/nonexistent", "/a::/b", ".", "../planted", None])
def test_modules_of_pythonpath_and_the_current_folder_are_not_imported(acme: Workspace, value: str | None) -> None:
    planted = acme.machine.home / "planted"
    planted.mkdir()
    for name in ("resource", "select", "ssl", "hmac", "keyring", "git_credential_bbjwt"):
        (planted / f"{name}.py").write_text("raise SystemExit('planted')\n")
    # As pip installs it, without -I.
    script = PROJECT / "git_credential_bbjwt/installed/git-credential-bbjwt"
    environment = acme.machine.env(PYTHONPATH=value and value.format(planted=planted))
    done = acme.machine.run(sys.executable, script, "get", data=request(acme.url) + "\n", env=environment, cwd=planted)

    assert "password" in answer(done)


@pytest.mark.parametrize("path", [":{usual}", ".:{usual}", "bin/../.:{usual}", ".", ""])
def test_programs_of_the_current_folder_are_not_run(acme: Workspace, path: str) -> None:
    planted = acme.machine.home / "planted"
    (planted / "bin").mkdir(parents=True)
    for name in ("git", "sh", "cat"):
        (planted / name).write_text("#!/bin/sh\ntouch was-run\n")
        (planted / name).chmod(0o755)
    environment = acme.machine.env(PATH=path.format(usual=os.environ["PATH"]), BBJWT_INSTALLATION=None)
    command = (COMMAND, f"--host={acme.bitbucket.host}", f"--installation-command=cat {acme.installation}")
    for words in (["get"], ["token", acme.url], ["doctor", acme.url]):
        done = acme.machine.run(
            *command, *words, data=request(acme.url) + "\n", env=environment, cwd=planted, check=False
        )
        assert done.stdout != ""

    assert not (planted / "was-run").exists()


@pytest.mark.parametrize("folder", [os.path.dirname(os.__file__), INSTALLED])
def test_the_current_folder_may_be_one_of_pythons_own(acme: Workspace, folder: str) -> None:
    script = PROJECT / "git_credential_bbjwt/installed/git-credential-bbjwt"
    environment = acme.machine.env(PYTHONPATH=":")
    done = acme.machine.run(
        sys.executable, script, "get", data=request(acme.url) + "\n", env=environment, cwd=Path(folder)
    )

    assert "password" in answer(done)


def test_host_with_two_ports_is_refused(acme: Workspace) -> None:
    url = acme.url.replace(acme.bitbucket.host, f"{acme.bitbucket.host}:443")

    assert acme.machine.get(url).stdout == ""


# git's configuration.


def test_device_in_place_of_a_configuration_file_is_not_replaced(machine: Machine) -> None:
    fifo = machine.home / "device"
    os.mkfifo(fifo)
    done = machine.bbjwt("configure", check=False, GIT_CONFIG_GLOBAL=str(fifo))

    assert done.returncode == 1
    assert "git-credential-bbjwt exec" in done.stderr
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_two_global_files_have_a_journal_each(machine: Machine) -> None:
    one, other = (str(machine.home / name) for name in ("one", "other"))
    for file in (one, other):
        Path(file).write_text("[user]\n\tname = A\n")
        machine.bbjwt("configure", GIT_CONFIG_GLOBAL=file)
    for file in (one, other):
        machine.bbjwt("unconfigure", GIT_CONFIG_GLOBAL=file)

    assert Path(one).read_text() == Path(other).read_text() == "[user]\n\tname = A\n"


def test_configure_heals_a_dead_entry(machine: Machine) -> None:
    key = "credential.https://bitbucket.org.helper"
    machine.git("config", "--global", key, "/gone/bin/git-credential-bbjwt")
    machine.bbjwt("configure")

    assert machine.git("config", "--get-all", key).stdout.splitlines() == [str(COMMAND)]


def test_ssh_urls_of_an_ipv6_host(acme: Workspace) -> None:
    acme.write_installation(baseUrl="https://[::1]:8443", baseApiUrl="https://[::1]:8444")
    acme.machine.bbjwt("configure", "--rewrite-ssh")
    found = acme.machine.git("config", "--get-all", "url.https://[::1]:8443/.insteadOf").stdout.splitlines()

    assert found == ["git@[::1]:", "ssh://git@[::1]/", "ssh://git@[::1]:22/", "git+ssh://git@[::1]/"]


# Limits of the repositories that get tokens.


@pytest.mark.parametrize(
    ("patterns", "allowed"),
    [
        (["acme/widgets"], True),
        (["ACME/Widgets.git"], True),
        (["acme/*"], True),
        (["acme/w*g*s"], True),
        (["acme/gadgets", "acme/widgets"], True),
        (["acme/widget"], False),
        (["acme/w*widgets"], False),
        (["acme/*x*"], False),
        (["beta/*"], False),
    ],
)
def test_allow_limits_the_repositories_that_get_tokens(acme: Workspace, patterns: list[str], allowed: bool) -> None:
    acme.get()  # Cached tokens are limited, too.
    done = acme.get(*(f"--allow={pattern}" for pattern in patterns), check=False)

    if allowed:
        assert "password" in answer(done)
    else:
        assert_quits(done, "--allow")


@pytest.mark.parametrize("pattern", ["", "acme", "*/widgets", "acme/", "acme/a/b", "acme/a?", "acme/..", "/widgets"])
def test_a_pattern_of_another_form_is_a_usage_error(acme: Workspace, pattern: str) -> None:
    assert acme.get("--allow", pattern, check=False).returncode == 2


# A payload that a person pastes.


def test_a_pasted_payload_is_not_shown(acme: Workspace) -> None:
    payload = json.dumps(acme.bitbucket.payload(acme.app, publicKey="x" * 6000))  # Longer than a terminal's line.
    terminal, keyboard = pty.openpty()
    with subprocess.Popen(
        [COMMAND, "register", "--insecure-storage", "-"],
        stdin=keyboard,
        stdout=keyboard,
        stderr=keyboard,
        env=acme.machine.env(),
    ) as process:
        shown = os.read(terminal, 4096)
        assert b"Ctrl-D" in shown
        for position in range(0, len(payload), 1000):
            os.write(terminal, payload[position : position + 1000].encode())
        os.write(terminal, b"\x04")
        end = time.monotonic() + PATIENCE
        while b"registered the app" not in shown and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 65_536)
            elif process.poll() is not None:
                break
        process.kill()
    os.close(terminal)
    os.close(keyboard)

    assert b"registered the app" in shown
    assert acme.app.shared_secret.encode() not in shown
    assert b"xxxx" not in shown
