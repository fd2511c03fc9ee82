"""The https recipes of the operators' page, run as they are written. Other web servers. An issuer of another author."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from git_credential_bbjwt.serving.policy import read_policy
from tests.conftest import PATIENCE, PROJECT, cannot, need, takes_long, until
from tests.https_broker import RECIPE, HttpsBroker
from tests.issuer import AUDIENCE, write_policy
from tests.serving.apart import Apart
from tests.serving.test_operators_page import BLOCKS, PAGE, block

OTHERS = PROJECT / ".cache/servers/bin"


def commands(program: str) -> list[list[str]]:
    """Return the command lines of the page's block that begins with this program."""
    (found,) = [text for kind, text in BLOCKS if kind == "sh" and text.startswith(program + " ")]
    return [shlex.split(line) for line in found.replace("\\\n", " ").splitlines()]


def test_recipe_is_what_all_tests_run() -> None:
    (command,) = commands("gunicorn")
    assert command[0] == "gunicorn"
    assert tuple(command[3:-1]) == RECIPE


@pytest.mark.parametrize("number", range(sum(kind == "toml" for kind, _ in BLOCKS)))
def test_each_example_of_a_rule_is_accepted(tmp_path: Path, number: int) -> None:
    text = [text for kind, text in BLOCKS if kind == "toml"][number]
    path = tmp_path / "broker.toml"
    path.write_text(text if text.startswith("audience") else f'audience = "{AUDIENCE}"\n{text}')
    path.chmod(0o600)

    assert read_policy(str(path)).rules


def test_each_setting_is_on_the_page() -> None:
    source = (PROJECT / "git_credential_bbjwt/serving/policy.py").read_text()
    names = set(re.findall(r'settings\.\w+\("(\w+)"', source))
    assert {"audience", "issuer", "whole_workspace"} <= names
    for name in names - {"trust"}:
        assert f"`{name}`" in PAGE, name


@pytest.fixture
def apart(broker: HttpsBroker, tmp_path: Path) -> Iterator[Apart]:
    """A separate machine, with the page's configuration for the issuer of the test."""
    machine = Apart(tmp_path / "given")
    shutil.copy(broker.authorities, machine.given / "home/authorities.pem")
    (machine.given / "home/.gitconfig").write_text("[http]\n\tsslCAInfo = /var/lib/bbjwt/authorities.pem\n")
    folder = machine.given / "etc/git-credential-bbjwt"
    write_policy(folder / "broker.toml", broker.rule(), hosts=[broker.scene.bitbucket.host])
    (folder / "broker.toml").chmod(0o644)
    program = folder / "gunicorn"
    program.write_text(
        f"#!{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]} -ISXutf8\n"
        'import sys\nsys.path.insert(0, "/mnt/site")\nfrom gunicorn.app.wsgiapp import run\nrun()\n'
    )
    program.chmod(0o755)
    yield machine
    machine.stop()


def until_healthy(broker: HttpsBroker) -> None:
    def is_healthy() -> bool:
        try:
            return broker.send("GET", "/healthz").status == 200
        except OSError:
            return False

    until(is_healthy)


