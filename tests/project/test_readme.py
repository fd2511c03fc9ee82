"""The recipes of README and of the operators' page, run from their own text."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests import desktop
from tests.conftest import COMMAND, PROJECT, Workspace, files_holding, need
from tests.secret_stores.test_keyrings import scene

__all__ = ["scene"]  # a fixture

README = (PROJECT / "README.md").read_text(encoding="utf-8")
OPERATORS = (PROJECT / "git_credential_bbjwt/serving/README.md").read_text(encoding="utf-8")

#: All blocks to type or copy. The payload's block is JSON, and blocks of output have no language.
BLOCKS: list[str] = re.findall(r"^```(?!json)\w+\n(.*?)```", README, re.MULTILINE | re.DOTALL)
OPERATORS_BLOCKS: list[str] = re.findall(
    r"^```\w+\n(.*?)```",
    OPERATORS.partition("## Jobs that hold the secret")[2],
    re.MULTILINE | re.DOTALL,
)

#: Each recipe, with words that are only in its block.
KNOWN_BY = {
    "demo": "./install.sh --demo",
    "tests": "tests/run\n",
    "set up": "./install.sh installed.json",
    "set up a server": "./install.sh\n",
    "windows": "pipx install .",
    "exec": "export BBJWT_INSTALLATION=/run/secrets",
    "secret store": "vault kv get",
    "identity": "id-token: write",
    "header": "--format header",
    "jwt": "bbjwt jwt acme",
    "other helpers": "bbjwt configure --exclusive\x20",
    "consumer": "--oauth-consumer --after-connect",
    "after Connect": "/run/forge/token",
    "systemd": "WorkingDirectory=%S/mirror",
    "kubernetes": "secretName: bitbucket-installation",
    "docker build": "docker build",
    "buildkit": "RUN --mount",
    "entry point": "ENTRYPOINT",
    "cron": "--git-dir=/srv/widgets.git",
    "agent": "agent.gitconfig",
    "kubernetes secret": "kubectl patch",
}
RECIPES = {
    name: "".join(block for block in [*BLOCKS, *OPERATORS_BLOCKS] if words in block) for name, words in KNOWN_BY.items()
}


def recipe(scene: Workspace, name: str) -> str:
    """Return the recipe's text for the emulator, without the lines that install the command."""
    lines = [line for line in RECIPES[name].splitlines() if not line.startswith("./install.sh --")]
    return for_emulator(scene, "\n".join(lines) + "\n")


def inline(scene: Workspace, start: str) -> str:
    """Return the one command within a line of a page that begins with ``start``, for the emulator."""
    (command,) = {text for text in re.findall(r"`([^`\n]+)`", README + OPERATORS) if text.startswith(start)}
    return for_emulator(scene, command)


def for_emulator(scene: Workspace, text: str) -> str:
    """Replace Bitbucket by the emulator, and README's installed command by the tested command."""
    text = text.replace("https://bitbucket.org", scene.bitbucket.base_url)
    return text.replace("/usr/local/bin/git-credential-bbjwt", str(COMMAND))


def follow(scene: Workspace, name: str, **changes: str | None) -> str:
    """Run a recipe of README; return its output."""
    return typed(scene, recipe(scene, name), **changes)


def typed(scene: Workspace, text: str, **changes: str | None) -> str:
    """Run ``text`` in a shell; return its output."""
    done = scene.machine.run("sh", "-eu", "-c", text, env=scene.machine.env(changes))
    return done.stdout + done.stderr


@pytest.fixture
def newcomer(acme: Workspace) -> Workspace:
    """The usual scene without any set-up. The payload is in the home as installed.json."""
    (acme.machine.home / ".gitconfig").unlink()
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.installation = acme.installation.rename(acme.machine.home / "installed.json")
    return acme


def cloned(scene: Workspace) -> bool:
    """Return whether acme/widgets was cloned."""
    return (scene.machine.home / "widgets/README.md").exists()


