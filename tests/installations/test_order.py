"""The order of sources, and of Connect apps and OAuth consumers in them."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from git_credential_bbjwt.commands.command_line import COMMANDS
from git_credential_bbjwt.core.failures import InstallationError
from git_credential_bbjwt.core.files import site_config_folder, user_config_folder
from git_credential_bbjwt.core.on_demand import BrokerSource, OnDemandSource
from git_credential_bbjwt.core.option_table import OPTIONS
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.core.source import REGISTRY_FOLDER
from git_credential_bbjwt.core.sources import VARIABLES, Sources, read_sources
from git_credential_bbjwt.installations.catalogue import Catalogue, chosen
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.vendors.choice import vendor_for
from git_credential_bbjwt.vendors.session import Session
from tests.conftest import Workspace, answer
from tests.installations.test_payload import APP, CONSUMER, UUID
from tests.installations.test_register import register
from tests.options import MAN_PAGE

ACME = Repository("bitbucket.org", "acme", "widgets")


def consumer(key: str = "consumer", *, after: bool = False, **changes: Any) -> dict[str, Any]:
    """An OAuth consumer of acme."""
    return {"oauthConsumer": CONSUMER | {"key": key, "afterConnect": after} | changes}


def catalogue_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, sources: dict[str, object], **options: Any
) -> Catalogue:
    """Return the catalogue of a machine with these sources."""
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "etc"))
    for name in ("BBJWT_INSTALLATION", "CREDENTIALS_DIRECTORY", "BBJWT_INSTALLATION_COMMAND", "BBJWT_JWT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in sources.items():
        text = value if isinstance(value, str) else json.dumps(value)
        if name == "option":
            path = tmp_path / "option.json"
            path.write_text(text)
            path.chmod(0o600)
            options["installation"] = str(path)
        elif name == "systemd":
            (tmp_path / "bbjwt-installation").write_text(text)
            (tmp_path / "bbjwt-installation").chmod(0o600)
            monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        else:
            monkeypatch.setenv(name, text)
    return Catalogue(read_sources(HelperOptions().replaced(**options)))


def order(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    sources: dict[str, object],
    app: str = "",
    repository: Repository = ACME,
) -> list[str]:
    """Return the keys of those that are asked for ``repository``, in their order."""
    catalogue = catalogue_of(monkeypatch, tmp_path, sources)
    return [
        one.kind if isinstance(one, OnDemandSource) else one.app_key for one in catalogue.candidates(repository, app)
    ]


BOTH = {"clientInfo": APP} | consumer()
VARIABLE, COMMAND = "BBJWT_INSTALLATION", "BBJWT_INSTALLATION_COMMAND"


@pytest.mark.parametrize(
    ("sources", "app", "expected"),
    [
        ({"option": APP}, "", ["app"]),
        ({"option": consumer()}, "", ["consumer"]),
        # Within a source, the app comes first, and the consumer is its successor.
        ({"option": BOTH}, "", ["app", "consumer"]),
        ({"option": BOTH}, "app", ["app", "consumer"]),
        ({"option": BOTH}, "consumer", ["consumer"]),
        # The first source that serves the workspace is used.
        ({"option": consumer(), VARIABLE: APP}, "", ["consumer"]),
        ({"option": APP, VARIABLE: consumer()}, "", ["app"]),
        ({"option": APP, VARIABLE: consumer()}, "consumer", ["consumer"]),
        ({"option": consumer(workspace="beta"), VARIABLE: APP}, "", ["app"]),
        # A marked consumer comes after all apps, whatever its source.
        ({"option": consumer(after=True), VARIABLE: APP}, "", ["app", "consumer"]),
        ({"option": consumer(after=True), "systemd": APP}, "", ["app", "consumer"]),
        ({"option": APP, "systemd": consumer(after=True)}, "", ["app", "consumer"]),
        ({"option": APP, "systemd": consumer(after=True)}, "app", ["app", "consumer"]),
        ({"option": consumer(after=True), VARIABLE: APP}, "consumer", ["consumer"]),
        ({"option": consumer(after=True)}, "", ["consumer"]),
        ({"option": consumer("first", after=True), VARIABLE: consumer("second", after=True)}, "", ["first"]),
        ({"option": consumer("first", after=True), VARIABLE: consumer("second")}, "", ["second"]),
        # A command is asked first. The next source answers if the command prints nothing.
        ({COMMAND: "true", "systemd": APP}, "", ["command", "app"]),
        ({"option": APP, COMMAND: "true"}, "", ["app"]),
        ({COMMAND: "true", "option": consumer(after=True)}, "", ["command", "consumer"]),
        ({COMMAND: "true", "systemd": BOTH}, "", ["command", "app", "consumer"]),
        # A source that cannot be used matters if nothing comes before it.
        ({"option": APP, VARIABLE: "{"}, "", ["app"]),
        ({"option": consumer(after=True), VARIABLE: APP, "systemd": "{"}, "", ["app", "consumer"]),
    ],
)
def test_order_of_sources(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, sources: dict[str, object], app: str, expected: list[str]
) -> None:
    assert order(monkeypatch, tmp_path, sources, app) == expected


def test_unusable_source_that_comes_first_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with pytest.raises(InstallationError):
        order(monkeypatch, tmp_path, {"option": "{", VARIABLE: APP})


@pytest.mark.parametrize(
    ("sources", "app", "keys"),
    [
        ({"option": BOTH, VARIABLE: consumer("second")}, "neither", "app, consumer, second"),
        ({"option": consumer(after=True)}, "app", "consumer"),
    ],
)
def test_key_of_no_installation_of_the_workspace_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, sources: dict[str, object], app: str, keys: str
) -> None:
    with pytest.raises(InstallationError, match=f"--app; it has {keys}$"):
        order(monkeypatch, tmp_path, sources, app)


SLUGLESS = APP | {"key": "personal", "clientKey": "connection:1", "principal": {"type": "user"}}


@pytest.mark.parametrize(
    ("sources", "certain"),
    [
        ({"option": APP}, True),
        ({"option": SLUGLESS}, False),
        ({COMMAND: "true"}, True),
        ({"option": SLUGLESS, "systemd": consumer(after=True)}, True),
        ({COMMAND: "true", "systemd": SLUGLESS}, False),
    ],
)
def test_last_source_decides_whether_an_answer_is_certain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, sources: dict[str, object], certain: bool
) -> None:
    catalogue = catalogue_of(monkeypatch, tmp_path, sources)
    assert catalogue.is_certain(catalogue.candidates(ACME, ""), ACME) == certain


@pytest.mark.parametrize(
    ("sources", "workspace", "app", "expected"),
    [
        ({"option": APP}, "acme", "", "app"),
        ({"option": APP}, "beta", "", None),
        ({"option": APP}, "acme", "other", None),
        ({"option": SLUGLESS}, "beta", "", "personal"),
        ({"option": BOTH}, "acme", "", "app"),
        ({"option": BOTH}, "acme", "consumer", "consumer"),
        ({"option": consumer(), VARIABLE: APP}, "acme", "", "consumer"),
        ({"option": consumer(after=True), VARIABLE: APP}, "acme", "", "app"),
        ({"option": consumer("first", after=True), VARIABLE: consumer("second", after=True)}, "acme", "", "first"),
        ({"option": consumer(after=True)}, "acme", "app", None),
        ({"option": consumer(workspace="beta"), VARIABLE: APP}, "acme", "", "app"),
    ],
)
def test_installation_of_a_workspace(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    sources: dict[str, object],
    workspace: str,
    app: str,
    expected: str | None,
) -> None:
    found = catalogue_of(monkeypatch, tmp_path, sources).choose_for_workspace(workspace, app)
    assert (None if found is None else found.app_key) == expected


JWT = "e30.e30.c2ln"


@pytest.mark.parametrize("text", [JWT, f" {JWT}\n", f"\ufeff{JWT}", f"\n\ufeff {JWT} "])
def test_jwt_replaces_every_injected_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, text: str) -> None:
    beta = APP | {"key": "beta", "principal": {"username": "beta"}}
    catalogue = catalogue_of(monkeypatch, tmp_path, {"option": APP, VARIABLE: beta, "BBJWT_JWT": text})

    assert [(one.app_key, one.jwt, one.shared_secret) for one in catalogue] == [("app", JWT, ""), ("beta", JWT, "")]
    alone = list(catalogue_of(monkeypatch, tmp_path, {"BBJWT_JWT": text}))
    assert [(one.base_url, one.workspaces, one.jwt) for one in alone] == [("https://bitbucket.org", (), JWT)]


@pytest.mark.parametrize("text", [" ", "ä", "a\tb", "\ufeff"])
def test_text_that_is_no_jwt_is_an_error_for_the_hosts_of_its_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, text: str
) -> None:
    elsewhere = APP | {"baseUrl": "https://git.example", "baseApiUrl": "https://api.example"}
    catalogue = catalogue_of(monkeypatch, tmp_path, {"option": elsewhere, "BBJWT_JWT": text})

    assert [catalogue.names_host(host) for host in ("git.example", "other.example")] == [True, False]
    with pytest.raises(InstallationError, match="BBJWT_JWT"):
        catalogue.candidates(Repository("git.example", "acme", "widgets"), "")


def test_hosts_are_those_of_installations_and_of_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    elsewhere = APP | {"baseUrl": "https://git.example", "baseApiUrl": "https://api.example"}
    sources: dict[str, object] = {VARIABLE: elsewhere, COMMAND: "true"}
    catalogue = catalogue_of(monkeypatch, tmp_path, sources, hosts=("one.example", "git.example"))

    assert catalogue.hosts() == ["git.example", "one.example"]
    assert [one.hosts for one in catalogue.to_ask()] == [("one.example", "git.example")]


def test_two_apps_need_a_choice() -> None:
    (one,), (other,) = parse_payload(json.dumps(APP).encode(), "A"), parse_payload(json.dumps(SLUGLESS).encode(), "B")

    assert chosen([one, other], "acme", "personal") == other
    with pytest.raises(InstallationError, match="app, personal"):
        chosen([one, other], "acme", "")


def test_consumer_without_a_uuid_serves_no_request_by_uuid(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    by_uuid = Repository("bitbucket.org", UUID, "widgets")

    assert order(monkeypatch, tmp_path, {"option": consumer()}, repository=by_uuid) == []
    assert order(monkeypatch, tmp_path, {"option": consumer(workspaceUuid=UUID)}, repository=by_uuid) == ["consumer"]
    assert order(monkeypatch, tmp_path, {"option": BOTH}, repository=by_uuid) == ["app"]


@pytest.mark.parametrize("host", ["bitbucket.org.", "bitbucket.org:8443", "api.bitbucket.org", "x.bitbucket.org"])
def test_consumer_serves_no_other_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, host: str) -> None:
    elsewhere = Repository(host, "acme", "widgets")

    assert order(monkeypatch, tmp_path, {"option": consumer()}, repository=elsewhere) == []


def test_last_registered_consumer_is_used(acme: Workspace) -> None:
    first, second = acme.bitbucket.add_consumer(), acme.bitbucket.add_consumer()
    for one in (first, second, first):
        register(acme, payload=acme.bitbucket.consumer_json(one))
    del acme.machine.environment["BBJWT_INSTALLATION"]
    asked = []
    for options in ([], ["--app", second.key], ["--app", first.key]):
        assert "password" in answer(acme.get("--token-store=none", *options))
        basic = acme.bitbucket.helper_requests()[-1].headers["Authorization"].removeprefix("Basic ")
        asked.append(base64.b64decode(basic).decode().partition(":")[0])

    assert asked == [first.key, second.key, first.key]


class EveryVariable(dict[str, str]):
    """An environment in which each of the helper's variables has a value. ``used`` has those that were read."""

    def __init__(self, variables: dict[str, str]) -> None:
        super().__init__(variables)
        self.used: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name.startswith("BBJWT_") else super().get(name, default)

    def __getitem__(self, name: str) -> str:
        if not name.startswith("BBJWT_"):
            return super().__getitem__(name)
        self.used.add(name)
        return "/missing"


