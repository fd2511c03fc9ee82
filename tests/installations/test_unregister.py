"""`unregister` and `list`: an entry stays as long as its secret is stored, and everything registered is shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Machine, Workspace, answer, registry_of
from tests.growth import another
from tests.installations.test_register import consumer_of, listed, register

#: A backend that stores secrets in a file, and cannot be reached while the file "closed" is there.
BACKEND = """
import json, os, time
from keyring.backend import KeyringBackend
from keyring.errors import KeyringError, PasswordDeleteError
FILE = os.path.expanduser("~/backend.json")
class Backend(KeyringBackend):
    priority = 9
    def _all(self, change=None):
        if os.path.exists(os.path.expanduser("~/closed")):
            with open(os.path.expanduser("~/asked"), "a") as asked:
                asked.write("x")
            raise KeyringError("the store is closed")
        found = json.load(open(FILE)) if os.path.exists(FILE) else {}
        if change:
            found.update(change)
            json.dump({key: value for key, value in found.items() if value}, open(FILE, "w"))
        return found
    def get_password(self, service, username):
        return self._all().get(username)
    def set_password(self, service, username, password):
        self._all({username: password})
    def delete_password(self, service, username):
        if not self._all().get(username):
            raise PasswordDeleteError("not found")
        self._all({username: ""})
"""


@pytest.fixture
def with_keyring(unregistered: Workspace) -> Workspace:
    """The same with a keyring backend that can be put out of reach."""
    home = unregistered.machine.home
    (home / "backends").mkdir()
    (home / "backends/backend_of_tests.py").write_text(BACKEND)
    (home / ".config/python_keyring").mkdir(parents=True)
    configuration = "[backend]\ndefault-keyring=backend_of_tests.Backend\n"
    (home / ".config/python_keyring/keyringrc.cfg").write_text(f"{configuration}keyring-path={home}/backends\n")
    return unregistered


def stored(machine: Machine) -> dict[str, str]:
    """The secrets in the keyring."""
    file = machine.home / "backend.json"
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found


def register_in_keyring(scene: Workspace, count: int) -> None:
    """Register ``count`` workspaces, acme's first, with their secrets in the keyring."""
    first = scene.bitbucket.payload(scene.app)
    many = [first, *(another(first, f"team{number}") for number in range(1, count))]
    scene.machine.bbjwt("register", "-", data=json.dumps(many))


def test_keyring_out_of_reach_keeps_the_entry(with_keyring: Workspace) -> None:
    machine = with_keyring.machine
    register_in_keyring(with_keyring, 1)
    (machine.home / "closed").touch()
    for words in (("acme",), ("--all",)):
        done = machine.bbjwt("unregister", *words, check=False)
        assert done.returncode == 1
        assert "hint: " in done.stderr
        assert len(listed(machine)) == 1
    (machine.home / "closed").unlink()

    assert machine.bbjwt("unregister", "--all").stderr == "git-credential-bbjwt: unregistered 1 of 1 installations\n"
    assert (stored(machine), registry_of(machine).exists()) == ({}, False)


def test_all_counts_and_names_what_stays(with_keyring: Workspace) -> None:
    machine = with_keyring.machine
    register_in_keyring(with_keyring, 2)
    (entry,) = registry_of(machine).glob("*/team1")
    for number in range(28):  # Copying is faster, because the command starts a keyring's process for each installation.
        copy = entry.with_name(f"copy{number}")
        client_key = json.loads(entry.read_text())["clientKey"]
        copy.write_text(entry.read_text().replace("team1", copy.name).replace(client_key, f"{client_key}{number}"))
        copy.chmod(0o600)
    register(with_keyring, payload=consumer_of(with_keyring))  # Its secret is in a file.
    (machine.home / "closed").touch()
    done = machine.bbjwt("unregister", "--all", check=False)

    assert done.returncode == 1
    assert "unregistered 1 of 31 installations" in done.stderr
    assert "and 10 more" in done.stderr
    # A keyring that cannot be reached is not asked for each installation.
    assert len((machine.home / "asked").read_text()) < 10
    assert len(listed(machine)) == 30


