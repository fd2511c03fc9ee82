"""Attacks by a broker's client and by other users of its machine: variables, folders, descriptors, signals, floods."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_credential_bbjwt.tokens.names import MISSES
from tests.conftest import PATIENCE, Workspace, cannot, ends_within, is_running, request, until, until_asked
from tests.emulator import Fault
from tests.serving.test_broker import NOT_SET_UP, Broker, broker, given, spend, state

__all__ = ["broker"]  # a fixture


def full_pipe() -> tuple[int, int]:
    """Return the two ends of a pipe that takes no more, as of a client that does not read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    return reading, writing


def seen_by_a_command(broker: Broker, also: dict[str, str]) -> dict[str, str]:
    """Return the environment of a process that the broker starts."""
    told = broker.home / "environment"
    store = f"env >{told}; cat {broker.acme.installation}"
    host = broker.acme.bitbucket.host
    command = [str(broker.program), f"--installation-command={store}", f"--host={host}"]
    done = subprocess.run(
        [*command, "serve", "--allow=acme/*", f"--audit={broker.audit}"],
        input=request(broker.acme.url) + "\n",
        capture_output=True,
        text=True,
        env={**broker.environment, **also},
        timeout=PATIENCE,
    )
    assert "password" in given(done), done.stdout
    return dict(line.split("=", 1) for line in told.read_text().splitlines() if "=" in line)


