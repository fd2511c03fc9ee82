"""The base of all tests: the installed command, a machine for each test, and Bitbucket on loopback."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pty
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import pytest

from tests import tally
from tests.clock import CLOCK, LOOK
from tests.emulator import App, Emulator, HostedRepository

#: The fixtures for install.sh and for mints in this process are in files of their own.
pytest_plugins = ["tests.installers", "tests.mint"]

#: The command that an installer put beside the interpreter of the tests.
COMMAND = Path(sys.executable).with_name("git-credential-bbjwt")

#: The project's own folder.
PROJECT = Path(__file__).parent.parent

#: The folder of COMMAND's package.
INSTALLED = sysconfig.get_path("purelib")

#: Whether no test may be skipped: with ``tests/run --all``, as in CI.
EVERYTHING = bool(os.environ.get("BBJWT_TEST_ALL"))

# If the suite is run by `nohup` or in the background of a script, its processes would ignore these signals.
for _number, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

#: Seconds that a test waits for a process at most.
PATIENCE = 120

#: Seconds after its `--timeout` by which a call must end, even on a busy machine. No other time is asserted.
LATE = 5


# A separate folder in memory, because parallel tests must not share the machine's.

SHARED_MEMORY = Path("/dev/shm")


def _mount_own_shared_memory() -> bool:
    """Give this process and its children their own /dev/shm (mount_namespaces(7)); return whether that worked."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private_and_all_below = 0x20000, 0x4000 | 0x40000
    return bool(
        libc.unshare(new_namespace) == 0
        and libc.mount(b"none", b"/", None, private_and_all_below, None) == 0
        and libc.mount(b"tmpfs", bytes(SHARED_MEMORY), b"tmpfs", 0, b"size=64m") == 0
    )


OWN_SHARED_MEMORY = _mount_own_shared_memory()


@pytest.fixture
def shared_memory() -> Path:
    """The folder in /dev/shm for tokens without a runtime folder. It does not exist yet."""
    if not OWN_SHARED_MEMORY:
        cannot("this system allows no /dev/shm of the test's own")
    folder = SHARED_MEMORY / f"git-credential-bbjwt-{os.geteuid()}"
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    return folder


# The end of the suite.


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        tally.note(report.user_properties)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the versions that worked and the reasons for skips; pytest's summary of failures comes after it."""
    if hasattr(terminalreporter.config, "workerinput"):
        return  # A worker knows only its own tests.
    skipped = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    for title, lines in {
        "seen to work": tally.versions(),
        "skipped": [f"{count:4}  {reason}" for reason, count in skipped.most_common()],
    }.items():
        if lines:
            terminalreporter.section(title)
            for line in lines:
                terminalreporter.line(line)


_SLOW = re.compile(r"^git-credential-bbjwt: still (?:checking|reading|starting|waiting)\b.*\n", re.MULTILINE)


