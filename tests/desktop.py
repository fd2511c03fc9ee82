"""A real Secret Service for a machine: a D-Bus session and gnome-keyring of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
    script = "import secretstorage as s; exit(not s.check_service_availability(s.dbus_init()))"
    for _ in range(100):
        if machine.run(sys.executable, "-c", script, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError("gnome-keyring did not come up")


def lock(machine: Machine) -> None:
    """Lock the default collection."""
    script = "import secretstorage as s; s.Collection(s.dbus_init()).lock()"
    machine.run(sys.executable, "-c", script)