def mounted(scene: Workspace, where: str) -> str:
    """Copy the payload to the path that a recipe expects, below the test's folder; return its path."""
    place = scene.machine.home.parent / "mounted" / where.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(scene.installation, place)
    place.chmod(0o400)
    return str(place)


def test_every_block_of_commands_is_tested_here() -> None:
    assert sorted(RECIPES.values()) == sorted([*BLOCKS, *OPERATORS_BLOCKS])
    source = Path(__file__).read_text()
    assert [name for name in RECIPES if source.count(f'"{name}"') < 2] == []


def test_the_two_commands() -> None:
    # test_install runs the first, and these tests are run by the second.
    clone = "git clone URL-OF-THIS-REPOSITORY git-credential-bbjwt\ncd git-credential-bbjwt\n"
    assert (RECIPES["demo"], RECIPES["tests"]) == (clone + "./install.sh --demo\n", "tests/run\n")


def test_set_up(newcomer: Workspace, with_uv: object, wheelhouse: Path) -> None:  # noqa: ARG001  # prepares the machine
    machine = newcomer.machine
    (machine.home / "install.sh").write_text(f'exec sh "{PROJECT}/install.sh" --wheelhouse "{wheelhouse}" "$@"\n')
    (machine.home / "install.sh").chmod(0o755)
    with desktop.session(machine):
        follow(newcomer, "set up")
        newcomer.installation.unlink()
        machine.git("fetch", "-q", cwd=machine.home / "widgets")

    assert cloned(newcomer)
    assert newcomer.bitbucket.mints() == 1
    assert files_holding(machine.home.parent, newcomer.app.shared_secret) == []


def test_set_up_a_server(newcomer: Workspace, with_uv: object, wheelhouse: Path) -> None:  # noqa: ARG001  # as above
    machine = newcomer.machine
    (machine.home / "install.sh").write_text(f'exec sh "{PROJECT}/install.sh" --wheelhouse "{wheelhouse}" "$@"\n')
    (machine.home / "install.sh").chmod(0o755)
    (path,) = re.findall("BBJWT_INSTALLATION=(/.*)", RECIPES["set up a server"])
    text = recipe(newcomer, "set up a server").replace(path, mounted(newcomer, path))
    # `install.sh` configures the helper for Bitbucket's own host unless an installation names the emulator's.
    install, *rest = text.splitlines()
    machine.run("sh", "-eu", "-c", "\n".join([rest.pop(0), install, *rest]))

    assert cloned(newcomer)


def test_windows(newcomer: Workspace) -> None:
    lines = recipe(newcomer, "windows").splitlines()
    assert lines.pop(0) == "pipx install ."
    with desktop.session(newcomer.machine):
        typed(newcomer, "\n".join(lines) + "\n")
        newcomer.machine.git("clone", "-q", newcomer.url)

    assert cloned(newcomer)


@pytest.mark.parametrize("given", ["a file", "base64", "the JSON"])
def test_a_build_server(newcomer: Workspace, given: str) -> None:
    (path,) = re.findall("BBJWT_INSTALLATION=(/.*)", RECIPES["exec"])
    payload = newcomer.installation.read_bytes()
    value = {
        "a file": mounted(newcomer, path),
        "base64": base64.b64encode(payload).decode(),
        "the JSON": payload.decode(),
    }[given]
    typed(newcomer, recipe(newcomer, "exec").replace(path, shlex.quote(value)), XDG_RUNTIME_DIR=None)

    assert cloned(newcomer)
    assert not (newcomer.machine.home / ".gitconfig").exists()