@pytest.fixture
def all_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Sources, EveryVariable]:
    """The sources of a machine with every option, every variable, a credential of systemd and both registries."""
    for name, folder in (("XDG_CONFIG_HOME", "user"), ("XDG_CONFIG_DIRS", "system")):
        (tmp_path / folder / "git-credential-bbjwt" / REGISTRY_FOLDER).mkdir(parents=True)
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    environment = EveryVariable(dict(os.environ))
    monkeypatch.setattr(os, "environ", environment)
    given = {one.attribute: ("localhost",) if one.is_repeatable else "/missing" for one in OPTIONS.values()}
    return read_sources(HelperOptions().replaced(**given)), environment


def test_man_page_lists_every_source_in_its_order(all_sources: tuple[Sources, EveryVariable]) -> None:
    page = MAN_PAGE.read_text(encoding="utf-8").partition(".SH INSTALLATIONS\n")[2]
    text = re.sub(r"^\.BR? ", "", page, flags=re.MULTILINE).replace("\\-", "-").replace("\n", " ")
    listed = text.partition("serves the repository: ")[2].partition(". In one source")[0].split("; ")
    credentials = os.environ["CREDENTIALS_DIRECTORY"]
    folders = {
        f"{user_config_folder()}/{REGISTRY_FOLDER}": "the user registry",
        f"{site_config_folder()}/{REGISTRY_FOLDER}": "the system registry",
        f"{credentials}/bbjwt-installation": "the file bbjwt-installation in $CREDENTIALS_DIRECTORY",
    }

    names = [
        re.sub(r"^the file that (\S+) names$|^the variable |^the command of ", r"\1", one.where)
        for one in all_sources[0].sources
    ]
    assert [one.strip() for one in listed] == [folders.get(name, name) for name in names]


def test_variables_of_sources_are_listed(all_sources: tuple[Sources, EveryVariable]) -> None:
    # `doctor` reports those that are empty, and `exec` makes their paths absolute.
    assert all_sources[1].used <= set(VARIABLES)


@pytest.mark.parametrize("name", OPTIONS)
def test_list_takes_every_option_that_names_a_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str) -> None:
    given = {OPTIONS[name].attribute: ("localhost",) if OPTIONS[name].is_repeatable else "/missing"}
    asked = catalogue_of(monkeypatch, tmp_path, {}, **given)

    assert name in COMMANDS["list"].options or not (asked.to_ask() or asked.problems())


@pytest.mark.parametrize("kind", OnDemandSource.__subclasses__(), ids=lambda kind: kind.kind)
def test_every_source_that_is_asked_has_a_vendor(kind: type[OnDemandSource]) -> None:
    session = Session(Budget(1), TokenCache.open(create=False), for_person=True)
    of_broker = (None, None) if kind is BrokerSource else ()

    assert vendor_for(kind("here", "true", ("localhost",), *of_broker), session).identity