@dataclass
class Machine:
    """A user of a machine: a home, an environment without the helper's variables, and the installed command."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def env(self, also: Mapping[str, str | None] = MappingProxyType({}), **changes: str | None) -> dict[str, str]:
        """The environment for a process; a change to None removes a variable."""
        merged: dict[str, str | None] = {**self.environment, **also, **changes}
        return {name: value for name, value in merged.items() if value is not None}

    def run(
        self,
        *arguments: str | Path,
        data: str | bytes = b"",
        check: bool = True,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user. A note after 3 s is left out of its errors, because the machine may be busy."""
        done = subprocess.run(
            [str(argument) for argument in arguments],
            input=data.encode() if isinstance(data, str) else data,
            capture_output=True,
            env=env or self.env(),
            cwd=cwd or self.home,
            timeout=PATIENCE,
        )
        errors = _SLOW.sub("", done.stderr.decode("utf-8", "replace"))
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode("utf-8", "replace"), errors)
        assert "Traceback" not in result.stderr, result.stderr
        if check:
            assert result.returncode == 0, f"{result.args}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    def bbjwt(
        self,
        *arguments: str | Path,
        data: str | bytes = b"",
        check: bool = True,
        also: Mapping[str, str | None] = MappingProxyType({}),
        **changes: str | None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the installed command, with changes to the environment."""
        return self.run(COMMAND, *arguments, data=data, check=check, env=self.env(also, **changes))

    def at_terminal(self, *arguments: str, with_errors: bool = True, check: bool = True, **changes: str | None) -> str:
        """Return what the installed command shows at a terminal: its output, and its errors if ``with_errors``."""
        terminal, screen = pty.openpty()
        with subprocess.Popen(
            [COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=screen,
            stderr=screen if with_errors else subprocess.DEVNULL,
            env=self.env(changes, TERM="xterm"),
            cwd=self.home,
        ) as running:
            os.close(screen)
            shown = b""
            with contextlib.suppress(OSError):  # Linux raises this at the end of a terminal's output.
                while piece := os.read(terminal, 4096):
                    shown += piece
            status = running.wait(PATIENCE)
        os.close(terminal)
        assert status == 0 or not check, shown
        return shown.decode().replace("\r\n", "\n")

    def imports_of(self, operation: str, url: str, *options: str) -> set[str]:
        """Return the modules that an operation for ``url`` imports if install.sh's launcher starts it."""
        run = f"import sys; sys.path.insert(0, {INSTALLED!r}); from git_credential_bbjwt.entry import main; "
        run += f"main({[*options, operation]!r})"
        shown = self.run(sys.executable, "-ISXutf8", "-X", "importtime", "-c", run, data=request(url) + "\n").stderr
        return {line.rpartition("|")[2].strip() for line in shown.splitlines() if line.startswith("import time:")}

    def get(
        self,
        url: str,
        *options: str,
        extra: str = "",
        check: bool = True,
        also: Mapping[str, str | None] = MappingProxyType({}),
        **changes: str | None,
    ) -> subprocess.CompletedProcess[str]:
        """Ask the helper as git would for ``url``."""
        data = request(url) + extra + "\n"
        return self.bbjwt(*options, "get", data=data, check=check, also=also, **changes)

    def git(
        self,
        *arguments: str | Path,
        check: bool = True,
        cwd: Path | None = None,
        also: Mapping[str, str | None] = MappingProxyType({}),
        **changes: str | None,
    ) -> subprocess.CompletedProcess[str]:
        """Run git."""
        git = shutil.which("git", path=self.environment["PATH"]) or "git"
        return self.run(git, *arguments, check=check, cwd=cwd, env=self.env(also, **changes))

    @property
    def runtime(self) -> Path:
        """The user's runtime folder."""
        return Path(self.environment["XDG_RUNTIME_DIR"])

    def records(self) -> list[Path]:
        """Return the files of the token cache's records."""
        found = (self.runtime / "git-credential-bbjwt").glob("??/??/*")
        return sorted(path for path in found if "~" not in path.name)


