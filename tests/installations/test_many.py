"""Thousands of installations and tokens: registered in one command, found without reading others', printed at once."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import InstallationError
from git_credential_bbjwt.installations.installation import CLOUD_API_URL, CLOUD_BASE_URL, Installation
from git_credential_bbjwt.installations.registry_changes import RegistryFolder
from git_credential_bbjwt.system.private_folder import PrivateFolder
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.slot import Slot
from tests.conftest import (
    COMMAND,
    Machine,
    Workspace,
    answer,
    entries_of,
    files_holding,
    registry_of,
    request,
)
from tests.emulator import Fault
from tests.growth import another
from tests.properties import whole_record


def payloads(unregistered: Workspace, count: int) -> list[dict[str, Any]]:
    """Payloads of ``count`` workspaces, acme's first."""
    first = unregistered.bitbucket.payload(unregistered.app)
    return [first] + [another(first, f"team{number}") for number in range(1, count)]


def lines(many: list[dict[str, Any]]) -> str:
    """One payload per line."""
    return "".join(json.dumps(one) + "\n" for one in many)


def known(machine: Machine) -> set[str]:
    """Return the registered workspaces."""
    return {name for one in json.loads(machine.bbjwt("list", "--json").stdout) for name in one["workspaces"]}


# register of many.


@pytest.mark.parametrize("form", ["array", "lines", "wrapped lines"])
def test_many_are_registered_in_one_command(unregistered: Workspace, form: str) -> None:
    many = payloads(unregistered, 60)
    wrapped = [{"clientInfo": one} for one in many]
    text = json.dumps(many) if form == "array" else lines(wrapped if form.startswith("wrapped") else many)
    done = unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=text)

    assert "registered 60 of 60 installations" in done.stderr
    assert known(unregistered.machine) == {"acme", *(f"team{number}" for number in range(1, 60))}
    assert "password" in answer(unregistered.get())
    # Each workspace has its own secret.
    assert {one["secret"] for one in json.loads(unregistered.machine.bbjwt("list", "--json").stdout)} == {"file"}
    assert len(list((registry_of(unregistered.machine).parent / "shared-secrets").iterdir())) == 60


def test_all_are_checked_before_the_first_is_stored(unregistered: Workspace) -> None:
    many = payloads(unregistered, 5)
    del many[2]["sharedSecret"]
    many[4]["baseUrl"] = "http://x"
    done = unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=lines(many), check=False)

    assert done.returncode == 1
    assert f"payload 3 (app {unregistered.app.key}): " in done.stderr
    assert f"payload 5 (app {unregistered.app.key}): " in done.stderr
    assert "2 of 5 payloads" in done.stderr
    assert many[0]["sharedSecret"] not in done.stderr
    assert not registry_of(unregistered.machine).exists()
    assert files_holding(unregistered.machine.home / ".config", many[0]["sharedSecret"]) == []


def test_error_for_a_line_that_is_not_a_payload_names_its_position(unregistered: Workspace) -> None:
    text = (
        lines(payloads(unregistered, 2)) + '{"sharedSecret": "not-to-be-shown", \n\n' + lines(payloads(unregistered, 1))
    )
    done = unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=text, check=False)

    assert done.returncode == 1
    assert "payload 3: " in done.stderr
    assert "1 of 4 payloads" in done.stderr
    assert "not-to-be-shown" not in done.stderr
    assert not registry_of(unregistered.machine).exists()


def test_several_payloads_of_many_lines_are_refused_with_the_command_that_makes_them_one_per_line(
    unregistered: Workspace,
) -> None:
    text = "\n".join(json.dumps(one, indent=2) for one in payloads(unregistered, 2))
    done = unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=text, check=False)

    assert done.returncode == 1
    assert "standard input: this is more than one payload" in done.stderr
    assert "one per line: jq -c . FILE" in done.stderr
    assert not registry_of(unregistered.machine).exists()


def test_payload_that_cannot_be_stored_is_named_and_the_others_are_registered(unregistered: Workspace) -> None:
    done = unregistered.machine.bbjwt(
        "register",
        "-",
        data=lines(payloads(unregistered, 2)),
        check=False,
        PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring",
    )

    assert done.returncode == 1
    assert [f"payload {n} (app {unregistered.app.key}): " in done.stderr for n in (1, 2)] == [True, True]
    assert "registered 0 of 2 installations" in done.stderr


@pytest.mark.parametrize("option", ["--workspace=acme", "--repository=https://bitbucket.org/acme/widgets"])
def test_options_for_one_payload_are_an_error_with_several(unregistered: Workspace, option: str) -> None:
    text = lines(payloads(unregistered, 2))
    done = unregistered.machine.bbjwt("register", "--insecure-storage", option, "-", data=text, check=False)

    assert done.returncode == 2
    assert not registry_of(unregistered.machine).exists()


