"""Installation commands: their other output, and the end of everything that they start."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from git_credential_bbjwt.system import shell
from git_credential_bbjwt.vendors.printed_secrets import shown_lines
from tests.conftest import (
    COMMAND,
    LATE,
    PATIENCE,
    Workspace,
    answer,
    assert_quits,
    ends_within,
    finish,
    is_running,
    request,
    start,
    until,
)


@pytest.fixture
def scene(acme: Workspace) -> Workspace:
    """The usual scene, with the payload available only by a command."""
    del acme.machine.environment["BBJWT_INSTALLATION"]
    return acme


def commanded(scene: Workspace, command: str, *options: str) -> tuple[str, ...]:
    """Return the helper's options for an installation command."""
    return ("--installation-command", command, "--host", scene.bitbucket.host, "--token-store=none", *options)


def serving(scene: Workspace, command: str) -> tuple[list[str], dict[str, str]]:
    """Return the command line and the environment of a broker with an installation command."""
    folder = scene.machine.home.parent / "cache"
    folder.mkdir(mode=0o700)
    options = ["--installation-command", command, "--host", scene.bitbucket.host]
    words = [str(COMMAND), *options, "serve", "--allow", "acme/*", "--audit", "none"]
    return words, scene.machine.env(CACHE_DIRECTORY=str(folder))


# Standard error


def in_lines(text: str, width: int) -> str:
    return "\n".join(text[start : start + width] for start in range(0, len(text), width))


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# ruff: noqa: ARG005  # all have the same arguments

#: Forms in which a payload, or its secret, may be printed.
SPELLINGS: dict[str, Callable[[str, str], str]] = {
    "payload": lambda payload, secret: payload,
    "JSON in JSON": lambda payload, secret: json.dumps({"SecretString": payload}),
    "JSON in JSON in JSON": lambda payload, secret: json.dumps({"data": json.dumps({"body": payload})}),
    "base64": lambda payload, secret: base64_of(payload),
    "base64 in lines": lambda payload, secret: in_lines(base64_of(payload), 76),
    "base64 in odd lines": lambda payload, secret: in_lines(base64_of(payload), 70),
    "base64 of base64": lambda payload, secret: base64_of(base64_of(payload)),
    "base64 in JSON": lambda payload, secret: json.dumps({"data": {"payload": base64_of(payload)}}),
    "base64 for URLs": lambda payload, secret: base64.urlsafe_b64encode(payload.encode()).decode(),
    "base64 of the secret": lambda payload, secret: base64_of(secret),
    "basic authorization": lambda payload, secret: f"Authorization: Basic {base64_of('key:' + secret)}",
    "secret": lambda payload, secret: f"the secret is {secret}",
    "escaped name": lambda payload, secret: payload.replace("sharedSecret", "shared\\u0053ecret"),
    "escaped value": lambda payload, secret: payload.replace(secret, "".join(f"\\u{ord(c):04x}" for c in secret)),
    "half a payload": lambda payload, secret: payload[: payload.index(secret) + len(secret)],
    "hexadecimal": lambda payload, secret: secret.encode().hex(" ", 2),
    "UTF-16": lambda payload, secret: payload.encode("utf-16-le").decode("latin-1"),
    "another language": lambda payload, secret: f"{{'sharedSecret': '{secret}'}}",
}

#: A secret with all characters that JSON and base64 can write in several ways.
AWKWARD = 'a/"secret"\\with+é-and-𐀀-0123456789'


@pytest.mark.parametrize(("spelling", "status"), [("payload", 3), ("JSON in JSON", 0), ("base64 in lines", 3)])
def test_secret_on_standard_error_is_replaced_whatever_the_exit_status(
    scene: Workspace, spelling: str, status: int
) -> None:
    payload = scene.installation.read_text()
    printed = scene.machine.home / "printed"
    printed.write_text(SPELLINGS[spelling](payload, scene.app.shared_secret), encoding="latin-1")
    command = f"echo about to ask >&2; cat {printed} >&2; echo >&2; echo that was it >&2; cat {scene.installation}"
    done = scene.get(*commanded(scene, f"{command}; exit {status}"), check=False)

    assert done.returncode == (1 if status else 0)
    assert "about to ask" in done.stderr
    assert "that was it" in done.stderr
    assert not pieces_in(done.stderr, printed.read_text(), scene.app.shared_secret)


