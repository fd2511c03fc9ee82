"""The whole command line: help, mistakes, options that are used or refused, colours."""

from __future__ import annotations

import pytest

from git_credential_bbjwt.commands.command_line import COMMANDS
from git_credential_bbjwt.core.option_table import OPTIONS
from tests.conftest import Machine, Workspace

SECRET = "hunter2hunter2"


# Help


def test_help_has_the_commands_first_then_the_options(machine: Machine) -> None:
    shown = machine.bbjwt("--help").stdout

    places = [shown.index(f"\n    {name} ") for name in COMMANDS] + [shown.index(f"\n  {name}") for name in OPTIONS]
    assert places == sorted(places)


def test_help_command_prints_the_help_of_a_command(machine: Machine) -> None:
    assert machine.bbjwt("help", "token").stdout == machine.bbjwt("token", "--help").stdout


# Mistakes


@pytest.mark.parametrize("data", ["host=x\n\n", "protocol=https\nhost=x\n\n", "a=b"])
def test_unknown_operation_with_a_request_is_ignored(machine: Machine, data: str) -> None:
    done = machine.bbjwt("approve", data=data)

    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("data", ["", "\n", "=\n", "hello\n", "=value\n"])
def test_unknown_operation_without_a_request_is_a_usage_error(machine: Machine, data: str) -> None:
    done = machine.bbjwt("approve", data=data, check=False)

    assert done.returncode == 2
    assert "approve" not in done.stderr


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (("regster",), "did you mean register?"),
        (("regster", "installed.json"), "did you mean register?"),
        (("--tiemout", "5", "get"), "did you mean --timeout?"),
        (("list", "--jsno"), "did you mean --json?"),
        (("get", "--verbose"), "write options before it"),
        (("wxyz", "abc"), ", doctor"),
        ((), ", doctor"),
    ],
)
def test_error_for_a_mistake_suggests_the_right_word(machine: Machine, words: tuple[str, ...], suggestion: str) -> None:
    done = machine.bbjwt(*words, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert suggestion in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        (SECRET,),
        (SECRET, SECRET),
        (f"--{SECRET}",),
        (f"--app{SECRET}={SECRET}", "get"),
        ("--scope", f'{SECRET}"', "get"),
        ("--timeout", SECRET, "get"),
        ("--token-store", SECRET, "get"),
        ("--allow", SECRET, "get"),
        ("--host", f"{SECRET}/", "get"),
        (f"--verbose={SECRET}", "get"),
        ("get", SECRET),
        ("jwt", "acme", "--expires", f"expected {SECRET}"),
        ("jwt", "acme", "--expires", f"invalid choice: (choose from {SECRET})"),
        ("jwt", "acme", f"not allowed with {SECRET}: {SECRET}"),
        ("token", "--format", f"{SECRET} (choose from {SECRET})", "x"),
        ("list", SECRET),
        ("list", f"--json={SECRET}"),
        ("list", f"--jso-{SECRET}"),
        ("configure", "--workspace", f"{SECRET}/"),
        ("unregister", f"{SECRET}/"),
        ("jwt", f"{SECRET}/"),
        ("token", SECRET),
        ("token", f"https://user:{SECRET}@bitbucket.org/"),
        ("doctor", SECRET),
        ("forget", SECRET),
        ("register", SECRET),
        ("exec", f"./{SECRET}"),
        ("--installation", SECRET, "list"),
        ("serve", "--allow", SECRET, "--audit", "none"),
        ("serve", "--allow", "acme/widgets", "--audit", SECRET),
        ("serve", "--allow-file", SECRET, "--audit", "none"),
        ("serve", "--allow-file", f"/{SECRET}", "--audit", "none"),
        ("serve", "--allow", "acme/widgets", "--audit", f"/{SECRET}/x"),
        ("policy", SECRET),
        ("policy", "/dev/null", "--id-token", SECRET),
        ("token", f"https://[{SECRET}"),
        ("doctor", f"https://[{SECRET}"),
        ("register", "--secret-file", SECRET, "-"),
        ("--id-token-file", SECRET, "token", "https://bitbucket.org/acme/widgets"),
    ],
)
def test_error_repeats_no_value_that_may_be_a_secret(machine: Machine, words: tuple[str, ...]) -> None:
    done = machine.bbjwt(*words, check=False)

    assert done.returncode != 0
    assert done.returncode != 2 or "\nhint: " in done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_option_that_a_command_does_not_use_is_refused_before_it_and_after_it(machine: Machine, name: str) -> None:
    values = {"--token-store": "none", "--timeout": "7", "--allow": "acme/widgets", "--host": "x"}
    # --broker is left out because it excludes --scope, whatever the command.
    unused = [option for option in OPTIONS if option not in (*COMMANDS[name].options, "--verbose", "--broker")]
    words = [f"{option}={values.get(option, '/x')}" for option in unused]
    if unused:
        before = machine.bbjwt(*words, name, check=False)
        assert before.returncode == 2
        assert f"{name} has no use for {', '.join(unused)}\n" in before.stderr
        assert machine.bbjwt(name, words[0], check=False).returncode == 2