def test_unit_runs_under_systemd(broker: HttpsBroker, apart: Apart) -> None:
    takes_long("a systemd")
    unit = block("Description=https broker")
    assert "/opt/git-credential-bbjwt/current/bin/gunicorn --bind 127.0.0.1:8080" in unit
    unit = unit.replace("/opt/git-credential-bbjwt/current/bin/", "/etc/git-credential-bbjwt/")
    unit = unit.replace("127.0.0.1:8080", f"127.0.0.1:{broker.port}")
    unit = re.sub(r"^(After|Wants)=.*\n", "", unit, flags=re.MULTILINE)  # The separate machine has no such unit.
    if sys.base_prefix.startswith(("/root/", "/home/")):  # This Python is in somebody's home.
        assert "ProtectHome=yes" in unit
        unit = unit.replace("ProtectHome=yes", "ProtectHome=read-only")
    # In this namespace systemd cannot mount a credential for a user, so the file itself belongs to the user.
    assert "LoadCredential=bbjwt-installation:/etc/bitbucket-installation.json" in unit
    shutil.copy(broker.scene.installation, apart.given / "home/installation.json")
    unit = re.sub("LoadCredential=.*", "Environment=BBJWT_INSTALLATION=/var/lib/bbjwt/installation.json", unit)
    folder = apart.given / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "bbjwt-https.service").write_text(unit)
    apart.start_systemd("bbjwt-https.service")
    until_healthy(broker)

    reply = broker.ask()
    assert reply.status == 200, apart.run("journalctl", "--no-pager").stdout
    assert reply.lines["password"] in broker.scene.bitbucket.tokens
    kept = Path(apart.path("/var/cache/bbjwt/git-credential-bbjwt"))
    assert kept.stat().st_mode & 0o777 == 0o700

    def is_audited() -> bool:
        journal = apart.run("journalctl", "--no-pager", "--output=cat", "--unit=bbjwt-https").stdout
        return any(line.startswith('{"time"') and '"granted"' in line for line in journal.splitlines())

    until(is_audited)


# A ConfigMap's folder has mode 0777 and is mounted read-only. A secret's folder is a tmpfs of mode 1777, and its files
# belong to the group (kubernetes issues 125876 and 136032).
_AS_KUBERNETES = """
set -eu
mount --make-rprivate /
mkdir -p "$AT/etc/bbjwt/..2026" "$AT/secret" "$AT/cache" "$AT/tmp" "$AT/packages"
mount --bind "$PACKAGES" "$AT/packages" # It may be below a home that only its user can enter.
cp "$GIVEN/broker.toml" "$AT/etc/bbjwt/..2026/broker.toml"
chmod 644 "$AT/etc/bbjwt/..2026/broker.toml"
ln -s ..2026 "$AT/etc/bbjwt/..data"
ln -s ..data/broker.toml "$AT/etc/bbjwt/broker.toml"
chmod 777 "$AT/etc/bbjwt"
mount --bind "$AT/etc/bbjwt" "$AT/etc/bbjwt"
mount -o remount,bind,ro "$AT/etc/bbjwt"
mount -t tmpfs -o mode=1777 secret "$AT/secret"
mkdir -m 755 "$AT/secret/..2026"
cp "$GIVEN/installation.json" "$AT/secret/..2026/installation.json"
chown -R 0:1000 "$AT/secret/..2026"
chmod 440 "$AT/secret/..2026/installation.json"
ln -s ..2026/installation.json "$AT/secret/installation.json"
mount -o remount,ro "$AT/secret"
mount -t tmpfs -o mode=2777,gid=1000 cache "$AT/cache"
chmod 777 "$AT/tmp"
cp "$GIVEN/authorities.pem" "$AT/authorities.pem"
cd "$AT"
exec setpriv --reuid=1000 --regid=1000 --groups=1000 "$@"
"""


def test_mounts_of_kubernetes_are_accepted(broker: HttpsBroker) -> None:
    if os.geteuid() != 0 or subprocess.run([need("unshare"), "--mount", "true"], capture_output=True).returncode:
        cannot("no mount namespace can be made here")
    place = Path(f"/var/tmp/bbjwt-test-{os.getpid()}")
    place.mkdir(mode=0o755)
    try:
        given = place / "given"
        given.mkdir(mode=0o700)
        write_policy(given / "broker.toml", broker.rule(), hosts=[broker.scene.bitbucket.host])
        shutil.copy(broker.scene.installation, given / "installation.json")
        shutil.copy(broker.authorities, given / "authorities.pem")
        broker.environment |= {
            "AT": str(place),
            "GIVEN": str(given),
            "PACKAGES": os.path.dirname(os.path.dirname(jwt.__file__)),
            "HOME": "/",
            "BBJWT_BROKER_CONFIG": f"{place}/etc/bbjwt/broker.toml",
            "BBJWT_INSTALLATION": f"{place}/secret/installation.json",
            "XDG_CACHE_HOME": f"{place}/cache",
            "SSL_CERT_FILE": f"{place}/authorities.pem",
        }
        program = [f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}", "-c"]
        run = f"import sys; sys.path.insert(0, '{place}/packages'); from gunicorn.app.wsgiapp import run; run()"
        (arguments,) = commands("gunicorn")
        arguments[2] = f"127.0.0.1:{broker.port}"
        broker.start(
            "unshare",
            "--mount",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            _AS_KUBERNETES,
            "sh",
            *program,
            run,
            *arguments[1:],
        )
        assert broker.ask().status == 200
        assert "error" not in broker.log()
    finally:
        broker.stop(signal.SIGKILL)
        shutil.rmtree(place)