def start(machine: Machine, url: str, *options: str) -> subprocess.Popen[bytes]:
    """Start the helper for ``url`` without waiting for it."""
    process = subprocess.Popen(
        [COMMAND, *options, "get"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=machine.env(),
    )
    assert process.stdin is not None
    process.stdin.write(request(url).encode() + b"\n")
    process.stdin.close()
    return process


def finish(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for a helper; return its answer."""
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        output, errors = process.stdout.read(), process.stderr.read()
        process.wait(PATIENCE)
    assert b"Traceback" not in errors
    return output


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until ``condition()`` is true. Stalls of the machine are not counted."""
    end = CLOCK.running + seconds
    while not condition():
        assert CLOCK.running < end
        time.sleep(LOOK)


@contextlib.contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """Assert that a block ends within ``seconds``, the time of its call, and LATE seconds. Stalls are not counted."""
    started = CLOCK.running
    yield
    assert CLOCK.running - started < seconds + LATE


def is_running(pid: int) -> bool:
    """Return whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until_asked(bitbucket: Emulator) -> None:
    """Wait until Bitbucket has received a request."""
    until(lambda: bool(bitbucket.seen))


def request(url: str) -> str:
    """Return git's attributes for ``url``, without the blank line at the end."""
    protocol, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"protocol={protocol}\nhost={host}\n" + (f"path={path}\n" if path else "")


def answer(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the attributes of a helper's answer."""
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def assert_quits(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert that git is told to quit, and that there is one error and one hint that contain ``words``."""
    assert "password" not in done.stdout, done.stderr
    assert (done.stdout, done.returncode) == ("quit=1\n", 1), done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("git-credential-bbjwt: error: ")
    assert hint.startswith("hint: ")
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A new user with an empty home and a runtime folder."""
    home, runtime = tmp_path / "home", tmp_path / "run"
    home.mkdir()
    runtime.mkdir(mode=0o700)
    path = os.pathsep.join([str(COMMAND.parent), os.environ["PATH"]])
    environment = {
        "HOME": str(home),
        "PATH": path,
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_CONFIG_DIRS": str(tmp_path / "etc"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.invalid",
        "GIT_COMMITTER_NAME": "A",
        "GIT_COMMITTER_EMAIL": "a@example.invalid",
    }
    return Machine(home, environment)


#: The gits to test with: BBJWT_TEST_GITS lists their executables, separated as in PATH; else the system's.
GITS = os.environ.get("BBJWT_TEST_GITS", shutil.which("git") or "git").split(os.pathsep)


@pytest.fixture(params=GITS)
def each_git(request: pytest.FixtureRequest, machine: Machine) -> tuple[int, ...]:
    """Make ``machine`` use one git after the other; return its version, such as (2, 39, 5)."""
    folder = os.path.dirname(request.param)
    machine.environment["PATH"] = os.pathsep.join([folder, machine.environment["PATH"]])
    return tuple(int(part) for part in machine.git("version").stdout.split()[2].split(".")[:3])


def pretend_git(machine: Machine, version: str) -> None:
    """Make ``machine``'s git report ``version``; it works as before."""
    git = machine.home / "another-git" / "git"
    git.parent.mkdir()
    real = shutil.which("git", path=machine.environment["PATH"])
    git.write_text(f'#!/bin/sh\n[ "$1" != version ] || exec echo git version {version}\nexec {real} "$@"\n')
    git.chmod(0o755)
    machine.environment["PATH"] = os.pathsep.join([str(git.parent), machine.environment["PATH"]])


@pytest.fixture
def git_3(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make ``machine`` and the emulator use a git with the defaults of git 3.0; return it."""
    real = shutil.which("git", path=machine.environment["PATH"])
    git = tmp_path / "git-3" / "git"
    git.parent.mkdir()
    git.write_text(f"""#!/bin/sh
export GIT_DEFAULT_HASH="${{GIT_DEFAULT_HASH:-sha256}}" GIT_DEFAULT_REF_FORMAT="${{GIT_DEFAULT_REF_FORMAT:-reftable}}"
exec {real} -c safe.bareRepository=explicit "$@"
""")
    git.chmod(0o755)
    for environment in (machine.environment, os.environ):
        monkeypatch.setitem(environment, "PATH", os.pathsep.join([str(git.parent), environment["PATH"]]))
    return git


@pytest.fixture
def bitbucket(tmp_path: Path) -> Iterator[Emulator]:
    """Bitbucket on loopback, with nothing in it."""
    with Emulator(tmp_path / "bitbucket") as emulator:
        yield emulator


@dataclass
class Workspace:
    """The usual scene: an app on the workspace acme with the repository widgets, known to a machine by a file."""

    machine: Machine
    bitbucket: Emulator
    app: App
    widgets: HostedRepository
    installation: Path

    @property
    def url(self) -> str:
        """The clone URL of acme/widgets."""
        return self.bitbucket.url(self.widgets)

    def write_installation(self, **changes: Any) -> None:
        """Write the payload's file again."""
        self.installation.write_text(json.dumps(self.bitbucket.payload(self.app, **changes)))
        self.installation.chmod(0o600)

    def write_personal_installation(self) -> None:
        """Write the payload of a personal workspace, which names the workspace only by its UUID."""
        self.write_installation(principal={"type": "user", "uuid": self.app.workspace_uuid, "nickname": "somebody"})

    def get(
        self,
        *options: str,
        extra: str = "",
        check: bool = True,
        also: Mapping[str, str | None] = MappingProxyType({}),
        **changes: str | None,
    ) -> subprocess.CompletedProcess[str]:
        """Ask the helper for acme/widgets."""
        return self.machine.get(self.url, *options, extra=extra, check=check, also=also, **changes)


@pytest.fixture
def acme(machine: Machine, bitbucket: Emulator) -> Workspace:
    """The usual scene, with git set up as `configure` would."""
    app = bitbucket.install("acme")
    widgets = bitbucket.host_repository("acme/widgets")
    installation = machine.home / "installation.json"
    scene = Workspace(machine, bitbucket, app, widgets, installation)
    scene.write_installation()
    machine.environment |= {
        "BBJWT_INSTALLATION": str(installation),
        "SSL_CERT_FILE": str(bitbucket.ca_file),
        "GIT_SSL_CAINFO": str(bitbucket.ca_file),
    }
    settings = f'[credential "{bitbucket.base_url}"]\n\thelper = bbjwt\n\tuseHttpPath = true\n'
    (machine.home / ".gitconfig").write_text(settings)
    return scene


@pytest.fixture
def unregistered(acme: Workspace) -> Workspace:
    """The usual scene on a machine that does not know the installation."""
    del acme.machine.environment["BBJWT_INSTALLATION"]
    return acme


def files_holding(folder: Path, secret: str) -> list[Path]:
    """Return all files below ``folder`` that contain ``secret``."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def registry_of(machine: Machine) -> Path:
    """Return the user registry."""
    return machine.home / ".config/git-credential-bbjwt/installations"


def entries_of(machine: Machine) -> list[Path]:
    """Return the files of the user registry that hold entries, one for each workspace."""
    return sorted(registry_of(machine).glob("*/[!{]*"))


def state_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the state line of an answer."""
    return next(line for line in done.stdout.splitlines() if line.startswith("state[]="))


@pytest.fixture
def another_user() -> int:
    """The number of another user of this machine."""
    if os.geteuid() != 0:
        cannot("only root can act as another user")
    return 65_534


def shared_folder(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], None]) -> Path:
    """Return a folder that one worker process makes and ``fill``s for all, because that takes long."""
    folder = factory.getbasetemp().parent / name
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.with_suffix(".done")
        if not done.exists():
            folder.mkdir()
            fill(folder)
            done.touch()
    return folder


def free_port() -> int:
    """Return a port of loopback without a listener.

    It is below the ports that the system gives to others (ip(7), "ip_local_port_range"), so it stays free.
    """
    while True:
        port = random.randrange(10_000, 32_768)  # noqa: S311  # a port, no key
        with contextlib.suppress(OSError), socket.socket() as listening:
            listening.bind(("127.0.0.1", port))
            return port


def cannot(reason: str) -> NoReturn:
    """Skip a test that cannot be run here; with `tests/run --all`, fail it."""
    if EVERYTHING:
        pytest.fail(f"{reason}, and nothing may be skipped")
    pytest.skip(reason)


def takes_long(what: str) -> None:
    """Skip the rest of a test without ``tests/run --all``, because it takes long."""
    if not EVERYTHING:
        pytest.skip(f"{what}: tests/run --all does that")


def client_python() -> Path:
    """Return the Python with git libraries and tools, which ``tests/run --all`` installs."""
    python = PROJECT / ".cache/clients/bin/python"
    return python if python.exists() else cannot("the libraries are not installed: tests/run --all does that")


def need(program: str) -> str:
    """Return the path of ``program``, without which a test cannot be run."""
    return shutil.which(program) or cannot(f"{program} is not installed")