def test_options_apply_before_a_command_and_after_it(acme: Workspace) -> None:
    acme.app.scopes = {"repository:write"}
    for words in (("--scope=repository:write", "token", acme.url), ("token", acme.url, "--scope=repository:write")):
        acme.machine.bbjwt("forget", "--all")
        acme.machine.bbjwt(*words)
        assert acme.bitbucket.helper_requests()[-1].form["scope"] == "repository:write"
    refused = acme.machine.bbjwt("token", acme.url, "--allow", "acme/lib-*", check=False)
    assert "--allow does not name" in refused.stderr


def test_scope_with_a_broker_is_a_usage_error_wherever_the_broker_is_named(machine: Machine) -> None:
    url = "https://bitbucket.org/acme/widgets"
    words = ("token", url, "--scope", "repository")
    assert machine.bbjwt("--broker", "true", *words, check=False).returncode == 2
    assert machine.bbjwt(*words, check=False, BBJWT_BROKER="true").returncode == 2
    machine.bbjwt("configure", "--broker", "true")
    assert machine.bbjwt(*words, check=False).returncode == 2


@pytest.mark.parametrize("option", ["--id-token-file=/x", "--id-token-command=x"])
def test_id_token_without_an_https_broker_is_a_usage_error(machine: Machine, option: str) -> None:
    for words in (("token", "https://bitbucket.org/a/b"), ("configure",), ("exec", "true"), ("doctor",)):
        done = machine.bbjwt(option, *words, check=False)
        assert done.returncode == (1 if words == ("doctor",) else 2), words
        assert "is for an https broker only" in done.stdout + done.stderr
    machine.bbjwt(option, "configure", "--broker", "https://broker.example")


def test_old_and_new_name_of_a_scope_are_the_same_scope(acme: Workspace) -> None:
    acme.app.scopes = {"repository:write"}
    new = acme.machine.bbjwt("token", acme.url, "--scope", "write:repository:bitbucket").stdout
    old = acme.machine.bbjwt("token", acme.url, "--scope", "repository:write").stdout

    assert new == old
    assert acme.bitbucket.mints() == 1
    assert acme.bitbucket.helper_requests()[-1].form["scope"] == "repository:write"


# Colours


def test_errors_are_coloured_on_a_terminal_only(machine: Machine) -> None:
    shown = machine.at_terminal("nonsense", check=False)

    assert "\x1b[31mgit-credential-bbjwt: error: \x1b[0m" in shown
    assert "\x1b[33mhint: \x1b[0m" in shown
    assert "\x1b" not in machine.at_terminal("nonsense", check=False, NO_COLOR="1")
    assert "\x1b" not in machine.bbjwt("nonsense", check=False).stderr