def test_unregistering_all_without_installations_succeeds(machine: Machine) -> None:
    for _ in range(2):
        assert "unregistered 0 of 0" in machine.bbjwt("unregister", "--all").stderr


def test_entry_without_its_secret_is_unregistered(with_keyring: Workspace) -> None:
    """A process that was killed after it removed the secret leaves the entry."""
    machine = with_keyring.machine
    register_in_keyring(with_keyring, 1)
    (machine.home / "backend.json").unlink()

    machine.bbjwt("unregister", "acme")
    assert listed(machine) == []


def test_unregistering_all_removes_secret_files_without_an_entry(unregistered: Workspace) -> None:
    """A process that was killed before it wrote the entry leaves the file."""
    register(unregistered)
    secrets = registry_of(unregistered.machine).parent / "shared-secrets"
    (secrets / ("0f" * 16)).write_text("left behind")
    (secrets / ("0e" * 16 + "~new")).write_text("left behind")
    (secrets / "notes").write_text("of a person")
    unregistered.machine.bbjwt("unregister", "--all")

    assert [path.name for path in secrets.iterdir()] == ["notes"]


def test_secret_file_that_cannot_be_removed_keeps_its_entry(unregistered: Workspace) -> None:
    register(unregistered)
    secrets = registry_of(unregistered.machine).parent / "shared-secrets"
    secrets.chmod(0o755)
    for words in (("acme",), ("--all",)):
        done = unregistered.machine.bbjwt("unregister", *words, check=False)
        assert done.returncode == 1
        assert "chmod 700" in done.stderr
        assert len(listed(unregistered.machine)) == 1


def test_secret_files_that_cannot_be_removed_do_not_keep_the_entries_of_the_keyring(with_keyring: Workspace) -> None:
    machine = with_keyring.machine
    first = with_keyring.bitbucket.payload(with_keyring.app)
    register(with_keyring, payload=[another(first, f"team{number}") for number in range(3)])
    machine.bbjwt("register", "-", data=json.dumps(another(first, "zebra")))
    (registry_of(machine).parent / "shared-secrets").chmod(0o755)
    done = machine.bbjwt("unregister", "--all", check=False)

    assert "unregistered 1 of 4 installations" in done.stderr
    assert [one["workspaces"] for one in listed(machine)] == [["team0"], ["team1"], ["team2"]]
    assert stored(machine) == {}


def test_entry_of_the_system_registry_is_named_with_its_option(unregistered: Workspace) -> None:
    register(unregistered, "--system")
    done = unregistered.machine.bbjwt("unregister", "acme", check=False)

    assert done.returncode == 1
    assert "git-credential-bbjwt unregister acme --system" in done.stderr
    unregistered.machine.bbjwt("unregister", "acme", "--system")
    assert listed(unregistered.machine) == []


@pytest.mark.parametrize("workspace", ["../installations", "a/b", "{00000000-0000-0000-0000-000000000000}", "..", " "])
def test_strange_workspaces_are_not_registered(unregistered: Workspace, workspace: str) -> None:
    register(unregistered)
    done = unregistered.machine.bbjwt("unregister", workspace, check=False)

    assert done.returncode == 1
    assert "no installation is registered" in done.stderr
    assert len(listed(unregistered.machine)) == 1


def test_app_and_consumer_of_a_workspace_need_a_choice(unregistered: Workspace) -> None:
    register(unregistered)
    register(unregistered, payload=consumer_of(unregistered))
    done = unregistered.machine.bbjwt("unregister", "acme", check=False)

    assert done.returncode == 1
    for text in (f"app {unregistered.app.key}", "OAuth consumer consumer-1", "--app KEY"):
        assert text in done.stderr
    unregistered.machine.bbjwt("unregister", "acme", "--app", unregistered.app.key)
    assert [one["kind"] for one in listed(unregistered.machine)] == ["oauth-consumer"]


# list.