def pieces_in(shown: str, printed: str, secret: str) -> list[str]:
    """Return the shown pieces of a secret, or of base64 that was printed."""
    words = [word for word in printed.split() if len(word) > 60 and '"' not in word]
    pieces = [text[at : at + 8] for text in (secret, *words, base64_of(secret)) for at in range(0, len(text) - 7, 4)]
    return [piece for piece in pieces if piece in shown]


#: Forms that are recognised only by the secret in the command's output.
NAMELESS = {"secret", "base64 of the secret", "basic authorization", "another language", "hexadecimal"}


@pytest.mark.parametrize(
    ("spelling", "is_in_output"),
    [
        *((spelling, True) for spelling in SPELLINGS),
        *((spelling, False) for spelling in sorted(SPELLINGS.keys() - NAMELESS)),
    ],
)
def test_secret_with_awkward_characters_is_replaced(spelling: str, is_in_output: bool) -> None:
    payload = json.dumps({"key": "k", "sharedSecret": AWKWARD, "principal": {"username": "acme"}})
    printed = SPELLINGS[spelling](payload, json.dumps(AWKWARD)[1:-1] if "half" in spelling else AWKWARD)
    shown = "\n".join(shown_lines(printed.encode(), payload.encode() if is_in_output else b"", 20))

    assert not pieces_in(shown, printed, AWKWARD)
    assert "0123456789" not in shown
    assert AWKWARD.encode().hex()[:16] not in "".join(filter(str.isalnum, shown))


@pytest.mark.parametrize(
    ("errors", "output"),
    [
        (b"\\" * 64_000, b"\\" * 1_000_000),
        (b'"secret":"' * 6_000, b'"secret":"\\' * 90_000),
        (base64.b64encode(os.urandom(48_000)), base64.b64encode(os.urandom(750_000))),
        (b"QUFB" * 16_000, b"QUFB\n" * 200_000),
        (b"'\"secret'" * 7_000, b"".join(b'"secret":"%dabcdef" ' % number for number in range(50_000))),
    ],
)
def test_standard_error_of_any_kind_is_read_in_bounded_time(errors: bytes, output: bytes) -> None:
    started = time.process_time()
    shown_lines(errors, output, 20)

    assert time.process_time() - started < LATE * 2


def test_rest_of_a_secret_in_standard_error_that_was_cut_is_not_shown() -> None:
    errors = b'tail-of-a-secret-0123456789", "key": "k"}' + b"x" * shell.MOST_ERRORS

    assert "tail" not in "".join(shown_lines(errors[: shell.MOST_ERRORS], b"", 20))


def test_standard_error_is_not_shown_behind_a_broker(scene: Workspace) -> None:
    ran = scene.machine.home / "ran"
    words, environment = serving(scene, f"echo from the store | tee {ran} >&2; cat {scene.installation} >&2; exit 3")
    done = scene.machine.run(*words, data=request(scene.url) + "\n", env=environment, check=False)

    assert ran.exists()
    assert "quit=1" in done.stdout
    assert "from the store" not in done.stdout + done.stderr
    assert scene.app.shared_secret not in done.stdout + done.stderr


# Standard output


@pytest.mark.parametrize("spelling", ["JSON in JSON", "base64 in lines"])
def test_payload_is_recognised_in_base64_and_in_wrappers(scene: Workspace, spelling: str) -> None:
    printed = scene.machine.home / "printed"
    printed.write_text(SPELLINGS[spelling](scene.installation.read_text(), ""))

    assert "password" in answer(scene.get(*commanded(scene, f"cat {printed}")))


def test_command_has_an_empty_standard_input_and_no_terminal(scene: Workspace) -> None:
    script = f"cat; if (: </dev/tty) 2>/dev/null; then exit 5; fi; cat {scene.installation}"

    assert "password" in answer(scene.get(*commanded(scene, script)))


def test_flood_on_standard_error_causes_no_delay(scene: Workspace) -> None:
    flood = "head -c 20000000 /dev/zero | tr '\\0' x >&2; yes oops | head -n 100000 >&2"
    done = scene.get(*commanded(scene, f"{flood}; cat {scene.installation}"))

    assert "password" in answer(done)
    assert len(done.stderr) < 2_000


# The end of the command.


