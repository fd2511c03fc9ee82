"""The README's recipes, run from its own text: what it tells people to type works."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import desktop
from tests.conftest import COMMAND, PROJECT, Workspace, client_python, need
from tests.installations.test_registration import files_holding
from tests.secret_stores.test_keyrings import scene, with_pass

__all__ = ["scene"]  # a fixture

README = (PROJECT / "README.md").read_text(encoding="utf-8")

#: All that somebody may type or copy; the payload that is shown is JSON, and what is printed has no language.
BLOCKS: list[str] = re.findall(r"^```(?!json)\w+\n(.*?)```", README, re.MULTILINE | re.DOTALL)

#: Each recipe, and words that only its block has.
KNOWN_BY = {
    "demo": "./install.sh --demo",
    "tests": "tests/run\n",
    "set up": "./install.sh installed.json",
    "set up a server": "./install.sh\n",
    "step by step": "bbjwt doctor",
    "authorized_keys": "restrict,",
    "socket unit": "[Socket]",
    "socket service": "StandardInput=socket",
    "secret store": "vault kv get",
    "exec": "export BBJWT_INSTALLATION=/run/secrets",
    "systemd": "LoadCredential=",
    "kubernetes": "volumeMounts",
    "header": "--format header",
    "jwt": "bbjwt jwt acme",
    "pygit2": "pygit2",
    "other helpers": "bbjwt configure --exclusive\x20",
    "pass": "keyring_pass",
    "encrypted file": "cryptfile",
    "after Connect": "/run/forge/token",
}
RECIPES = {name: "".join(block for block in BLOCKS if words in block) for name, words in KNOWN_BY.items()}


def recipe(scene: Workspace, name: str) -> str:
    """The recipe's text, for the emulator in Bitbucket's place, without the lines that install what is there."""
    lines = [line for line in RECIPES[name].splitlines() if not line.startswith("./install.sh --")]
    return for_emulator(scene, "\n".join(lines) + "\n")


def inline(scene: Workspace, start: str) -> str:
    """The one command that README has in the middle of a line and that begins with ``start``, for the emulator."""
    (command,) = {text for text in re.findall(r"`([^`\n]+)`", README) if text.startswith(start)}
    return for_emulator(scene, command)


def for_emulator(scene: Workspace, text: str) -> str:
    """A command with the emulator in Bitbucket's place, and the command that is tested where README installs it."""
    text = text.replace("https://bitbucket.org", scene.bitbucket.base_url)
    return text.replace("/usr/local/bin/git-credential-bbjwt", str(COMMAND))


def follow(scene: Workspace, name: str, **changes: str | None) -> str:
    """Type what the README says; return what it printed."""
    return typed(scene, recipe(scene, name), **changes)


def typed(scene: Workspace, text: str, **changes: str | None) -> str:
    """What a shell prints that is given ``text``."""
    done = scene.machine.run("sh", "-eu", "-c", text, env=scene.machine.env(changes))
    return done.stdout + done.stderr


@pytest.fixture
def newcomer(acme: Workspace) -> Workspace:
    """The usual scene with nothing set up: the payload lies in the home as installed.json."""
    (acme.machine.home / ".gitconfig").unlink()
    del acme.machine.environment["BBJWT_INSTALLATION"]
    acme.installation = acme.installation.rename(acme.machine.home / "installed.json")
    return acme


def cloned(scene: Workspace) -> bool:
    """Whether acme/widgets is there."""
    return (scene.machine.home / "widgets/README.md").exists()


def mounted(scene: Workspace, where: str) -> str:
    """Put the payload where a recipe expects it, below the test's own folder; return the way there."""
    place = scene.machine.home.parent / "mounted" / where.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(scene.installation, place)
    place.chmod(0o400)
    return str(place)


def test_every_block_of_commands_is_tested_here() -> None:
    assert sorted(RECIPES.values()) == sorted(BLOCKS)
    source = Path(__file__).read_text()
    assert [name for name in RECIPES if source.count(f'"{name}"') < 2] == []