def test_terminal_shows_the_progress(unregistered: Workspace) -> None:
    (unregistered.machine.home / "many").write_text(lines(payloads(unregistered, 420)))
    (unregistered.machine.home / "many").chmod(0o600)
    shown = unregistered.machine.at_terminal("register", "--insecure-storage", "many")

    assert "registered 400 of 420" in shown
    assert "\r\x1b[Kgit-credential-bbjwt: registered 420 of 420" in shown
    shown = unregistered.machine.at_terminal("unregister", "--all")
    assert "] unregistered 406 of 420" in shown
    assert "\r\x1b[Kgit-credential-bbjwt: unregistered 420 of 420" in shown


@pytest.mark.parametrize("words", [["register", "--insecure-storage", "-"], ["unregister", "--all"]])
def test_cached_tokens_of_many_workspaces_are_dropped(unregistered: Workspace, words: list[str]) -> None:
    machine = unregistered.machine
    many = payloads(unregistered, 30)
    machine.bbjwt("register", "--insecure-storage", "-", data=lines(many))
    folder = PrivateFolder(str(machine.runtime / "git-credential-bbjwt"), create=True)
    cache = TokenCache(folder, folder, folder)
    now = int(time.time())
    for workspace in ("acme", "team9", many[29]["principal"]["uuid"], "another-workspace"):
        record = whole_record(workspace, minted=now, expires=now + 7200)
        record.host = many[0]["baseUrl"].removeprefix("https://")
        Slot(cache, record.repository, record.scope, record.app).keep(record)
    machine.bbjwt(*words, data=lines(many))

    assert ["another-workspace" in path.name for path in machine.records()] == [True]


def test_registering_twice_registers_once_and_a_new_secret_replaces_the_old(unregistered: Workspace) -> None:
    many = payloads(unregistered, 150)
    for _ in range(2):
        unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=lines(many))
    old = many[0]["sharedSecret"]
    unregistered.app.shared_secret = "a-new-secret-for-the-same-client-key"
    many[0]["sharedSecret"] = unregistered.app.shared_secret
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=lines(many))

    assert len(known(unregistered.machine)) == 150
    assert len(entries_of(unregistered.machine)) == 150
    assert (
        len(files_holding(unregistered.machine.home / ".config", old)) == 149
    )  # In this test, the others have the same secret.
    assert "password" in answer(unregistered.get())


def test_kill_while_registering_many_leaves_each_registered_or_not(unregistered: Workspace) -> None:
    machine = unregistered.machine
    chance = random.Random(5)  # noqa: S311  # moments, not keys
    before = payloads(unregistered, 3)
    machine.bbjwt("register", "--insecure-storage", "-", data=lines(before))
    many = [another(before[0], f"bulk{number}") for number in range(400)]
    for _ in range(4):
        with subprocess.Popen(
            [COMMAND, "register", "--insecure-storage", "-"],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=machine.env(),
        ) as process:
            assert process.stdin is not None
            process.stdin.write(lines(many).encode())
            process.stdin.close()
            time.sleep(chance.uniform(0.1, 0.9))
            process.kill()
        listed = json.loads(machine.bbjwt("list", "--json").stdout)
        assert {"acme", "team1", "team2"} <= {name for one in listed for name in one["workspaces"]}
        # Each listed installation has its secret, because it can sign.
        (one,) = random.Random(6).sample(listed, 1)  # noqa: S311  # no key
        assert machine.bbjwt("jwt", one["workspaces"][0]).stdout.count(".") == 2
    machine.bbjwt("register", "--insecure-storage", "-", data=lines(many))
    assert len(known(machine)) == 403
    machine.bbjwt("unregister", "--all")
    assert not registry_of(machine).exists()


def test_kill_while_unregistering_all_leaves_no_secret_without_an_entry(unregistered: Workspace) -> None:
    machine = unregistered.machine
    many = payloads(unregistered, 400)
    chance = random.Random(9)  # noqa: S311  # moments, not keys
    secrets = registry_of(machine).parent / "shared-secrets"
    for _ in range(2):
        machine.bbjwt("register", "--insecure-storage", "-", data=lines(many))
        with subprocess.Popen(
            [COMMAND, "unregister", "--all"], stderr=subprocess.DEVNULL, env=machine.env()
        ) as process:
            time.sleep(chance.uniform(0.1, 0.5))
            process.kill()
        entries = [json.loads(one.read_bytes()) for one in entries_of(machine)]
        kept = {one.name for one in secrets.iterdir()} if secrets.exists() else set()
        assert kept <= {digest(one["clientKey"]) for one in entries}
    machine.bbjwt("unregister", "--all")
    assert not registry_of(machine).exists()
    assert not secrets.exists()


