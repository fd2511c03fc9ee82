"""OAuth consumers: one token for a workspace, cached once, replaced rarely, and never broader than allowed."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspace, answer, assert_quits, ends_within, files_holding, finish, request, start, state_of
from tests.emulator.model import CONSUMER_GRANT_TYPE, Consumer, HostedRepository

STATE = "capability[]=state\n"


class Scene:
    """A workspace with an OAuth consumer and without a Connect app."""

    def __init__(self, acme: Workspace) -> None:
        self.acme = acme
        self.machine = acme.machine
        self.bitbucket = acme.bitbucket
        self.consumer = acme.bitbucket.add_consumer()
        self.machine.environment.pop("BBJWT_INSTALLATION", None)

    def register(self, consumer: Consumer | None = None, *options: str, **changes: Any) -> None:
        """Register the consumer, with its secret in a file."""
        data = json.dumps(self.bitbucket.consumer_json(consumer or self.consumer, **changes))
        self.machine.bbjwt("register", "--insecure-storage", *options, "-", data=data)

    def inject(self, **changes: Any) -> None:
        """Provide the consumer in the variable."""
        self.machine.environment["BBJWT_INSTALLATION"] = json.dumps(
            self.bitbucket.consumer_json(self.consumer, **changes)
        )

    def requests(self) -> int:
        """Return the number of tokens that were requested for consumers."""
        return len(self.bitbucket.grants(CONSUMER_GRANT_TYPE))

    def token(self, *options: str, repository: HostedRepository | None = None, extra: str = "") -> str:
        """Return the token for acme/widgets, or for another repository."""
        url = self.acme.url if repository is None else self.bitbucket.url(repository)
        return answer(self.machine.get(url, *options, extra=extra))["password"]

    def erase(self, token: str | None, repository: HostedRepository | None = None) -> None:
        """Erase ``token`` as git does if the server refuses it."""
        url = self.acme.url if repository is None else self.bitbucket.url(repository)
        data = request(url) + "username=x-token-auth\n" + (f"password={token}\n" if token else "")
        assert self.machine.bbjwt("erase", data=data + "\n").stdout == ""

    def record(self) -> Path:
        """Return the file of the workspace's token."""
        (found,) = [path for path in self.machine.records() if b"opens=workspace" in path.read_bytes()]
        return found

    def age(self, seconds: int) -> None:
        """Make the workspace's token older by ``seconds``."""
        path = self.record()
        lines = path.read_text().splitlines(keepends=True)
        changed = [
            f"minted={int(one.partition('=')[2]) - seconds}\n" if one.startswith("minted=") else one for one in lines
        ]
        kept = path.stat()
        path.write_text("".join(changed))
        os.utime(path, (kept.st_atime, kept.st_mtime))


@pytest.fixture
def scene(acme: Workspace) -> Scene:
    """A workspace with an OAuth consumer that is not registered yet."""
    return Scene(acme)


def test_many_repositories_and_processes_make_one_request(scene: Scene) -> None:
    scene.register()
    urls = [f"{scene.bitbucket.base_url}/acme/module{number}.git" for number in range(16)]
    running = [start(scene.machine, url) for url in urls]

    assert len({finish(process) for process in running}) == 1
    assert scene.requests() == len(scene.bitbucket.helper_requests()) == 1
    # One revocation causes one more request.
    old = scene.token()
    scene.bitbucket.revoke_tokens()
    scene.age(60)
    scene.erase(old)
    running = [start(scene.machine, url) for url in urls[:8]]
    (new,) = {finish(process) for process in running}
    assert old.encode() not in new
    assert scene.requests() == 2


def test_consumer_in_a_file_that_others_can_read_gets_a_warning(scene: Scene) -> None:
    scene.acme.installation.write_text(json.dumps(scene.bitbucket.consumer_json(scene.consumer)))
    scene.acme.installation.chmod(0o644)
    done = scene.machine.get(scene.acme.url, BBJWT_INSTALLATION=str(scene.acme.installation))

    assert f"others on this machine can read {scene.acme.installation}" in done.stderr


def test_request_has_basic_authentication_and_only_the_grant(scene: Scene) -> None:
    scene.register()
    scene.token()
    (seen,) = scene.bitbucket.helper_requests()

    assert seen.headers["Authorization"].startswith("Basic ")
    assert seen.form == {"grant_type": "client_credentials"}


def test_git_clones_every_repository_of_the_workspace(scene: Scene) -> None:
    scene.register()
    gadgets = scene.bitbucket.host_repository("acme/gadgets")
    for url in (scene.acme.url, scene.bitbucket.url(gadgets)):
        scene.machine.git("clone", "-q", url)

    assert scene.requests() == 1


def test_cached_answer_of_a_consumer_loads_few_modules(scene: Scene) -> None:
    scene.register()
    scene.token()
    time.sleep(0.1)  # The registry's files must be old enough for their times to be reliable.
    scene.token()

    assert "git_credential_bbjwt.getting.obtain" not in scene.machine.imports_of("get", scene.acme.url)
    assert scene.requests() == 1


