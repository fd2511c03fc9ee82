"""``exec``: it switches the helper on for a command, and is replaced by the command."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import COMMAND, PATIENCE, Machine, Workspace, cannot, need, pretend_git


def test_exec_touches_no_file(acme: Workspace) -> None:
    machine = acme.machine
    (machine.home / ".gitconfig").write_text("[credential]\n\thelper = store\n")
    machine.bbjwt("exec", "--", "git", "clone", "-q", acme.url, "w")

    assert (machine.home / ".gitconfig").read_text() == "[credential]\n\thelper = store\n"
    assert not (machine.home / ".git-credentials").exists()
    assert not (machine.home / ".config").exists()


def test_exec_merges_with_settings_of_the_environment(acme: Workspace) -> None:
    settings = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "alias.hello",
        "GIT_CONFIG_VALUE_0": "!echo hello",
    }
    acme.machine.git("config", "--global", "--unset-all", f"credential.{acme.bitbucket.base_url}.helper")
    done = acme.machine.bbjwt("exec", "--", "sh", "-c", 'git hello && git clone -q "$0" w', acme.url, also=settings)

    assert done.stdout == "hello\n"
    assert (acme.machine.home / "w/README.md").exists()
    for count in ("x", "9" * 10, "9" * 5_000):
        assert acme.machine.bbjwt("exec", "--", "true", check=False, GIT_CONFIG_COUNT=count).returncode == 2


def test_exec_passes_options_on(acme: Workspace) -> None:
    acme.app.scopes = {"repository:write"}
    installation = acme.machine.home / "an installation.json"
    acme.installation.rename(installation)
    command = ("--installation", installation.name, "--token-store=none", "exec", "--scope", "repository:write")
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.machine.bbjwt(*command, "--", "git", "clone", "-q", acme.url, "w")

    assert acme.bitbucket.helper_requests()[-1].form["scope"] == "repository:write"
    assert acme.machine.records() == []


def test_exec_keeps_relative_paths_in_place(acme: Workspace) -> None:
    acme.machine.git("init", "-q", "w/deep")
    changes = {"BBJWT_INSTALLATION": f"{acme.installation.name}\n"}
    acme.machine.bbjwt("exec", "--", "git", "-C", "w/deep", "fetch", "-q", acme.url, also=changes)


def test_exec_serves_registered_and_injected_hosts(acme: Workspace) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    cloud = acme.bitbucket.payload(acme.bitbucket.install("elsewhere"), baseUrl="https://bitbucket.org")
    acme.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(cloud))
    acme.machine.bbjwt("exec", "--", "git", "clone", "-q", acme.url, "w")


def test_exec_rewrites_ssh(acme: Workspace) -> None:
    acme.machine.bbjwt("exec", "--rewrite-ssh", "--", "git", "clone", "-q", "git@localhost:acme/widgets", "w")


def test_exec_names_the_git_it_needs(machine: Machine) -> None:
    pretend_git(machine, "2.25.1")
    done = machine.bbjwt("exec", "true", check=False)

    assert done.returncode == 1
    assert "2.31" in done.stderr


# The command replaces the helper, so signals, exit status and limits are the command's.


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
        (["no-such-command"], 127),
        (["/nowhere/x"], 127),
        (["/etc/passwd/x"], 127),
        ([""], 127),
        (["/etc/passwd"], 126),
        (["/"], 126),
        ([], 2),
    ],
)
def test_exit_status_is_the_commands_or_that_of_a_shell(machine: Machine, words: list[str], status: int) -> None:
    assert machine.bbjwt("exec", "--", *words, check=False).returncode == status


def test_error_for_a_missing_command_does_not_repeat_it(machine: Machine) -> None:
    done = machine.bbjwt("exec", "--", "a-secret-by-mistake", check=False)

    assert "a-secret-by-mistake" not in done.stderr
    assert "hint: " in done.stderr


def test_script_without_an_interpreter_line_is_run_by_the_shell(machine: Machine) -> None:
    script = machine.home / "plain"
    script.write_text('echo "$1"\n')
    script.chmod(0o755)

    assert machine.bbjwt("exec", "--", script, "first").stdout == "first\n"
    path = f"{machine.home}:{machine.environment['PATH']}"
    assert machine.bbjwt("exec", "--", "plain", "second", PATH=path).stdout == "second\n"


def test_script_whose_interpreter_is_missing_cannot_be_run(machine: Machine) -> None:
    script = machine.home / "script"
    script.write_text("#!/nowhere/interpreter\n")
    script.chmod(0o755)
    done = machine.bbjwt("exec", "--", script, check=False)

    assert done.returncode == 126
    assert str(script) in done.stderr


#: Prints the signals that a process ignores at its start.
IGNORED = ["sed", "-n", "s/^SigIgn:.//p", "/proc/self/status"]


def ignored_by_the_command(machine: Machine, *ignored: signal.Signals) -> set[int]:
    """Return the signals that a command of `exec` ignores if the caller ignores ``ignored``."""

    def ignore() -> None:
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    done = subprocess.run(
        [COMMAND, "exec", "--", *IGNORED],
        stdout=subprocess.PIPE,
        env=machine.env(),
        preexec_fn=ignore,
        timeout=PATIENCE,
        check=True,
        restore_signals=False,
    )
    mask = int(done.stdout, 16)
    return {number for number in range(1, 32) if mask >> (number - 1) & 1}


def test_command_ignores_no_signal_that_python_or_a_supervisor_ignores(machine: Machine) -> None:
    assert ignored_by_the_command(machine) == set()
    assert ignored_by_the_command(machine, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD) == set()


def test_interrupt_that_the_caller_ignores_stays_ignored(machine: Machine) -> None:
    assert ignored_by_the_command(machine, signal.SIGINT) == {signal.SIGINT}


def test_command_has_the_process_number_and_the_signals(machine: Machine) -> None:
    words = [str(COMMAND), "exec", "--", "sh", "-c", "trap 'echo int; exit 5' INT; echo $$; read line"]
    with subprocess.Popen(words, env=machine.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert int(running.stdout.readline()) == running.pid
        running.send_signal(signal.SIGINT)
        assert running.stdout.read() == b"int\n"
        assert running.wait(PATIENCE) == 5


def test_command_gets_only_the_callers_environment_and_gits_settings(machine: Machine) -> None:
    for also in ({}, {"LC_CTYPE": "C"}, {"LC_ALL": "C"}):
        given = machine.env(also)
        done = machine.bbjwt("exec", "--", "env", "-0", also=also)
        environment = dict(pair.split("=", 1) for pair in done.stdout.split("\0")[:-1])

        assert {name: value for name, value in environment.items() if not name.startswith("GIT_CONFIG_")} == {
            **{name: value for name, value in given.items() if not name.startswith("GIT_CONFIG_")},
            "CARGO_NET_GIT_FETCH_WITH_CLI": "true",
        }


def test_variables_of_cargo_that_are_set_do_not_change(machine: Machine) -> None:
    name = "CARGO_NET_GIT_FETCH_WITH_CLI"

    assert machine.bbjwt("exec", "--", "sh", "-c", f"echo ${name}", also={name: "false"}).stdout == "false\n"


@pytest.mark.parametrize("limit", [0, 4096, resource.RLIM_INFINITY])
def test_command_has_the_callers_limit_for_core_dumps(acme: Workspace, limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard != resource.RLIM_INFINITY and limit > hard:
        limit = hard
    script = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    script += "; print(open('/proc/self/coredump_filter').read())"

    def told(*words: str | Path) -> bytes:
        return subprocess.run(
            [*words, sys.executable, "-c", script],
            env=acme.machine.env(),
            stdout=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (limit, hard)),
            timeout=PATIENCE,
            check=True,
        ).stdout

    assert told(COMMAND, "exec", "--") == told("env")


def test_closed_descriptors_stay_closed(machine: Machine) -> None:
    script = 'exec "$0" exec -- sh -c "ls /proc/self/fd >shown" <&- >&- 2>&-'
    machine.run("sh", "-c", script, COMMAND)
    bare = 'exec sh -c "ls /proc/self/fd >bare" <&- >&- 2>&-'
    machine.run("sh", "-c", bare)

    assert (machine.home / "shown").read_text() == (machine.home / "bare").read_text()


# As the first process of a container.


def in_namespaces(*flags: str) -> list[str]:
    """Return the start of a command line that runs the rest in separate namespaces."""
    words = [need("unshare"), *flags]
    if subprocess.run([*words, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        cannot("this user cannot make namespaces here")
    return words


def test_first_process_of_a_container_is_the_command(acme: Workspace) -> None:
    container = in_namespaces("--pid", "--fork", "--mount-proc")
    words = [*container, str(COMMAND), "exec", "--"]
    assert acme.machine.run(*words, "sh", "-c", "echo $$; exit 7", check=False).stdout == "1\n"
    assert acme.machine.run(*words, "sh", "-c", "exit 7", check=False).returncode == 7
    # The command sees children that end by a signal, and orphans, as without the helper.
    script = "(sleep 0.1 &); sh -c 'kill -TERM $$'; echo $?"
    assert acme.machine.run(*words, "sh", "-c", script).stdout == "143\n"
    acme.machine.run(*words, "git", "clone", "-q", acme.url, "w")


def test_no_token_is_written_to_the_workspace_of_a_read_only_container(acme: Workspace) -> None:
    workspace = acme.machine.home / "workspace"
    acme.machine.git("init", "-q", workspace)
    acme.machine.environment |= {"TMPDIR": str(workspace), "XDG_RUNTIME_DIR": "/nonexistent"}
    script = f"""set -e