# The registry as a folder.


def test_other_installations_are_not_read(unregistered: Workspace) -> None:
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=lines(payloads(unregistered, 20)))
    for entry in entries_of(unregistered.machine):
        if entry.name != "acme":
            entry.write_text("{ broken")

    assert "password" in answer(unregistered.get())
    assert "broken" in unregistered.machine.bbjwt("list", check=False).stderr
    other = unregistered.machine.get(f"{unregistered.bitbucket.base_url}/team1/x", check=False)
    assert other.stdout == "quit=1\n"


def test_registering_another_workspace_does_not_slow_cached_answers(unregistered: Workspace) -> None:
    many = payloads(unregistered, 2)
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(many[0]))
    unregistered.get()
    assert "git_credential_bbjwt.getting.obtain" not in unregistered.machine.imports_of("get", unregistered.url)
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(many[1]))
    unregistered.machine.bbjwt("unregister", "team1")
    assert "git_credential_bbjwt.getting.obtain" not in unregistered.machine.imports_of("get", unregistered.url)
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(many[0]))
    assert "git_credential_bbjwt.getting.obtain" in unregistered.machine.imports_of("get", unregistered.url)


def test_a_workspace_is_found_by_its_uuid(unregistered: Workspace) -> None:
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=lines(payloads(unregistered, 3)))
    url = f"{unregistered.bitbucket.base_url}/{unregistered.app.workspace_uuid}/{unregistered.widgets.uuid}"

    assert "password" in answer(unregistered.machine.get(url))


@pytest.mark.parametrize("words", [["register", "--insecure-storage", "-"], ["unregister", "acme"]])
def test_entry_that_others_can_write_is_not_changed(unregistered: Workspace, words: list[str]) -> None:
    data = lines(payloads(unregistered, 1))
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=data)
    (entry,) = entries_of(unregistered.machine)
    before = entry.read_bytes()
    entry.chmod(0o606)
    done = unregistered.machine.bbjwt(*words, data=data, check=False)

    assert done.returncode == 1
    assert f"chmod go-w {entry}" in done.stderr
    assert entry.read_bytes() == before


def test_process_that_was_stopped_too_long_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    registry = RegistryFolder(system=False)
    new = Installation("key", CLOUD_BASE_URL, CLOUD_API_URL, registry.path, workspaces=("acme",))
    with registry.changing() as change:
        change.put([new])
        os.unlink(f"{registry.config_folder}/installations.lock")  # Another process has taken it over.
        with pytest.raises(InstallationError, match="was stopped for so long"):
            change.commit()

    assert list(registry) == []


def test_pointer_without_an_entry_is_ignored(unregistered: Workspace) -> None:
    """A process that was killed before it wrote the entry leaves a pointer."""
    machine = unregistered.machine
    machine.bbjwt("register", "--insecure-storage", "-", data=lines(payloads(unregistered, 2)))
    (folder,) = registry_of(machine).iterdir()
    for name, slugs in (
        (unregistered.app.workspace_uuid, "acme\nnowhere\n../../x\nteam1\n"),
        ("{00000000-0000-0000-0000-000000000000}", "acme\nnowhere\n"),
    ):
        (folder / name).write_text(slugs)
        (folder / name).chmod(0o600)
    url = f"{unregistered.bitbucket.base_url}/{unregistered.app.workspace_uuid}/{unregistered.widgets.uuid}"

    assert "password" in answer(machine.get(url))
    assert (
        machine.get(url.replace(unregistered.app.workspace_uuid, "{00000000-0000-0000-0000-000000000000}")).stdout == ""
    )
    machine.bbjwt("unregister", "acme")
    assert known(machine) == {"team1"}
    assert machine.get(url).stdout == ""
    machine.bbjwt("unregister", "--all")
    assert not registry_of(machine).exists()


@pytest.mark.parametrize("host", ["..", ".", "../installations", "bitbucket.org/..", "a" * 300, "\x7f", "a=b"])
def test_request_for_a_strange_host_is_foreign(unregistered: Workspace, host: str) -> None:
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(payloads(unregistered, 1)[0]))
    done = unregistered.machine.bbjwt("get", data=f"protocol=https\nhost={host}\npath=acme/widgets\n\n")

    assert (done.stdout, done.stderr) == ("", "")


def test_renamed_workspace_is_registered_only_under_its_new_name(unregistered: Workspace) -> None:
    old = payloads(unregistered, 1)[0]
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(old))
    renamed = old | {"principal": old["principal"] | {"username": "acme-labs"}}
    unregistered.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(renamed))

    assert known(unregistered.machine) == {"acme-labs"}
    assert "password" not in unregistered.get().stdout
    unregistered.machine.bbjwt("unregister", "acme-labs")
    assert list(unregistered.machine.home.glob(".config/git-credential-bbjwt/*")) == []


