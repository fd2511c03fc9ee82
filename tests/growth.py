"""``tests/run --growth``: the commands' cost with 1 to 100,000 registered installations and as many cached tokens.

Whole processes are measured in turn over all sizes in one run, as medians and as ratios to the cost with one.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from git_credential_bbjwt.system.private_folder import PrivateFolder
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.slot import Slot
from tests.emulator import Emulator
from tests.properties import whole_record

#: The sizes of ``--growth``.
SIZES = tuple(int(size) for size in os.environ.get("BBJWT_BENCHMARK_SIZES", "1 1000 10000 100000").split())

#: The highest allowed ratio.
MOST = 1.15

_BAR = 40


class Grown:
    """A machine with ``size`` registered installations, in files, and as many cached tokens."""

    def __init__(
        self, folder: Path, command: str, size: int, payload: dict[str, Any], environment: dict[str, str]
    ) -> None:
        home, runtime = folder / "home", folder / "run"
        home.mkdir(parents=True)
        runtime.mkdir(mode=0o700)
        self._command = command
        self.size = size
        self.environment = environment | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_DIRS": str(folder / "etc"),
        }
        self.run("register", "--insecure-storage", "-", data=json.dumps(payload))
        if size > 1:
            self._register_many(home, payload)
            _fill_cache(runtime / "git-credential-bbjwt", size)

    def _register_many(self, home: Path, payload: dict[str, Any]) -> None:
        """Write the other entries in the form of the first, which takes a tenth of the command's time."""
        name = "team0"
        first = another(payload, name)
        before = set(home.rglob("*"))
        self.run("register", "--insecure-storage", "-", data=json.dumps(first))
        first_uuid = first["principal"]["uuid"]
        templates = [path for path in sorted(set(home.rglob("*")) - before) if path.is_file()]
        templates = [path for path in templates if name in path.name or first_uuid in path.name]
        assert len(templates) == 2, templates
        texts = [(str(path), path.read_text(), path.stat().st_mode & 0o777) for path in templates]
        for number in range(1, self.size - 1):
            changed = {name: f"team{number}", first_uuid: f"{{{uuid.UUID(int=number)}}}"}
            for path, text, mode in texts:
                for old, new in changed.items():
                    path, text = path.replace(old, new), text.replace(old, new)
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                os.write(fd, text.encode())
                os.close(fd)

    def run(self, *words: str, data: str = "") -> float:
        """Run the command; return its seconds."""
        started = time.perf_counter()
        done = subprocess.run([self._command, *words], input=data.encode(), capture_output=True, env=self.environment)
        seconds = time.perf_counter() - started
        assert done.returncode == 0, done.stderr.decode()
        return seconds


def another(payload: dict[str, Any], workspace: str) -> dict[str, Any]:
    """Return the payload of the same app on another workspace."""
    workspace_uuid = f"{{{uuid.uuid4()}}}"
    principal = payload["principal"] | {"uuid": workspace_uuid, "username": workspace}
    client_key = f"ari:cloud:bitbucket::app/{workspace_uuid}/{payload['key']}"
    return payload | {"principal": principal, "user": principal, "clientKey": client_key}


def _fill_cache(path: Path, size: int) -> None:
    folder = PrivateFolder(str(path), create=True)
    cache = TokenCache(folder, folder, folder)
    now = int(time.time())
    for number in range(1, size):
        record = whole_record(f"team{number}", minted=now, expires=now + 7200)
        Slot(cache, record.repository, record.scope, record.app).keep(record)


def cases_for(payload: dict[str, Any]) -> dict[str, Callable[[Grown], float]]:
    """Return the operations to measure."""
    host = payload["baseUrl"].removeprefix("https://")
    request = f"protocol=https\nhost={host}\npath=acme/widgets.git\n\n"
    foreign = request.replace(host, "github.com")
    extra = json.dumps(another(payload, "one-more"))
    return {
        "get, cached": lambda machine: machine.run("get", data=request),
        "get, foreign host": lambda machine: machine.run("get", data=foreign),
        "mint": lambda machine: (machine.run("erase", data=request), machine.run("get", data=request))[1],
        "register one more": lambda machine: machine.run("register", "--insecure-storage", "-", data=extra),
        "unregister one": lambda machine: machine.run("unregister", "one-more"),
    }


def measured(
    folder: Path, sizes: tuple[int, ...], command: str, payload: dict[str, Any], environment: dict[str, str], runs: int
) -> tuple[dict[str, dict[int, list[float]]], list[Grown]]:
    """Return the seconds of each case at each size, measured in turn after one run of each; and the machines."""
    machines = [Grown(folder / str(size), command, size, payload, environment) for size in sizes]
    times: dict[str, dict[int, list[float]]] = {}
    for number in range(runs + 1):
        for name, case in cases_for(payload).items():
            for machine in machines:
                seconds = case(machine)
                if number:
                    times.setdefault(name, {}).setdefault(machine.size, []).append(seconds)
    return times, machines


def ratios(folder: Path, command: str, payload: dict[str, Any], environment: dict[str, str], runs: int) -> None:
    """Print the cost of each case with the most installations, compared with one."""
    few, many = 1, max(SIZES)
    times, _ = measured(folder, (few, many), command, payload, environment, runs)
    for name, by_size in times.items():
        ratio = statistics.median(by_size[many]) / statistics.median(by_size[few])
        halves = [statistics.median(by_size[few][start::2]) for start in (0, 1)]
        over = "  over" if ratio > MOST else ""
        print(
            f"  {'13.1':<7}{name:<58}{ratio:>7.2f}{MOST:>9.2f}{abs(halves[0] / halves[1] - 1):>7.0%}{over}", flush=True
        )


def main() -> None:
    """Print each case's curve."""
    command = Path(sys.executable).with_name("git-credential-bbjwt")
    runs = int(os.environ.get("BBJWT_BENCHMARK_RUNS", "41")) // 2
    with tempfile.TemporaryDirectory() as name, Emulator(Path(name) / "bitbucket") as bitbucket:
        payload = bitbucket.payload(bitbucket.install("acme"))
        bitbucket.host_repository("acme/widgets")
        environment = {"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(bitbucket.ca_file)}
        times, machines = measured(Path(name) / "growth", SIZES, str(command), payload, environment, runs)
        times["list"] = {machine.size: [machine.run("list")] for machine in machines}
        times["register 10,000"] = {10_000: [register_many(machines[0], payload, 10_000)]}
        shutil.rmtree(Path(name) / "growth")
    print(f"Installations and kept tokens (medians of {runs} whole processes, in turn)")
    for case, by_size in times.items():
        medians = {size: statistics.median(seconds) for size, seconds in by_size.items()}
        longest = max(medians.values())
        for size, seconds in medians.items():
            bar = "#" * max(1, round(seconds / longest * _BAR))
            print(f"  {case:<18}{size:>8}{seconds * 1000:9.1f} ms {seconds / medians[min(medians)]:7.2f} x  {bar}")


def register_many(machine: Grown, payload: dict[str, Any], count: int) -> float:
    """Register ``count`` payloads by one command; return its seconds (at most 20 for 10,000)."""
    lines = "\n".join(json.dumps(another(payload, f"more{number}")) for number in range(count))
    return machine.run("register", "--insecure-storage", "-", data=lines)


if __name__ == "__main__":
    main()