def test_systemd(newcomer: Workspace, tmp_path: Path) -> None:
    unit = recipe(newcomer, "systemd")
    (tmp_path / "mirror.service").write_text(f"[Unit]\nDefaultDependencies=no\n\n{unit}")
    verified = newcomer.machine.run(need("systemd-analyze"), "verify", tmp_path / "mirror.service", check=False)
    assert "mirror.service" not in verified.stderr, verified.stderr
    # Like systemd, put the credential into a separate folder that a variable names.
    (name, _), *_ = re.findall("LoadCredential=(.*?):(.*)", unit)
    (command,) = re.findall("ExecStart=(.*)", unit)
    folder = Path(mounted(newcomer, f"credentials/{name}")).parent
    newcomer.machine.run(*command.split(), env=newcomer.machine.env(CREDENTIALS_DIRECTORY=str(folder)))

    assert (newcomer.machine.home / "widgets.git/HEAD").exists()


def test_kubernetes(newcomer: Workspace) -> None:
    text = recipe(newcomer, "kubernetes")
    (value,) = re.findall("value: (/.*?) ", text)
    (mount_path,) = re.findall("mountPath: (/.*?),", text)
    assert value == f"{mount_path}/installation.json"
    newcomer.machine.bbjwt(
        "exec", "--", "git", "clone", "-q", newcomer.url, "widgets", BBJWT_INSTALLATION=mounted(newcomer, value)
    )

    assert cloned(newcomer)


def test_container_entry_point(newcomer: Workspace) -> None:
    words = json.loads(recipe(newcomer, "entry point").partition(" ")[2])
    newcomer.machine.environment["BBJWT_INSTALLATION"] = mounted(newcomer, "run/secrets/bitbucket")
    newcomer.machine.run(COMMAND, *words[1:], "git", "clone", "-q", newcomer.url)

    assert words[0] == COMMAND.name
    assert cloned(newcomer)