def test_list_says_which_of_two_consumers_is_used(unregistered: Workspace) -> None:
    for key in ("consumer-1", "consumer-2", "consumer-0"):
        register(unregistered, payload=consumer_of(unregistered, key=key))
    register(
        unregistered, payload=consumer_of(unregistered, key="consumer-1")
    )  # Registered again, so it is the newest.
    lines = unregistered.machine.bbjwt("list").stdout.splitlines()

    assert [line.split("\t")[1] for line in lines] == ["consumer-1", "consumer-0", "consumer-2"]
    assert ["consumer-1 was registered later" in line for line in lines] == [False, True, True]
    assert "opens every repository of the workspace" in lines[0]
    register(unregistered)
    register(unregistered, "--after-connect", payload=consumer_of(unregistered, key="successor"))
    assert [one["app"] for one in listed(unregistered.machine)] == [
        unregistered.app.key,
        "consumer-1",
        "consumer-0",
        "consumer-2",
        "successor",
    ]
    said = unregistered.machine.bbjwt("doctor", check=False).stdout
    assert said.count("is not used: OAuth consumer consumer-1 was registered later") == 2


def test_list_is_a_sorted_table_on_a_terminal(unregistered: Workspace) -> None:
    first = unregistered.bitbucket.payload(unregistered.app)
    many = [another(first, "zebra"), first, another(first, "a-workspace-with-a-long-name")]
    register(unregistered, payload=many)
    header, *rows = unregistered.machine.at_terminal("list", with_errors=False).splitlines()

    assert header.split() == ["WORKSPACE", "APP", "BASE", "URL", "SECRET"]
    assert [row.split()[0] for row in rows] == ["a-workspace-with-a-long-name", "acme", "zebra"]
    assert {row.index(unregistered.app.key) for row in rows} == {header.index("APP")}
    assert {row.index("secret") for row in rows} == {header.index("SECRET")}
    piped = unregistered.machine.bbjwt("list").stdout.splitlines()
    assert [line.split("\t")[0] for line in piped] == [row.split()[0] for row in rows]


def test_list_of_nothing_has_no_header(machine: Machine) -> None:
    assert machine.at_terminal("list", with_errors=False) == ""


def test_list_shows_injected_pairs(unregistered: Workspace) -> None:
    both = {"clientInfo": unregistered.bitbucket.payload(unregistered.app)} | consumer_of(unregistered)
    unregistered.machine.environment["BBJWT_INSTALLATION"] = json.dumps(both)

    assert [(one["kind"], one["after_connect"]) for one in listed(unregistered.machine)] == [
        ("connect", False),
        ("oauth-consumer", True),
    ]
    assert "the-consumers-secret" not in unregistered.machine.bbjwt("list").stdout
    assert "password" in answer(unregistered.get())
    shutil.rmtree(Path(unregistered.machine.environment["XDG_RUNTIME_DIR"]) / "git-credential-bbjwt")


@pytest.mark.parametrize("jwt", ["BBJWT_JWT", "BBJWT_JWT_FILE"])
def test_jwt_and_injected_consumer_exclude_each_other(unregistered: Workspace, jwt: str) -> None:
    register(unregistered)
    value = unregistered.machine.bbjwt("jwt", "acme").stdout.strip()
    file = unregistered.machine.home / "jwt"
    file.write_text(value)
    file.chmod(0o600)
    also = {jwt: str(file) if jwt.endswith("FILE") else value}
    done = unregistered.get(check=False, also=also, BBJWT_INSTALLATION=json.dumps(consumer_of(unregistered)))

    assert (done.returncode, done.stdout) == (1, "quit=1\n")
    assert "BBJWT_INSTALLATION" in done.stderr
    assert (jwt if jwt == "BBJWT_JWT" else str(file)) in done.stderr
    assert unregistered.bitbucket.seen == []
    app = unregistered.bitbucket.payload(unregistered.app) | {"sharedSecret": ""}
    assert "password" in answer(unregistered.get(also=also, BBJWT_INSTALLATION=json.dumps(app)))
