"""The https broker under a real web server, for tests: gunicorn with an issuer and Bitbucket on loopback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import trustme

from tests.conftest import PATIENCE, Machine, Workspace, free_port, request
from tests.emulator import Emulator
from tests.issuer import IssuerServer, write_policy

APPLICATION = "git_credential_bbjwt.serving.wsgi:application"

#: The recipe of the operators' page, without the address.
RECIPE = (
    *("--worker-class", "gthread", "--workers", "2", "--threads", "16", "--timeout", "60"),
    *("--limit-request-field_size", "32768", "--no-control-socket"),
)


class Reply(NamedTuple):
    """A response of the broker."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def lines(self) -> dict[str, str]:
        """Return the body's attributes."""
        return dict(line.partition("=")[::2] for line in self.body.splitlines() if line)


class HttpsBroker:
    """A broker for acme/widgets and acme/lib-*: `start` runs it, by default by the operators' page."""

    def __init__(self, scene: Workspace, folder: Path) -> None:
        self.scene = scene
        self.folder = folder
        folder.mkdir(mode=0o700)
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.authorities = folder / "authorities.pem"
        self.authorities.write_bytes(scene.bitbucket.ca_file.read_bytes() + authority.cert_pem.bytes())
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        certificate.cert_chain_pems[0].write_to_path(str(self.certificate))
        certificate.private_key_pem.write_to_path(str(self.key))
        self.issuer = IssuerServer(context, "P-256")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "broker.toml"
        self.write()
        self.cache = folder / "cache"
        self.cache.mkdir(mode=0o700)
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environment = {
            **kept,
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(self.cache),
            "GIT_CONFIG_NOSYSTEM": "1",
            "SSL_CERT_FILE": str(self.authorities),
            "BBJWT_BROKER_CONFIG": str(self.config),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def rule(self, **changes: Any) -> dict[str, Any]:
        """Return the usual rule; a change to None leaves a setting out."""
        usual = {
            "issuer": self.issuer.url,
            "claims": {"repository_id": "74"},
            "allow": ["acme/widgets", "acme/lib-*"],
        }
        return {name: value for name, value in {**usual, **changes}.items() if value is not None}

    def write(self, *rules: dict[str, Any], **settings: Any) -> None:
        """Write the configuration, in one step."""
        usual: dict[str, Any] = {"installation": str(self.scene.installation), "hosts": [self.scene.bitbucket.host]}
        kept = {name: value for name, value in {**usual, **settings}.items() if value is not None}
        write_policy(self.config, *(rules or [self.rule()]), **kept)

    def start(self, *command: str, tls: bool = False, ready: int | None = 200, workers: int = 1) -> HttpsBroker:
        """Run gunicorn, or another ``command``; wait until ``/healthz`` answers ``ready``.

        The recipe has two workers. If that does not matter, one worker costs half.
        """
        if tls:
            self.url = f"https://localhost:{self.port}"
        gunicorn = str(Path(sys.executable).with_name("gunicorn"))
        keys = ["--certfile", str(self.certificate), "--keyfile", str(self.key)] if tls else []
        usual = [gunicorn, "--bind", f"127.0.0.1:{self.port}", *RECIPE, "--workers", str(workers), *keys, APPLICATION]
        with (self.folder / "audit").open("ab") as audit, (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                list(command) or usual,
                stdin=subprocess.DEVNULL,
                stdout=audit,
                stderr=log,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )
        end = time.monotonic() + PATIENCE
        while ready is not None:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            try:
                if self.send("GET", "/healthz").status == ready:
                    break
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.05)
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the process and its children, and wait for its end; return its status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            if number == signal.SIGTERM:
                self.process.send_signal(number)
            else:
                os.killpg(self.process.pid, number)
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def close(self) -> None:
        """Stop everything."""
        self.issuer.close()
        self.stop()
        assert "Traceback" not in self.log()

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection to the broker."""
        if self.url.startswith("http:"):
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        context = ssl.create_default_context(cafile=self.authorities)
        return http.client.HTTPSConnection("localhost", self.port, timeout=PATIENCE, context=context)

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> Reply:
        """Send one request."""
        connection = self.connect()
        try:
            kept = {name: value for name, value in (headers or {}).items() if value is not None}
            connection.request(method, path, body, kept)
            response = connection.getresponse()
            text = response.read().decode()
            return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, text)
        finally:
            connection.close()

    def ask(
        self,
        token: str | None = None,
        *,
        name: str = "acme/widgets",
        body: bytes | None = None,
        also: Mapping[str, str | None] | None = None,
        extra: str = "",
    ) -> Reply:
        """Ask for a repository as the client does; by default with a ``token`` of the issuer."""
        if body is None:
            body = f"{request(f'{self.scene.bitbucket.base_url}/{name}')}{extra}\n".encode()
        token = self.issuer.token() if token is None else token
        headers: dict[str, str | None] = {
            "Content-Type": "text/plain; charset=utf-8",
            "Accept": "text/plain",
            "Authorization": f"Bearer {token}",
        }
        return self.send("POST", "/git-credentials", body, {**headers, **(also or {})})

    def log(self) -> str:
        """The text on standard error."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def audit(self) -> list[dict[str, Any]]:
        """The audit's lines."""
        return [json.loads(line) for line in (self.folder / "audit").read_text().splitlines()]

    def workers(self) -> list[int]:
        """The workers' process numbers."""
        assert self.process is not None
        return list(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))


def scene(folder: Path, bitbucket: Emulator) -> Workspace:
    """A workspace acme with widgets, lib-a and secrets, and an installation file."""
    app = bitbucket.install("acme")
    widgets = bitbucket.host_repository("acme/widgets")
    for slug in ("lib-a", "secrets"):
        bitbucket.host_repository(f"acme/{slug}", path=widgets.path)
    found = Workspace(Machine(folder), bitbucket, app, widgets, folder / "installation.json")
    found.write_installation()
    return found
