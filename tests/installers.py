"""Fixtures for install.sh: the wheels that it installs, and machines with different installers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import PROJECT, Machine, cannot, shared_folder, takes_long

INSTALLER = PROJECT / "install.sh"

#: Packages with the keyring backends that are tested, for `install.sh --with`.
BACKENDS = ("keyring-pass", "keyrings.alt", "keyrings.cryptfile", "pycryptodome")


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of the project, its dependencies, the keyring backends and other installers."""
    takes_long("to fetch packages and install them takes a minute")

    def fill(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        only_locked = ["download", "-q", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        locks = (PROJECT / "git_credential_bbjwt/installed").glob("locked*.txt")
        calls: list[list[str | Path]] = [[*pip, *only_locked, "-d", folder, "-r", lock] for lock in locks]
        calls.append([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder])
        calls.append([*pip, "wheel", "-q", "--wheel-dir", folder, "pip", "pipx", "uv", "virtualenv", *BACKENDS])
        for call in calls:
            done = subprocess.run(call, capture_output=True, cwd=PROJECT)
            if done.returncode != 0:
                cannot(f"the wheels cannot be downloaded: {done.stderr.decode()[-300:]}")

    return shared_folder(tmp_path_factory, "wheelhouse", fill)


@pytest.fixture(scope="session")
def tools(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the other installers' commands."""

    def fill(folder: Path) -> None:
        (wheel,) = wheelhouse.glob("uv-*.whl")
        with zipfile.ZipFile(wheel) as packed:
            (name,) = (name for name in packed.namelist() if name.endswith("/scripts/uv"))
            uv = folder / "uv"
            uv.write_bytes(packed.read(name))
        uv.chmod(0o755)
        subprocess.run([uv, "--no-config", "venv", "-q", folder / "others"], check=True)
        offline = ["--no-index", "--find-links", str(wheelhouse), "--python", str(folder / "others")]
        subprocess.run([uv, "--no-config", "pip", "install", "-q", *offline, "pipx", "virtualenv"], check=True)
        for other in ("pipx", "virtualenv"):
            (folder / other).symlink_to(folder / "others/bin" / other)

    return shared_folder(tmp_path_factory, "tools", fill)


_NO_INDEX = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "https://localhost:1/", "UV_OFFLINE": "1"}


@pytest.fixture
def fresh(machine: Machine) -> Machine:
    """A machine with only git and Python, and without a package index."""
    machine.environment |= {"PATH": "/usr/bin:/bin", "PYTHON": os.path.realpath(sys.executable), **_NO_INDEX}
    return machine


@pytest.fixture
def with_uv(machine: Machine, uv_for_venv: dict[str, str]) -> Machine:
    """A machine with uv instead of venv and pip, for tests that are not about pip: it takes a third of the time."""
    machine.environment |= uv_for_venv
    return machine


@pytest.fixture(scope="session")
def uv_for_venv(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables for a Python without venv, with uv on PATH."""

    def fill(folder: Path) -> None:
        (folder / "uv").symlink_to(tools / "uv")
        make_python_without_venv(folder / "python3")

    folder = shared_folder(tmp_path_factory, "uv-for-venv", fill)
    return {"PATH": f"{folder}:/usr/bin:/bin", "UV_CACHE_DIR": f"{folder}/cache", **_NO_INDEX}


def make_python_without_venv(path: Path) -> None:
    """Write a Python that cannot make environments, as Debian's cannot."""
    real = os.path.realpath(sys.executable)
    path.write_text(f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec "{real}" "$@"\n')
    path.chmod(0o755)


@pytest.fixture(scope="session")
def home_with_backends(uv_for_venv: dict[str, str], wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the command and the keyring backends from install.sh; shared by all worker processes."""

    def fill(home: Path) -> None:
        options = [word for package in BACKENDS for word in ("--with", package)]
        install(Machine(home, {**uv_for_venv, "HOME": str(home)}), wheelhouse, "--no-configure", *options)
        # Fewer rounds over the file's password, because they take seconds of each call.
        (cryptfile,) = home.glob(".local/share/*/current/lib/*/site-packages/keyrings/cryptfile/cryptfile.py")
        cheap, changed = re.subn("(?m)^DEFAULT_TIME_COST = .*", "DEFAULT_TIME_COST = 1", cryptfile.read_text())
        assert changed == 1
        cryptfile.unlink()
        cryptfile.write_text(cheap)

    return shared_folder(tmp_path_factory, "home-with-backends", fill)


def install(
    machine: Machine,
    wheelhouse: Path,
    *arguments: str | Path,
    check: bool = True,
    shell: str = "sh",
    installer: Path = INSTALLER,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run install.sh without a network."""
    command = [*shell.split(), installer, "--wheelhouse", wheelhouse, *arguments]
    return machine.run(*command, check=check, cwd=cwd)


def environments(machine: Machine) -> set[Path]:
    """Return the environments that install.sh made for a machine's user."""
    return set((machine.home / ".local/share/git-credential-bbjwt").glob("environment-*"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project, to change or to compare."""
    ignored = shutil.ignore_patterns(".git", ".cache", "__pycache__", ".*_cache")
    return shutil.copytree(PROJECT, tmp_path / "checkout", ignore=ignored)


def installed(machine: Machine) -> Path:
    """Return the command that install.sh has installed."""
    return machine.home / ".local/bin/git-credential-bbjwt"