def test_the_two_commands() -> None:
    # Run by test_install and by whoever runs this.
    assert (RECIPES["demo"], RECIPES["tests"]) == ("./install.sh --demo\n", "tests/run\n")


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
    machine.run("sh", "-eu", "-c", text)

    assert cloned(newcomer)


def test_step_by_step(newcomer: Workspace) -> None:
    with desktop.session(newcomer.machine):
        printed = follow(newcomer, "step by step")

    assert "✓ token: " in printed
    assert "✗" not in printed


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
    # What systemd would do: the credential in a folder of its own, named by a variable.
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
    words = json.loads(inline(newcomer, "ENTRYPOINT").partition(" ")[2])
    newcomer.machine.environment["BBJWT_INSTALLATION"] = mounted(newcomer, "run/secrets/bitbucket")
    newcomer.machine.run(COMMAND, *words[1:], "git", "clone", "-q", newcomer.url)

    assert words[0] == COMMAND.name
    assert cloned(newcomer)


def test_cron(newcomer: Workspace) -> None:
    machine = newcomer.machine
    payload = mounted(newcomer, "etc/bitbucket-installation.json")
    machine.run("git", "init", "-q", "--bare", "widgets.git")
    machine.run("git", "--git-dir=widgets.git", "remote", "add", "origin", newcomer.url)
    # The default of git 3.0.
    machine.run("git", "config", "--global", "safe.bareRepository", "explicit")
    line = inline(newcomer, "/usr/local/bin/").replace("/etc/bitbucket-installation.json", payload)
    command = line.replace("=/srv/", f"={machine.home}/")
    # What cron gives a job, and the authority that stands for a public one.
    environment = {"HOME": str(machine.home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "builder"}
    environment |= {name: str(newcomer.bitbucket.ca_file) for name in ("SSL_CERT_FILE", "GIT_SSL_CAINFO")}
    machine.run("/bin/sh", "-c", command, env=environment)

    assert machine.run("git", "--git-dir=widgets.git", "rev-parse", "origin/main").returncode == 0


def with_installation(scene: Workspace) -> dict[str, str]:
    """The environment of a machine that holds the secret."""
    return {"BBJWT_INSTALLATION": str(scene.installation)}


@pytest.mark.parametrize("name", ["token", "header"])
def test_handing_on_a_token(newcomer: Workspace, name: str) -> None:
    text = recipe(newcomer, name) if name == "header" else inline(newcomer, 'git clone "$(')
    typed(newcomer, text, **with_installation(newcomer))

    configuration = next(newcomer.machine.home.glob("widgets*/.git/config")).read_text()
    token = quote(next(iter(newcomer.bitbucket.tokens)), safe="")
    assert (token in configuration) == (name == "token")


def test_handing_on_a_jwt(newcomer: Workspace) -> None:
    payload = json.loads(newcomer.installation.read_text())
    hosts = json.dumps({name: payload[name] for name in ("baseUrl", "baseApiUrl")})
    text = recipe(newcomer, "jwt").replace("-u BBJWT_INSTALLATION", f"BBJWT_INSTALLATION='{hosts}'")
    newcomer.machine.run("sh", "-eu", "-c", text, env=newcomer.machine.env(with_installation(newcomer)))

    assert cloned(newcomer)


@pytest.mark.parametrize("option", ["--exclusive ", "--rewrite-ssh", "--workspace"])
def test_next_to_other_helpers(newcomer: Workspace, option: str) -> None:
    machine = newcomer.machine
    machine.environment |= with_installation(newcomer)
    machine.git("config", "--global", "credential.helper", "store")
    lines = recipe(newcomer, "other helpers").splitlines()
    typed(newcomer, next(line for line in lines if option in line))
    machine.git("clone", "-q", "git@localhost:acme/widgets" if option == "--rewrite-ssh" else newcomer.url, "widgets")

    assert len(lines) == 3
    assert cloned(newcomer)
    assert (machine.home / ".git-credentials").exists() == (option == "--workspace")


def test_one_off(newcomer: Workspace) -> None:
    before = {path.name for path in newcomer.machine.home.iterdir()}
    typed(newcomer, inline(newcomer, "git-credential-bbjwt --installation"))

    assert {path.name for path in newcomer.machine.home.iterdir()} == before | {"widgets"}
    assert list(newcomer.machine.runtime.iterdir()) == []


def test_insecure_storage(newcomer: Workspace) -> None:
    typed(newcomer, inline(newcomer, "git-credential-bbjwt register --insecure-storage"))
    newcomer.installation.unlink()
    newcomer.machine.bbjwt("configure")
    newcomer.machine.git("clone", "-q", newcomer.url)

    assert cloned(newcomer)


def test_buildkit(newcomer: Workspace) -> None:
    """What the builder runs, in a machine without a runtime folder; a layer is what it leaves on the disk."""
    mount, _, text = inline(newcomer, "RUN").removeprefix("RUN --mount=").partition(" ")
    options = dict(option.split("=") for option in mount.split(","))
    assert options == {"type": "secret", "id": "bitbucket", "mode": "0400"}
    where = f"/run/secrets/{options['id']}"
    text = text.replace(where, mounted(newcomer, where))
    newcomer.installation.unlink()
    before = {path.name for path in newcomer.machine.home.iterdir()}
    newcomer.machine.run("sh", "-eu", "-c", text, env=newcomer.machine.env(XDG_RUNTIME_DIR=None))

    assert cloned(newcomer)
    assert {path.name for path in newcomer.machine.home.iterdir()} == before | {"widgets"}
    assert not any(
        token.encode() in path.read_bytes() for token in newcomer.bitbucket.tokens for path in files(newcomer)
    )


def files(scene: Workspace) -> list[Path]:
    """All files below the home."""
    return [path for path in scene.machine.home.rglob("*") if path.is_file()]


def test_libraries_that_ask_no_helper(newcomer: Workspace) -> None:
    newcomer.machine.environment |= with_installation(newcomer)
    newcomer.machine.environment["SSL_CERT_FILE"] = str(newcomer.bitbucket.ca_file)
    text = f"import subprocess, pygit2\nURL = {newcomer.url!r}\n" + recipe(newcomer, "pygit2")
    newcomer.machine.run(client_python(), "-c", text)

    assert cloned(newcomer)


def test_credential_fill(newcomer: Workspace) -> None:
    newcomer.machine.environment |= with_installation(newcomer)
    newcomer.machine.bbjwt("configure")
    printed = typed(newcomer, inline(newcomer, "printf 'url="))

    assert "username=x-token-auth\npassword=" in printed


def test_pass(scene: Workspace) -> None:
    scene.installation = scene.installation.rename(scene.machine.home / "installed.json")
    with with_pass(scene):
        del scene.machine.environment["PYTHON_KEYRING_BACKEND"]
        follow(scene, "pass")
        scene.machine.environment["PYTHON_KEYRING_BACKEND"] = "keyring_pass.PasswordStoreBackend"
        scene.machine.git("clone", "-q", scene.url)

    assert cloned(scene)


def test_encrypted_file(scene: Workspace) -> None:
    scene.installation = scene.installation.rename(scene.machine.home / "installed.json")
    follow(scene, "encrypted file", PASSWORD_OF_THE_FILE="open")

    assert files_holding(scene.machine.home, scene.app.shared_secret) == [scene.installation]
    scene.machine.environment |= {
        "PYTHON_KEYRING_BACKEND": "keyrings.cryptfile.cryptfile.CryptFileKeyring",
        "KEYRING_PROPERTY_KEYRING_KEY": "open",
    }
    scene.machine.git("clone", "-q", scene.url)
    assert cloned(scene)


def test_authorized_keys_have_a_command_line_of_serve(newcomer: Workspace) -> None:
    key = RECIPES["authorized_keys"].partition('command="')[2].partition('"')[0]
    words = shlex.split(key.replace("syslog", "none"))
    refused = newcomer.machine.run(COMMAND, *words[1:], data="host=elsewhere.example\nprotocol=https\n\n")
    assert refused.stdout == "\n"


@pytest.mark.parametrize("broker", ["'ssh", "unix:"])
def test_askers_are_configured(newcomer: Workspace, broker: str) -> None:
    start = f"git-credential-bbjwt configure --broker {broker}"
    typed(newcomer, inline(newcomer, start))
    key = "credential.https://bitbucket.org.helper"
    assert "--broker=" in newcomer.machine.git("config", key).stdout


def test_socket_units(tmp_path: Path) -> None:
    (tmp_path / "bbjwt.socket").write_text(RECIPES["socket unit"])
    service = RECIPES["socket service"].replace("/usr/local/bin/git-credential-bbjwt", "/bin/true")
    (tmp_path / "bbjwt@.service").write_text(service)
    need("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "bbjwt.socket", tmp_path / "bbjwt@.service"],
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert [line for line in done.stderr.splitlines() if "bbjwt" in line] == []


def test_a_secret_store(newcomer: Workspace) -> None:
    # What each prints is the bare payload: the programs' own manuals have no other shape for these words.
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
    *stores, clone = recipe(newcomer, "secret store").splitlines()
    assert len(stores) == len(wanted)
    for store in stores:
        script = f"{store}\n{clone}".replace(" exec", f" --host {newcomer.bitbucket.host} exec")
        newcomer.machine.run("sh", "-eu", "-c", script)
        assert cloned(newcomer)
        shutil.rmtree(newcomer.machine.home / "widgets")


def test_after_connect(newcomer: Workspace) -> None:
    token = newcomer.machine.bbjwt(
        "--installation", newcomer.installation, "token", newcomer.bitbucket.url(newcomer.widgets)
    )
    (newcomer.machine.home / "token").write_text(token.stdout)
    text = recipe(newcomer, "after Connect").replace("/run/forge/token", str(newcomer.machine.home / "token"))
    host = newcomer.bitbucket.host
    newcomer.machine.run("sh", "-eu", "-c", text.replace("configure", f"configure --host {host}"))
    assert cloned(newcomer)


def test_doctor(newcomer: Workspace) -> None:
    newcomer.machine.environment |= with_installation(newcomer)
    newcomer.machine.bbjwt("configure")

    command = inline(newcomer, "git-credential-bbjwt doctor https")
    assert "✓ token: " in typed(newcomer, command)
    printed = typed(newcomer, inline(newcomer, "printf 'protocol=").replace("bitbucket.org", newcomer.bitbucket.host))
    assert "password=" in printed


#: What git itself says where the helper said nothing.
GITS_OWN_WORDS = ("could not read Username … terminal prompts disabled",)


def test_the_remedies_of_the_troubleshooting_table_are_what_is_said() -> None:
    table = README.partition("## Troubleshooting")[2].partition("## Reference")[0]
    rows = [row for row in re.findall(r"^\| `(.*?)` \|", table, re.MULTILINE) if row not in GITS_OWN_WORDS]
    said = [text for row in rows for text in row.split(" … ")]
    package = "".join(path.read_text() for path in (PROJECT / "git_credential_bbjwt").rglob("*.py"))
    spelled = re.sub(r'"\n\s*f?"', "", package)
    assert len(said) >= 25
    for text in said:
        shape = re.sub(r"\\\(403\\\)", r"\\(403\\)", re.escape(text))
        assert re.search(shape.replace(r"\ ", " "), re.sub(r"\{[^}]*\}", "", spelled)), text