@pytest.mark.parametrize("uuid", [True, False])
def test_one_payload_for_two_workspaces_keeps_its_secret_until_the_last_is_gone(
    unregistered: Workspace, uuid: bool
) -> None:
    payload = payloads(unregistered, 1)[0] | {"clientKey": "connection:1234"}
    payload["principal"] = {"type": "user"} | ({"uuid": unregistered.app.workspace_uuid} if uuid else {})
    both = ["--workspace=acme", "--workspace=beta"]
    unregistered.machine.bbjwt("register", "--insecure-storage", *both, "-", data=json.dumps(payload))

    assert known(unregistered.machine) == {"acme", "beta"}
    unregistered.machine.bbjwt("unregister", "acme")
    assert known(unregistered.machine) == {"beta"}
    assert unregistered.machine.bbjwt("jwt", "beta").stdout.count(".") == 2
    unregistered.machine.bbjwt("unregister", "beta")
    assert list(unregistered.machine.home.glob(".config/git-credential-bbjwt/*")) == []


# token for many.


def many_repositories(acme: Workspace, count: int) -> list[str]:
    """The URLs of ``count`` repositories; one bare repository is behind all of them."""
    for number in range(count):
        acme.bitbucket.host_repository(f"acme/many{number}", path=acme.widgets.path)
    return [f"{acme.bitbucket.base_url}/acme/many{number}" for number in range(count)]


def test_tokens_of_many_urls_in_their_order_over_few_connections(acme: Workspace) -> None:
    urls = many_repositories(acme, 60)
    done = acme.machine.bbjwt("token", "-", "--format", "json", data="\n".join(urls))
    printed = [json.loads(line) for line in done.stdout.splitlines()]

    assert [one["repository"] for one in printed] == [f"acme/many{number}" for number in range(60)]
    assert len({one["token"] for one in printed}) == 60
    assert all(acme.bitbucket.tokens[one["token"]].repository == one["uuid"] for one in printed)
    assert len(acme.bitbucket.helper_requests()) == 120
    assert acme.bitbucket.connections <= 64  # 32 mints at once, each to two hosts.
    # The next time, they come from the cache.
    again = acme.machine.bbjwt("token", *urls[:3]).stdout.split()
    assert again == [one["token"] for one in printed[:3]]
    assert len(acme.bitbucket.helper_requests()) == 120


def test_a_url_that_fails_is_an_empty_line_and_exit_1(acme: Workspace) -> None:
    urls = [acme.url, f"{acme.bitbucket.base_url}/acme/nothing", "https://user:pass-word@nowhere.invalid/a/b", acme.url]
    done = acme.machine.bbjwt("token", *urls, check=False)
    first, *rest = done.stdout.split("\n")

    assert done.returncode == 1
    assert first
    assert rest == ["", "", first, ""]
    assert "URL 2: " in done.stderr
    assert "URL 3: " in done.stderr
    assert "pass-word" not in done.stderr


def test_an_allowance_that_is_used_up_stops_them_all(acme: Workspace) -> None:
    urls = many_repositories(acme, 40)
    acme.machine.bbjwt("token", urls[0])
    used_up = Fault(status=429, body=b"Rate limit for this resource has been exceeded")
    acme.bitbucket.misbehave("api", *[used_up] * 200)
    done = acme.machine.bbjwt("token", *urls, check=False)

    assert done.returncode == 1
    assert [line != "" for line in done.stdout.splitlines()] == [True] + [False] * 39
    assert "stopped after 1 of 40 tokens" in done.stderr
    # The mints that run when the first is refused, each with one retry.
    assert len(acme.bitbucket.helper_requests()) <= 2 + 32 * 2


# The token cache.


def test_expired_records_are_removed_a_few_at_a_time(acme: Workspace) -> None:
    acme.machine.bbjwt("token", *many_repositories(acme, 50))
    for record in acme.machine.records():
        os.utime(record, (time.time() - 5, time.time() - 5))
    leftover = acme.machine.records()[0].with_name("a,b,c,d,~new")
    leftover.write_text("")
    os.utime(leftover, (1, 1))
    precious = leftover.with_name("notes")
    precious.write_text("")
    os.utime(precious, (1, 1))
    for _ in range(40):
        acme.get("--scope=repository")
        acme.machine.bbjwt("erase", data=request(acme.url) + "\n")
        if acme.machine.records() == [precious] and not leftover.exists():
            break

    assert acme.machine.records() == [precious]
    assert not leftover.exists()