@pytest.mark.parametrize("how", ["injected", "command", "store none"])
def test_token_is_not_kept(scene: Scene, how: str, tmp_path: Path, shared_memory: Path) -> None:
    options: tuple[str, ...] = ()
    if how == "store none":
        scene.register()
        options = ("--token-store=none",)
    else:
        scene.inject()
    if how == "command":
        (scene.machine.home / "payload").write_text(scene.machine.environment.pop("BBJWT_INSTALLATION"))
        options = (f"--installation-command=cat {scene.machine.home}/payload", f"--host={scene.bitbucket.host}")
    first = scene.token(*options)

    assert scene.token(*options) != first
    assert scene.requests() == 2
    assert files_holding(tmp_path, first) == files_holding(shared_memory.parent, first) == []


def test_token_is_not_kept_in_memory_shared_by_containers(scene: Scene, tmp_path: Path, shared_memory: Path) -> None:
    scene.register()
    scene.machine.runtime.rmdir()
    first = scene.token()

    assert files_holding(tmp_path, first) == files_holding(shared_memory.parent, first) == []
    assert scene.token() != first


def test_nobody_waits_for_killed_processes(scene: Scene) -> None:
    scene.register()
    chance = random.Random(7)  # noqa: S311  # moments, not keys
    urls = [f"{scene.bitbucket.base_url}/acme/module{number}.git" for number in range(4)]
    for _ in range(3):
        scene.machine.bbjwt("forget", "--all")
        running = [start(scene.machine, url) for url in urls]
        for process in running:
            time.sleep(chance.uniform(0, 0.06))
            process.kill()
        for process in running:
            finish(process)
        with ends_within(5):
            assert scene.token()
        assert scene.record().read_bytes().endswith(b"\nend\n")


# Scopes.


def test_consumer_with_more_scopes_than_requested_is_an_error(scene: Scene) -> None:
    scene.consumer.scopes = {"repository:write"}
    scene.register()
    first = scene.acme.get(check=False)

    assert_quits(first, "is broader than the scope repository", "Repositories: Read")
    assert_quits(scene.acme.get(check=False), "is broader than", "asks again in")
    assert scene.requests() == 1
    assert scene.machine.records() == []


def test_broader_token_that_another_call_cached_is_not_used(scene: Scene) -> None:
    scene.consumer.scopes = {"repository:write"}
    scene.register()
    wide = scene.token("--scope=repository:write")

    assert_quits(scene.acme.get(check=False), "is broader than the scope repository")
    assert scene.token("--scope=repository:write") == wide
    assert scene.requests() == 1


def test_response_without_a_scope_is_an_error(scene: Scene) -> None:
    scene.bitbucket.rules.echoes_scope = False
    scene.register()

    assert_quits(scene.acme.get(check=False), "does not name the scope")


# Refusals by the token endpoint.


@pytest.mark.parametrize("fault", ["secret", "public"])
def test_refused_consumer_is_not_asked_again_for_30_seconds(scene: Scene, fault: str) -> None:
    if fault == "secret":
        scene.register(secret="another")
    else:
        scene.consumer.private = False
        scene.register()
    word = "does not accept the OAuth consumer's key and secret" if fault == "secret" else "private consumer"
    assert_quits(scene.acme.get(check=False), word)
    gadgets = scene.bitbucket.host_repository("acme/gadgets")
    again = scene.machine.get(scene.bitbucket.url(gadgets), check=False)

    assert_quits(again, word, "asks again in")
    assert scene.requests() == 1
    assert scene.machine.bbjwt("token", scene.acme.url, check=False).returncode == 1
    assert scene.requests() == 2  # A person's command tries again at once.


def test_hours_allowance_that_is_used_up_is_remembered(scene: Scene) -> None:
    from tests.emulator.model import RATE_LIMITED

    scene.register()
    scene.bitbucket.misbehave("token", *[RATE_LIMITED] * 2)
    scene.acme.get(check=False)
    before = scene.requests()
    assert_quits(scene.acme.get(check=False), "429")
    assert scene.requests() == before


# Refusals by git's server.


def test_young_token_stays_for_the_others_if_one_repository_refuses_it(scene: Scene) -> None:
    scene.register()
    gadgets = scene.bitbucket.host_repository("acme/gadgets")
    token = scene.token()
    scene.erase(token)

    assert_quits(scene.acme.get(check=False), "acme/widgets", "not there, or closed to the consumer")
    assert scene.token(repository=gadgets) == token
    assert scene.requests() == 1
    closed = next((scene.machine.runtime / "git-credential-bbjwt").glob("??/??/*~closed"))
    os.utime(closed, (time.time() - 31,) * 2)
    assert scene.token() == token


def test_state_that_names_a_young_token_closes_the_repository(scene: Scene) -> None:
    scene.register()
    gadgets = scene.bitbucket.host_repository("acme/gadgets")
    token = scene.token()
    state = state_of(scene.acme.get(extra=STATE))

    refused = scene.acme.get(extra=f"{STATE}{state}\n", check=False)
    assert_quits(refused, "not there, or closed to the consumer")
    assert_quits(scene.acme.get(check=False), "not there, or closed to the consumer")
    assert scene.token(repository=gadgets) == token
    assert scene.requests() == 1