@pytest.mark.parametrize("name", ["waitress-serve", "granian", "uvicorn", "uwsgi"])
def test_other_web_servers_run_the_broker(broker: HttpsBroker, name: str) -> None:
    takes_long("other web servers")
    (command,) = [one for one in commands("waitress-serve") if one[0] == name]
    program = OTHERS / name
    if not program.exists():
        cannot(f"{name} is not installed")
    line = [word.replace("8080", str(broker.port)) for word in command[1:]]
    broker.start(str(program), *line)
    token = broker.issuer.token(groups=["a-group-with-a-long-name"] * (40 if name == "granian" else 150))

    assert broker.ask(token).status == 200
    assert broker.ask("x").status == 401
    assert broker.ask(body=b"x" * 65_537).status == 413
    assert broker.ask(name="acme/secrets").status == 403
    assert {broker.ask().status for _ in range(20)} == {200}
    broker.write(broker.rule(claims={"repository_id": "75"}))
    time.sleep(1.2)
    assert broker.ask().status in (200, 403)
    assert broker.send("GET", "/healthz").body == "ok\n"
    broker.ask(also={"X-Forwarded-For": "192.0.2.1"})
    lines = (broker.folder / "audit").read_text().splitlines()
    audit = [json.loads(line) for line in lines if line.startswith("{")]
    assert {line["asker"]["address"] for line in audit} == {"127.0.0.1"}
    assert name == "granian" or len(audit) == len(lines)


def test_issuer_of_another_author_is_accepted(broker: HttpsBroker) -> None:
    takes_long("an OpenID provider written by others")
    folder = PROJECT / ".cache/clients-js"
    if not (folder / "node_modules/oidc-provider").exists():
        cannot("oidc-provider is not installed")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    url = f"https://localhost:{port}"
    script = folder / "provider.mjs"
    script.write_text((Path(__file__).parent / "provider.mjs").read_text())
    process = subprocess.Popen(
        [need("node"), script, url, str(broker.certificate), str(broker.key)],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "listening\n"
        found = fetched(url, broker)
        claims = jwt.decode(found, options={"verify_signature": False})
        assert claims["iss"] == url
        broker.write(broker.rule(issuer=url, claims={"sub": "builder"}), audience="https://broker.example")
        broker.start()
        assert broker.ask(found).status == 200
        head, _, signature = found.rpartition(".")
        assert broker.ask(f"{head}.{signature[:-6]}AAAAAA").status == 401
        process.terminate()
        process.wait(PATIENCE)
        assert {broker.ask(found).status for _ in range(10)} == {200}
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


def fetched(url: str, broker: HttpsBroker) -> str:
    """Return a JWT access token for the broker, by the client credentials grant."""
    import ssl
    import urllib.request

    request = urllib.request.Request(  # noqa: S310  # loopback
        f"{url}/token",
        data=b"grant_type=client_credentials&resource=https%3A%2F%2Fbroker.example",
        headers={"Authorization": "Basic YnVpbGRlcjpzZWNyZXQ="},
    )
    context = ssl.create_default_context(cafile=broker.authorities)
    with urllib.request.urlopen(request, context=context, timeout=PATIENCE) as response:  # noqa: S310  # loopback
        return str(json.loads(response.read())["access_token"])