mount --bind {workspace} {workspace}
mount -o remount,bind,ro /
for folder in /tmp /var/tmp /dev/shm /run; do
    if mountpoint -q $folder; then mount -o remount,bind,ro $folder; fi
done
cd {workspace}
"$0" exec -- git fetch -q {acme.url}
"""
    acme.machine.run(*in_namespaces("--mount", "--propagation=private"), "sh", "-c", script, COMMAND)
    acme.machine.git("add", "-A", cwd=workspace)

    assert acme.bitbucket.mints() == 1
    assert acme.machine.git("status", "--porcelain", cwd=workspace).stdout == ""


# exec --proactive


def proactive(machine: Machine, *options: str, **changes: str | None) -> str:
    """Return the settings of proactiveAuth that git sees in a command of ``exec --proactive``, and the warnings."""
    shown = ("git", "config", "--get-regexp", "proactiveauth")
    done = machine.bbjwt(*options, "exec", "--proactive", "--", *shown, check=False, also=changes)
    return done.stdout + done.stderr


def test_proactive_is_set_for_the_workspace_of_an_injected_payload(acme: Workspace) -> None:
    expected = f"http.{acme.bitbucket.base_url}/acme/.proactiveauth basic\n"

    assert proactive(acme.machine) == expected
    assert "proactive" not in acme.machine.bbjwt("exec", "--", "git", "config", "--list").stdout
    file = str(acme.installation)
    assert proactive(acme.machine, f"--installation={file}", BBJWT_INSTALLATION=None) == expected
    jwt = acme.machine.bbjwt("jwt", "acme").stdout.strip()
    assert proactive(acme.machine, BBJWT_JWT=jwt) == expected


def test_proactive_without_a_workspace_warns_that_it_changes_nothing(acme: Workspace) -> None:
    acme.write_installation(principal=None)

    assert "--proactive changes nothing" in proactive(acme.machine)


def test_proactive_is_not_set_for_registered_installations(acme: Workspace) -> None:
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)

    assert "--proactive changes nothing" in proactive(acme.machine, BBJWT_INSTALLATION=None)


def test_clone_with_proactive(acme: Workspace) -> None:
    acme.machine.bbjwt("exec", "--proactive", "--", "git", "clone", "-q", acme.url, "w")