def test_error_for_a_command_that_a_signal_ended_names_the_signal(scene: Workspace) -> None:
    assert_quits(scene.get(*commanded(scene, "kill -9 $$"), check=False), "was ended by signal 9")


#: Starts two processes that ignore all signals that they can: one in the command's group and one that has left it.
#: The third process is the command itself.
STARTS = """trap '' TERM INT HUP
echo $$ >"$HOME/pids"
sh -c 'echo $$ >>"$HOME/pids"; exec sleep 301' &
setsid sh -c 'echo $$ >>"$HOME/pids"; exec sleep 302' &
while [ "$(wc -l <"$HOME/pids")" -lt 3 ]; do sleep 0.01; done
touch "$HOME/ready"
"""


def pids(scene: Workspace) -> list[int]:
    """Return the numbers of the processes that the command has started."""
    file = scene.machine.home / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def until_ended(numbers: list[int]) -> None:
    """Wait for processes to end."""
    try:
        until(lambda: not any(map(is_running, numbers)))
    finally:
        for number in filter(is_running, numbers):
            os.kill(number, signal.SIGKILL)


def started(scene: Workspace, command: str) -> subprocess.Popen[bytes]:
    """Start a helper, and wait until its command has started all processes."""
    running = start(scene.machine, scene.url, *commanded(scene, command))
    until((scene.machine.home / "ready").exists)
    return running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_command_and_all_it_started_end_with_the_helper(scene: Workspace, number: signal.Signals) -> None:
    running = started(scene, f"{STARTS}\nsleep 300")
    running.send_signal(number)
    finish(running)

    assert running.returncode == -number
    assert len(pids(scene)) == 3
    until_ended(pids(scene))


def test_command_itself_ends_even_if_the_helper_is_killed(scene: Workspace) -> None:
    running = started(scene, f"{STARTS}\nexec sleep 300")
    running.kill()
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    running.stderr.close()
    running.wait(PATIENCE)

    until_ended(pids(scene)[:1])
    for number in filter(is_running, pids(scene)):
        os.kill(number, signal.SIGKILL)


def test_command_and_all_it_started_end_with_the_budget(scene: Workspace) -> None:
    with ends_within(2):
        done = scene.get(*commanded(scene, f"{STARTS}\nsleep 300", "--timeout=2"), check=False)

    assert_quits(done, "gave up after 2 s")
    until_ended(pids(scene))


def test_daemon_that_holds_the_output_does_not_hold_the_helper(scene: Workspace) -> None:
    done = scene.get(*commanded(scene, f"{STARTS}\ncat {scene.installation}", "--timeout=20"))

    assert "password" in answer(done)
    until_ended(pids(scene))


def test_parallel_commands_end_with_a_signal(scene: Workspace) -> None:
    urls = [scene.url, scene.url.replace("widgets", "gadgets")]
    running = subprocess.Popen(
        [COMMAND, *commanded(scene, f"{STARTS}\nsleep 300"), "token", *urls],
        env=scene.machine.env(),
        stdout=subprocess.PIPE,
    )
    until((scene.machine.home / "ready").exists)
    running.send_signal(signal.SIGTERM)

    assert running.wait(PATIENCE) == -signal.SIGTERM
    assert running.stdout is not None
    running.stdout.close()
    until_ended(pids(scene))


def test_command_of_a_broker_ends_with_it(scene: Workspace) -> None:
    # A broker takes its home from the password database.
    words, environment = serving(scene, f"HOME={scene.machine.home}\n{STARTS}\nsleep 300")
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        running.stdin.write(request(scene.url).encode() + b"\n")
        running.stdin.close()
        until((scene.machine.home / "ready").exists)
        running.send_signal(signal.SIGINT)
        assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE) == -signal.SIGTERM

    until_ended(pids(scene))


@pytest.mark.parametrize("kind", ["--installation-command", "--broker"])
def test_failure_is_an_error_even_if_the_caller_ignores_its_children(scene: Workspace, kind: str) -> None:
    done = subprocess.run(
        [COMMAND, kind, "exit 4", "--host", scene.bitbucket.host, "get"],
        input=request(scene.url).encode() + b"\n",
        capture_output=True,
        env=scene.machine.env(),
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        timeout=PATIENCE,
        check=False,
    )

    assert (done.stdout, done.returncode) == (b"quit=1\n", 1)
    assert b"status 4" in done.stderr
