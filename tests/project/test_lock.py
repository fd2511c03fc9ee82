"""The locks: they cover all code from an index, and one changed digit stops the installation."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import PROJECT, Machine
from tests.installers import INSTALLER, environments, install, installed

INSTALLED = PROJECT / "git_credential_bbjwt/installed"

#: The locks, with the lists of pyproject.toml that each must satisfy.
LOCKS = {
    INSTALLED / "locked.txt": ["dependencies"],
    INSTALLED / "locked-demo.txt": ["dependencies", "demo"],
    INSTALLED / "locked-broker.txt": ["dependencies", "broker"],
    INSTALLED / "locked-build.txt": ["requires"],
    INSTALLED / "locked-pip.txt": [],
    PROJECT / "tests/locked-test.txt": ["dependencies", "demo", "test"],
    PROJECT / "tests/locked-lint.txt": ["dependencies", "demo", "test", "lint"],
}
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SYSTEMS = {"linux": ("Linux", "posix"), "darwin": ("Darwin", "posix"), "win32": ("Windows", "nt")}


def locked(lock: Path) -> list[tuple[Requirement, list[str]]]:
    """Return each requirement of a lock, with its hashes."""
    entries = lock.read_text().replace("\\\n", " ").splitlines()
    found = []
    for entry in entries:
        requirement, *hashes = re.split(r"\s--hash=", entry)
        found.append((Requirement(requirement.strip()), [one.strip() for one in hashes]))
    return found


def asked_for(part: str) -> list[Requirement]:
    """Return the requirements in a list of pyproject.toml."""
    text = (PROJECT / "pyproject.toml").read_text()
    found = re.search(rf"^{part} = \[(.*?)\]\s*$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    listed = re.findall(r'^[^#"\n]*"([^"]+)"|, "([^"]+)"', found[1], re.MULTILINE)
    names = [one or other for one, other in listed]
    return [Requirement(name) for name in names if not name.startswith("git-credential-bbjwt")]


def test_requirements_of_pyproject_are_found() -> None:
    assert [one.name for one in asked_for("requires")] == ["hatchling", "shtab"]
    assert {"keyring", "python-socks", "truststore"} <= {one.name for one in asked_for("dependencies")}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_each_lock_fits_pyproject_on_every_python_and_system(lock: Path) -> None:
    entries = locked(lock)
    assert all(
        len(hashes) > 0 and all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes) for _, hashes in entries
    )
    for python, system in itertools.product(PYTHONS, SYSTEMS):
        environment = {
            "python_version": python,
            "python_full_version": f"{python}.1",
            "sys_platform": system,
            "platform_system": SYSTEMS[system][0],
            "os_name": SYSTEMS[system][1],
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": "",
        }
        chosen: dict[str, str] = {}
        for requirement, _ in entries:
            if requirement.marker is None or requirement.marker.evaluate(environment):
                name = canonicalize_name(requirement.name)
                assert name not in chosen, f"{name} twice on {python}, {system}"
                (specifier,) = requirement.specifier
                assert specifier.operator == "=="
                chosen[name] = specifier.version
        for part in LOCKS[lock]:
            for wanted in asked_for(part):
                if wanted.marker is None or wanted.marker.evaluate(environment):
                    assert chosen[canonicalize_name(wanted.name)] in wanted.specifier, f"{wanted} on {python}, {system}"


def test_package_in_two_locks_has_the_same_version() -> None:
    runtime = {(one.name, str(one.specifier), str(one.marker)) for one, _ in locked(INSTALLED / "locked.txt")}
    for lock in LOCKS:
        if "dependencies" in LOCKS[lock]:
            versions = {(one.name, str(one.specifier)) for one, _ in locked(lock)}
            assert {(name, version) for name, version, _ in runtime} <= versions, lock


@pytest.mark.parametrize("lock", ["locked.txt", "locked-build.txt"])
def test_one_changed_digit_stops_the_installation_before_anything_runs(
    fresh: Machine, wheelhouse: Path, checkout: Path, lock: str
) -> None:
    file = checkout / "git_credential_bbjwt/installed" / lock
    file.write_text(re.sub(r"sha256:[0-9a-f]", "sha256:z", file.read_text()).replace("sha256:z", "sha256:0"))
    without_ours = fresh.home / "wheels"
    without_ours.mkdir()
    for wheel in wheelhouse.iterdir():
        if not wheel.name.startswith("git_credential_bbjwt"):
            (without_ours / wheel.name).symlink_to(wheel)
    before = sorted(path for path in fresh.home.rglob("*") if "wheels" not in path.parts)
    installer = checkout / "install.sh"
    done = fresh.run("sh", installer, "--wheelhouse", without_ours, "--no-configure", check=False)

    assert done.returncode == 1
    assert lock in done.stderr
    assert "hash" in done.stderr.lower()
    assert "--latest" in done.stderr
    assert not installed(fresh).exists()
    made = [path for path in fresh.home.rglob("*") if path.is_file() and "wheels" not in path.parts]
    assert made == [path for path in before if path.is_file()]


def test_installation_from_sources_uses_only_locked_packages(with_uv: Machine, tools: Path, wheelhouse: Path) -> None:
    # With pip, tests/run does the same before any test.
    machine = with_uv
    without_ours = machine.home / "wheels"
    without_ours.mkdir()
    for wheel in wheelhouse.iterdir():
        if not wheel.name.startswith("git_credential_bbjwt"):
            (without_ours / wheel.name).symlink_to(wheel)
    install(machine, without_ours, "--no-configure")

    assert machine.run(installed(machine), "capability").stdout == "version 0\ncapability state\n"
    (environment,) = environments(machine)
    uv = [str(tools / "uv"), "--no-config", "pip"]
    there = json.loads(machine.run(*uv, "list", "--format=json", "--python", environment).stdout)
    names = {canonicalize_name(one["name"]) for one in there} - {"git-credential-bbjwt"}
    assert names <= {canonicalize_name(one.name) for one, _ in locked(INSTALLED / "locked.txt")}
    # The lock is complete: no installed package lacks a dependency.
    assert "All installed packages are compatible" in machine.run(*uv, "check", "--python", environment).stderr
    assert not (environment / "build").exists()


def test_packages_that_are_not_locked_are_named(with_uv: Machine, wheelhouse: Path) -> None:
    done = install(with_uv, wheelhouse, "--no-configure", "--latest", "--with", "shtab")

    assert "the newest packages that pyproject.toml allows, as --latest asks for; they are not locked" in done.stderr
    assert "what --with asked for, which is not locked: shtab" in done.stderr
    assert with_uv.run(installed(with_uv), "capability").returncode == 0


def test_the_project_names_no_index() -> None:
    for lock in LOCKS:
        text = lock.read_text()
        assert "index-url" not in text
        assert not re.search(r"https?://", text), lock
    assert "index-url" not in INSTALLER.read_text()


def test_this_python_is_one_of_the_locks_pythons() -> None:
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in PYTHONS
