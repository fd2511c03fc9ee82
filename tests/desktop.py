"""A real Secret Service for a machine: a D-Bus session and gnome-keyring of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.conftest import Machine, need


@contextmanager
def session(machine: Machine, *, unlocked: bool = True) -> Iterator[None]:
    """Run a D-Bus session with gnome-keyring; ``machine``'s processes use it from now on."""
    need("gnome-keyring-daemon")
    with subprocess.Popen(
        [need("dbus-daemon"), "--session", "--nofork", "--print-address"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=machine.env(),
    ) as bus:
        assert bus.stdout is not None
        machine.environment["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().decode().strip()
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
                bus.terminate()
    machine.environment.pop("DBUS_SESSION_BUS_ADDRESS")


def _wait(machine: Machine) -> None:
    from secretstorage import check_service_availability

    for _ in range(500):
        with _bus(machine) as bus:
            if check_service_availability(bus):
                return
        time.sleep(0.01)
    raise AssertionError("gnome-keyring did not come up")


def lock(machine: Machine) -> None:
    """Lock the default collection."""
    from secretstorage import Collection

    with _bus(machine) as bus:
        Collection(bus).lock()


@contextmanager
def _bus(machine: Machine) -> Iterator[Any]:
    # Here and not above: they are installed on Linux alone.
    from jeepney.io.blocking import open_dbus_connection

    with closing(open_dbus_connection(machine.environment["DBUS_SESSION_BUS_ADDRESS"])) as bus:
        yield bus
