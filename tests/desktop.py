"""A real Secret Service for a machine: its own D-Bus session and gnome-keyring."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import PROJECT, Machine, need, until


@contextmanager
def bus(machine: Machine, *options: str) -> Iterator[None]:
    """Run a D-Bus session; ``machine``'s processes use it from now on."""
    with subprocess.Popen(
        [need("dbus-daemon"), "--session", "--nofork", "--print-address", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=machine.env(),
    ) as daemon:
        assert daemon.stdout is not None
        machine.environment["DBUS_SESSION_BUS_ADDRESS"] = daemon.stdout.readline().decode().strip()
        try:
            yield
        finally:
            daemon.terminate()
    machine.environment.pop("DBUS_SESSION_BUS_ADDRESS", None)


@contextmanager
def session(machine: Machine, *bus_options: str, unlocked: bool = True) -> Iterator[None]:
    """Run a D-Bus session with gnome-keyring; ``machine``'s processes use it from now on."""
    need("gnome-keyring-daemon")
    with bus(machine, *bus_options):
        unlock = ["--unlock"] if unlocked else []
        with subprocess.Popen(
            ["gnome-keyring-daemon", "--foreground", "--components=secrets", *unlock],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=machine.env(),
        ) as daemon:
            assert daemon.stdin is not None
            daemon.stdin.write(b"a password\n")
            daemon.stdin.close()
            try:
                _wait(machine)
                yield
            finally:
                daemon.terminate()


@contextmanager
def service(machine: Machine, kind: str, record: Path) -> Iterator[None]:
    """Run a D-Bus session with `tests.secret_stores.service`, which writes what it does into the file ``record``."""
    with bus(machine), record.open("wb") as lines:
        command = [sys.executable, "-B", "-m", "tests.secret_stores.service", kind]
        with subprocess.Popen(command, stdout=lines, env=machine.env(), cwd=PROJECT) as running:
            try:
                until(lambda: bool(record.stat().st_size))
                yield
            finally:
                running.terminate()


def _wait(machine: Machine) -> None:
    from secretstorage import check_service_availability

    def is_up() -> bool:
        with _bus(machine) as bus:
            return bool(check_service_availability(bus))

    until(is_up)


def lock(machine: Machine) -> None:
    """Lock the default collection."""
    from secretstorage import Collection

    with _bus(machine) as bus:
        Collection(bus).lock()


@contextmanager
def _bus(machine: Machine) -> Iterator[Any]:
    # Imported here, because they are installed only on Linux.
    from jeepney.io.blocking import open_dbus_connection

    with closing(open_dbus_connection(machine.environment["DBUS_SESSION_BUS_ADDRESS"])) as bus:
        yield bus