def test_only_the_named_variables_are_used(broker: Broker) -> None:
    mine = {"LANG": "C.UTF-8", "LC_TIME": "C", "TZ": "UTC"}
    # The dynamic linker's variables are left out: sshd passes none of them on to another user's process.
    others = {"HOME": "/tmp", "USER": "eve", "SHELL": "/tmp/sh", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/tmp/bus"}
    others |= dict.fromkeys(("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"), "/tmp")
    others |= {
        "GIT_DIR": "/tmp",
        "GIT_EXEC_PATH": "/tmp",
        "http_proxy": "http://127.0.0.1:1",
        "KEYRING_PROPERTY_X": "x",
    }
    found = seen_by_a_command(broker, {**mine, **others})

    assert {name: found.get(name) for name in mine} == mine
    assert found["HOME"] == str(broker.home)
    assert [name for name in others if name != "HOME" and name in found] == []


@pytest.mark.parametrize("by_ssh", [False, True])
def test_systemds_variables_are_used_unless_sshd_started_the_broker(
    broker: Broker, tmp_path: Path, shared_memory: Path, by_ssh: bool
) -> None:
    if os.path.exists(f"/run/user/{os.geteuid()}"):
        cannot("this user has a runtime folder, which the broker would use")
    folder = tmp_path / "of systemd"
    (folder / "git-credential-bbjwt").mkdir(parents=True, mode=0o700)
    names = ("CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "CACHE_DIRECTORY", "STATE_DIRECTORY")
    also = dict.fromkeys(names, str(folder))
    if by_ssh:
        also["SSH_CONNECTION"] = "192.0.2.7 1 192.0.2.8 22"
    found = seen_by_a_command(broker, also)

    assert {name: found.get(name) for name in names} == dict.fromkeys(names, None if by_ssh else str(folder))
    assert found.get("XDG_CONFIG_HOME") == (None if by_ssh else str(folder))
    used, unused = (shared_memory, folder) if by_ssh else (folder, shared_memory)
    assert list(used.rglob("*,acme,widgets,*")) != []
    assert list(unused.rglob("*,acme,widgets,*")) == []


def test_words_of_an_installation_command_are_not_shown(broker: Broker) -> None:
    command = f"echo 'warning: a word' >&2; cat {broker.acme.installation}"
    options = (f"--installation-command={command}", f"--host={broker.acme.bitbucket.host}")
    done = subprocess.run(
        [str(broker.program), *options, "serve", "--allow=acme/*", f"--audit={broker.audit}"],
        input=request(broker.acme.url) + "\n",
        capture_output=True,
        text=True,
        env=broker.environment,
        timeout=PATIENCE,
    )

    assert "password" in given(done)
    assert done.stderr == ""
    assert broker.lines()[0]["reason"] == ""


@pytest.mark.parametrize("way", ["everybody", "group", "another user", "below another's", "relative", "a link to one"])
def test_a_folder_of_path_that_others_can_write_is_not_used(broker: Broker, way: str) -> None:
    folder = broker.home / "below" / "bin"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    entry = str(folder)
    if way == "everybody":
        folder.chmod(0o777)
    elif way == "group":
        folder.chmod(0o775)
    elif way in ("another user", "below another's"):
        if os.geteuid() != 0:
            cannot("only root can give a folder to another user")
        os.chown(folder if way == "another user" else folder.parent, 65_534, 65_534)
    elif way == "relative":
        entry = "bin"
    else:
        folder.chmod(0o777)
        (broker.home / "link").symlink_to(folder)
        entry = str(broker.home / "link")
    usual = broker.environment["PATH"]
    found = seen_by_a_command(broker, {"PATH": f"{entry}::.:{usual}"})["PATH"].split(":")

    assert entry not in found
    assert "" not in found
    assert "." not in found
    assert set(found) <= set(usual.split(":"))
    folder.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(folder.parent, 0, 0)
        os.chown(folder, 0, 0)
    again = broker.home / "again"
    again.mkdir(mode=0o700)
    own = seen_by_a_command(broker, {"PATH": f"{folder}:{usual}", "RUNTIME_DIRECTORY": str(again)})["PATH"]
    assert str(folder) in own.split(":")


@contextlib.contextmanager
def waiting(broker: Broker, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A broker that is waiting for its request."""
    command = broker.command()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=broker.environment, **options
    ) as process:  # type: ignore[call-overload]
        place = Path("/proc", str(process.pid))
        until(lambda: os.readlink(place / "cwd") == "/" and len(os.listdir(place / "task")) >= 2)
        yield process


def status_of(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{field}:"))


def test_signals_of_a_terminal_end_nothing(acme: Workspace, broker: Broker) -> None:
    with waiting(broker) as process:
        numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
        ignored = int(status_of(process.pid, "SigIgn"), 16)
        assert all(ignored >> number - 1 & 1 for number in numbers)
        assert os.getsid(process.pid) == process.pid
        assert status_of(process.pid, "Umask") == "0077"
        for number in numbers:
            process.send_signal(number)
        out, _ = process.communicate(request(acme.url).encode() + b"\n", PATIENCE)

    assert b"password=" in out
    assert [line["outcome"] for line in broker.lines()] == ["granted"]


def test_a_killed_client_in_the_middle_leaves_its_audit_line(acme: Workspace, broker: Broker) -> None:
    with waiting(broker) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request(acme.url).encode() + b"\n")
        process.stdin.close()
        process.stdout.close()
        process.wait(PATIENCE)

    assert [line["outcome"] for line in broker.lines()] == ["granted"]


@pytest.mark.parametrize("url", ["widgets", "secrets"])
def test_unread_standard_error_delays_nothing(acme: Workspace, broker: Broker, url: str) -> None:
    acme.installation.chmod(0o644)  # This mode causes a warning.
    reading, writing = full_pipe()
    with ends_within(5):
        done = subprocess.run(
            broker.command(options=("--timeout=5",)),
            input=(request(acme.url.replace("widgets", url)) + "\n").encode(),
            stdout=subprocess.PIPE,
            stderr=writing,
            env=broker.environment,
            timeout=PATIENCE,
        )
    os.close(reading)
    os.close(writing)

    assert done.stdout.endswith(b"\n\n")
    assert (b"password=" in done.stdout) is (url == "widgets")
    assert ("others on this machine can read" in str(broker.lines()[0]["reason"])) is (url == "widgets")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_closed_descriptor_reveals_nothing(acme: Workspace, broker: Broker, closed: tuple[int, ...]) -> None:
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(broker.command())} {redirections}"],
        input=request(acme.url) + "\n",
        capture_output=True,
        text=True,
        env=broker.environment,
        timeout=PATIENCE,
    )

    assert "Traceback" not in done.stdout + done.stderr
    assert str(acme.installation) not in done.stdout + done.stderr
    # Without standard output the broker does nothing.
    expected = [] if 1 in closed else ["error"] if 0 in closed else ["granted"]
    assert [line["outcome"] for line in broker.lines()] == expected
    assert acme.installation.read_text().startswith("{")


# Floods.


def files(broker: Broker) -> list[str]:
    folder = broker.home / "run/git-credential-bbjwt"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_made_up_names_cost_twenty_look_ups_a_minute_and_leave_no_files(acme: Workspace, broker: Broker) -> None:
    assert "password" in given(broker.serve(request(acme.url) + "\n"))
    before = len(acme.bitbucket.helper_requests())
    spend(broker, MISSES, 17)
    said = [
        given(broker.serve(request(f"{acme.bitbucket.base_url}/acme/lib-{number}") + "\n"))["bbjwt-error"]
        for number in range(5)
    ]
    assert ["404" in one for one in said] == [True] * 3 + [False] * 2
    assert all("too many requests for repositories that are not there" in one for one in said[3:])
    assert len(acme.bitbucket.helper_requests()) == before + 3

    # Requests for existing repositories are answered meanwhile.
    token = given(broker.serve(request(acme.url) + "\n"))["password"]
    named = f"state[]={state(token)}\n\n"
    assert given(broker.serve(request(acme.url) + named))["password"] != token
    slots = [name for name in files(broker) if name.startswith("misses~")]
    beside = [name for name in files(broker) if "lib-" in name]
    assert (len(slots), beside) == (20, [])
    for path in (broker.home / "run/git-credential-bbjwt/refusals").iterdir():
        os.utime(path, (time.time() - 130,) * 2)
    assert "password" in given(broker.serve(request(acme.url) + "\n"))
    assert [name for name in files(broker) if name.startswith("refusals/")] == []


def test_audit_says_that_a_request_waited_for_other_look_ups(acme: Workspace, broker: Broker) -> None:
    spend(broker, MISSES, 20)
    with (broker.home / f"run/git-credential-bbjwt/{MISSES}~00").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        asked = request(f"{acme.bitbucket.base_url}/acme/lib-1") + "\n"
        said = given(broker.serve(asked, options=("--timeout=3",)))["bbjwt-error"]

    assert said == "gave up after 3 s: waiting for Bitbucket"
    assert "waiting for other look-ups of this broker" in str(broker.lines()[0]["reason"])


def test_a_remembered_refusal_is_not_counted(acme: Workspace, broker: Broker) -> None:
    url = f"{acme.bitbucket.base_url}/acme/lib-1"
    spend(broker, MISSES, 18)
    for _ in range(4):
        assert "404" in given(broker.serve(request(url) + "\n"))["bbjwt-error"]

    assert len(acme.bitbucket.helper_requests()) == 1


def test_many_made_up_names_at_once_cost_no_more(acme: Workspace, broker: Broker) -> None:
    spend(broker, MISSES, 16)
    running = []
    for number in range(8):
        process = subprocess.Popen(
            broker.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=broker.environment
        )
        running.append((process, request(f"{acme.bitbucket.base_url}/acme/lib-{number}") + "\n"))
    said = [process.communicate(data, PATIENCE)[0] for process, data in running]

    assert all(one.startswith("quit=1\n") for one in said)
    assert len(acme.bitbucket.helper_requests()) == 4
    assert len(broker.lines()) == 8


# Space on the disk.


@pytest.fixture
def small(broker: Broker, tmp_path: Path) -> Iterator[Path]:
    """A folder in memory with room for 32 files, in place of the operator's."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        cannot("only root can mount a file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k,mode=0755", "bbjwt-test", folder])
    if mounted.returncode != 0:
        cannot("no file system can be mounted here")
    broker.environment["RUNTIME_DIRECTORY"] = str(folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_folder_full_of_ended_tokens_is_tidied(acme: Workspace, broker: Broker, small: Path) -> None:
    assert "password" in given(broker.serve(request(acme.url) + "\n"))
    (record,) = small.rglob("*,acme,widgets,*[!d]")
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012  # the step that fails is unknown
        for number in range(100):
            old = record.with_name(record.name.replace("widgets", f"old-{number}"))
            old.write_bytes(record.read_bytes())
            old.chmod(0o600)
            os.utime(old, (1, 1))
    other = acme.bitbucket.host_repository("acme/lib-new")
    done = broker.serve(request(acme.bitbucket.url(other)) + "\n")

    assert "password" in given(done)


def test_a_full_folder_gives_cached_tokens_only(acme: Workspace, broker: Broker, small: Path) -> None:
    assert "password" in given(broker.serve(request(acme.url) + "\n"))
    with contextlib.suppress(OSError), (small / "of another").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 4096)
    tokens = len(acme.bitbucket.tokens)
    other = acme.bitbucket.host_repository("acme/lib-new")
    done = broker.serve(request(acme.bitbucket.url(other)) + "\n")

    assert given(done)["quit"] == "1"
    assert len(acme.bitbucket.tokens) == tokens
    assert "password" in given(broker.serve(request(acme.url) + "\n"))
    assert [line["outcome"] for line in broker.lines()] == ["granted", "error", "granted"]


def test_a_folder_that_became_read_only_gives_cached_tokens(acme: Workspace, broker: Broker, small: Path) -> None:
    asked = request(acme.url) + "\n"
    broker.serve(asked)
    for ended in (small / "git-credential-bbjwt").glob(f"{MISSES}~*"):
        os.utime(ended, (1, 1))
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    done = broker.serve(asked)

    assert "password" in given(done)
    assert done.returncode == 0


def test_an_audit_line_that_does_not_fit_is_taken_back(acme: Workspace, broker: Broker) -> None:
    broker.audit.write_text("x" * 1000 + "\n")
    broker.audit.chmod(0o600)
    before = broker.audit.read_text()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1100, 1100))

    done = subprocess.run(
        broker.command(),
        input=request(acme.url.replace("widgets", "secrets")) + "\n",
        capture_output=True,
        text=True,
        env=broker.environment,
        preexec_fn=limit,
        timeout=PATIENCE,
    )

    assert given(done)["bbjwt-error"] == "the audit cannot be written, so there is no token"
    assert str(broker.audit) not in done.stderr
    assert broker.audit.read_text() == before


def test_lines_of_many_brokers_do_not_mix(acme: Workspace, broker: Broker) -> None:
    running = [
        subprocess.Popen(
            broker.command("--allow=acme/*", f"--asker={'x' * 500}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=broker.environment,
        )
        for _ in range(8)
    ]
    for process in running:
        process.communicate(request(acme.url) + "\n", PATIENCE)

    assert [line["outcome"] for line in broker.lines()] == ["granted"] * 8
    assert acme.bitbucket.mints() == 1


def test_a_locked_audit_is_not_waited_for_too_long(acme: Workspace, broker: Broker) -> None:
    broker.audit.touch(0o600)
    with broker.audit.open() as held, ends_within(5):
        fcntl.flock(held, fcntl.LOCK_EX)
        done = broker.serve(request(acme.url) + "\n", options=("--timeout=5",))

    assert given(done)["bbjwt-error"] == "the audit cannot be written, so there is no token"


@pytest.mark.parametrize("mode", [0o640, 0o600])
def test_a_mode_that_log_rotation_chose_is_kept(acme: Workspace, broker: Broker, mode: int) -> None:
    broker.audit.touch()
    broker.audit.chmod(mode)
    assert "password" in given(broker.serve(request(acme.url) + "\n"))
    assert stat.S_IMODE(broker.audit.stat().st_mode) == mode
    broker.audit.chmod(0o622)
    assert given(broker.serve(request(acme.url) + "\n"))["quit"] == "1"


def test_a_network_failure_does_not_tell_the_client_the_route(acme: Workspace, broker: Broker) -> None:
    (broker.home / ".gitconfig").write_text("[http]\n\tproxy = http://user:pass-word@127.0.0.1:1\n")
    done = broker.serve(request(acme.url) + "\n", options=("--timeout=20",))

    assert done.stdout == "quit=1\nbbjwt-error=this broker got no answer from Bitbucket; its log says why\n\n"
    assert done.stderr == done.stdout.splitlines()[1].replace("bbjwt-error=", "git-credential-bbjwt: error: ") + "\n"
    assert "127.0.0.1:1" in str(broker.lines()[0]["reason"])
    assert "pass-word" not in broker.audit.read_text()


@pytest.mark.parametrize("status", [401, 302])
def test_a_refusal_does_not_tell_the_client_the_servers_words(acme: Workspace, broker: Broker, status: int) -> None:
    words = json.dumps({"error": {"message": f"the key {acme.app.client_key} of {acme.app.key} is not known"}})
    place = {"Location": "https://proxy.inner.example/log-in"}
    acme.bitbucket.misbehave("api", *[Fault(status=status, body=words.encode(), headers=place)] * 2)
    done = broker.serve(request(acme.url) + "\n")

    assert given(done)["bbjwt-error"] == f"Bitbucket refuses this broker's request ({status}); its log says why"
    assert done.stderr == f"git-credential-bbjwt: error: {given(done)['bbjwt-error']}\n"
    shown = "the key [" if status == 401 else "proxy.inner.example"
    assert shown in str(broker.lines()[0]["reason"])


def test_without_a_home_or_a_folder_there_is_no_token(acme: Workspace, broker: Broker) -> None:
    del broker.environment["RUNTIME_DIRECTORY"]
    done = broker.serve(request(acme.url) + "\n", options=("--token-store=none",))

    assert given(done)["bbjwt-error"] == "this broker has no token cache, which it needs to limit requests"
    assert NOT_SET_UP not in done.stdout


@pytest.mark.parametrize("way", ["answers", "budget", "TERM"])
def test_an_installation_command_and_its_processes_end_with_the_broker(broker: Broker, way: str) -> None:
    told = broker.home / "pids"
    command = f"trap '' TERM; echo $$ >{told}; sleep 301 & echo $! >>{told}; setsid sleep 302 & echo $! >>{told}; "
    command += f"cat {broker.acme.installation}" if way == "answers" else "wait"
    options = [f"--installation-command={command}", f"--host={broker.acme.bitbucket.host}"]
    options += ["--timeout=2"] if way == "budget" else []
    words = [str(broker.program), *options, "serve", "--allow=acme/*", f"--audit={broker.audit}"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=broker.environment
    ) as process:
        assert process.stdin is not None
        process.stdin.write(request(broker.acme.url) + "\n")
        process.stdin.close()
        until(lambda: told.exists() and told.read_text().count("\n") == 3)
        if way == "TERM":
            process.terminate()
        assert process.stdout is not None
        out = process.stdout.read()
    assert ("password=" in out) is (way == "answers")
    left = [int(pid) for pid in told.read_text().split()]
    until(lambda: not any(map(is_running, left)))


def test_a_client_that_does_not_read_its_answer_is_given_up_after_the_budget(broker: Broker) -> None:
    reading, writing = full_pipe()
    with ends_within(3):
        done = subprocess.run(
            broker.command(options=("--timeout=3",)),
            input=(request(broker.acme.url) + "\n").encode(),
            stdout=writing,
            env=broker.environment,
            timeout=PATIENCE,
        )
    os.close(reading)
    os.close(writing)

    assert done.returncode == 1
    assert [line["outcome"] for line in broker.lines()] == ["granted"]


def test_a_command_ends_though_the_client_does_not_read_its_answer(broker: Broker) -> None:
    told = broker.home / "pid"
    reading, writing = full_pipe()
    command = f"trap '' TERM; echo $$ >{told}; while :; do sleep 1; done"
    options = [f"--installation-command={command}", f"--host={broker.acme.bitbucket.host}", "--timeout=2"]
    done = subprocess.run(
        [str(broker.program), *options, "serve", "--allow=acme/*", f"--audit={broker.audit}"],
        input=(request(broker.acme.url) + "\n").encode(),
        stdout=writing,
        env=broker.environment,
        timeout=PATIENCE,
    )
    os.close(reading)
    os.close(writing)

    assert done.returncode == 1
    until(lambda: not is_running(int(told.read_text())))


def test_audit_that_hangs_gives_no_token_and_ends_with_the_budget(acme: Workspace, broker: Broker) -> None:
    text = broker.program.read_text()
    fault = "import time\nfrom git_credential_bbjwt.serving import audit\n"
    fault += "audit._to_file = lambda *_, **__: time.sleep(60)\n"
    broker.program.write_text(text.replace("main(sys", fault + "main(sys"))
    with ends_within(2):
        done = broker.serve(request(acme.url) + "\n", options=("--timeout=2",))

    assert (done.returncode, done.stdout) == (
        1,
        "quit=1\nbbjwt-error=the audit cannot be written, so there is no token\n\n",
    )


def test_an_allow_file_that_hangs_is_given_up_after_the_budget(broker: Broker) -> None:
    listed = broker.home / "builds"
    os.mkfifo(listed)
    with ends_within(2):
        done = subprocess.run(
            broker.command(f"--allow-file={listed}", options=("--timeout=2",)),
            input=request(broker.acme.url) + "\n",
            capture_output=True,
            text=True,
            env=broker.environment,
            timeout=PATIENCE,
        )

    assert given(done)["quit"] == "1"
    assert [line["outcome"] for line in broker.lines()] == ["error"]


def test_a_request_that_drips_is_given_up_after_ten_seconds(broker: Broker) -> None:
    command = broker.command()
    with (
        ends_within(10),
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=broker.environment) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            while process.poll() is None:
                process.stdin.write(b"a=b\n")
                process.stdin.flush()
                time.sleep(0.5)
        out = process.stdout.read()

    assert out == b"quit=1\nbbjwt-error=no complete request came within 10 s\n\n"


def test_a_name_stored_under_a_wrong_clock_is_looked_up_again(acme: Workspace, broker: Broker) -> None:
    asked = request(f"{acme.bitbucket.base_url}/acme/{acme.widgets.uuid}") + "\n"
    assert "password" in given(broker.serve(asked))
    (known,) = (broker.home / "run").rglob("*~named")
    for end in (int(time.time()) + 10**8, int(time.time()) + 7300):
        known.write_text(f"acme/lib-other {end}")
        assert "password" in given(broker.serve(asked))
        assert known.read_text().startswith("acme/widgets ")


def test_two_brokers_of_one_user_keep_to_their_own_lists(acme: Workspace, broker: Broker) -> None:
    other = acme.bitbucket.host_repository("acme/other")
    for allowed, url in (("acme/widgets", acme.url), ("acme/other", acme.bitbucket.url(other))):
        assert "password" in given(broker.serve(request(url) + "\n", "--allow", allowed))
    assert given(broker.serve(request(acme.url) + "\n", "--allow", "acme/other"))["quit"] == "1"
    assert given(broker.serve(request(acme.bitbucket.url(other)) + "\n", "--allow", "acme/widgets"))["quit"] == "1"
    assert acme.bitbucket.mints() == 2


def test_a_broker_killed_during_a_mint_delays_nothing(acme: Workspace, broker: Broker) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=5))
    with waiting(broker) as process:
        assert process.stdin is not None
        process.stdin.write(request(acme.url).encode() + b"\n")
        process.stdin.flush()
        until_asked(acme.bitbucket)
        process.kill()
        process.wait(PATIENCE)
    with ends_within(0):
        done = broker.serve(request(acme.url) + "\n")

    assert "password" in given(done)


FORGED = 'acme/lib-x","outcome":"granted'


@pytest.mark.parametrize("path", [FORGED, "acme/lib-%0Ax", "acme/lib-\x1b[2J", "acme/lib-\u2028x", "a" * 4000])
def test_nothing_in_a_request_forges_the_audit(acme: Workspace, broker: Broker, path: str) -> None:
    data = f"protocol=https\nhost={acme.bitbucket.host}\npath={path}\n\n"
    done = subprocess.run(
        broker.command("--allow=acme/*", '--asker=a\nb"c'),
        input=data.encode(),
        capture_output=True,
        env=broker.environment,
        timeout=PATIENCE,
    )

    assert b"password" not in done.stdout
    (line,) = broker.audit.read_bytes().splitlines()
    found = json.loads(line)
    assert found["outcome"] in ("nothing to say", "error", "refused")
    assert found["asker"]["label"] == 'a\nb"c'
    assert line.isascii()
    assert len(line) < 4096
