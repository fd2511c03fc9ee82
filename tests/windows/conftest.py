"""A Windows machine with the helper installed, run by Wine. Git and Bitbucket run on Linux.

Windows' git is not available from any index, so ``git.exe`` is a program that calls the real git.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socketserver
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, PROJECT, cannot, need
from tests.emulator import App, Emulator, HostedRepository

_PYTHON = PROJECT / ".cache/windows"

_GIT_EXE = """
import json, os, socket, sys

def main():
    with socket.create_connection(("127.0.0.1", int(os.environ["BRIDGE"]))) as bridge:
        asked = {"arguments": sys.argv[1:], "environment": dict(os.environ), "cwd": os.getcwd()}
        bridge.sendall(json.dumps(asked).encode() + b"\\n")
        answer = json.loads(bridge.makefile("rb").readline())
    os.write(1, bytes.fromhex(answer["output"]))
    os.write(2, bytes.fromhex(answer["errors"]))
    sys.exit(answer["status"])
"""


def windows_path(path: Path | str) -> str:
    """Return the path in Windows' form. Wine's drive Z is all of Linux."""
    return "Z:" + str(path).replace("/", "\\")


def _linux_value(value: str) -> str:
    return value[2:].replace("\\", "/") if value[:3] in ("Z:\\", "Z:/") else value


#: The folder of the Windows user, which is the home of the user's git.
_PROFILE = re.compile(r"[Cc]:[\\/]users[\\/][^\\/]+", re.IGNORECASE)


def _in_the_home(word: str, home: str) -> str:
    found = _PROFILE.match(word)
    return home + word[found.end() :].replace("\\", "/") if found else word


class _Bridge(socketserver.ThreadingTCPServer):
    daemon_threads = True
    #: The home of this user's git configuration, because Wine does not pass HOME on.
    home: Path


class _Asked(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Bridge)
        home = str(self.server.home)
        asked = json.loads(self.rfile.readline())
        passed_on = {
            name: _linux_value(value) for name, value in asked["environment"].items() if name.startswith("GIT_")
        }
        done = subprocess.run(
            ["git", *(_in_the_home(word, home) for word in asked["arguments"])],
            cwd=_linux_value(asked["cwd"]) if asked["cwd"].startswith("Z:") else "/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": home, **passed_on},
        )
        answer = {"output": done.stdout.hex(), "errors": done.stderr.hex(), "status": done.returncode}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


@dataclass
class Windows:
    """The machine: a user's profile, an environment without the tests' variables, and the installed command."""

    prefix: Path
    python: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> Path:
        """The .exe that pip made."""
        return self.python / "Scripts/git-credential-bbjwt.exe"

    @property
    def data(self) -> Path:
        """The user's local application data."""
        return self.prefix / "drive_c/users" / os.environ.get("USER", "root") / "AppData/Local/git-credential-bbjwt"

    def start(self, *words: str | Path, cwd: Path | None = None, **changes: str | None) -> subprocess.Popen[bytes]:
        """Start a Windows program."""
        merged: dict[str, str | None] = {**self.environment, **changes}
        return subprocess.Popen(
            ["wine", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd or self.prefix,
            env={name: value for name, value in merged.items() if value is not None},
        )

    def run(
        self,
        *words: str | Path,
        data: bytes = b"\n",
        cwd: Path | None = None,
        check: bool = True,
        **changes: str | None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a Windows program."""
        with self.start(*words, cwd=cwd, **changes) as process:
            output, errors = process.communicate(data, timeout=PATIENCE)
        assert b"Traceback" not in errors, errors.decode()
        if check:
            assert process.returncode == 0, (words, errors.decode())
        return subprocess.CompletedProcess(words, process.returncode, output, errors)

    def bbjwt(
        self,
        *words: str,
        data: bytes = b"\n",
        cwd: Path | None = None,
        check: bool = True,
        **changes: str | None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the installed command."""
        return self.run(self.command, *words, data=data, cwd=cwd, check=check, **changes)


@pytest.fixture(scope="session")
def windows_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    """Windows with the project installed by ``pip install .``."""
    need("wine")
    if not _PYTHON.exists():
        cannot("there is no Windows Python: tests/run --windows makes one")
    folder = tmp_path_factory.mktemp("windows")
    prefix, python = folder / "prefix", folder / "python"
    shutil.copytree(_PYTHON, python)
    sources = folder / "sources"
    sources.mkdir()
    # The working tree, including changes that are not committed.
    git = ["git", "-C", str(PROJECT)]
    changed = subprocess.run([*git, "stash", "create"], capture_output=True, check=True, text=True).stdout.strip()
    subprocess.run([*git, "archive", changed or "HEAD", "-o", str(folder / "sources.tar")], check=True)
    subprocess.run(["tar", "-xf", folder / "sources.tar", "-C", sources], check=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/root"),
        "WINEPREFIX": str(prefix),
        "WINEDEBUG": "-all",
        "WINEPATH": windows_path(python / "Scripts"),
    }
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    prefix.mkdir()
    server = shutil.which("wineserver", path=f"{os.environ['PATH']}:/usr/lib/wine") or cannot("there is no wineserver")
    # Processes in the background must not inherit a pipe, because somebody may wait for its end.
    subprocess.run([server, "-p"], env=environment, check=True, **silent)  # type: ignore[call-overload]  # all are streams
    subprocess.run(["wine", "cmd", "/c", "exit"], env=environment, check=True, **silent)  # type: ignore[call-overload]  # all are streams
    machine = Windows(prefix, python, environment)
    try:
        pip: list[str | Path] = [python / "python.exe", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        machine.run(*pip, "--no-build-isolation", windows_path(sources))
        machine.run(*pip, windows_path(_git_wheel(folder)))
        yield machine
    finally:
        subprocess.run([server, "-k"], env=environment, check=False, **silent)  # type: ignore[call-overload]  # all are streams


def _git_wheel(folder: Path) -> Path:
    """A package whose command is ``git.exe``."""
    path = folder / "git_bridge-1-py3-none-any.whl"
    about = "git_bridge-1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("git_bridge.py", _GIT_EXE)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: git-bridge\nVersion: 1\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/entry_points.txt", "[console_scripts]\ngit = git_bridge:main\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path


@dataclass
class Scene:
    """The usual scene: an app on the workspace acme with the repository widgets, known to Windows by a file."""

    windows: Windows
    bitbucket: Emulator
    app: App
    widgets: HostedRepository
    installation: Path
    home: Path

    @property
    def request(self) -> bytes:
        """Return git's request for acme/widgets."""
        return f"protocol=https\nhost={self.bitbucket.host}\npath=acme/widgets.git\n\n".encode()

    def get(self, *options: str, check: bool = True, **changes: str | None) -> subprocess.CompletedProcess[bytes]:
        """Ask the helper for acme/widgets."""
        return self.windows.bbjwt(*options, "get", data=self.request, check=check, cwd=None, **changes)

    def start(self) -> subprocess.Popen[bytes]:
        """Ask the helper without waiting for it."""
        process = self.windows.start(self.windows.command, "get")
        assert process.stdin is not None
        process.stdin.write(self.request)
        process.stdin.close()
        process.stdin = None
        return process

    def wait_until_asked(self) -> None:
        """Wait until Bitbucket has received a request."""
        end = time.monotonic() + PATIENCE
        while not self.bitbucket.seen and time.monotonic() < end:
            time.sleep(0.02)


@pytest.fixture
def scene(windows_machine: Windows, tmp_path: Path) -> Iterator[Scene]:
    """The usual scene, with nothing kept from another test."""
    shutil.rmtree(windows_machine.data, ignore_errors=True)
    home = tmp_path / "home"
    home.mkdir()
    # The helper looks for git's configuration in the profile.
    seen = windows_machine.data.parents[2] / ".gitconfig"
    seen.unlink(missing_ok=True)
    seen.symlink_to(home / ".gitconfig")
    with Emulator(tmp_path / "bitbucket") as bitbucket, _Bridge(("127.0.0.1", 0), _Asked) as bridge:
        bridge.home = home
        threading.Thread(target=bridge.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        app = bitbucket.install("acme")
        widgets = bitbucket.host_repository("acme/widgets")
        installation = home / "installation.json"
        installation.write_text(json.dumps(bitbucket.payload(app)))
        installation.chmod(0o600)
        environment = {
            **windows_machine.environment,
            "BRIDGE": str(bridge.server_address[1]),
            "BBJWT_INSTALLATION": windows_path(installation),
            "SSL_CERT_FILE": windows_path(bitbucket.ca_file),
        }
        machine = Windows(windows_machine.prefix, windows_machine.python, environment)
        yield Scene(machine, bitbucket, app, widgets, installation, home)
        bridge.shutdown()