def test_cron(newcomer: Workspace) -> None:
    machine = newcomer.machine
    payload = mounted(newcomer, "etc/bitbucket-installation.json")
    mirror = machine.home / "widgets.git"
    machine.run("git", "init", "-q", "--bare", mirror)
    machine.run("git", f"--git-dir={mirror}", "remote", "add", "origin", newcomer.url)
    line = recipe(newcomer, "cron").replace("/etc/bitbucket-installation.json", payload)
    command = line.replace("/srv/widgets.git", str(mirror))
    # The environment that cron gives a job, and the emulator's authority.
    environment = {"HOME": str(machine.home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "builder"}
    environment |= {name: str(newcomer.bitbucket.ca_file) for name in ("SSL_CERT_FILE", "GIT_SSL_CAINFO")}
    machine.run("/bin/sh", "-c", command, env=environment)

    assert machine.run("git", f"--git-dir={mirror}", "rev-parse", "origin/main").returncode == 0


def with_installation(scene: Workspace) -> dict[str, str]:
    """Return the environment of a machine with the secret."""
    return {"BBJWT_INSTALLATION": str(scene.installation)}


def test_handing_on_a_token(newcomer: Workspace) -> None:
    typed(newcomer, recipe(newcomer, "header"), **with_installation(newcomer))

    configuration = (newcomer.machine.home / "widgets/.git/config").read_text()
    assert next(iter(newcomer.bitbucket.tokens)) not in configuration


def test_handing_on_a_jwt(newcomer: Workspace) -> None:
    payload = json.loads(newcomer.installation.read_text())
    hosts = json.dumps({name: payload[name] for name in ("baseUrl", "baseApiUrl")})
    text = recipe(newcomer, "jwt").replace("-u BBJWT_INSTALLATION", f"BBJWT_INSTALLATION='{hosts}'")
    newcomer.machine.run("sh", "-eu", "-c", text, env=newcomer.machine.env(with_installation(newcomer)))

    assert cloned(newcomer)


@pytest.mark.parametrize("option", ["--exclusive  ", "--rewrite-ssh", "--workspace", "--proactive", "--allow"])
def test_next_to_other_helpers(newcomer: Workspace, option: str) -> None:
    machine = newcomer.machine
    machine.environment |= with_installation(newcomer)
    machine.git("config", "--global", "credential.helper", "store")
    lines = recipe(newcomer, "other helpers").splitlines()
    typed(newcomer, next(line for line in lines if option in line))
    machine.git("clone", "-q", "git@localhost:acme/widgets" if option == "--rewrite-ssh" else newcomer.url, "widgets")

    assert len(lines) == 5
    assert cloned(newcomer)
    assert (machine.home / ".git-credentials").exists() == (not option.startswith(("--exclusive", "--rewrite-ssh")))


def test_insecure_storage(newcomer: Workspace) -> None:
    typed(newcomer, inline(newcomer, "git-credential-bbjwt register --insecure-storage"))
    newcomer.installation.unlink()
    newcomer.machine.bbjwt("configure")
    newcomer.machine.git("clone", "-q", newcomer.url)

    assert cloned(newcomer)


def test_buildkit(newcomer: Workspace) -> None:
    """Run the builder's command without a runtime folder. The layer has the files that are left on the disk."""
    assert "--secret id=bitbucket,src=installed.json" in recipe(newcomer, "docker build")
    mount, _, text = recipe(newcomer, "buildkit").strip().removeprefix("RUN --mount=").partition(" ")
    options = dict(option.split("=") for option in mount.split(","))
    assert options == {"type": "secret", "id": "bitbucket", "mode": "0400", "uid": "0"}
    where = f"/run/secrets/{options['id']}"
    text = text.replace(where, mounted(newcomer, where))
    newcomer.installation.unlink()
    before = {path.name for path in newcomer.machine.home.iterdir()}
    newcomer.machine.run("sh", "-eu", "-c", text, env=newcomer.machine.env(XDG_RUNTIME_DIR=None))

    assert cloned(newcomer)
    # The repository's UUID, which is not a secret, is remembered in .cache.
    assert {path.name for path in newcomer.machine.home.iterdir()} == before | {"widgets", ".cache"}
    assert not any(
        token.encode() in path.read_bytes() for token in newcomer.bitbucket.tokens for path in files(newcomer)
    )


def files(scene: Workspace) -> list[Path]:
    """Return all files below the home."""
    return [path for path in scene.machine.home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("broker", ["'ssh", "unix:", "https:"])
def test_clients_of_a_broker_are_configured(newcomer: Workspace, broker: str) -> None:
    start = f"git-credential-bbjwt configure --broker {broker}"
    typed(newcomer, inline(newcomer, start))
    key = "credential.https://bitbucket.org.helper"
    assert "--broker=" in newcomer.machine.git("config", key).stdout


def test_identity_of_each_platform() -> None:
    # The lines are those of the platforms' documentation; the names in them are the helper's own.
    text = RECIPES["identity"]
    assert set(re.findall(r"BBJWT_\w+", text)) == {
        "BBJWT_BROKER",
        "BBJWT_ID_TOKEN",
        "BBJWT_ID_TOKEN_COMMAND",
        "BBJWT_ID_TOKEN_FILE",
        "BBJWT_AUDIENCE",
    }
    assert set(re.findall(r"https://[\w.]+", text)) == {"https://broker.example"}


def test_a_secret_store(newcomer: Workspace) -> None:
    # Each program prints the payload without a wrapper, according to its manual.
    wanted = {
        "vault": "kv get -field=payload secret/bitbucket/acme",
        "op": "read op://Bitbucket/acme/payload",
        "aws": "secretsmanager get-secret-value --secret-id bitbucket/acme --query SecretString --output text",
        "gcloud": "secrets versions access latest --secret bitbucket-acme",
    }
    folder = newcomer.machine.home / "bin"
    folder.mkdir()
    for name, words in wanted.items():
        (folder / name).write_text(f'#!/bin/sh\n[ "$*" = "{words}" ] && cat "$HOME/installed.json"\n')
        (folder / name).chmod(0o755)
    newcomer.machine.environment["PATH"] = f"{folder}:{newcomer.machine.environment['PATH']}"
    first, clone = recipe(newcomer, "secret store").splitlines()
    others = [inline(newcomer, start) for start in ("op read", "aws secretsmanager", "gcloud secrets")]
    for store in [first, *(f"export BBJWT_INSTALLATION_COMMAND='{command}'" for command in others)]:
        script = f"{store}\n{clone}".replace(" exec", f" --host {newcomer.bitbucket.host} exec")
        newcomer.machine.run("sh", "-eu", "-c", script)
        assert cloned(newcomer)
        shutil.rmtree(newcomer.machine.home / "widgets")


def test_consumer_beside_the_app(newcomer: Workspace) -> None:
    """Step 3 with an injected payload, and step 4; a person types key and secret in a test of ``register``."""
    assert recipe(newcomer, "consumer").strip().endswith("register --oauth-consumer --after-connect --workspace acme")
    consumer = newcomer.bitbucket.add_consumer("acme")
    payload = json.loads(newcomer.installation.read_text())
    both = {"clientInfo": payload, **newcomer.bitbucket.consumer_json(consumer)}
    (newcomer.machine.home / "both.json").write_text(json.dumps(both))
    (newcomer.machine.home / "both.json").chmod(0o400)
    newcomer.machine.environment["BBJWT_INSTALLATION"] = str(newcomer.machine.home / "both.json")
    newcomer.machine.bbjwt("configure")
    newcomer.machine.git("clone", "-q", newcomer.url)

    assert cloned(newcomer)
    printed = newcomer.machine.bbjwt("--app", consumer.key, "token", newcomer.url, "--format", "json").stdout
    assert json.loads(printed)["repository"] is None


def test_after_connect(newcomer: Workspace) -> None:
    token = newcomer.machine.bbjwt(
        "--installation", newcomer.installation, "token", newcomer.bitbucket.url(newcomer.widgets)
    )
    (newcomer.machine.home / "token").write_text(token.stdout)
    text = recipe(newcomer, "after Connect").replace("/run/forge/token", str(newcomer.machine.home / "token"))
    host = newcomer.bitbucket.host
    newcomer.machine.run("sh", "-eu", "-c", text.replace("configure", f"configure --host {host}"))
    newcomer.machine.git("clone", "-q", newcomer.url)
    assert cloned(newcomer)


def test_agent_in_a_sandbox(newcomer: Workspace) -> None:
    """The container's part: its configuration names the socket, and it has nothing else of the host."""
    lines = recipe(newcomer, "agent").splitlines()
    typed(newcomer, "\n".join(lines[:2]) + "\n")
    written = newcomer.machine.git("config", "--file", "agent.gitconfig", "--list").stdout
    assert f"helper={COMMAND} --broker=unix:/run/bbjwt/socket --allow=acme/widgets" in written
    assert "usehttppath=true" in written
    assert lines[2].startswith("GIT_CONFIG_GLOBAL=$PWD/agent.gitconfig git clone ")


def test_kubernetes_secret_for_other_tools(newcomer: Workspace) -> None:
    newcomer.machine.environment |= with_installation(newcomer)
    folder = newcomer.machine.home / "bin"
    folder.mkdir()
    (folder / "kubectl").write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "patch secret bitbucket-widgets" ] && cat "$5" >"$HOME/patch"\n'
    )
    (folder / "kubectl").chmod(0o755)
    newcomer.machine.environment["PATH"] = f"{folder}:{newcomer.machine.environment['PATH']}"
    text = recipe(newcomer, "kubernetes secret").replace("/dev/shm/", f"{newcomer.machine.home}/")
    newcomer.machine.run("sh", "-eu", "-c", text)

    data = json.loads((newcomer.machine.home / "patch").read_text())["stringData"]
    assert data["username"] == "x-token-auth"
    assert data["password"] in newcomer.bitbucket.tokens


def test_doctor(newcomer: Workspace) -> None:
    newcomer.machine.environment |= with_installation(newcomer)
    newcomer.machine.bbjwt("configure")

    command = inline(newcomer, "git-credential-bbjwt doctor https")
    assert "✓ token: " in typed(newcomer, command)