@pytest.mark.parametrize("how", ["erase", "state"])
def test_old_token_is_replaced_once_for_all_repositories(scene: Scene, how: str) -> None:
    scene.register()
    gadgets = scene.bitbucket.host_repository("acme/gadgets")
    token = scene.token()
    state = state_of(scene.acme.get(extra=STATE))
    scene.age(61)
    if how == "erase":
        scene.erase(token)
        new = scene.token()
    else:
        new = scene.token(extra=f"{STATE}{state}\n")

    assert new != token
    assert scene.token(repository=gadgets) == scene.token() == new
    assert scene.requests() == 2


def test_workspaces_token_is_replaced_five_times_in_five_minutes(scene: Scene) -> None:
    scene.register()
    tokens = [scene.token()]
    for _ in range(5):
        scene.age(61)
        scene.erase(tokens[-1])
        tokens.append(scene.token())
    assert len(set(tokens)) == 6
    scene.age(61)
    scene.erase(tokens[-1])

    assert_quits(scene.acme.get(check=False), "not there, or closed to the consumer")
    assert scene.token(repository=scene.bitbucket.host_repository("acme/gadgets")) == tokens[-1]
    assert scene.requests() == 6


@pytest.mark.parametrize("how", ["erase without a password", "forget"])
def test_user_can_drop_the_token(scene: Scene, how: str) -> None:
    scene.register()
    token = scene.token()
    if how == "forget":
        scene.machine.bbjwt("forget", scene.acme.url)
    else:
        scene.erase(None)

    assert scene.token() != token


def test_url_with_the_workspaces_uuid_shares_the_token_and_heals(scene: Scene) -> None:
    scene.register(workspaceUuid=scene.consumer.workspace_uuid)
    token = scene.token()
    url = f"{scene.bitbucket.base_url}/{scene.consumer.workspace_uuid}/{scene.acme.widgets.uuid}"
    assert answer(scene.machine.get(url))["password"] == token
    scene.age(61)
    scene.machine.bbjwt("erase", data=request(url) + f"password={token}\n\n")

    assert answer(scene.machine.get(url))["password"] != token
    assert scene.requests() == 2


def test_unregistering_drops_the_token(scene: Scene) -> None:
    scene.register()
    scene.token()
    scene.machine.bbjwt("unregister", "acme")

    assert scene.machine.records() == []
    assert scene.acme.get().stdout == ""


# Several installations.


def test_connect_app_comes_before_a_consumer(scene: Scene) -> None:
    payload = json.dumps(scene.bitbucket.payload(scene.acme.app))
    scene.machine.bbjwt("register", "--insecure-storage", "-", data=payload)
    scene.register()

    assert scene.bitbucket.tokens[scene.token()].repository == scene.acme.widgets.uuid
    wide = scene.token(f"--app={scene.consumer.key}")
    assert scene.bitbucket.tokens[wide].repository is None


def test_newest_consumer_is_used_so_that_consumers_can_be_rotated(scene: Scene) -> None:
    scene.register()
    old = scene.token()
    time.sleep(0.05)
    newer = scene.bitbucket.add_consumer()
    scene.register(newer)

    assert scene.bitbucket.tokens[scene.token()].consumer == newer.key
    assert scene.bitbucket.tokens[scene.token(f"--app={scene.consumer.key}")].consumer == scene.consumer.key
    scene.machine.bbjwt("unregister", "acme", "--app", scene.consumer.key)
    assert scene.bitbucket.tokens[scene.token()].consumer == newer.key
    assert old != scene.token()


def test_token_is_never_used_for_another_workspace(scene: Scene) -> None:
    scene.register()
    scene.token()
    other = scene.bitbucket.host_repository("other/widgets")

    assert scene.machine.get(scene.bitbucket.url(other)).stdout == ""


def test_allow_limits_the_repositories_that_git_gets_a_token_for(scene: Scene) -> None:
    scene.register()
    gadgets = scene.bitbucket.host_repository("acme/gadgets")
    scene.token("--allow=acme/widgets")
    refused = scene.machine.get(scene.bitbucket.url(gadgets), "--allow=acme/widgets", check=False)

    assert refused.stdout == "quit=1\n"


def test_person_gets_a_token_that_names_no_repository(scene: Scene) -> None:
    scene.register()
    shown = json.loads(scene.machine.bbjwt("token", scene.acme.url, "--format=json").stdout)

    assert shown["repository"] is None
    assert shown["token"] == scene.token()


def test_many_urls_of_a_person_make_one_request(scene: Scene) -> None:
    scene.register()
    urls = [f"{scene.bitbucket.base_url}/acme/module{number}" for number in range(40)]
    done = scene.machine.bbjwt("token", *urls)

    assert len(done.stdout.splitlines()) == 40
    assert len(set(done.stdout.splitlines())) == 1
    assert scene.requests() == 1
